// Package heartbeat carries small datagrams between the nodes of a cluster, on
// every network all the time.
//
// Path i joins our address i to the peer's address i. Datagrams are sealed with
// AES-256-GCM; the keys come from the TLS connections that package peer makes,
// so a datagram needs no name in it: the key says whose it is. Nothing is told
// about lost, repeated or reordered datagrams but what each of them says; a
// repeated one is never delivered.
//
//	0  3  magic "TkH"
//	3  1  version of this format, 1
//	4  8  id of the key
//	12 4  random part of the nonce
//	16 8  counter of the key, from 1: the other part of the nonce
//	24    sealed payload of at most MaxPayload bytes, then a tag of 16
//
// The counter alone makes the nonce unique; the random part is for a guest that
// was set back to an old snapshot and would count again where it once was.
package heartbeat

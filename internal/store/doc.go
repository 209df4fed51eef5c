// Package store keeps what consensus must not forget on one node: hard state,
// log entries, one snapshot, and small named values beside them. It is one
// bbolt file, and every Save is one durable transaction.
//
// Damage is never papered over. The file is checked from end to end before it
// is used: both headers, every reachable page, a checksum over every value, and
// the shape of the log. A file that fails is refused and left as it is, because
// a node that forgets a vote or an entry can break the promises of the cluster.
// Only SetAside, an operator's decision, makes room for a blank one.
package store

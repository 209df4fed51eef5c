// Package identity holds who a node is: the CA of its cluster, the node's own
// certificate, and the one-time tokens by which another node joins or another
// cluster is linked. It says what TLS must be at every door and does no
// networking itself.
//
// # Whose certificate
//
// Who someone is depends only on the CA that signed the certificate, never on
// the names in it. A certificate of the cluster's own CA makes its holder a
// node of this cluster, one of a linked cluster's CA makes it that link. Every
// CA is tried alone, so one link can never speak for another.
//
// # Expiry
//
// Inside a cluster an expired certificate is reported (Alarms, Caller.Expired)
// and still accepted: a cluster whose clock is wrong, or whose administrator was
// away for two years, must not lose its service for that. The chain is then
// judged at the moment nearest to now at which all of it is valid. Certificates
// of other clusters are judged strictly: a link that expired is refused.
//
// # Files
//
// ca.pem holds one or more CA certificates. The first one signs, all of them
// are trusted, so a CA can be replaced step by step. ca.key is the key of the
// first one; a witness has none. node.pem and node.key are the node's own.
// Every file is replaced atomically, and a crash between two of them leaves a
// directory that still loads.
package identity

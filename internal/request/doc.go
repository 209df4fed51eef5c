// Package request asks linked clusters: it carries api.Request to POST
// /v1/requests of their nodes and brings the answers back.
//
// A Sender keeps one connection (TLS 1.3, HTTP/2) open for each address of each
// node of each link, so that a request costs one round trip, and so that it is
// known beforehand which addresses are dead. A request goes to the best address
// first; if that stays silent for a moment the next one is tried as well, and the
// first answer counts. That is safe because a request carries an id: whoever
// gets it twice acts once.
//
// What the other end has to do for that:
//   - GET /v1/ping is answered, with any status. It proves an address; an HTTP/2
//     ping every second keeps it proven.
//   - A request id that is being carried out gets the same answer, not a second
//     execution, also if it comes in over another connection or by another node
//     of the cluster; and it goes on when the connection that it came by ends.
//
// GRP_FAILOVER and fence act once in a cluster, so the hosts of one cluster are one
// target: they are asked in the order given, the next one when the one before
// is silent or cannot answer, until one answers or time is up. EXEC_SCRIPT is a
// matter of each host: all are asked at once, each with an id of its own,
// "ID@NODE".
//
// A host that is unknown, or cannot be reached, gets an error of its own and
// does not keep the others from being asked: requests are sent when something
// has just broken.
package request

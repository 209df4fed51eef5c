// Package outlet brings the events that this node writes to the outside: to
// journald, a syslog daemon, a web server or a program, as the cluster file says.
//
// Each event is delivered at least once to each outlet, in the order in which the
// node wrote them, and has a number that counts what that outlet of that node
// delivered. A cursor on disk says how far an outlet is; it is written at most
// once a second, so after a crash the events of the last second come again, with
// the same numbers. The events themselves stay in the journal, of which an outlet
// reads a few at a time: one that is dead costs nothing but attempts, and what it
// did not take waits for it until the journal drops it. That is then counted and
// told.
//
// Only the node that wrote an event delivers it, so the other nodes need not agree
// on who does, and a node that was cut off delivers what it did meanwhile.
package outlet

// Package journal is the operator's log of the whole cluster: every node keeps
// the events of all nodes.
//
// A node numbers its own events; those of others arrive at once or later by
// comparing digests, which say in spans of numbers what a node holds. A node
// asks only for what another one claims to hold, so numbers that were never
// used, or whose events nobody has any more, hold nothing up.
//
// The files are append-only segments of text lines, each with a checksum. Not
// a data base: events are only ever added and dropped from the old end, nothing
// here is worth an fsync on the way of a decision, damage costs one line, and
// an administrator can read them with any tool when the daemon is down. An
// index of about 60 bytes for each event is in memory, the events are not.
//
// Writing happens behind the caller's back: Run brings what was appended to
// the disk within SyncEvery. After a crash the last events may be gone here,
// their numbers are not used again (blocks of numbers are reserved durably),
// and what other nodes have of them comes back.
package journal

// Package ledger counts acknowledged writes: a service that appends lines to a
// file and says so only when they are durable, and a client that remembers what
// it was told, goes on through failovers, and at the end looks for all of it.
//
// The file is text. A line is a record:
//
//	NUMBER TEXT CHECKSUM
//
// NUMBER counts from 1 and belongs to the file. TEXT is the client's, without
// spaces. CHECKSUM is the CRC-32C of what is before it, in eight hexadecimal
// digits. What is not such a line was torn by a crash, and counts as nothing.
package ledger

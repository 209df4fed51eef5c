// Package state is the replicated state of a cluster and the only function that
// changes it. Apply is deterministic: the same commands in the same order give
// the same state on every node, so it reads no clock and draws no random
// number. Times in commands are wall-clock times of the node that made them.
// They are text for people, and what the leader compares with its own wall clock
// to decide that something is over; a clock that jumps makes that early or late
// and nothing else.
package state

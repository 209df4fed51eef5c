// Package state is the replicated state of a cluster and the only function that
// changes it. Apply is deterministic: the same commands in the same order give
// the same state on every node, so it reads no clock and draws no random
// number; times in commands are wall-clock text for people and never decide.
package state

// Package engine is the motor of a node: one machine owns the node's part of
// the replicated state, its lease, its groups and its monitors. Step takes one
// event and returns effects in a written order: persist, then send, then act.
// It reads no clock and starts no goroutine (loop.go, which drives it in
// production, is the only file that may), so the simulator runs the same code.
package engine

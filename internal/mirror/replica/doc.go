// Package replica is what one copy of a mirror disk does: which write goes where
// and when, what must be on the meta device before it, when a request of the
// kernel is complete, what the other copy may differ in, and who is copied to.
// It is pure: a Core is told what happened and answers with Effects, which its
// caller carries out in their order. Nothing in it waits, and no time passes but
// by Tick. So the process that serves a disk and the simulator run the same code.
//
// A Core is not safe for concurrent use; the caller holds a lock around each
// call and the taking of its effects.
package replica

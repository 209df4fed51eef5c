//go:build race

package replica_test

// raced says that the race detector watches, which makes a story ten times as
// long.
const raced = true

//go:build race

package sim

// raced says whether the race detector watches. It makes a world, which is one
// goroutine, twenty times as slow, and sees nothing in it.
const raced = true

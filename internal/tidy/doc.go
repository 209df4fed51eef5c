// Package tidy holds the laws of this code and checks them as a test: which
// package may import which, what the pure part must not do, how long a function
// may be, and what must not be left in the tree. It reads source files and
// nothing else.
package tidy

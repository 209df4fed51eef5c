// Package app puts a daemon together: New wires the parts, Run starts them in
// order and stops them last in, first out.
package app

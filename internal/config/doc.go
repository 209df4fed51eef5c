// Package config reads the cluster file: raw YAML in, a typed and checked File
// out, or all errors at once with file, line and column. It does no I/O.
package config

//go:generate go test -run Current$ . -update

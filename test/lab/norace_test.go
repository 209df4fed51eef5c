//go:build !race

package lab_test

var raceFlag []string

const cgo = "0"

//go:build race

package lab_test

// The machines run what the tests are: with the race detector.
var raceFlag = []string{"-race"}

const cgo = "1"

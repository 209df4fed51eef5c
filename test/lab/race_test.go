//go:build race

package lab_test

// raced says that the daemons are to be what the tests are.
const raced = true

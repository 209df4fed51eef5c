// Package draft makes a cluster file of the answers to a few questions. Whether
// the answers are good is for the parser to say: what is wrong in the file that
// they come to is told of the answer that stands there.
package draft

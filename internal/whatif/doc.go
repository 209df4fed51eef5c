// Package whatif asks the shipped machines what they would do. It sets up a copy
// of the cluster, one machine a node from the state that all agree on, lets it
// come to rest, lets something happen to it, and tells what follows. There is no
// second model of any decision here: what is modelled is the outside, in which
// nothing happens by chance. Networks carry at once or not at all, starts and
// stops take as long as they took last and succeed unless told otherwise.
package whatif

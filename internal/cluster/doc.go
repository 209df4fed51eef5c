// Package cluster holds the words of the domain: names and small values that
// every other package uses. It imports nothing of ours.
package cluster

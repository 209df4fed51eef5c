// Package witness keeps the witnesses of many clusters in one process: each is a
// daemon that only votes, in directories of its own. One that fails is told of
// and tried again; the others do not notice.
package witness

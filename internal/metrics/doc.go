// Package metrics tells Prometheus what a daemon knows: the state of the
// cluster as the node sees it, and what the daemon measures itself.
//
// What the cluster agreed on, every node tells, so any one that answers will
// do. What one node alone can know (its lease, its monitors, the resources that
// it runs, what it hears of the others), that node tells.
//
// A scrape looks at the daemon at most once a second however many ask, and
// waits for it only for a moment: a daemon whose engine does not answer, or
// that has no leader, is just when figures are wanted. What is counted all the
// time is counted with atomic operations. There is one Set for each daemon and
// no global registry, because several witnesses share a process.
package metrics

//go:generate go test . -run TestDocs -update

// Package serve is the process that serves one mirror disk on one node: it joins
// the core of package replica with the disks, the link to the other copy, a front
// end and the daemon. It decides nothing: a thing that happens is told to the
// core under a lock, and the effects are carried out after it.
//
// A request of the kernel is taken, sent to the other copy and written here by one
// thread, and completed by the one that reads the confirmation. On the other node
// the thread that reads a frame writes it to the disk and confirms. Small ones of
// many the kernel carries out without a thread each, see begin. What may take
// long, such as the meta device or a copy, has goroutines of its own, so that no
// thread that reads from the link ever waits for a disk of this node.
package serve

// Package keep is what must outlive the process that serves a FUSE front end:
// the connection to the kernel, the file system in it and the loop device on
// its one file, and, in Run, the process itself, which is started again when it
// dies.
//
// It also does every system call that makes the kernel ask the serving process
// something, such as to open the file or to write back the loop device. A
// process that waits for an answer of its own, and is killed then, cannot end:
// nobody is left to answer, and nobody could take its place.
package keep

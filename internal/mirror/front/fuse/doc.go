// Package fuse gives the kernel a block device with nothing but FUSE and loop
// devices: a file system with one file, which is mounted nowhere, and a loop
// device with direct I/O on that file.
//
//	writer -> loop device -> file -> /dev/fuse -> Front -> front.Device
//
// The kernel's part is held by a keeper, see package keep. When the process that
// serves dies, the next one takes the connection up and asks the kernel for every
// request that was not answered. Until then writers wait. That needs Linux 6.9.
//
// The loop device says "punch a hole" for a discard and for a request to make
// zeroes alike, so both are front.Zero. It has no FUA: the kernel flushes after
// such a write. It lets no write begin while a flush or a Zero is under way. Where
// the sysctl fs.fuse.max_request_timeout is set (Linux 6.15) no request may wait for
// longer than that, or the kernel ends the connection.
package fuse

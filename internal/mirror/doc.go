// Package mirror is the house of the mirror disk: a block device of which two
// nodes keep a copy each, and which exactly one of them offers at a time. It has
// rooms of its own, and knows nothing of groups, leases or consensus: who is
// active, and who is in the in-sync set, is told to it.
//
//	bitmap     which blocks differ                        pure
//	meta       what stands on the meta device             pure
//	wire       what goes over the link                    pure
//	replica    what one copy does, and when               pure
//	disk       data and meta devices
//	link       authenticated, encrypted connections between the two copies
//	front      what gives the kernel a block device: fuse, nbd
//	serve      the process that joins them, one per mirror disk and node
//	control    how the daemon talks to that process
//	look       which files of a copy have changed
//	discarded  what was on copies that were given up
//
// docs/decisions/0013-mirror-disk.md says why it is cut this way, and
// docs/mirror-format.md has every byte that it writes or sends.
package mirror

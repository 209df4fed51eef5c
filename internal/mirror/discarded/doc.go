// Package discarded keeps what a copy holds that is about to be given up: after a
// split brain the copy whose writes are discarded is overwritten, and somebody may
// find out later that something of it was needed.
//
// It is kept where it costs least: as a clone where the data device is a file whose
// file system shares blocks (xfs, btrfs), as a snapshot where it is a logical volume,
// else in a file with the blocks themselves. In each case there is a record of it, a
// file that docs/mirror-format.md has every byte of. Nothing is ever removed by
// itself.
package discarded

// Package meta is what stands on the meta device of a mirror disk: the layout of
// the device, and the codecs of its blocks. It reads and writes nothing itself.
//
// There are three kinds of blocks: two superblocks, used in turn, that say which
// data this copy holds; two slots, used in turn, for the activity log, which
// names the extents that are being written; and pages of the bitmap of blocks
// that may differ. Each block begins with the same header and has a checksum, the
// device's UUID and its own position, so that a torn, stray, older or foreign
// block is found out. docs/mirror-format.md has every byte.
package meta

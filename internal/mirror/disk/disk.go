// Package disk is the data and meta devices of a mirror disk: block devices or
// files, opened for direct I/O, and a layer that makes them fail on purpose for
// tests.
//
// Open opens a device or a file, Mem is one in memory. Measure puts counters and
// times around a Disk, Faulty puts faults and power cuts around it. They are
// meant to be stacked: Measure(Faulty(Open(...))) sees a fault as the engine
// does.
package disk

// Disk is one device. Its methods may be called at the same time. Buffers begin
// at a multiple of Alignment; offsets and lengths are multiples of SectorSize.
type Disk interface {
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes all of p. If durable, it is as if Flush followed for p.
	WriteAt(p []byte, off int64, durable bool) error
	// Flush makes durable what was written before it was called.
	Flush() error
	// Discard tells that the content of a range does not matter; Zero makes it
	// read as zeroes, by any means, and gives space back if it can.
	Discard(off, n int64) error
	Zero(off, n int64) error
	Size() (int64, error) // now, in bytes; devices grow
	SectorSize() int      // 512 or 4096
	Close() error
}

// Alignment is what the address of every buffer is a multiple of.
const Alignment = 4096

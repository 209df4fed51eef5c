package meta

import "fmt"

// Where the blocks stand: the two halves of the head have a superblock and a
// slot of the activity log each, far enough apart that nothing that tears one
// reaches the other; the pages of the bitmap follow, as many as the device has
// room for.
const (
	halfSize  = 64 << 10
	logInHalf = 16 << 10
	pagesAt   = 2 * halfSize
)

// maxBits is how large the bitmap of a new device gets: 8 MiB of bits, that is
// 4 KiB for each bit up to 256 GiB.
const maxBits = 8 << 20 * 8

// maxSize bounds the size of a device, so that nothing overflows.
const maxSize = 1 << 60

// SuperOffset returns where the superblock of a slot, 0 or 1, begins, in bytes.
func SuperOffset(slot int) int64 { return int64(slot) * halfSize }

// LogOffset returns where a slot, 0 or 1, of the activity log begins, in bytes.
func LogOffset(slot int) int64 { return int64(slot)*halfSize + logInHalf }

// PageOffset returns where bitmap page no begins, in bytes.
func PageOffset(no int64) int64 { return pagesAt + no*PageSize }

// Layout is what a device of Size bytes takes on the meta device. Offsets do not
// depend on it, so a device that grows moves nothing.
type Layout struct {
	Size       int64
	BlockShift uint8 // a bit stands for 1<<BlockShift bytes
	Blocks     int64 // bits; the last block may be a part of one
	Pages      int64 // of the bitmap
	Total      int64 // bytes of the meta device that are used
}

// ShiftFor returns the BlockShift of a new device of size bytes.
func ShiftFor(size int64) uint8 {
	shift := uint8(MinShift)
	for shift < MaxShift && blocks(size, shift) > maxBits {
		shift++
	}
	return shift
}

// LayoutOf returns the layout for a device of size bytes that was constructed
// with that shift.
func LayoutOf(size int64, shift uint8) Layout {
	l := Layout{Size: size, BlockShift: shift, Blocks: blocks(size, shift)}
	l.Pages = (l.Blocks + BitsPerPage - 1) / BitsPerPage
	l.Total = PageOffset(l.Pages)
	return l
}

// LayoutFor returns the layout for a new device of size bytes on a meta device
// of metaBytes, or an error that says how large that must be.
func LayoutFor(size, metaBytes int64) (Layout, error) {
	if size <= 0 || size > maxSize || size%512 != 0 {
		return Layout{}, fmt.Errorf("a mirror disk of %d bytes: the size must be a multiple of 512, at most 2^60", size)
	}
	l := LayoutOf(size, ShiftFor(size))
	if l.Total > metaBytes {
		return Layout{}, fmt.Errorf("the meta device has %d bytes: a mirror disk of %d bytes needs %d", metaBytes, size, l.Total)
	}
	return l, nil
}

// MaxSize returns how large, in bytes, a device that was constructed with that
// shift can become on a meta device of metaBytes; 0 if that is too small for any.
func MaxSize(metaBytes int64, shift uint8) int64 {
	pages := max(metaBytes-pagesAt, 0) / PageSize
	return min(pages, maxSize>>shift/BitsPerPage) * BitsPerPage << shift
}

// blocks returns how many blocks a device of size bytes has.
func blocks(size int64, shift uint8) int64 { return (size-1)>>shift + 1 }

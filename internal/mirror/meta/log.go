package meta

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// The activity log.
const (
	ExtentShift = 22               // an extent is 1<<ExtentShift bytes
	ExtentSize  = 1 << ExtentShift // of the device, the extent n from byte n*ExtentSize on
	LogSize     = 16 << 10         // bytes of a slot
	LogCapacity = (LogSize - atExtents) / 4

	atExtentCount = 64  // uint32
	atExtents     = 128 // uint32 each
)

// EncodeLog returns the activity log for a slot, 0 or 1, in LogSize bytes: the
// whole set of extents that are being written, at most LogCapacity, in any
// order. serial is one more each time. It panics if there are too many.
func EncodeLog(device [16]byte, serial uint64, slot int, extents []uint32) []byte {
	if len(extents) > LogCapacity {
		panic(fmt.Sprintf("meta: %d extents in an activity log for %d", len(extents), LogCapacity))
	}
	b := make([]byte, LogSize)
	binary.LittleEndian.PutUint32(b[atExtentCount:], uint32(len(extents)))
	for i, e := range extents {
		binary.LittleEndian.PutUint32(b[atExtents+4*i:], e)
	}
	header{kindLog, device, serial, LogOffset(slot)}.seal(b)
	return b
}

// DecodeLog reads the activity log that was found in a slot, 0 or 1. The extents
// are as they were given to EncodeLog; whether the device has them is for the
// caller to see.
func DecodeLog(device [16]byte, b []byte, slot int) (extents []uint32, serial uint64, err error) {
	h, err := open(b, LogSize, kindLog, LogOffset(slot))
	if err != nil {
		return nil, 0, err
	}
	if err := h.owned(device); err != nil {
		return nil, 0, err
	}
	n := binary.LittleEndian.Uint32(b[atExtentCount:])
	if n > LogCapacity {
		return nil, 0, fmt.Errorf("%w: the activity log has %d extents, more than fit", ErrDamaged, n)
	}
	extents = make([]uint32, n)
	for i := range extents {
		extents[i] = binary.LittleEndian.Uint32(b[atExtents+4*i:])
	}
	return extents, h.serial, nil
}

// NewestLog returns the newer of the logs in the slots, a from slot 0 and b from
// slot 1, with its serial and slot; the next one is to be written to the other
// slot. Damaged or blank slots are as in Newest. After any error but ErrVersion
// the caller counts everything as different, if the copy was active.
func NewestLog(device [16]byte, a, b []byte) (extents []uint32, serial uint64, slot int, err error) {
	e0, n0, err0 := DecodeLog(device, a, 0)
	e1, n1, err1 := DecodeLog(device, b, 1)
	slot, err = newer(n0, n1, err0, err1)
	switch {
	case err != nil:
		return nil, 0, 0, err
	case err0 == nil && err1 == nil && n0 == n1 && !slices.Equal(e0, e1):
		return nil, 0, 0, fmt.Errorf("%w: two activity logs have the number %d and differ", ErrDamaged, n0)
	case slot == 1:
		return e1, n1, 1, nil
	}
	return e0, n0, 0, nil
}

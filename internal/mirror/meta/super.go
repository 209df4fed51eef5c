package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Generation names a history of the data. Two copies of the same generation
// differ at most where either has marked it. They are random numbers that the
// caller draws; 0 is none.
type Generation uint64

// String returns 16 hexadecimal digits, or "none".
func (g Generation) String() string {
	if g == 0 {
		return "none"
	}
	return fmt.Sprintf("%016x", uint64(g))
}

// Bounds of a superblock.
const (
	SuperSize    = 4096 // bytes of a slot
	MaxAncestors = 16   // older ones are forgotten
	MaxName      = 64   // bytes of a node's name
	MinShift     = 12   // of BlockShift: 4 KiB for each bit
	MaxShift     = 30
)

// Super is the superblock: which data this copy holds.
type Super struct {
	Device [16]byte // of the mirror disk, the same on both copies, made at its construction
	Serial uint64   // one more each time that it is written
	Node   string   // whose copy it is, and the node of the other one; at most MaxName bytes each
	Peer   string

	Size       int64 // of the replicated device in bytes, a multiple of 512, at most 1<<60
	BlockShift uint8 // a bit of the bitmap stands for 1<<BlockShift bytes

	Current   Generation
	Base      Generation   // since which the bitmap has counted
	Ancestors []Generation // of Current, newest first, none of them 0; MaxAncestors are kept
	Epoch     uint64       // the highest that this copy was told of

	Active       bool // it was the active copy, and was not demoted since
	Inconsistent bool // it is the target of a copy that has not ended: it holds no state that ever was
	Constructed  bool // it was complete once
	Failed       bool // its data device had an error
	Kept         bool // it lost a split brain and is kept aside until an operator decides
	Shared       bool // the other copy may have Current too, or may count as complete

	Since   int64 // when Current began, and when this copy last wrote as the active one, in
	Written int64 // seconds since 1970 by its own clock; for people
}

// Where the parts of a superblock stand.
const (
	atSize      = 64  // int64
	atCurrent   = 72  // uint64
	atBase      = 80  // uint64
	atEpoch     = 88  // uint64
	atFlags     = 96  // uint32
	atShift     = 100 // uint8
	atCount     = 101 // uint8, of ancestors
	atNodeLen   = 102 // uint8
	atPeerLen   = 103 // uint8
	atNode      = 104 // MaxName bytes
	atPeer      = 168 // MaxName bytes
	atAncestors = 232 // MaxAncestors uint64
	atSince     = 360 // int64
	atWritten   = 368 // int64
)

// flags are its flags, the first one in the lowest bit.
func (s *Super) flags() []*bool {
	return []*bool{&s.Active, &s.Inconsistent, &s.Constructed, &s.Failed, &s.Kept, &s.Shared}
}

// Check says what is out of bounds.
func (s Super) Check() error {
	switch {
	case s.Size <= 0 || s.Size > maxSize || s.Size%512 != 0:
		return fmt.Errorf("a device of %d bytes", s.Size)
	case s.BlockShift < MinShift || s.BlockShift > MaxShift:
		return fmt.Errorf("a bit for each 2^%d bytes", s.BlockShift)
	case len(s.Node) > MaxName || len(s.Peer) > MaxName:
		return fmt.Errorf("a name of a node is longer than %d bytes", MaxName)
	}
	for _, a := range s.Ancestors {
		if a == 0 {
			return errors.New("an ancestor without a number")
		}
	}
	return nil
}

// EncodeSuper returns the superblock for a slot, 0 or 1, in SuperSize bytes. It
// panics if s.Check fails: what comes from outside is checked there.
func EncodeSuper(s Super, slot int) []byte {
	if err := s.Check(); err != nil {
		panic("meta: " + err.Error())
	}
	s.Ancestors = s.Ancestors[:min(len(s.Ancestors), MaxAncestors)]
	b := make([]byte, SuperSize)
	binary.LittleEndian.PutUint64(b[atSize:], uint64(s.Size))
	binary.LittleEndian.PutUint64(b[atCurrent:], uint64(s.Current))
	binary.LittleEndian.PutUint64(b[atBase:], uint64(s.Base))
	binary.LittleEndian.PutUint64(b[atEpoch:], s.Epoch)
	var flags uint32
	for i, f := range s.flags() {
		if *f {
			flags |= 1 << i
		}
	}
	binary.LittleEndian.PutUint32(b[atFlags:], flags)
	b[atShift], b[atCount] = s.BlockShift, byte(len(s.Ancestors))
	b[atNodeLen], b[atPeerLen] = byte(len(s.Node)), byte(len(s.Peer))
	copy(b[atNode:], s.Node)
	copy(b[atPeer:], s.Peer)
	for i, a := range s.Ancestors {
		binary.LittleEndian.PutUint64(b[atAncestors+8*i:], uint64(a))
	}
	binary.LittleEndian.PutUint64(b[atSince:], uint64(s.Since))
	binary.LittleEndian.PutUint64(b[atWritten:], uint64(s.Written))
	header{kindSuper, s.Device, s.Serial, SuperOffset(slot)}.seal(b)
	return b
}

// DecodeSuper reads the superblock that was found in a slot, 0 or 1. A flag that
// this program does not know is as a newer version.
func DecodeSuper(b []byte, slot int) (Super, error) {
	h, err := open(b, SuperSize, kindSuper, SuperOffset(slot))
	if err != nil {
		return Super{}, err
	}
	s := Super{
		Device: h.device, Serial: h.serial,
		Size:       int64(binary.LittleEndian.Uint64(b[atSize:])),
		BlockShift: b[atShift],
		Current:    Generation(binary.LittleEndian.Uint64(b[atCurrent:])),
		Base:       Generation(binary.LittleEndian.Uint64(b[atBase:])),
		Epoch:      binary.LittleEndian.Uint64(b[atEpoch:]),
		Since:      int64(binary.LittleEndian.Uint64(b[atSince:])),
		Written:    int64(binary.LittleEndian.Uint64(b[atWritten:])),
	}
	if b[atCount] > MaxAncestors || b[atNodeLen] > MaxName || b[atPeerLen] > MaxName {
		return Super{}, fmt.Errorf("%w: the superblock has more in it than fits", ErrDamaged)
	}
	s.Node, s.Peer = string(b[atNode:][:b[atNodeLen]]), string(b[atPeer:][:b[atPeerLen]])
	for i := range int(b[atCount]) {
		s.Ancestors = append(s.Ancestors, Generation(binary.LittleEndian.Uint64(b[atAncestors+8*i:])))
	}
	flags, known := binary.LittleEndian.Uint32(b[atFlags:]), s.flags()
	if bits.Len32(flags) > len(known) {
		return Super{}, fmt.Errorf("%w: the superblock has flags %#x; install the newer version again", ErrVersion, flags)
	}
	for i, f := range known {
		*f = flags>>i&1 == 1
	}
	if err := s.Check(); err != nil {
		return Super{}, fmt.Errorf("%w: the superblock says %w", ErrDamaged, err)
	}
	return s, nil
}

// Newest returns the newer of the superblocks in the slots, a from slot 0 and b
// from slot 1, and its slot; the next one is to be written to the other slot. If
// one slot is damaged or blank, the other one counts: it is what a torn write
// leaves. A slot of a newer format or another mirror disk is an error even
// beside a good one: somebody else was here since.
func Newest(a, b []byte) (Super, int, error) {
	s0, err0 := DecodeSuper(a, 0)
	s1, err1 := DecodeSuper(b, 1)
	slot, err := newer(s0.Serial, s1.Serial, err0, err1)
	switch {
	case err != nil:
		return Super{}, 0, err
	case err0 == nil && err1 == nil && s0.Device != s1.Device:
		return Super{}, 0, fmt.Errorf("%w: one superblock belongs to the mirror disk %x, the other to %x; "+
			"wipe the device if nobody needs either", ErrForeign, s0.Device, s1.Device)
	case err0 == nil && err1 == nil && s0.Serial == s1.Serial && !bytes.Equal(a[headerSize:], b[headerSize:]):
		return Super{}, 0, fmt.Errorf("%w: two superblocks have the number %d and differ", ErrDamaged, s0.Serial)
	case slot == 1:
		return s1, 1, nil
	}
	return s0, 0, nil
}

// newer returns the slot with the higher serial among those that were read
// without error.
func newer(serial0, serial1 uint64, err0, err1 error) (int, error) {
	for _, err := range []error{err0, err1} {
		if errors.Is(err, ErrVersion) || errors.Is(err, ErrForeign) {
			return 0, err
		}
	}
	switch {
	case err0 == nil && err1 == nil && serial1 > serial0, err0 != nil && err1 == nil:
		return 1, nil
	case err0 == nil:
		return 0, nil
	case errors.Is(err0, ErrBlank):
		return 0, err1 // blank as well, or damaged
	}
	return 0, err0
}

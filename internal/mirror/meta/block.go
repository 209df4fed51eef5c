package meta

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Version is the format that this program writes and the highest that it reads.
const Version = 1

// What is wrong with a block. Errors of this package wrap one of them, and are
// told to administrators: the caller adds which device it is.
var (
	// ErrBlank: there are only zeroes, as on a new device.
	ErrBlank = errors.New("nothing was written here yet")
	// ErrDamaged: a block of ours that is torn, changed, or somebody else's place.
	ErrDamaged = errors.New("damaged")
	// ErrForeign: not a block of a mirror disk, or one of another mirror disk.
	ErrForeign = errors.New("not of this mirror disk")
	// ErrVersion: a newer program wrote it.
	ErrVersion = errors.New("written by a newer version")
)

// kind is what a block is.
type kind uint8

const (
	kindSuper kind = iota + 1
	kindLog
	kindPage
)

func (k kind) String() string {
	return [...]string{"block", "superblock", "activity log", "bitmap page"}[k]
}

// The header that every block begins with, all little-endian.
const (
	magic = "TkMirror"

	atVersion  = 8  // uint16
	atKind     = 10 // uint8
	atLength   = 12 // uint32, bytes of the block
	atSerial   = 16 // uint64
	atDevice   = 24 // UUID of the mirror disk
	atPosition = 40 // int64, bytes from the begin of the meta device
	atSum      = 48 // xxhash64 of the block with these 8 bytes 0
	headerSize = 64
)

// header is what the codecs need of it.
type header struct {
	kind     kind
	device   [16]byte
	serial   uint64
	position int64
}

// seal writes the header into b, whose rest is complete.
func (h header) seal(b []byte) {
	copy(b, magic)
	binary.LittleEndian.PutUint16(b[atVersion:], Version)
	b[atKind] = byte(h.kind)
	binary.LittleEndian.PutUint32(b[atLength:], uint32(len(b)))
	binary.LittleEndian.PutUint64(b[atSerial:], h.serial)
	copy(b[atDevice:], h.device[:])
	binary.LittleEndian.PutUint64(b[atPosition:], uint64(h.position))
	binary.LittleEndian.PutUint64(b[atSum:], sum(b))
}

// open checks a block of so many bytes that was read as a kind from a position.
// What is ours and whole is then asked for its version: a newer format keeps the
// header and the checksum.
func open(b []byte, size int, k kind, position int64) (header, error) {
	var h header
	switch {
	case len(b) != size:
		return h, fmt.Errorf("%w: the %s has %d bytes instead of %d", ErrDamaged, k, len(b), size)
	case blank(b):
		return h, fmt.Errorf("the %s is blank: %w", k, ErrBlank)
	case blank(b[:headerSize]):
		return h, fmt.Errorf("%w: the %s has no beginning", ErrDamaged, k)
	case string(b[:len(magic)]) != magic:
		return h, fmt.Errorf("%w: something else stands where the %s should be; "+
			"see what it is, and wipe the device if nobody needs it", ErrForeign, k)
	case binary.LittleEndian.Uint64(b[atSum:]) != sum(b):
		return h, fmt.Errorf("%w: the %s has a wrong checksum", ErrDamaged, k)
	}
	h = header{
		kind: kind(b[atKind]), device: [16]byte(b[atDevice:]),
		serial: binary.LittleEndian.Uint64(b[atSerial:]), position: int64(binary.LittleEndian.Uint64(b[atPosition:])),
	}
	version := binary.LittleEndian.Uint16(b[atVersion:])
	switch {
	case version > Version:
		return h, fmt.Errorf("%w: the %s has format %d, this program knows %d; "+
			"install the newer version again", ErrVersion, k, version, Version)
	case version == 0 || h.kind != k || binary.LittleEndian.Uint32(b[atLength:]) != uint32(size):
		return h, fmt.Errorf("%w: what stands in the place of the %s is another kind of block", ErrDamaged, k)
	case h.position != position:
		return h, fmt.Errorf("%w: the %s at byte %d was meant for byte %d", ErrDamaged, k, position, h.position)
	}
	return h, nil
}

// owned says whether the block belongs to the device.
func (h header) owned(device [16]byte) error {
	if h.device != device {
		return fmt.Errorf("%w: the %s belongs to the mirror disk %x, not to %x", ErrForeign, h.kind, h.device, device)
	}
	return nil
}

// sum is the xxhash64 of a block in which the checksum itself counts as zero.
func sum(b []byte) uint64 {
	var zero [8]byte
	d := xxhash.New()
	_, _ = d.Write(b[:atSum]) // never fails
	_, _ = d.Write(zero[:])
	_, _ = d.Write(b[atSum+8:])
	return d.Sum64()
}

// blank says whether there are only zeroes.
func blank(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

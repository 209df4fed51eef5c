package discarded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

// Kind is how a copy is kept.
type Kind uint8

// The kinds.
const (
	Blocks   Kind = iota + 1 // in the record itself
	Clone                    // as a file beside the data device, which is Target
	Snapshot                 // as a logical volume, which Target names as GROUP/VOLUME
)

// String returns its name in lower case.
func (k Kind) String() string {
	if k < Blocks || k > Snapshot {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return [...]string{"", "blocks", "clone", "snapshot"}[k]
}

// Record says what is kept, and where.
type Record struct {
	Kind   Kind
	Whole  bool       // of Blocks: all of the device is in it; else what had changed on this copy alone
	Made   time.Time  // by the clock of the node; whole seconds
	Super  meta.Super // of the copy at that moment
	Source string     // the data device; at most maxPath bytes
	Target string     // of a clone or snapshot; at most maxPath bytes
	Count  int64      // of Blocks that are not whole: how many blocks
	mapSum uint64     // xxhash64 of the map of them
}

// Version is the format that this program writes and the highest that it reads.
const Version = 1

const (
	magic = "TkDiscrd"

	// Where the parts of a record stand. A superblock follows, as in slot 0 of a meta
	// device, then the map of the blocks, then they themselves.
	atVersion   = 8  // uint16
	atKind      = 10 // uint8
	atFlags     = 11 // uint8: 1 is whole
	atSourceLen = 12 // uint16
	atTargetLen = 14 // uint16
	atMade      = 16 // int64, seconds since 1970
	atCount     = 24 // int64
	atMapSum    = 32 // uint64
	atSum       = 40 // uint64, xxhash64 of the header with these 8 bytes 0
	atSource    = 64 // maxPath bytes
	atTarget    = atSource + maxPath
	maxPath     = 1024
	headerSize  = 4096
	recordSize  = headerSize + meta.SuperSize
	flagWhole   = 1
)

// What is wrong with a record.
var (
	ErrDamaged = errors.New("damaged")
	ErrVersion = errors.New("written by a newer version")
)

// Check says what is out of bounds.
func (r *Record) Check() error {
	switch {
	case r.Kind < Blocks || r.Kind > Snapshot:
		return fmt.Errorf("kept as %s", r.Kind)
	case len(r.Source) > maxPath || len(r.Target) > maxPath:
		return fmt.Errorf("a path is longer than %d bytes", maxPath)
	case r.Count < 0 || r.Count > r.blocks():
		return fmt.Errorf("%d of %d blocks are kept", r.Count, r.blocks())
	}
	return r.Super.Check()
}

// Encode returns the record; it panics if Check fails.
func (r *Record) Encode() []byte {
	if err := r.Check(); err != nil {
		panic("discarded: " + err.Error())
	}
	b := make([]byte, headerSize)
	copy(b, magic)
	binary.LittleEndian.PutUint16(b[atVersion:], Version)
	b[atKind] = byte(r.Kind)
	if r.Whole {
		b[atFlags] = flagWhole
	}
	binary.LittleEndian.PutUint16(b[atSourceLen:], uint16(len(r.Source)))
	binary.LittleEndian.PutUint16(b[atTargetLen:], uint16(len(r.Target)))
	binary.LittleEndian.PutUint64(b[atMade:], uint64(r.Made.Unix()))
	binary.LittleEndian.PutUint64(b[atCount:], uint64(r.Count))
	binary.LittleEndian.PutUint64(b[atMapSum:], r.mapSum)
	copy(b[atSource:], r.Source)
	copy(b[atTarget:], r.Target)
	binary.LittleEndian.PutUint64(b[atSum:], xxhash.Sum64(b)) // which is 0 still
	return append(b, meta.EncodeSuper(r.Super, 0)...)
}

// Decode reads what Encode wrote.
func Decode(b []byte) (r Record, err error) {
	if len(b) != recordSize || string(b[:len(magic)]) != magic {
		return r, fmt.Errorf("%w: this is no record of a discarded copy", ErrDamaged)
	}
	h := append([]byte{}, b[:headerSize]...)
	clear(h[atSum : atSum+8])
	sourceLen, targetLen := int(binary.LittleEndian.Uint16(h[atSourceLen:])), int(binary.LittleEndian.Uint16(h[atTargetLen:]))
	switch version := binary.LittleEndian.Uint16(h[atVersion:]); {
	case xxhash.Sum64(h) != binary.LittleEndian.Uint64(b[atSum:]):
		return r, fmt.Errorf("%w: the record has a wrong checksum", ErrDamaged)
	case version > Version || h[atFlags] > flagWhole:
		return r, fmt.Errorf("%w: the record has format %d and flags %#x", ErrVersion, version, h[atFlags])
	case sourceLen > maxPath || targetLen > maxPath:
		return r, fmt.Errorf("%w: the record has a path that is longer than fits", ErrDamaged)
	}
	r = Record{
		Kind: Kind(h[atKind]), Whole: h[atFlags] == flagWhole, Made: time.Unix(int64(binary.LittleEndian.Uint64(h[atMade:])), 0),
		Source: string(h[atSource:][:sourceLen]), Target: string(h[atTarget:][:targetLen]),
		Count: int64(binary.LittleEndian.Uint64(h[atCount:])), mapSum: binary.LittleEndian.Uint64(h[atMapSum:]),
	}
	if r.Super, err = meta.DecodeSuper(b[headerSize:], 0); err != nil {
		return Record{}, err
	}
	if err := r.Check(); err != nil {
		return Record{}, fmt.Errorf("%w: the record says %w", ErrDamaged, err)
	}
	return r, nil
}

// blocks is how many blocks the device has.
func (r *Record) blocks() int64 { return (r.Super.Size + r.block() - 1) / r.block() }

// block is the size of one, in bytes.
func (r *Record) block() int64 { return 1 << r.Super.BlockShift }

// hasMap says whether a map tells which blocks are kept in the record.
func (r *Record) hasMap() bool { return r.Kind == Blocks && !r.Whole }

// mapSize is how many bytes the map has in the file.
func (r *Record) mapSize() int64 {
	if !r.hasMap() {
		return 0
	}
	return ((r.blocks()+7)/8 + headerSize - 1) / headerSize * headerSize
}

// dataAt is where byte 0 of the device would stand in the file; what is not kept,
// and what is zero, is a hole.
func (r *Record) dataAt() int64 { return recordSize + r.mapSize() }

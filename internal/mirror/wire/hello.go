package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

// The protocols that this program speaks.
const (
	Protocol    = 1 // the highest
	MinProtocol = 1 // the lowest
)

// Bounds of a Hello.
const (
	MaxName      = meta.MaxName // bytes
	MaxVersion   = 64           // bytes
	MaxAncestors = meta.MaxAncestors
	MaxConns     = 32
)

// Hello is how a copy introduces itself on each connection.
type Hello struct {
	Protocol    uint16 // the highest and the lowest that it speaks
	MinProtocol uint16
	Version     string // of the program, for people; at most MaxVersion bytes of UTF-8

	Session uint64 // random, the same on all connections of one attempt
	Conn    uint8  // 0 for control, 1 and up for data
	Conns   uint8  // data connections that there are to be, at most MaxConns

	Device     [16]byte // of the mirror disk; zero if it was never constructed
	Node       string   // whose copy it is, and the node that it wants to speak to; at most MaxName bytes of UTF-8
	Peer       string
	Size       int64  // of the replicated device in bytes; 0 if it was never constructed
	Capacity   int64  // of its data device in bytes; 0 if that cannot be read
	BlockShift uint8  // a bit stands for 1<<BlockShift bytes; 0 if it was never constructed
	SectorSize uint16 // of its data device: 512 or 4096; 0 if that cannot be read

	Current, Base meta.Generation
	Ancestors     []meta.Generation // newest first, none of them 0, at most MaxAncestors
	Dirty         int64             // blocks that are marked here
	Epoch         uint64            // the highest that it was told of

	Active       bool // it is the active copy
	Inconsistent bool // as in meta.Super
	Constructed  bool
	Failed       bool
	Blank        bool // nothing was ever written to its meta device

	Since   int64 // when the current generation began, and when it last wrote, in
	Written int64 // seconds since 1970 by its own clock; for people
}

// flags are its flags, the first one in the lowest bit.
func (h *Hello) flags() []*bool {
	return []*bool{&h.Active, &h.Inconsistent, &h.Constructed, &h.Failed, &h.Blank}
}

// Encode returns the payload, at most MaxWords bytes. What is longer than its
// bound is cut.
func (h Hello) Encode() []byte {
	var flags uint32
	for i, f := range h.flags() {
		if *f {
			flags |= 1 << i
		}
	}
	le := binary.LittleEndian
	b := le.AppendUint16(nil, h.Protocol)
	b = le.AppendUint16(b, h.MinProtocol)
	b = le.AppendUint32(b, flags)
	b = append(b, h.Device[:]...)
	for _, v := range []uint64{
		uint64(h.Size), uint64(h.Capacity), uint64(h.Current), uint64(h.Base), h.Epoch,
		uint64(h.Dirty), h.Session, uint64(h.Since), uint64(h.Written),
	} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint16(b, h.SectorSize)
	b = append(b, h.BlockShift, h.Conn, h.Conns)
	b = appendGenerations(b, h.Ancestors)
	b = appendString(b, h.Node, MaxName)
	b = appendString(b, h.Peer, MaxName)
	return appendString(b, h.Version, MaxVersion)
}

// DecodeHello reads a payload. Flags that are not known, and what follows the
// last part, are ignored: a later protocol may add to it, and never changes what
// stands here.
func DecodeHello(b []byte) (Hello, error) {
	r := reader{b: b}
	h := Hello{Protocol: r.uint16(), MinProtocol: r.uint16()}
	flags := r.uint32()
	for i, f := range h.flags() {
		*f = flags>>i&1 == 1
	}
	copy(h.Device[:], r.take(16))
	h.Size, h.Capacity = int64(r.uint64()), int64(r.uint64())
	h.Current, h.Base = meta.Generation(r.uint64()), meta.Generation(r.uint64())
	h.Epoch, h.Dirty, h.Session = r.uint64(), int64(r.uint64()), r.uint64()
	h.Since, h.Written = int64(r.uint64()), int64(r.uint64())
	h.SectorSize = r.uint16()
	h.BlockShift, h.Conn, h.Conns = r.uint8(), r.uint8(), r.uint8()
	h.Ancestors = r.generations()
	h.Node, h.Peer = r.text(MaxName), r.text(MaxName)
	h.Version = r.text(MaxVersion)
	if r.bad != "" {
		return Hello{}, fmt.Errorf("%w: a greeting with %s", ErrFrame, r.bad)
	}
	return h, h.check()
}

// check says what is out of bounds.
func (h *Hello) check() error {
	wrong := ""
	switch {
	case h.MinProtocol == 0 || h.MinProtocol > h.Protocol:
		wrong = fmt.Sprintf("the protocols %d to %d", h.MinProtocol, h.Protocol)
	case h.Size < 0 || h.Capacity < 0 || h.Dirty < 0 || h.Size%SectorSize != 0:
		wrong = fmt.Sprintf("a device of %d bytes on one of %d with %d marks", h.Size, h.Capacity, h.Dirty)
	case h.BlockShift != 0 && (h.BlockShift < meta.MinShift || h.BlockShift > meta.MaxShift):
		wrong = fmt.Sprintf("a bit for each 2^%d bytes", h.BlockShift)
	case h.SectorSize != 0 && h.SectorSize != 512 && h.SectorSize != 4096:
		wrong = fmt.Sprintf("sectors of %d bytes", h.SectorSize)
	case h.Conns > MaxConns || h.Conn > h.Conns:
		wrong = fmt.Sprintf("connection %d of %d", h.Conn, h.Conns)
	}
	if wrong != "" {
		return fmt.Errorf("%w: a greeting with %s", ErrFrame, wrong)
	}
	return nil
}

// Agree returns the protocol that both copies speak, or says which of them is to
// be upgraded.
func Agree(mine, theirs Hello) (uint16, error) {
	p := min(mine.Protocol, theirs.Protocol)
	if p >= mine.MinProtocol && p >= theirs.MinProtocol {
		return p, nil
	}
	older := theirs.Node
	if mine.Protocol < theirs.Protocol {
		older = mine.Node
	}
	return 0, fmt.Errorf("%s (version %q) and %s (version %q) speak no common protocol; upgrade tasuki on %s",
		mine.Node, mine.Version, theirs.Node, theirs.Version, older)
}

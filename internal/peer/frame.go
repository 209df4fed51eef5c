package peer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame is: magic "TK" (2 bytes), version (1), class (1), sequence (8),
// length (4), then so many bytes.
const (
	headerSize   = 16
	frameVersion = 1
	maxNormal    = 1 << 20
	maxBulk      = 64 << 20
)

// Class says how a message travels.
type Class byte

// The classes. Normal messages go over every path at once, bulk ones over one.
const (
	Normal Class = iota + 1
	Bulk
	hello
	ping
)

type frame struct {
	class Class
	seq   uint64
	data  []byte
}

var errFrame = errors.New("not a frame of this protocol")

func (f frame) append(b []byte) []byte {
	b = append(b, 'T', 'K', frameVersion, byte(f.class))
	b = binary.BigEndian.AppendUint64(b, f.seq)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.data)))
	return append(b, f.data...)
}

// readFrame reads one frame. Its size is checked before anything is allocated.
func readFrame(r *bufio.Reader) (frame, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	if h[0] != 'T' || h[1] != 'K' || h[2] != frameVersion {
		return frame{}, errFrame
	}
	f := frame{class: Class(h[3]), seq: binary.BigEndian.Uint64(h[4:])}
	size, limit := binary.BigEndian.Uint32(h[12:]), uint32(maxNormal)
	switch f.class {
	case Bulk:
		limit = maxBulk
	case Normal, hello, ping:
	default:
		return frame{}, errFrame
	}
	if size > limit {
		return frame{}, fmt.Errorf("a message of %d bytes is more than %d: %w", size, limit, errFrame)
	}
	f.data = make([]byte, size)
	_, err := io.ReadFull(r, f.data)
	return f, err
}

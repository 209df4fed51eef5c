package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind is what a frame is.
type Kind uint8

// The kinds. A and S say who sends it: the active copy, which dials, or the
// standby; R stands for the one that was asked.
const (
	KindHello    Kind = iota + 1 // A, then S: payload Hello, the first frame of each connection
	KindVerdict                  // A: payload Verdict, what follows from both greetings
	KindBitmap                   // S: the marks of Length blocks from Offset on, one bit each; More but for the last frame
	KindWrite                    // A: payload is written to the range
	KindZero                     // A: the range reads as zeroes from now on
	KindDiscard                  // A: the content of the range does not matter any more
	KindFlush                    // A: what was acknowledged before is durable when this is
	KindAck                      // R: the frame with this Seq is done, or failed with Code
	KindCopy                     // A: as a write, of a block that may differ
	KindCopyZero                 // A: as Zero, of blocks that may differ
	KindAdopt                    // A: payload Adopt, the generation of this copy from now on
	KindPing                     // either: answer with a Pong of the same Seq
	KindPong                     // R
	KindRead                     // A: answer with the Data of the range, or an Ack with Code
	KindData                     // R: payload is what stands in the range
	KindSum                      // A: answer with the Sums of the range, or an Ack with Code
	KindSums                     // R: payload is SumSize bytes for each SumBlock of the range, see AppendSums
	KindBye                      // either: payload Bye, the last frame of a connection

	lastKind = KindBye
)

// String returns the name that docs/mirror-format.md has.
func (k Kind) String() string {
	if k == 0 || k > lastKind {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return shapes[k].name
}

// Flags change what a frame means.
type Flags uint8

// The flags.
const (
	FUA        Flags = 1 << iota // it is durable when it is acknowledged
	Compressed                   // the payload is zstd of what it would be, and shorter
	More                         // another frame of the same sequence, or of the same batch of writes, follows at once
)

// Bounds, in bytes.
const (
	HeaderSize = 48
	SectorSize = 512     // offsets and lengths are multiples of it
	MaxData    = 1 << 20 // Length of a frame that carries what is on the disk
	MaxSum     = 1 << 26 // Length of Sum and Sums
	MaxSpan    = 1 << 30 // Length of a frame about a range without its content
	MaxPayload = 1 << 20
	MaxWords   = 4096    // payload of Hello, Verdict, Adopt and Bye
	MaxBits    = 8 << 20 // Length of a Bitmap, in blocks

	frameVersion = 1
)

// ErrFrame: the other copy sent what is no frame of ours. Every error of a
// decoder wraps it.
var ErrFrame = errors.New("the other copy of the mirror disk sent what this one does not understand")

// Frame is a header. What a kind does not use is 0.
type Frame struct {
	Kind    Kind
	Flags   Flags
	Code    uint16 // of an Ack: the errno, 0 is success
	Epoch   uint64 // of the assignment of the group in which it was sent
	Seq     uint64 // its number on the link; of an answer, that of the question
	Offset  int64  // where the range begins on the device, in bytes
	Length  uint32 // of the range in bytes; of a Bitmap, in blocks
	Payload uint32 // bytes that follow the header
}

// shape is what is allowed in a frame.
type shape struct {
	name    string
	flags   Flags
	span    uint32                     // the largest Length; 0: it is about no range
	maybe   bool                       // the range may be missing
	words   bool                       // the payload is 1 to MaxWords bytes
	payload func(length uint32) uint32 // else it is so many; nil: there is none
}

func itself(length uint32) uint32 { return length }
func oneBit(length uint32) uint32 { return (length + 7) / 8 }
func sums(length uint32) uint32   { return (length + SumBlock - 1) / SumBlock * SumSize }

var shapes = [lastKind + 1]shape{
	KindHello:    {name: "hello", words: true},
	KindVerdict:  {name: "verdict", words: true},
	KindBitmap:   {name: "bitmap", flags: More | Compressed, span: MaxBits, payload: oneBit},
	KindWrite:    {name: "write", flags: More | Compressed | FUA, span: MaxData, payload: itself},
	KindZero:     {name: "zero", flags: More | FUA, span: MaxSpan},
	KindDiscard:  {name: "discard", flags: More | FUA, span: MaxSpan},
	KindFlush:    {name: "flush", flags: More},
	KindAck:      {name: "ack", flags: More, span: MaxSpan, maybe: true},
	KindCopy:     {name: "copy", flags: More | Compressed | FUA, span: MaxData, payload: itself},
	KindCopyZero: {name: "copy-zero", flags: More | FUA, span: MaxSpan},
	KindAdopt:    {name: "adopt", words: true},
	KindPing:     {name: "ping"},
	KindPong:     {name: "pong"},
	KindRead:     {name: "read", flags: More, span: MaxData},
	KindData:     {name: "data", flags: More | Compressed, span: MaxData, payload: itself},
	KindSum:      {name: "sum", flags: More, span: MaxSum},
	KindSums:     {name: "sums", flags: More | Compressed, span: MaxSum, payload: sums},
	KindBye:      {name: "bye", words: true},
}

// Where the parts of a header stand, all little-endian.
const (
	atMagic   = 0  // 'T', 'm'
	atVersion = 2  // uint8
	atKind    = 3  // uint8
	atFlags   = 4  // uint8
	atCode    = 6  // uint16
	atEpoch   = 8  // uint64
	atSeq     = 16 // uint64
	atOffset  = 24 // int64
	atLength  = 32 // uint32
	atPayload = 36 // uint32; 8 reserved bytes follow

	magic = uint16('T') | uint16('m')<<8
)

// Put writes the header into the first HeaderSize bytes of b. It does not check
// it.
func (f Frame) Put(b []byte) {
	clear(b[:HeaderSize])
	binary.LittleEndian.PutUint16(b[atMagic:], magic)
	b[atVersion], b[atKind], b[atFlags] = frameVersion, byte(f.Kind), byte(f.Flags)
	binary.LittleEndian.PutUint16(b[atCode:], f.Code)
	binary.LittleEndian.PutUint64(b[atEpoch:], f.Epoch)
	binary.LittleEndian.PutUint64(b[atSeq:], f.Seq)
	binary.LittleEndian.PutUint64(b[atOffset:], uint64(f.Offset))
	binary.LittleEndian.PutUint32(b[atLength:], f.Length)
	binary.LittleEndian.PutUint32(b[atPayload:], f.Payload)
}

// Parse reads a header from the first HeaderSize bytes of b and checks it; size
// is that of the device in bytes. Before the greetings it is 0, and every frame
// about a range is refused.
func Parse(b []byte, size int64) (Frame, error) {
	if len(b) < HeaderSize {
		return Frame{}, fmt.Errorf("%w: a header of %d bytes", ErrFrame, len(b))
	}
	if m := binary.LittleEndian.Uint16(b[atMagic:]); m != magic {
		return Frame{}, fmt.Errorf("%w: a frame begins with %#04x", ErrFrame, m)
	}
	if b[atVersion] != frameVersion {
		return Frame{}, fmt.Errorf("%w: a frame of version %d, this program knows %d", ErrFrame, b[atVersion], frameVersion)
	}
	f := Frame{
		Kind: Kind(b[atKind]), Flags: Flags(b[atFlags]),
		Code:    binary.LittleEndian.Uint16(b[atCode:]),
		Epoch:   binary.LittleEndian.Uint64(b[atEpoch:]),
		Seq:     binary.LittleEndian.Uint64(b[atSeq:]),
		Offset:  int64(binary.LittleEndian.Uint64(b[atOffset:])),
		Length:  binary.LittleEndian.Uint32(b[atLength:]),
		Payload: binary.LittleEndian.Uint32(b[atPayload:]),
	}
	if err := f.Check(size); err != nil {
		return Frame{}, err
	}
	return f, nil
}

// Check says what is wrong with a frame about a device of size bytes: what Parse
// would refuse.
func (f Frame) Check(size int64) error {
	if f.Kind == 0 || f.Kind > lastKind {
		return fmt.Errorf("%w: a frame of kind %d", ErrFrame, uint8(f.Kind))
	}
	s := &shapes[f.Kind]
	if extra := f.Flags &^ s.flags; extra != 0 {
		return fmt.Errorf("%w: a %s with flags %#x", ErrFrame, f.Kind, uint8(extra))
	}
	if f.Code != 0 && f.Kind != KindAck {
		return fmt.Errorf("%w: a %s with an error", ErrFrame, f.Kind)
	}
	if err := f.checkRange(s, size); err != nil {
		return err
	}
	return f.checkPayload(s)
}

func (f Frame) checkRange(s *shape, size int64) error {
	end := f.Offset + int64(f.Length) // does not overflow where Offset is in bounds
	if f.Kind == KindBitmap {
		end = f.Offset + 1 // how long a block is, the greetings say
	}
	switch {
	case s.span == 0 || s.maybe && f.Length == 0:
		if f.Offset != 0 || f.Length != 0 {
			return fmt.Errorf("%w: a %s with a range", ErrFrame, f.Kind)
		}
		return nil
	case f.Length == 0 || f.Length > s.span:
		return fmt.Errorf("%w: a %s of %d", ErrFrame, f.Kind, f.Length)
	case f.Offset%SectorSize != 0 || f.Kind != KindBitmap && f.Length%SectorSize != 0:
		return fmt.Errorf("%w: a %s of %d bytes at %d is no range of sectors", ErrFrame, f.Kind, f.Length, f.Offset)
	case f.Offset < 0 || f.Offset >= size || end > size:
		return fmt.Errorf("%w: a %s of %d at %d on a device of %d bytes", ErrFrame, f.Kind, f.Length, f.Offset, size)
	}
	return nil
}

func (f Frame) checkPayload(s *shape) error {
	least, most := uint32(0), uint32(0)
	switch {
	case s.words:
		least, most = 1, MaxWords
	case s.payload == nil:
	case f.Flags&Compressed != 0:
		least, most = 1, s.payload(f.Length)-1
	default:
		least = s.payload(f.Length)
		most = least
	}
	if f.Payload < least || f.Payload > most || f.Payload > MaxPayload {
		return fmt.Errorf("%w: a %s of %d with %d bytes", ErrFrame, f.Kind, f.Length, f.Payload)
	}
	return nil
}

// Unpacked returns how many bytes the payload has when it is not compressed, or
// was unpacked: at most MaxPayload. The frame was checked.
func (f Frame) Unpacked() int {
	if s := &shapes[f.Kind]; s.payload != nil {
		return int(s.payload(f.Length))
	}
	return int(f.Payload)
}

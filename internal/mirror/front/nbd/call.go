package nbd

import (
	"encoding/binary"
	"sync/atomic"
	"syscall"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

// MaxRequest is how many bytes a read or a write may have: what clients presume
// unless they are told something else (proto.md, "Block size constraints"). The
// kernel was seen to send 1.3 MiB.
const MaxRequest = 32 << 20

// The commands of the transmission phase that are carried out.
const (
	cmdRead = iota
	cmdWrite
	cmdDisconnect
	cmdFlush
	cmdTrim
	cmdCache // not offered
	cmdWriteZeroes
)

// The flags of a command.
const (
	flagFUA    = 1 << 0
	flagNoHole = 1 << 1
)

// A header is what a request begins with, in network order: magic (4 bytes),
// flags (2), command (2), cookie (8), offset (8), length (4).
type header struct {
	flags, command uint16
	cookie, offset uint64
	length         uint32
}

const (
	headerSize   = 28
	replySize    = 16 // magic (4), error (4), cookie (8)
	requestMagic = 0x25609513
	replyMagic   = 0x67446698
)

// parseHeader is false where the magic is wrong: then nothing that follows can be
// trusted.
func parseHeader(b *[headerSize]byte) (header, bool) {
	return header{
		flags: binary.BigEndian.Uint16(b[4:]), command: binary.BigEndian.Uint16(b[6:]),
		cookie: binary.BigEndian.Uint64(b[8:]), offset: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}, binary.BigEndian.Uint32(b[:]) == requestMagic
}

// moves says that the request carries data, one way or the other.
func (h header) moves() bool { return h.command == cmdRead || h.command == cmdWrite }

// refuse returns why a request is not carried out on a device of that size, with
// sectors of that size; 0 if it is.
func (h header) refuse(size int64, sector int) syscall.Errno {
	allowed := uint16(flagFUA) // has no meaning with some commands, and is allowed with all
	if h.command == cmdWriteZeroes {
		allowed |= flagNoHole
	}
	beyond := syscall.ENOSPC
	switch h.command {
	case cmdFlush:
		if h.flags&^allowed != 0 {
			return syscall.EINVAL
		}
		return 0 // offset and length are reserved, not forbidden
	case cmdRead, cmdTrim:
		beyond = syscall.EINVAL
	case cmdWrite, cmdWriteZeroes:
	default:
		return syscall.EINVAL
	}
	mask := uint64(sector) - 1
	switch {
	case h.flags&^allowed != 0, h.length == 0, h.offset&mask != 0, uint64(h.length)&mask != 0,
		h.command == cmdRead && h.length > MaxRequest:
		return syscall.EINVAL
	case h.offset > uint64(size) || uint64(h.length) > uint64(size)-h.offset:
		return beyond
	}
	return 0
}

// wireError is what the protocol calls an error. Its numbers are Linux's; it has
// only these.
func wireError(e syscall.Errno) uint32 {
	switch e {
	case 0, syscall.EPERM, syscall.EIO, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC, syscall.ESHUTDOWN:
		return uint32(e)
	case syscall.EROFS:
		return uint32(syscall.EPERM)
	case syscall.EDQUOT, syscall.EFBIG:
		return uint32(syscall.ENOSPC)
	case syscall.EOPNOTSUPP:
		return uint32(syscall.EINVAL)
	}
	return uint32(syscall.EIO)
}

// A call is one request from its arrival to its reply. It is used again.
type call struct {
	s       *session
	header  header
	refused syscall.Errno   // why the device is not asked
	buf     *buffer         // of a read or a write that is not refused, else nil
	pieces  []front.Request // what the device is asked for
	flush   bool            // a flush follows the piece: FUA of what has none in front.Request
	left    atomic.Int32    // pieces that are not done
	failed  atomic.Uint32   // the first error, as a syscall.Errno
	reply   [replySize]byte
	body    []byte // follows the reply
}

// submit hands a request to the device. Its reply follows when all of its pieces
// are done, from any goroutine; from then on c may be another request already.
func (c *call) submit() {
	if c.refused != 0 {
		c.answer(c.refused)
		return
	}
	c.failed.Store(0)
	c.cut()
	c.left.Store(int32(len(c.pieces)))
	for i := range c.pieces {
		c.s.dev.Do(&c.pieces[i])
	}
}

// cut makes the pieces. Reads and writes have at most front.MaxLength each.
func (c *call) cut() {
	h := c.header
	c.pieces, c.flush = c.pieces[:0], false
	r := front.Request{Offset: int64(h.offset), Length: int(h.length), Done: pieceDone, Tag: c}
	switch h.command {
	case cmdFlush:
		r.Op, r.Offset, r.Length = front.Flush, 0, 0
	case cmdTrim:
		r.Op, c.flush = front.Discard, h.flags&flagFUA != 0
	case cmdWriteZeroes:
		r.Op, c.flush, r.NoHole = front.Zero, h.flags&flagFUA != 0, h.flags&flagNoHole != 0
	case cmdWrite:
		r.Op, r.FUA = front.Write, h.flags&flagFUA != 0
	}
	if !h.moves() {
		c.pieces = append(c.pieces, r)
		return
	}
	for data := c.buf.data[:h.length]; len(data) > 0; data = data[r.Length:] {
		r.Length = min(len(data), front.MaxLength)
		r.Data = data[:r.Length:r.Length]
		c.pieces = append(c.pieces, r)
		r.Offset += int64(r.Length)
	}
}

// pieceDone is the Done of every piece.
func pieceDone(r *front.Request, err syscall.Errno) {
	c := r.Tag.(*call)
	if err != 0 {
		c.failed.CompareAndSwap(0, uint32(err))
	}
	if c.left.Add(-1) > 0 {
		return
	}
	failed := syscall.Errno(c.failed.Load())
	if !c.flush || failed != 0 {
		c.answer(failed)
		return
	}
	c.flush = false
	c.left.Store(1)
	*r = front.Request{Op: front.Flush, Done: pieceDone, Tag: c}
	c.s.dev.Do(r)
}

// answer sends the reply, and what was read with it.
func (c *call) answer(err syscall.Errno) {
	binary.BigEndian.PutUint32(c.reply[:], replyMagic)
	binary.BigEndian.PutUint32(c.reply[4:], wireError(err))
	binary.BigEndian.PutUint64(c.reply[8:], c.header.cookie)
	if err == 0 && c.header.command == cmdRead {
		c.body = c.buf.data[:c.header.length]
	}
	c.s.out.send(c)
}

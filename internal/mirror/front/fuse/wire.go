package fuse

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
)

// The protocol is that of the kernel's include/uapi/linux/fuse.h; names here are
// its names without their prefix, numbers in the order of the bytes of the
// machine. Only what the kernel asks of one file is known.

type opcode uint32

const (
	opLookup      opcode = 1
	opForget      opcode = 2
	opGetattr     opcode = 3
	opSetattr     opcode = 4
	opOpen        opcode = 14
	opRead        opcode = 15
	opWrite       opcode = 16
	opStatfs      opcode = 17
	opRelease     opcode = 18
	opFsync       opcode = 20
	opFlush       opcode = 25
	opInit        opcode = 26
	opInterrupt   opcode = 36
	opDestroy     opcode = 38
	opBatchForget opcode = 42
	opFallocate   opcode = 43
)

const (
	protocolMajor = 7
	protocolMinor = 40 // the one with the resending of requests, Linux 6.9

	flagAsyncDIO = 1 << 15
	flagMaxPages = 1 << 22
	flagInitExt  = 1 << 30
	flagResend   = 1 << 39 // of the kernel only: it can resend

	openDirectIO       = 1 << 0
	openNoFlush        = 1 << 5
	openParallelWrites = 1 << 6

	setattrSize = 1 << 3

	notifyResend = 7

	nodeRoot = 1
	nodeFile = 2
)

const (
	inHeader  = 40
	outHeader = 16
	writeIn   = inHeader + 40 // the header and the arguments of a write, before its data
)

// request is one decoded request. What the operation does not have is zero.
type request struct {
	op     opcode
	unique uint64 // the answer repeats it, also the bit that marks a resent one
	node   uint64
	name   []byte // of lookup
	offset uint64 // of read, write, fallocate
	length uint64 // the same
	mode   uint32 // of fallocate
	valid  uint32 // of setattr
	minor  uint32 // of init
	flags  uint64 // of init
}

// arguments is how many bytes an operation has behind its header at least.
var arguments = map[opcode]int{
	opLookup: 1, opSetattr: 88, opRead: 40, opWrite: writeIn - inHeader, opInit: 16, opFallocate: 32,
}

// parse decodes one request, which is as long as b. EPROTO if it is none; unique
// is then what is to be answered, or 0.
func parse(b []byte) (r request, err syscall.Errno) {
	ne := binary.NativeEndian
	if len(b) < inHeader {
		return r, unix.EPROTO
	}
	r.op, r.unique, r.node = opcode(ne.Uint32(b[4:])), ne.Uint64(b[8:]), ne.Uint64(b[16:])
	a := b[inHeader:]
	if int64(ne.Uint32(b)) != int64(len(b)) || len(a) < arguments[r.op] {
		return r, unix.EPROTO
	}
	switch r.op {
	case opLookup:
		name, _, ok := bytes.Cut(a, []byte{0})
		if !ok {
			return r, unix.EPROTO
		}
		r.name = name
	case opSetattr:
		r.valid = ne.Uint32(a)
	case opRead:
		r.offset, r.length = ne.Uint64(a[8:]), uint64(ne.Uint32(a[16:]))
	case opWrite:
		r.offset, r.length = ne.Uint64(a[8:]), uint64(ne.Uint32(a[16:]))
		if r.length != uint64(len(b)-writeIn) {
			return r, unix.EPROTO
		}
	case opFallocate:
		r.offset, r.length, r.mode = ne.Uint64(a[8:]), ne.Uint64(a[16:]), ne.Uint32(a[24:])
	case opInit:
		if ne.Uint32(a) != protocolMajor {
			return r, unix.EPROTO
		}
		r.minor, r.flags = ne.Uint32(a[4:]), uint64(ne.Uint32(a[12:]))
		if r.flags&flagInitExt != 0 && len(a) >= 20 {
			r.flags |= uint64(ne.Uint32(a[16:])) << 32
		}
	}
	return r, 0
}

// silent says that the kernel waits for no answer.
func (o opcode) silent() bool { return o == opForget || o == opBatchForget || o == opInterrupt }

// header begins an answer whose body has n bytes.
func header(b []byte, n int, unique uint64, err syscall.Errno) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(outHeader+n))
	b = binary.NativeEndian.AppendUint32(b, uint32(-int32(err)))
	return binary.NativeEndian.AppendUint64(b, unique)
}

// notice is a message to the kernel that answers nothing.
func notice(code uint32) []byte {
	b := header(nil, 0, 0, 0)
	binary.NativeEndian.PutUint32(b[4:], code)
	return b
}

// The flags that the kernel must offer, and those that are asked for.
const (
	needFlags = flagAsyncDIO | flagMaxPages | flagInitExt | flagResend
	askFlags  = needFlags
)

// suits says whether a kernel that begins with this init can do what is needed.
func (r request) suits() error {
	if missing := needFlags &^ r.flags; missing != 0 {
		return fmt.Errorf("%w (FUSE lacks the flags %#x)", ErrUnsupported, missing)
	}
	return nil
}

// appendInit is the answer to init: struct fuse_init_out.
func appendInit(b []byte, minor uint32, transfer int) []byte {
	ne := binary.NativeEndian
	b = ne.AppendUint32(b, protocolMajor)
	b = ne.AppendUint32(b, min(minor, protocolMinor))
	b = ne.AppendUint32(b, 0) // no readahead
	b = ne.AppendUint32(b, askFlags&0xffffffff)
	b = ne.AppendUint16(b, maxBackground)
	b = ne.AppendUint16(b, maxBackground) // from how many on writers of dirty pages are slowed down: never
	b = ne.AppendUint32(b, uint32(transfer))
	b = ne.AppendUint32(b, 1) // granularity of times, in nanoseconds
	b = ne.AppendUint16(b, maxPages)
	b = ne.AppendUint16(b, 0)
	b = ne.AppendUint32(b, askFlags>>32)
	return append(b, make([]byte, 28)...)
}

// appendAttr is struct fuse_attr of the root or the file.
func appendAttr(b []byte, node uint64, size int64) []byte {
	ne := binary.NativeEndian
	mode := uint32(unix.S_IFREG | 0o600)
	if node == nodeRoot {
		mode, size = unix.S_IFDIR|0o700, 0
	}
	b = ne.AppendUint64(b, node)
	b = ne.AppendUint64(b, uint64(size))
	b = ne.AppendUint64(b, uint64(size)/512)
	b = append(b, make([]byte, 3*8+3*4)...) // times
	b = ne.AppendUint32(b, mode)
	b = ne.AppendUint32(b, 1)             // links
	b = append(b, make([]byte, 2*4+4)...) // owner, device
	b = ne.AppendUint32(b, pageSize)      // preferred size of requests
	return append(b, make([]byte, 4)...)  // flags
}

// appendEntry is the answer to lookup: struct fuse_entry_out, valid for no time.
func appendEntry(b []byte, size int64) []byte {
	b = binary.NativeEndian.AppendUint64(b, nodeFile)
	b = append(b, make([]byte, 3*8+2*4)...)
	return appendAttr(b, nodeFile, size)
}

// appendAttrOut is the answer to getattr and setattr: struct fuse_attr_out, valid
// for no time, so that a new size is seen.
func appendAttrOut(b []byte, node uint64, size int64) []byte {
	return appendAttr(append(b, make([]byte, 16)...), node, size)
}

// appendOpen is struct fuse_open_out.
func appendOpen(b []byte) []byte {
	b = binary.NativeEndian.AppendUint64(b, 0)
	b = binary.NativeEndian.AppendUint32(b, openDirectIO|openNoFlush|openParallelWrites)
	return append(b, make([]byte, 4)...)
}

// appendWritten is struct fuse_write_out.
func appendWritten(b []byte, n int) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(n))
	return append(b, make([]byte, 4)...)
}

// appendStatfs is struct fuse_kstatfs. The loop device takes the size of its blocks
// for the smallest range that can be discarded, and does without if there is none.
func appendStatfs(b []byte) []byte {
	b = append(b, make([]byte, 5*8)...)
	b = binary.NativeEndian.AppendUint32(b, pageSize)
	b = binary.NativeEndian.AppendUint32(b, 255) // the longest name
	b = binary.NativeEndian.AppendUint32(b, pageSize)
	return append(b, make([]byte, 4+6*4)...)
}

// isFile says that a name is that of the one file.
func isFile(name []byte) bool { return string(name) == keep.File }

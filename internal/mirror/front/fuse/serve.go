package fuse

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

// thread takes requests from the kernel and does each before it takes the next,
// until the connection ends. The answer is given by whoever completes the request.
// Between two system calls the goroutine is not bound to its thread: the binding
// was measured to cost, not to save, switches of threads.
func (f *Front) thread() {
	for {
		s := f.slots.get()
		if s == nil {
			return
		}
		n, err := unix.Read(f.fd, s.in())
		switch {
		case err == nil:
			f.take(s, s.in()[:n])
			continue
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT): // the last: it was interrupted meanwhile
			f.slots.put(s)
			continue
		case !errors.Is(err, unix.ENODEV): // which is the end of the connection
			f.fail(fmt.Errorf("read requests of the kernel: %w", err))
		}
		f.slots.put(s)
		return
	}
}

// take does one request, or gives it to the device. The slot comes back with the
// answer.
func (f *Front) take(s *slot, b []byte) {
	r, err := parse(b)
	s.op, s.unique = r.op, r.unique
	switch {
	case r.op.silent():
		f.slots.put(s)
	case err != 0:
		f.answer(s, nil, err)
	case r.op == opRead || r.op == opWrite || r.op == opFsync || r.op == opFallocate:
		f.transfer(s, r)
	default:
		body, err := f.meta(s.memory[outHeader:outHeader], r)
		f.answer(s, body, err)
	}
}

// The modes of fallocate that a loop device uses. It punches a hole for a discard
// as well as for zeroes that may be one.
const (
	modePunch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	modeZero  = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
)

const maxErrno = 999 // that the protocol has

// transfer gives a request to the device, if it is within its bounds.
func (f *Front) transfer(s *slot, r request) {
	q := &s.req
	q.Offset, q.Length, q.NoHole, q.Data = int64(r.offset), int(r.length), false, nil
	limit := uint64(f.conn.Transfer)
	switch r.op {
	case opFsync:
		q.Op = front.Flush
		f.dev.Do(q)
		return
	case opRead:
		q.Op = front.Read
	case opWrite:
		q.Op = front.Write
	case opFallocate:
		q.Op, q.NoHole, limit = front.Zero, r.mode == modeZero, math.MaxUint64
		if r.mode != modePunch && r.mode != modeZero {
			f.answer(s, nil, unix.EOPNOTSUPP)
			return
		}
	}
	size, sector := uint64(f.dev.Size()), uint64(f.dev.SectorSize())
	if r.node != nodeFile || r.length == 0 || r.length > limit || r.offset > size || r.length > size-r.offset ||
		r.offset%sector != 0 || r.length%sector != 0 {
		f.answer(s, nil, unix.EINVAL)
		return
	}
	if q.Op != front.Zero {
		q.Data = s.data(q.Length)
	}
	f.dev.Do(q)
}

// done answers a request that the device has completed.
func (f *Front) done(q *front.Request, err syscall.Errno) {
	s := q.Tag.(*slot)
	if err == unix.ENOSYS || err > maxErrno {
		err = unix.EIO // the kernel would take the first for "never ask again, all is well"
	}
	switch {
	case err != 0 || s.op == opFsync || s.op == opFallocate:
		f.answer(s, nil, err)
	case s.op == opWrite:
		f.answer(s, appendWritten(s.memory[outHeader:outHeader], q.Length), 0)
	default:
		at := pageSize - outHeader // just before the data
		header(s.memory[at:at], q.Length, s.unique, 0)
		f.send(s, s.memory[at:pageSize+q.Length])
	}
}

// answer sends a header and the body, which stands behind the room for it at the
// beginning of the slot, or an error.
func (f *Front) answer(s *slot, body []byte, err syscall.Errno) {
	if err != 0 {
		body = nil
	}
	header(s.memory[:0], len(body), s.unique, err)
	f.send(s, s.memory[:outHeader+len(body)])
}

// send writes one answer and frees the slot. The kernel does not know a request
// any more that was interrupted, or whose connection has ended.
func (f *Front) send(s *slot, b []byte) {
	_, err := unix.Write(f.fd, b)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		f.fail(fmt.Errorf("answer the kernel's request %d: %w", s.op, err))
	}
	f.slots.put(s)
}

// meta answers what is asked about the file system. The body is appended to b.
func (f *Front) meta(b []byte, r request) ([]byte, syscall.Errno) {
	switch r.op {
	case opInit:
		if err := r.suits(); err != nil {
			f.fail(err)
			return nil, unix.EPROTO
		}
		return appendInit(b, r.minor, f.conn.Transfer), 0
	case opLookup:
		if r.node != nodeRoot || !isFile(r.name) {
			return nil, unix.ENOENT
		}
		return appendEntry(b, f.dev.Size()), 0
	case opGetattr, opSetattr:
		if r.valid&setattrSize != 0 {
			return nil, unix.EPERM // the device has the size that it has
		}
		return appendAttrOut(b, r.node, f.dev.Size()), 0
	case opOpen:
		if r.node != nodeFile {
			return nil, unix.EISDIR
		}
		return appendOpen(b), 0
	case opStatfs:
		return appendStatfs(b), 0
	case opFlush, opRelease, opDestroy:
		return b, 0
	default:
		return nil, unix.ENOSYS
	}
}

package disk

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Starter is a Disk that carries out reads and writes without a thread that waits
// for each of them.
type Starter interface {
	// Start begins to read into p, or to write it, durably or not, and calls done with
	// the error, if any, from another goroutine; done must not wait for the disk. A
	// read past the end is an error. It says false if it has done nothing, and
	// ReadAt or WriteAt has to be used: it may be busy, or not know how.
	Start(o Start) bool
}

// Start is an operation of a Starter. p belongs to it until Done is called.
type Start struct {
	Write   bool
	P       []byte
	Off     int64
	Durable bool
	Done    func(error)
}

func (o *Start) kind() opKind {
	if o.Write {
		return opWrite
	}
	return opRead
}

// queue is the kernel's own asynchronous I/O, io_submit(2): what a direct read or
// write waits for it waits for without a thread, and one thread learns of all that
// have ended meanwhile with one system call.
type queue struct {
	file    *file
	context uintptr
	settled func() // called when all of those that have ended were told

	mu    sync.Mutex
	free  []uint32
	slots [queueDepth]Start
	ended chan struct{} // closed when nothing more is told
	bad   atomic.Bool   // the kernel does not do it for this file
}

const (
	queueDepth = 256 // operations under way at most
	shareFrom  = 16  // that have ended: two threads tell of so many
)

// iocb and ioEvent are those of include/uapi/linux/aio_abi.h, on machines whose
// first byte is the lowest. What has no name is not used.
type iocb struct {
	data    uint64
	_       uint32 // key
	rwFlags uint32
	opcode  uint16
	_       int16 // priority
	fd      uint32
	buf     uint64
	bytes   uint64
	offset  int64
	_       uint64 // reserved
	_       uint32 // flags
	_       uint32 // where else the end is told
}

type ioEvent struct {
	data uint64
	_    uint64 // the iocb
	res  int64
	_    int64 // a second result
}

const (
	iocbRead  = 0 // IOCB_CMD_PREAD
	iocbWrite = 1 // IOCB_CMD_PWRITE
)

// newQueue returns nil where the kernel has no such thing, or none left.
func newQueue(f *file, settled func()) *queue {
	q := &queue{file: f, settled: settled, free: make([]uint32, queueDepth), ended: make(chan struct{})}
	for i := range q.free {
		q.free[i] = uint32(i)
	}
	if _, _, no := unix.Syscall(unix.SYS_IO_SETUP, queueDepth, uintptr(unsafe.Pointer(&q.context)), 0); no != 0 {
		return nil
	}
	go q.reap()
	return q
}

// close waits for what is under way.
func (q *queue) close() {
	_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, q.context, 0, 0) // it fails for no queue of ours
	<-q.ended
}

func (q *queue) start(o Start) bool {
	q.mu.Lock()
	if len(q.free) == 0 || q.bad.Load() {
		q.mu.Unlock()
		return false
	}
	i := q.free[len(q.free)-1]
	q.free = q.free[:len(q.free)-1]
	q.slots[i] = o
	q.mu.Unlock()
	cb := iocb{data: uint64(i), fd: uint32(q.file.fd), buf: uint64(address(o.P)), bytes: uint64(len(o.P)), offset: o.Off}
	if o.Write {
		cb.opcode = iocbWrite
	}
	if o.Durable {
		cb.rwFlags = unix.RWF_DSYNC
	}
	list := [1]*iocb{&cb}
	_, err := again(func() (struct{}, error) {
		if _, _, no := unix.Syscall(unix.SYS_IO_SUBMIT, q.context, 1, uintptr(unsafe.Pointer(&list))); no != 0 {
			return struct{}{}, no
		}
		return struct{}{}, nil
	})
	if err == nil {
		return true
	}
	if err != unix.EAGAIN {
		q.bad.Store(true)
	}
	q.take(i)
	return false
}

// take frees a slot and returns what was in it.
func (q *queue) take(i uint32) Start {
	q.mu.Lock()
	defer q.mu.Unlock()
	o := q.slots[i]
	q.slots[i] = Start{}
	q.free = append(q.free, i)
	return o
}

// reap tells what has ended, until the queue is closed.
func (q *queue) reap() {
	defer close(q.ended)
	var events [64]ioEvent
	for {
		n, _, no := unix.Syscall6(unix.SYS_IO_GETEVENTS, q.context, 1, uintptr(len(events)), uintptr(unsafe.Pointer(&events)), 0, 0)
		if no == unix.EINTR {
			continue
		}
		if no != 0 {
			return
		}
		all := events[:n]
		var other sync.WaitGroup
		if n >= shareFrom { // more end than one thread tells of, so two do
			theirs := all[n/2:]
			other.Go(func() { q.end(theirs) })
			all = all[:n/2]
		}
		q.end(all)
		other.Wait()
		if q.settled != nil {
			q.settled()
		}
	}
}

// end tells of operations that have ended.
func (q *queue) end(events []ioEvent) {
	for _, e := range events {
		o := q.take(uint32(e.data))
		q.file.done(o, e.res)
	}
}

// Start begins an operation on the file, if it was opened for that.
func (f *file) Start(o Start) bool {
	if f.queue == nil || len(o.P) == 0 || checkBuffer(opNames[o.kind()], f.path, o.P, o.Off, f.sector) != nil || f.enter() != nil {
		return false
	}
	n := int64(len(o.P))
	ok := f.fits(opNames[o.kind()], o.Off, n) == nil && (!o.Durable || f.failed.Load() == nil && !f.noSync.Load()) && f.queue.start(o)
	if !ok {
		f.leave()
	}
	return ok
}

// done ends what Start began, with the kernel's result. One that ended early, as a
// call may, goes on here.
func (f *file) done(o Start, res int64) {
	defer f.leave()
	n, left := int64(len(o.P)), o.P[max(res, 0):]
	var err error
	if o.Write {
		f.wrote()
	}
	switch {
	case res < 0 && o.Write:
		err = f.notWritten(o.Off, n, o.Durable, syscall.Errno(-res))
	case res < 0:
		err = f.wrap("read", o.Off, n, syscall.Errno(-res))
	case len(left) > 0 && o.Write:
		err = f.writeAll(left, o.Off+res, o.Durable)
	case len(left) > 0:
		_, err = f.readAll(left, o.Off+res)
		err = f.wrap("read", o.Off, n, err)
	}
	o.Done(err)
}

package nbd

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// An outbox sends replies. Whoever has one sends it, and with it those that others
// add meanwhile. When the socket is full, or others add all the time, the session's
// own goroutine goes on. So a reply costs no change of threads, and whoever completes
// a request is held up neither by a client that does not read nor by one that reads a
// lot.
type outbox struct {
	s     *session
	raw   syscall.RawConn
	write func(fd uintptr) bool
	help  chan struct{} // wakes push

	mu    sync.Mutex // guards what follows
	queue []*call    // answered, and not in batch; at most depth
	busy  bool       // somebody sends

	// What follows belongs to who sends.
	batch []*call
	room  [][]byte // for iov
	iov   [][]byte // what is left of the batch
	wait  bool     // for the socket
	err   error
}

func newOutbox(s *session, raw syscall.RawConn) *outbox {
	o := &outbox{
		s: s, raw: raw, help: make(chan struct{}, 1),
		queue: make([]*call, 0, depth), batch: make([]*call, 0, depth), room: make([][]byte, 0, 2*depth),
	}
	o.write = o.writeOnce
	return o
}

// send sends a reply, now or later.
func (o *outbox) send(c *call) {
	o.mu.Lock()
	o.queue = append(o.queue, c)
	mine := !o.busy
	o.busy = true
	o.mu.Unlock()
	if mine {
		o.drain(false)
	}
}

// push goes on for others, until the session ends.
func (o *outbox) push() {
	for {
		select {
		case <-o.help:
			o.drain(true)
		case <-o.s.ended:
			return
		}
	}
}

// mostBatches is how many one sends before push goes on.
const mostBatches = 4

// drain sends until nothing is left; if it shall not wait, then not for long.
func (o *outbox) drain(wait bool) {
	o.wait = wait
	for sent := 0; o.fill(); sent++ {
		if !wait && sent == mostBatches {
			o.help <- struct{}{} // never blocks: only who sends is here
			return
		}
		err := o.raw.Write(o.write)
		if err == nil {
			err = o.err
		}
		if err != nil { // nobody is there any more: the replies are dropped
			o.iov, o.err = nil, nil
			o.s.end(err)
		}
		if len(o.iov) > 0 { // the socket is full
			o.help <- struct{}{}
			return
		}
	}
}

// fill gives the batch back when it is sent, and makes the next one of what is
// queued. It returns false, and whoever comes next sends, if there is nothing.
func (o *outbox) fill() bool {
	if len(o.iov) > 0 {
		return true
	}
	for _, c := range o.batch {
		o.s.give(c)
	}
	clear(o.batch)
	if !o.swap() {
		return false
	}
	o.iov = o.room
	for _, c := range o.batch {
		o.iov = append(o.iov, c.reply[:])
		if len(c.body) > 0 {
			o.iov = append(o.iov, c.body)
		}
	}
	return true
}

// swap makes what is queued the batch. If nothing is, others may send from then on.
func (o *outbox) swap() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.batch, o.queue = o.queue, o.batch[:0]
	o.busy = len(o.batch) > 0
	return o.busy
}

// mostVectors is how many pieces one system call takes, of 1024 that it could.
const mostVectors = 64

// writeOnce writes what the socket takes. It returns false to be called again when
// the socket takes more.
func (o *outbox) writeOnce(fd uintptr) bool {
	for len(o.iov) > 0 {
		n, err := unix.Writev(int(fd), o.iov[:min(len(o.iov), mostVectors)])
		switch err {
		case nil:
			o.sent(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return !o.wait
		default:
			o.err = err
			return true
		}
	}
	return true
}

// sent takes n bytes off the front of what is left.
func (o *outbox) sent(n int) {
	for n > 0 && n >= len(o.iov[0]) {
		n -= len(o.iov[0])
		o.iov = o.iov[1:]
	}
	if n > 0 {
		o.iov[0] = o.iov[0][n:]
	}
}

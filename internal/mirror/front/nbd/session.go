package nbd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

const (
	// depth is how many requests of one connection are under way at once. The kernel
	// has 128 of a connection.
	depth = 128
	// memory is how many bytes they have together: more than the kernel's 128 of
	// its usual 4 KiB, less than 128 of the largest.
	memory = 2 * MaxRequest
	// workers is how many goroutines take requests from one connection, and so how
	// many can wait for the local disk.
	workers = 16
	// headers is how much is read from a connection at once: a few small writes with
	// their data. What is larger goes to its buffer without a copy.
	headers = 32 << 10
	// sending is the size of the sockets' buffers: the data of one large request.
	sending = 2 << 20
)

// Why a session has ended.
var (
	errDisconnected = errors.New("the client disconnected")
	errClosed       = errors.New("the connection was closed on this side")
)

// A session is the transmission phase of one connection. Workers take turns at
// reading: who has read a request lets the next one read, and carries its own out.
type session struct {
	dev  front.Device
	conn *net.UnixConn
	pool *pool
	out  *outbox

	reading sync.Mutex // guards what follows
	in      *bufio.Reader
	header  [headerSize]byte

	ended chan struct{}

	mu    sync.Mutex // guards what follows
	freed sync.Cond
	free  []*call
	bytes int // of buffers in use
	over  bool
	why   error // valid when ended is closed
}

// newSession makes a session of a connection. Of in, which may be nil, it takes
// what was read ahead.
func newSession(conn *net.UnixConn, in *bufio.Reader, dev front.Device, p *pool) (*session, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	if in == nil {
		in = bufio.NewReaderSize(conn, headers)
	}
	s := &session{dev: dev, conn: conn, pool: p, in: in, ended: make(chan struct{})}
	s.freed.L = &s.mu
	s.out = newOutbox(s, raw)
	calls := make([]call, depth)
	for i := range calls {
		calls[i].s = s
		s.free = append(s.free, &calls[i])
	}
	return s, nil
}

// run serves until the connection ends and returns why; errDisconnected if the
// client said that it ends. Requests that the device has not completed are left
// to it: their replies go nowhere.
func (s *session) run() error {
	for range workers {
		go s.work()
	}
	go s.out.push()
	<-s.ended
	return s.why
}

// end ends the session, once.
func (s *session) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over, s.why = true, why
	s.freed.Broadcast()
	_ = s.conn.Close()
	close(s.ended)
}

func (s *session) work() {
	for {
		s.reading.Lock()
		c, err := s.next()
		s.reading.Unlock()
		if err != nil {
			s.end(err)
			return
		}
		c.submit()
	}
}

// next reads one request. reading is held.
func (s *session) next() (*call, error) {
	if _, err := io.ReadFull(s.in, s.header[:]); err != nil {
		return nil, fmt.Errorf("read a request: %w", err)
	}
	h, ok := parseHeader(&s.header)
	switch {
	case !ok:
		return nil, errors.New("a request begins with the wrong magic")
	case h.command == cmdDisconnect:
		return nil, errDisconnected
	case h.command == cmdWrite && h.length > MaxRequest:
		return nil, fmt.Errorf("a write of %d bytes, more than %d", h.length, MaxRequest)
	}
	refused, need := h.refuse(s.dev.Size(), s.dev.SectorSize()), 0
	if refused == 0 && h.moves() {
		need = int(h.length)
	}
	c := s.take(need)
	if c == nil {
		return nil, errClosed
	}
	c.header, c.refused = h, refused
	if h.command != cmdWrite {
		return c, nil
	}
	var err error
	if refused != 0 {
		_, err = s.in.Discard(int(h.length))
	} else {
		_, err = io.ReadFull(s.in, c.buf.data[:h.length])
	}
	if err != nil {
		return nil, fmt.Errorf("read the data of a write: %w", err)
	}
	return c, nil
}

// take returns a free call with a buffer of n bytes, none if n is 0. It waits
// until both can be had, and returns nil when the session has ended.
func (s *session) take(n int) *call {
	s.mu.Lock()
	for !s.over && (len(s.free) == 0 || s.bytes+n > memory) {
		s.freed.Wait()
	}
	if s.over {
		s.mu.Unlock()
		return nil
	}
	c := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.bytes += n
	s.mu.Unlock()
	if n > 0 {
		c.buf = s.pool.get(n)
	}
	return c
}

// give takes a call back whose reply was sent.
func (s *session) give(c *call) {
	n := 0
	if c.buf != nil {
		n = int(c.header.length)
		s.pool.put(c.buf)
	}
	c.buf, c.body = nil, nil
	s.mu.Lock()
	s.bytes -= n
	s.free = append(s.free, c)
	s.mu.Unlock()
	s.freed.Signal()
}

// smallest and largest are the sizes of buffers, which are powers of two.
const (
	smallest = 4 << 10
	classes  = 14 // up to MaxRequest
)

// A buffer is aligned memory that is used again.
type buffer struct {
	data  []byte
	class int
}

// A pool has buffers that nobody uses now. How many are used is bounded by the
// sessions.
type pool [classes]sync.Pool

func (p *pool) get(n int) *buffer {
	class := 0
	for smallest<<class < n {
		class++
	}
	if b, ok := p[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{disk.Aligned(smallest << class), class}
}

func (p *pool) put(b *buffer) { p[b.class].Put(b) }

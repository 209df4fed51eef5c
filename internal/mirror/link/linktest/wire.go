// Package linktest holds a wire between the two copies of a mirror disk that
// tests can cut, hold, slow down and spoil.
package linktest

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// Direction is one of the two ways through a wire.
type Direction int

// The directions.
const (
	Up   Direction = iota // from who dials to who listens
	Down                  // back
)

// Wire passes TCP connections on. Its methods may be called at any time, and hold
// for the connections that there are and those that come.
type Wire struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool // both ends of each
	refuse bool
	ended  bool
	ways   [2]way
}

// way is what happens in one direction.
type way struct {
	delay   time.Duration
	held    chan struct{} // closed when it goes on; nil: nothing is held
	cut     int64         // so many bytes further on everything is cut; 0: not
	corrupt int64         // so many bytes further on a bit is wrong; 0: not
	passed  int64
}

// Chunks that are on the way at once in one direction, and how large they are.
const (
	chunks    = 64
	chunkSize = 16 << 10
)

type chunk struct {
	data []byte
	due  time.Time
}

// New returns a wire to target. It is gone with the test.
func New(t testing.TB, target netip.AddrPort) *Wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{listener: l, target: target.String(), conns: map[net.Conn]bool{}}
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		w.ended = true
		w.mu.Unlock()
		w.Release(Up)
		w.Release(Down)
		w.Cut()
		w.wg.Wait()
	})
	return w
}

// Addr is where to dial.
func (w *Wire) Addr() netip.AddrPort { return w.listener.Addr().(*net.TCPAddr).AddrPort() }

// Cut resets all connections. New ones are let through unless Refuse says no.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reset()
}

// reset is Cut. mu is held.
func (w *Wire) reset() {
	for c := range w.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	clear(w.conns)
}

// Refuse says whether new connections are reset at once.
func (w *Wire) Refuse(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = yes
}

// CutAfter lets at most n more bytes pass in a direction, n > 0, and then does
// what Cut does, once.
func (w *Wire) CutAfter(d Direction, n int64) { w.set(d, func(y *way) { y.cut = n }) }

// Corrupt makes a bit of the n-th byte from now on wrong, n > 0.
func (w *Wire) Corrupt(d Direction, n int64) { w.set(d, func(y *way) { y.corrupt = n }) }

// Delay lets everything take so much longer in a direction. It does not limit
// how much passes in a time, but for 1 MiB on the way.
func (w *Wire) Delay(d Direction, by time.Duration) { w.set(d, func(y *way) { y.delay = by }) }

// Hold lets nothing pass in a direction until Release; the connections stay.
func (w *Wire) Hold(d Direction) {
	w.set(d, func(y *way) {
		if y.held == nil {
			y.held = make(chan struct{})
		}
	})
}

// Release ends Hold.
func (w *Wire) Release(d Direction) {
	w.set(d, func(y *way) {
		if y.held != nil {
			close(y.held)
			y.held = nil
		}
	})
}

// Passed is how many bytes have passed in a direction.
func (w *Wire) Passed(d Direction) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ways[d].passed
}

func (w *Wire) set(d Direction, change func(*way)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.ways[d])
}

func (w *Wire) accept() {
	for {
		a, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.join(a) })
	}
}

// join passes on between a and a new connection to the target.
func (w *Wire) join(a net.Conn) {
	b, err := net.DialTimeout("tcp", w.target, 10*time.Second)
	w.mu.Lock()
	if err != nil || w.refuse || w.ended {
		w.mu.Unlock()
		_ = a.(*net.TCPConn).SetLinger(0)
		_ = a.Close()
		if err == nil {
			_ = b.Close()
		}
		return
	}
	w.conns[a], w.conns[b] = true, true
	w.mu.Unlock()
	w.wg.Go(func() { w.pump(Up, a, b) })
	w.wg.Go(func() { w.pump(Down, b, a) })
}

// pump passes one direction on, and closes both ends when one is closed.
func (w *Wire) pump(d Direction, from, to net.Conn) {
	queue, dead := make(chan chunk, chunks), make(chan struct{})
	w.wg.Go(func() {
		defer close(dead)
		for c := range queue {
			if !w.deliver(d, c, to) {
				_ = from.Close()
				return
			}
		}
	})
	for {
		data := make([]byte, chunkSize)
		n, err := from.Read(data)
		if n > 0 {
			w.mu.Lock()
			due := time.Now().Add(w.ways[d].delay)
			w.mu.Unlock()
			select {
			case queue <- chunk{data[:n], due}:
			case <-dead:
			}
		}
		if err != nil {
			break
		}
	}
	close(queue)
	<-dead
	_, _ = from.Close(), to.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, from)
	delete(w.conns, to)
}

// deliver writes one chunk when its time has come. It says whether to go on.
func (w *Wire) deliver(d Direction, c chunk, to net.Conn) bool {
	if wait := time.Until(c.due); wait > 0 {
		<-time.After(wait)
	}
	w.mu.Lock()
	for held := w.ways[d].held; held != nil; held = w.ways[d].held {
		w.mu.Unlock()
		<-held
		w.mu.Lock()
	}
	y := &w.ways[d]
	size := int64(len(c.data))
	last := y.cut > 0 && y.cut <= size
	if last {
		c.data = c.data[:y.cut]
	}
	if y.cut > 0 {
		y.cut = max(0, y.cut-size)
	}
	if at := y.corrupt - 1; at >= 0 && at < int64(len(c.data)) {
		c.data[at] ^= 1
	}
	if y.corrupt > 0 {
		y.corrupt = max(0, y.corrupt-size)
	}
	y.passed += int64(len(c.data))
	w.mu.Unlock()
	_, err := to.Write(c.data)
	if last {
		w.Cut()
	}
	return err == nil && !last
}

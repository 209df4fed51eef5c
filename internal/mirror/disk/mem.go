package disk

import (
	"io"
	"os"
	"sync"
)

// memChunk is what Mem allocates at once, in bytes.
const memChunk = 64 << 10

// Mem is a device in memory for tests. Only what was written takes memory. It is
// as strict about alignment as a real one, and everything is durable at once:
// Faulty makes a disk with a volatile cache of it.
type Mem struct {
	sector int

	mu     sync.RWMutex
	size   int64
	chunks map[int64][]byte // by offset / memChunk; nil: zeroes
	closed bool
}

var _ Disk = (*Mem)(nil)

// NewMem returns size zero bytes; sector is 512 or 4096, and size a multiple.
func NewMem(size int64, sector int) *Mem {
	return &Mem{size: size, sector: sector, chunks: map[int64][]byte{}}
}

// Grow changes the size, as an administrator does to a volume.
func (m *Mem) Grow(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.size = size
}

// Open makes the device usable again after Close, with its content.
func (m *Mem) Open() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = false
}

func (m *Mem) Size() (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.size, nil
}

func (m *Mem) SectorSize() int { return m.sector }

func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// check is what every operation begins with. mu is held.
func (m *Mem) check(op string, off, n int64) error {
	if m.closed {
		return &Error{Op: op, Path: "memory", Off: off, Len: n, Err: os.ErrClosed}
	}
	if op != "read" && off > m.size-n {
		return errPastEnd(op, "memory", off, n, m.size)
	}
	return nil
}

// each calls f for the part of every chunk that lies in a range; at is the
// part's distance from the begin of the range.
func each(off, n int64, f func(chunk, from, to, at int64)) {
	for at := int64(0); at < n; {
		chunk, from := (off+at)/memChunk, (off+at)%memChunk
		to := min(memChunk, from+n-at)
		f(chunk, from, to, at)
		at += to - from
	}
}

func (m *Mem) ReadAt(p []byte, off int64) (int, error) {
	if err := checkBuffer("read", "memory", p, off, m.sector); err != nil {
		return 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.check("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	n := max(0, min(int64(len(p)), m.size-off))
	each(off, n, func(chunk, from, to, at int64) {
		if c := m.chunks[chunk]; c != nil {
			copy(p[at:], c[from:to])
		} else {
			clear(p[at : at+to-from])
		}
	})
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (m *Mem) WriteAt(p []byte, off int64, _ bool) error {
	if err := checkBuffer("write", "memory", p, off, m.sector); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("write", off, int64(len(p))); err != nil {
		return err
	}
	each(off, int64(len(p)), func(chunk, from, to, at int64) {
		if m.chunks[chunk] == nil {
			m.chunks[chunk] = make([]byte, memChunk)
		}
		copy(m.chunks[chunk][from:to], p[at:])
	})
	return nil
}

func (m *Mem) Flush() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.check("flush", 0, 0)
}

// Discard gives whole chunks back, which read as zeroes then, and leaves the rest
// as it was: whoever relies on either is found out.
func (m *Mem) Discard(off, n int64) error { return m.drop("discard", off, n, false) }

func (m *Mem) Zero(off, n int64) error { return m.drop("zero", off, n, true) }

func (m *Mem) drop(op string, off, n int64, zero bool) error {
	if err := checkRange(op, "memory", off, n, m.sector); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(op, off, n); err != nil {
		return err
	}
	each(off, n, func(chunk, from, to, _ int64) {
		if to-from == memChunk {
			delete(m.chunks, chunk)
		} else if c := m.chunks[chunk]; zero && c != nil {
			clear(c[from:to])
		}
	})
	return nil
}

package fuse

import (
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

const (
	pageSize = 4096
	maxPages = 256 // of one request, the most that the kernel takes
	atOnce   = 8   // slots whose pages are there before the first request
)

// slot is the room for one request: a page at whose end its header stands, and
// behind that, at the beginning of a page, the data. So a write arrives, and a
// read is answered, in one piece and without a copy.
type slot struct {
	memory []byte
	unique uint64
	op     opcode
	req    front.Request
}

// in is where a request is read to: the data of a write begins at data.
func (s *slot) in() []byte { return s.memory[pageSize-writeIn:] }

func (s *slot) data(n int) []byte { return s.memory[pageSize : pageSize+n : pageSize+n] }

// slots is all the room there is, taken last in, first out, because the memory
// that was used last is the fastest. It is outside of Go's heap and has all of its
// pages: the kernel fails a request that it cannot copy because the process that
// reads it is being killed, and it can copy to pages that are there.
type slots struct {
	mu     sync.Mutex
	came   sync.Cond
	memory []byte
	all    int
	free   []*slot
	closed bool
	last   func() // called when it is closed and every slot is back
}

// newSlots makes n slots for transfers of at most so many bytes. done is the Done
// of their requests.
func newSlots(n, transfer int, done func(*front.Request, syscall.Errno), last func()) (*slots, error) {
	size := pageSize + transfer
	m, err := unix.Mmap(-1, 0, n*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("get %d MiB of memory for requests: %w", n*size>>20, err)
	}
	// The slots that are taken first now, the others beside what follows: all of
	// them take milliseconds, for which an application waits that is failing over.
	disk.Huge(m)
	late := max(n-atOnce, 0) * size
	if err := unix.Madvise(m[late:], unix.MADV_POPULATE_WRITE); err != nil {
		_ = unix.Munmap(m)
		return nil, fmt.Errorf("get %d MiB of memory for requests: %w", n*size>>20, err)
	}
	go func() { _ = unix.Madvise(m[:late], unix.MADV_POPULATE_WRITE) }() // it fails if the front end is gone already
	p := &slots{memory: m, all: n, free: make([]*slot, n), last: last}
	p.came.L = &p.mu
	for i := range p.free {
		s := &slot{memory: m[i*size : (i+1)*size]}
		s.req.Tag, s.req.Done = s, done
		p.free[i] = s
	}
	return p, nil
}

// get waits for a free slot; nil after close.
func (p *slots) get() *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.free) == 0 && !p.closed {
		p.came.Wait()
	}
	if p.closed {
		return nil
	}
	s := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	return s
}

func (p *slots) put(s *slot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, s)
	p.came.Signal()
	p.unmap()
}

// close ends every get. The rest goes when the last slot is back: until then the
// device may use its memory.
func (p *slots) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.came.Broadcast()
	p.unmap()
}

func (p *slots) unmap() {
	if p.closed && len(p.free) == p.all && p.memory != nil {
		_ = unix.Munmap(p.memory) // it fails only for what is not mapped
		p.memory = nil
		p.last()
	}
}

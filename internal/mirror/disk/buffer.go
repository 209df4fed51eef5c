package disk

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Aligned returns n zero bytes whose address is a multiple of Alignment, as
// direct I/O wants it.
func Aligned(n int) []byte {
	b := make([]byte, n+Alignment-1)
	skip := -address(b) & (Alignment - 1)
	return b[skip : skip+n : skip+n]
}

func address(b []byte) int { return int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// MaxZeroBytes bounds ZeroBytes, in bytes.
const MaxZeroBytes = 1 << 20

// zeroPages take no memory before somebody reads them, and are no garbage to
// collect: every command of this program has them.
var zeroPages [MaxZeroBytes + Alignment - 1]byte

// ZeroBytes returns n aligned zero bytes that nobody may write to.
func ZeroBytes(n int) []byte {
	skip := -address(zeroPages[:]) & (Alignment - 1)
	return zeroPages[skip : skip+n : skip+n]
}

// Huge asks the kernel for large pages in a range of memory: there is less to look
// up for each request that goes to a disk. Where it has none it does without.
func Huge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }

// Pool lends aligned buffers of one size. Its bound is the bound of the memory
// that those who share it use, and it is there for as long as the program runs.
type Pool struct {
	mu   sync.Mutex
	came sync.Cond
	size int
	free [][]byte // the last one was used last
}

// NewPool returns a pool of count buffers of size bytes each. Their memory is taken
// soon, and not as they are used: for a large page the kernel takes milliseconds,
// and when memory is short that is no time to ask for more.
func NewPool(size, count int) *Pool {
	step := (size + Alignment - 1) &^ (Alignment - 1)
	m, err := unix.Mmap(-1, 0, count*step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		Huge(m)
		go func() { _ = unix.Madvise(m, unix.MADV_POPULATE_WRITE) }() // where it fails pages are taken as they are used
	} else {
		m = Aligned(count * step)
	}
	p := &Pool{size: size, free: make([][]byte, count)}
	p.came.L = &p.mu
	for i := range p.free {
		p.free[count-1-i] = m[i*step : i*step+size : i*step+size]
	}
	return p
}

// Get returns a buffer of the pool's size, whatever it holds: the one that came
// back last, which is the quickest. It waits until one is free.
func (p *Pool) Get() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.free) == 0 {
		p.came.Wait()
	}
	last := len(p.free) - 1
	b := p.free[last]
	p.free = p.free[:last]
	return b
}

// Put gives a buffer back that Get returned; a shorter slice of it, from its
// beginning, will do.
func (p *Pool) Put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, b[:p.size])
	p.came.Signal()
}

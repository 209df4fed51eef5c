package disk

import "unsafe"

// Aligned returns n zero bytes whose address is a multiple of Alignment, as
// direct I/O wants it.
func Aligned(n int) []byte {
	b := make([]byte, n+Alignment-1)
	skip := -address(b) & (Alignment - 1)
	return b[skip : skip+n : skip+n]
}

func address(b []byte) int { return int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// Pool lends aligned buffers of one size. Its bound is the bound of the memory
// that those who share it use.
type Pool struct {
	size int
	free chan []byte // nil where a buffer is yet to be made
}

// NewPool returns a pool of at most count buffers of size bytes each, which are
// made when they are first asked for.
func NewPool(size, count int) *Pool {
	p := &Pool{size: size, free: make(chan []byte, count)}
	for range count {
		p.free <- nil
	}
	return p
}

// Get returns a buffer of the pool's size, whatever it holds. It waits until one
// is free.
func (p *Pool) Get() []byte {
	b := <-p.free
	if b == nil {
		b = Aligned(p.size)
	}
	return b
}

// Put gives a buffer back that Get returned; a shorter slice of it, from its
// beginning, will do.
func (p *Pool) Put(b []byte) { p.free <- b[:p.size] }

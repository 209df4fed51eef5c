package heartbeat

// Window remembers which of the latest numbers of a sequence were seen. It is
// not safe for concurrent use.
type Window struct {
	top  uint64 // the highest number seen
	bits []uint64
}

// NewWindow remembers the latest size numbers, rounded up to a multiple of 64.
func NewWindow(size int) *Window { return &Window{bits: make([]uint64, (size+63)/64)} }

// Accept notes n and returns true, or false if n was seen before, is too old to
// know, or is 0.
func (w *Window) Accept(n uint64) bool {
	size := uint64(len(w.bits)) * 64
	switch {
	case n == 0:
		return false
	case n > w.top:
		if n-w.top >= size {
			clear(w.bits)
		} else {
			for i := w.top + 1; i < n; i++ {
				w.bits[i%size/64] &^= 1 << (i % 64)
			}
		}
		w.top = n
	case w.top-n >= size:
		return false
	case w.bits[n%size/64]&(1<<(n%64)) != 0:
		return false
	}
	w.bits[n%size/64] |= 1 << (n % 64)
	return true
}

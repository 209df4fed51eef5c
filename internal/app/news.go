package app

import "sync"

// bell tells whoever waits that something may have changed. Its zero value is
// ready.
type bell struct {
	mu sync.Mutex
	ch chan struct{} // nil: nobody waits
}

// heard returns a channel that the next ring closes.
func (b *bell) heard() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// Changed returns a channel that is closed when the status may have changed.
func (d *Daemon) Changed() <-chan struct{} { return d.news.heard() }

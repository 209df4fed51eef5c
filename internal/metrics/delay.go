package metrics

import (
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

const (
	// delayWindow is how long the fastest heartbeat counts, twice at most. Two
	// clocks that nobody disciplines drift apart by half a millisecond in it.
	delayWindow = 10 * time.Second
	// delayMost is what no heartbeat takes: the sender's clock began anew.
	delayMost = 30 * time.Second
)

// direction is where heartbeats come from: a node, and on which network.
type direction struct {
	from cluster.NodeName
	path int
}

// delays works out how much later than the fastest each heartbeat arrived. The
// clocks of two machines have nothing in common, so the difference between the
// time of sending and that of arriving says nothing by itself; by how much it
// exceeds the least of them is what the way added.
type delays struct {
	mu  sync.Mutex
	all map[direction]*fastest
}

// fastest is the least difference seen, in this window and the one before.
type fastest struct {
	began     cluster.Instant
	now, last time.Duration
}

// of returns the delay of a heartbeat that was sent and arrived at these
// instants of two different clocks; false where there is nothing to compare
// with.
func (d *delays) of(dir direction, sent, arrived cluster.Instant) (time.Duration, bool) {
	took := arrived.Sub(sent)
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.all[dir]
	if f == nil || took-min(f.now, f.last) > delayMost || arrived.Sub(f.began) > 2*delayWindow {
		d.all[dir] = &fastest{began: arrived, now: took, last: took}
		return 0, false
	}
	if arrived.Sub(f.began) > delayWindow {
		f.began, f.last, f.now = arrived, f.now, took
	}
	f.now = min(f.now, took)
	return took - min(f.now, f.last), true
}

// keep forgets the nodes that are not named.
func (d *delays) keep(named func(cluster.NodeName) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir := range d.all {
		if !named(dir.from) {
			delete(d.all, dir)
		}
	}
}

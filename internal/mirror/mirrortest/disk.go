package mirrortest

import (
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

// disk is a data device: what reads return, what would be left without power,
// and what was written since the latest flush, in order.
type disk struct {
	now, firm []cell
	loose     []loose
	count     int32
}

// cell is a version, and its place in the order of writes.
type cell struct{ v, at int32 }

type loose struct {
	b int64
	cell
}

func newDisk(cells int64) disk { return disk{now: make([]cell, cells), firm: make([]cell, cells)} }

func (d *disk) read(b int64) int { return int(d.now[b].v) }

func (d *disk) write(b int64, v int) {
	if d.now[b].v == int32(v) {
		return
	}
	d.count++
	d.now[b] = cell{int32(v), d.count}
	d.loose = append(d.loose, loose{b, d.now[b]})
}

// flush makes durable what was written up to a place in the order of writes.
func (d *disk) flush(upTo int32) {
	n := 0
	for ; n < len(d.loose) && d.loose[n].at <= upTo; n++ {
		d.harden(d.loose[n])
	}
	d.loose = d.loose[n:]
}

// harden makes one write durable, unless a later one of its cell is already.
func (d *disk) harden(l loose) {
	if l.at > d.firm[l.b].at {
		d.firm[l.b] = l.cell
	}
}

// hardenNow makes what some cells hold durable.
func (d *disk) hardenNow(bs []int64) {
	for _, b := range bs {
		d.harden(loose{b, d.now[b]})
	}
}

// power takes the power away: of what no flush has made durable, each write may
// be there or not.
func (d *disk) power(kept func() bool) {
	for _, l := range d.loose {
		if kept() {
			d.harden(l)
		}
	}
	for _, l := range d.loose {
		d.now[l.b] = d.firm[l.b]
	}
	d.loose = nil
}

// metaDisk is a meta device; every part of it is written as a whole.
type metaDisk struct {
	super *meta.Super
	log   []uint32
	pages map[int][]byte
}

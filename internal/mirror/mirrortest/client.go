package mirrortest

import (
	"fmt"
	"math"
	"slices"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
)

// slot is a range that is written as a whole. No two overlap. Of each copy it
// knows which values may not be read from it any more: those that were replaced
// before floor. Without power a copy keeps only what a flush has promised.
type slot struct {
	off   int64
	cells int
	floor [2][]int
	firm  [2][]int
}

// written is one write; its version is its index in Pair.writes.
type written struct {
	slot     *slot
	submit   int
	complete int // math.MaxInt while it is not known
	on       [2]bool
	fua      bool
	powers   int // losses of power of the other host when it was submitted
}

// Client uses the device of a host while its copy is active.
type Client struct {
	p     *Pair
	h     *Host
	on    bool
	under map[*replica.IO]bool
	flush map[*replica.IO]int // and when it was submitted
	stop  bool
	gone  func() // when nothing is under way any more
}

// makeSlots lays out what is written: one or two ranges in each extent, not at
// the ends of blocks.
func (p *Pair) makeSlots() {
	for e := range int64(p.Extents) {
		for k := range int64(1 + p.Chance.IntN(2)) {
			s := &slot{off: e*meta.ExtentSize + (k*64+int64(p.Chance.IntN(40)))*Cell, cells: 1 + p.Chance.IntN(4)}
			for i := range s.floor {
				s.floor[i], s.firm[i] = make([]int, s.cells), make([]int, s.cells)
			}
			p.slots = append(p.slots, s)
		}
	}
}

// Under returns how many requests wait for an answer.
func (c *Client) Under() int { return len(c.under) }

// Attached says whether the device is used.
func (c *Client) Attached() bool { return c.on }

// Stopping says whether the use of the device is being ended.
func (c *Client) Stopping() bool { return c.stop }

// Attach begins to use the device. What stands on it is looked at first.
func (c *Client) Attach() {
	c.on, c.stop = true, false
	for _, s := range c.p.slots {
		c.read(s)
	}
	c.next(c.h.life)
}

func (c *Client) submit(io *replica.IO) {
	if !c.on || !c.h.On() {
		return
	}
	c.under[io] = true
	c.p.world.Say("client: %s at %d begins: %+v", io.Op, io.Off/Cell, io.Tag)
	c.h.Do(func() { c.h.Core.Submit(io) })
}

func (c *Client) read(s *slot) {
	st := c.h.Core.Status()
	t := &content{floor: slices.Clone(s.floor[c.h.N]), settled: st.Phase == "joined" || !st.Set.Peer}
	c.submit(&replica.IO{Op: replica.Read, Off: s.off, Len: s.cells * Cell, Tag: t})
}

// next submits something, and goes on as long as the device is used.
func (c *Client) next(life int) {
	p := c.p
	if !c.on || c.h.life != life || c.stop {
		return
	}
	s := p.slots[p.Chance.IntN(len(p.slots))]
	if p.Chance.IntN(3) > 0 { // most are in few places
		s = p.slots[p.Chance.IntN(5)]
	}
	switch r := p.Chance.IntN(10); {
	case len(c.under) > 12:
	case r < 6:
		c.write(s)
	case r < 8:
		p.seq++
		io := &replica.IO{Op: replica.Flush}
		c.flush[io] = p.seq
		c.submit(io)
	case r < 9 && c.h.On():
		c.read(s)
	}
	p.world.After(p.Between(0, p.Gap), func() { c.next(life) })
}

func (c *Client) write(s *slot) {
	p := c.p
	p.seq++
	w := &written{slot: s, submit: p.seq, complete: math.MaxInt, fua: p.Chance.IntN(6) == 0, powers: c.h.Other().powers}
	p.writes = append(p.writes, w)
	v := make([]int, s.cells)
	for i := range v {
		v[i] = len(p.writes) - 1
	}
	op := replica.Write
	if p.Chance.IntN(8) == 0 {
		op = replica.Zero
	}
	c.submit(&replica.IO{Op: op, Off: s.off, Len: s.cells * Cell, FUA: w.fua, Tag: &content{versions: v}})
}

// completed takes what the device answers.
func (c *Client) completed(io *replica.IO) {
	if !c.on {
		return
	}
	if !c.under[io] {
		c.p.world.Breaks("%s completes a %s that is not under way", c.h, io.Op)
		return
	}
	delete(c.under, io)
	c.p.world.Say("client: %s at %d done: errno %d %+v", io.Op, io.Off/Cell, io.Err, io.Tag)
	if io.Err == 0 {
		c.succeeded(io)
	}
	delete(c.flush, io)
	if len(c.under) == 0 && c.gone != nil {
		c.gone()
	}
}

func (c *Client) succeeded(io *replica.IO) {
	p := c.p
	p.seq++
	switch io.Op {
	case replica.Write, replica.Zero:
		p.Acked++
		w := p.writes[io.Tag.(*content).versions[0]]
		w.complete = p.seq
		// What the other one confirmed is gone if it lost its power before that arrived.
		w.on[c.h.N], w.on[1-c.h.N] = true, !p.Async && p.world.Counts(c.h) && (w.fua || w.powers == c.h.Other().powers)
		for n, on := range w.on {
			if on {
				raise(w.slot.floor[n], w.submit)
			}
			if on && w.fua {
				raise(w.slot.firm[n], w.submit)
			}
		}
	case replica.Flush:
		p.barriers = append(p.barriers, [2]int{c.flush[io], p.seq})
		both := !p.Async && p.world.Counts(c.h)
		for _, w := range p.latest() {
			for n, on := range w.on {
				if on && (both || n == c.h.N) && w.slot != nil && w.complete < c.flush[io] {
					raise(w.slot.firm[n], w.submit)
				}
			}
		}
	case replica.Read:
		t := io.Tag.(*content)
		s := p.slotAt(io.Off)
		for i, v := range t.got {
			c.look(s, i, v, t)
		}
	}
}

func raise(floor []int, to int) {
	for i := range floor {
		floor[i] = max(floor[i], to)
	}
}

// look checks a value that was read: it must not have been replaced before a
// write that was promised, or one that was seen, began.
func (c *Client) look(s *slot, i, v int, t *content) {
	w := c.p.writes[v]
	if v > 0 && w.slot != s {
		c.p.world.Breaks("a cell has what was written elsewhere (write %d)", v)
		return
	}
	if w.complete < t.floor[i] {
		c.p.world.Breaks("%s reads write %d at cell %d, completed at %d, and one that began at %d is lost", c.h, v, s.off/Cell+int64(i), w.complete, t.floor[i])
		return
	}
	// What was seen where every copy that counts has it must not be gone later.
	if v > 0 && t.settled && !c.p.Async && w.complete < math.MaxInt {
		s.floor[c.h.N][i] = max(s.floor[c.h.N][i], w.submit)
	}
}

func (p *Pair) slotAt(off int64) *slot {
	for _, s := range p.slots {
		if s.off == off {
			return s
		}
	}
	return nil
}

// lostServer comes when the process that served is gone: what was under way is
// not known.
func (c *Client) lostServer() {
	c.on, c.stop, c.gone = false, false, nil
	clear(c.under)
	clear(c.flush)
}

// Forget ends the use of the device at once: the programs are killed.
func (c *Client) Forget() { c.lostServer() }

// Detach ends the use of the device in order, or by force, and calls then.
func (c *Client) Detach(force bool, then func()) {
	if !c.on {
		then()
		return
	}
	c.stop = true
	life := c.h.life
	c.gone = func() {
		c.lostServer()
		if c.h.life == life {
			then()
		}
	}
	if force {
		c.h.Do(func() { c.h.Core.Abort() })
	}
	if c.gone != nil && len(c.under) == 0 {
		c.gone()
	}
}

// OutOfOrder says what a copy that may be behind lacks although it has something
// that was written after it was flushed, or "".
func (h *Host) OutOfOrder() string {
	latest := 0
	for v, w := range h.p.writes {
		if w.slot != nil && h.disk.read(w.slot.off/Cell) == v {
			latest = max(latest, w.submit)
		}
	}
	for _, b := range h.p.barriers {
		for v, w := range h.p.writes {
			if w.slot != nil && b[1] < latest && w.complete < b[0] && !h.p.holds(h.N, w, v) {
				return fmt.Sprintf("write %d was complete at %d and flushed at %d, and is not there, but something of %d is", v, w.complete, b[0], latest)
			}
		}
	}
	return ""
}

// Quiet ends what the client does; what is under way is answered.
func (c *Client) Quiet() { c.stop = true }

// Joined notes that the cluster counts on the copy of the other host again: it
// has what the active one has.
func (h *Host) Joined() {
	for _, s := range h.p.slots {
		copy(s.floor[1-h.N], s.floor[h.N])
		copy(s.firm[1-h.N], s.firm[h.N])
	}
	for _, w := range h.p.latest() {
		w.on[1-h.N] = w.on[h.N]
	}
}

// Counted notes that the cluster lets the copy of a host become active. What it has
// durably of what the other one has promised it promises too: that one may have
// copied it there, and ended before it was told that this copy counts.
func (h *Host) Counted() {
	for _, s := range h.p.slots {
		mine, theirs := s.firm[h.N], s.firm[1-h.N]
		for i := range s.cells {
			v := h.disk.firm[s.off/Cell+int64(i)].v
			if h.p.writes[v].submit >= theirs[i] {
				mine[i] = max(mine[i], theirs[i])
			}
		}
	}
}

// latest returns the writes that a flush may be about.
func (p *Pair) latest() []*written { return p.writes[max(0, len(p.writes)-400):] }

// Lacks says that the copy of a host cannot have something that was promised, and
// would still be there on the other one after any crash.
func (h *Host) Lacks() bool {
	for _, s := range h.p.slots {
		for i := range s.cells {
			if s.firm[h.N][i] < s.firm[1-h.N][i] {
				return true
			}
		}
	}
	return false
}

// lostPower forgets what a copy has promised only until its power goes.
func (p *Pair) lostPower(n int) {
	for _, s := range p.slots {
		copy(s.floor[n], s.firm[n])
	}
	for i, w := range p.latest() {
		w.on[n] = w.on[n] && p.holds(n, w, len(p.writes)-len(p.latest())+i) // else no later flush promises it
	}
}

// holds says whether a copy has a write, or what has replaced it.
func (p *Pair) holds(n int, w *written, version int) bool {
	for i := range int64(w.slot.cells) {
		if p.Hosts[n].disk.read(w.slot.off/Cell+i) < version {
			return false
		}
	}
	return true
}

// forgets notes that a copy has nothing any more.
func (p *Pair) forgets(n int) {
	for _, s := range p.slots {
		clear(s.floor[n])
		clear(s.firm[n])
	}
	for _, w := range p.latest() {
		w.on[n] = false
	}
}

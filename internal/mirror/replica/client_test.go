package replica

import (
	"math"
	"slices"
	"time"
)

// client writes, reads and flushes, and knows what the device has promised it.
type client struct {
	p      *pair
	slots  []*slot
	seq    int // of everything that is submitted or completed
	writes []*written
	server *host // whose device it uses; nil: none
	under  map[*IO]bool
	given  map[*IO]bool // up, when their server was lost
	stop   bool
	flush  map[*IO]int // a flush and when it was submitted
	gone   func()      // when nothing is under way any more
	from   int         // writes before this one may be lost if no flush has promised them yet
	done   int         // writes that were acknowledged
}

// slot is a range that is written as a whole. No two overlap.
type slot struct {
	off   int64
	n     int   // blocks
	floor []int // of each block: no value that was replaced before this may be read again
	under int
}

// written is one write; its version is its index in client.writes.
type written struct {
	slot     *slot
	submit   int
	complete int // math.MaxInt while it is not known
	fua      bool
	orphan   bool // its server was lost before it was complete
}

func newClient(p *pair) *client {
	c := &client{p: p, under: map[*IO]bool{}, given: map[*IO]bool{}, flush: map[*IO]int{}, writes: []*written{{}}}
	for e := range int64(pairExtents) {
		for k := range int64(1 + p.rng.IntN(2)) {
			s := &slot{off: e*extentSize + (k*8+int64(p.rng.IntN(4)))*block, n: 1 + p.rng.IntN(4)}
			s.floor = make([]int, s.n)
			c.slots = append(c.slots, s)
		}
	}
	return c
}

// attach begins to use a device. What stands on it is looked at first.
func (c *client) attach(h *host) {
	c.server = h
	for _, s := range c.slots {
		c.submit(&IO{Op: Read, Off: s.off, Len: s.n * block, Tag: &content{}})
	}
	c.next()
}

func (c *client) submit(io *IO) {
	c.under[io] = true
	if io.Op == Read {
		io.Tag.(*content).floor = slices.Clone(c.slotAt(io.Off).floor)
	}
	c.p.say("client: %s at %d begins: %+v", io.Op, io.Off/block, io.Tag)
	c.server.core.Submit(io)
	c.server.carry()
}

// next submits something, and goes on as long as there is a device.
func (c *client) next() {
	h := c.server
	if h == nil || c.stop {
		return
	}
	s := c.slots[c.p.rng.IntN(len(c.slots))]
	if c.p.rng.IntN(3) > 0 { // most are in few places
		s = c.slots[c.p.rng.IntN(5)]
	}
	switch r := c.p.rng.IntN(10); {
	case len(c.under) > 12:
	case r < 6 && s.under < 2:
		c.seq++
		w := &written{slot: s, submit: c.seq, complete: math.MaxInt, fua: c.p.rng.IntN(6) == 0}
		c.writes = append(c.writes, w)
		v := make([]int, s.n)
		for i := range v {
			v[i] = len(c.writes) - 1
		}
		s.under++
		c.submit(&IO{Op: Write, Off: s.off, Len: s.n * block, FUA: w.fua, Tag: &content{versions: v}})
	case r < 8:
		c.seq++
		io := &IO{Op: Flush}
		c.flush[io] = c.seq
		c.submit(io)
	case r < 9:
		c.submit(&IO{Op: Read, Off: s.off, Len: s.n * block, Tag: &content{}})
	}
	c.p.after(c.p.ms(0, 12), func() {
		if c.server == h {
			c.next()
		}
	})
}

func (c *client) slotAt(off int64) *slot {
	for _, s := range c.slots {
		if s.off == off {
			return s
		}
	}
	return nil
}

// completed takes what the device answers.
func (c *client) completed(h *host, io *IO) {
	if c.given[io] {
		return
	}
	if !c.under[io] {
		c.p.breaks("%s completes a %s that is not under way", h, io.Op)
		return
	}
	delete(c.under, io)
	c.p.say("client: %s at %d done: errno %d %+v", io.Op, io.Off/block, io.Err, io.Tag)
	if io.Op == Write {
		c.slotAt(io.Off).under--
	}
	if io.Err == 0 && h == c.server {
		c.succeeded(io)
	}
	delete(c.flush, io)
	if len(c.under) == 0 && c.gone != nil {
		c.gone()
	}
}

func (c *client) succeeded(io *IO) {
	c.seq++
	switch io.Op {
	case Write:
		c.done++
		w := c.writes[io.Tag.(*content).versions[0]]
		w.complete = c.seq
		if !c.p.lossy || w.fua {
			w.slot.promise(w.submit)
		}
	case Flush:
		for i := len(c.writes) - 1; i > max(c.from, len(c.writes)-400); i-- {
			if w := c.writes[i]; w.complete < c.flush[io] {
				w.slot.promise(w.submit)
			}
		}
	case Read:
		s := c.slotAt(io.Off)
		for i, v := range io.Tag.(*content).got {
			c.look(s, i, v, io.Tag.(*content).floor[i])
		}
	}
}

// look checks a value that was read: it must not have been replaced before a
// write that was promised, or one that was seen, began.
func (c *client) look(s *slot, i, v, floor int) {
	w := c.writes[v]
	if v > 0 && w.slot != s {
		c.p.breaks("a block has what was written elsewhere (write %d)", v)
		return
	}
	if w.complete < floor {
		c.p.breaks("a block of slot %d has write %d, completed at %d, and one that began at %d is lost", s.off/block, v, w.complete, floor)
		return
	}
	// A write that is under way may be seen and lost; one that was left by an
	// earlier server must not be there once and then be gone.
	if !c.p.lossy && v > 0 && (w.orphan || w.complete < math.MaxInt) {
		s.floor[i] = max(s.floor[i], w.submit)
	}
}

func (s *slot) promise(submit int) {
	for i := range s.floor {
		s.floor[i] = max(s.floor[i], submit)
	}
}

// lostServer comes when the process that served is gone: what was under way is
// not known. The kernel asks again, which is a write of its own here.
func (c *client) lostServer() {
	c.server = nil
	for io := range c.under {
		c.given[io] = true
		if io.Op == Write {
			c.writes[io.Tag.(*content).versions[0]].orphan = true
		}
	}
	clear(c.under)
	clear(c.flush)
	for _, s := range c.slots {
		s.under = 0
	}
	c.gone = nil
}

// detach ends the use of the device in order, or by force.
func (c *client) detach(force bool, then func()) {
	h := c.server
	if h == nil {
		then()
		return
	}
	c.stop = true
	c.gone = func() {
		c.gone, c.server, c.stop = nil, nil, false
		then()
	}
	if force {
		h.core.Abort()
		h.carry()
		if c.gone != nil && len(c.under) == 0 {
			c.gone()
		}
		return
	}
	if len(c.under) == 0 {
		c.gone()
	}
}

// roleOf follows the role of a host.
func (p *pair) roleOf(h *host, r Role) {
	if r == Active {
		if p.owner != h.n {
			p.breaks("%s is active and does not own the group", h)
			return
		}
		p.client.attach(h)
		return
	}
	if p.owner == h.n {
		p.owner = -1
		p.place()
	}
}

// place starts the group where it may run.
func (p *pair) place() {
	if p.owner >= 0 || p.broken != "" {
		return
	}
	for _, i := range p.rng.Perm(2) {
		h := p.hosts[i]
		if !h.on || p.mute[i] || p.made && !p.in[i] || !p.made && i != 0 {
			continue
		}
		p.epoch++
		p.owner = i
		p.say("the group goes to %s, epoch %d", h, p.epoch)
		h.other().assigned()
		if err := h.core.Promote(p.epoch, h.set(), false); err != nil {
			p.say("%s refuses: %v", h, err)
			p.owner = -1
			continue
		}
		h.carry()
		return
	}
	p.after(200*time.Millisecond, p.place)
}

func (h *host) assigned() {
	if h.on && !h.p.mute[h.n] {
		h.core.Assigned(h.p.epoch)
		h.carry()
	}
}

// giveUp stops the group by force: its device no longer answers.
func (p *pair) giveUp(h *host) {
	if p.owner != h.n || !h.on || h.core.role != Active {
		return
	}
	life := h.life
	p.client.detach(true, func() {
		if h.on && h.life == life {
			h.core.Demote()
			h.carry()
		}
	})
}

// move stops the group in order and starts it anywhere.
func (p *pair) move() {
	if p.owner < 0 {
		return
	}
	h := p.hosts[p.owner]
	if !h.on || p.client.server != h || p.client.stop || h.frozen {
		return
	}
	life := h.life
	p.client.detach(false, func() {
		if h.on && h.life == life {
			h.core.Demote()
			h.carry()
		}
	})
	p.after(3*time.Second, func() { // a stop that hangs is forced
		if h.on && h.life == life && p.owner == h.n && p.client.server == h && p.client.stop {
			h.core.Abort()
			h.carry()
		}
	})
}

package mirrortest

import (
	"errors"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/bitmap"
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
)

// eio is the errno of disks that fail.
const eio uint16 = 5

// Patience is how long the hosts wait for a silent other one.
const Patience = 300 * time.Millisecond

// Host is one of the two machines.
type Host struct {
	N      int
	Core   *replica.Core // nil while no process runs
	Client *Client

	Slow      time.Duration // how much later everything happens here
	BadWrites int           // so many writes from now on fail
	BadReads  int           // the same of reads
	BadMeta   int           // the same of the meta device
	powers    int           // how often it lost its power
	Damage    bool          // at the next start a page of the bitmap, or the activity log too, is found damaged

	p       *Pair
	life    int // how often its process has begun or ended
	link    uint64
	epoch   uint64 // of the session in which frames are carried out
	silent  time.Duration
	disk    disk
	meta    metaDisk
	dialing bool
	victim  replica.Side
	paused  bool
}

// String returns A or B.
func (h *Host) String() string { return string(rune('A' + h.N)) }

// Other returns the other host.
func (h *Host) Other() *Host { return h.p.Hosts[1-h.N] }

// On says whether the process runs.
func (h *Host) On() bool { return h.Core != nil }

// Active says whether this copy is the active one.
func (h *Host) Active() bool { return h.Core != nil && h.Core.Role() == replica.Active }

// Life tells the processes of a host apart.
func (h *Host) Life() int { return h.life }

// Start begins a process: as the active copy if it goes on where one before it
// has ended. Then epoch is that of its assignment.
func (h *Host) Start(role replica.Role, epoch uint64) {
	if h.On() {
		return
	}
	p := h.p
	o := replica.Options{
		Capacity: p.size, SectorSize: 512, Role: role, Epoch: epoch, Session: p.Chance.Uint64(), Random: p.Chance.Uint64,
		Window: 1 << 20, Patience: Patience, LogCapacity: 2 * replica.MaxRange / meta.ExtentSize,
		InitialCopy: !p.NoCopy, Async: p.Async, Rate: p.Rate, Policy: p.Policy, Victim: h.victim, Paused: h.paused,
	}
	if p.Capacity[h.N] > 0 {
		o.Capacity = p.Capacity[h.N]
	}
	if p.Sector[h.N] > 0 {
		o.SectorSize = p.Sector[h.N]
	}
	set, known := p.world.Set(h)
	if o.Set = set; !known {
		o.Set = replica.Set{Self: true, Peer: true} // the other copy counts until it is known what was agreed on
	}
	h.readMeta(&o)
	c, err := replica.New(o)
	if err != nil {
		p.world.Breaks("%s does not start: %v", h, err)
		return
	}
	h.Core, h.dialing, h.link = c, false, 0
	h.life++
	p.world.Say("%s starts as %s with %d marks", h, role, o.Marks.Count())
	h.Do(func() { c.Tick(p.world.Now(), int64(p.world.Now().Seconds())) })
	h.tick(h.life)
	h.dial(h.life)
}

func (h *Host) readMeta(o *replica.Options) {
	if h.meta.super != nil {
		o.Super = *h.meta.super
	}
	o.Log = h.meta.log
	shift := o.Super.BlockShift
	o.Marks = bitmap.New((o.Super.Size + 1<<shift - 1) >> shift)
	for no, bits := range h.meta.pages {
		o.Marks.OrBytes(int64(no)*meta.BitsPerPage, bits)
	}
	if h.Damage && o.Marks.Len() > 0 {
		h.Damage, o.Worn = false, true
		if h.p.Chance.IntN(2) == 0 {
			o.Log = nil
			o.Marks.Set(0, o.Marks.Len())
		}
		o.Marks.Set(0, min(o.Marks.Len(), meta.BitsPerPage))
	}
}

// Stop ends the process at once; with power lost, so is what no flush has made
// durable.
func (h *Host) Stop(power bool) {
	if h.On() {
		h.p.world.Say("%s ends", h)
		h.Core = nil
		h.life++
		h.Client.lostServer()
		o := h.Other()
		life, link := o.life, o.link
		h.p.world.After(h.p.ms(1, 60), func() { o.drop(life, link, "the connection is gone") })
	}
	h.link = 0
	if power {
		h.powers++
		h.disk.power(func() bool { return h.p.Chance.IntN(2) == 0 })
		h.p.lostPower(h.N)
	}
}

// Blank says whether nothing was ever written to the meta device.
func (h *Host) Blank() bool { return h.meta.super == nil }

// Construct makes the first copy here, while no process runs.
func (h *Host) Construct() {
	names := []string{"a", "b"}
	s := replica.Construct(names[h.N], names[1-h.N], h.p.size, h.p.Shift, h.p.Chance.Uint64)
	h.meta.super = &s
}

// Replace puts new, blank devices into a host whose process does not run.
func (h *Host) Replace() {
	h.p.world.Say("the disks of %s are replaced", h)
	h.disk = newDisk(h.p.size / Cell)
	h.meta = metaDisk{pages: map[int][]byte{}}
	h.p.forgets(h.N)
}

// Flip changes a cell behind everybody's back.
func (h *Host) Flip(cell int64, v int) { h.disk.write(cell, v) }

// Do tells the core something, if the process runs, and carries out what follows.
func (h *Host) Do(f func()) {
	if h.On() {
		f()
		h.carry()
	}
}

// Drop ends the session of the process, if one stands.
func (h *Host) Drop(why string) { h.drop(h.life, h.link, why) }

func (h *Host) drop(life int, link uint64, why string) {
	if h.On() && h.life == life && link != 0 && h.link == link {
		h.link = 0
		h.Do(func() { h.Core.Lost(link, why) })
	}
}

// Told tells the process what is agreed on.
func (h *Host) Told(s replica.Set) { h.Do(func() { h.Core.Told(s) }) }

// Ordered tells the process what an operator has said, also the next one.
func (h *Host) Ordered(victim replica.Side, paused bool) {
	h.victim, h.paused = victim, paused
	h.Do(func() { h.Core.Ordered(victim, paused) })
}

func (h *Host) tick(life int) {
	if h.life != life {
		return
	}
	now := h.p.world.Now()
	h.Do(func() { h.Core.Tick(now, int64(now.Seconds())) })
	h.p.world.After(h.p.Tick, func() { h.tick(life) })
}

// later does something if the process still lives. Now and then a disk takes long
// for one thing.
func (h *Host) later(d time.Duration, do func()) {
	life := h.life
	if h.p.Chance.IntN(300) == 0 {
		d += h.p.ms(1, 800)
	}
	h.p.world.After(d+h.Slow, func() {
		if h.life == life {
			h.Do(do)
		}
	})
}

// carry carries out the effects of the core.
func (h *Host) carry() {
	life := h.life
	for h.life == life && h.On() {
		effects := h.Core.Take()
		if len(effects) == 0 {
			return
		}
		for _, e := range effects {
			if h.effect(e); h.life != life {
				return
			}
		}
	}
}

func (h *Host) effect(e replica.Effect) {
	p := h.p
	switch e.Do {
	case replica.DoLocal:
		h.local(e.IO)
	case replica.DoSend:
		h.send(e.IO, e.Link)
	case replica.DoComplete:
		h.Client.completed(e.IO)
	case replica.DoMeta:
		h.writeMeta(e.Meta, 0)
	case replica.DoFrame:
		h.frame(e.Link, e.Frame, e.Payload)
	case replica.DoHangUp:
		p.world.Say("%s hangs up: %s", h, e.Text)
		h.hungUp(e.Link)
	case replica.DoAsk:
		p.world.Say("%s asks for %+v: %s", h, e.Ask.Set, e.Ask.Why)
		p.world.Asked(h)
	case replica.DoRole:
		p.world.Say("%s is %s", h, e.Role)
		p.world.Became(h, e.Role)
	case replica.DoFail:
		p.world.Say("%s fails: %s", h, e.Text)
		p.world.Failed(h, e.Text)
	case replica.DoNotice:
		p.Notices[e.Notice.Code]++
		p.world.Say("%s says: %s", h, e.Notice.Text)
	}
}

// content is what a write writes, and what a read has got.
type content struct {
	versions []int
	got      []int
	floor    []int // of a read: what its slot had promised when it began
	settled  bool  // of a read: what it gets is on every copy that counts
}

func cells(off int64, n int) []int64 {
	out := make([]int64, 0, n/Cell)
	for b := off / Cell; b < (off+int64(n))/Cell; b++ {
		out = append(out, b)
	}
	return out
}

// fails takes one of the errors that are to come.
func fails(n *int) bool {
	if *n > 0 {
		*n--
		return true
	}
	return false
}

func (h *Host) local(io *replica.IO) {
	done := func(errno uint16) { h.Core.LocalDone(io, errno) }
	switch io.Op {
	case replica.Write, replica.Zero:
		if fails(&h.BadWrites) {
			h.later(h.p.ms(0, 2), func() { done(eio) })
			return
		}
		bs, left := cells(io.Off, io.Len), io.Len/Cell
		for i, b := range bs { // a write of many cells is not one step
			h.later(h.p.ms(0, 3), func() {
				h.disk.write(b, io.Tag.(*content).versions[i])
				if left--; left == 0 {
					if io.FUA {
						h.disk.hardenNow(bs)
					}
					done(0)
				}
			})
		}
	case replica.Flush:
		upTo := h.disk.count
		h.later(h.p.ms(1, 4), func() { h.disk.flush(upTo); done(0) })
	case replica.Read:
		if fails(&h.BadReads) {
			h.later(0, func() { done(eio) })
			return
		}
		h.later(h.p.ms(0, 2), func() {
			io.Tag.(*content).got = h.values(io.Off, io.Len)
			done(0)
		})
	}
}

func (h *Host) values(off int64, n int) (out []int) {
	for _, b := range cells(off, n) {
		out = append(out, h.disk.read(b))
	}
	return out
}

var errBadMeta = errors.New("the meta device does not write")

// writeMeta writes the parts in their order; a crash may come between them.
func (h *Host) writeMeta(m *replica.MetaWrite, part int) {
	if part == 0 && fails(&h.BadMeta) {
		h.later(0, func() { h.Core.MetaDone(errBadMeta) })
		return
	}
	h.later(h.p.ms(0, 2), func() {
		switch part {
		case 0:
			for _, pg := range m.Pages {
				h.meta.pages[pg.No] = slices.Clone(pg.Bits)
			}
		case 1:
			if m.Log != nil {
				h.meta.log = slices.Clone(m.Log)
			}
		case 2:
			if m.Super != nil {
				s := *m.Super
				h.meta.super = &s
			}
			h.Core.MetaDone(nil)
			return
		}
		h.writeMeta(m, part+1)
	})
}

// Use makes what was constructed here look as if it had been used.
func (h *Host) Use() { h.meta.super.Since, h.meta.super.Active = 1, false }

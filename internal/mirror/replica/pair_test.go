package replica

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/bitmap"
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

// The device of the stories: more extents than the activity log holds.
const (
	pairExtents = 40
	block       = 4096
	pairSize    = pairExtents * int64(extentSize)
	pairBlocks  = pairSize / block
)

// pair is two copies, what lies between them, a register that stands for the
// cluster, and a client that knows what it was promised.
type pair struct {
	rng   *rand.Rand
	now   time.Duration
	order uint64
	queue pairQueue
	hosts [2]*host
	cut   bool
	links uint64
	mute  [2]bool // the cluster does not hear this host

	owner    int // -1: none
	epoch    uint64
	in       [2]bool
	rev      uint64
	made     bool
	client   *client
	broken   string
	log      []string
	lossy    bool // power is lost too, and with it what no flush has made durable
	counting map[string]int
}

type host struct {
	p     *pair
	n     int
	on    bool
	life  int // how often its process has ended
	core  *Core
	disk  platter
	meta  metaDisk
	async bool

	dialing bool
	asked   *Ask
	slow    time.Duration
	fails   int  // writes that fail from now on
	frozen  bool // its group is isolated
}

// platter is a data device: what a flush has made durable, and what is on top.
type platter struct {
	firm  map[int64]cell
	loose map[int64]cell
	count int
}

// cell is a version, and its place in the order of writes.
type cell struct{ v, at int }

func (d *platter) read(b int64) int {
	if c, ok := d.loose[b]; ok {
		return c.v
	}
	return d.firm[b].v
}

func (d *platter) write(b int64, v int) {
	if d.read(b) == v {
		return
	}
	d.count++
	d.loose[b] = cell{v, d.count}
}

// metaDisk is a meta device; every part of it is written as a whole.
type metaDisk struct {
	super *meta.Super
	log   []uint32
	pages map[int][]byte
}

type pairItem struct {
	at    time.Duration
	order uint64
	do    func()
}
type pairQueue []pairItem

func (q pairQueue) Len() int { return len(q) }
func (q pairQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q pairQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *pairQueue) Push(x any)   { *q = append(*q, x.(pairItem)) }
func (q *pairQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

func newPair(seed uint64, lossy bool) *pair {
	p := &pair{rng: rand.New(rand.NewPCG(seed, seed^0x5bd1e995)), owner: -1, lossy: lossy, counting: map[string]int{}}
	for i := range p.hosts {
		p.hosts[i] = &host{p: p, n: i, disk: platter{firm: map[int64]cell{}, loose: map[int64]cell{}}, meta: metaDisk{pages: map[int][]byte{}}}
	}
	first := Construct("a", "b", pairSize, meta.MinShift, p.rng.Uint64)
	p.hosts[0].meta.super = &first
	p.client = newClient(p)
	return p
}

func (p *pair) after(d time.Duration, do func()) {
	p.order++
	heap.Push(&p.queue, pairItem{p.now + d, p.order, do})
}

func (p *pair) ms(from, to int) time.Duration {
	return time.Duration(from*1000+p.rng.IntN((to-from)*1000+1)) * time.Microsecond
}

func (p *pair) run(d time.Duration) {
	end := p.now + d
	for p.broken == "" && len(p.queue) > 0 && p.queue[0].at <= end {
		it := heap.Pop(&p.queue).(pairItem)
		p.now = it.at
		it.do()
	}
	if p.broken == "" {
		p.now = end
	}
}

func (p *pair) say(format string, args ...any) {
	if len(p.log) < 100000 {
		p.log = append(p.log, fmt.Sprintf("%9.3f ", p.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

func (p *pair) breaks(format string, args ...any) {
	if p.broken == "" {
		p.broken = fmt.Sprintf(format, args...)
		p.say("BROKEN %s", p.broken)
	}
}

func (h *host) String() string { return string(rune('A' + h.n)) }
func (h *host) other() *host   { return h.p.hosts[1-h.n] }

func (h *host) set() Set { return Set{Self: h.p.in[h.n], Peer: h.p.in[1-h.n], Rev: h.p.rev} }

// start begins a process. It goes on as the active copy if its host owns the
// group and has not lost its power.
func (h *host) start(role Role) {
	if h.on {
		return
	}
	o := Options{
		Capacity: pairSize, SectorSize: 512, Role: role, Epoch: h.p.epoch, Set: h.set(), Session: h.p.rng.Uint64(), Random: h.p.rng.Uint64,
		Window: 1 << 20, Patience: 300 * time.Millisecond, LogCapacity: 2 * MaxRange / extentSize, InitialCopy: true, Async: h.async,
	}
	if h.meta.super != nil {
		o.Super = *h.meta.super
	}
	blocks := o.Super.Size / block
	o.Marks = bitmap.New(blocks)
	for no, bits := range h.meta.pages {
		o.Marks.OrBytes(int64(no)*meta.BitsPerPage, bits)
	}
	o.Log = h.meta.log
	c, err := New(o)
	if err != nil {
		h.p.breaks("%s does not start: %v", h, err)
		return
	}
	h.on, h.core, h.dialing, h.asked, h.frozen = true, c, false, nil, false
	h.life++
	h.p.say("%s starts as %s, marks %d", h, role, o.Marks.Count())
	c.Tick(h.p.now, int64(h.p.now.Seconds()))
	h.carry()
	h.tick(h.life)
	h.dial(h.life)
}

// stop ends the process at once; with power lost, what is loose on its disk may
// be lost.
func (h *host) stop(power bool) {
	if !h.on {
		return
	}
	h.p.say("%s ends (power %v)", h, power)
	h.on = false
	h.life++
	h.core = nil
	if power {
		for _, b := range slices.Sorted(maps.Keys(h.disk.loose)) {
			if h.p.rng.IntN(2) == 0 {
				h.disk.firm[b] = h.disk.loose[b]
			}
		}
		h.disk.loose = map[int64]cell{}
		h.p.client.from = len(h.p.client.writes) - 1
	}
	if h.p.owner == h.n {
		h.p.client.lostServer()
	}
	o := h.other()
	life := o.life
	h.p.after(h.p.ms(1, 60), func() { o.drop(life, "the connection is gone") })
}

func (h *host) drop(life int, why string) {
	if h.on && h.life == life && h.core.link != 0 {
		h.core.Lost(h.core.link, why)
		h.carry()
	}
}

func (h *host) tick(life int) {
	if !h.on || h.life != life {
		return
	}
	h.core.Tick(h.p.now, int64(h.p.now.Seconds()))
	h.carry()
	h.p.after(50*time.Millisecond, func() { h.tick(life) })
}

// later does something with the core if the process still lives.
func (h *host) later(d time.Duration, do func()) {
	life := h.life
	h.p.after(d+h.slow, func() {
		if h.on && h.life == life && h.p.broken == "" {
			do()
			h.carry()
		}
	})
}

// carry carries out the effects of the core.
func (h *host) carry() {
	for h.on {
		effects := h.core.Take()
		if len(effects) == 0 {
			return
		}
		for _, e := range effects {
			h.effect(e)
			if !h.on || h.p.broken != "" {
				return
			}
		}
	}
}

func (h *host) effect(e Effect) {
	p := h.p
	switch e.Do {
	case DoLocal:
		h.local(e.IO)
	case DoSend:
		h.send(e.IO, e.Link)
	case DoComplete:
		p.client.completed(h, e.IO)
	case DoMeta:
		h.writeMeta(e.Meta, 0)
	case DoFrame:
		link, f, payload, o := e.Link, e.Frame, e.Payload, h.other()
		p.pass(h, link, p.ms(1, 3), func() {
			if f.Kind == wire.KindAck {
				o.core.PeerDone(link, f.Seq, f.Code)
			} else if err := o.core.Frame(link, f, payload); err != nil {
				p.breaks("%s: %v", o, err)
			}
		})
	case DoHangUp:
		link, o := e.Link, h.other()
		life := o.life
		p.after(p.ms(1, 20), func() {
			if o.on && o.life == life && o.core.link == link {
				o.core.Lost(link, "the other side hung up")
				o.carry()
			}
		})
	case DoAsk:
		a := e.Ask
		h.asked = &a
		h.ask(h.life)
	case DoRole:
		p.say("%s is %s", h, e.Role)
		p.roleOf(h, e.Role)
	case DoFail:
		p.say("%s fails: %s", h, e.Text)
		h.later(p.ms(5, 50), func() { p.giveUp(h) })
	case DoNotice:
		p.counting[e.Notice.Code]++
		p.say("%s says: %s", h, e.Notice.Text)
	}
}

// pass brings something over the link to the other host, if both still are in
// the session then.
func (p *pair) pass(from *host, link uint64, d time.Duration, do func()) {
	to := from.other()
	life := to.life
	p.after(d, func() {
		if to.on && to.life == life && !p.cut && to.core.link == link {
			do()
			to.carry()
		}
	})
}

func (h *host) blocks(off int64, n int) (out []int64) {
	for b := off / block; b < (off+int64(n))/block; b++ {
		out = append(out, b)
	}
	return out
}

// content is what a write of the client writes.
type content struct {
	versions []int
	got      []int // of a read
	floor    []int // of a read: what its slot had promised when it began
}

func (h *host) local(io *IO) {
	switch io.Op {
	case Write, Zero:
		if h.fails > 0 {
			h.fails--
			h.later(h.p.ms(0, 2), func() { h.core.LocalDone(io, eio) })
			return
		}
		bs := h.blocks(io.Off, io.Len)
		done := 0
		for i, b := range bs { // a write of many blocks is not one step
			h.later(h.p.ms(0, 3), func() {
				h.disk.write(b, io.Tag.(*content).versions[i])
				if done++; done == len(bs) {
					if io.FUA {
						h.harden(bs)
					}
					h.core.LocalDone(io, 0)
				}
			})
		}
	case Flush:
		snap := maps.Clone(h.disk.loose)
		h.later(h.p.ms(1, 4), func() { h.firm(snap); h.core.LocalDone(io, 0) })
	case Read:
		h.later(h.p.ms(0, 2), func() {
			t := io.Tag.(*content)
			t.got = nil
			for _, b := range h.blocks(io.Off, io.Len) {
				t.got = append(t.got, h.disk.read(b))
			}
			h.core.LocalDone(io, 0)
		})
	}
}

func (h *host) harden(bs []int64) {
	snap := map[int64]cell{}
	for _, b := range bs {
		if c, ok := h.disk.loose[b]; ok {
			snap[b] = c
		}
	}
	h.firm(snap)
}

// firm makes durable what was loose when a flush began.
func (h *host) firm(snap map[int64]cell) {
	for b, c := range snap {
		if c.at > h.disk.firm[b].at {
			h.disk.firm[b] = c
		}
		if h.disk.loose[b] == c {
			delete(h.disk.loose, b)
		}
	}
}

// send gives an IO to the other host, which carries it out and confirms it.
func (h *host) send(io *IO, link uint64) {
	p, o := h.p, h.other()
	f := wire.Frame{Epoch: h.core.epoch, Seq: io.Seq, Offset: io.Off, Length: uint32(io.Len)}
	var versions []int
	switch io.Op {
	case Write, Zero:
		f.Kind, versions = wire.KindWrite, io.Tag.(*content).versions
	case Copy:
		f.Kind = wire.KindCopy
		for _, b := range h.blocks(io.Off, io.Len) {
			versions = append(versions, h.disk.read(b))
		}
	case Flush:
		f.Kind = wire.KindFlush
	case Sum:
		f.Kind = wire.KindSum
		for _, b := range h.blocks(io.Off, io.Len) {
			versions = append(versions, h.disk.read(b))
		}
	case Read:
		f.Kind = wire.KindRead
	}
	p.pass(h, link, p.ms(1, 3), func() {
		if errno := o.core.Accept(link, f); errno != 0 {
			p.pass(o, link, p.ms(1, 2), func() { h.core.PeerDone(link, io.Seq, errno) })
			return
		}
		o.execute(h, io, link, f, versions)
	})
}

func (o *host) execute(h *host, io *IO, link uint64, f wire.Frame, versions []int) {
	p := o.p
	answer := func(errno uint16, differs []int64) {
		o.core.Executed(f, errno)
		p.pass(o, link, p.ms(1, 3), func() {
			if f.Kind == wire.KindSum {
				h.core.Compared(differs)
			}
			h.core.PeerDone(link, io.Seq, errno)
		})
	}
	bs := o.blocks(f.Offset, int(f.Length))
	switch f.Kind {
	case wire.KindWrite, wire.KindCopy:
		if o.fails > 0 {
			o.fails--
			o.later(0, func() { answer(eio, nil) })
			return
		}
		if o.core.linkEpoch < p.epoch && p.owner == o.n {
			p.breaks("%s carries out a write of an old epoch", o)
		}
		o.later(p.ms(0, 3), func() {
			for i, b := range bs {
				o.disk.write(b, versions[i])
			}
			if io.FUA {
				o.harden(bs)
			}
			answer(0, nil)
		})
	case wire.KindFlush:
		snap := maps.Clone(o.disk.loose)
		o.later(p.ms(1, 4), func() { o.firm(snap); answer(0, nil) })
	case wire.KindSum:
		var differs []int64
		for i, b := range bs {
			if o.disk.read(b) != versions[i] {
				differs = append(differs, b*block)
			}
		}
		o.later(p.ms(0, 2), func() { answer(0, differs) })
	default:
		o.later(0, func() { answer(eio, nil) })
	}
}

// writeMeta writes the parts in their order; a crash may come between them.
func (h *host) writeMeta(m *MetaWrite, part int) {
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
			h.core.MetaDone(nil)
			return
		}
		h.writeMeta(m, part+1)
	})
}

// dial is what the process of an active copy does all the time.
func (h *host) dial(life int) {
	if !h.on || h.life != life {
		return
	}
	h.p.after(h.p.ms(10, 40), func() { h.dial(life) })
	o := h.other()
	if h.core.role != Active || h.core.link != 0 || h.dialing || h.p.cut || !o.on {
		return
	}
	h.dialing = true
	h.p.links++
	link, hello, oLife := h.p.links, h.core.Hello(), o.life
	refuse := func() { h.dialing = false }
	h.p.after(h.p.ms(2, 6), func() {
		if !o.on || o.life != oLife || h.p.cut || !h.on || h.life != life {
			refuse()
			return
		}
		err := o.core.Greeted(link, hello, func() {
			theirs := o.core.Hello()
			h.p.after(h.p.ms(1, 3), func() {
				h.dialing = false
				if !h.on || h.life != life || h.p.cut {
					if o.on && o.life == oLife {
						o.core.Lost(link, "it did not come to be")
						o.carry()
					}
					return
				}
				h.core.Connected(link, theirs)
				h.carry()
			})
		})
		if err != nil {
			refuse()
		}
		if o.on {
			o.carry()
		}
		h.p.after(time.Second, func() { // it was not answered
			if h.on && h.life == life && h.core.link == 0 {
				h.dialing = false
			}
		})
	})
}

// ask brings the wish of a host to the register, again and again while it stands.
func (h *host) ask(life int) {
	a := h.asked
	h.p.after(h.p.ms(2, 30), func() {
		if !h.on || h.life != life || h.asked != a || a == nil {
			return
		}
		h.p.decide(h, *a)
		h.p.after(h.p.ms(100, 200), func() {
			if h.on && h.life == life && h.asked == a {
				h.ask(life)
			}
		})
	})
	if h.p.rng.IntN(4) == 0 { // it arrives once more, much later, also if the wish has changed
		b := *a
		h.p.after(h.p.ms(50, 800), func() { h.p.decide(h, b) })
	}
}

// decide is what the cluster does with a wish: it is void unless the host owns
// the group and knew the latest set.
func (p *pair) decide(h *host, a Ask) {
	if p.mute[h.n] || p.owner != h.n || a.Rev != p.rev || !a.Self && !a.Peer {
		return
	}
	p.in[h.n], p.in[1-h.n] = a.Self, a.Peer
	p.rev++
	p.made = true
	p.say("the set is now A %v B %v (%s)", p.in[0], p.in[1], a.Why)
	p.tell()
}

func (p *pair) tell() {
	for _, h := range p.hosts {
		life := h.life
		p.after(p.ms(1, 20), func() {
			if h.on && h.life == life && !p.mute[h.n] {
				if h.asked != nil && h.asked.Self == h.set().Self && h.asked.Peer == h.set().Peer {
					h.asked = nil
				}
				h.core.Told(h.set())
				h.carry()
			}
		})
	}
}

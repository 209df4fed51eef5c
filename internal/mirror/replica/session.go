package replica

import (
	"errors"
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/mirror/bitmap"
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

// Hello is the greeting of this copy.
func (c *Core) Hello() wire.Hello {
	dirty := c.marks.Count()
	if c.marked() {
		dirty = max(dirty, 1)
	}
	return wire.Hello{
		Device: c.sup.Device, Node: c.sup.Node, Peer: c.sup.Peer, Size: c.sup.Size, Capacity: c.opt.Capacity,
		BlockShift: c.sup.BlockShift, SectorSize: c.opt.SectorSize, Current: c.sup.Current, Base: c.sup.Base, Ancestors: c.sup.Ancestors,
		Active: c.role == Active, Inconsistent: c.sup.Inconsistent, Constructed: c.sup.Constructed, Failed: c.sup.Failed,
		Dirty: dirty, Epoch: c.epoch, Session: c.opt.Session, Version: c.opt.Version,
		Since: c.sup.Since, Written: c.written(),
	}
}

// Connected tells the active copy that a session stands, and how the other copy
// greeted. link is new for every session and never 0.
func (c *Core) Connected(link uint64, h wire.Hello) {
	if c.role != Active || c.gone || c.broken != "" {
		c.effect(Effect{Do: DoHangUp, Link: link, Text: "this copy is not active"})
		return
	}
	if c.link != 0 {
		c.lost("another session has begun")
	}
	c.link, c.hello = link, h
	if c.growNow() {
		c.lost("it is told the new size") // by the greeting of the next session
		return
	}
	rel, why := c.compare(&h)
	c.relation = rel
	switch rel {
	case Equal:
		switch {
		case c.set.Peer:
			c.joinAs("nothing differs")
		case c.opt.Paused:
			c.phase = greeted
			c.considerCopy()
		default:
			c.phase = settling
			c.finishCopy()
		}
	case Behind, Foreign:
		c.phase = greeted
		c.considerCopy()
	case Ahead, Forked:
		if c.victim(&h) == Peer {
			c.phase = greeted
			c.considerCopy()
			return
		}
		if rel == Ahead && !h.Inconsistent && c.yield(why) {
			return
		}
		c.once("error", "mirror-disk-split", "The two copies cannot be joined: %s. Nothing is copied until an operator decides.", why)
		c.hangUpAs(why)
	default:
		c.once("warn", "mirror-disk-unfit", "The other copy cannot be used: %s.", why)
		c.hangUpAs(why)
	}
}

// hangUpAs ends a session that could not begin.
func (c *Core) hangUpAs(why string) {
	rel := c.relation
	c.lost(why)
	c.relation = rel
}

// yield ends this copy's part as the active one for the other one, which goes on
// from it: nothing was acknowledged here since they parted, and what was
// acknowledged there is lost if this one goes on. It says whether the other one may
// go on, as far as the cluster has said.
func (c *Core) yield(why string) bool {
	if !c.shared || !c.set.Peer || c.ask != nil && !c.ask.Peer {
		return false
	}
	c.broken, c.yielding = why, true
	c.notice("warn", "mirror-disk-behind", "The copy of this node became active and lacks writes that were acknowledged on the other one, which takes over: %s.", why)
	c.hangUpAs(why)
	c.wish(Set{Self: false, Peer: true}, why)
	c.effect(Effect{Do: DoFail, Text: why})
	return true
}

// victim says which copy is given up where both were written apart. A policy gives
// up none that has everything the other one has: that is no split brain.
func (c *Core) victim(h *wire.Hello) Side {
	if c.opt.Victim != Neither {
		return c.opt.Victim
	}
	if h.Device != c.sup.Device {
		return Neither // it may be anything, also the only copy of something else
	}
	if c.relation == Ahead {
		return Neither
	}
	switch c.opt.Policy {
	case PolicySurvivor:
		return Peer
	case PolicyOlder:
		if h.Written < c.written() {
			return Peer
		}
	case PolicySmaller:
		if h.Dirty < c.marks.Count() {
			return Peer
		}
	}
	return Neither
}

// considerCopy goes on towards a copy as far as it can.
func (c *Core) considerCopy() {
	switch {
	case c.opt.Paused:
		c.outOf(byOrder)
	case c.shared:
		c.outOf("it lacks what was written here")
	default:
		c.beginCopy()
	}
}

// beginCopy asks the other side for its marks. From its answer on it is the
// target of a copy.
func (c *Core) beginCopy() {
	if c.opt.Paused || c.phase != greeted {
		return
	}
	if c.taken() && c.marks.Empty() {
		c.phase = settling
		c.finishCopy()
		return
	}
	c.phase = asked
	if c.whole() {
		c.mark(0, c.sup.Size)
	}
	v := wire.Verdict{Decision: wire.CopyMarked, Text: "copying begins"}
	if c.whole() {
		v.Decision = wire.CopyAll
	}
	c.frame(wire.Frame{Kind: wire.KindVerdict}, v.Encode())
}

// taken says whether the other copy is taken to be what this one was when it was
// made, as the administrator says: it is new, and the first one.
func (c *Core) taken() bool {
	return !c.opt.InitialCopy && c.relation == Foreign && !c.hello.Constructed && len(c.sup.Ancestors) == 0 && c.sup.Base == c.sup.Current
}

// whole says whether everything has to be copied: nobody knows what differs.
func (c *Core) whole() bool {
	if c.taken() {
		return false
	}
	if c.relation == Ahead || c.relation == Forked {
		return c.hello.Base != c.sup.Base || c.hello.Device != c.sup.Device || c.hello.BlockShift != c.sup.BlockShift
	}
	return c.relation == Foreign
}

// frame sends a control frame to the other side.
func (c *Core) frame(f wire.Frame, payload []byte) {
	f.Epoch, f.Payload = c.epoch, uint32(len(payload))
	c.effect(Effect{Do: DoFrame, Link: c.link, Frame: f, Payload: payload})
}

// Lost tells that a session has ended.
func (c *Core) Lost(link uint64, why string) {
	if link != 0 && link == c.link {
		c.lost(why)
	}
}

// lost ends the session, if there is one: what is under way to the other copy,
// and what it may not have kept, may differ.
func (c *Core) lost(why string) {
	if c.link == 0 {
		return
	}
	old, was := c.link, c.phase
	c.effect(Effect{Do: DoHangUp, Link: old, Text: why})
	c.link, c.phase = 0, apart
	if was != apart { // else nothing has begun, and it is waited for no longer
		c.silent = c.now
	}
	c.endRun()
	if c.role != Active {
		return
	}
	clear(c.sent)
	c.queued = 0
	differs := len(c.fresh)+len(c.older) > 0
	for _, io := range c.active {
		if io.link != old {
			continue
		}
		io.link = 0
		if io.Op.changes() {
			c.mark(io.Off, io.end())
			differs = true
		}
		switch {
		case io.peer != wanted:
		case !c.shared || io.inner:
			io.peer = none
		case io.Op == Read:
			io.peer, io.Err = none, eio
		}
	}
	c.spoil()
	if was == joined {
		c.notice("warn", "mirror-disk-lost", "The other copy is lost: %s.", why)
	}
	if c.shared && (differs || was == settling) {
		c.outOf(why)
	}
	c.settleAll()
}

// hangUp ends the session, if there is one.
func (c *Core) hangUp(why string) {
	if c.role == Active {
		c.lost(why)
		return
	}
	if c.link != 0 {
		c.effect(Effect{Do: DoHangUp, Link: c.link, Text: why})
		c.link = 0
	}
}

// Frame takes a control frame of the other side: on the active copy its marks,
// on a standby what it is told to become. An error ends the session.
func (c *Core) Frame(link uint64, f wire.Frame, payload []byte) error {
	if link != c.link || link == 0 {
		return nil // of an earlier session
	}
	if c.role == Active {
		return c.frameOfStandby(f, payload)
	}
	return c.frameOfActive(f, payload)
}

func (c *Core) frameOfStandby(f wire.Frame, payload []byte) error {
	if f.Kind != wire.KindBitmap || c.phase != asked {
		return fmt.Errorf("a frame of kind %s in phase %s", f.Kind, c.phase)
	}
	b := blockSize(&c.sup)
	if f.Offset%(b*8) != 0 || f.Offset < 0 || f.Offset > c.sup.Size {
		return fmt.Errorf("marks at offset %d", f.Offset)
	}
	theirs := bitmap.New(c.marks.Len())
	theirs.OrBytes(f.Offset/b, payload)
	for start, end := theirs.NextRun(0, theirs.Len()); start >= 0; start, end = theirs.NextRun(end, theirs.Len()) {
		c.mark(start*b, min(end*b, c.sup.Size))
	}
	if f.Flags&wire.More == 0 {
		c.phase = copying
		c.beginRun()
	}
	return nil
}

// finishCopy comes when nothing is marked any more: both are flushed, and the
// other copy gets this one's generation. From then on it counts.
func (c *Core) finishCopy() {
	link := c.link
	c.flushInner(func(good bool) {
		if c.phase != settling || c.link != link {
			return
		}
		if !good || !c.marks.Empty() {
			c.lost("the two copies could not be flushed")
			return
		}
		c.share()
		c.write(func() {
			if c.phase != settling || c.link != link {
				return
			}
			c.afterEarly(func() {
				if c.phase == settling && c.link == link {
					c.sendAdopt()
				}
			})
		})
	})
}

// afterEarly calls f when the other copy has confirmed what was completed without
// it: from then on it may count.
func (c *Core) afterEarly(f func()) {
	early := 0
	for _, io := range c.active {
		if io.done && io.peer == wanted && !c.opt.Async {
			early++
			io.after = chain(io.after, func(*IO) {
				if early--; early == 0 {
					f()
				}
			})
		}
	}
	if early == 0 {
		f()
	}
}

// sendAdopt gives the other copy this one's generation.
func (c *Core) sendAdopt() {
	link := c.link
	a := wire.Adopt{Current: c.sup.Current, Ancestors: c.sup.Ancestors}
	c.seq++
	io := &IO{Op: Flush, inner: true, Seq: c.seq, link: link, peer: wanted, started: true}
	io.after = func(io *IO) { c.adopted(link, io.peer == ok) }
	c.active = append(c.active, io)
	c.sent[io.Seq] = io
	c.frame(wire.Frame{Kind: wire.KindAdopt, Seq: io.Seq}, a.Encode())
}

// adopted comes when the other copy has the generation durably.
func (c *Core) adopted(link uint64, good bool) {
	if !good || c.phase != settling || c.link != link {
		return
	}
	if c.set.Peer {
		c.join()
		return
	}
	c.run.adopted = true
	c.wish(Set{Self: true, Peer: true}, "the two copies are equal")
}

// join comes when the cluster counts on the other copy again.
func (c *Core) join() {
	c.sup.Base, c.superDue = c.sup.Current, true
	c.logDue = true // and the pages with it
	c.prove(c.run.whole && !c.run.erred, "all of it was copied to the other one")
	c.joinAs("the copy is complete")
	c.write(nil)
}

func (c *Core) joinAs(why string) {
	c.phase, c.retry = joined, false
	c.run = run{}
	clear(c.said)
	for _, io := range c.active { // flushes that came while there was no session, or it ended
		if io.peer == wanted && io.link == 0 {
			c.send(io)
		}
	}
	c.notice("info", "mirror-disk-in-sync", "Both copies are equal, and every write goes to both: %s.", why)
	switch {
	case c.opt.Paused:
		c.outOf(byOrder)
	case c.ask != nil && !c.ask.Peer:
		c.wish(Set{Self: true, Peer: true}, "the other copy is back, and nothing differs")
	}
	c.handOver()
}

// adopt makes this copy what the active one is; c.hello is its greeting.
func (c *Core) adopt(a *wire.Adopt) {
	c.sup.Current, c.sup.Base, c.sup.Ancestors, c.sup.Since = a.Current, a.Current, a.Ancestors, max(c.hello.Since, 1)
	c.sup.Constructed, c.sup.Inconsistent, c.sup.Failed, c.sup.Kept = true, false, false, false
	c.sup.Shared, c.shared = true, true
	c.marks.Reset()
	c.pages.Touch(0, c.marks.Len())
	c.superDue, c.logDue = true, true
}

// become makes this copy one of the active copy's device, before anything of it
// arrives. Unless it is new, and is not to get everything, all of it is marked
// until it is complete.
func (c *Core) become(h *wire.Hello, all bool) {
	if c.sup.Device == h.Device && c.sup.Size == h.Size && c.sup.BlockShift == h.BlockShift {
		return
	}
	if c.sup.Device == h.Device && c.sup.BlockShift == h.BlockShift && h.Size > c.sup.Size {
		c.resize(h.Size)
		return
	}
	c.sup.Device, c.sup.Size, c.sup.BlockShift = h.Device, h.Size, h.BlockShift
	if c.sup.Node == "" {
		c.sup.Node, c.sup.Peer = h.Peer, h.Node
	}
	blocks := (h.Size + blockSize(&c.sup) - 1) / blockSize(&c.sup)
	c.marks, c.pages = bitmap.New(blocks), bitmap.NewPages(blocks, meta.BitsPerPage)
	if all || c.sup.Constructed {
		c.marks.Set(0, blocks)
		c.pages.Touch(0, blocks)
	}
	c.logDue = true
}

// resize makes room for a device that has grown.
func (c *Core) resize(size int64) {
	c.sup.Size, c.superDue, c.logDue = size, true, true
	blocks := (size + blockSize(&c.sup) - 1) / blockSize(&c.sup)
	c.marks.Grow(blocks)
	c.pages.Grow(blocks)
}

// Grow takes a larger size into use, when the other copy has been greeted anew and
// its device is as large. What was not there before is copied.
func (c *Core) Grow(size int64) error {
	switch {
	case c.role != Active || c.phase != joined:
		return errors.New("both copies have to be in sync")
	case size <= c.sup.Size || size > c.opt.Capacity:
		return fmt.Errorf("from %d to %d bytes, on a data device of %d", c.sup.Size, size, c.opt.Capacity)
	}
	c.growTo = size
	c.lost("the devices are measured anew")
	return nil
}

// growNow grows if that was asked for and both devices are large enough, and says
// whether it has. The other copy does not know of it yet.
func (c *Core) growNow() bool {
	to := c.growTo
	c.growTo = 0
	switch {
	case to <= c.sup.Size:
		return false
	case c.hello.Capacity < to:
		c.notice("error", "mirror-disk-too-small", "The mirror disk does not grow to %d bytes: the device of the other copy has %d.", to, c.hello.Capacity)
		return false
	}
	was := c.sup.Size
	c.resize(to)
	c.mark(was, to)
	c.write(func() { c.effect(Effect{Do: DoGrown, Size: to}) })
	c.notice("info", "mirror-disk-grown", "The mirror disk has grown from %d to %d bytes.", was, to)
	return true
}

// Recopy has the other copy copied to again, also after its disk has failed: what
// differs, or everything. A standby whose disk has failed tries it again.
func (c *Core) Recopy(everything bool) {
	c.retry = true
	if c.role != Active {
		c.broken, c.sup.Failed, c.superDue = "", false, true
		c.write(nil)
		return
	}
	if !everything {
		return
	}
	c.lost("everything is copied by an operator's order")
	c.mark(0, c.sup.Size)
	c.outOf("everything is copied by an operator's order")
}

package replica

import (
	"fmt"
	"slices"
)

// Submit takes a request of the kernel. DoComplete follows, unless the copy is
// held for ever.
func (c *Core) Submit(io *IO) {
	if c.gone || c.role != Active {
		io.Err = eio
		c.effect(Effect{Do: DoComplete, IO: io})
		return
	}
	c.waiting = append(c.waiting, io)
	if len(c.waiting) == 1 {
		c.pump()
		return
	}
	c.tryStart(len(c.waiting) - 1)
}

// pump starts what waits and can.
func (c *Core) pump() {
	for i := 0; i < len(c.waiting); {
		if !c.tryStart(i) {
			i++
		}
	}
}

// tryStart starts the i-th of those that wait, if it can, and takes it out.
func (c *Core) tryStart(i int) bool {
	io := c.waiting[i]
	if c.frozen || c.broken != "" || c.role != Active || c.collides(io, i) {
		return false
	}
	if io.Op == Read && c.shared && c.phase != joined && !c.marks.Empty() {
		return false // what is read here might not be what another node would go on with
	}
	if io.Op.changes() {
		if io.extents == nil && !c.reserve(io) {
			return false
		}
		if !c.log.durable(io.extents) {
			return false
		}
	}
	c.waiting = slices.Delete(c.waiting, i, i+1)
	c.start(io)
	return true
}

// reserve takes an IO's extents of the activity log, and has it written if they
// are new there. It says whether there is room.
func (c *Core) reserve(io *IO) bool {
	es := extentsOf(io.Off, io.Len)
	_, changed, room := c.log.hold(es, c.now)
	if !room {
		return false
	}
	io.extents = es
	if changed {
		c.logDue = true
		c.write(nil)
	}
	return true
}

// collides says whether a change of the same bytes is under way, or waits for
// longer. Both copies must see overlapping changes in one order.
func (c *Core) collides(io *IO, before int) bool {
	if !io.Op.changes() && io.Op != Copy && io.Op != Sum {
		return false
	}
	for _, o := range c.active {
		if (o.Op.changes() || o.Op == Copy || o.Op == Sum) && o.overlaps(io) {
			return true
		}
	}
	for _, o := range c.waiting[:before] {
		if o.Op.changes() && o.overlaps(io) {
			return true
		}
	}
	return false
}

// start begins an IO on this copy, and on the other where it has a part in it.
func (c *Core) start(io *IO) {
	io.started = true
	c.active = append(c.active, io)
	switch io.Op {
	case Read:
		io.local = wanted
	case Flush:
		io.local = wanted
		c.rinse(io)
		c.send(io)
	case Copy, Sum:
		c.send(io)
		return
	default:
		io.local, c.wrote = wanted, c.wall
		c.send(io)
		if io.link == 0 {
			c.mark(io.Off, io.end())
		}
	}
	c.effect(Effect{Do: DoLocal, IO: io})
}

// send gives an IO its part on the other copy. Without a session it has one only
// where the other copy counts: then it waits for what the cluster says. What is
// marked anyway is not sent while it is to be copied.
func (c *Core) send(io *IO) {
	if c.phase < copying {
		if c.shared {
			io.peer = wanted
		}
		return
	}
	if b := blockSize(&c.sup); io.Op.changes() && c.phase == copying && c.marks.All(io.Off/b, min((io.end()+b-1)/b, c.marks.Len())) {
		return
	}
	c.seq++
	io.Seq, io.link, io.peer = c.seq, c.link, wanted
	c.sent[io.Seq] = io
	c.queued += int64(io.Len)
	c.effect(Effect{Do: DoSend, IO: io, Link: c.link})
}

// rinse begins a generation of unflushed ranges with a flush, unless one is
// under way.
func (c *Core) rinse(io *IO) {
	if c.rinsing != nil || c.phase < copying {
		return
	}
	c.rinsing = io
	c.older, c.fresh = c.fresh, c.older[:0]
	io.after = chain(io.after, func(io *IO) {
		if c.rinsing != io {
			return
		}
		c.rinsing = nil
		if io.local == ok && io.peer == ok {
			c.older = c.older[:0]
			return
		}
		for _, r := range c.older { // they stay unflushed
			c.fresh.add(r.from, r.to)
		}
		c.older = c.older[:0]
	})
}

func chain(a, b func(*IO)) func(*IO) {
	if a == nil {
		return b
	}
	return func(io *IO) { a(io); b(io) }
}

// LocalDone answers DoLocal; errno 0 is success.
func (c *Core) LocalDone(io *IO, errno uint16) {
	io.local = ok
	if errno != 0 {
		io.local, io.Err = failed, errno
		if !io.done {
			c.localFailed(io, errno)
		}
	}
	c.settle(io)
}

// localFailed answers an error of the data device. A read is tried on the other
// copy.
func (c *Core) localFailed(io *IO, errno uint16) {
	c.run.erred = true
	if io.Op == Read {
		if c.phase == joined && c.set.Peer && io.link == 0 {
			c.send(io)
			c.once("warn", "mirror-disk-read-failed", "Reading %d bytes at %d failed here (errno %d); the other copy has them.", io.Len, io.Off, errno)
		}
		return
	}
	c.fail(fmt.Sprintf("%s of %d bytes at %d: errno %d", io.Op, io.Len, io.Off, errno))
	if c.broken == "" { // it is the only copy: the one who asked hears of it
		c.mark(io.Off, io.end())
	}
	c.sup.Failed, c.superDue = true, true
	c.write(nil)
}

// Stalled tells that the local disk does not answer.
func (c *Core) Stalled(why string) { c.fail(why) }

// PeerDone answers DoSend; errno 0 is success. Answers of an earlier session are
// dropped.
func (c *Core) PeerDone(link, seq uint64, errno uint16) {
	io := c.sent[seq]
	if link != c.link || io == nil {
		return
	}
	delete(c.sent, seq)
	c.queued -= int64(io.Len)
	if errno != 0 && io.Op != Read {
		c.lost(fmt.Sprintf("the disk of the other copy failed: %s of %d bytes at %d, errno %d", io.Op, io.Len, io.Off, errno))
		return
	}
	io.peer = ok
	if io.Op == Read {
		io.Err = errno
	}
	if io.Op == Copy {
		b := blockSize(&c.sup)
		first, end := io.Off/b, min((io.end()+b-1)/b, c.marks.Len())
		c.marks.Clear(first, end)
		c.pages.Touch(first, end)
	}
	c.settle(io)
	if c.queued <= c.opt.Window {
		c.settleLate()
	}
}

// settle completes an IO if it is complete, and retires it if it is over.
func (c *Core) settle(io *IO) {
	if !io.done && !io.inner && c.completable(io) {
		c.complete(io, io.Err)
	}
	c.retire(io)
}

// completable is the promise of a mirror disk: an IO is complete when it is on
// this copy, and on the other if that counts.
func (c *Core) completable(io *IO) bool {
	switch {
	case io.local == wanted || c.held():
		return false
	case io.peer.over():
		return true
	case io.Op == Read, c.shared && !c.opt.Async:
		return false
	case io.link == 0: // held until the cluster has spoken
		return false
	}
	return c.queued <= c.opt.Window
}

// settleAll looks at everything that is under way.
func (c *Core) settleAll() {
	for _, io := range slices.Clone(c.active) {
		c.settle(io)
	}
}

// settleLate completes what waited for room in the window.
func (c *Core) settleLate() {
	if c.shared && !c.opt.Async {
		return
	}
	for _, io := range c.active {
		if !io.done && !io.inner && c.completable(io) {
			c.complete(io, io.Err)
		}
	}
}

func (c *Core) complete(io *IO, errno uint16) {
	if io.done {
		return
	}
	io.done = true
	if io.inner {
		return
	}
	io.Err = errno
	c.effect(Effect{Do: DoComplete, IO: io})
}

// retire takes an IO out when both parts are over and its caller has it.
func (c *Core) retire(io *IO) {
	if !io.started || !io.local.over() || !io.peer.over() || !io.done && !io.inner {
		return
	}
	i := slices.Index(c.active, io)
	if i < 0 {
		return
	}
	c.active[i] = c.active[len(c.active)-1]
	c.active[len(c.active)-1] = nil
	c.active = c.active[:len(c.active)-1]
	if io.extents != nil {
		c.log.release(io.extents, c.now)
		io.extents = nil
	}
	if io.peer == ok && (io.Op.changes() && io.local == ok || io.Op == Copy) {
		c.fresh.add(io.Off, io.end()) // until both are flushed
	}
	if io.after != nil {
		io.after(io)
	}
	if len(c.waiting) > 0 {
		c.pump()
	}
	if c.run.on() {
		c.advance()
	}
	if len(c.idle) > 0 {
		c.checkIdle()
	}
}

// flushInner flushes both copies; then says whether that succeeded.
func (c *Core) flushInner(then func(bool)) {
	io := &IO{Op: Flush, inner: true}
	io.after = func(io *IO) { then(io.local == ok && (io.peer == ok || io.link == 0)) }
	c.start(io)
}

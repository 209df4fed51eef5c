package mirrortest

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

// pass brings something over a session to the other host, if both still are in
// it then. What is lost on the way ends the session: it is a stream.
func (h *Host) pass(link uint64, d time.Duration, do func(o *Host)) {
	o := h.Other()
	h.p.world.After(d, func() {
		switch {
		case !o.On() || o.link != link:
		case !h.p.world.Linked():
			for _, x := range h.p.Hosts {
				life := x.life
				h.p.world.After(h.p.ms(20, 300), func() { x.drop(life, link, "silent") })
			}
		default:
			o.Do(func() { do(o) })
		}
	})
}

// hungUp ends a session on both sides.
func (h *Host) hungUp(link uint64) {
	if h.link == link {
		h.link = 0
	}
	o := h.Other()
	life := o.life
	h.p.world.After(h.p.ms(1, 20), func() { o.drop(life, link, "the other side hung up") })
}

func (h *Host) frame(link uint64, f wire.Frame, payload []byte) {
	h.pass(link, h.p.ms(1, 3), func(o *Host) {
		if f.Kind == wire.KindAck {
			o.Core.PeerDone(link, f.Seq, f.Code)
		} else if err := o.Core.Frame(link, f, payload); err != nil && f.Epoch != o.epoch {
			o.Drop(err.Error()) // the assignment has changed under the session
		} else if err != nil {
			h.p.world.Breaks("%s: %v", o, err)
		}
	})
}

// send gives an IO to the other host, which carries it out and confirms it.
func (h *Host) send(io *replica.IO, link uint64) {
	f := wire.Frame{Epoch: h.Core.Epoch(), Seq: io.Seq, Offset: io.Off, Length: uint32(io.Len)}
	var versions []int
	switch io.Op {
	case replica.Write, replica.Zero:
		f.Kind, versions = wire.KindWrite, io.Tag.(*content).versions
	case replica.Copy, replica.Sum:
		f.Kind, versions = wire.KindCopy, h.values(io.Off, io.Len)
		if io.Op == replica.Sum {
			f.Kind = wire.KindSum
		}
	case replica.Flush:
		f.Kind = wire.KindFlush
	case replica.Read:
		f.Kind = wire.KindRead
	}
	d := h.p.ms(1, 3)
	if h.p.Async { // one connection, in order
		d = 2 * time.Millisecond
	}
	h.pass(link, d, func(o *Host) {
		errno := o.Core.Accept(link, f)
		if errno == 0 {
			o.execute(io, link, f, versions)
			return
		}
		o.pass(link, h.p.ms(1, 2), func(h *Host) { h.Core.PeerDone(link, io.Seq, errno) })
	})
}

// execute carries out a frame of the other host.
func (h *Host) execute(io *replica.IO, link uint64, f wire.Frame, versions []int) {
	p := h.p
	answer := func(errno uint16, differs []int64) {
		h.Core.Executed(f, errno)
		h.pass(link, p.ms(1, 3), func(o *Host) {
			if f.Kind == wire.KindSum {
				o.Core.Compared(differs)
			}
			o.Core.PeerDone(link, io.Seq, errno)
		})
	}
	bs := cells(f.Offset, int(f.Length))
	switch f.Kind {
	case wire.KindWrite, wire.KindCopy:
		if now := h.Core.Epoch(); f.Epoch < now {
			p.world.Breaks("%s carries out a %s of assignment %d and knows of %d", h, f.Kind, f.Epoch, now)
		}
		h.executeWrite(io, bs, versions, answer)
	case wire.KindFlush:
		upTo := h.disk.count
		h.later(p.ms(1, 4), func() { h.disk.flush(upTo); answer(0, nil) })
	case wire.KindSum:
		var differs []int64
		for i, b := range bs {
			if h.disk.read(b) != versions[i] {
				differs = append(differs, b*Cell)
			}
		}
		h.later(p.ms(0, 2), func() { answer(0, differs) })
	case wire.KindRead:
		io.Tag.(*content).got = h.values(io.Off, io.Len)
		h.later(0, func() { answer(0, nil) })
	}
}

func (h *Host) executeWrite(io *replica.IO, bs []int64, versions []int, answer func(uint16, []int64)) {
	if fails(&h.BadWrites) {
		h.later(0, func() { answer(eio, nil) })
		return
	}
	write := func() {
		for i, b := range bs {
			h.disk.write(b, versions[i])
		}
		if io.FUA {
			h.disk.hardenNow(bs)
		}
	}
	if h.p.Async {
		write()
		h.later(h.p.ms(0, 3), func() { answer(0, nil) })
		return
	}
	h.later(h.p.ms(0, 3), func() { write(); answer(0, nil) })
}

// dial is what the process of an active copy does all the time.
func (h *Host) dial(life int) {
	if h.life != life {
		return
	}
	w := h.p.world
	w.After(h.p.Between(h.p.Dial/2, h.p.Dial), func() { h.dial(life) })
	if w.Linked() {
		h.silent = w.Now()
	} else if h.link != 0 && w.Now()-h.silent > Patience {
		h.Drop("silent")
	}
	o := h.Other()
	if !h.Active() || h.link != 0 || h.dialing || !w.Linked() || !o.On() {
		return
	}
	h.dialing = true
	h.p.links++
	link, hello, oLife := h.p.links, h.Core.Hello(), o.life
	w.After(time.Second, func() { // if it was not answered
		if h.life == life {
			h.dialing = false
		}
	})
	w.After(h.p.ms(2, 6), func() {
		if o.life == oLife && h.life == life && w.Linked() {
			o.Do(func() { o.greeted(link, hello, life) })
		}
	})
}

// greeted takes the greeting of the other host, whose process life says.
func (h *Host) greeted(link uint64, hello wire.Hello, life int) {
	was, own := h.link, h.life
	h.link, h.epoch = link, hello.Epoch
	err := h.Core.Greeted(link, hello, func() {
		theirs := h.Core.Hello()
		h.p.world.After(h.p.ms(1, 3), func() {
			o := h.Other()
			if o.life != life || !h.p.world.Linked() || !o.Active() || h.link != link {
				h.drop(own, link, "it did not come to be")
				return
			}
			o.dialing, o.link = false, link
			o.Do(func() { o.Core.Connected(link, theirs) })
		})
	})
	if err != nil {
		h.link, h.Other().dialing = was, false
		h.p.world.Say("%s refuses: %v", h, err)
	}
}

package replica

import (
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

// bitmapFrame is how many bytes of marks go into one frame.
const bitmapFrame = 64 << 10

// Greeted tells a standby that the active copy greets it. An error is the reason
// to refuse it; else the answer is Hello, and the session link stands when reply
// is called: everything of an earlier session has been carried out by then.
func (c *Core) Greeted(link uint64, h wire.Hello, reply func()) error {
	switch {
	case c.role == Active:
		return fmt.Errorf("this copy is active itself")
	case c.broken != "":
		return fmt.Errorf("this copy has failed: %s", c.broken)
	case h.Epoch < c.epoch:
		return fmt.Errorf("%w: %d, and the greeting is of %d", ErrOldEpoch, c.epoch, h.Epoch)
	}
	c.hangUp("another session begins")
	c.epoch = h.Epoch
	if c.known() && c.sup.Epoch < h.Epoch {
		c.sup.Epoch, c.superDue = h.Epoch, true
	}
	c.link, c.linkEpoch, c.hello = link, h.Epoch, h
	c.whenIdle(func() {
		c.write(func() {
			if c.link == link {
				reply()
			}
		})
	})
	return nil
}

func (c *Core) frameOfActive(f wire.Frame, payload []byte) error {
	if f.Epoch != c.linkEpoch {
		return fmt.Errorf("a frame of epoch %d in a session of %d", f.Epoch, c.linkEpoch)
	}
	link := c.link
	switch f.Kind {
	case wire.KindVerdict:
		v, err := wire.DecodeVerdict(payload)
		switch {
		case err != nil:
			return err
		case v.Decision != wire.CopyMarked && v.Decision != wire.CopyAll:
			return fmt.Errorf("the active copy says %s: %s", v.Decision, v.Text)
		case c.hello.Size > c.opt.Capacity:
			return fmt.Errorf("a copy of %d bytes does not fit on %d", c.hello.Size, c.opt.Capacity)
		}
		c.become(&c.hello, v.Decision == wire.CopyAll)
		c.sup.Inconsistent, c.superDue = true, true
		c.write(func() {
			if c.link == link {
				c.sendMarks()
			}
		})
	case wire.KindAdopt:
		a, err := wire.DecodeAdopt(payload)
		if err != nil {
			return err
		}
		c.become(&c.hello, false)
		c.adopt(&a)
		c.write(func() {
			if c.link == link {
				c.frame(wire.Frame{Kind: wire.KindAck, Seq: f.Seq}, nil)
			}
		})
	default:
		return fmt.Errorf("a frame of kind %s on the control connection", f.Kind)
	}
	return nil
}

// known says whether there is anything to write a superblock about.
func (c *Core) known() bool { return c.sup.Size > 0 }

// sendMarks tells the active copy what may differ as far as this one knows. The
// last frame lacks the flag More, and there is always one.
func (c *Core) sendMarks() {
	const per = int64(bitmapFrame * 8)
	for from := int64(0); from < c.marks.Len(); from += per {
		n := min(per, c.marks.Len()-from)
		f := wire.Frame{Kind: wire.KindBitmap, Offset: from * blockSize(&c.sup), Length: uint32(n)}
		switch last := from+n == c.marks.Len(); {
		case !last && !c.marks.Any(from, from+n):
			continue
		case !last:
			f.Flags = wire.More
		}
		c.frame(f, c.marks.Bytes(from, n))
	}
}

// Accept says whether a standby carries out a data frame of the other side; 0
// means that it does, and Executed follows when that is done. Else it is the errno
// to answer with.
func (c *Core) Accept(link uint64, f wire.Frame) uint16 {
	switch {
	case c.role == Active, link != c.link, f.Epoch != c.linkEpoch, f.Epoch < c.epoch:
		return eperm
	case c.broken != "":
		return eio
	case f.Offset < 0 || f.Offset > c.opt.Capacity || int64(f.Length) > c.opt.Capacity-f.Offset:
		return eio
	}
	c.executing++
	return 0
}

// Executed tells that a frame was carried out, or failed with an errno.
func (c *Core) Executed(f wire.Frame, errno uint16) {
	c.executing--
	if errno != 0 && f.Kind != wire.KindRead && f.Kind != wire.KindSum {
		c.sup.Failed, c.superDue = true, true
		c.write(nil)
		c.fail(fmt.Sprintf("%s of %d bytes at %d: errno %d", f.Kind, f.Length, f.Offset, errno))
	}
	if len(c.idle) > 0 {
		c.checkIdle()
	}
}

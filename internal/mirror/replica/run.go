package replica

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

const (
	copyChunk  = 1 << 20
	copyDepth  = 4                      // chunks under way at a time
	copyPolite = 1                      // the same while the kernel writes
	busyFor    = 100 * time.Millisecond // after its latest request
	rinseEvery = 5 * time.Second        // of both copies while one is copied to
)

// run is a copy or a comparison under way.
type run struct {
	adopted bool // the other copy has this one's generation
	from    int64
	total   int64 // marked bytes when it began
	under   int
	began   time.Duration
	rinsed  time.Duration
	credit  int64 // bytes that may be copied now, where there is a rate
	fed     time.Duration

	whole bool // everything is read here from its beginning to its end
	erred bool // and something failed meanwhile

	verify   bool
	repair   bool
	at       int64
	differs  int64 // blocks that were found to differ
	examples []int64
}

func (r *run) on() bool { return r.began != 0 || r.verify }

func (c *Core) beginRun() {
	c.run = run{total: c.marks.Count(), whole: c.marks.All(0, c.marks.Len()), began: max(c.now, 1), rinsed: c.now, fed: c.now}
	c.once("info", "mirror-disk-copy", "Copying has begun: %d bytes.", c.run.total*blockSize(&c.sup))
	c.advance()
}

func (c *Core) endRun() {
	c.run = run{}
}

// advance begins the next chunks of what is to be copied or compared.
func (c *Core) advance() {
	if c.run.verify {
		c.advanceVerify()
		return
	}
	if c.phase != copying {
		return
	}
	for c.run.under < c.depth() && (c.opt.Rate == 0 || c.run.credit > 0) {
		io := c.nextChunk()
		if io == nil {
			break
		}
		c.run.under++
		c.run.credit -= int64(io.Len)
		c.start(io)
		if c.phase != copying {
			return
		}
	}
	if c.run.under == 0 && c.marks.Empty() {
		c.phase = settling
		c.finishCopy()
	}
}

// depth is how many chunks may be under way: fewer while the kernel is at work.
func (c *Core) depth() int {
	for _, io := range c.active {
		if !io.inner {
			return copyPolite
		}
	}
	return copyDepth
}

// nextChunk returns the next marked range that nothing is changing; nil if there
// is none now.
func (c *Core) nextChunk() *IO {
	b := blockSize(&c.sup)
	for range 2 { // to the end, then from the start
		for {
			start, end := c.marks.NextRun(c.run.from, max(copyChunk/b, 1))
			if start < 0 {
				break
			}
			c.run.from = end
			io := &IO{Op: Copy, Off: start * b, inner: true}
			io.Len = int(min(end*b, c.sup.Size) - io.Off)
			if !c.collides(io, 0) {
				link := c.link
				io.after = func(*IO) {
					if c.link == link && c.phase == copying {
						c.run.under--
					}
				}
				return io
			}
		}
		c.run.from = 0
	}
	return nil
}

// tickRun feeds the rate, flushes now and then, and goes on.
func (c *Core) tickRun() {
	if c.opt.Rate > 0 {
		c.run.credit = min(c.run.credit+int64(float64(c.opt.Rate)*(c.now-c.run.fed).Seconds()), max(c.opt.Rate/4, copyChunk))
		c.run.fed = c.now
	}
	if c.phase == copying && c.now-c.run.rinsed >= rinseEvery {
		c.run.rinsed = c.now
		c.flushInner(func(good bool) {
			if good && c.phase == copying {
				c.logDue = true // what was copied is on disk, and need not be copied again
				c.write(nil)
			}
		})
	}
	if c.phase == joined && c.rinsing == nil && len(c.fresh) > 0 && c.now-c.run.rinsed >= rinseEvery {
		c.run.rinsed = c.now
		c.flushInner(func(bool) {})
	}
	if c.run.on() {
		c.advance()
	}
}

// Verify compares the two copies while they are in use; with repair what differs
// is copied afterwards. The comparison ends with a notice.
func (c *Core) Verify(repair bool) bool {
	if c.phase != joined || c.run.verify {
		return false
	}
	c.run = run{verify: true, repair: repair, total: c.marks.Len(), began: max(c.now, 1), rinsed: c.now, fed: c.now}
	c.notice("info", "mirror-disk-verify", "The two copies are being compared.")
	c.advance()
	return true
}

func (c *Core) advanceVerify() {
	for c.run.under < c.depth() && c.run.at < c.sup.Size && c.phase == joined && (c.opt.Rate == 0 || c.run.credit > 0) {
		io := &IO{Op: Sum, Off: c.run.at, inner: true}
		io.Len = int(min(copyChunk, c.sup.Size-io.Off))
		if c.collides(io, 0) {
			break // it goes on when that is over
		}
		link := c.link
		io.after = func(*IO) {
			if c.link == link && c.run.verify {
				c.run.under--
			}
		}
		c.run.at = io.end()
		c.run.under++
		c.run.credit -= int64(io.Len)
		c.start(io)
	}
	if c.run.verify && c.run.under == 0 && c.run.at >= c.sup.Size {
		c.endVerify()
	}
}

// Compared tells at which offsets the 4 KiB from there on differ, before the
// PeerDone of a Sum.
func (c *Core) Compared(offsets []int64) {
	if !c.run.verify {
		return
	}
	c.run.differs += int64(len(offsets))
	for _, at := range offsets {
		if len(c.run.examples) < 16 {
			c.run.examples = append(c.run.examples, at)
		}
		if c.run.repair {
			c.mark(at, min(at+wire.SumBlock, c.sup.Size))
		}
	}
}

// Unreadable tells that a range that was to be copied cannot be read here.
func (c *Core) Unreadable(io *IO, why string) {
	c.fail(why)
	c.lost("a range that is to be copied cannot be read: " + why)
}

func (c *Core) endVerify() {
	r := c.run
	c.run = run{}
	switch {
	case r.differs == 0:
		c.notice("info", "mirror-disk-verified", "The two copies are equal: %d bytes were compared.", c.sup.Size)
		c.flushInner(func(good bool) { c.prove(good && !r.erred, "all of it was read, and is equal to the other copy") })
	case r.repair:
		c.notice("error", "mirror-disk-differs", "%d times 4 KiB differ, the first at byte %d, and are copied now.", r.differs, r.examples[0])
		c.outOf("blocks of it differ")
		c.hangUp("blocks that differ are copied")
	default:
		c.notice("error", "mirror-disk-differs", "%d times 4 KiB differ, the first at byte %d. Nothing was changed.", r.differs, r.examples[0])
	}
}

// prove takes the word back that the disk of this copy has failed, once the whole
// of it was read and is durable. Else it stays until an operator has it copied to.
func (c *Core) prove(good bool, how string) {
	if !good || !c.sup.Failed || c.broken != "" {
		return
	}
	c.sup.Failed, c.superDue = false, true
	c.notice("info", "mirror-disk-proven", "The disk of this copy had an error and counts as sound again: %s.", how)
	c.write(nil)
}

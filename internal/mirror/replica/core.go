package replica

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/bitmap"
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

// Errnos that a Core gives out by itself.
const (
	eperm uint16 = 1
	eio   uint16 = 5
)

// Policy is which copy is given up when both were written apart.
type Policy string

// The policies. PolicyNone leaves it to an operator. Only a copy that is not
// active is ever given up.
const (
	PolicyNone     Policy = "none"
	PolicySurvivor Policy = "survivor" // the active one stays
	PolicyOlder    Policy = "older"    // the one that was written last longer ago is given up
	PolicySmaller  Policy = "smaller"  // the one on which fewer blocks changed is given up
)

// Side names a copy as seen from this one.
type Side uint8

// The sides; Neither is the zero value.
const (
	Neither Side = iota
	Self
	Peer
)

// Options is what a Core starts with: what was on the meta device, and what the
// cluster file says.
type Options struct {
	Super      meta.Super
	Marks      *bitmap.Bitmap // as read; all set where a page was damaged
	Worn       bool           // something was damaged, and Marks has more than what stands there
	Log        []uint32       // extents as read
	Capacity   int64          // bytes of the data device, at least Super.Size
	SectorSize uint16
	Role       Role   // Active only for a process that goes on where one before it ended
	Epoch      uint64 // of the assignment, where active
	Set        Set
	Session    uint64 // what Hello tells apart processes by
	Random     func() uint64
	Version    string

	Async       bool
	Window      int64         // bytes that may be under way to a copy that nobody waits for
	Patience    time.Duration // how long a silent other copy is waited for before the cluster is asked
	Rate        int64         // of copying in bytes a second; 0: as fast as it goes
	LogCapacity int           // extents; at most meta.LogCapacity
	InitialCopy bool          // a new other copy is copied to; else it is taken to be equal
	Policy      Policy
	Victim      Side // whom an operator has given up
	Paused      bool // no copying
}

// Core is one copy of a mirror disk. Create it with New.
type Core struct {
	opt   Options
	sup   meta.Super // as it is or is being written
	role  Role
	epoch uint64
	now   time.Duration
	wall  int64
	wrote int64 // wall, when a write began last

	set    Set  // as agreed
	ask    *Ask // the wish that stands
	shared bool // as sup.Shared; but false only when that is durable
	fenced bool // the wish to be alone was made since it became shared

	marks   *bitmap.Bitmap // may differ
	fresh   spans          // written on both since the flush under way began
	older   spans          // written on both before it; empty while none is
	rinsing *IO            // that flush, while it is under way
	pages   *bitmap.Pages  // behind what is in memory
	log     activity

	active  []*IO // started and not retired
	waiting []*IO // in the order of arrival
	cooled  time.Duration
	sent    map[uint64]*IO
	seq     uint64
	queued  int64 // bytes sent and not confirmed
	frozen  bool
	broken  string // why this copy cannot go on as the active one; "" if it can
	// yielding: it is broken only because the other copy goes on from it, and can
	// be copied to as soon as it is not active any more.
	yielding bool
	gone     bool // aborted: everything fails

	link      uint64 // the session under way; 0: none
	linkEpoch uint64
	hello     wire.Hello // of the other side
	relation  Relation
	phase     phase
	silent    time.Duration // since when there is no session
	growTo    int64         // the device is to have so many bytes; 0: as it is
	retry     bool          // an operator says that a disk that had failed may be tried again
	executing int           // frames of the other copy that are being carried out here
	run       run           // of copying or verifying

	writing  bool // a MetaWrite is under way
	spoiled  bool // the latest one has failed, and is tried again with the next Tick
	superDue bool
	logDue   bool
	then     []func() // of the MetaWrite under way
	thenNext []func()
	out      *MetaWrite    // that one
	idle     []func()      // when executing is 0 and active is empty
	leaving  bool          // the active part is ending
	handBy   time.Duration // Demote was called, and is carried out by then; 0: it was not

	said map[string]string // by code: what need not be said again

	eff []Effect
}

// phase is how far the active copy is with the other one.
type phase uint8

const (
	apart    phase = iota // no session
	greeted               // there is one, and copying waits for something
	asked                 // the other side was asked for its marks
	copying               // marks become fewer; new writes go there
	settling              // nothing is marked any more: flush, adopt, ask in
	joined                // every write goes there, and it counts
)

func (p phase) String() string {
	return [...]string{"apart", "greeted", "asked", "copying", "settling", "joined"}[p]
}

// New returns a Core, or an error if its options do not fit together.
func New(o Options) (*Core, error) {
	blocks := (o.Super.Size + blockSize(&o.Super) - 1) / blockSize(&o.Super)
	switch { // a copy that was never made has the size 0 and no blocks
	case o.Marks.Len() != blocks:
		return nil, fmt.Errorf("a bitmap of %d blocks for a device of %d", o.Marks.Len(), blocks)
	case o.Capacity < o.Super.Size:
		return nil, fmt.Errorf("the data device has %d bytes, and %d are replicated", o.Capacity, o.Super.Size)
	case o.LogCapacity < 2*MaxRange/extentSize || o.LogCapacity > meta.LogCapacity:
		return nil, fmt.Errorf("an activity log of %d extents: %d to %d", o.LogCapacity, 2*MaxRange/extentSize, meta.LogCapacity)
	}
	c := &Core{
		opt: o, sup: o.Super, shared: o.Super.Shared, role: o.Role, epoch: max(o.Epoch, o.Super.Epoch), set: o.Set, marks: o.Marks,
		pages: bitmap.NewPages(blocks, meta.BitsPerPage), sent: map[uint64]*IO{}, said: map[string]string{},
		log: activity{in: map[uint32]*extent{}, cap: o.LogCapacity},
	}
	for _, e := range o.Log { // what was being written when it ended
		c.mark(int64(e)*extentSize, min(int64(e+1)*extentSize, c.sup.Size))
	}
	if o.Worn { // or nobody would know of it when the log has been written anew
		c.pages.Touch(0, blocks)
		c.logDue = true
	}
	if c.role == Active {
		c.sup.Active, c.superDue = true, true
		if c.set.Peer {
			c.share()
		}
	} else if c.sup.Active || len(o.Log) > 0 {
		c.sup.Active, c.superDue, c.logDue = false, true, true
	}
	c.write(nil)
	return c, nil
}

func blockSize(s *meta.Super) int64 { return 1 << s.BlockShift }

// Construct returns the superblock of a new mirror disk, whose first copy this
// is. random gives the numbers that tell it from others.
func Construct(node, peer string, size int64, shift uint8, random func() uint64) meta.Super {
	s := meta.Super{Node: node, Peer: peer, Size: size, BlockShift: shift, Constructed: true}
	for i := range s.Device {
		s.Device[i] = byte(random() >> 32)
	}
	s.Current = meta.Generation(random() | 1)
	s.Base = s.Current
	return s
}

// Take returns the effects since the last time. They belong to the caller, who may
// give back the room that they stood in, see Reuse.
func (c *Core) Take() []Effect {
	e := c.eff
	c.eff = c.eff[:0:0]
	return e
}

// Reuse gives room for the next effects, of which the caller has no more use.
func (c *Core) Reuse(room []Effect) {
	if len(c.eff) == 0 {
		c.eff = room[:0]
	}
}

func (c *Core) effect(e Effect) { c.eff = append(c.eff, e) }

func (c *Core) notice(level, code, format string, args ...any) {
	c.effect(Effect{Do: DoNotice, Notice: Notice{Level: level, Code: code, Text: fmt.Sprintf(format, args...)}})
}

// once is notice, but not twice in a row: what it is about is met again and again.
func (c *Core) once(level, code, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); c.said[code] != text {
		c.said[code] = text
		c.notice(level, code, "%s", text)
	}
}

// mark notes that bytes [from,to) may differ. Their extents are in the activity
// log, or their pages are written before anything depends on them.
func (c *Core) mark(from, to int64) {
	if from >= to {
		return
	}
	b := blockSize(&c.sup)
	first, end := from/b, min((to+b-1)/b, c.marks.Len())
	if c.marks.All(first, end) {
		return
	}
	c.marks.Set(first, end)
	c.pages.Touch(first, end)
}

// marked says whether anything may differ, be it only for want of a flush.
func (c *Core) marked() bool {
	return !c.marks.Empty() || len(c.fresh) > 0 || len(c.older) > 0 || c.sup.Inconsistent || slices.ContainsFunc(c.active, func(io *IO) bool { return io.Op.changes() })
}

// spoil marks what the other copy has confirmed and may not have kept.
func (c *Core) spoil() {
	for _, s := range []*spans{&c.fresh, &c.older} {
		for _, r := range *s {
			c.mark(r.from, r.to)
		}
		*s = nil
	}
	c.rinsing = nil
}

// share notes that from now on the other copy counts: it may have this one's
// generation, or be in the set. A write is complete then only when it is on both.
func (c *Core) share() {
	if !c.sup.Shared {
		c.superDue = true
	}
	c.sup.Shared, c.shared, c.fenced = true, true, false
}

// held says whether nothing may be completed, whoever has it.
func (c *Core) held() bool { return c.frozen || c.broken != "" || !c.set.Self }

// write brings the meta device up to date; then is called when everything that is
// due now is durable.
func (c *Core) write(then func()) {
	if then != nil {
		c.thenNext = append(c.thenNext, then)
	}
	if !c.known() {
		c.superDue, c.logDue = false, false
	}
	if c.writing || c.spoiled || !c.superDue && !c.logDue && len(c.thenNext) == 0 {
		return
	}
	m := &MetaWrite{}
	if c.logDue {
		m.Pages = c.takePages()
		m.Log = c.log.all()
	}
	if c.superDue {
		c.sup.Serial++
		c.sup.Written = c.written()
		s := c.sup
		s.Ancestors = slices.Clone(s.Ancestors)
		m.Super = &s
	}
	c.superDue, c.logDue = false, false
	c.then, c.thenNext = c.thenNext, nil
	if len(m.Pages) == 0 && m.Log == nil && m.Super == nil {
		c.ran()
		return
	}
	c.writing, c.out = true, m
	c.effect(Effect{Do: DoMeta, Meta: m})
}

// written is when this copy last wrote as the active one.
func (c *Core) written() int64 { return max(c.sup.Written, c.wrote) }

// ran calls what waited for the meta device.
func (c *Core) ran() {
	then := c.then
	c.then = nil
	for _, f := range then {
		f()
	}
	c.write(nil)
}

// takePages returns the pages that are behind, with what may differ for want of a
// flush marked too.
func (c *Core) takePages() (out []Page) {
	if c.pages.Empty() && len(c.fresh) == 0 && len(c.older) == 0 {
		return nil
	}
	b := blockSize(&c.sup)
	loose := bitmap.New(0)
	for _, s := range []spans{c.fresh, c.older} {
		for _, r := range s {
			if loose.Len() == 0 {
				loose = bitmap.New(c.marks.Len())
			}
			first, end := r.from/b, min((r.to+b-1)/b, c.marks.Len())
			loose.Set(first, end)
			c.pages.Touch(first, end)
		}
	}
	for no := c.pages.Next(0); no >= 0; no = c.pages.Next(no + 1) {
		from, to := c.pages.Blocks(no)
		bits := c.marks.Bytes(from, to-from)
		if loose.Len() > 0 {
			for i, x := range loose.Bytes(from, to-from) {
				bits[i] |= x
			}
		}
		c.pages.Take(no)
		if loose.Len() > 0 && loose.Any(from, to) {
			c.pages.Touch(from, to) // it has more than is marked, so it is behind again
		}
		out = append(out, Page{No: int(no), Bits: bits})
	}
	return out
}

// MetaDone answers DoMeta. err is why it failed; then nothing of it counts, this
// copy cannot go on if there is another one, and it is tried again.
func (c *Core) MetaDone(err error) {
	m := c.out
	c.writing, c.out = false, nil
	if err != nil {
		for _, p := range m.Pages {
			c.pages.Touch(c.pages.Blocks(int64(p.No)))
		}
		c.superDue, c.logDue, c.spoiled = true, true, true // whatever of it stands
		c.thenNext, c.then = append(c.then, c.thenNext...), nil
		if c.leaving { // what the device has says that it may still be active, which is safe
			c.left()
		}
		c.fail(fmt.Sprintf("its meta device failed: %v", err))
		return
	}
	c.log.written(m.Log)
	c.ran()
	c.pump()
}

// Freeze holds everything: nothing begins and nothing completes until Thaw.
func (c *Core) Freeze() { c.frozen = true }

// Thaw ends Freeze.
func (c *Core) Thaw() {
	c.frozen = false
	c.settleAll()
	c.pump()
}

// fail ends this copy's part as the active one, as far as the other can take
// over: nothing more is completed, and the cluster is told to go on elsewhere.
func (c *Core) fail(why string) {
	if c.broken != "" {
		return
	}
	if c.role != Active {
		c.broken = why
		c.notice("error", "mirror-disk-failed", "The copy of this node has failed: %s.", why)
		c.hangUp(why)
		return
	}
	if !c.shared || !c.set.Peer || c.ask != nil && !c.ask.Peer { // there is nowhere to go, or soon will not be
		c.once("error", "mirror-disk-failed", "The copy of this node has failed, and it is the only one that is complete: %s.", why)
		if c.phase == settling {
			c.hangUp(why)
		}
		return
	}
	c.broken = why
	c.notice("error", "mirror-disk-failed", "The copy of this node has failed, and the other one is complete: %s.", why)
	if c.phase == joined {
		c.wish(Set{Self: false, Peer: true}, why)
	} else {
		c.ask = nil
	}
	c.effect(Effect{Do: DoFail, Text: why})
}

// wish asks the cluster for a set.
func (c *Core) wish(s Set, why string) {
	s.Rev = c.set.Rev
	c.ask = &Ask{Set: s, Why: why}
	c.effect(Effect{Do: DoAsk, Ask: *c.ask})
}

// Told brings what the cluster has agreed on. Of two the later one holds, whatever
// its Rev: a new life of consensus may begin with an older one.
func (c *Core) Told(s Set) {
	if s == c.set {
		return
	}
	was, asked := c.set, c.ask != nil
	c.set = s
	if c.ask != nil {
		if c.ask.Self == s.Self && c.ask.Peer == s.Peer {
			c.ask = nil
		} else {
			c.wish(c.ask.Set, c.ask.Why)
		}
	}
	if c.role != Active || c.broken != "" {
		return
	}
	if s.Peer && !c.shared {
		c.share()
	}
	if s.Self && !was.Self {
		c.settleAll()
	}
	if !s.Peer && c.phase == joined {
		c.putOut(asked)
	}
	switch {
	case !s.Peer && c.ask == nil:
		c.alone()
	case s.Peer && c.phase == settling && c.run.adopted:
		c.join()
	case s.Peer && !was.Peer && c.phase != joined && c.ask == nil:
		// An operator's word that it is complete, and it is not known here.
		c.outOf("the two copies are not known to be equal")
	}
	c.write(nil)
}

// putOut ends the session with a copy that is complete and does not count any
// more: it has to be let in anew. If that is not what was asked for here, an
// operator does not trust it, and it gets everything.
func (c *Core) putOut(asked bool) {
	c.hangUp("the cluster does not count on the other copy any more")
	if !asked {
		c.mark(0, c.sup.Size)
	}
}

// outOf asks the cluster to take the other copy out of the set.
func (c *Core) outOf(why string) {
	if c.role != Active || c.broken != "" || c.gone || !c.shared || c.ask != nil && !c.ask.Peer || c.ask == nil && !c.set.Peer && c.fenced {
		return // not bound to it, asked already, or it is out
	}
	c.fenced = true
	c.wish(Set{Self: true, Peer: false}, why)
}

// alone begins to complete writes without the other copy, which the cluster has
// agreed to: with a generation of its own, if the other may have the current one.
func (c *Core) alone() {
	if !c.shared {
		c.begin(c.goOn)
		return
	}
	if !c.fenced { // an earlier wish to let it in may still be on its way
		c.outOf("it has to be known that the other copy is out")
		return
	}
	c.bump()
	c.sup.Shared = false
	c.write(func() {
		if !c.sup.Shared {
			c.shared = false
			c.goOn()
		}
	})
}

// begin calls f when it is durable that this copy is one that was agreed on: what
// was made and never counted can be given up.
func (c *Core) begin(f func()) {
	if c.sup.Since != 0 {
		f()
		return
	}
	c.sup.Since, c.superDue = max(c.wall, 1), true
	c.write(f)
}

// goOn completes what was held for the other copy.
func (c *Core) goOn() {
	for _, io := range c.active {
		if io.peer == wanted && io.link == 0 {
			io.peer = none
		}
	}
	c.settleAll()
	if c.phase == greeted {
		c.beginCopy()
	}
	c.pump()
}

// bump begins a new generation.
func (c *Core) bump() {
	c.sup.Ancestors = append([]meta.Generation{c.sup.Current}, c.sup.Ancestors...)
	if len(c.sup.Ancestors) > meta.MaxAncestors {
		c.sup.Ancestors = c.sup.Ancestors[:meta.MaxAncestors]
	}
	c.sup.Current, c.sup.Since = meta.Generation(c.opt.Random()|1), c.wall
	c.superDue = true
}

// Errors of promotion.
var (
	ErrNotConstructed = errors.New("this copy was never made")
	ErrInconsistent   = errors.New("this copy is in the middle of being copied to, and does not hold together")
	ErrOutOfDate      = errors.New("this copy is not in the in-sync set")
	ErrFailed         = errors.New("the disk of this copy has failed")
	ErrStillActive    = errors.New("this copy is active still: it was not stopped")
	ErrOldEpoch       = errors.New("a later assignment is known here")
)

// Promote makes this the active copy in an assignment of the group; DoRole
// follows when it is. force takes a copy that is not complete, and begins a new
// generation.
func (c *Core) Promote(epoch uint64, s Set, force bool) error {
	switch {
	case c.role == Active || c.leaving:
		return ErrStillActive
	case !c.sup.Constructed:
		return ErrNotConstructed
	case epoch < c.epoch:
		return fmt.Errorf("%w: %d, and this is %d", ErrOldEpoch, c.epoch, epoch)
	case c.broken != "":
		return fmt.Errorf("%w: %s", ErrFailed, c.broken)
	case c.sup.Inconsistent && !force:
		return ErrInconsistent
	case c.sup.Failed && s.Peer && !force:
		return ErrFailed
	case s.Peer && !s.Self && !force:
		return ErrOutOfDate
	}
	c.raiseEpoch(epoch)
	c.hangUp("this copy becomes active")
	c.set = s
	c.whenIdle(func() {
		c.role, c.silent, c.gone = Active, c.now, false
		c.ask, c.fenced = nil, false
		c.sup.Active, c.sup.Epoch, c.superDue = true, c.epoch, true
		if force {
			c.sup.Inconsistent = false
			c.bump()
		}
		if c.set.Peer {
			c.share()
		}
		if !c.set.Self {
			c.wish(Set{Self: true, Peer: false}, "it is the first copy that becomes active")
			c.fenced = true
		}
		c.write(func() {
			if c.role == Active && !c.leaving { // else it was stopped while its meta device did not write
				c.effect(Effect{Do: DoRole, Role: Active})
				c.pump()
			}
		})
	})
	return nil
}

// whenIdle calls f when nothing is being carried out any more.
func (c *Core) whenIdle(f func()) {
	if c.executing > 0 || len(c.active) > 0 {
		c.idle = append(c.idle, f)
		return
	}
	f()
}

func (c *Core) checkIdle() {
	if c.executing > 0 || len(c.active) > 0 {
		return
	}
	idle := c.idle
	c.idle = nil
	for _, f := range idle {
		f()
	}
}

// Demote ends the active part after the front end is gone; DoRole follows when
// it has ended. What is under way is waited for, or was given up by Abort, and so is,
// for a moment, another copy that is just coming back.
func (c *Core) Demote() {
	switch {
	case c.role != Active:
		c.effect(Effect{Do: DoRole, Role: c.role})
		return
	case c.leaving:
		return
	case c.handBy == 0:
		c.handBy = c.now + handOverWithin
	}
	c.handOver()
}

const (
	backWithin     = time.Second     // how long after its loss the other copy is expected back
	handOverWithin = 3 * time.Second // how long the end of the active part is put off for it at most
)

// handOver ends the active part when that was asked for, but lets the other copy catch
// up before if it was lost a moment ago and is on its way back, as over another
// network: the group may be about to move there, and would not be given to a copy that
// is out of date.
func (c *Core) handOver() {
	if c.handBy == 0 || c.returning() {
		return
	}
	c.handBy, c.leaving = 0, true
	c.endRun()
	c.whenIdle(func() {
		if c.gone || c.broken != "" {
			c.demoted()
			return
		}
		c.flushInner(func(bool) { c.whenIdle(c.demoted) })
	})
}

// returning says whether the other copy may soon be complete again.
func (c *Core) returning() bool {
	lost := c.now - c.silent
	return !c.gone && !c.frozen && c.broken == "" && !c.opt.Paused && c.set.Self && !c.set.Peer && c.now < c.handBy &&
		(lost < backWithin || c.phase != apart && lost < handOverWithin)
}

func (c *Core) demoted() {
	c.spoil()
	c.phase = min(c.phase, greeted) // who ends the session has not lost the other copy
	c.hangUp("this copy is no longer active")
	c.failWaiting()
	c.role, c.ask, c.gone = Standby, nil, false
	if c.yielding {
		c.broken, c.yielding = "", false
	}
	c.log.in = map[uint32]*extent{}
	c.sup.Active, c.superDue, c.logDue = false, true, true
	if c.spoiled {
		c.left()
		return
	}
	c.write(c.left)
}

// left tells, once, that this copy is not active any more.
func (c *Core) left() {
	if c.leaving && c.role == Standby {
		c.leaving = false
		c.effect(Effect{Do: DoRole, Role: Standby})
	}
}

// failWaiting gives up what has not begun.
func (c *Core) failWaiting() {
	for _, io := range c.waiting {
		if io.extents != nil {
			c.log.release(io.extents, c.now)
			io.extents = nil
		}
		c.complete(io, eio)
	}
	c.waiting = nil
}

// Abort gives up everything that is under way: it fails now, and what comes later
// fails too, until the copy is demoted.
func (c *Core) Abort() {
	c.gone = true
	c.frozen = false
	c.failWaiting()
	for _, io := range slices.Clone(c.active) {
		if io.Op.changes() {
			c.mark(io.Off, io.end())
		}
		c.complete(io, eio)
		if io.peer == wanted {
			io.peer = none
			delete(c.sent, io.Seq)
		}
		c.retire(io)
	}
	c.hangUp("the device is given up")
}

// Tick lets time pass; now never goes back. wall is the time of day in seconds
// since 1970, for people.
func (c *Core) Tick(now time.Duration, wall int64) {
	if c.now == 0 {
		c.silent = now // it has just begun
	}
	c.now, c.wall = now, wall
	if c.spoiled {
		c.spoiled = false
		c.write(nil)
	}
	if c.role != Active {
		return
	}
	if c.phase == apart && c.shared && c.ask == nil && now-c.silent >= c.opt.Patience {
		c.outOf(fmt.Sprintf("it was not reached for %s", (now - c.silent).Round(time.Millisecond)))
	}
	if now-c.cooled >= coolAfter/2 && c.log.cool(now) {
		c.cooled, c.logDue = now, true
		c.write(nil)
	}
	c.tickRun()
	c.handOver()
}

// raiseEpoch notes the epoch of the latest assignment.
func (c *Core) raiseEpoch(e uint64) {
	c.epoch = max(c.epoch, e)
	if c.link != 0 && c.linkEpoch < c.epoch && c.role == Standby {
		c.hangUp("the other copy is of an earlier assignment")
	}
}

// Assigned tells a standby of the epoch in which the other node owns the group
// now. Frames of an earlier one are refused from here on.
func (c *Core) Assigned(epoch uint64) { c.raiseEpoch(epoch) }

// Ordered takes an operator's words: which copy is given up, and whether the mirror
// is broken: nothing is copied to the other copy, which does not count any more.
func (c *Core) Ordered(victim Side, paused bool) {
	c.opt.Victim, c.opt.Paused = victim, paused
	switch {
	case !paused:
	case c.phase == joined: // every write goes there until the cluster has agreed
		c.outOf(byOrder)
	case c.phase >= asked:
		c.hangUp(byOrder)
	}
	if c.phase == greeted {
		c.considerCopy()
	}
}

const byOrder = "an operator has broken the mirror"

// Wish returns the wish that stands; nil if there is none.
func (c *Core) Wish() *Ask { return c.ask }

// Size returns how large the device is, in bytes; 0 of a copy that was never made.
func (c *Core) Size() int64 { return c.sup.Size }

// Role returns what this copy is now.
func (c *Core) Role() Role { return c.role }

// Epoch returns the latest assignment that this copy knows of.
func (c *Core) Epoch() uint64 { return c.epoch }

// PeerDown tells the active copy that the node of the other one is down, so that
// nobody is waited for.
func (c *Core) PeerDown() {
	if c.role == Active && c.phase == apart {
		c.outOf("its node is down")
	}
}

// Measured tells how large the data device is now.
func (c *Core) Measured(capacity int64) { c.opt.Capacity = max(capacity, c.sup.Size) }

// Unconfirmed returns how many IOs the other copy has not confirmed yet.
func (c *Core) Unconfirmed() int { return len(c.sent) }

// Status is a look at a Core.
type Status struct {
	Role       Role
	Phase      string
	Epoch      uint64
	Set        Set
	Super      meta.Super
	Relation   Relation // to the other copy, when it was greeted last
	Connected  bool
	Broken     string
	Frozen     bool
	Marked     int64 // bytes
	Total      int64 // bytes to copy or compare, when that began
	Left       int64 // bytes of it
	Began      time.Duration
	Verifying  bool
	Waiting    int
	Incomplete bool // it is the target of a copy that has not ended
}

// Status looks at the Core.
func (c *Core) Status() Status {
	b := blockSize(&c.sup)
	s := Status{
		Role: c.role, Phase: c.phase.String(), Epoch: c.epoch, Set: c.set, Super: c.sup, Relation: c.relation, Connected: c.link != 0, Broken: c.broken,
		Frozen: c.frozen, Marked: c.marks.Count() * b, Waiting: len(c.active) + len(c.waiting), Incomplete: c.sup.Inconsistent,
	}
	if c.run.on() {
		s.Total, s.Left, s.Began, s.Verifying = c.run.total*b, s.Marked, c.run.began, c.run.verify
		if c.run.verify {
			s.Left = c.sup.Size - c.run.at
		}
	}
	return s
}

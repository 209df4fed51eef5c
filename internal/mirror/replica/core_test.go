package replica_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/bitmap"
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

// lone is a core whose effects the test carries out by hand.
type lone struct {
	*replica.Core
	t    *testing.T
	meta int // writes of the meta device that have failed from now on
	out  []replica.Effect
}

// active returns the active copy of a device of one extent, whose other copy
// counts if peer says so.
func active(t *testing.T, peer bool) *lone { return activeOf(t, peer, false) }

// activeOf is active of a copy whose generation the other one may have.
func activeOf(t *testing.T, peer, shared bool) *lone {
	t.Helper()
	o := optionsOf(peer)
	o.Super.Since, o.Super.Shared = 1, shared
	c, err := replica.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l := &lone{Core: c, t: t}
	l.carry()
	return l
}

func optionsOf(peer bool) replica.Options {
	rng := rand.New(rand.NewPCG(1, 2))
	return replica.Options{
		Super: replica.Construct("a", "b", meta.ExtentSize, meta.MinShift, rng.Uint64), Marks: bitmap.New(meta.ExtentSize >> meta.MinShift),
		Capacity: meta.ExtentSize, SectorSize: 512, Role: replica.Active, Epoch: 5, Set: replica.Set{Self: true, Peer: peer, Rev: 1}, Session: 1, Random: rng.Uint64,
		Window: 1 << 20, Patience: time.Second, LogCapacity: 2 * replica.MaxRange / meta.ExtentSize, InitialCopy: true,
	}
}

// What is marked because something on the meta device was damaged is written there
// before the log that could tell of it is gone.
func TestDamageIsWrittenDown(t *testing.T) {
	o := optionsOf(false)
	o.Marks.Set(0, o.Marks.Len())
	o.Worn = true
	c, err := replica.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range c.Take() {
		if e.Do == replica.DoMeta && len(e.Meta.Pages) == 1 && e.Meta.Log != nil {
			return
		}
	}
	t.Error("the bitmap is not written")
}

// carry answers what the meta device is asked, and keeps the other effects.
func (l *lone) carry() {
	for effects := l.Take(); len(effects) > 0; effects = l.Take() {
		for _, e := range effects {
			switch {
			case e.Do != replica.DoMeta:
				l.out = append(l.out, e)
			case l.meta > 0:
				l.meta--
				l.MetaDone(errors.New("it does not write"))
			default:
				l.MetaDone(nil)
			}
		}
	}
}

// count returns how many effects of a kind there were since the last time.
func (l *lone) count(do replica.Do) (n int) {
	l.carry()
	for _, e := range l.out {
		if e.Do == do {
			n++
		}
	}
	return n
}

// meet connects the other copy, of which nothing differs.
func (l *lone) meet(link uint64) {
	h := l.Hello()
	h.Active, h.Dirty, h.Node, h.Peer = false, 0, h.Peer, h.Node
	l.Connected(link, h)
	l.carry()
	if s := l.Status(); s.Phase != "joined" {
		l.t.Fatalf("%+v", s)
	}
}

// begin submits a request.
func (l *lone) begin(io *replica.IO) *replica.IO {
	l.Submit(io)
	l.carry()
	return io
}

// A flush that ends after its session promises nothing of what was written in the
// next one.
func TestFlushOfAnEarlierSession(t *testing.T) {
	l := active(t, true)
	l.meet(1)
	slow := l.begin(&replica.IO{Op: replica.Flush})
	l.PeerDone(1, slow.Seq, 0)
	l.Lost(1, "cut")
	l.meet(2)
	w := l.begin(&replica.IO{Op: replica.Write, Len: 4096})
	l.PeerDone(2, w.Seq, 0)
	l.LocalDone(w, 0)
	if n := l.count(replica.DoComplete); n != 1 {
		t.Fatalf("%d are complete", n)
	}
	l.begin(&replica.IO{Op: replica.Flush})
	l.LocalDone(slow, 0)
	l.Lost(2, "cut")
	if n := l.Status().Marked; n != 4096 {
		t.Errorf("%d bytes are marked", n)
	}
}

// written writes something, which both copies have when it returns.
func (l *lone) written(link uint64) {
	w := l.begin(&replica.IO{Op: replica.Write, Len: 4096})
	l.PeerDone(link, w.Seq, 0)
	l.LocalDone(w, 0)
}

// What both copies have, and no flush has made durable, is marked when the session
// ends, also while a flush is under way.
func TestLossDuringAFlush(t *testing.T) {
	l := active(t, true)
	l.meet(1)
	l.written(1)
	f := l.begin(&replica.IO{Op: replica.Flush})
	l.LocalDone(f, 0)
	l.Lost(1, "cut")
	if n := l.Status().Marked; n != 4096 {
		t.Errorf("%d bytes are marked", n)
	}
}

// The active part does not end while the other copy, lost a moment ago, may be on its
// way back: the group may be about to move there.
func TestHandOver(t *testing.T) {
	for name, c := range map[string]struct {
		then func(l *lone)
		ends bool
	}{
		"at once":      {func(l *lone) { l.Demote() }, false},
		"not for long": {func(l *lone) { l.Demote(); l.Tick(3*time.Second, 1) }, true},
		"given up":     {func(l *lone) { l.Demote(); l.Abort(); l.Demote() }, true},
		"long ago":     {func(l *lone) { l.Tick(3*time.Second, 1); l.Demote() }, true},
		"broken":       {func(l *lone) { l.Ordered(replica.Neither, true); l.Demote() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := active(t, true)
			l.Tick(time.Second, 1)
			l.meet(1)
			l.written(1)
			l.Lost(1, "cut")
			l.Told(replica.Set{Self: true, Rev: 2})
			l.carry()
			l.out = nil
			c.then(l)
			l.carry()
			for _, e := range l.out { // the core's own flush
				if e.Do == replica.DoLocal {
					l.LocalDone(e.IO, 0)
				}
			}
			if ended := l.count(replica.DoRole) > 0; ended != c.ends {
				t.Errorf("it has ended: %v", ended)
			}
		})
	}
}

// A flush under way when the session ends, with nothing else, is answered when
// the other copy is back.
func TestFlushOverALoss(t *testing.T) {
	l := active(t, true)
	l.meet(1)
	f := l.begin(&replica.IO{Op: replica.Flush})
	l.LocalDone(f, 0)
	l.Lost(1, "cut")
	if n := l.count(replica.DoComplete); n != 0 {
		t.Fatal("it was answered without the other copy")
	}
	l.meet(2)
	l.PeerDone(2, f.Seq, 0)
	if n := l.count(replica.DoComplete); n != 1 {
		t.Errorf("it was answered %d times", n)
	}
}

// The only copy goes on when its meta device writes again, and nothing that was
// to be written is forgotten.
func TestMetaDeviceFailsForAWhile(t *testing.T) {
	l := active(t, false)
	l.meta = 2
	w := l.begin(&replica.IO{Op: replica.Write, Len: 4096})
	if n := l.count(replica.DoLocal); n != 0 {
		t.Fatal("it began without its extent in the log")
	}
	for i := range 3 {
		l.Tick(time.Duration(i+1)*time.Second, 1)
		l.carry()
	}
	if n := l.count(replica.DoLocal); n != 1 {
		t.Fatalf("it began %d times", n)
	}
	l.LocalDone(w, 0)
	if n := l.count(replica.DoComplete); n != 1 {
		t.Fatal("it is not answered")
	}
	l.meta = 1
	pages, failed := 0, 0
	for i := range 60 { // the extent leaves the log
		l.Tick(time.Duration(i+4)*time.Second, 1)
		for effects := l.Take(); len(effects) > 0; effects = l.Take() {
			for _, e := range effects {
				if e.Do != replica.DoMeta {
					continue
				}
				if l.meta > 0 {
					l.meta, failed = 0, len(e.Meta.Pages)
					l.MetaDone(errors.New("it does not write"))
					continue
				}
				pages += len(e.Meta.Pages)
				l.MetaDone(nil)
			}
		}
	}
	if failed == 0 || pages != failed {
		t.Errorf("%d pages were not written, and then %d", failed, pages)
	}
}

// Whoever has become active later is not spoken to by the one before.
func TestEarlierAssignment(t *testing.T) {
	l := active(t, true)
	l.Abort()
	l.Demote()
	l.carry()
	h := l.Hello()
	h.Active, h.Epoch = true, 4
	if err := l.Greeted(1, h, func() {}); !errors.Is(err, replica.ErrOldEpoch) {
		t.Errorf("a greeting of an earlier assignment: %v", err)
	}
	if err := l.Promote(4, replica.Set{Self: true, Rev: 2}, false); !errors.Is(err, replica.ErrOldEpoch) {
		t.Errorf("a promotion in an earlier assignment: %v", err)
	}
	h.Epoch = 6
	replied := false
	if err := l.Greeted(2, h, func() { replied = true }); err != nil {
		t.Fatal(err)
	}
	l.carry()
	f := wire.Frame{Kind: wire.KindWrite, Epoch: 6, Length: 4096}
	if errno := l.Accept(2, f); errno != 0 || !replied {
		t.Fatalf("errno %d, replied %v", errno, replied)
	}
	l.Executed(f, 0)
	l.Assigned(7)
	if l.count(replica.DoHangUp) != 1 || l.Accept(2, f) == 0 {
		t.Error("a frame of an earlier assignment was taken")
	}
}

// The target of a copy that has not ended refuses to become active, unless it is
// forced.
func TestUnfinishedCopyRefuses(t *testing.T) {
	l := active(t, true)
	h := l.Hello()
	l.Abort()
	l.Demote()
	l.carry()
	if err := l.Greeted(1, h, func() {}); err != nil {
		t.Fatal(err)
	}
	v := wire.Verdict{Decision: wire.CopyMarked, Text: "copying begins"}.Encode()
	if err := l.Frame(1, wire.Frame{Kind: wire.KindVerdict, Epoch: h.Epoch, Payload: uint32(len(v))}, v); err != nil {
		t.Fatal(err)
	}
	l.carry()
	if err := l.Promote(9, replica.Set{Self: true, Peer: true, Rev: 2}, false); !errors.Is(err, replica.ErrInconsistent) {
		t.Errorf("%v", err)
	}
	if err := l.Promote(9, replica.Set{Self: true, Rev: 2}, true); err != nil {
		t.Errorf("by force: %v", err)
	}
}

// A copy that is aborted does not ask to go on alone: what it had completed is on
// both.
func TestAbortAsksNothing(t *testing.T) {
	l := active(t, true)
	l.meet(1)
	l.begin(&replica.IO{Op: replica.Write, Len: 4096})
	l.Abort()
	l.Tick(time.Minute, 1)
	if n := l.count(replica.DoAsk); n != 0 || l.count(replica.DoComplete) != 1 || l.Status().Marked != 4096 {
		t.Errorf("%d asks, %+v", n, l.Status())
	}
}

// A process that finds that the other copy is out asks once more before it goes on
// alone: what the one before it asked for may still be on its way.
func TestAloneIsAskedForAnew(t *testing.T) {
	l := activeOf(t, false, true)
	l.Told(replica.Set{Self: true, Rev: 2})
	if n := l.count(replica.DoAsk); n != 1 || len(l.Status().Super.Ancestors) != 0 {
		t.Fatalf("%d asks, %+v", n, l.Status())
	}
	l.Told(replica.Set{Self: true, Rev: 3})
	l.carry()
	if len(l.Status().Super.Ancestors) != 1 {
		t.Errorf("%+v", l.Status())
	}
}

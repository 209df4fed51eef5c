package replica_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/mirrortest"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
)

// pairOf returns a world whose two copies are in sync, with A active.
func pairOf(t *testing.T, c mirrortest.Config) *world {
	t.Helper()
	w := newWorld(1, c)
	w.keep = true
	w.Hosts[0].Construct()
	for _, h := range w.Hosts {
		h.Start(replica.Standby, 0)
	}
	w.regs[0].barred[1] = true
	w.place(w.regs[0])
	w.run(3 * time.Second)
	w.regs[0].barred[1] = false
	w.expectInSync()
	check(t, w)
	return w
}

func check(t *testing.T, w *world) {
	t.Helper()
	if w.broken != "" {
		for _, l := range w.log[max(0, len(w.log)-60):] {
			t.Log(l)
		}
		t.Fatal(w.broken)
	}
}

// partWays cuts the hosts from each other, and each goes on with a cluster of its
// own: arbitration none.
func (w *world) partWays() {
	w.cut, w.parted = true, true
	for _, h := range w.Hosts {
		h.Drop("cut")
	}
	other := *w.regs[1]
	other.owner, other.epoch = -1, other.epoch+100
	w.regs[1] = &other
	w.place(&other)
	w.run(3 * time.Second)
}

// meet lets them see each other again, in the cluster of the host that won. The
// group of the other one is stopped.
func (w *world) meet(won int) {
	loser, r := w.Hosts[1-won], w.regs[won]
	w.regs[1-won] = r
	w.stop(loser, true)
	w.run(200 * time.Millisecond)
	if loser.Active() {
		w.Breaks("%s is active still", loser)
	}
	r.epoch += 1000 // a life of consensus to which the other one has yielded
	for _, h := range w.Hosts {
		h.Do(func() { h.Core.Assigned(r.epoch) })
	}
	w.cut = false
	w.tell()
	w.run(3 * time.Second)
}

// A split brain is seen at the first contact, whoever goes on, and nothing is
// copied until it is said whose writes are given up; then both are equal.
func TestSplit(t *testing.T) {
	for won := range 2 {
		t.Run(fmt.Sprint(won), func(t *testing.T) {
			w := pairOf(t, usual)
			w.partWays()
			for i := range w.Hosts {
				w.Hosts[i].Client.Quiet()
			}
			w.run(time.Second)
			acked := w.Acked
			w.meet(won)
			check(t, w)
			a := w.Hosts[won]
			if s := a.Core.Status(); s.Relation != replica.Forked || s.Phase != "apart" || w.Notices["mirror-disk-split"] != 1 {
				t.Fatalf("relation %s, phase %s, told %d times, %d writes", s.Relation, s.Phase, w.Notices["mirror-disk-split"], acked)
			}
			if w.Differs() < 0 {
				t.Fatal("the two copies are equal, although both were written")
			}
			a.Ordered(replica.Peer, false)
			w.run(5 * time.Second)
			w.expectInSync()
			w.expectEqual()
			check(t, w)
		})
	}
}

// Both crash while they are apart, and come back in either order: the group runs
// where its cluster has it, and the fork is seen all the same.
func TestSplitAndBothCrash(t *testing.T) {
	for first := range 2 {
		w := pairOf(t, usual)
		w.partWays()
		for _, h := range w.Hosts {
			h.Stop(true)
			w.regs[h.N].owner = -1
		}
		w.cut = false
		r := w.regs[first]
		w.regs[1-first] = r
		r.epoch += 1000
		w.Hosts[first].Start(replica.Standby, 0)
		w.place(r)
		w.run(time.Second)
		w.Hosts[1-first].Start(replica.Standby, 0)
		w.run(3 * time.Second)
		if s := w.Hosts[first].Core.Status(); s.Relation != replica.Forked || w.Notices["mirror-disk-split"] == 0 {
			w.Breaks("%d first: %s", first, s.Relation)
		}
		check(t, w)
	}
}

// Policies decide for the active copy, or for nobody.
func TestSplitPolicies(t *testing.T) {
	for _, c := range []struct {
		policy replica.Policy
		won    int
		joined bool
	}{
		{replica.PolicySurvivor, 0, true}, {replica.PolicySurvivor, 1, true},
		{replica.PolicyOlder, 0, false}, {replica.PolicyOlder, 1, true}, // B writes for longer
		{replica.PolicySmaller, 0, false}, {replica.PolicySmaller, 1, true},
		{replica.PolicyNone, 0, false}, {replica.PolicyNone, 1, false},
	} {
		conf := usual
		conf.Policy = c.policy
		w := pairOf(t, conf)
		w.partWays()
		w.Hosts[0].Client.Quiet()
		w.run(6 * time.Second)
		w.Hosts[1].Client.Quiet()
		w.meet(c.won)
		w.run(5 * time.Second)
		check(t, w)
		if s := w.Hosts[c.won].Core.Status(); (s.Phase == "joined") != c.joined {
			t.Errorf("%s, %d goes on: phase %s, relation %s, marks %d", c.policy, c.won, s.Phase, s.Relation, s.Marked)
		}
	}
}

// A copy becomes active although the other one went on from it, which a cluster
// that lost its state may let happen. That is no split brain, and no policy may make
// it one: the other one has everything, and takes over.
func TestAheadIsNoSplit(t *testing.T) {
	for _, p := range []replica.Policy{replica.PolicyNone, replica.PolicySurvivor, replica.PolicyOlder, replica.PolicySmaller} {
		conf := usual
		conf.Policy = p
		w := pairOf(t, conf)
		a, b := w.Hosts[0], w.Hosts[1]
		b.Stop(true)
		w.run(3 * time.Second) // A goes on alone
		acked := w.Acked
		a.Stop(true)
		r := *w.regs[0]
		r.owner, r.in, r.barred[0] = -1, [2]bool{true, true}, true
		w.regs, w.parted = [2]*register{&r, &r}, true
		a.Start(replica.Standby, 0)
		b.Start(replica.Standby, 0)
		w.place(&r)
		r.barred[0] = false
		w.run(5 * time.Second)
		check(t, w)
		if !a.Active() || w.Notices["mirror-disk-behind"] == 0 || w.Notices["mirror-disk-split"] != 0 || acked == 0 {
			t.Fatalf("policy %s: %d writes, %v, %s", p, acked, w.Notices, w.states())
		}
		w.expectInSync()
		w.expectEqual()
		check(t, w)
	}
}

// A copy that is out of date becomes active by force alone, and what the other
// one had is not overwritten before somebody says so.
func TestForced(t *testing.T) {
	w := pairOf(t, usual)
	b := w.Hosts[1]
	b.Stop(true)
	w.run(3 * time.Second) // A goes on alone
	w.Hosts[0].Stop(true)
	b.Start(replica.Standby, 0)
	if err := b.Core.Promote(50, replica.Set{Peer: true, Rev: 9}, false); !errors.Is(err, replica.ErrOutOfDate) {
		t.Fatalf("a copy that is out of date: %v", err)
	}
	r := w.regs[0]
	r.owner, r.in, r.force, r.epoch = -1, [2]bool{false, true}, true, 60
	r.rev++
	w.place(r)
	w.run(10 * time.Millisecond)
	if !b.Active() || len(b.Core.Status().Super.Ancestors) != 1 {
		t.Fatalf("%+v", b.Core.Status())
	}
	w.run(time.Second)
	w.Hosts[0].Start(replica.Standby, 0)
	w.run(2 * time.Second)
	if s := b.Core.Status(); s.Relation != replica.Forked {
		t.Fatalf("relation %s", s.Relation)
	}
	b.Ordered(replica.Peer, false)
	w.run(5 * time.Second)
	w.expectInSync()
	w.expectEqual()
	check(t, w)
}

// A copy of another mirror disk is given up by an operator's word alone.
func TestForeignDevice(t *testing.T) {
	c := usual
	c.Policy = replica.PolicySurvivor
	w := pairOf(t, c)
	b := w.Hosts[1]
	b.Stop(false)
	b.Replace()
	b.Construct()
	b.Start(replica.Standby, 0)
	made := b.Core.Status().Super.Device
	if err := b.Core.Promote(1<<40, replica.Set{}, false); err != nil {
		t.Fatal(err)
	}
	b.Stop(false)
	b.Use() // somebody has written to it
	b.Start(replica.Standby, 0)
	w.run(3 * time.Second)
	if now := b.Core.Status().Super.Device; now != made {
		t.Fatal("a copy of another mirror disk was overwritten")
	}
	w.Hosts[0].Ordered(replica.Peer, false)
	w.run(6 * time.Second)
	w.expectInSync()
	w.expectEqual()
	check(t, w)
}

// A blank disk in the place of a copy gets everything.
func TestReplacedDisk(t *testing.T) {
	for _, initial := range []bool{true, false} {
		c := usual
		c.NoCopy = !initial
		w := pairOf(t, c)
		b := w.Hosts[1]
		b.Stop(true)
		b.Replace()
		b.Start(replica.Standby, 0)
		w.run(6 * time.Second)
		w.expectInSync()
		w.expectEqual()
		check(t, w)
	}
}

// Without a first copy nothing is copied but what was written before the other
// copy came.
func TestNoInitialCopy(t *testing.T) {
	c := usual
	c.NoCopy = true
	w := newWorld(1, c)
	w.keep = true
	w.Hosts[0].Construct()
	w.Hosts[0].Start(replica.Standby, 0)
	w.place(w.regs[0])
	w.run(2 * time.Second)
	marked := w.Hosts[0].Core.Status().Marked
	w.Hosts[1].Start(replica.Standby, 0)
	w.run(time.Second)
	w.expectInSync()
	w.expectEqual()
	check(t, w)
	if marked == 0 || marked > int64(usual.Extents)*meta.ExtentSize/4 {
		t.Errorf("%d bytes were marked", marked)
	}
}

// A difference that nobody knows of is found by a comparison, and repaired if
// that is asked for.
func TestVerifyFindsAFlip(t *testing.T) {
	w := pairOf(t, usual)
	w.Hosts[0].Client.Quiet()
	w.run(time.Second)
	w.Hosts[1].Flip(4711, 99999999)
	for i, repair := range []bool{false, true} {
		w.Hosts[0].Do(func() { w.Hosts[0].Core.Verify(repair) })
		w.run(4 * time.Second)
		if n := w.Notices["mirror-disk-differs"]; n != i+1 {
			t.Fatalf("told %d times", n)
		}
		if same := w.Differs() < 0; same != repair {
			t.Fatalf("repair %v: the first cell that differs is %d", repair, w.Differs())
		}
	}
	w.expectInSync()
	check(t, w)
}

// In async mode a crash may lose what is on its way, but nothing that a flush was
// answered for while something later is there.
func TestAsyncKeepsTheOrder(t *testing.T) {
	c := usual
	c.Async = true
	for i := range 12 {
		w := pairOf(t, c)
		w.run(time.Duration(50+37*i) * time.Millisecond)
		for _, h := range w.Hosts {
			h.Slow = time.Duration(i) * time.Millisecond
		}
		w.run(time.Second)
		a, b := w.Hosts[0], w.Hosts[1]
		a.Stop(true)
		if why := b.OutOfOrder(); why != "" {
			t.Fatal(why)
		}
		w.regs[0].owner = -1
		w.place(w.regs[0])
		w.run(2 * time.Second)
		a.Slow, b.Slow = 0, 0
		a.Start(replica.Standby, 0)
		w.run(8 * time.Second)
		w.expectInSync()
		w.expectEqual()
		check(t, w)
	}
}

// Copying keeps to its rate.
func TestRate(t *testing.T) {
	c := usual
	c.Rate = 10 << 20
	w := newWorld(1, c)
	w.Hosts[0].Construct()
	for _, h := range w.Hosts {
		h.Start(replica.Standby, 0)
	}
	w.place(w.regs[0])
	began := w.Hosts[0].Core.Status()
	for w.now < time.Minute && w.Hosts[0].Core.Status().Phase != "joined" {
		w.run(100 * time.Millisecond)
	}
	if want := time.Duration(usual.Extents) * meta.ExtentSize * time.Second / time.Duration(c.Rate); w.now < want*9/10 || w.now > want*12/10 {
		t.Errorf("copied in %s instead of %s, began with %d bytes", w.now, want, began.Marked)
	}
}

// What does not fit is no copy, and that is said once.
func TestUnfit(t *testing.T) {
	size := int64(usual.Extents) * meta.ExtentSize
	for name, c := range map[string]mirrortest.Config{
		"smaller":        {Capacity: [2]int64{0, size - 512}},
		"larger sectors": {Sector: [2]uint16{512, 4096}},
	} {
		conf := usual
		conf.Capacity, conf.Sector = c.Capacity, c.Sector
		w := newWorld(1, conf)
		w.Hosts[0].Construct()
		for _, h := range w.Hosts {
			h.Start(replica.Standby, 0)
		}
		w.place(w.regs[0])
		w.run(10 * time.Second)
		if s := w.Hosts[0].Core.Status(); s.Relation != replica.Unfit || w.Notices["mirror-disk-unfit"] != 1 || w.Acked == 0 {
			t.Errorf("%s: relation %s, told %d times, %d writes", name, s.Relation, w.Notices["mirror-disk-unfit"], w.Acked)
		}
		if w.broken != "" {
			t.Errorf("%s: %s", name, w.broken)
		}
	}
}

// The disk of the only copy had an error, and is used on. It counts as sound again
// when all of it was read, by a comparison or by a copy of everything, not before:
// until then no machine gives the group back to it.
func TestDiskProvesItself(t *testing.T) {
	for how, prove := range map[string]func(c *replica.Core){
		"a comparison":         func(c *replica.Core) { c.Verify(false) },
		"a copy of everything": func(c *replica.Core) { c.Recopy(true) },
	} {
		w := pairOf(t, usual)
		a, b := w.Hosts[0], w.Hosts[1]
		failed := func() bool { return a.Core.Status().Super.Failed }
		b.Stop(true)
		w.run(3 * time.Second)
		a.BadWrites = 1
		w.run(time.Second)
		b.Start(replica.Standby, 0)
		w.run(6 * time.Second)
		w.expectInSync()
		if !failed() {
			t.Errorf("%s: the error is forgotten after what differed was copied", how)
		}
		a.Do(func() { prove(a.Core) })
		w.run(8 * time.Second)
		w.expectInSync()
		if failed() || w.Notices["mirror-disk-proven"] != 1 {
			t.Errorf("%s: failed %v, %v", how, failed(), w.Notices)
		}
		w.expectEqual()
		check(t, w)
	}
}

// A mirror that an operator has broken stays so: the other copy does not count, gets
// nothing, and is brought up to date when it is resumed.
func TestBroken(t *testing.T) {
	w := pairOf(t, usual)
	a := w.Hosts[0]
	order := func(paused bool) { a.Do(func() { a.Core.Ordered(replica.Neither, paused) }) }
	order(true)
	w.run(3 * time.Second)
	for range 2 {
		s := a.Core.Status()
		if s.Set.Peer || s.Phase == "joined" || s.Marked == 0 {
			t.Fatalf("%+v", s)
		}
		w.Hosts[1].Stop(true)
		w.Hosts[1].Start(replica.Standby, 0)
		w.run(3 * time.Second)
	}
	order(false)
	w.run(8 * time.Second)
	w.expectInSync()
	w.expectEqual()
	check(t, w)
}

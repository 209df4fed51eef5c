package replica_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/mirrortest"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
)

// storyTime is how long faults go on in one story.
const storyTime = 30 * time.Second

// faults of a story.
var faults = []struct {
	name string
	do   func(w *world)
}{
	{"kill", (*world).kill},
	{"crash", func(w *world) { w.crash(w.Hosts[w.Chance.IntN(2)]) }},
	{"crash both", func(w *world) {
		w.crash(w.Hosts[0])
		w.After(w.ms(0, 300), func() { w.crash(w.Hosts[1]) })
	}},
	{"cut", func(w *world) {
		w.cut = true
		for _, h := range w.Hosts {
			w.After(w.ms(20, 200), w.dropper(h, "silent"))
		}
		w.After(w.ms(50, 4000), func() { w.cut = false })
	}},
	{"blip", func(w *world) { // the connections break and can be made again at once
		for _, h := range w.Hosts {
			w.After(w.ms(0, 10), w.dropper(h, "reset"))
		}
	}},
	{"move", (*world).move},
	{"isolate", (*world).isolate},
	{"mute", func(w *world) { // consensus takes long
		i := w.Chance.IntN(2)
		w.mute[i] = true
		w.After(w.ms(50, 2000), func() { w.mute[i] = false; w.tell() })
	}},
	{"bad disk", func(w *world) {
		h := w.Hosts[w.Chance.IntN(2)]
		if w.Chance.IntN(3) == 0 {
			h.BadWrites = 1
			w.After(w.ms(100, 300), func() { h.BadWrites = 0 })
		}
	}},
	{"bad sectors", func(w *world) {
		h := w.Hosts[w.Chance.IntN(2)]
		h.BadReads = 2
		w.After(w.ms(100, 300), func() { h.BadReads = 0 })
	}},
	{"bad meta device", func(w *world) {
		h := w.Hosts[w.Chance.IntN(2)]
		if w.Chance.IntN(3) == 0 {
			h.BadMeta = 1 + w.Chance.IntN(2)
			w.After(w.ms(100, 300), func() { h.BadMeta = 0 })
		}
	}},
	{"damaged bitmap", func(w *world) {
		h := w.Hosts[w.Chance.IntN(2)]
		h.Damage = true
		w.crash(h)
	}},
	{"slow", func(w *world) {
		h := w.Hosts[w.Chance.IntN(2)]
		h.Slow = w.ms(1, 100)
		w.After(w.ms(100, 2000), func() { h.Slow = 0 })
	}},
	{"freeze", (*world).freeze},
	{"verify", func(w *world) {
		w.actives(func(h *mirrortest.Host) { h.Do(func() { h.Core.Verify(w.Chance.IntN(2) == 0) }) })
	}},
	{"pause", func(w *world) {
		for _, h := range w.Hosts {
			h.Ordered(replica.Neither, true)
			w.After(w.ms(100, 2000), func() { h.Ordered(replica.Neither, false) })
		}
	}},
	{"replace", (*world).replace},
	{"invalidate", (*world).invalidate},
}

func (w *world) actives(do func(h *mirrortest.Host)) {
	for _, h := range w.Hosts {
		if h.Active() {
			do(h)
		}
	}
}

// dropper ends the session that a host is in now.
func (w *world) dropper(h *mirrortest.Host, why string) func() {
	life := h.Life()
	return func() {
		if h.Life() == life {
			h.Drop(why)
		}
	}
}

// kill ends the process of a host, and another goes on.
func (w *world) kill() {
	h, r := w.Hosts[w.Chance.IntN(2)], w.regs[0]
	if !h.On() {
		return
	}
	role := replica.Standby
	if r.owner == h.N && h.Active() {
		role = replica.Active
	}
	h.Stop(false)
	if r.owner == h.N && role == replica.Standby { // it was on its way
		r.owner = -1
		w.After(100*time.Millisecond, func() { w.place(r) })
	}
	w.After(w.ms(5, 400), func() { w.goOn(h, role) })
}

// goOn starts the next process of a host.
func (w *world) goOn(h *mirrortest.Host, role replica.Role) {
	r := w.regs[h.N]
	if h.On() {
		return
	}
	if r.owner != h.N {
		role = replica.Standby
	}
	h.Start(role, r.epoch)
	life := h.Life()
	w.After(w.ms(1, 300), func() { // the daemon connects
		if h.Life() == life && !w.mute[h.N] {
			h.Told(r.set(h.N))
		}
	})
	if role == replica.Active && h.On() {
		h.Client.Attach()
	}
}

// crash takes the power from a host; somebody else may take the group over, and
// it comes back.
func (w *world) crash(h *mirrortest.Host) {
	if !h.On() {
		return
	}
	r := w.regs[h.N]
	owned := r.owner == h.N
	h.Stop(true)
	if owned {
		w.After(w.ms(200, 600), func() { // the lease ends
			if r.owner == h.N && !h.Active() {
				r.owner = -1
				w.place(r)
			}
		})
	}
	w.After(w.ms(100, 5000), func() { w.goOn(h, replica.Standby) })
}

// replace gives a standby new disks, while the other copy is complete.
func (w *world) replace() {
	r := w.regs[0]
	if r.owner < 0 || w.Chance.IntN(3) > 0 {
		return
	}
	a := w.Hosts[r.owner]
	if h := a.Other(); h.On() && a.Active() && r.in[a.N] && a.Core.Status().Set.Self && a.BadMeta == 0 { // else both are gone at once
		w.crash(h)
		h.Replace()
	}
}

// invalidate takes the copy that is not active out of the set, as an operator
// may.
func (w *world) invalidate() {
	if r := w.regs[0]; r.owner >= 0 && r.in[0] && r.in[1] {
		r.in[1-r.owner] = false
		w.agreed(r, "an operator has declared the other copy invalid")
	}
}

// freeze isolates the group, and the lease comes back.
func (w *world) freeze() {
	w.actives(func(h *mirrortest.Host) {
		if w.frozen[h.N] {
			return
		}
		life := h.Life()
		h.Do(h.Core.Freeze)
		w.After(w.ms(10, 500), func() {
			if h.Life() == life && !w.frozen[h.N] {
				h.Do(h.Core.Thaw)
			}
		})
	})
}

// isolate cuts the owner off from everybody: it freezes, and another takes over.
func (w *world) isolate() {
	r := w.regs[0]
	if r.owner < 0 || w.cut {
		return
	}
	h := w.Hosts[r.owner]
	if !h.Active() || !h.Client.Attached() || h.Client.Stopping() || w.frozen[h.N] {
		return
	}
	life := h.Life()
	alive := func() bool { return h.Life() == life }
	w.cut, w.mute[h.N] = true, true
	w.After(w.ms(150, 300), func() {
		if alive() {
			w.frozen[h.N] = true
			h.Do(h.Core.Freeze)
		}
	})
	w.After(320*time.Millisecond, func() {
		if alive() && r.owner == h.N && w.frozen[h.N] {
			r.owner = -1
			w.place(r)
		}
	})
	w.After(w.ms(400, 3000), func() {
		w.cut, w.mute[h.N], w.frozen[h.N] = false, false, false
		w.tell()
		switch {
		case !alive() || !h.Active():
		case r.owner == h.N: // nobody could take it
			h.Do(h.Core.Thaw)
		default:
			w.stop(h, true)
		}
	})
	for _, x := range w.Hosts {
		w.After(w.ms(100, 250), w.dropper(x, "silent"))
	}
}

// kindOf makes the device of a seed.
func kindOf(seed uint64) mirrortest.Config {
	c := usual
	c.Shift = []uint8{meta.MinShift, 14, 16}[seed%3]
	if seed%8 == 5 {
		c.Rate = 40 << 20
	}
	return c
}

// story tells the story of a seed.
func story(seed uint64, keep bool) *world {
	w := newWorld(seed, kindOf(seed))
	w.keep = keep
	w.Hosts[0].Construct()
	w.Hosts[0].Start(replica.Standby, 0)
	w.Hosts[1].Start(replica.Standby, 0)
	w.place(w.regs[0])
	w.run(2 * time.Second)
	for w.now < storyTime && w.broken == "" {
		f := faults[w.Chance.IntN(len(faults))]
		w.faults[f.name]++
		w.Say("--- %s", f.name)
		f.do(w)
		w.run(w.ms(5, 2500))
	}
	w.calm()
	return w
}

// calm ends all faults: what can be in order must be, soon.
func (w *world) calm() {
	w.run(6 * time.Second)
	w.cut, w.mute, w.frozen = false, [2]bool{}, [2]bool{}
	for _, h := range w.Hosts {
		h.Slow, h.BadWrites, h.BadReads, h.BadMeta = 0, 0, 0, 0
		h.Ordered(replica.Neither, false)
		w.repair(h)
	}
	w.tell()
	w.run(12 * time.Second)
	w.actives(func(h *mirrortest.Host) { h.Do(func() { h.Core.Recopy(false) }) })
	w.run(20 * time.Second)
	w.expectInSync()
	w.expectEqual()
}

// repair starts the process of a copy again that has failed, and puts new disks
// in where that is possible.
func (w *world) repair(h *mirrortest.Host) {
	if !h.On() || h.Core.Status().Broken == "" && !h.Core.Status().Super.Failed {
		return
	}
	w.crash(h)
	if r := w.regs[h.N]; r.in[1-h.N] {
		h.Replace()
	}
}

// expectInSync breaks the story unless one copy is active and the other complete.
func (w *world) expectInSync() {
	if w.broken != "" {
		return
	}
	r := w.regs[0]
	if r.owner < 0 || !w.Hosts[r.owner].Client.Attached() {
		w.Breaks("nobody is active after the faults have ended (owner %d, %s)", r.owner, w.states())
		return
	}
	if s := w.Hosts[r.owner].Core.Status(); !r.in[0] || !r.in[1] || s.Phase != "joined" {
		w.Breaks("not in sync after the faults have ended: set %v, phase %s, %d bytes marked, relation %s", r.in, s.Phase, s.Marked, s.Relation)
	}
}

// expectEqual breaks the story unless everything is answered and both copies are
// equal.
func (w *world) expectEqual() {
	if w.broken != "" {
		return
	}
	c := w.Hosts[w.regs[0].owner].Client
	c.Quiet()
	w.run(3 * time.Second)
	if c.Under() > 0 {
		w.Breaks("%d requests are not answered", c.Under())
	} else if b := w.Differs(); b >= 0 {
		w.Breaks("cell %d differs", b)
	}
}

var (
	seeds   = flag.Int("pair-seeds", 60, "stories of two copies to tell")
	oneSeed = flag.Uint64("pair-seed", 0, "tell this story alone, with its log")
)

// TestStories tells stories of random faults to two copies.
func TestStories(t *testing.T) {
	if *oneSeed > 0 {
		w := story(*oneSeed, true)
		fmt.Fprintln(os.Stderr, strings.Join(w.log, "\n"))
		if w.broken != "" {
			t.Fatal(w.broken)
		}
		return
	}
	notices, tried, acked, bad := map[string]int{}, map[string]int{}, 0, 0
	if raced {
		*seeds /= 6
	}
	for seed := uint64(1); seed <= uint64(*seeds) && bad < 3; seed++ {
		w := story(seed, false)
		add(notices, w.Notices)
		add(tried, w.faults)
		acked += w.Acked
		if w.broken != "" {
			t.Errorf("seed %d: %s: %s", seed, w.now, w.broken)
			bad++
		}
	}
	t.Logf("%d acknowledged writes; %v; %v", acked, tried, notices)
	if raced {
		return
	}
	for _, code := range []string{"mirror-disk-copy", "mirror-disk-in-sync", "mirror-disk-lost", "mirror-disk-verified", "mirror-disk-read-failed", "mirror-disk-failed"} {
		if notices[code] == 0 {
			t.Errorf("no story had %s, but %v", code, slices.Sorted(maps.Keys(notices)))
		}
	}
}

func add(to, from map[string]int) {
	for k, n := range from {
		to[k] += n
	}
}

// states is what both copies are, for who reads a story.
func (w *world) states() (text string) {
	for _, h := range w.Hosts {
		if h.On() {
			text += fmt.Sprintf("%s %+v ", h, h.Core.Status())
		}
	}
	return text
}

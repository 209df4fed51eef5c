package replica_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/mirrortest"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
)

// world is two copies, and a register that stands for the cluster: it has the
// owner and the in-sync set, and never two of them, unless the nodes are parted
// and each goes on with a register of its own.
type world struct {
	*mirrortest.Pair
	now    time.Duration
	order  uint64
	queue  worldQueue
	cut    bool
	mute   [2]bool // the cluster does not hear this host
	regs   [2]*register
	parted bool // each went on with a register of its own, at some time

	frozen [2]bool // its group is isolated
	broken string
	log    []string
	keep   bool
	faults map[string]int
}

// register is what a cluster agrees on.
type register struct {
	owner  int // -1: none
	epoch  uint64
	in     [2]bool
	rev    uint64
	made   bool
	barred [2]bool // the group may not run there
	force  bool    // the next start is of a copy that is out of date
}

type worldItem struct {
	at    time.Duration
	order uint64
	do    func()
}
type worldQueue []worldItem

func (q worldQueue) Len() int { return len(q) }
func (q worldQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q worldQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *worldQueue) Push(x any)   { *q = append(*q, x.(worldItem)) }
func (q *worldQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// usual is the device of the stories: more extents than the activity log holds.
var usual = mirrortest.Config{Extents: 40, Shift: meta.MinShift, Tick: 50 * time.Millisecond, Dial: 40 * time.Millisecond, Gap: 12 * time.Millisecond}

func newWorld(seed uint64, c mirrortest.Config) *world {
	r := &register{owner: -1}
	w := &world{regs: [2]*register{r, r}, faults: map[string]int{}}
	w.Pair = mirrortest.New(w, rand.New(rand.NewPCG(seed, seed^0x5bd1e995)), c)
	return w
}

func (w *world) Now() time.Duration { return w.now }
func (w *world) Linked() bool       { return !w.cut }

func (w *world) After(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.queue, worldItem{w.now + d, w.order, do})
}

func (w *world) run(d time.Duration) {
	end := w.now + d
	for w.broken == "" && len(w.queue) > 0 && w.queue[0].at <= end {
		it := heap.Pop(&w.queue).(worldItem)
		w.now = it.at
		it.do()
	}
	if w.broken == "" {
		w.now = end
	}
}

func (w *world) ms(from, to int) time.Duration {
	return w.Between(time.Duration(from)*time.Millisecond, time.Duration(to)*time.Millisecond)
}

func (w *world) Say(format string, args ...any) {
	if w.keep && len(w.log) < 200000 {
		w.log = append(w.log, fmt.Sprintf("%9.3f ", w.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

func (w *world) Breaks(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
		w.Say("BROKEN %s", w.broken)
	}
}

func (r *register) set(n int) replica.Set {
	return replica.Set{Self: r.in[n], Peer: r.in[1-n], Rev: r.rev}
}

// Set is told to a process that starts, unless the cluster cannot be asked.
func (w *world) Set(h *mirrortest.Host) (replica.Set, bool) {
	return w.regs[h.N].set(h.N), !w.mute[h.N]
}

func (w *world) Counts(h *mirrortest.Host) bool { return w.regs[h.N].in[1-h.N] }

// Asked brings the wish of a host to its register, again and again while it
// stands. Now and then it arrives once more, much later.
func (w *world) Asked(h *mirrortest.Host) { w.ask(h, h.Life()) }

func (w *world) ask(h *mirrortest.Host, life int) {
	wish := func() *replica.Ask {
		if h.Life() != life || !h.On() {
			return nil
		}
		return h.Core.Wish()
	}
	a := wish()
	if a == nil {
		return
	}
	w.After(w.ms(2, 30), func() {
		if wish() != a {
			return
		}
		w.decide(h, *a)
		w.After(w.ms(100, 200), func() {
			if wish() == a {
				w.ask(h, life)
			}
		})
	})
	if w.Chance.IntN(4) == 0 {
		b := *a
		w.After(w.ms(50, 800), func() { w.decide(h, b) })
	}
}

// decide is what the cluster does with a wish: it is void unless the host owns
// the group and knew the latest set.
func (w *world) decide(h *mirrortest.Host, a replica.Ask) {
	r := w.regs[h.N]
	if w.mute[h.N] || r.owner != h.N || a.Rev != r.rev || !a.Self && !a.Peer {
		return
	}
	if a.Peer && !r.in[1-h.N] {
		h.Joined()
	}
	r.in[h.N], r.in[1-h.N] = a.Self, a.Peer
	r.made = true
	w.agreed(r, a.Why)
}

// agreed tells both hosts of a change.
func (w *world) agreed(r *register, why string) {
	r.rev++
	w.Say("the set is now A %v B %v (%s)", r.in[0], r.in[1], why)
	w.tell()
}

func (w *world) tell() {
	for _, h := range w.Hosts {
		life := h.Life()
		w.After(w.ms(1, 20), func() {
			if h.Life() == life && !w.mute[h.N] {
				h.Told(w.regs[h.N].set(h.N))
			}
		})
	}
}

// Became follows the role of a host.
func (w *world) Became(h *mirrortest.Host, role replica.Role) {
	r := w.regs[h.N]
	if role == replica.Active {
		if r.owner != h.N {
			w.Breaks("%s is active and does not own the group", h)
			return
		}
		h.Client.Attach()
		return
	}
	if r.owner == h.N {
		r.owner = -1
		w.place(r)
	}
}

// place starts the group where it may run.
func (w *world) place(r *register) {
	if r.owner >= 0 || w.broken != "" {
		return
	}
	for _, i := range w.Chance.Perm(2) {
		h := w.Hosts[i]
		if !h.On() || w.regs[i] != r || h.Active() || w.mute[i] || r.barred[i] || r.made && !r.in[i] || !r.made && i != 0 {
			continue
		}
		r.epoch++
		r.owner = i
		w.Say("the group goes to %s, epoch %d", h, r.epoch)
		w.assigned(h.Other())
		lacks := !r.force && h.Lacks() && !w.parted && !w.Async
		var err error
		if h.Do(func() { err = h.Core.Promote(r.epoch, r.set(i), r.force) }); err != nil {
			w.Say("%s refuses: %v", h, err)
			r.owner = -1
			continue
		}
		if r.force = false; lacks {
			w.Breaks("%s becomes active, and lacks what was promised", h)
		}
		return
	}
	w.After(200*time.Millisecond, func() { w.place(r) })
}

// assigned tells a host in which epoch the other one owns the group.
func (w *world) assigned(h *mirrortest.Host) {
	if r := w.regs[h.N]; r == w.regs[1-h.N] && !w.mute[h.N] {
		h.Do(func() { h.Core.Assigned(r.epoch) })
	}
}

// Failed stops the group by force: its device does not answer any more.
func (w *world) Failed(h *mirrortest.Host, _ string) {
	life := h.Life()
	w.After(w.ms(5, 50), func() {
		if w.regs[h.N].owner == h.N && h.Active() && h.Life() == life {
			w.stop(h, true)
		}
	})
}

// stop ends the active part of a copy.
func (w *world) stop(h *mirrortest.Host, force bool) {
	h.Client.Detach(force, func() { h.Do(h.Core.Demote) })
}

// move stops the group in order and starts it anywhere.
func (w *world) move() {
	r := w.regs[0]
	if r.owner < 0 {
		return
	}
	h := w.Hosts[r.owner]
	if !h.Active() || !h.Client.Attached() || h.Client.Stopping() || w.frozen[h.N] {
		return
	}
	life := h.Life()
	w.stop(h, false)
	w.After(3*time.Second, func() { // a stop that hangs is forced
		if h.Life() == life && r.owner == h.N && h.Active() && h.Client.Stopping() {
			h.Do(h.Core.Abort)
		}
	})
}

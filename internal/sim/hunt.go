package sim

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Terrain is what a hunt goes through.
type Terrain struct {
	Text   string        // the cluster file; PROFILE in it is the profile of timing
	Long   time.Duration // how long faults happen
	Drift  float64       // how far clocks may run apart, as a share of their rate
	Shared bool          // two owners are possible while the nodes do not see each other
	Fences bool          // there are fence devices
	Lies   bool          // they may confirm what is not so
	NoDog  bool          // nothing resets a node that stands still
	Stops  bool          // stops fail and hang, force too
	Wipes  bool          // the witness, which is the last node, loses its disk
	Disks  bool          // mirror disks are written to, and what happens to disks happens
	Talk   bool          // they tell what they do
	Apart  bool          // nodes lose all networks at once, or none; ping targets with them
}

// Fault is one thing that goes wrong at a time of the world, and comes right
// again after a while.
type Fault struct {
	At   time.Duration
	Kind Kind
	A, B cluster.NodeName
	Path int           // -1: all
	For  time.Duration // how long
	Much int           // how bad, 0 to 99
}

// Kind is a kind of fault.
type Kind string

// The kinds of faults.
const (
	Crash     Kind = "crash"          // the power goes, and comes back
	MidStep   Kind = "crash-mid-step" // the same in the middle of a step
	Reboot    Kind = "reboot"         // the same, faster than anybody misses it
	KillOnly  Kind = "kill"           // the daemon ends, its resources go on
	Freeze    Kind = "freeze"         // the daemon stands still
	Slow      Kind = "slow"           // everything on the node comes late
	CutOne    Kind = "cut-one-way"
	CutBoth   Kind = "cut"
	CutOff    Kind = "cut-off" // from everybody
	Flap      Kind = "flap"    // a cut that comes and goes
	Rain      Kind = "rain"    // loss, delay and doubling one way
	WallJump  Kind = "wall-jump"
	Hang      Kind = "hang"         // a script takes long
	Fail      Kind = "fail"         // a start or a stop fails once, perhaps force too
	Device    Kind = "fence-device" // it fails, or takes long
	Stuck     Kind = "stuck"        // stops hang, and force hangs or fails
	Cling     Kind = "cling"        // a group cannot be isolated
	Wiped     Kind = "wipe"         // the witness crashes, and comes back with nothing
	Lie       Kind = "fence-lies"   // a fence device confirms what is not so
	Move      Kind = "move"         // an operator moves a group
	Failover  Kind = "failover"     // a monitor has a group moved
	Ends      Kind = "ends"         // a resource ends by itself
	Leave     Kind = "leave"        // a daemon is stopped by plan, and started again
	Maintain  Kind = "maintenance"  // of a node, a group or the cluster
	DiskKill  Kind = "disk-kill"    // the process of a copy ends
	DiskBad   Kind = "disk-bad"     // some reads or writes of a copy, or its meta device, fail
	DiskNew   Kind = "disk-new"     // a copy that is not needed gets new disks
	DiskOrder Kind = "disk-order"   // an operator breaks, resumes, verifies, forces or invalidates a copy
	Release   Kind = "release"      // an operator ends holds and quarantines, and clears failures
)

var (
	peopleKind = []Kind{Move, Failover, Ends, Leave, Maintain, Release}
	anyKind    = append([]Kind{Crash, MidStep, Reboot, KillOnly, Freeze, Slow, CutOne, CutBoth, Flap, CutOff, Rain, WallJump, Hang, Fail, Crash, CutOff}, peopleKind...)
	stopKind   = append([]Kind{Stuck, Stuck, Fail, Move, Move, Move, Cling, Cling, CutOff, CutOff}, anyKind...)
	fenceKind  = append([]Kind{Device, Device, CutOff, CutOff}, anyKind...)
	lieKind    = append([]Kind{Lie, Lie, Lie, Freeze, Cling}, fenceKind...)
	// Without Leave: who left by plan has no vote, and where the only other vote is
	// then wiped, a person has to decide (scenarios/witness-wiped-one-left.txtar).
	wipeKind  = without(Leave, append([]Kind{Wiped, Wiped, Wiped, CutOff, CutOff}, anyKind...))
	diskKind  = []Kind{DiskKill, DiskKill, DiskKill, DiskBad, DiskNew, DiskOrder, DiskOrder, CutOff, CutBoth, Move, Crash}
	apartKind = append([]Kind{Crash, MidStep, Reboot, KillOnly, Freeze, CutOff, WallJump, Hang, CutOff, Reboot}, peopleKind...)
)

func without(k Kind, all []Kind) []Kind {
	return slices.DeleteFunc(all, func(x Kind) bool { return x == k })
}

// String returns one line.
func (f Fault) String() string {
	return fmt.Sprintf("%s %s %s %s path %d for %s (%d)", f.At.Round(time.Millisecond), f.Kind, f.A, f.B, f.Path, f.For.Round(time.Millisecond), f.Much)
}

// Faults makes the list of faults of a seed.
func (t *Terrain) Faults(names []cluster.NodeName, seed uint64) []Fault {
	rng := rand.New(rand.NewPCG(seed, 0xfa017))
	kinds := anyKind
	if t.Apart {
		kinds = apartKind
	}
	if t.Stops {
		kinds = stopKind
	}
	if t.Fences {
		kinds = fenceKind
	}
	if t.Lies {
		kinds = lieKind
	}
	if t.Wipes {
		kinds = wipeKind
	}
	if t.Disks {
		kinds = append(slices.Clone(diskKind), kinds...)
		if t.Apart {
			kinds = without(CutBoth, kinds)
		}
	}
	// Some stories are crowded, in others all comes to rest in between.
	gap := []time.Duration{8 * time.Second, 30 * time.Second, 90 * time.Second}[rng.IntN(3)]
	var out []Fault
	for at := 5 * time.Second; ; {
		at += time.Duration(rng.Int64N(int64(gap)))
		if at >= t.Long {
			return out
		}
		f := Fault{
			At: at, Kind: kinds[rng.IntN(len(kinds))], A: names[rng.IntN(len(names))], B: names[rng.IntN(len(names))],
			Path: rng.IntN(3) - 1, For: time.Duration(rng.ExpFloat64() * float64(2*time.Second)), Much: rng.IntN(100),
		}
		if f.Kind == Device || f.Kind == Lie { // nobody sees at once that one has failed
			f.For *= 15
		}
		out = append(out, f)
	}
}

// Hunt tells the story of a seed with those faults, then heals everything and
// expects every group to run again. It returns what was broken, or "". The same
// arguments always give the same story. What panics is broken too.
func Hunt(t Terrain, seed uint64, faults []Fault) (why string, w *World) {
	defer func() {
		if r := recover(); r != nil {
			why = fmt.Sprintf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	w, err := NewWorld(strings.ReplaceAll(t.Text, "PROFILE", profileOf(seed)), seed)
	if err != nil {
		return err.Error(), nil
	}
	if !t.NoDog {
		w.Watchdog = w.file.Timing.Lease
	}
	w.shared, w.talk = t.Shared, t.Talk
	if t.Disks {
		w.addDisks(seed, len(w.names) == 2)
	}
	for _, n := range w.names { // clocks at the ends of what is allowed
		w.nodes[n].pace = anyPace(w.rng, t.Drift)
		if err := w.Boot(n); err != nil {
			return err.Error(), w
		}
	}
	for _, f := range faults {
		w.after(f.At-w.agenda.Now(), func() { w.strike(f, t.Apart) })
	}
	w.Run(t.Long)
	if w.Broken != "" {
		return w.Broken, w
	}
	return w.settle(), w
}

// profileOf is the profile of timing in the story of a seed.
func profileOf(seed uint64) string {
	switch {
	case seed%24 == 7:
		return "fast" // the same story in four times as many steps
	case seed%3 == 1:
		return "default"
	}
	return "steady"
}

// Minimize returns a list with as few of the faults as it can find within tries
// stories that still break something.
func Minimize(t Terrain, seed uint64, faults []Fault, tries int) []Fault {
	if why, w := Hunt(t, seed, faults); why != "" && w != nil {
		faults = slices.DeleteFunc(slices.Clone(faults), func(f Fault) bool { return f.At > w.agenda.Now() })
	}
	for part := max(len(faults)/2, 1); tries > 0; {
		cut := false
		for from := 0; from < len(faults) && tries > 0; {
			less := slices.Delete(slices.Clone(faults), from, min(from+part, len(faults)))
			tries--
			if why, _ := Hunt(t, seed, less); why != "" {
				faults, cut = less, true
				continue
			}
			from += part
		}
		if part == 1 && !cut {
			break
		}
		part = max(part/2, 1)
	}
	return faults
}

// strike lets one fault happen, and later end.
func (w *World) strike(f Fault, apart bool) {
	n := w.nodes[f.A]
	end := func(do func()) { w.after(f.For+time.Millisecond, do) }
	switch f.Kind {
	case Crash:
		w.Crash(f.A)
		end(func() { w.revive(f.A) })
	case MidStep:
		if n.machine != nil {
			n.doom = 1 + f.Much/3
		}
		end(func() { w.revive(f.A) })
	case Reboot:
		w.Crash(f.A)
		w.revive(f.A)
	case KillOnly:
		if n.machine != nil {
			w.KillDaemon(f.A)
		}
		end(func() { w.revive(f.A) })
	case Freeze:
		if n.machine != nil && !n.paused {
			w.Pause(f.A)
		}
		end(func() { w.revive(f.A) })
	case Slow:
		n.slow = time.Duration(f.Much) * 8 * time.Millisecond
		end(func() { n.slow = 0 })
	case CutOff:
		w.cutOff(f.A, true)
		if apart {
			w.pings[f.A] = false
		}
		end(func() {
			w.cutOff(f.A, false)
			delete(w.pings, f.A)
		})
	case WallJump:
		n.wall += time.Duration(f.Much-50) * time.Hour
	default:
		w.strikeMore(f, end)
	}
}

func (w *World) strikeMore(f Fault, end func(func())) {
	group := &w.file.Groups[f.Much%len(w.file.Groups)]
	script := string(group.Resources[f.Much%len(group.Resources)].Name)
	switch f.Kind {
	case CutOne:
		w.Cut(f.A, f.B, f.Path)
		end(func() { w.Heal(f.A, f.B, f.Path) })
	case CutBoth:
		w.Cut(f.A, f.B, f.Path)
		w.Cut(f.B, f.A, f.Path)
		end(func() { w.Heal(f.A, f.B, f.Path); w.Heal(f.B, f.A, f.Path) })
	case Flap:
		w.flap(f.A, f.B, f.Path, time.Duration(50+5*f.Much)*time.Millisecond, w.agenda.Now()+f.For)
	case Rain:
		l := link{from: f.A, to: f.B}
		w.air[l] = weather{loss: float64(f.Much) / 150, twice: float64(f.Much) / 300, delay: time.Duration(f.Much) * 5 * time.Millisecond}
		end(func() { delete(w.air, l) })
	case Hang:
		w.behave[script+" start"] = behavior{takes: f.For}
		w.behave[script+" stop"] = behavior{takes: f.For / 2}
		end(func() { delete(w.behave, script+" start"); delete(w.behave, script+" stop") })
	case Fail:
		what := []string{" start", " start", " stop", " stop"}[f.Much%4]
		w.behave[script+what] = behavior{fails: 1}
		if f.Much > 90 { // force is asked for after a failed stop alone
			w.behave[script+" force"] = behavior{fails: 1}
		}
	case Cling:
		w.behave[script+" isolate"] = behavior{fails: -1}
		end(func() { delete(w.behave, script+" isolate") })
	case Stuck:
		w.behave[script+" stop"] = behavior{hangs: true}
		w.behave[script+" force"] = behavior{hangs: f.Much > 80, fails: f.Much / 40 % 2}
		end(func() { delete(w.behave, script+" stop"); delete(w.behave, script+" force") })
	case Wiped:
		last := w.names[len(w.names)-1]
		w.Crash(last)
		if err := w.Wipe(last); err != nil {
			w.Broken = err.Error()
		}
		end(func() { w.revive(last) })
	case Device:
		for _, n := range w.names {
			if n == f.A || f.Much%3 == 0 { // or all of them: the network that leads to them
				w.fences[n] = device{fails: f.Much%2 == 0, takes: time.Duration(f.Much) * 300 * time.Millisecond}
				end(func() { delete(w.fences, n) })
			}
		}
	case Lie:
		w.fences[f.A] = device{lies: true, takes: time.Duration(f.Much) * 30 * time.Millisecond}
		end(func() { delete(w.fences, f.A) })
	case DiskKill, DiskBad, DiskNew, DiskOrder:
		w.meddleDisk(f)
	default:
		w.meddle(f, group)
	}
}

// flap cuts two nodes from each other, heals that after a while, and so on.
func (w *World) flap(a, b cluster.NodeName, path int, every, until time.Duration) {
	cut := w.agenda.Now() < until && !w.cut[link{a, b, max(path, 0)}]
	w.setCut(a, b, path, cut)
	w.setCut(b, a, path, cut)
	if cut || w.agenda.Now() < until {
		w.after(every, func() { w.flap(a, b, path, every, until) })
	}
}

// cutOff ends all traffic of a node, or heals it.
func (w *World) cutOff(name cluster.NodeName, cut bool) {
	for _, other := range w.names {
		if other != name {
			w.setCut(name, other, -1, cut)
			w.setCut(other, name, -1, cut)
		}
	}
}

// revive brings a node back, whatever is wrong with it.
func (w *World) revive(name cluster.NodeName) {
	n := w.nodes[name]
	switch {
	case n.machine != nil && n.paused:
		w.Resume(name)
	case n.machine == nil && n.on:
		if err := w.StartDaemon(name); err != nil {
			w.Broken = err.Error()
		}
	case n.machine == nil:
		if err := w.Boot(name); err != nil {
			w.Broken = err.Error()
		}
	}
}

// Bounds of the time after the last fault: for the nodes to find each other,
// and for the groups to run once an operator has cleared what failed.
const (
	meetWithin = 40 * time.Second
	runWithin  = 20 * time.Second
)

// settle ends all faults and says what does not run again within the bounds.
func (w *World) settle() string {
	w.behave, w.air, w.pings = map[string]behavior{}, map[link]weather{}, map[cluster.NodeName]bool{}
	w.fences = map[cluster.NodeName]device{}
	for _, n := range w.names {
		w.nodes[n].slow, w.nodes[n].doom = 0, 0
		w.cutOff(n, false)
		if w.nodes[n].leaving { // and perhaps for ever, because a stop has failed
			w.Crash(n)
		}
		w.revive(n)
	}
	over := w.agenda.Now()
	w.over = true
	w.Run(meetWithin)
	w.shared, w.changed = false, true
	w.start()
	w.Run(runWithin)
	why, kept := w.unserved(over)
	if why == "" && kept && w.Broken == "" {
		w.lift()
		w.Run(time.Second)
		w.start()
		w.Run(runWithin)
		if why, kept = w.unserved(over); kept {
			why = "something is withheld that nobody withholds any more"
		}
	}
	if w.Broken == "" && why == "" {
		why = w.joinDisks()
	}
	for _, what := range []string{w.Broken, why, w.forgotten()} {
		if what != "" {
			return what
		}
	}
	return w.disagreement()
}

// disagreement says who does not see the leader that the first node sees, or "".
func (w *World) disagreement() string {
	lead := w.nodes[w.names[0]].machine.Status().Leader
	for _, n := range w.names {
		s := w.nodes[n].machine.Status()
		if s.Leader == "" || s.Leader != lead {
			return fmt.Sprintf("%s sees leader %q, %s sees %q", n, s.Leader, w.names[0], lead)
		}
	}
	return ""
}

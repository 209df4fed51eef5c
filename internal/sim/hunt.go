package sim

import (
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Hunt lets faults happen at random for so long, then heals everything and
// expects every group that is wanted to run again. It returns what was broken,
// or "". The same arguments always give the same story.
func Hunt(text string, seed uint64, long time.Duration) (string, *World) {
	w, err := NewWorld(text, seed)
	if err != nil {
		return err.Error(), nil
	}
	w.Watchdog = w.file.Timing.Lease / 2
	for _, n := range w.names {
		if err := w.Boot(n); err != nil {
			return err.Error(), w
		}
	}
	w.Run(5 * time.Second)
	for w.now < long && w.Broken == "" {
		w.fault()
		w.Run(time.Duration(w.rng.Int64N(int64(4 * time.Second))))
	}
	if w.Broken != "" {
		return w.Broken, w
	}
	return w.settle(), w
}

// fault lets one thing happen.
func (w *World) fault() {
	a := w.names[w.rng.IntN(len(w.names))]
	b := w.names[w.rng.IntN(len(w.names))]
	n := w.nodes[a]
	path := w.rng.IntN(3) - 1
	switch w.rng.IntN(13) {
	case 0:
		w.Crash(a)
	case 1, 2, 3:
		w.revive(a)
	case 4:
		if n.machine != nil {
			w.KillDaemon(a)
		}
	case 5:
		w.Cut(a, b, path)
	case 6:
		w.Cut(a, b, path)
		w.Cut(b, a, path)
	case 7, 8:
		w.Heal(a, b, -1)
		w.Heal(b, a, -1)
	case 12:
		w.cutOff(a, true)
		w.after(time.Duration(w.rng.Int64N(int64(4*time.Second))), func() { w.cutOff(a, false) })
	case 9:
		if n.machine != nil && !n.paused {
			w.Pause(a)
		}
	case 10:
		if n.machine != nil && n.paused {
			w.Resume(a)
		}
	case 11:
		g := w.file.Groups[w.rng.IntN(len(w.file.Groups))].Name
		if n.machine != nil && !n.paused {
			w.Ask(a, admission.Ask{Kind: admission.GroupMove, Group: g})
		}
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
	case n.machine == nil && len(n.active) > 0:
		if err := w.StartDaemon(name); err != nil {
			w.Broken = err.Error()
		}
	case n.machine == nil:
		if err := w.Boot(name); err != nil {
			w.Broken = err.Error()
		}
	}
}

// settle ends all faults and says what does not run again within the bound.
func (w *World) settle() string {
	for _, n := range w.names {
		w.cutOff(n, false)
		w.revive(n)
	}
	w.Run(30 * time.Second)
	if w.Broken != "" {
		return w.Broken
	}
	for i := range w.file.Groups {
		g := &w.file.Groups[i]
		if owners := w.Owners(g.Name); len(owners) != 1 {
			return fmt.Sprintf("%s after the last fault group %s is active on %v", 30*time.Second, g.Name, owners)
		}
	}
	lead := w.nodes[w.names[0]].machine.Status().Leader
	for _, n := range w.names {
		s := w.nodes[n].machine.Status()
		if s.Leader == "" || s.Leader != lead {
			return fmt.Sprintf("%s sees leader %q, %s sees %q", n, s.Leader, w.names[0], lead)
		}
	}
	return ""
}

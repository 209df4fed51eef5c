package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// meddle lets an operator, a monitor or a resource do something to a cluster in
// trouble. What they ask may be refused.
func (w *World) meddle(f Fault, group *config.Group) {
	n := w.nodes[f.A]
	switch f.Kind {
	case Move:
		w.askAny(f.A, admission.Ask{Kind: admission.GroupMove, Group: group.Name})
	case Failover: // as the recovery of a monitor does; too many of them and the group is held
		w.askAny(f.A, admission.Ask{Kind: admission.GroupFailover, Group: group.Name, Count: "check", Auto: true})
	case Maintain:
		a := admission.Ask{Kind: admission.MaintainOn, Author: "admin", Why: "work", For: time.Minute + 10*f.For}
		switch f.Much % 4 {
		case 0: // of the cluster
		case 1:
			a.Group = group.Name
		default:
			a.Node, a.Drain = f.B, f.Much%4 == 3
		}
		w.askAny(f.A, a)
		if f.Much < 50 { // else its time ends it, or nobody
			w.after(10*f.For, func() {
				if !w.over { // what is withheld then is judged as it is
					w.askAny(f.A, admission.Ask{Kind: admission.MaintainOff, Node: a.Node, Group: a.Group})
				}
			})
		}
	case Release:
		w.release(f.A)
	case Leave:
		if n.machine != nil && !n.paused {
			n.leaving = true
			w.step(n, engine.Event{Leave: true})
		}
		w.after(f.For+leaveTakes, func() { w.revive(f.A) })
	case Ends:
		r := group.Resources[f.Much%len(group.Resources)].Name
		epoch, active := n.active[key(group.Name, r)]
		if n.machine == nil || !active {
			return
		}
		if group.Resource(r).Kind != config.KindFloatingIP { // an address is there still, though something says it is not
			delete(n.active, key(group.Name, r))
		}
		w.step(n, engine.Event{Failed: &engine.Failed{Group: group.Name, Epoch: epoch, Resource: r, Why: "it ended"}})
	}
}

// leaveTakes is when a node that was asked to leave is called back at the earliest.
const leaveTakes = 2 * time.Second

// askAny asks at that node, or if its daemon does not run at the next one.
func (w *World) askAny(first cluster.NodeName, a admission.Ask) {
	at := max(slices.Index(w.names, first), 0)
	for i := range w.names {
		name := w.names[(at+i)%len(w.names)]
		if n := w.nodes[name]; n.machine != nil && !n.paused {
			w.Ask(name, a)
			return
		}
	}
}

// release ends what was withheld from groups and nodes by holds and quarantines,
// and forgets what has failed.
func (w *World) release(at cluster.NodeName) {
	for _, n := range w.names {
		w.askAny(at, admission.Ask{Kind: admission.NodeRelease, Node: n})
	}
	for i := range w.file.Groups {
		w.askAny(at, admission.Ask{Kind: admission.GroupRelease, Group: w.file.Groups[i].Name})
		w.askAny(at, admission.Ask{Kind: admission.GroupClear, Group: w.file.Groups[i].Name})
	}
}

// lift ends every maintenance, and then everything else that release ends.
func (w *World) lift() {
	w.askAny("", admission.Ask{Kind: admission.MaintainOff})
	for _, n := range w.names {
		w.askAny("", admission.Ask{Kind: admission.MaintainOff, Node: n})
	}
	for i := range w.file.Groups {
		w.askAny("", admission.Ask{Kind: admission.MaintainOff, Group: w.file.Groups[i].Name})
	}
	w.release("")
}

// start clears what has failed of every group, and starts it.
func (w *World) start() {
	for i := range w.file.Groups {
		w.askAny("", admission.Ask{Kind: admission.GroupClear, Group: w.file.Groups[i].Name})
		w.askAny("", admission.Ask{Kind: admission.GroupStart, Group: w.file.Groups[i].Name}) // refused where it runs
		w.after(time.Second, func() { w.startWhole(w.file.Groups[i].Name) })
	}
}

// withheld says why a group need not run although nothing is wrong any more, or
// "": somebody, or the rules of quarantine, keep it or all of its nodes back.
func (w *World) withheld(g *config.Group) string {
	st := w.nodes[w.names[0]].machine.State()
	if why := st.Suspended(g.Name); why != "" {
		return why
	}
	for _, n := range g.Nodes {
		q := st.Nodes[n].Quarantine
		if _, on := st.Maintenance[state.MaintenanceKey(n, "")]; !on && (q == nil || !q.Open()) && st.OutOfDate(g, n) == "" && !w.badCopy(g.Name, n) {
			return ""
		}
	}
	return fmt.Sprintf("all of %v are in maintenance or quarantine, or have a copy that is out of date or has failed", g.Nodes)
}

// unserved says which group is not active on one node although it should, kept
// time after the last fault, or "". A group that is withheld may be active on
// none; then kept is true.
func (w *World) unserved(over time.Duration) (why string, kept bool) {
	for i := range w.file.Groups {
		g := &w.file.Groups[i]
		owners := w.Owners(g.Name)
		if held := w.withheld(g); held != "" && len(owners) == 0 {
			kept = true
			continue
		}
		if len(owners) != 1 {
			return fmt.Sprintf("%s after the last fault group %s is active on %v", w.agenda.Now()-over, g.Name, owners), kept
		}
	}
	return "", kept
}

// remembered is how many of the latest answers must be known: less than the
// state keeps, because nodes ask too.
const remembered = 100

// forgotten says which ask was granted and is not known any more, or "". Of two
// nodes alone one may go on without the other, and without what it granted.
func (w *World) forgotten() string {
	if len(w.names) == 2 {
		return ""
	}
	st := w.nodes[w.names[0]].machine.State()
	for _, id := range w.granted[max(0, len(w.granted)-remembered):] {
		if _, known := st.Answered(id); !known {
			return fmt.Sprintf("%s was granted, and is forgotten", id)
		}
	}
	return ""
}

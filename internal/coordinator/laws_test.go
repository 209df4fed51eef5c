package coordinator

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/placement"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// machine is a node as it really is.
type machine struct {
	heard   bool // by the leader
	expired bool // silent so long that it surely runs nothing
	boots   int
	runs    map[cluster.GroupName]bool
}

// world is a cluster whose nodes follow the agreed state, die, fall silent and
// come back, and whose reports are late, twice or in another order.
type world struct {
	s     *state.State
	nodes map[cluster.NodeName]*machine
	names []cluster.NodeName
	mail  []state.Report
	plans int
	over  bool // the nodes have waited for each other
	wall  time.Time
}

func newWorld(t testing.TB) *world {
	w := &world{s: empty(t), nodes: map[cluster.NodeName]*machine{}, names: []cluster.NodeName{"a", "b", "c"}, over: true, wall: noon}
	for _, n := range w.names {
		w.nodes[n] = &machine{heard: true, boots: 1, runs: map[cluster.GroupName]bool{}}
	}
	w.s.File().Quarantine.Failures, w.s.File().Group("web").Hold.Failovers = 2, 2 // both come to pass more often
	return w
}

func (w *world) boot(n cluster.NodeName) string { return fmt.Sprint(n, w.nodes[n].boots) }

func (w *world) view() View {
	v := View{Wall: w.wall, WaitOver: w.over, Nodes: map[cluster.NodeName]Seen{}}
	for n, m := range w.nodes {
		v.Nodes[n] = Seen{Alive: m.heard, Boot: w.boot(n), Daemon: "d", Expired: m.expired}
	}
	return v
}

// decide carries out what is due, and checks it.
func (w *world) decide(rt *rapid.T) (quiet bool) {
	cmds := Decide(w.s, w.view())
	begun := map[cluster.GroupName]bool{}
	nodes := slices.ContainsFunc(cmds, func(c state.Command) bool { return c.Node != nil })
	for _, c := range cmds {
		if c.Begin == nil {
			w.s.Apply(state.Entry{Commands: []state.Command{c}})
			continue
		}
		b := c.Begin
		if begun[b.Group] && !nodes {
			rt.Fatalf("two plans for group %s in one decision: %s", b.Group, text(cmds))
		}
		begun[b.Group] = true
		g, gs, to := w.s.File().Group(b.Group), w.s.Groups[b.Group], b.Plan.To
		if b.Plan.Why == "" || to != "" && !slices.Contains(g.Nodes, to) {
			rt.Fatalf("%s: %+v", text(cmds), b.Plan)
		}
		if n := w.s.Nodes[gs.Owner]; w.s.Suspended(b.Group) != "" && !nodes && (n == nil || !n.Leaving) && (gs.Owner != "" || to != gs.Previous) {
			rt.Fatalf("something is done for group %s, %s: %+v", b.Group, w.s.Suspended(b.Group), b.Plan)
		}
		if to != "" && maintained(w.s, to) && b.Plan.From != to && !nodes {
			rt.Fatalf("group %s is sent to %s, which is in maintenance", b.Group, to)
		}
		if gs.Held != nil && b.Plan.Action == state.ActionFailover {
			rt.Fatalf("group %s is failed over though it is held: %+v", b.Group, b.Plan)
		}
		// Maintenance leaves a group only the node that it ran on.
		if n := w.s.Nodes[to]; n != nil && n.Quarantine != nil && to != b.Plan.From && w.s.Suspended(b.Group) == "" {
			for _, other := range g.Nodes {
				if other != b.Plan.From && placement.Refuse(w.s, g, other) == "" {
					rt.Fatalf("group %s is sent to %s, which is quarantined, and not to %s: %+v", b.Group, to, other, b.Plan)
				}
			}
		}
		if _, excluded := gs.Excluded[to]; excluded && b.Plan.From != to {
			rt.Fatalf("group %s is sent to %s, where its activation failed", b.Group, to)
		}
		if fits := gs.Plan == nil && gs.Epoch == b.Epoch; fits && to != "" && !w.s.Up(to) {
			rt.Fatalf("group %s is sent to %s, which is %+v", b.Group, to, w.s.Nodes[to])
		} else if !fits && !nodes {
			rt.Fatalf("a plan for group %s that does not fit: %s", b.Group, text(cmds))
		}
		w.s.Apply(state.Entry{Commands: []state.Command{c}})
		w.plans++
	}
	return len(cmds) == 0
}

// settle decides on one view until nothing is due.
func (w *world) settle(rt *rapid.T) {
	for range 10 {
		if w.decide(rt) {
			return
		}
	}
	rt.Fatalf("the same view leads to ever new decisions: %s", text(Decide(w.s, w.view())))
}

// work lets a node do what the agreed state asks of it for one group.
func (w *world) work(n cluster.NodeName, g cluster.GroupName, fails bool) {
	m, gs, node := w.nodes[n], w.s.Groups[g], w.s.Nodes[n]
	if !m.heard || node.Boot != w.boot(n) {
		return
	}
	if gs.Owner != n {
		return
	}
	res := w.s.File().Group(g).Resources[0].Name
	r := state.Report{Group: g, Epoch: gs.Epoch, Node: n, Why: "so it is", Resource: res}
	st := cluster.ResourceOnline
	switch {
	case gs.Phase == cluster.PhaseStarting:
		m.runs[g] = true
		if r.Step = state.StepStarted; fails {
			r.Step, st = state.StepStartFailed, cluster.ResourceStartFailed
		}
	case gs.Phase == cluster.PhaseStopping && fails:
		r.Step, st = state.StepStopFailed, cluster.ResourceStopFailed
	case gs.Phase == cluster.PhaseStopping:
		m.runs[g] = false
		r.Step, st = state.StepStopped, cluster.ResourceOffline
	case !m.runs[g]:
		r.Step, st = state.StepReleased, cluster.ResourceOffline
	case gs.Phase == cluster.PhaseOnline && fails:
		r.Step, st = state.StepFailed, cluster.ResourceFailed
	default:
		return
	}
	r.Resources = map[cluster.ResourceName]state.Resource{res: {State: st, Why: "so it is"}}
	w.mail = append(w.mail, r)
}

func (w *world) deliver(i int, again bool) {
	r := w.mail[i]
	if !again {
		w.mail = slices.Delete(w.mail, i, i+1)
	}
	apply(w.s, state.Command{Report: &r})
}

// happen lets one thing happen to a node.
func (w *world) happen(rt *rapid.T, n cluster.NodeName) {
	m := w.nodes[n]
	switch rapid.SampledFrom([]string{"silent", "expired", "heard", "crash", "boot", "wait", "clock"}).Draw(rt, "happens") {
	case "silent":
		m.heard = false
	case "expired":
		if !m.heard { // its lease has ended first, so it is harmless
			m.expired = true
			clear(m.runs)
		}
	case "heard":
		m.heard, m.expired = true, false
	case "crash":
		m.heard = false
		m.boots++
		clear(m.runs)
	case "boot":
		m.heard, m.expired = true, false
		m.boots++
		clear(m.runs)
	case "clock": // of the leader; another leader's may be behind
		w.wall = w.wall.Add(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 30 * time.Hour, -2 * time.Hour}).Draw(rt, "time"))
	case "wait":
		w.over = rapid.SampledFrom([]bool{true, true, false}).Draw(rt, "over")
	}
}

// ask lets an operator or a monitor ask for something.
func (w *world) ask(rt *rapid.T, g cluster.GroupName, n cluster.NodeName) {
	kinds := []admission.Kind{admission.GroupStart, admission.GroupStop, admission.GroupMove, admission.GroupFailover,
		admission.GroupRestart, admission.GroupClear, admission.GroupRelease, admission.NodeRelease, admission.MaintainOn, admission.MaintainOff, admission.NodeLeave, admission.NodeReturn}
	a := admission.Ask{Kind: rapid.SampledFrom(kinds).Draw(rt, "kind"), Group: g, Node: n, Wall: w.wall, Auto: rapid.Bool().Draw(rt, "auto")}
	switch a.Why = "work"; { // a maintenance is of one thing
	case a.Kind != admission.MaintainOn && a.Kind != admission.MaintainOff:
		a.Why = ""
	case rapid.Bool().Draw(rt, "of the node"):
		a.Group, a.Drain = "", rapid.Bool().Draw(rt, "drain")
	case rapid.Bool().Draw(rt, "of the group"):
		a.Node = ""
	default:
		a.Node, a.Group = "", ""
	}
	if rapid.Bool().Draw(rt, "to") {
		a.To = n
	}
	if e, no := admission.Admit(w.s, a); no == nil {
		e.Answer = nil
		w.s.Apply(e)
	}
}

// check is promise 1: a group is active on one node at most.
func (w *world) check(rt *rapid.T) {
	for g := range w.s.Groups {
		var on []cluster.NodeName
		for _, n := range w.names {
			if w.nodes[n].runs[g] {
				on = append(on, n)
			}
		}
		if len(on) > 1 {
			rt.Fatalf("group %s is active on %v; agreed is %+v", g, on, w.s.Groups[g])
		}
	}
}

// heal brings everything back and lets it come to rest.
func (w *world) heal(rt *rapid.T) {
	w.over = true
	w.wall = w.wall.Add(1000 * time.Hour) // every maintenance and quarantine ends
	for _, m := range w.nodes {
		m.heard, m.expired = true, false
	}
	for range 30 {
		w.settle(rt)
		for _, n := range w.names {
			for _, g := range w.s.GroupNames() {
				w.work(n, g, false)
			}
		}
		if len(w.mail) == 0 {
			return
		}
		for len(w.mail) > 0 {
			w.deliver(0, false)
			w.check(rt)
		}
	}
	rt.Fatal("it does not come to rest")
}

// TestLaws lets anything happen in any order. A group is never active on two
// nodes; one decision has one plan for a group, which fits and goes to a node
// that is up, in its list and not excluded; the same view leads to no new
// decision; and once all is well, everything comes to rest with each group that
// is wanted active where the state says.
func TestLaws(t *testing.T) {
	plans, rests := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(10, 60).Draw(rt, "steps") {
			n := rapid.SampledFrom(w.names).Draw(rt, "node")
			g := rapid.SampledFrom(w.s.GroupNames()).Draw(rt, "group")
			switch rapid.SampledFrom([]string{"decide", "decide", "decide", "settle", "work", "work", "work", "work", "report", "report", "report", "happen", "ask"}).Draw(rt, "step") {
			case "decide":
				w.decide(rt)
			case "settle":
				w.settle(rt)
			case "work":
				owner := w.s.Groups[g].Owner
				if owner != "" {
					w.work(owner, g, rapid.SampledFrom([]bool{false, false, false, true}).Draw(rt, "fails"))
				}
			case "report":
				if len(w.mail) > 0 {
					w.deliver(rapid.IntRange(0, len(w.mail)-1).Draw(rt, "which"), rapid.SampledFrom([]bool{false, false, true}).Draw(rt, "again"))
				}
			case "happen":
				w.happen(rt, n)
			case "ask":
				w.ask(rt, g, n)
			}
			w.check(rt)
		}
		w.heal(rt)
		for g, gs := range w.s.Groups {
			if gs.Phase == cluster.PhaseOnline && !w.nodes[gs.Owner].runs[g] {
				rt.Fatalf("group %s is said to be online on %s", g, gs.Owner)
			}
			if gs.Phase == cluster.PhaseOffline && gs.Wanted && slices.ContainsFunc(w.s.File().Group(g).Nodes, func(n cluster.NodeName) bool { return w.s.Up(n) && gs.Excluded[n] == "" }) {
				rt.Fatalf("group %s is wanted and does not run: %+v", g, gs)
			}
			if gs.Phase == cluster.PhaseOnline {
				rests++
			}
		}
		plans += w.plans
	})
	if !testing.Short() && (plans < 200 || rests < 50) { // a short run has a fifth of the checks
		t.Errorf("%d plans, %d groups online in the end: the property says little", plans, rests)
	}
}

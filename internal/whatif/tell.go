package whatif

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/placement"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// String tells how a step goes.
func (f Suppose) String() string {
	switch {
	case f.Hangs:
		return "hangs"
	case f.Fails < 0:
		return "fails"
	case f.Fails > 0:
		return fmt.Sprintf("fails %d times", f.Fails)
	}
	return fmt.Sprintf("takes %s", f.Takes)
}

func compareSteps(a, b Step) int {
	return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.What, b.What))
}

// tell fills in what has become of everything.
func (s *stage) tell(r *api.Simulation, before *state.State, ran map[cluster.GroupName]cluster.NodeName, began time.Duration) {
	for _, l := range s.log {
		r.Steps = append(r.Steps, s.stepOf(l, began))
	}
	var now *state.State
	if on := s.alive(); len(on) > 0 {
		now = on[0].machine.State()
	}
	r.After = s.faults()
	if s.looked != s.file { // a group of it that nobody begins with has not been looked at
		s.look()
	}
	for i := range s.file.Groups {
		g := &s.file.Groups[i]
		is := api.SimGroup{Name: g.Name, Before: ran[g.Name], Phase: cluster.PhaseOffline, Wanted: wanted(before, g.Name)}
		if now != nil {
			s.groupAfter(&is, g, now, r.After.Why)
		}
		if v := s.served[g.Name]; is.Wanted || is.Before != "" {
			is.Outage = v.sum
			if !v.on {
				is.Outage += s.agenda.Now() - v.off
			}
		}
		r.Groups = append(r.Groups, is)
	}
	for _, name := range s.names {
		n := s.nodes[name]
		is := api.SimNode{Name: name, State: cluster.NodeUnknown, On: n.machine != nil, End: n.end}
		if now != nil && now.Nodes[name] != nil {
			is.State, is.Why = now.Nodes[name].State, now.Nodes[name].Why
		}
		r.Nodes = append(r.Nodes, is)
	}
}

// faults is how many more faults can be survived, as the leader has it.
func (s *stage) faults() api.SimFaults {
	on := s.alive()
	if len(on) == 0 {
		return api.SimFaults{Why: "no node is on"}
	}
	st := on[0].machine.Status()
	return api.SimFaults{Survives: st.Survives, Why: st.Why}
}

func wanted(st *state.State, g cluster.GroupName) bool {
	gs := st.Groups[g]
	return gs != nil && gs.Wanted
}

// groupAfter tells where a group is at the end, and who else could take it.
func (s *stage) groupAfter(is *api.SimGroup, g *config.Group, now *state.State, why string) {
	gs := now.Groups[g.Name]
	if gs == nil {
		return
	}
	is.Phase, is.After, is.Wanted, is.Why = gs.Phase, gs.Owner, gs.Wanted, gs.Why
	owners := s.owners(g)
	is.Served = len(owners) > 0
	if len(owners) > 1 {
		is.Both = owners
	}
	for _, n := range g.Nodes {
		if n == gs.Owner {
			continue
		}
		switch no, at := placement.Refuse(now, g, n), s.nodes[n]; {
		case no != "":
			is.Others = append(is.Others, no)
		case at != nil && at.machine != nil:
			is.Spare = append(is.Spare, n)
		}
	}
	if is.Served || !is.Wanted {
		return
	}
	switch leads := s.leads(); {
	case !leads:
		is.Why = why
	case now.Suspended(g.Name) != "":
		is.Why = now.Suspended(g.Name)
	case gs.Phase != cluster.PhaseFailed && len(is.Others) > 0:
		is.Why = strings.Join(is.Others, ", ")
	}
}

// leads says whether anybody leads.
func (s *stage) leads() bool {
	return slices.ContainsFunc(s.alive(), func(n *actor) bool { return n.machine.Leader() == n.name })
}

// StepOf returns a line of the log as a step; after is when it was written.
func StepOf(e api.Event, after time.Duration) api.SimStep {
	x := api.SimStep{After: after, Node: e.Node, Level: e.Level, Code: e.Code, Text: e.Text, Why: e.Fields["why"],
		Group: cluster.GroupName(e.Fields["group"]), Resource: cluster.ResourceName(e.Fields["resource"])}
	if ms, err := strconv.Atoi(e.Fields["took_ms"]); err == nil && x.Resource != "" {
		x.Took = time.Duration(ms) * time.Millisecond
	}
	return x
}

func (s *stage) stepOf(l line, began time.Duration) api.SimStep {
	x := StepOf(l.Event, l.at-began)
	what := map[string]string{"resource-started": Start, "resource-stopped": Stop, "resource-forced": Force}[l.Code]
	g := s.file.Group(x.Group)
	if what == "" || g == nil || g.Resource(x.Resource) == nil {
		return x
	}
	if x.Known = s.known[Step{x.Resource, what}]; !x.Known {
		x.Took = 0
		x.Text = strings.Replace(x.Text, fmt.Sprintf(" (%d ms)", quick.Milliseconds()), "", 1)
	}
	switch r := g.Resource(x.Resource); what {
	case Start:
		x.Limit = r.StartTimeout
	case Stop:
		x.Limit = r.StopTimeout
	}
	return x
}

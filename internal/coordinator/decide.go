// Package coordinator is what the leader decides: from the replicated state and
// from what it sees of the nodes to commands, each with its why. It looks at
// everything each time and remembers nothing, so a new leader goes on where the
// old one ended.
package coordinator

import (
	"fmt"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/placement"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// View is what the leader sees beside the replicated state.
type View struct {
	Wall     time.Time // for texts, and for what ends by the time of day
	WaitOver bool      // the nodes have waited for each other long enough
	Nodes    map[cluster.NodeName]Seen
}

// Seen is what is seen of one node.
type Seen struct {
	Alive   bool          // heartbeats arrive, from this life of consensus, and the node has its state
	Boot    string        // of the latest heartbeat
	Daemon  string        //
	Expired bool          // silent, and no promise of ours stands in the way of declaring it down
	Silent  time.Duration // since the latest heartbeat, or since it no longer hears us
	Deaf    bool          // it is heard, but does not hear us
	Resets  int           // how many times in a row its own watchdog had reset it before this boot
}

// Decide returns the commands that are due, in order; none if all is well.
// Commands of one call may be proposed as one entry.
func Decide(s *state.State, v View) []state.Command {
	var cmds []state.Command
	f := s.File()
	for i := range f.Nodes {
		cmds = append(cmds, decideNode(s, v, &f.Nodes[i])...)
	}
	if len(cmds) > 0 {
		return cmds // groups are decided on the state that follows
	}
	if cmds = decideMaintenance(s, v); len(cmds) > 0 {
		return cmds
	}
	for i := range f.Groups {
		if c := decideGroup(s, v, &f.Groups[i]); c != nil {
			cmds = append(cmds, *c)
		}
	}
	return stamp(cmds, v)
}

// stamp puts the time into plans that use up a counter.
func stamp(cmds []state.Command, v View) []state.Command {
	for _, c := range cmds {
		if c.Begin != nil && c.Begin.Count != "" {
			c.Begin.Time = v.Wall
		}
	}
	return cmds
}

func decideNode(s *state.State, v View, n *config.Node) []state.Command {
	node, seen := s.Nodes[n.Name], v.Nodes[n.Name]
	if node == nil {
		return nil
	}
	if c := endQuarantine(s, v, n.Name, node); c != nil {
		return c
	}
	set := state.SetNode{Name: n.Name, State: cluster.NodeUp, Boot: seen.Boot, Daemon: seen.Daemon, Time: v.Wall}
	switch {
	case seen.Alive && node.State == cluster.NodeLeft && node.Daemon == seen.Daemon:
		return nil // it left by plan and stays away until it is called back or starts anew
	case seen.Alive && node.State == cluster.NodeUp && node.Boot != seen.Boot && !v.WaitOver:
		return nil // nothing starts before the wait is over, and by then it is known who lived on
	case seen.Alive && (node.State != cluster.NodeUp || node.Boot != seen.Boot || node.Daemon != seen.Daemon):
		set.Why = arrival(node, seen)
		cmds := []state.Command{{Node: &set}}
		q := quarantine(s, v, n, node)
		if q != nil {
			cmds = append(cmds, *q)
		}
		switch {
		case node.State != cluster.NodeUp && q != nil:
		case node.State != cluster.NodeUp:
			cmds = append(cmds, failback(s, v, n.Name)...)
		case node.Boot != seen.Boot:
			cmds = append(cmds, elsewhere(s, v, n.Name)...)
		}
		return cmds
	case !seen.Alive && node.State == cluster.NodeUp && seen.Expired && v.WaitOver:
		set.State, set.Boot, set.Daemon = cluster.NodeDown, "", ""
		set.Why = fmt.Sprintf("silent for %s on every network", seen.Silent.Round(time.Millisecond))
		if seen.Deaf {
			set.Why = fmt.Sprintf("deaf for %s on every network: it is heard, but hears nothing of the others", seen.Silent.Round(time.Millisecond))
		}
		return []state.Command{{Node: &set}}
	}
	return nil
}

func arrival(node *state.Node, seen Seen) string {
	switch {
	case node.State == cluster.NodeUnknown && node.Why != "":
		return node.Why // called back
	case node.State == cluster.NodeUnknown:
		return "seen for the first time"
	case node.Boot != seen.Boot:
		return "its machine has booted anew"
	case node.Daemon != seen.Daemon:
		return "its daemon has started anew"
	}
	return "heard again"
}

// failback returns the moves of groups whose first choice has just come up.
func failback(s *state.State, v View, came cluster.NodeName) []state.Command {
	var cmds []state.Command
	f := s.File()
	for i := range f.Groups {
		if c := goHome(s, v, &f.Groups[i], came, "is up again"); c != nil {
			cmds = append(cmds, *c)
		}
	}
	return cmds
}

// goHome returns the move of the group to the first node of its list, or nil
// where that is another node or the group has to stay.
func goHome(s *state.State, v View, g *config.Group, came cluster.NodeName, why string) *state.Command {
	gs := s.Groups[g.Name]
	if g.Failback != config.Auto || gs == nil || gs.Plan != nil || gs.Phase != cluster.PhaseOnline || gs.Owner == came || gs.Held != nil || s.Suspended(g.Name) != "" {
		return nil
	}
	if _, excluded := gs.Excluded[came]; excluded || g.Nodes[0] != came || maintained(s, came) || !livedOn(s, v, gs.Owner) || s.OutOfDate(g, came) != "" {
		return nil // a copy that is out of date: the state remembers who is waited for
	}
	c := begin(g.Name, gs, state.Plan{
		Action: state.ActionMove, From: gs.Owner, To: came, Factor: cluster.FactorGroupMove, Wanted: true,
		Why: fmt.Sprintf("%s is first in the list of group %s and %s (failback: auto)", came, g.Name, why),
	}, "")
	return &c
}

// livedOn says whether a node is heard and has not booted anew since the state
// last heard of it.
func livedOn(s *state.State, v View, n cluster.NodeName) bool {
	return v.Nodes[n].Alive && s.Nodes[n] != nil && v.Nodes[n].Boot == s.Nodes[n].Boot
}

// elsewhere returns takeovers of what ran on a node that booted anew before it
// was missed, by nodes that lived on: a node that has just failed is not the
// first choice. Where nobody lived on, the order of the list decides.
func elsewhere(s *state.State, v View, booted cluster.NodeName) []state.Command {
	var cmds []state.Command
	f := s.File()
	for _, name := range s.OwnedBy(booted) {
		g, gs := f.Group(name), s.Groups[name]
		if g == nil || g.Failover != config.Auto || !gs.Wanted || s.Suspended(name) != "" {
			continue
		}
		i := slices.IndexFunc(g.Nodes, func(n cluster.NodeName) bool {
			return livedOn(s, v, n) && placement.Refuse(s, g, n) == ""
		})
		if i < 0 {
			continue
		}
		cmds = append(cmds, state.Command{Begin: &state.Begin{
			Group: name, Epoch: gs.Epoch + 1, // the group is released first
			Plan: state.Plan{Action: state.ActionTakeover, To: g.Nodes[i], Factor: cluster.FactorGroupFailover, Wanted: true,
				Why: fmt.Sprintf("%s has booted anew; %s lived on", booted, g.Nodes[i])},
		}})
	}
	return cmds
}

func begin(name cluster.GroupName, gs *state.Group, p state.Plan, count string) state.Command {
	if p.Cause == "" {
		p.Cause = gs.Cause
	}
	return state.Command{Begin: &state.Begin{Group: name, Epoch: gs.Epoch, Plan: p, Count: count}}
}

func decideGroup(s *state.State, v View, g *config.Group) *state.Command {
	gs := s.Groups[g.Name]
	if gs == nil {
		return nil
	}
	if c := decideFlapping(v, g, gs); c != nil {
		return c
	}
	if gs.Plan != nil {
		return nil
	}
	if gs.Owner != "" {
		failed, _ := failedResource(g, gs)
		if n := s.Nodes[gs.Owner]; n != nil && n.Leaving && (gs.Phase == cluster.PhaseOnline || gs.Phase == cluster.PhaseFailed && failed != nil) {
			return evacuate(s, g, gs)
		}
	}
	if s.Suspended(g.Name) != "" {
		return goOn(s, v, g, gs)
	}
	if d := v.Wall.Sub(gs.Recheck); gs.Phase == cluster.PhaseFailed && d >= 0 && d < recheckWithin {
		return nil
	}
	if c := drain(s, g, gs); c != nil {
		return c
	}
	switch gs.Phase {
	case cluster.PhaseOffline:
		if gs.Wanted && v.WaitOver {
			return startSomewhere(s, g, gs)
		}
	case cluster.PhaseOnline:
		if gs.Home != "" && placement.Refuse(s, g, gs.Home) == "" && livedOn(s, v, gs.Home) {
			return goHome(s, v, g, gs.Home, "its copies are complete again")
		}
	case cluster.PhaseFailed:
		return recoverFailed(s, g, gs)
	}
	return nil
}

func evacuate(s *state.State, g *config.Group, gs *state.Group) *state.Command {
	p := state.Plan{Action: state.ActionMove, From: gs.Owner, Factor: cluster.FactorServerShutdown, Wanted: gs.Wanted}
	choice := placement.Choose(s, g, gs.Owner)
	to, though := target(choice)
	if p.To = to; p.To != "" {
		p.Why = fmt.Sprintf("%s is leaving; %s is next%s", gs.Owner, p.To, though)
	} else {
		p.Action = state.ActionStop
		p.Why = fmt.Sprintf("%s is leaving and no other node can take the group: %s", gs.Owner, choice.Why())
	}
	c := begin(g.Name, gs, p, "")
	return &c
}

func startSomewhere(s *state.State, g *config.Group, gs *state.Group) *state.Command {
	to, though := target(placement.Choose(s, g, ""))
	if to == "" {
		return nil
	}
	p := state.Plan{Action: state.ActionStart, To: to, Factor: cluster.FactorClusterStart, Wanted: true,
		Why: fmt.Sprintf("%s is the first node of its list that is up%s", to, though)}
	if prev := s.Nodes[gs.Previous]; prev != nil && gs.Previous != to && prev.State != cluster.NodeUp {
		p.Action, p.Factor = state.ActionTakeover, cluster.FactorGroupFailover
		p.Why = fmt.Sprintf("%s; %s", gs.Why, p.Why)
	}
	c := begin(g.Name, gs, p, "")
	return &c
}

// RestartCounter is the failover counter under which restarts of a resource
// that failed by itself are counted.
func RestartCounter(r cluster.ResourceName) string { return string(r) + "/restart" }

// recoverFailed decides what follows a failed activation or a resource that
// failed by itself: again in place, on another node, or its final action. A
// failed stop is not answered here: its group may still be active there.
func recoverFailed(s *state.State, g *config.Group, gs *state.Group) *state.Command {
	res, rs := failedResource(g, gs)
	if res == nil || !s.Up(gs.Owner) {
		return nil
	}
	p := state.Plan{From: gs.Owner, Wanted: true, Why: fmt.Sprintf("resource %s failed on %s: %s", res.Name, gs.Owner, rs.Why)}
	stale := placement.OutOfDate(s, g, gs.Owner) // its own disk has failed: it can go on, but not begin anew
	if again := RestartCounter(res.Name); rs.State == cluster.ResourceFailed && stale == "" && gs.Failovers[again] < max(res.Activation.Retries, 0) {
		p.Action, p.To, p.Factor, p.Resource = state.ActionRestart, gs.Owner, cluster.FactorResourceRestart, res.Name
		p.Why += fmt.Sprintf("; restart %d of %d", gs.Failovers[again]+1, res.Activation.Retries)
		c := begin(g.Name, gs, p, again)
		return &c
	}
	if gs.Held != nil {
		return nil // neither a failover nor what would follow the last one
	}
	limit := res.Activation.Failovers
	if limit == config.AsManyAsNodes {
		limit = len(g.Nodes)
	}
	used := gs.Failovers[string(res.Name)]
	to, though := target(placement.Choose(s, g, gs.Owner))
	// Where its own disk has failed nothing comes of staying, and the way back is
	// barred until the copy is complete again: the limit is not about that.
	if g.Failover == config.Auto && to != "" && (used < limit || stale != "" && limit > 0) {
		p.Action, p.To, p.Factor = state.ActionFailover, to, cluster.FactorGroupFailover
		if p.Why += fmt.Sprintf("; failover %d of %d to %s%s", used+1, limit, to, though); used >= limit {
			p.Why += ": over the limit, because " + stale
		}
		c := begin(g.Name, gs, p, string(res.Name))
		return &c
	}
	switch action := res.Activation.FinalAction; action {
	case cluster.ActionNone, cluster.ActionContinue, "":
		return nil // it stays failed, in sight, until an operator acts
	case cluster.ActionStopGroup:
		p.Action, p.Factor, p.Wanted = state.ActionStop, cluster.FactorGroupStop, false
		p.Why += "; final action: stop the group"
	default:
		p.Action, p.Factor, p.Wanted, p.After = state.ActionStop, cluster.FactorServerShutdown, false, string(action)
		p.Why += fmt.Sprintf("; final action: %s", action)
	}
	c := begin(g.Name, gs, p, "")
	return &c
}

func failedResource(g *config.Group, gs *state.Group) (*config.Resource, state.Resource) {
	var found *config.Resource
	for i := range g.Resources {
		switch gs.Resources[g.Resources[i].Name].State {
		case cluster.ResourceStopFailed:
			return nil, state.Resource{}
		case cluster.ResourceStartFailed, cluster.ResourceFailed:
			if found == nil {
				found = &g.Resources[i]
			}
		}
	}
	if found == nil {
		return nil, state.Resource{}
	}
	return found, gs.Resources[found.Name]
}

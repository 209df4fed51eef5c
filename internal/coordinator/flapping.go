package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/placement"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// decideFlapping holds a group that fails over too often, and lets its failures
// age out while it runs well.
func decideFlapping(v View, g *config.Group, gs *state.Group) *state.Command {
	switch most := g.Hold.Failovers; {
	case gs.Held == nil && most > 0 && latest(gs.Moves, v.Wall.Add(-g.Hold.Within)) >= most:
		return &state.Command{Hold: &state.Hold{Group: g.Name, Held: &state.Held{
			Why: fmt.Sprintf("%d failovers in %s", most, cluster.Span(g.Hold.Within)), Since: v.Wall}}}
	case gs.Held != nil && most == 0:
		return &state.Command{Hold: &state.Hold{Group: g.Name, Why: "the cluster file holds it no more"}}
	}
	if gs.Phase != cluster.PhaseOnline || gs.Plan != nil || g.Forget == 0 {
		return nil
	}
	before := v.Wall.Add(-g.Forget)
	counted := func(name string) bool { return gs.CountedBy(name, before) }
	failed := func(n cluster.NodeName) bool { return gs.FailedBy(n, before) }
	if slices.ContainsFunc(slices.Sorted(maps.Keys(gs.Failovers)), counted) || slices.ContainsFunc(slices.Sorted(maps.Keys(gs.Excluded)), failed) {
		return &state.Command{Forget: &state.Forget{Group: g.Name, Before: before}}
	}
	return nil
}

// latest counts the times that are after t.
func latest(times []time.Time, t time.Time) int {
	n := 0
	for _, at := range times {
		if at.After(t) {
			n++
		}
	}
	return n
}

// maxResets is after how many resets in a row by its own watchdog a node is given
// no groups: what it runs may be what makes it fail, and somebody must be able to
// look at it.
const maxResets = 2

// quarantine returns what is due with the return of a node that was lost too
// often, or nil.
func quarantine(s *state.State, v View, n *config.Node, node *state.Node) *state.Command {
	q, losses, seen := s.File().Quarantine, node.Losses, v.Nodes[n.Name]
	switch {
	case seen.Resets >= maxResets && !n.Witness && node.Released != seen.Boot && (node.Quarantine == nil || !node.Quarantine.Open()):
		return &state.Command{Quarantine: &state.SetQuarantine{Node: n.Name, Quarantine: &state.Quarantine{
			Why: fmt.Sprintf("its own watchdog has reset it %d times in a row", seen.Resets), Since: v.Wall}}}
	case q.Failures == 0 || n.Witness || node.Quarantine != nil:
		return nil
	case node.State == cluster.NodeUp && node.Boot != seen.Boot && !node.Leaving:
		losses = append(slices.Clone(losses), v.Wall) // it was never missed, and is counted now
	case node.State != cluster.NodeDown:
		return nil
	}
	first := len(losses) - q.Failures
	if first < 0 || losses[len(losses)-1].Sub(losses[first]) > q.Within {
		return nil
	}
	return &state.Command{Quarantine: &state.SetQuarantine{Node: n.Name, Quarantine: &state.Quarantine{
		Why: fmt.Sprintf("lost %d times within %s", q.Failures, cluster.Span(q.Within)), Since: v.Wall, Until: v.Wall.Add(q.For)}}}
}

// endQuarantine returns the end of a quarantine that is over, and what the node
// may be given back then.
func endQuarantine(s *state.State, v View, n cluster.NodeName, node *state.Node) []state.Command {
	if node.Quarantine == nil || node.Quarantine.Open() {
		return nil
	}
	end := state.SetQuarantine{Node: n, Until: node.Quarantine.Until, Why: "its time is over"}
	switch {
	case s.File().Quarantine.Failures == 0:
		end.Why = "the cluster file quarantines no node"
	case v.Wall.Before(node.Quarantine.Until):
		return nil
	}
	cmds := []state.Command{{Quarantine: &end}}
	if s.Up(n) && livedOn(s, v, n) {
		cmds = append(cmds, failback(s, v, n)...)
	}
	return cmds
}

// target returns the node of a choice, and what must be said about it.
func target(c placement.Choice) (n cluster.NodeName, though string) {
	if c.Node == "" && c.LastResort != "" {
		return c.LastResort, "; it is quarantined, and no other node can run the group"
	}
	return c.Node, ""
}

package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
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

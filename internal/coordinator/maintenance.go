package coordinator

import (
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/placement"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// warnBefore is how long before its end a maintenance is warned of.
const warnBefore = 10 * time.Minute

// decideMaintenance ends what is over, and has it said what soon will be.
func decideMaintenance(s *state.State, v View) []state.Command {
	var cmds []state.Command
	for _, m := range s.Maintenances() {
		switch {
		case !v.Wall.Before(m.Until):
			cmds = append(cmds, state.Command{Maintain: &state.Maintain{Key: m.Key(), Until: m.Until, Why: "its time is over", Time: v.Wall}})
		case !m.Warned && m.Until.Sub(m.Since) > warnBefore && m.Until.Sub(v.Wall) <= warnBefore:
			m.Warned = true
			cmds = append(cmds, state.Command{Maintain: &state.Maintain{Key: m.Key(), Set: &m}})
		}
	}
	return cmds
}

// recheckWithin bounds how long the owner of a group may take to look anew at
// what failed during a maintenance.
const recheckWithin = time.Minute

func maintained(s *state.State, n cluster.NodeName) bool {
	_, on := s.Maintenance[state.MaintenanceKey(n, "")]
	return on
}

// goOn is all that is done for a group while it or the cluster is in
// maintenance. While it is the cluster, a group that its node had to give up
// starts there again when the node is back, and nowhere else.
func goOn(s *state.State, v View, g *config.Group, gs *state.Group) *state.Command {
	_, alone := s.Maintenance[state.MaintenanceKey("", g.Name)]
	if alone || gs.Phase != cluster.PhaseOffline || !gs.Wanted || !v.WaitOver || gs.Previous == "" || !placement.Able(s, g, gs.Previous) {
		return nil
	}
	c := begin(g.Name, gs, state.Plan{Action: state.ActionStart, To: gs.Previous, Factor: cluster.FactorClusterStart, Wanted: true,
		Why: fmt.Sprintf("it ran on %s, which is back; %s", gs.Previous, s.Suspended(g.Name))}, "")
	return &c
}

// drain moves a group away from a node whose maintenance asks for that, if
// another node can take it.
func drain(s *state.State, g *config.Group, gs *state.Group) *state.Command {
	m := s.Maintenance[state.MaintenanceKey(gs.Owner, "")]
	failed, _ := failedResource(g, gs)
	if gs.Owner == "" || !m.Drain || gs.Phase != cluster.PhaseOnline && (gs.Phase != cluster.PhaseFailed || failed == nil) {
		return nil
	}
	choice := placement.Choose(s, g, gs.Owner)
	if choice.Node == "" {
		return nil
	}
	c := begin(g.Name, gs, state.Plan{Action: state.ActionMove, From: gs.Owner, To: choice.Node, Factor: cluster.FactorGroupMove, Wanted: gs.Wanted,
		Why: fmt.Sprintf("%s; %s is next", m.Text(), choice.Node)}, "")
	return &c
}

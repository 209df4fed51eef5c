package admission

import (
	"cmp"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/placement"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Bounds of how long a maintenance is asked for.
const (
	DefaultMaintenance = 8 * time.Hour
	minMaintenance     = time.Minute
	maxMaintenance     = 30 * 24 * time.Hour
)

// unfit says why an operator may not send the group to the node, or "".
func unfit(s *state.State, g *config.Group, n cluster.NodeName) string {
	if m := s.Maintenance[state.MaintenanceKey(n, "")]; m.Drain {
		return m.Text() + " and its groups move away"
	}
	return placement.Unfit(s, g, n)
}

func admitMaintenance(s *state.State, a Ask) (state.Entry, *api.Error) {
	m := state.Maintenance{Node: a.Node, Group: a.Group, Owner: cmp.Or(a.Author, "unknown"), Reason: a.Why, Since: a.Wall, Drain: a.Drain}
	takes := cmp.Or(a.For, DefaultMaintenance)
	m.Until = a.Wall.Add(takes)
	was, on := s.Maintenance[m.Key()]
	switch {
	case a.Node != "" && a.Group != "":
		return state.Entry{}, refuse("bad-request", "begin one, then the other", "one maintenance is of a node, a group or the cluster, not of two of them")
	case a.Node != "" && s.File().Node(a.Node) == nil:
		return state.Entry{}, refuse("no-such-node", "tasuki status lists the nodes", "there is no node %q", a.Node)
	case a.Group != "" && s.File().Group(a.Group) == nil:
		return state.Entry{}, noGroup(s, a.Group)
	case a.Kind == MaintainOff && !on:
		return state.Entry{}, refuse("not-in-maintenance", "tasuki maintenance list shows what is", "%s is not in maintenance", m.What())
	case a.Kind == MaintainOff:
		return done(a, fmt.Sprintf("the maintenance of %s has ended", m.What()),
			state.Command{Maintain: &state.Maintain{Key: m.Key(), Until: was.Until, Why: "ended by " + m.Owner, Time: a.Wall}}), nil
	case m.Reason == "":
		return state.Entry{}, refuse("bad-request", "say why with --reason: others see it in tasuki status", "a maintenance needs a reason")
	case takes < minMaintenance || takes > maxMaintenance:
		return state.Entry{}, refuse("bad-request", "from 1m to 720h; it can be begun again while it is on", "a maintenance cannot take %s", cluster.Span(takes))
	case a.Drain && a.Node == "":
		return state.Entry{}, refuse("bad-request", "drain goes with a node", "groups can move away from a node, not from %s", m.What())
	}
	return done(a, fmt.Sprintf("%s is in maintenance for %s", m.What(), cluster.Span(takes)),
		state.Command{Maintain: &state.Maintain{Key: m.Key(), Set: &m}}), nil
}

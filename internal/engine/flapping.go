package engine

import (
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// narrateFlapping writes the leader's lines about what keeps failing.
func (m *Machine) narrateFlapping(c state.Command, b before) {
	switch {
	case c.Hold != nil:
		was, now := b.groups[c.Hold.Group], m.st.Groups[c.Hold.Group]
		if now == nil || (was.Held == nil) == (now.Held == nil) {
			return
		}
		fields := map[string]string{"group": string(c.Hold.Group)}
		if now.Held == nil {
			m.event(cluster.LevelInfo, "rc", "group-released", "", fields, "Group %s is no longer held: %s.", c.Hold.Group, reason(c.Hold.Why))
			return
		}
		m.event(cluster.LevelWarn, "rc", "group-held", now.Cause, fields,
			"Group %s is held where it is: %s. No failure of its resources or monitors moves it before: tasuki group release %s", c.Hold.Group, now.Held.Why, c.Hold.Group)
	case c.Maintain != nil:
		m.narrateMaintenance(c.Maintain, b)
	case c.Quarantine != nil:
		m.narrateQuarantine(c.Quarantine, b)
	case c.Begin != nil:
		was, p := b.groups[c.Begin.Group].Plan, c.Begin.Plan
		now := m.st.Groups[c.Begin.Group]
		if n := m.st.Nodes[p.To]; was == nil && now != nil && now.Plan != nil && p.To != p.From && n != nil && n.Quarantine != nil {
			m.event(cluster.LevelWarn, "rc", "quarantine-overruled", p.Cause, map[string]string{"group": string(c.Begin.Group), "node": string(p.To)},
				"Group %s is given to node %s, which is quarantined: %s.", c.Begin.Group, p.To, reason(p.Why))
		}
	case c.Forget != nil:
		if g := m.file().Group(c.Forget.Group); g != nil {
			m.event(cluster.LevelInfo, "rc", "failures-forgotten", "", map[string]string{"group": string(g.Name)},
				"Failures of group %s are forgotten, it runs and the latest was %s ago.", g.Name, cluster.Span(g.Forget))
		}
	}
}

func (m *Machine) narrateQuarantine(c *state.SetQuarantine, b before) {
	was, now := b.nodes[c.Node], m.st.Nodes[c.Node]
	if now == nil || (was.Quarantine == nil) == (now.Quarantine == nil) {
		return
	}
	fields := map[string]string{"node": string(c.Node)}
	if q := now.Quarantine; q != nil && q.Open() {
		m.event(cluster.LevelError, "nm", "node-quarantined", "", fields,
			"Node %s is quarantined: %s. It is given no group at all until it is released: tasuki node release %s.", c.Node, q.Why, c.Node)
		return
	}
	if q := now.Quarantine; q != nil {
		fields["until"] = q.Until.UTC().Format(time.RFC3339)
		m.event(cluster.LevelWarn, "nm", "node-quarantined", "", fields,
			"Node %s is quarantined for %s: %s. It is given no group that another node can run; tasuki node release %s ends that.", c.Node, cluster.Span(q.Until.Sub(q.Since)), q.Why, c.Node)
		return
	}
	m.event(cluster.LevelInfo, "nm", "node-released", "", fields, "The quarantine of node %s has ended: %s.", c.Node, reason(c.Why))
}

// ago says how long ago something was; "" where that is not known.
func (m *Machine) ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", " + cluster.Ago(m.wall.Sub(t))
}

// flapping puts what a group's failures left behind into its status.
func (m *Machine) flapping(out *api.Group, gs *state.Group) {
	for _, name := range sortedKeys(gs.Failovers) {
		out.Failovers += gs.Failovers[name]
		out.Counters = append(out.Counters, api.Counter{Name: name, Count: gs.Failovers[name], Latest: gs.Counted[name]})
	}
	for _, n := range sortedKeys(gs.Excluded) {
		out.Excluded = append(out.Excluded, fmt.Sprintf("%s: %s%s", n, gs.Excluded[n], m.ago(gs.Failed[n])))
	}
	if gs.Held != nil {
		out.Held = &api.Held{Why: gs.Held.Why, Since: gs.Held.Since}
	}
}

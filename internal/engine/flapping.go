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
	case c.Forget != nil:
		if g := m.file().Group(c.Forget.Group); g != nil {
			m.event(cluster.LevelInfo, "rc", "failures-forgotten", "", map[string]string{"group": string(g.Name)},
				"Failures of group %s are forgotten, it runs and the latest was %s ago.", g.Name, cluster.Span(g.Forget))
		}
	}
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

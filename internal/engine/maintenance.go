package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/recovery"
	"github.com/tasuki-ha/tasuki/internal/state"
)

func (m *Machine) narrateMaintenance(c *state.Maintain, b before) {
	now, on := m.st.Maintenance[c.Key]
	fields := map[string]string{}
	tell := func(level cluster.Level, code, format string, args ...any) {
		m.event(level, "nm", code, "", fields, format, args...)
	}
	name := func(of state.Maintenance) {
		if of.Node != "" {
			fields["node"] = string(of.Node)
		}
		if of.Group != "" {
			fields["group"] = string(of.Group)
		}
	}
	switch {
	case on && c.Set != nil && now == *c.Set && now.Warned:
		name(now)
		tell(cluster.LevelWarn, "maintenance-ends", "The maintenance of %s ends at %s, in less than 10 minutes (%s: %s).", now.What(), clockTime(now.Until), now.Owner, now.Reason)
	case on && c.Set != nil && now == *c.Set:
		name(now)
		tell(cluster.LevelWarn, "maintenance-on", "Maintenance of %s has begun, until %s (%s: %s): %s.", now.What(), clockTime(now.Until), now.Owner, now.Reason, unprotected(now))
	case !on:
		if was, is := b.maintenance[c.Key]; is {
			name(was)
			tell(cluster.LevelInfo, "maintenance-off", "The maintenance of %s has ended: %s.", was.What(), reason(c.Why))
		}
	}
}

func clockTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// unprotected says what is not done meanwhile.
func unprotected(m state.Maintenance) string {
	switch {
	case m.Drain:
		return "it is given no group, and its groups move away"
	case m.Node != "":
		return "it is given no group, and keeps those that it has"
	case m.Group != "":
		return "its failures and those of its node are shown and not acted on"
	}
	return "failures of groups, nodes and monitors are shown and not acted on"
}

func (m *Machine) maintenance() []api.Maintenance {
	var out []api.Maintenance
	for _, x := range m.st.Maintenances() {
		out = append(out, api.Maintenance{Node: x.Node, Group: x.Group, What: x.What(), Owner: x.Owner, Reason: x.Reason,
			Since: x.Since, Until: x.Until, Drain: x.Drain, Unprotected: unprotected(x)})
	}
	return out
}

// withheld says why the monitor's ladder is not climbed now, or "": all that it
// acts on is in maintenance.
func (m *Machine) withheld(w *watch) string {
	if x, on := m.st.Maintenance[state.MaintenanceKey("", "")]; on {
		return x.Text()
	}
	why := ""
	for _, g := range m.targets(w) {
		if why = m.st.Suspended(g); why == "" {
			return ""
		}
	}
	return why
}

// checkCurbed lets a monitor that is still bad climb when every maintenance and
// hold has ended that was in its way. What was refused then may be tried again.
func (m *Machine) checkCurbed(w *watch) {
	curbs := slices.Clone(w.curbs)
	for _, g := range m.targets(w) {
		if !slices.Contains(curbs, g) {
			curbs = append(curbs, g)
		}
	}
	was := len(w.curbs) > 0
	w.curbs = slices.DeleteFunc(curbs, func(g cluster.GroupName) bool {
		gs := m.st.Groups[g]
		return m.st.Suspended(g) == "" && (gs == nil || gs.Held == nil)
	})
	if was && len(w.curbs) == 0 && w.tracker.Verdict() == cluster.VerdictBad && m.watching(w) {
		w.ladder.Step(m.now, recovery.Event{Kind: recovery.Good})
		m.act(w, w.ladder.Step(m.now, recovery.Event{Kind: recovery.Bad, Code: w.tracker.Code(), Text: w.tracker.Text()}))
	}
}

// spared says why the monitor's final action must not end this node, with the
// groups on it, or "".
func (m *Machine) spared(w *watch) string {
	if why := m.withheld(w); why != "" {
		return why
	}
	for _, name := range m.targets(w) {
		gs := m.st.Groups[name]
		switch why := m.st.Suspended(name); {
		case gs == nil || gs.Owner != m.self:
		case why != "":
			return why
		case gs.Held != nil:
			return fmt.Sprintf("group %s is held where it is: %s", name, gs.Held.Why)
		}
	}
	return ""
}

// recheck has what failed during a maintenance looked at anew, once.
func (m *Machine) recheck(name cluster.GroupName, gs *state.Group) {
	if gs.Recheck.IsZero() {
		return
	}
	l := m.groups.at[name]
	if l == nil || l.rechecked.Equal(gs.Recheck) || l.runner != nil || l.checking || l.orphan || l.inherited || m.isolated || l.epoch != gs.Epoch {
		return
	}
	l.checking, l.rechecks, l.rechecked = true, true, gs.Recheck
	m.eff.Checks = append(m.eff.Checks, l.task(&l.config))
}

func (m *Machine) takeRechecked(c Checked, l *localGroup) {
	l.rechecks = false
	for i := range l.config.Resources {
		n := l.config.Resources[i].Name
		if why, inactive := c.Inactive[n]; inactive {
			l.resources[n] = state.Resource{State: cluster.ResourceFailed, Why: "it was found inactive: " + why}
		} else {
			l.resources[n] = state.Resource{State: cluster.ResourceOnline}
		}
	}
	if len(c.Inactive) == 0 {
		m.event(cluster.LevelInfo, "rc", "group-kept", "", map[string]string{"group": string(c.Group)},
			"Group %s was found active after the maintenance and has not been touched.", c.Group)
	}
	m.report(c.Group, l, state.Report{Step: state.StepChecked})
}

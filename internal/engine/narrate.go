package engine

import (
	"fmt"
	"strings"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// before is what narrate compares with: the groups and nodes that an entry may
// change, as they were.
type before struct {
	maintenance map[string]state.Maintenance
	groups      map[cluster.GroupName]state.Group
	nodes       map[cluster.NodeName]state.Node
	mirrors     map[cluster.ResourceName]state.Mirror
	version     uint64
	again       bool // what was asked for is done already: nothing changes
}

func (m *Machine) before(e state.Entry) before {
	b := before{maintenance: map[string]state.Maintenance{}, groups: map[cluster.GroupName]state.Group{}, nodes: map[cluster.NodeName]state.Node{}, mirrors: map[cluster.ResourceName]state.Mirror{}, version: m.st.Config.Version}
	if e.Answer != nil {
		_, b.again = m.st.Answered(e.Answer.ID)
	}
	for _, c := range e.Commands {
		switch {
		case c.Begin != nil:
			b.keepGroup(m.st, c.Begin.Group)
		case c.Report != nil:
			b.keepGroup(m.st, c.Report.Group)
		case c.Quarantine != nil:
			if n := m.st.Nodes[c.Quarantine.Node]; n != nil {
				b.nodes[c.Quarantine.Node] = *n
			}
		case c.Maintain != nil:
			if was, on := m.st.Maintenance[c.Maintain.Key]; on {
				b.maintenance[c.Maintain.Key] = was
			}
		case c.Hold != nil:
			b.keepGroup(m.st, c.Hold.Group)
		case c.Mirror != nil:
			b.keepMirror(m.st, c.Mirror.Resource)
		case c.OperateMirror != nil:
			b.keepMirror(m.st, c.OperateMirror.Resource)
		case c.Node != nil:
			if n := m.st.Nodes[c.Node.Name]; n != nil {
				b.nodes[c.Node.Name] = *n
			}
			for _, g := range m.st.OwnedBy(c.Node.Name) {
				b.keepGroup(m.st, g)
			}
		}
	}
	return b
}

func (b *before) keepGroup(s *state.State, g cluster.GroupName) {
	if gs := s.Groups[g]; gs != nil {
		if _, kept := b.groups[g]; !kept {
			b.groups[g] = *gs
		}
	}
}

func (b *before) keepMirror(s *state.State, r cluster.ResourceName) {
	if is := s.Mirror(r); is != nil {
		b.mirrors[r] = is.Clone()
	}
}

// narrate writes this node's lines about what an entry changed. Each line has
// one author: the node that acts, or the leader for what concerns a node.
func (m *Machine) narrate(e state.Entry, b before) {
	for _, name := range m.inFileOrder(b.groups) {
		was := b.groups[name]
		m.narrateGroup(name, &was, m.st.Groups[name])
	}
	for _, c := range e.Commands {
		m.narrateMirror(c, b)
		if m.lead == m.self {
			m.narrateUsers(c, b)
			m.narrateFlapping(c, b)
		}
		if c.Node == nil || m.lead != m.self {
			continue
		}
		was, now := b.nodes[c.Node.Name], m.st.Nodes[c.Node.Name]
		if now != nil {
			m.narrateNode(c.Node.Name, &was, now, c.Node.Cause)
		}
	}
	if m.st.Config.Version != b.version && m.lead == m.self {
		c := m.st.Config
		m.event(cluster.LevelInfo, "cf", "config-applied", "", map[string]string{"version": fmt.Sprint(c.Version), "author": c.Author},
			"Version %d of the cluster file is in force (by %s).", c.Version, c.Author)
	}
}

// inFileOrder returns the names of those of the groups that the file in force has.
func (m *Machine) inFileOrder(groups map[cluster.GroupName]state.Group) []cluster.GroupName {
	names := make([]cluster.GroupName, 0, len(groups))
	f := m.st.File()
	for i := 0; i < len(f.Groups) && len(names) < len(groups); i++ {
		if _, is := groups[f.Groups[i].Name]; is {
			names = append(names, f.Groups[i].Name)
		}
	}
	return names
}

func (m *Machine) narrateNode(n cluster.NodeName, was, now *state.Node, cause cluster.EventID) {
	fields := map[string]string{"node": string(n)}
	switch {
	case now.State == was.State && now.Boot == was.Boot && now.Daemon == was.Daemon && now.Leaving == was.Leaving:
	case now.State == cluster.NodeUp && now.Leaving:
		m.event(cluster.LevelInfo, "nm", "node-leaving", cause, fields, "Node %s is leaving: %s.", n, reason(now.Why))
	case now.State == cluster.NodeUp:
		m.event(cluster.LevelInfo, "nm", "node-up", cause, fields, "Node %s is up: %s.", n, reason(now.Why))
	case now.State == cluster.NodeLeft:
		m.event(cluster.LevelInfo, "nm", "node-left", cause, fields, "Node %s has left by plan: %s.", n, reason(now.Why))
	case now.State == cluster.NodeDown:
		m.event(cluster.LevelError, "nm", "node-down", cause, fields, "Node %s is down: %s.", n, reason(now.Why))
	}
}

func reason(why string) string {
	if why == "" {
		return "asked for"
	}
	return strings.TrimSuffix(why, ".")
}

// moving is how the lines call a plan that brings a group elsewhere.
func moving(p *state.Plan) (verb, code string) {
	switch p.Action {
	case state.ActionFailover, state.ActionTakeover:
		return "Failing over", "group-failover"
	case state.ActionRestart:
		return "Restarting", "group-restart"
	case state.ActionMove:
		return "Moving", "group-move"
	}
	return "", ""
}

func (m *Machine) narrateGroup(name cluster.GroupName, was, now *state.Group) {
	if now == nil {
		return
	}
	fields := func(p *state.Plan) map[string]string {
		f := map[string]string{"group": string(name)}
		if p != nil {
			f["plan"], f["action"], f["why"] = p.ID, string(p.Action), p.Why
		}
		return f
	}
	p := now.Plan
	if p != nil && was.Plan == nil { // a plan has begun
		if p.From == m.self {
			m.event(cluster.LevelInfo, "rc", "group-stop-begun", p.Cause, fields(p), "Stopping group %s has started.", name)
		}
		if verb, code := moving(p); verb != "" && p.To == m.self {
			m.event(cluster.LevelInfo, "rc", code+"-begun", p.Cause, fields(p), "%s group %s has started.", verb, name)
		}
	}
	old := was.Plan
	if old == nil {
		old = p // begun and assigned in one entry
	}
	if was.Phase == cluster.PhaseStopping && now.Phase != cluster.PhaseStopping && was.Owner == m.self && now.Phase != cluster.PhaseFailed {
		m.event(cluster.LevelInfo, "rc", "group-stop-done", old.Cause, m.tookFields(fields(old), name), "Stopping group %s has completed.", name)
	}
	if now.Phase == cluster.PhaseStarting && (was.Phase != cluster.PhaseStarting || was.Epoch != now.Epoch) && now.Owner == m.self {
		m.event(cluster.LevelInfo, "rc", "group-start-begun", p.Cause, fields(p), "Activating group %s has started.", name)
	}
	if was.Phase == cluster.PhaseStarting && now.Phase == cluster.PhaseOnline && now.Owner == m.self {
		m.event(cluster.LevelInfo, "rc", "group-start-done", old.Cause, m.tookFields(fields(old), name), "Activating group %s has completed.", name)
		if verb, code := moving(old); verb != "" {
			m.event(cluster.LevelInfo, "rc", code+"-done", old.Cause, fields(old), "%s group %s has completed.", verb, name)
		}
	}
	m.narrateFailure(name, was, now, fields(old))
}

func (m *Machine) narrateFailure(name cluster.GroupName, was, now *state.Group, fields map[string]string) {
	switch p := was.Plan; {
	case p != nil && p.To != "" && was.Phase == cluster.PhaseStopping && now.Phase == cluster.PhaseOffline && was.Owner == m.self && m.stale(name, p.To):
		m.event(cluster.LevelWarn, "rc", "group-not-given", p.Cause, fields, "Group %s is not given to %s: a copy there has become out of date meanwhile.", name, p.To)
	case now.Phase == cluster.PhaseFailed && was.Phase == cluster.PhaseStarting && now.Owner == m.self:
		m.event(cluster.LevelError, "rc", "group-start-failed", now.Cause, fields, "Activating group %s has failed: %s.", name, reason(now.Why))
	case now.Phase == cluster.PhaseFailed && was.Phase == cluster.PhaseStopping && now.Owner == m.self:
		m.event(cluster.LevelError, "rc", "group-stop-failed", now.Cause, fields,
			"Stopping group %s has failed: %s. It is not started elsewhere while it may be active here.", name, reason(now.Why))
	case was.Owner != "" && now.Owner == "" && was.Plan != nil && now.Phase == cluster.PhaseOffline && m.lead == m.self && was.Phase == cluster.PhaseStarting:
		m.event(cluster.LevelError, "rc", "group-lost", now.Cause, fields, "Activating group %s on %s has ended: %s.", name, was.Owner, reason(now.Why))
	}
}

func (m *Machine) tookFields(f map[string]string, name cluster.GroupName) map[string]string {
	if l := m.groups.at[name]; l != nil {
		f["took_ms"] = took(m.now.Sub(l.since))
	}
	return f
}

// narrateOp writes the line of one step of one resource.
func (m *Machine) narrateOp(d OpDone, l *localGroup) {
	f := map[string]string{"group": string(d.Group), "resource": string(d.Op.Resource), "took_ms": took(d.Took)}
	res := l.config.Resource(d.Op.Resource)
	verb, tries := "stopped", res.Deactivation.Retries+1
	if d.Op.Start {
		verb, tries = "started", res.Activation.Retries+1
	}
	if d.Why == "" && d.Op.Force {
		m.narrateStop(d, l)
		return
	}
	if d.Op.Force {
		l.lines[d.Op.Resource] = m.event(cluster.LevelError, "rs", "resource-not-forced", l.because(d.Op.Resource), f, "Resource %s could not be stopped by force: %s.", d.Op.Resource, reason(d.Why))
		return
	}
	if d.Why == "" {
		m.event(cluster.LevelInfo, "rs", "resource-"+verb, l.cause, f, "Resource %s has been %s (%s ms).", d.Op.Resource, verb, f["took_ms"])
		m.narrateStop(d, l)
		return
	}
	l.lines[d.Op.Resource] = m.event(cluster.LevelError, "rs", "resource-not-"+verb, l.because(d.Op.Resource), f, "Resource %s could not be %s (try %d of %d): %s.",
		d.Op.Resource, verb, d.Op.Attempt, tries, reason(d.Why))
}

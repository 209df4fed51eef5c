package engine

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/plan"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// localGroup is a group that this node runs, starts or stops.
type localGroup struct {
	config   config.Group // as it was when this node began with it
	epoch    cluster.Epoch
	assigned cluster.Epoch // in which all of it was started here; 0: by an earlier daemon
	factor   cluster.Factor
	event    string
	previous cluster.NodeName
	handed   []cluster.ResourceName // of a start: what the previous owner stopped for it
	cause    cluster.EventID

	runner    *plan.Runner // nil while nothing is being done
	stopping  bool         // the runner's direction
	orphan    bool         // it is being stopped although the cluster no longer knows it here: no reports
	lost      bool         // the cluster took it from this node since it was begun, whoever has it now
	checking  bool
	rechecked time.Time                                // of the state, as carried out last
	rechecks  bool                                     // what is being checked is that
	exposed   cluster.Instant                          // it could not be isolated, and must be stopped by then; 0: it is not so
	inherited bool                                     // an earlier daemon ran it; what of it is still active is not known yet
	steps     map[cluster.ResourceName]step            // under way, by the runner
	began     map[cluster.ResourceName]cluster.Instant // when the first try of its stop began
	lines     map[cluster.ResourceName]cluster.EventID // the latest one about a failed step
	since     cluster.Instant
	resources map[cluster.ResourceName]state.Resource
}

func (l *localGroup) task(g *config.Group) Task {
	return Task{Group: *g, Epoch: l.epoch, Factor: l.factor, Event: l.event, Previous: l.previous, Cause: l.cause}
}

// idle says whether nothing of the group is active here or being worked on.
func (l *localGroup) idle() bool {
	if l.runner != nil || l.checking {
		return false
	}
	for _, r := range l.resources {
		if r.State != cluster.ResourceOffline {
			return false
		}
	}
	return true
}

// localGroups are the groups of a node, and the same by name: that order is asked
// for at every step, and changes seldom.
type localGroups struct {
	at     map[cluster.GroupName]*localGroup
	byName []namedGroup // replaced when it changes: who is passing through it goes on with the old one
}

type namedGroup struct {
	name cluster.GroupName
	*localGroup
}

// find returns where the group stands by name, or would.
func (g *localGroups) find(name cluster.GroupName) (int, bool) {
	return slices.BinarySearchFunc(g.byName, name, func(is namedGroup, n cluster.GroupName) int { return cmp.Compare(is.name, n) })
}

func (g *localGroups) put(name cluster.GroupName, l *localGroup) {
	g.drop(name)
	i, _ := g.find(name)
	g.byName = slices.Insert(slices.Clip(g.byName), i, namedGroup{name, l})
	g.at[name] = l
}

func (g *localGroups) drop(name cluster.GroupName) {
	if i, known := g.find(name); known {
		g.byName = slices.Concat(g.byName[:i], g.byName[i+1:])
	}
	delete(g.at, name)
}

// active says whether anything may be active here.
func (m *Machine) active() bool {
	return slices.ContainsFunc(m.groups.byName, func(l namedGroup) bool { return !l.idle() })
}

// activeGroups returns the groups of which something may be active here.
func (m *Machine) activeGroups() []cluster.GroupName {
	var names []cluster.GroupName
	for _, l := range m.groups.byName {
		if !l.idle() {
			names = append(names, l.name)
		}
	}
	return names
}

// follow brings this node in line with the agreed state: it begins what its
// groups' plans ask of it, and stops what is no longer its own.
func (m *Machine) follow() {
	if v := m.st.Config.Version; v > 0 && v != m.version0 { // without state, the last file known goes on being in force
		m.version0 = v
		m.eff.Config = m.st.File()
		m.rewatch()
	}
	for _, g := range m.own() {
		m.followOwn(g.name, g.Group)
		m.recheck(g.name, g.Group)
	}
	if m.meta.Incarnation.Blank() || m.st.Config.Version == 0 {
		return
	}
	for _, l := range m.groups.byName {
		gs := m.st.Groups[l.name]
		switch {
		case gs != nil && gs.Owner == m.self || l.orphan:
		case l.inherited && !m.overtaken(l.localGroup, gs):
		case l.idle():
			m.groups.drop(l.name)
		default:
			m.orphan(l.name, l.localGroup, "the cluster has given it to another node")
		}
	}
}

// own returns the groups that are agreed to be this node's, in file order; nobody
// may change it.
func (m *Machine) own() []ownGroup {
	if c := &m.owning; c.st != m.st || c.applied != m.applied {
		c.st, c.applied, c.groups = m.st, m.applied, nil
		f := m.st.File()
		for i := range f.Groups {
			if g := m.st.Groups[f.Groups[i].Name]; g.Owner == m.self {
				c.groups = append(c.groups, ownGroup{f.Groups[i].Name, g})
			}
		}
	}
	return m.owning.groups
}

// owning remembers what own returned, and of what.
type owning struct {
	st      *state.State
	applied uint64
	groups  []ownGroup
}

type ownGroup struct {
	name cluster.GroupName
	*state.Group
}

func (m *Machine) followOwn(name cluster.GroupName, gs *state.Group) {
	l := m.groups.at[name]
	if l != nil && l.lost && !l.orphan {
		if !l.idle() { // what runs here is of another time: it begins anew
			m.orphan(name, l, "the cluster has taken it over meanwhile")
			return
		}
		m.groups.drop(name)
		l = nil
	}
	if l != nil && l.inherited && gs.Phase == cluster.PhaseStarting && gs.Epoch > l.epoch {
		m.orphan(name, l, "an earlier daemon ran it, and it begins anew")
		return
	}
	if l != nil && (l.orphan || l.epoch == gs.Epoch && !l.inherited) {
		return // an orphan is stopped to its end first; OpDone comes back here
	}
	if n := m.st.Nodes[m.self]; n == nil || n.Boot != m.boot {
		return // it was given to this node before its machine booted anew; the leader will see that
	}
	cfg := m.st.File().Group(name)
	switch gs.Phase {
	case cluster.PhaseStopping:
		l = m.local(name, cfg, gs)
		l.drive(plan.Stop(&l.config, l.resources, gs.Plan.Resource), true)
		m.advance(name, l)
	case cluster.PhaseStarting:
		if !m.mayRun() {
			return
		}
		l = m.local(name, cfg, gs)
		if gs.Plan.Resource == "" {
			l.assigned = gs.Epoch
		}
		l.drive(plan.Start(&l.config, l.resources), false)
		m.advance(name, l)
	case cluster.PhaseOnline, cluster.PhaseFailed:
		if l != nil && !l.inherited {
			l.epoch = gs.Epoch
			return
		}
		if m.isolated {
			return
		}
		// The daemon has started anew under a running group, or stopped it without
		// a lease: look, do not touch.
		l = m.local(name, cfg, gs)
		l.checking = true
		m.eff.Checks = append(m.eff.Checks, l.task(&l.config))
	}
}

// agreed returns what is agreed on about the group's resources, to be changed.
func agreed(gs *state.Group) map[cluster.ResourceName]state.Resource {
	if gs.Resources == nil {
		return map[cluster.ResourceName]state.Resource{}
	}
	return maps.Clone(gs.Resources)
}

// local returns the node's part of the group, brought to the agreed epoch.
func (m *Machine) local(name cluster.GroupName, cfg *config.Group, gs *state.Group) *localGroup {
	l := m.groups.at[name]
	if l == nil {
		l = &localGroup{resources: agreed(gs)}
		m.groups.put(name, l)
	}
	if l.inherited {
		l.inherited, l.resources = false, agreed(gs)
	}
	l.config, l.epoch, l.previous, l.cause, l.since = *cfg, gs.Epoch, gs.Previous, gs.Cause, m.now
	l.event, l.factor, l.handed = "START", cluster.FactorGroupStart, nil
	if p := gs.Plan; p != nil {
		l.factor = p.Factor
		if gs.Phase == cluster.PhaseStarting { // a plan with a stop comes here by its confirmation only
			l.handed = p.Active
		}
		if p.Action == state.ActionFailover || p.Action == state.ActionTakeover {
			l.event = "FAILOVER"
		}
		if p.Action == state.ActionRestart {
			l.event = "RECOVER"
		}
	}
	return l
}

// advance hands out the steps that can be taken now, and reports the outcome.
func (m *Machine) advance(name cluster.GroupName, l *localGroup) {
	for _, op := range l.runner.Next() {
		m.begin(name, l, op)
	}
	l.resources = l.runner.Resources()
	step, failed, why, ended := l.runner.Outcome()
	if !ended {
		return
	}
	l.runner = nil
	if l.orphan {
		m.endOrphan(name, l, step, failed, why)
		return
	}
	m.report(name, l, state.Report{Step: step, Resource: failed, Why: why})
}

func (m *Machine) report(name cluster.GroupName, l *localGroup, r state.Report) {
	if r.Step == state.StepStopFailed {
		m.stopFailed(name, l, &r)
	}
	r.Group, r.Epoch, r.Node, r.Resources = name, l.epoch, m.self, maps.Clone(l.resources)
	r.Time = m.wall
	if r.Cause == "" {
		r.Cause = l.cause
	}
	a := m.newAsk(admission.Commands, "", r.Cause)
	a.Commands = []state.Command{{Report: &r}}
	m.ask(a, false)
}

// final takes a final action on this node.
func (m *Machine) final(action cluster.FinalAction, why string, cause cluster.EventID) {
	m.event(cluster.LevelError, "rm", "final-action", cause, map[string]string{"action": string(action)},
		"Final action %s on %s: %s.", action, m.self, strings.TrimSuffix(why, "."))
	m.eff.Final = &Final{Action: action, Why: why}
}

func (m *Machine) takeOpDone(d OpDone) {
	l := m.groups.at[d.Group]
	if l == nil || l.runner == nil || l.epoch != d.Epoch || l.steps[d.Op.Resource].op != d.Op {
		return
	}
	delete(l.steps, d.Op.Resource)
	l.runner.Done(d.Op, d.Why)
	m.narrateOp(d, l)
	m.advance(d.Group, l)
}

func (m *Machine) takeChecked(c Checked) {
	l := m.groups.at[c.Group]
	if l == nil || !l.checking || l.epoch != c.Epoch {
		return
	}
	l.checking = false
	if l.rechecks {
		m.takeRechecked(c, l)
		return
	}
	for i := range l.config.Resources {
		n := l.config.Resources[i].Name
		if why, inactive := c.Inactive[n]; !inactive {
			l.resources[n] = state.Resource{State: cluster.ResourceOnline}
		} else {
			l.resources[n] = state.Resource{State: cluster.ResourceFailed, Why: why}
		}
	}
	if len(c.Inactive) == 0 {
		m.event(cluster.LevelInfo, "rc", "group-kept", "", map[string]string{"group": string(c.Group)},
			"Group %s was found active after the start of the daemon and has not been touched.", c.Group)
		return
	}
	for _, n := range sortedKeys(c.Inactive) {
		m.failResource(c.Group, l, n, "it was found inactive: "+c.Inactive[n])
		return
	}
}

func (m *Machine) takeFailed(f Failed) {
	l := m.groups.at[f.Group]
	if l == nil || l.epoch != f.Epoch && !m.sameAssignment(f.Group, f.Epoch) || l.runner != nil || l.orphan || m.isolated {
		return // a plan is under way and will find it out
	}
	m.failResource(f.Group, l, f.Resource, f.Why)
}

// sameAssignment says whether the resource was started in this assignment of
// the group: nothing was moved since, only counted on.
func (m *Machine) sameAssignment(name cluster.GroupName, e cluster.Epoch) bool {
	gs := m.st.Groups[name]
	return gs != nil && gs.Owner == m.self && e <= gs.Epoch
}

func (m *Machine) failResource(name cluster.GroupName, l *localGroup, res cluster.ResourceName, why string) {
	l.resources[res] = state.Resource{State: cluster.ResourceFailed, Why: why}
	l.cause = m.event(cluster.LevelError, "rs", "resource-failed", "", map[string]string{"group": string(name), "resource": string(res)},
		"Resource %s of group %s has failed: %s.", res, name, strings.TrimSuffix(why, "."))
	m.report(name, l, state.Report{Step: state.StepFailed, Resource: res, Why: why, Cause: l.cause})
}

// stopAll stops whatever is active here without a plan of the cluster.
func (m *Machine) stopAll(why string) {
	for _, name := range m.activeGroups() {
		if l := m.groups.at[name]; !l.orphan {
			m.orphan(name, l, why)
		}
	}
}

func (m *Machine) orphan(name cluster.GroupName, l *localGroup, why string) {
	l.orphan, l.checking, l.inherited = true, false, false
	m.event(cluster.LevelWarn, "rc", "group-stop-local", l.cause, map[string]string{"group": string(name)},
		"Group %s is being stopped on this node: %s.", name, why)
	if l.runner != nil && l.stopping {
		return // it is being stopped already
	}
	if l.runner != nil {
		l.resources = l.runner.Resources()
	}
	l.factor, l.event = cluster.FactorGroupStop, "START"
	l.epoch++ // what still runs of the old runner no longer counts
	l.since = m.now
	l.drive(plan.Stop(&l.config, l.resources, ""), true)
	m.advance(name, l)
}

func (m *Machine) endOrphan(name cluster.GroupName, l *localGroup, step state.Step, failed cluster.ResourceName, why string) {
	m.groups.drop(name)
	if step == state.StepStopFailed {
		m.stopFailed(name, l, &state.Report{Resource: failed, Why: why, Cause: l.cause})
		return
	}
	m.event(cluster.LevelInfo, "rc", "group-stopped-local", l.cause, map[string]string{"group": string(name)},
		"Group %s has been stopped on this node.", name)
	gs := m.st.Groups[name]
	if gs == nil || gs.Owner != m.self || l.lost || m.st.Nodes[m.self].Boot != m.boot {
		return
	}
	// The cluster still has it here: give it back, to be started where it can be.
	l.orphan, l.epoch, l.resources = false, gs.Epoch, map[cluster.ResourceName]state.Resource{}
	m.groups.put(name, l)
	m.report(name, l, state.Report{Step: state.StepReleased, Why: "it was stopped on " + string(m.self) + " for want of a lease"})
}

func took(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

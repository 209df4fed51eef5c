package engine

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// inherit takes over what an earlier daemon of this boot ran. Until the agreed
// state says what becomes of a group, it counts as active here: it is isolated
// when the lease ends, and stopped if that does not come back.
func (m *Machine) inherit(r Runs) {
	m.told = r
	for i := range r.Groups {
		t := &r.Groups[i]
		l := &localGroup{
			config: t.Group, epoch: t.Epoch, factor: t.Factor, event: t.Event, previous: t.Previous, cause: t.Cause,
			since: m.now, inherited: true, resources: map[cluster.ResourceName]state.Resource{},
		}
		for k := range t.Group.Resources {
			l.resources[t.Group.Resources[k].Name] = state.Resource{State: cluster.ResourceOnline}
		}
		m.groups.put(t.Group.Name, l)
	}
}

// overtaken says whether the cluster has decided about an inherited group since
// it was begun here. The state that a daemon starts with may be older than what
// it runs.
func (m *Machine) overtaken(l *localGroup, gs *state.Group) bool {
	if gs == nil {
		return m.now >= m.legacy && m.mayRun()
	}
	return gs.Epoch > l.epoch
}

// tellRuns says what this node runs if that has changed.
func (m *Machine) tellRuns() {
	guarded := m.active() && (!m.soleVoter() || m.boundToPing())
	if guarded == m.told.Guarded && m.toldOf() {
		return
	}
	m.told = Runs{Guarded: guarded}
	for _, name := range m.activeGroups() {
		l := m.groups.at[name]
		m.told.Groups = append(m.told.Groups, l.task(&l.config))
	}
	r := m.told
	m.eff.Runs = &r
}

// toldOf says whether what runs here is what was told.
func (m *Machine) toldOf() bool {
	rest := m.told.Groups
	for _, l := range m.groups.byName {
		if l.idle() {
			continue
		}
		if len(rest) == 0 || rest[0].Group.Name != l.name || rest[0].Epoch != l.epoch {
			return false
		}
		rest = rest[1:]
	}
	return len(rest) == 0
}

// HarmlessWithin returns how long from now on what runs here may go on without a
// renewal of the lease until it must be isolated. guarded is false where nothing
// must.
func (m *Machine) HarmlessWithin(now cluster.Instant) (left time.Duration, guarded bool) {
	if !m.told.Guarded || m.isolated {
		return 0, false
	}
	end, _ := m.leaseEnd()
	return max(end.Add(-m.timing().Isolate).Sub(now), 0), true
}

// Harmless isolates what others may take over, for a loop that cannot go on.
func (m *Machine) Harmless() Effects {
	var eff Effects
	if !m.told.Guarded || m.isolated {
		return eff
	}
	m.isolated, m.isolateAt = true, m.now
	for _, name := range m.activeGroups() {
		l := m.groups.at[name]
		eff.Isolate = append(eff.Isolate, l.task(&l.config))
	}
	return eff
}

package engine

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/placement"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// State returns the replicated state for reading, until the next Step.
func (m *Machine) State() *state.State { return m.st }

// File returns the cluster file that this node goes by, for reading.
func (m *Machine) File() *config.File { return m.file() }

// Leader returns the node that leads, as far as this one knows, or "".
func (m *Machine) Leader() cluster.NodeName { return m.lead }

// Blank says whether this node has no state of its own yet.
func (m *Machine) Blank() bool { return m.meta.Incarnation.Blank() }

// Status returns the cluster as this node sees it.
func (m *Machine) Status() api.Status {
	f := m.file()
	s := api.Status{
		Cluster: f.Cluster, Node: m.self, Leader: m.lead, Generation: m.meta.Incarnation.Generation,
		Solo: m.soleVoter() && m.meta.Incarnation.Generation > 1, Quorum: m.lead != "",
		Config: m.st.Config.ConfigVersion, Version: m.version,
	}
	for i := range f.Nodes {
		s.Nodes = append(s.Nodes, m.nodeStatus(&f.Nodes[i]))
	}
	for i := range f.Groups {
		if gs := m.st.Groups[f.Groups[i].Name]; gs != nil {
			s.Groups = append(s.Groups, m.groupStatus(&f.Groups[i], gs))
		}
	}
	for i := range f.Monitors {
		s.Monitors = append(s.Monitors, m.monitorStatus(&f.Monitors[i]))
	}
	for _, name := range sortedKeys(m.st.Links) {
		s.Links = append(s.Links, linkStatus(name, m.st.Links[name]))
	}
	s.Mirrors = m.mirrorStatus()
	s.Networks = m.networks()
	s.Maintenance = m.maintenance()
	s.Survives, s.Why = m.survives()
	return s
}

func (m *Machine) nodeStatus(n *config.Node) api.Node {
	out := api.Node{Name: n.Name, State: cluster.NodeUnknown, Self: n.Name == m.self, Witness: n.Witness,
		Voter: slices.Contains(m.conf.GetVoters(), raftID(n.Name))}
	if s := m.st.Nodes[n.Name]; s != nil {
		out.State, out.Since, out.Why = s.State, s.Since, s.Why
		if q := s.Quarantine; q != nil {
			out.Quarantine = &api.Quarantine{Why: q.Why, Since: q.Since, Until: q.Until}
		}
	}
	if out.Self {
		_, out.Lease = m.leaseEnd()
		if m.Blank() {
			out.Why = "waiting to join the cluster"
		}
	}
	p := m.peers[n.Name]
	if p != nil && p.heard > 0 {
		heard := m.wall.Add(-m.now.Sub(p.heard))
		out.Heard = &heard
	}
	for i, a := range n.Addresses {
		up := out.Self
		if p != nil {
			up = m.hears(n, p, i)
		}
		out.Addresses = append(out.Addresses, api.Path{Address: a.String(), Up: up})
	}
	return out
}

func (m *Machine) groupStatus(g *config.Group, gs *state.Group) api.Group {
	out := api.Group{
		Name: g.Name, Comment: g.Comment, Phase: gs.Phase, Owner: gs.Owner, Epoch: gs.Epoch, Nodes: g.Nodes,
		Startup: g.Startup, Failover: g.Failover, Failback: g.Failback, Why: gs.Why,
	}
	m.flapping(&out, gs)
	if p := gs.Plan; p != nil {
		out.Plan = &api.Plan{ID: p.ID, Action: string(p.Action), From: p.From, To: p.To, Why: p.Why, Cause: p.Cause}
	}
	resources := gs.Resources
	if l := m.groups.at[g.Name]; l != nil {
		resources = l.resources // fresher than what was reported
	}
	for i := range g.Resources {
		r := &g.Resources[i]
		rs, known := resources[r.Name]
		if !known {
			rs.State = cluster.ResourceOffline
		}
		now, next := rung(r, rs)
		out.Resources = append(out.Resources, api.Resource{Name: r.Name, Kind: string(r.Kind), Comment: r.Comment, State: rs.State, Why: rs.Why, Rung: now, Next: next})
	}
	return out
}

func linkStatus(name cluster.LinkName, l *state.Link) api.Link {
	out := api.Link{Name: name, Asks: l.Asks, Verbs: l.Verbs, Groups: l.Groups, Scripts: l.Scripts, Guests: l.Guests, Asked: l.Asked}
	for _, n := range l.Nodes {
		out.Nodes = append(out.Nodes, api.LinkNode{Name: n.Name, Addresses: n.Addresses})
	}
	return out
}

// survives counts how many more faults of nodes the cluster can survive: as
// many as leave a majority (of a pair: arbitration) and a node for each group.
func (m *Machine) survives() (int, string) {
	voters := m.voters()
	alive := 0
	for _, v := range voters {
		if m.member(v) {
			alive++
		}
	}
	if m.lead == "" {
		return 0, "no majority can be reached, nothing can be decided"
	}
	spareVotes := alive - (len(voters)/2 + 1)
	missing := m.missingWitness()
	why := fmt.Sprintf("%d of %d votes are here, %d are needed%s", alive, len(voters), len(voters)/2+1, missing)
	if len(voters) == 2 && alive == 2 && missing == "" {
		spareVotes, why = 0, "a pair without a third vote: no arbitration is configured"
		if list := m.file().Arbitration; len(list) > 0 {
			spareVotes, why = 1, fmt.Sprintf("a pair: arbitration %s decides; a cut between the nodes is not a death", list[0].Kind)
		}
	}
	f := m.file()
	for i := range f.Groups {
		g := &f.Groups[i]
		gs := m.st.Groups[g.Name]
		if gs == nil || gs.Owner == "" {
			continue
		}
		spare := 0
		for _, n := range g.Nodes {
			if m.st.Suspended(g.Name) == "" && n != gs.Owner && m.member(n) && placement.Able(m.st, g, n) {
				spare++
			}
		}
		if spare < spareVotes {
			spareVotes = spare
			why = fmt.Sprintf("group %s has %d other nodes that could take it", g.Name, spare)
			if spare == 0 {
				why = cmp.Or(m.st.Suspended(g.Name), fmt.Sprintf("no other node could take group %s%s", g.Name, m.staleCopies(g)))
			}
		}
	}
	return max(spareVotes, 0), why
}

// missingWitness says which witness is not part of the votes that are here, and
// why, or "".
func (m *Machine) missingWitness() string {
	f := m.file()
	for i := range f.Nodes {
		switch n := f.Nodes[i].Name; {
		case !f.Nodes[i].Witness:
		case !m.alive(n):
			return fmt.Sprintf("; witness %s is silent", n)
		case !slices.Contains(m.voters(), n) && len(f.Nodes) <= maxVoters:
			return fmt.Sprintf("; witness %s has no vote yet", n)
		}
	}
	return ""
}

// nextWake returns when time alone makes something due.
func (m *Machine) nextWake() cluster.Instant {
	at := m.nextBeat
	sooner := func(t cluster.Instant) {
		if t > m.now && t < at {
			at = t
		}
	}
	if m.leading() || !m.leaderHeard() {
		sooner(m.tickDue())
	}
	if m.raft != nil && m.lead == "" {
		sooner(m.campaign)
	}
	if end, held := m.leaseEnd(); held && (!m.soleVoter() || m.boundToPing()) && len(m.groups.at) > 0 {
		sooner(end.Add(-m.timing().Isolate))
	}
	if m.boundToPing() {
		sooner(m.pingAt)
	}
	for n, p := range m.peers {
		if s := m.st.Nodes[n]; s != nil && s.State == cluster.NodeUp {
			sooner(p.heard.Add(m.timing().Lease))
			sooner(m.voter.Bound(n, m.timing().Lease))
		}
		if n == m.lead {
			sooner(p.heard.Add(m.electionTimeout()))
		}
	}
	m.nextStepDue(sooner)
	for _, w := range m.watches {
		if t, due := w.tracker.Next(); due {
			sooner(cluster.Instant(t))
		}
	}
	return at
}

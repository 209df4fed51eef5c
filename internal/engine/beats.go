package engine

import (
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/lease"
	"github.com/tasuki-ha/tasuki/internal/quorum"
)

// peer is what is known of another node by its heartbeats.
type peer struct {
	heard    cluster.Instant         // latest heartbeat on any path; 0 if never
	paths    map[int]cluster.Instant // the same, by path
	lost     map[int]loss            // paths whose loss was logged, and how
	flaps    map[int]*flap           // lines of the log by path
	hearing  map[int]hearing         // what is heard of it, by path
	row      []hearing               // what it hears, as it told
	rowAt    cluster.Instant         // when it told
	back     cluster.Instant         // when it was heard again after it had been silent on all of them
	deaf     cluster.Instant         // since when it says that it does not hear us; 0: it does not say so
	next     cluster.Instant         // when it is sent the next heartbeat
	sent     cluster.Instant         // when it was sent the latest one
	acked    cluster.Instant         // the latest one that it acknowledged
	beats    uint64                  // that were sent to it
	last     beat
	welcomed string // its latest life without state that we, as its leader, have ended
	verdicts []verdictOf
	mirrors  []mirrorCopyOf
}

func (m *Machine) peer(n cluster.NodeName) *peer {
	p := m.peers[n]
	if p == nil {
		p = &peer{paths: map[int]cluster.Instant{}, lost: map[int]loss{}, flaps: map[int]*flap{}, hearing: map[int]hearing{}}
		m.peers[n] = p
	}
	return p
}

func (m *Machine) silence() time.Duration { return lease.Silence(m.timing()) }

func (m *Machine) pace() time.Duration { return lease.Pace(m.timing()) }

// alive says whether heartbeats of the node arrive, and ours there.
func (m *Machine) alive(n cluster.NodeName) bool {
	return n == m.self || m.heard(n) && !m.deaf(n)
}

// heard says whether heartbeats of the node arrive. It may be one that hears
// nothing itself.
func (m *Machine) heard(n cluster.NodeName) bool {
	p := m.peers[n]
	return p != nil && p.heard > 0 && m.now.Sub(p.heard) < m.timing().Lease && !m.fenced(n)
}

// deaf says whether a node that is heard has said for two heartbeats that it does
// not hear this one. Nothing can be agreed on with it, and its lease, as far as
// it needs us, has ended: it counts as silent. A single word of it means little,
// it may only have stood still, or we have.
func (m *Machine) deaf(n cluster.NodeName) bool {
	p := m.peers[n]
	return p != nil && p.deaf > 0 && m.now.Sub(p.deaf) >= 2*m.timing().Heartbeat
}

// beat sends the heartbeats that are due, with an acknowledgement to every node
// that is part of our life of consensus. While each is acknowledged and every
// network works, most are left out (see pace); one without an answer is repeated
// soon, over all networks. Of two nodes one sets the pace (see follows); the other
// answers at once (see takeBeat) and beats by itself only when the first is late.
func (m *Machine) beat() {
	f := m.file()
	hb := m.timing().Heartbeat
	if on := m.active(); on != m.toldActive {
		// Who sets the pace may be another one from now on, and who needs an
		// acknowledgement now may have one of long ago.
		m.toldActive = on
		for _, p := range m.peers {
			p.next = m.now
		}
	}
	m.nextBeat = m.now.Add(m.pace() + hb)
	if first := m.firstDue(f, hb); m.now < first {
		m.nextBeat = min(m.nextBeat, first)
		return
	}
	all, missing := m.beatToAll(), m.missesOne()
	for i := range f.Nodes {
		n := f.Nodes[i].Name
		if n == m.self {
			continue
		}
		p := m.peer(n)
		if due := p.due(hb); m.now < due {
			m.nextBeat = min(m.nextBeat, due)
			continue
		}
		if !m.alive(n) {
			p.acked = 0 // nobody is there to be in a hurry for
		}
		answered := p.acked >= p.sent
		p.sent, p.next = m.now, m.now.Add(hb)
		p.beats++
		b := all
		b.Deaf = m.now.Sub(max(p.heard, m.started)) >= m.silence()+m.pace()
		b.Heard = m.heardPaths(&f.Nodes[i], p)
		paths := m.beatPaths(&f.Nodes[i], p, b.Heard)
		switch {
		case m.follows(p, n):
			p.next, p.acked = m.now.Add(m.pace()+hb), m.now // the pace is the other's
		case missing:
			p.next = m.now.Add(hb / 2) // who still acknowledges it is what a takeover waits for
		case len(paths) == 1 && answered:
			p.next = m.now.Add(m.pace())
		case !answered && m.alive(n):
			p.next, paths = m.now.Add(hb/2), allPaths(&f.Nodes[i])
		}
		m.nextBeat = min(m.nextBeat, p.due(hb))
		if m.acknowledges(n, p) {
			b.Ack, b.AckDaemon = p.last.Sent, p.last.Daemon
			m.voter.Acknowledged(n, p.heard)
		}
		m.eff.Beats = append(m.eff.Beats, BeatOut{To: n, Paths: paths, Payload: b.encode()})
		m.watchPaths(n, p)
	}
}

// firstDue returns when the first of the next heartbeats is due.
func (m *Machine) firstDue(f *config.File, hb time.Duration) cluster.Instant {
	first := m.nextBeat
	for i := range f.Nodes {
		n := f.Nodes[i].Name
		if p := m.peers[n]; p != nil {
			first = min(first, p.due(hb))
		} else if n != m.self {
			return 0
		}
	}
	return first
}

// beatToAll returns what is the same in a heartbeat to every node.
func (m *Machine) beatToAll() beat {
	return beat{
		Incarnation: m.meta.Incarnation, Boot: m.boot, Daemon: m.daemon, Sent: m.now,
		Lead: m.lead, WaitOver: m.waitOver, Departing: m.departing(), Active: m.activeGroups(), Acks: m.acknowledged(), Applied: m.applied, Life: m.life, Resets: m.resets,
	}
}

// missesOne says whether a node that should be up is silent.
func (m *Machine) missesOne() bool {
	for n, p := range m.peers {
		if s := m.st.Nodes[n]; s != nil && s.State == cluster.NodeUp && m.now.Sub(p.heard) >= m.silence()+m.pace() {
			return true
		}
	}
	return false
}

// beatPaths returns where the next heartbeat goes: over the paths in turn while
// all of them work in both directions, which spares half of the packets of two
// networks, and over all of them as soon as one does not.
func (m *Machine) beatPaths(n *config.Node, p *peer, heard []int) []int {
	count := len(n.Addresses)
	if len(heard) == count && len(p.last.Heard) >= count && m.mayRunSoon() {
		return []int{int(p.beats % uint64(count))}
	}
	return allPaths(n)
}

func allPaths(n *config.Node) []int {
	all := make([]int, len(n.Addresses))
	for i := range all {
		all[i] = i
	}
	return all
}

// due returns when the next heartbeat is: at its time, or half an interval after
// the latest if that has no answer from a node that gave one before.
func (p *peer) due(hb time.Duration) cluster.Instant {
	if p.acked > 0 && p.acked < p.sent {
		return min(p.next, p.sent.Add(hb/2))
	}
	return p.next
}

// follows says whether this node leaves the pace of heartbeats to the other:
// who runs groups, and so needs the acknowledgements, sets it, else the leader,
// else the first by name.
func (m *Machine) follows(p *peer, n cluster.NodeName) bool {
	if !m.alive(n) || p.last.Incarnation != m.meta.Incarnation {
		return false
	}
	mine, theirs := m.active(), len(p.last.Active) > 0
	switch {
	case mine != theirs:
		return theirs
	case m.leading() != (p.last.Lead == n):
		return p.last.Lead == n
	}
	return n < m.self
}

// acknowledged returns the nodes whose promises of ours still run.
func (m *Machine) acknowledged() []cluster.NodeName {
	var acks []cluster.NodeName
	f := m.file()
	for i := range f.Nodes {
		if n := f.Nodes[i].Name; n != m.self && m.now < m.voter.Bound(n, m.timing().Lease) {
			acks = append(acks, n)
		}
	}
	return acks
}

// acknowledges says whether we may let the node keep its lease.
func (m *Machine) acknowledges(n cluster.NodeName, p *peer) bool {
	if p.heard == 0 || m.meta.Incarnation.Blank() || p.last.Incarnation != m.meta.Incarnation {
		return false
	}
	if p.last.Deaf { // it could not know, and we would be bound
		return false
	}
	if t, ok := m.declined[n]; ok && m.now.Sub(t) < m.timing().Lease {
		return false
	}
	s := m.st.Nodes[n]
	return s != nil && s.State != cluster.NodeDown && !m.declaredDown(n)
}

func (m *Machine) takeBeat(in BeatIn) {
	b, ok := decodeBeat(in.Payload)
	if !ok || in.From == m.self || m.file().Node(in.From) == nil {
		return
	}
	p := m.peer(in.From)
	if p.last.Daemon == b.Daemon && b.Sent < p.last.Sent {
		m.pathHeard(in.From, p, in.Path) // late on this path, but it works
		return
	}
	if p.last.Boot != "" && p.last.Boot != b.Boot {
		m.voter.Release(in.From) // it says itself that its machine has booted anew: it runs nothing
	}
	if m.now.Sub(p.heard) >= m.silence()+m.pace() {
		p.back = m.now
	}
	m.unfence(in.From, b.Boot)
	first := p.last.Daemon != b.Daemon || b.Sent > p.last.Sent
	m.announceAfter(p, &b)
	p.heard, p.last = m.now, b
	m.pathHeard(in.From, p, in.Path)
	if !b.Deaf {
		p.deaf = 0
	} else if p.deaf == 0 && !m.dazed() {
		p.deaf = m.now
	}
	if first && m.follows(p, in.From) {
		p.next = m.now
	}
	if b.Incarnation == m.meta.Incarnation && b.AckDaemon == m.daemon && b.Ack > 0 && b.Ack <= m.now {
		m.holder.Acked(in.From, b.Ack)
		p.acked = max(p.acked, b.Ack)
	}
	if b.Incarnation == m.meta.Incarnation {
		m.agreed = max(m.agreed, b.Applied)
	}
	if b.WaitOver && !b.Incarnation.Blank() && (m.Blank() || b.Incarnation == m.meta.Incarnation) {
		m.waitOver = true
	}
	if !m.Blank() && m.meta.Incarnation.Yields(b.Incarnation, m.file()) {
		m.yield(in.From, b)
	}
}

// announceAfter tells the network again where our groups are when a node is back
// that was silent, or has stopped what we run too: clients may still take it for
// the owner.
func (m *Machine) announceAfter(p *peer, b *beat) {
	back := p.heard > 0 && p.back == m.now
	if !back && slices.Equal(p.last.Active, b.Active) {
		return
	}
	for _, name := range m.activeGroups() {
		stopped := slices.Contains(p.last.Active, name) && !slices.Contains(b.Active, name)
		if l := m.groups.at[name]; (back || stopped) && !m.isolated && l.runner == nil && !l.orphan {
			m.eff.Announce = append(m.eff.Announce, l.task(&l.config))
		}
	}
}

// leaseEnd returns until when this node may run groups.
func (m *Machine) leaseEnd() (cluster.Instant, bool) {
	if m.meta.Incarnation.Blank() || m.raft == nil || m.condemned() {
		return 0, false
	}
	end, held := m.holder.Until(m.now, m.self, m.voters(), m.timing().Lease)
	if m.boundToPing() {
		end, held = m.pingHeld.Add(m.timing().Lease), m.pingHeld > 0
		held = held && end > m.now && !m.pingOut
	}
	if !held && m.legacy > m.now {
		return m.legacy, true
	}
	return end, held
}

// condemned says whether this node is being declared down by a leader that it
// hears.
func (m *Machine) condemned() bool {
	t, ok := m.declined[m.self]
	return ok && m.now.Sub(t) < m.timing().Lease || m.declaredDown(m.self)
}

// mayRun says whether groups may be started here now.
func (m *Machine) mayRun() bool { return m.mayRunSoon() && !m.isolated && m.current() }

// current says whether we have applied all that the nodes that we hear had. A
// voter that acknowledges us again after we were declared down has applied that
// we are up again, and so what was decided in between: without it, a lease is
// no right to what we ran before.
func (m *Machine) current() bool { return m.applied >= m.agreed }

// checkLease isolates in time, and undoes it when the lease has come back.
func (m *Machine) checkLease() {
	m.checkWait()
	m.arbitrate()
	if m.mayRunSoon() && (!m.isolated || m.current()) {
		if m.isolated {
			m.restore()
		}
		return
	}
	if m.isolated {
		if m.now.Sub(m.isolateAt) > 2*m.timing().Lease && !m.fencing() {
			m.stopAll("the lease did not come back")
		}
		return
	}
	if m.active() {
		m.isolate()
	}
}

// mayRunSoon says whether the lease reaches beyond the time for isolating.
func (m *Machine) mayRunSoon() bool {
	end, held := m.leaseEnd()
	return held && m.now < end.Add(-m.timing().Isolate)
}

func (m *Machine) isolate() {
	end, _ := m.leaseEnd()
	m.isolated, m.isolateAt, m.harmlessBy = true, m.now, max(end, m.now.Add(m.timing().Isolate))
	cause := m.event(cluster.LevelError, "nm", "isolated", "", nil,
		"This node has isolated its groups: no majority has acknowledged it for %s.", m.timing().Lease-m.timing().Isolate)
	for _, g := range m.activeGroups() {
		l := m.groups.at[g]
		l.cause = cause
		m.eff.Isolate = append(m.eff.Isolate, l.task(&l.config))
		if l.runner != nil && !l.stopping && !l.orphan {
			m.orphan(g, l, "it was not started yet when the lease was about to end")
		}
	}
}

func (m *Machine) restore() {
	m.isolated = false
	kept := 0
	for _, g := range m.activeGroups() {
		l := m.groups.at[g]
		gs := m.st.Groups[g]
		if gs == nil || gs.Owner != m.self || gs.Epoch != l.epoch {
			continue // taken over meanwhile: follow() stops it
		}
		kept++
		if l.inherited && gs.Phase != cluster.PhaseStarting { // how far a start came nobody else knows
			l.resources = agreed(gs)
		}
		if t := l.task(&l.config); l.restorable(&t) {
			m.eff.Restore = append(m.eff.Restore, t)
		}
	}
	if kept > 0 {
		m.event(cluster.LevelInfo, "nm", "restored", "", nil, "The lease has come back and nothing was taken over: the groups of this node go on.")
	}
}

// takeExposed notes what could not be isolated: until it is stopped, the watchdog
// counts to the end of the lease.
func (m *Machine) takeExposed(e Exposed) {
	l := m.groups.at[e.Group]
	if l == nil || !m.isolated {
		return
	}
	l.exposed = m.harmlessBy
	m.event(cluster.LevelError, "rc", "group-not-isolated", l.cause, map[string]string{"group": string(e.Group)},
		"Group %s could not be made harmless at once: it is being stopped, and a watchdog resets this node if that takes longer than its lease.", e.Group)
	if !l.orphan {
		m.orphan(e.Group, l, "it could not be isolated")
	}
}

// guard returns by when something here must be harmless that is not: the end of
// the lease, or 0.
func (m *Machine) guard() cluster.Instant {
	if !m.isolated && (!m.soleVoter() || m.boundToPing()) && m.active() {
		end, _ := m.leaseEnd()
		return end
	}
	for _, name := range m.activeGroups() {
		if by := m.groups.at[name].exposed; by > 0 {
			return by
		}
	}
	return 0
}

// restorable leaves in the task what may be put back: what is being stopped, or
// was stopped, stays isolated, because its stop may be confirmed already. So
// does a group whose node is about to end.
func (l *localGroup) restorable(t *Task) bool {
	for _, r := range l.resources {
		if r.Rung == cluster.RungFinal {
			return false
		}
	}
	t.Group.Resources = slices.DeleteFunc(slices.Clone(t.Group.Resources), func(r config.Resource) bool {
		st := l.resources[r.Name].State
		return st != cluster.ResourceOnline && st != cluster.ResourceStarting
	})
	return len(t.Group.Resources) > 0
}

// checkWait ends the wait for the other nodes: all are heard, or the time that
// the file gives is over.
func (m *Machine) checkWait() {
	if m.waitOver || m.meta.Incarnation.Blank() {
		return
	}
	f := m.file()
	all := true
	for i := range f.Nodes {
		all = all && m.member(f.Nodes[i].Name)
	}
	if all || m.now.Sub(m.started) >= f.Timing.StartWait && m.mayStartAlone() {
		m.waitOver = true
	}
}

// mayStartAlone says whether a node that has waited for the others for nothing
// may go on: by its votes, or, where it is the only vote because it went on
// alone before, if arbitration says so anew, since the other may have done the
// same meanwhile.
func (m *Machine) mayStartAlone() bool {
	if !m.soleVoter() {
		return true
	}
	if !m.othersKnown() {
		return true
	}
	m.askPing()
	f := m.file()
	for i := range f.Nodes {
		n := f.Nodes[i].Name
		if n == m.self || m.member(n) {
			continue
		}
		if m.heard(n) {
			return false // it lives another life of consensus: one of us is about to yield
		}
		m.fenceFirst(n, true)
		if ruling, _ := m.rule(n); ruling != quorum.GoOn || m.pingYoung() && !m.fenced(n) {
			return false
		}
	}
	return true
}

// expired says whether the node's groups may be taken over as far as is known
// here: its lease has run out and, if the file wants that proof, it is confirmed
// to be off. That alone is not enough: a fence device may confirm what is not so.
func (m *Machine) expired(n cluster.NodeName) bool {
	return m.leaseOver(n) && (m.fenced(n) || !m.wantsProof(n))
}

// leaseOver says whether a node is silent, and what a majority promised it has
// run out. The voters judge again when the declaration reaches them.
func (m *Machine) leaseOver(n cluster.NodeName) bool {
	if m.alive(n) || m.now < m.voter.Bound(n, m.timing().Lease) {
		return false
	}
	voters, free := m.voters(), 0
	for _, v := range voters {
		if v == m.self || v != n && m.member(v) && !slices.Contains(m.peers[v].last.Acks, n) {
			free++
		}
	}
	return free > len(voters)/2
}

// yieldLead hands leadership to a voter that hears all that we hear, and a
// voter that we do not: decisions must reach as many as possible. Who was elected and
// has found his own removal in the log hands it to anybody: consensus takes no
// proposal of one that is no member, and he is let in again by another leader only.
func (m *Machine) yieldLead() {
	if m.now < m.nextYield {
		return
	}
	m.nextYield = m.now.Add(m.electionTimeout())
	if !m.isVoter() {
		m.raft.TransferLeader(m.successor())
		return
	}
	voters := m.voters()
	for _, v := range voters {
		if v == m.self || !m.member(v) {
			continue
		}
		acks, more, all := m.peers[v].last.Acks, false, true
		for _, n := range voters {
			if n == m.self || n == v {
				continue
			}
			hears := slices.Contains(acks, n)
			more = more || hears && !m.alive(n) && m.now >= m.voter.Bound(n, m.timing().Lease)
			all = all && (hears || !m.alive(n))
		}
		if more && all {
			m.raft.TransferLeader(raftID(v))
			return
		}
	}
}

// leadByWorker hands leadership to the first node of the file that is here and
// can run groups.
func (m *Machine) leadByWorker() {
	f := m.file()
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if !n.Witness && n.Name != m.self && m.alive(n.Name) && m.member(n.Name) {
			m.raft.TransferLeader(raftID(n.Name))
			return
		}
	}
}

// member says whether the peer is a living part of our life of consensus.
func (m *Machine) member(n cluster.NodeName) bool {
	if n == m.self {
		return true
	}
	p := m.peers[n]
	if p == nil || !m.alive(n) || p.last.Incarnation != m.meta.Incarnation {
		return false
	}
	id := raftID(n)
	return slices.Contains(m.conf.GetVoters(), id) || slices.Contains(m.conf.GetLearners(), id)
}

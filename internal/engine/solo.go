package engine

import (
	"fmt"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/lease"
	"github.com/tasuki-ha/tasuki/internal/quorum"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// arbitrate rules when this node is one of a pair of voters and hears nothing
// of the other. Who runs groups is judged when its lease is about to end, who
// runs none when the other must have become harmless.
func (m *Machine) arbitrate() {
	if m.boundToPing() {
		m.askPing()
		m.judgePing()
		return
	}
	other, due := m.arbitrationDue()
	if other == "" {
		m.ping, m.pingAt, m.pingAsked, m.pingLost, m.ruling = quorum.PingUnknown, 0, 0, false, ""
		return
	}
	m.askPing()
	if m.dazed() {
		return
	}
	m.fenceFirst(other, due)
	if !due && !m.fenced(other) {
		return
	}
	ruling, why := m.rule(other)
	if ruling == quorum.Wait {
		return
	}
	if ruling == quorum.GoOn && (m.pingLost || m.peer(other).heard == 0) && !m.fenced(other) && m.pingYoung() {
		return // we may be the one that was cut off: the other may only not have been heard yet
	}
	if ruling == quorum.GoOn {
		m.goSolo(string(other), why)
		return
	}
	if m.ruling != why {
		m.ruling = why
		m.event(cluster.LevelWarn, "nm", "arbitration-stop", "", nil, "This node does not go on without %s: %s.", other, why)
	}
}

// pingYoung says whether the ping targets have not answered for as long as a
// promise runs. A node that has just booted does not know whether it was cut off.
func (m *Machine) pingYoung() bool {
	return m.now < m.pingSince.Add(lease.Promise(m.timing().Lease))
}

// judgePing notes that a node bound to its ping targets has lost them, and lets
// it go on only when they have answered for as long as a promise runs: the other
// node may have gone on meanwhile, and is heard by then.
func (m *Machine) judgePing() {
	back := m.ping == quorum.PingReached && m.now >= m.pingSince.Add(lease.Promise(m.timing().Lease))
	m.pingOut = (m.pingOut || m.now >= m.pingHeld.Add(m.timing().Lease)) && !back
}

// othersFenced says whether every other node is confirmed to be off, and was not
// heard since.
func (m *Machine) othersFenced() bool {
	f := m.file()
	for i := range f.Nodes {
		if n := f.Nodes[i].Name; n != m.self && !m.fenced(n) {
			return false
		}
	}
	return true
}

// rule asks arbitration about the silent other node of a pair.
func (m *Machine) rule(other cluster.NodeName) (quorum.Ruling, string) {
	return quorum.Arbitrate(m.file().Arbitration, quorum.Facts{Ping: m.ping, Fence: m.fences[other].outcome()})
}

// arbitrationDue returns the silent other node of a pair, or "", and whether it
// is time to rule.
func (m *Machine) arbitrationDue() (cluster.NodeName, bool) {
	voters := m.voters()
	if m.raft == nil || len(m.conf.GetVoters()) != 2 || len(voters) != 2 || !m.isVoter() || m.leaving {
		return "", false
	}
	other := voters[0]
	if other == m.self {
		other = voters[1]
	}
	p := m.peer(other)
	lost := m.now.Sub(max(p.heard, m.started)) // it also counts as lost if it has no state: it cannot vote
	blank := m.alive(other) && p.last.Incarnation.Blank()
	if !blank && lost < m.silence() && !m.deaf(other) {
		return "", false
	}
	if !m.waitOver || m.meta.Left && p.heard == 0 {
		return "", false
	}
	if blank {
		return other, true
	}
	if m.active() && !m.isolated {
		return other, !m.mayRunSoon()
	}
	return other, m.now >= m.voter.Bound(other, m.timing().Lease)
}

// boundToPing says whether this node, alone after arbitration by ping, may run
// groups only as long as a target answers: where none does, the other node may
// come back and go on.
func (m *Machine) boundToPing() bool {
	return m.arbitrator(config.ArbitratePing) != nil && m.soleVoter() && m.othersKnown() && !m.othersFenced()
}

// othersKnown says whether a node that has not left by plan was ever part of the
// cluster.
func (m *Machine) othersKnown() bool {
	for n, s := range m.st.Nodes {
		if n != m.self && (s.State == cluster.NodeUp || s.State == cluster.NodeDown) {
			return true
		}
	}
	return false
}

// askPing asks the ping targets, one round at a time.
func (m *Machine) askPing() {
	a := m.arbitrator(config.ArbitratePing)
	if a == nil || m.now < m.pingAt || m.pingAsked > 0 && m.now.Sub(m.pingAsked) < pingWithin {
		return
	}
	m.pingAsked = m.now
	m.pingAt = m.now.Add(2 * m.timing().Heartbeat)
	m.eff.Ping = &PingRun{Targets: a.Targets, Need: a.Need}
}

// arbitrator returns the file's entry of that kind, or nil.
func (m *Machine) arbitrator(kind config.ArbitratorKind) *config.Arbitrator {
	list := m.file().Arbitration
	for i := range list {
		if list[i].Kind == kind {
			return &list[i]
		}
	}
	return nil
}

// pingWithin bounds how long an answer of the ping targets is waited for.
const pingWithin = 2 * time.Second

func (m *Machine) takePinged(p Pinged) {
	asked := m.pingAsked
	m.pingAsked = 0
	if asked == 0 {
		return // nobody waits for it any more
	}
	if p.Reached {
		m.pingHeld = asked
	}
	if !p.Reached {
		m.ping, m.pingLost = quorum.PingLost, true
		return
	}
	if m.ping != quorum.PingReached {
		m.pingSince = m.now
	}
	m.ping = quorum.PingReached
}

// goSolo restarts consensus with this node as the only voter, in a new life
// with a higher generation. Entries in our log are kept even if we do not know
// that they were agreed on: in a pair, whatever was agreed on is in both logs.
func (m *Machine) goSolo(silent, why string) {
	m.applyRest()
	term := m.raft.BasicStatus().HardState.GetTerm() + 1
	mt := meta{Incarnation: quorum.Incarnation{Generation: m.meta.Incarnation.Generation + 1, Node: m.self}}
	p, err := incarnate(m.st, mt, m.self, m.applied+1, term)
	must(err)
	m.eff.Persist = p
	m.meta = mt
	must(m.restoreLog(Options{Snapshot: p.Snapshot, HardState: p.HardState}))
	must(m.startRaft())
	m.holder.Forget()
	m.agreed = 0
	m.resetAsks()
	must(m.raft.Campaign())
	m.drainRaft()
	m.event(cluster.LevelWarn, "nm", "solo", "", map[string]string{"node": silent},
		"This node goes on alone, %s is silent (solo term %d): %s.", silent, mt.Incarnation.Generation, why)
}

// applyRest applies what is in the log but not known to be agreed on.
func (m *Machine) applyRest() {
	last, err := m.log.LastIndex()
	must(err)
	if last <= m.applied {
		return
	}
	entries, err := m.log.Entries(m.applied+1, last+1, math.MaxUint64)
	must(err)
	for _, e := range entries {
		m.applied = e.GetIndex()
		if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
			m.applyData(e)
		}
	}
}

// yield gives up this node's state for that of another life of consensus. What
// runs here is made harmless and stopped before the node becomes a member.
func (m *Machine) yield(to cluster.NodeName, b beat) {
	active := m.activeGroups()
	m.event(cluster.LevelWarn, "nm", "yield", "", map[string]string{"node": string(to)},
		"%s went on without this node (solo term %d). This node joins it and takes over its state.", to, b.Incarnation.Generation)
	if len(active) > 0 {
		m.event(cluster.LevelError, "nm", "both-active", "", nil,
			"Both nodes may have been active. This node stops its groups: the other went on in a higher solo term, or stands first in the cluster file.")
	}
	m.giveUpState("another node went on without this one")
}

// giveUpState stops what runs here and leaves this node without state, to join
// anew.
func (m *Machine) giveUpState(why string) {
	if m.active() && !m.isolated {
		m.isolate()
	}
	m.isolated, m.isolateAt = true, m.now
	m.stopAll(why)
	m.life++
	m.meta = meta{}
	m.raft, m.log, m.conf, m.lead, m.applied = nil, nil, &raftpb.ConfState{}, "", 0
	m.seed, m.version0 = m.file(), 0
	m.st = state.New()
	m.holder.Forget()
	m.agreed = 0
	m.resetAsks()
	m.eff.Persist = &Persist{Reset: true}
	m.saveMeta()
}

// yielding says whether groups of an older life are still being stopped: until
// then the node is no member of the new one.
func (m *Machine) yielding() bool {
	return m.meta.Incarnation.Blank() && m.active()
}

// manageMembers lets the leader add nodes that wait to become members, promote
// those that have caught up, and take out those that left.
func (m *Machine) manageMembers() {
	if m.now < m.voting.change {
		return
	}
	f := m.file()
	if m.voting.known == nil {
		m.voting.known = map[uint64]tracker.Progress{}
	}
	known := m.voting.known
	clear(known)
	m.raft.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) { known[id] = pr })
	for i := range f.Nodes {
		n := f.Nodes[i].Name
		if n == m.self {
			continue
		}
		if cc := m.memberChange(n, known); cc != nil {
			m.changeMembers(cc)
			return
		}
	}
	for _, id := range slices.Concat(m.conf.GetVoters(), m.conf.GetLearners()) {
		if m.nameOf(id) == "" {
			m.changeMembers(confChange(raftpb.ConfChangeRemoveNode, id))
			return
		}
	}
}

// changeMembers puts a change to the vote. There is one at a time: of another one
// consensus makes an entry that changes nothing, so the next is tried when something
// was agreed on, or a heartbeat later. Each answer to such an entry would lead to
// the next else, as fast as the network bears.
func (m *Machine) changeMembers(cc *raftpb.ConfChange) {
	m.voting.change = m.now.Add(m.timing().Heartbeat)
	_ = m.raft.ProposeConfChange(cc)
}

func confChange(t raftpb.ConfChangeType, id uint64) *raftpb.ConfChange {
	return &raftpb.ConfChange{Type: &t, NodeId: &id}
}

func (m *Machine) memberChange(n cluster.NodeName, all map[uint64]tracker.Progress) *raftpb.ConfChange {
	p, id := m.peer(n), raftID(n)
	pr, known := all[id]
	if !m.alive(n) {
		return nil
	}
	blank, ours := p.last.Incarnation.Blank(), p.last.Incarnation == m.meta.Incarnation
	switch {
	case p.last.Departing:
		if known && !pr.IsLearner {
			return confChange(raftpb.ConfChangeRemoveNode, id)
		}
		return nil
	case !known && (blank && len(p.last.Active) == 0 || ours):
		return confChange(raftpb.ConfChangeAddLearnerNode, id)
	case known && blank && (pr.IsLearner && pr.Match > 0 && p.welcomed != lifeName(p.last.Daemon, p.last.Life) || !pr.IsLearner && len(m.conf.GetVoters()) > 2):
		// It lost its state: what it had, and its vote, must not count any more.
		return confChange(raftpb.ConfChangeRemoveNode, id)
	case known && ours && pr.IsLearner && pr.Match+50 >= m.applied &&
		m.holder.Fresh(n, m.now, m.silence()) && // or our lease would wait for its first acknowledgement
		len(m.conf.GetVoters()) < maxVoters:
		return confChange(raftpb.ConfChangeAddNode, id)
	}
	return nil
}

// startAlone follows an operator's order to go on without the nodes that are
// silent. It is refused where the cluster decides by itself, and on a node that
// has no state to go on with; CanStartAlone says so beforehand.
func (m *Machine) startAlone(o Alone) {
	if m.CanStartAlone() != nil {
		return
	}
	why := fmt.Sprintf("%s ordered it and stated that the other nodes are off: %s", o.Author, o.Reason)
	m.waitOver = true
	silent := ""
	f := m.file()
	for i := range f.Nodes {
		if n := f.Nodes[i].Name; n != m.self {
			silent = strings.TrimPrefix(silent+", "+string(n), ", ")
			m.fences[n] = &fence{tried: m.now, off: m.now}
		}
	}
	m.goSolo(silent, why)
}

// CanStartAlone says why an operator's order to start alone would be refused,
// or nil.
func (m *Machine) CanStartAlone() *api.Error {
	f := m.file()
	switch {
	case m.raft == nil || m.meta.Incarnation.Blank():
		return &api.Error{Code: "no-state", Message: "this node has no state of the cluster to start with",
			Hint: "start alone on a node that was part of the cluster when it last ran"}
	case f.Node(m.self) == nil || f.Node(m.self).Witness:
		return &api.Error{Code: "witness", Message: "a witness runs no groups", Hint: "start alone on a node that can run them"}
	case m.lead != "" && m.waitOver:
		return &api.Error{Code: "not-alone", Message: fmt.Sprintf("the cluster has a majority and decides by itself (leader %s)", m.lead),
			Hint: "tasuki status shows what runs where"}
	}
	for i := range f.Nodes {
		if n := f.Nodes[i].Name; n != m.self && m.heard(n) {
			return &api.Error{Code: "not-alone", Message: fmt.Sprintf("%s is heard, so it is not off", n),
				Hint: "the nodes that are heard decide together; if they cannot, switch the others off first"}
		}
	}
	return nil
}

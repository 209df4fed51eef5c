package engine

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// leaveWithin bounds the last part of a planned stop, when no group is left
// here: handing over leadership and the vote.
const leaveWithin = 3 * time.Second

// beginLeave starts a planned stop of this node.
func (m *Machine) beginLeave() {
	if m.leaving {
		return
	}
	m.leaving = true
	m.event(cluster.LevelInfo, "nm", "leaving", "", nil, "The daemon on %s is stopping.", m.self)
	if m.meta.Incarnation.Blank() {
		m.leaveAt = m.now
	}
}

// departing says whether this node wants to be no voter any more.
func (m *Machine) departing() bool { return m.leaving && m.leaveAt > 0 }

// leave carries a planned stop on, one step a call.
func (m *Machine) leave() {
	if !m.leaving {
		return
	}
	n := m.st.Nodes[m.self]
	switch {
	case m.leaveAt > 0:
		m.depart()
	case n == nil || n.State == cluster.NodeLeft && !m.active():
		m.leaveAt = m.now
		if !m.meta.Incarnation.Blank() {
			m.meta.Left = true
			m.saveMeta()
		}
		m.depart()
	case (!n.Leaving || len(m.st.OwnedBy(m.self)) == 0 && !m.active()) && !m.askedToLeave():
		a := m.newAsk(admission.NodeLeave, "its daemon is stopping", "")
		a.Node = m.self
		m.ask(a, false)
	}
}

func (m *Machine) askedToLeave() bool {
	for _, p := range m.outbox {
		if p.ask.Kind == admission.NodeLeave {
			return true
		}
	}
	return false
}

// depart hands leadership and vote over, then ends.
func (m *Machine) depart() {
	over := m.now.Sub(m.leaveAt) >= leaveWithin
	others := false
	for _, v := range m.voters() {
		others = others || v != m.self && m.alive(v)
	}
	switch {
	case over || m.raft == nil || m.soleVoter() || !m.isVoter() || !others:
		m.exited, m.eff.Exit = true, true
	case m.leading():
		m.raft.TransferLeader(m.successor())
	}
}

func (m *Machine) successor() uint64 {
	best, match := uint64(raft.None), uint64(0)
	m.raft.WithProgress(func(id uint64, t raft.ProgressType, pr tracker.Progress) {
		if t == raft.ProgressTypePeer && id != raftID(m.self) && m.alive(m.nameOf(id)) && pr.Match >= match {
			best, match = id, pr.Match
		}
	})
	return best
}

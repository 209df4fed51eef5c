package engine

import (
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/coordinator"
	"github.com/tasuki-ha/tasuki/internal/state"
)

const (
	askAgain  = 300 * time.Millisecond // an ask without a reply is sent again
	askGiveUp = 8 * time.Second        // and refused after this, unless it is a report
	maxQueue  = 1024
)

// pending is an ask of this node that has no reply yet.
type pending struct {
	ask     admission.Ask
	since   cluster.Instant
	sentTo  cluster.NodeName
	sentAt  cluster.Instant
	outside bool                // somebody waits for the reply; else it is tried until it is answered
	monitor cluster.MonitorName // whose ladder asked
}

// queued is an ask that waits until the leader can decide it.
type queued struct {
	ask  admission.Ask
	from cluster.NodeName
}

// ask takes an ask of this node to the leader.
func (m *Machine) ask(a admission.Ask, outside bool) {
	if _, known := m.outbox[a.ID]; known {
		return
	}
	m.outbox[a.ID] = &pending{ask: a, since: m.now, outside: outside}
}

// pump sends asks to the leader, again after a while or to a new leader.
func (m *Machine) pump() {
	if m.lead == "" || m.raft == nil {
		return
	}
	for _, id := range m.pending(func(p *pending) bool { return p.sentTo != m.lead || m.now.Sub(p.sentAt) >= askAgain }) {
		p := m.outbox[id]
		p.sentTo, p.sentAt = m.lead, m.now
		if m.lead == m.self {
			m.takeAsk(m.self, p.ask)
		} else {
			m.send(m.lead, false, message{Ask: &p.ask})
		}
	}
}

// expireAsks refuses what could not be brought to a leader in time.
func (m *Machine) expireAsks() {
	for _, id := range m.pending(func(p *pending) bool { return (p.outside || p.monitor != "") && m.now.Sub(p.since) >= askGiveUp }) {
		p := m.outbox[id]
		delete(m.outbox, id)
		if p.monitor != "" {
			m.rungReply(p, m.noLeader())
			continue
		}
		m.eff.Replies = append(m.eff.Replies, Reply{ID: id, Err: m.noLeader()})
	}
}

// pending returns the ids of the asks without a reply that are so, in order.
func (m *Machine) pending(so func(*pending) bool) (ids []cluster.RequestID) {
	for id, p := range m.outbox {
		if so(p) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (m *Machine) noLeader() *api.Error {
	if m.meta.Incarnation.Blank() {
		return &api.Error{Code: "no-state", Message: "this node has not joined its cluster yet",
			Hint: "is another node of the cluster running and reachable? tasuki status"}
	}
	return &api.Error{Code: "no-quorum", Message: "no majority of the nodes can be reached, so nothing can be decided",
		Hint: "tasuki status shows which nodes are heard"}
}

// takeAsk is the leader's side.
func (m *Machine) takeAsk(from cluster.NodeName, a admission.Ask) {
	if !m.leading() {
		m.answer(from, reply{ID: a.ID, Retry: true})
		return
	}
	if ans, known := m.st.Answered(a.ID); known {
		m.answer(from, reply{ID: a.ID, Answer: ans, Err: ans.Err})
		return
	}
	if waiters, under := m.inflight[a.ID]; under {
		if !slices.Contains(waiters, from) {
			m.inflight[a.ID] = append(waiters, from)
		}
		return
	}
	if slices.ContainsFunc(m.queue, func(q queued) bool { return q.ask.ID == a.ID && q.from == from }) {
		return
	}
	if len(m.queue) >= maxQueue {
		m.answer(from, reply{ID: a.ID, Err: &api.Error{Code: "overload", Message: "too much is being asked at once", Hint: "ask again"}})
		return
	}
	m.queue = append(m.queue, queued{ask: a, from: from})
}

// answer replies to a node, or to whoever waits on this one.
func (m *Machine) answer(to cluster.NodeName, r reply) {
	if to != m.self {
		m.send(to, false, message{Reply: &r})
		return
	}
	m.takeReply(m.self, r)
}

func (m *Machine) takeReply(_ cluster.NodeName, r reply) {
	p := m.outbox[r.ID]
	if p == nil || r.Retry {
		return // sent again by pump
	}
	delete(m.outbox, r.ID)
	if p.monitor != "" {
		m.rungReply(p, r.Err)
	}
	if p.outside {
		m.eff.Replies = append(m.eff.Replies, Reply{ID: r.ID, Answer: r.Answer, Err: r.Err})
	}
}

// answerWaiters replies to all who asked, once the entry is agreed on.
func (m *Machine) answerWaiters(id cluster.RequestID) {
	waiters := m.inflight[id]
	delete(m.inflight, id)
	ans, known := m.st.Answered(id)
	if !known {
		return
	}
	for _, to := range waiters {
		m.answer(to, reply{ID: id, Answer: ans, Err: ans.Err})
	}
}

// resetAsks forgets what a leader knew of asks; their origins send them again.
func (m *Machine) resetAsks() {
	m.queue, m.inflight, m.proposed = nil, map[cluster.RequestID][]cluster.NodeName{}, ""
}

// leadOn is what a leader does after each event: members, asks, decisions. One
// decision is under way at a time, so each is made on the state that it meets.
func (m *Machine) leadOn() {
	if !m.leading() {
		if len(m.queue) > 0 || len(m.inflight) > 0 || m.proposed != "" {
			m.resetAsks()
		}
		return
	}
	m.yieldLead()
	m.manageMembers()
	m.admitReports()
	m.drainRaft()
	for m.proposed == "" && len(m.queue) > 0 {
		q := m.queue[0]
		m.queue = m.queue[1:]
		m.admit(q, true)
		m.drainRaft()
	}
	if m.proposed != "" {
		return
	}
	m.fenceLost()
	if !m.decideAgain() {
		return
	}
	if cmds := coordinator.Decide(m.st, m.view()); len(cmds) > 0 {
		m.decided = decided{} // if it is dropped, it is decided again
		m.announce(cmds)
		m.dropped(m.propose(state.Entry{Commands: cmds}, true))
	}
}

// decided is what the latest decision was made on.
type decided struct {
	at       cluster.Instant
	applied  uint64
	waitOver bool
	seen     []coordinator.Seen // in the order of the file, without the time since a heartbeat
}

// decideEvery is how often decisions are made although nothing has changed.
const decideEvery = 500 * time.Millisecond

// decideAgain says whether anything has changed since the latest decision.
func (m *Machine) decideAgain() bool {
	f, d := m.file(), &m.decided
	same := d.at > 0 && m.now.Sub(d.at) < decideEvery && d.applied == m.applied && d.waitOver == m.waitOver && len(d.seen) == len(f.Nodes)
	if len(d.seen) != len(f.Nodes) {
		d.seen = make([]coordinator.Seen, len(f.Nodes))
	}
	for i := range f.Nodes {
		seen := m.seen(f.Nodes[i].Name)
		seen.Silent = 0
		same = same && d.seen[i] == seen
		d.seen[i] = seen
	}
	if !same {
		d.at, d.applied, d.waitOver = m.now, m.applied, m.waitOver
	}
	return !same
}

// FieldSilent is the field of the event that a node is silent: for how many
// milliseconds it was not heard.
const FieldSilent = "silent_ms"

// announce writes the line that is the cause of what the declaration of a dead
// node leads to.
func (m *Machine) announce(cmds []state.Command) {
	for _, c := range cmds {
		if c.Node != nil && c.Node.State == cluster.NodeDown && c.Node.Cause == "" {
			c.Node.Cause = m.event(cluster.LevelError, "nm", "node-silent", "", map[string]string{"node": string(c.Node.Name), FieldSilent: took(m.seen(c.Node.Name).Silent)},
				"Node %s has been %s.", c.Node.Name, c.Node.Why)
		}
	}
}

// admitReports takes the asks that need no decision: the state itself drops
// what no longer fits.
func (m *Machine) admitReports() {
	rest := m.queue[:0:0]
	for _, q := range m.queue {
		if q.ask.Kind == admission.Commands {
			m.admit(q, false)
		} else {
			rest = append(rest, q)
		}
	}
	m.queue = rest
}

func (m *Machine) admit(q queued, decided bool) {
	if ans, known := m.st.Answered(q.ask.ID); known {
		m.answer(q.from, reply{ID: q.ask.ID, Answer: ans, Err: ans.Err})
		return
	}
	if waiters, under := m.inflight[q.ask.ID]; under {
		m.inflight[q.ask.ID] = append(waiters, q.from)
		return
	}
	q.ask.Wall = m.wall // times are compared with the leader's clock
	q.ask.Blank = q.ask.Kind == admission.MirrorForce && m.copyOf(q.ask.Resource, q.ask.Node).Blank
	entry, no := admission.Admit(m.st, q.ask)
	if no != nil {
		m.answer(q.from, reply{ID: q.ask.ID, Err: no})
		return
	}
	m.inflight[q.ask.ID] = []cluster.NodeName{q.from}
	if m.dropped(m.propose(entry, decided)) {
		delete(m.inflight, q.ask.ID)
	}
}

// dropped says whether a proposal was not taken: leadership was just lost, or
// is being handed over. Whoever asked asks again.
func (m *Machine) dropped(err error) bool { return err != nil }

// view is what the coordinator sees.
func (m *Machine) view() coordinator.View {
	v := coordinator.View{Wall: m.wall, WaitOver: m.waitOver,
		Nodes: map[cluster.NodeName]coordinator.Seen{}}
	f := m.file()
	for i := range f.Nodes {
		v.Nodes[f.Nodes[i].Name] = m.seen(f.Nodes[i].Name)
	}
	return v
}

func (m *Machine) seen(n cluster.NodeName) coordinator.Seen {
	if n == m.self {
		return coordinator.Seen{Alive: true, Boot: m.boot, Daemon: m.daemon, Resets: m.resets}
	}
	p := m.peer(n)
	seen := coordinator.Seen{
		Alive: m.member(n) && !p.last.Departing, Boot: p.last.Boot, Daemon: p.last.Daemon, Resets: p.last.Resets,
		Expired: m.expired(n), Silent: m.now.Sub(max(p.heard, m.started)),
	}
	if m.heard(n) && m.deaf(n) {
		seen.Deaf, seen.Silent = true, m.silence()+m.pace()+m.now.Sub(p.deaf)
	}
	return seen
}

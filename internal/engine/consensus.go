package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/lease"
	"github.com/tasuki-ha/tasuki/internal/quorum"
	"github.com/tasuki-ha/tasuki/internal/state"
)

const (
	electionTicks = lease.ElectionBeats
	idleTicks     = 20  // heartbeats for one of consensus, while all is steady
	compactAfter  = 400 // entries kept behind the latest snapshot
	maxVoters     = 7
)

func (m *Machine) restoreLog(o Options) error {
	m.log = raft.NewMemoryStorage()
	if o.Snapshot != nil && !raft.IsEmptySnap(o.Snapshot) {
		if err := m.log.ApplySnapshot(o.Snapshot); err != nil {
			return fmt.Errorf("load the snapshot: %w", err)
		}
		st, err := state.UnmarshalLike(o.Snapshot.GetData(), o.Like)
		if err != nil {
			return err
		}
		m.st = st
		m.applied = o.Snapshot.GetMetadata().GetIndex()
		m.conf = o.Snapshot.GetMetadata().GetConfState()
	}
	if o.HardState != nil {
		m.narrated = m.lastNarrated(o)
		if err := m.log.SetHardState(o.HardState); err != nil {
			return fmt.Errorf("load the vote: %w", err)
		}
	}
	if err := m.log.Append(o.Entries); err != nil {
		return fmt.Errorf("load the log: %w", err)
	}
	return nil
}

// lastNarrated returns the last entry that has got its lines: by the operator's
// log, or, where that knows nothing of this life of consensus, what was agreed
// on when it was last persisted.
func (m *Machine) lastNarrated(o Options) uint64 {
	if rest, ours := strings.CutPrefix(o.Narrated, m.meta.Incarnation.String()+"/"); ours {
		if n, err := strconv.ParseUint(rest, 10, 64); err == nil {
			return n
		}
	}
	return o.HardState.GetCommit()
}

func (m *Machine) startRaft() error {
	rn, err := raft.NewRawNode(&raft.Config{
		ID: raftID(m.self), ElectionTick: electionTicks, HeartbeatTick: 1,
		Storage: freshSnapshots{m.log, m}, Applied: m.applied, CheckQuorum: true, PreVote: true,
		MaxSizePerMsg: 512 << 10, MaxCommittedSizePerReady: 4 << 20,
		MaxUncommittedEntriesSize: 16 << 20, MaxInflightMsgs: 64,
		DisableProposalForwarding: true, Logger: quiet{},
	})
	if err != nil {
		return fmt.Errorf("start consensus: %w", err)
	}
	m.raft, m.lead = rn, ""
	m.campaign = m.now.Add(m.stagger())
	if m.soleVoter() {
		m.campaign = m.now
	}
	return nil
}

// freshSnapshots is the log in memory, whose snapshot is always of now: a node
// that was just added takes only one that knows it as a member.
type freshSnapshots struct {
	*raft.MemoryStorage
	m *Machine
}

func (s freshSnapshots) Snapshot() (*raftpb.Snapshot, error) {
	data, err := s.m.st.Marshal()
	if err != nil {
		return nil, fmt.Errorf("write the replicated state: %w", err)
	}
	snap, err := s.CreateSnapshot(s.m.applied, s.m.conf, data)
	if errors.Is(err, raft.ErrSnapOutOfDate) {
		return s.MemoryStorage.Snapshot()
	}
	return snap, err
}

// stagger spreads candidacies by the order of the file, so that two nodes do
// not split the votes again and again.
func (m *Machine) stagger() time.Duration {
	f := m.file()
	hb := m.timing().Heartbeat
	for i := range f.Nodes {
		if f.Nodes[i].Name == m.self {
			return hb * time.Duration(1+2*i)
		}
	}
	return hb
}

// voters returns the nodes that vote, in file order; nobody may change it.
func (m *Machine) voters() []cluster.NodeName {
	if c := &m.voting; c.conf != m.conf || c.file != m.file() {
		c.conf, c.file, c.names = m.conf, m.file(), m.names(m.conf.GetVoters())
	}
	return m.voting.names
}

// voting remembers what voters returned, and of what, and when its members may
// change next.
type voting struct {
	conf   *raftpb.ConfState
	file   *config.File
	names  []cluster.NodeName
	change cluster.Instant
	known  map[uint64]tracker.Progress // room for manageMembers
}

func (m *Machine) names(ids []uint64) []cluster.NodeName {
	var names []cluster.NodeName
	for i := range m.file().Nodes {
		if n := m.file().Nodes[i].Name; slices.Contains(ids, raftID(n)) {
			names = append(names, n)
		}
	}
	return names
}

// nameOf returns the node of the file that consensus knows by that number, or "".
func (m *Machine) nameOf(id uint64) cluster.NodeName {
	if c := &m.naming; c.file != m.file() {
		c.file, c.of = m.file(), map[uint64]cluster.NodeName{}
		for i := range c.file.Nodes {
			c.of[raftID(c.file.Nodes[i].Name)] = c.file.Nodes[i].Name
		}
	}
	return m.naming.of[id]
}

// naming remembers what nameOf returns, and of which file.
type naming struct {
	file *config.File
	of   map[uint64]cluster.NodeName
}

func (m *Machine) soleVoter() bool {
	v := m.conf.GetVoters()
	return len(v) == 1 && v[0] == raftID(m.self)
}

func (m *Machine) isVoter() bool { return slices.Contains(m.conf.GetVoters(), raftID(m.self)) }

// leading says whether this node leads and may decide.
func (m *Machine) leading() bool {
	return m.raft != nil && m.lead == m.self && m.raft.BasicStatus().RaftState == raft.StateLeader
}

// drainRaft hands on what consensus wants done and applies what was agreed.
// Everything is collected in the effects, which persist before they send.
func (m *Machine) drainRaft() {
	for m.raft != nil && m.raft.HasReady() {
		rd := m.raft.Ready()
		if rd.SoftState != nil {
			m.lead = m.nameOf(rd.SoftState.Lead)
		}
		m.keep(rd)
		if !raft.IsEmptySnap(rd.Snapshot) {
			m.applySnapshot(rd.Snapshot)
		}
		for _, msg := range rd.Messages {
			m.sendRaft(msg)
		}
		for _, e := range rd.CommittedEntries {
			m.applyEntry(e)
		}
		m.raft.Advance(rd)
	}
}

// keep notes what must be durable.
func (m *Machine) keep(rd raft.Ready) {
	if raft.IsEmptyHardState(rd.HardState) && len(rd.Entries) == 0 && raft.IsEmptySnap(rd.Snapshot) {
		return
	}
	p := m.persist()
	if !raft.IsEmptySnap(rd.Snapshot) {
		p.Snapshot, p.Entries = rd.Snapshot, nil
		must(m.log.ApplySnapshot(rd.Snapshot))
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		p.HardState = rd.HardState
		must(m.log.SetHardState(rd.HardState))
	}
	if len(rd.Entries) > 0 {
		first := rd.Entries[0].GetIndex()
		keep := slices.IndexFunc(p.Entries, func(e *raftpb.Entry) bool { return e.GetIndex() >= first })
		if keep >= 0 {
			p.Entries = p.Entries[:keep]
		}
		p.Entries = append(p.Entries, rd.Entries...)
		must(m.log.Append(rd.Entries))
	}
}

func (m *Machine) persist() *Persist {
	if m.eff.Persist == nil {
		m.eff.Persist = &Persist{}
	}
	return m.eff.Persist
}

func (m *Machine) saveMeta() {
	rec, err := json.Marshal(m.meta)
	must(err)
	m.persist().Meta = rec
}

// must stops the daemon where going on would break a promise: memory and disk
// would no longer hold the same log.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("engine: the log in memory refused what was agreed: %v", err))
	}
}

func (m *Machine) applySnapshot(s *raftpb.Snapshot) {
	st, err := state.UnmarshalLike(s.GetData(), m.st)
	must(err)
	m.st, m.applied, m.conf = st, s.GetMetadata().GetIndex(), s.GetMetadata().GetConfState()
	for name, l := range m.groups.at { // what happened in between is not known
		gs := m.st.Groups[name]
		l.lost = l.lost || gs == nil || gs.Epoch > l.epoch || gs.Epoch < l.epoch && !l.inherited
	}
	m.event(cluster.LevelInfo, "nm", "state-received", "", nil, "The cluster's state has been received from %s.", orNobody(m.lead))
}

func orNobody(n cluster.NodeName) cluster.NodeName {
	if n == "" {
		return "another node"
	}
	return n
}

func (m *Machine) applyEntry(e *raftpb.Entry) {
	m.applied, m.voting.change = e.GetIndex(), 0
	switch e.GetType() {
	case raftpb.EntryConfChange:
		var cc raftpb.ConfChange
		must(proto.Unmarshal(e.GetData(), &cc))
		m.conf = m.raft.ApplyConfChange(&cc)
	case raftpb.EntryConfChangeV2:
		var cc raftpb.ConfChangeV2
		must(proto.Unmarshal(e.GetData(), &cc))
		m.conf = m.raft.ApplyConfChange(&cc)
	default:
		if len(e.GetData()) > 0 {
			m.applyData(e)
		}
	}
	m.compact()
}

func (m *Machine) applyData(e *raftpb.Entry) {
	entry, err := state.DecodeEntry(e.GetData())
	must(err)
	if entry.Nonce != "" && entry.Nonce == m.proposed {
		m.proposed = ""
	}
	before := m.before(entry)
	m.st.Apply(entry)
	for name, was := range before.groups {
		l, now := m.groups.at[name], m.st.Groups[name]
		if l == nil || was.Owner != m.self || now != nil && now.Owner == m.self || l.inherited && was.Epoch < l.epoch {
			continue // not taken from us, or before what an earlier daemon ran
		}
		l.lost = true
	}
	if e.GetIndex() > m.narrated {
		m.narrating = e.GetIndex()
		m.narrate(entry, before)
		m.narrating = 0
	}
	if entry.Answer != nil {
		m.answerWaiters(entry.Answer.ID)
	}
}

func (m *Machine) compact() {
	first, err := m.log.FirstIndex()
	must(err)
	if m.applied < first+compactAfter {
		return
	}
	data, err := m.st.Marshal()
	must(err)
	snap, err := m.log.CreateSnapshot(m.applied, m.conf, data)
	if errors.Is(err, raft.ErrSnapOutOfDate) {
		return
	}
	must(err)
	p := m.persist()
	p.Snapshot = snap
	must(m.log.Compact(m.applied - compactAfter/2))
}

// propose puts an entry to the vote. Only a leader can. An entry that was
// decided on the present state holds further decisions up until it is applied.
func (m *Machine) propose(e state.Entry, decided bool) error {
	if decided {
		m.asks++
		e.Nonce = fmt.Sprintf("%s/%s/%d", m.self, m.daemon, m.asks)
	}
	if err := m.raft.Propose(e.Encode()); err != nil {
		return err
	}
	if decided {
		m.proposed = e.Nonce
	}
	return nil
}

// tick lets consensus's time pass: one tick a heartbeat.
func (m *Machine) tick() {
	m.beat()
	m.listen()
	m.tickRaft()
	m.checkLease()
	m.checkMonitors()
	m.stepsOverdue()
	m.expireAsks()
}

func (m *Machine) tickRaft() {
	if m.raft == nil || m.now < m.nextTick || m.now < m.tickDue() {
		return
	}
	missed := m.now.Sub(m.nextTick) / m.timing().Heartbeat // a follower sleeps through some
	m.nextTick = m.now.Add(m.timing().Heartbeat)
	if m.leading() {
		m.raft.Tick()
		return
	}
	for range 1 + min(missed, 2*electionTicks) {
		m.raft.TickQuiesced() //nolint:staticcheck // the only way to let time pass without its global random source
	}
	if !m.isVoter() || m.leaving {
		return
	}
	if m.leaderHeard() {
		m.campaign = m.now.Add(m.stagger())
		return
	}
	if m.now >= m.campaign {
		m.campaign = m.now.Add(m.electionTimeout() + m.stagger())
		_ = m.raft.Campaign() // refused while a change of voters is being applied; tried again
	}
}

// tickDue returns when consensus's clock moves next: with every heartbeat, or
// seldom for a leader while all is steady.
func (m *Machine) tickDue() cluster.Instant {
	if m.leading() && m.steady() {
		return m.nextTick.Add(m.timing().Heartbeat * (idleTicks - 1))
	}
	return m.nextTick
}

// leaderHeard says whether heartbeats of a leader other than this node arrive. One
// that has lost its state is heard too, and leads no more.
func (m *Machine) leaderHeard() bool {
	p := m.peers[m.lead]
	return m.lead != "" && p != nil && p.heard > 0 && m.now.Sub(p.heard) < m.electionTimeout() && !m.deaf(m.lead) &&
		p.last.Incarnation == m.meta.Incarnation
}

// steady says whether every member is heard and has all that there is: then
// consensus's own heartbeats, which repeat what was lost and notice who is gone,
// have nothing to do.
func (m *Machine) steady() bool {
	last, err := m.log.LastIndex()
	all := err == nil
	m.raft.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id != raftID(m.self) {
			all = all && pr.Match == last && m.alive(m.nameOf(id))
		}
	})
	return all
}

func (m *Machine) electionTimeout() time.Duration {
	return m.timing().Heartbeat * electionTicks
}

func (m *Machine) sendRaft(msg *raftpb.Message) {
	to := m.nameOf(msg.GetTo())
	if to == "" || to == m.self {
		return
	}
	data, err := proto.Marshal(msg)
	must(err)
	bulk := msg.GetType() == raftpb.MsgSnap
	m.send(to, bulk, message{Raft: data, Blank: m.blankLife(to)})
	if bulk {
		// The transport redelivers or the follower asks again: raft must not wait.
		m.raft.ReportSnapshot(msg.GetTo(), raft.SnapshotFinish)
	}
}

// blankLife names the receiver's life without state, if it says that it has none
// and consensus does not count on what it had before. Only a message with that
// name makes it a member: one that was meant for an earlier life would make a
// vote of a node that has forgotten what it voted for.
func (m *Machine) blankLife(n cluster.NodeName) string {
	p := m.peers[n]
	if p == nil || !p.last.Incarnation.Blank() {
		return ""
	}
	life := lifeName(p.last.Daemon, p.last.Life)
	if p.welcomed == life {
		return life
	}
	had := false
	m.raft.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		had = had || id == raftID(n) && pr.Match > 0
	})
	if had {
		return ""
	}
	p.welcomed = life
	return life
}

func lifeName(daemon string, life uint64) string { return fmt.Sprintf("%s/%d", daemon, life) }

// takeRaft steps a message of consensus that belongs to our life of it.
func (m *Machine) takeRaft(from cluster.NodeName, inc quorum.Incarnation, data []byte, blank string) {
	var msg raftpb.Message
	if err := proto.Unmarshal(data, &msg); err != nil || raftID(from) != msg.GetFrom() || msg.GetTo() != raftID(m.self) {
		return
	}
	if m.meta.Incarnation.Blank() && (blank != lifeName(m.daemon, m.life) || !m.adopt(inc, &msg)) {
		return
	}
	if inc != m.meta.Incarnation || m.bound(&msg) || m.needless(&msg) {
		return
	}
	if m.forgot(&msg) {
		m.event(cluster.LevelError, "nm", "state-older", "", nil,
			"This node has less of the cluster's state than it once confirmed: its disk was restored from a copy, or has lost writes. It gives that state up and joins anew.")
		m.giveUpState("its state is older than what it confirmed")
		return
	}
	_ = m.raft.Step(&msg) // an answer from a node that is no member any more: nothing to do
}

// forgot says whether a leader's message proves that this node, or what it took
// for agreed on, is of another past. A leader never tells a follower to take more
// as agreed on than that has confirmed, and what is agreed on never changes.
func (m *Machine) forgot(msg *raftpb.Message) bool {
	hs := m.raft.BasicStatus().HardState
	if msg.GetTerm() < hs.GetTerm() {
		return false // of a leader that was replaced
	}
	switch msg.GetType() {
	case raftpb.MsgHeartbeat:
		last, err := m.log.LastIndex()
		must(err)
		return msg.GetCommit() > last
	case raftpb.MsgApp:
		if msg.GetIndex() > hs.GetCommit() {
			return false
		}
		term, err := m.log.Term(msg.GetIndex())
		return err == nil && term != msg.GetLogTerm()
	}
	return false
}

// needless says whether the message asks for a vote although the leader is
// heard: by our heartbeats, since consensus's own are rare while all is steady.
// A leader that hands over asks for it itself.
func (m *Machine) needless(msg *raftpb.Message) bool {
	switch msg.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		return m.leaderHeard() && m.peers[m.lead].last.Lead == m.lead && string(msg.GetContext()) != "CampaignTransfer"
	}
	return false
}

// adopt lets a node without state become part of the life of consensus whose
// leader has written to it.
func (m *Machine) adopt(inc quorum.Incarnation, msg *raftpb.Message) bool {
	t := msg.GetType()
	if inc.Blank() || m.yielding() || t != raftpb.MsgSnap && t != raftpb.MsgApp && t != raftpb.MsgHeartbeat {
		return false
	}
	m.meta = meta{Incarnation: inc}
	m.saveMeta()
	m.log, m.conf, m.applied = raft.NewMemoryStorage(), &raftpb.ConfState{}, 0
	must(m.startRaft())
	return true
}

// bound says whether the message would make us agree to something that we
// promised not to: a takeover of a node whose heartbeat we acknowledged less
// than a lease ago. It is dropped; the leader sends it again. Meanwhile the
// node is not acknowledged any more, so the promise runs out and the log, which
// the entry holds up, goes on. If we ourselves are declared down, our lease ends
// now.
func (m *Machine) bound(msg *raftpb.Message) bool {
	for _, e := range msg.GetEntries() {
		if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
			continue
		}
		down, err := state.DeclaresDown(e.GetData())
		if err != nil {
			return true
		}
		for _, n := range down {
			free := m.now >= m.voter.Bound(n, m.timing().Lease)
			if n == m.self { // no promise to ourselves, but we must be harmless first
				free = !m.active() || m.isolated && m.now >= m.harmlessBy
			}
			if !free && e.GetIndex() > msg.GetCommit() { // else a majority has agreed to it already
				m.declined[n] = m.now
				return true
			}
		}
	}
	return false
}

// declaredDown says whether our log, agreed on or not yet, declares the node
// down: from then on its heartbeats are not acknowledged.
func (m *Machine) declaredDown(n cluster.NodeName) bool {
	last, err := m.log.LastIndex()
	if err != nil || last <= m.applied {
		return false
	}
	if err := m.declaring.follow(m.log, m.applied, last); err != nil {
		return true
	}
	return slices.ContainsFunc(m.declaring.down, func(d declaration) bool { return d.node == n })
}

// declaring remembers whom the entries declare down that are not agreed on yet.
type declaring struct {
	log        *raft.MemoryStorage
	last, term uint64 // up to where it has looked; the term names all before it too
	down       []declaration
}

type declaration struct {
	index uint64
	node  cluster.NodeName
}

// follow looks at what is new in the log.
func (d *declaring) follow(log *raft.MemoryStorage, applied, last uint64) error {
	if term, err := log.Term(d.last); d.log != log || err != nil || term != d.term || d.last < applied {
		*d = declaring{log: log, last: applied}
	}
	d.down = slices.DeleteFunc(d.down, func(x declaration) bool { return x.index <= applied })
	if d.last >= last {
		return nil
	}
	entries, err := log.Entries(d.last+1, last+1, math.MaxUint64)
	if err != nil {
		return err
	}
	for _, e := range entries {
		d.last, d.term = e.GetIndex(), e.GetTerm()
		for _, n := range declaredIn(e) {
			d.down = append(d.down, declaration{d.last, n})
		}
	}
	return nil
}

// declaredIn returns whom an entry declares down.
func declaredIn(e *raftpb.Entry) []cluster.NodeName {
	if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
		return nil
	}
	down, err := state.DeclaresDown(e.GetData())
	if err != nil {
		return nil
	}
	return down
}

// quiet drops consensus's own chatter: what matters to an operator is an event.
type quiet struct{}

func (quiet) Debug(...any)              {}
func (quiet) Debugf(string, ...any)     {}
func (quiet) Error(...any)              {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Info(...any)               {}
func (quiet) Infof(string, ...any)      {}
func (quiet) Warning(...any)            {}
func (quiet) Warningf(string, ...any)   {}
func (quiet) Fatal(v ...any)            { panic(fmt.Sprint(v...)) }
func (quiet) Fatalf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
func (quiet) Panic(v ...any)            { panic(fmt.Sprint(v...)) }
func (quiet) Panicf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }

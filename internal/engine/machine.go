package engine

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/lease"
	"github.com/tasuki-ha/tasuki/internal/quorum"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Options is what a machine starts with.
type Options struct {
	Self    cluster.NodeName
	Boot    string // the same as long as the machine has not booted anew
	Daemon  string // new at every start
	Now     cluster.Instant
	NextSeq uint64 // of the first event that it writes
	Version string

	HardState *raftpb.HardState // as last persisted; nil on a new node
	Snapshot  *raftpb.Snapshot
	Entries   []*raftpb.Entry
	Meta      []byte
	Like      *state.State // probably with the cluster file of Snapshot, which then needs no reading; or nil

	// Resets is how many times in a row the node's own watchdog has reset it before
	// this boot.
	Resets int

	// Narrated is the field FieldEntry of the newest event of this node that has
	// one; "" if none has. Its lines are not written again.
	Narrated string

	// Lease is the latest Effects.Lease of an earlier daemon since the machine
	// booted; 0 if there was none.
	Lease cluster.Instant

	// Runs is the latest Effects.Runs of an earlier daemon since the machine
	// booted. What the cluster has given away meanwhile is stopped.
	Runs Runs

	// Seed is the cluster file that a joining node was given. It serves only
	// until the replicated one has arrived.
	Seed *config.File
}

// meta is what is kept beside the raft log.
type meta struct {
	Incarnation quorum.Incarnation `json:"incarnation"`
	Left        bool               `json:"left,omitempty"` // it left by plan: its state may be old
}

// Machine is one node. Its methods must be called from one goroutine.
type Machine struct {
	self    cluster.NodeName
	boot    string
	daemon  string
	version string
	seed    *config.File

	now     cluster.Instant
	wall    time.Time
	started cluster.Instant
	resets  int
	wakeAt  cluster.Instant // when the latest step asked to be called again
	awake   cluster.Instant // when it last went on after a standstill; 0: never
	eff     *Effects
	seq     uint64

	meta      meta
	raft      *raft.RawNode // nil while the node has no state
	log       *raft.MemoryStorage
	conf      *raftpb.ConfState
	applied   uint64
	followed  uint64 // applied, when follow last looked
	agreed    uint64 // the most of the log that any node of our life of consensus said it has applied
	narrated  uint64 // entries up to this one have got their lines before this start
	life      uint64 // how often this daemon has given up its state
	voting    voting
	naming    naming
	narrating uint64 // the entry whose lines are being written; 0 if none
	lead      cluster.NodeName
	nextYield cluster.Instant
	campaign  cluster.Instant // not before this
	nextTick  cluster.Instant
	decided   decided
	proposed  string // nonce of the decision that is under way; one at a time

	st       *state.State
	waitOver bool

	peers      map[cluster.NodeName]*peer
	holder     lease.Holder
	legacy     cluster.Instant // the lease that an earlier daemon held
	voter      *lease.Voter
	declaring  declaring
	declined   map[cluster.NodeName]cluster.Instant // a declaration that it is down was last held up then
	nextBeat   cluster.Instant
	toldActive bool // whether the latest heartbeats said that something is active here
	listenAt   cluster.Instant
	rowTold    cluster.Instant // when the other nodes were told what is heard here
	rowNew     bool            // it has changed since

	ping       quorum.Ping
	pingAsked  cluster.Instant // when the round that is under way began; 0: none is
	pingHeld   cluster.Instant // when the latest round began in which a target answered
	pingAt     cluster.Instant
	pingSince  cluster.Instant // since when the targets answer without a gap
	pingLost   bool            // no target answered once since the other node is silent
	pingOut    bool            // bound to the targets, this node has lost them and they are not back for long enough
	ruling     string          // the last ruling that was logged
	isolated   bool
	isolateAt  cluster.Instant
	harmlessBy cluster.Instant // when isolated: the end of the lease

	fences map[cluster.NodeName]*fence

	groups   localGroups
	owning   owning
	watches  map[cluster.MonitorName]*watch
	tellAt   cluster.Instant // the other nodes are told what the monitors know
	told     Runs            // the latest Effects.Runs
	mirrors  mirrorsHere
	version0 uint64 // the version of the file that groups and monitors follow

	outbox   map[cluster.RequestID]*pending
	queue    []queued
	inflight map[cluster.RequestID][]cluster.NodeName
	asks     uint64
	runs     uint64

	leaving bool
	leaveAt cluster.Instant
	exited  bool
}

// New returns a machine that goes on from what was persisted. It returns an
// error if that cannot be read.
func New(o Options) (*Machine, error) {
	m := &Machine{
		self: o.Self, boot: o.Boot, daemon: o.Daemon, version: o.Version, seed: o.Seed, resets: o.Resets,
		now: o.Now, started: o.Now, seq: o.NextSeq, eff: &Effects{},
		st: state.New(), peers: map[cluster.NodeName]*peer{}, declined: map[cluster.NodeName]cluster.Instant{}, voter: lease.NewVoter(o.Now),
		fences: map[cluster.NodeName]*fence{},
		groups: localGroups{at: map[cluster.GroupName]*localGroup{}}, watches: map[cluster.MonitorName]*watch{},
		outbox: map[cluster.RequestID]*pending{}, inflight: map[cluster.RequestID][]cluster.NodeName{},
		conf: &raftpb.ConfState{}, legacy: o.Lease, mirrors: newMirrorsHere(),
	}
	if o.Seed == nil {
		m.seed = &config.File{}
	}
	if len(o.Meta) > 0 {
		if err := json.Unmarshal(o.Meta, &m.meta); err != nil {
			return nil, fmt.Errorf("read the node's own record: %w", err)
		}
	}
	if !m.meta.Incarnation.Blank() {
		if err := m.restoreLog(o); err != nil {
			return nil, err
		}
		if err := m.startRaft(); err != nil {
			return nil, err
		}
	}
	m.inherit(o.Runs)
	m.rewatch() // the first probes may come before the first Step
	return m, nil
}

// Bootstrap returns what the first node of a new cluster persists before its
// first start.
func Bootstrap(self cluster.NodeName, text, author string, wall time.Time) (*Persist, error) {
	st := state.New()
	st.Apply(state.Entry{Commands: []state.Command{{Config: &state.SetConfig{Text: text, Author: author, Note: "tasuki init", Time: wall}}}})
	if st.Config.Version != 1 {
		return nil, fmt.Errorf("the cluster file is not valid")
	}
	return incarnate(st, meta{Incarnation: quorum.Incarnation{Generation: 1, Node: self}}, self, 1, 1)
}

// incarnate returns a new life of consensus in which only self votes.
func incarnate(st *state.State, mt meta, self cluster.NodeName, index, term uint64) (*Persist, error) {
	data, err := st.Marshal()
	if err != nil {
		return nil, fmt.Errorf("write the replicated state: %w", err)
	}
	rec, err := json.Marshal(mt)
	if err != nil {
		return nil, fmt.Errorf("write the node's own record: %w", err)
	}
	snap := &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		ConfState: &raftpb.ConfState{Voters: []uint64{raftID(self)}}, Index: &index, Term: &term,
	}}
	return &Persist{Reset: true, Snapshot: snap, HardState: &raftpb.HardState{Term: &term, Commit: &index}, Meta: rec}, nil
}

// raftID returns the number by which consensus knows a node.
func raftID(n cluster.NodeName) uint64 {
	h := fnv.New64a()
	h.Write([]byte(n))
	return h.Sum64()
}

// Step takes one event at an instant of the node's own clock; wall is the time
// of day, for texts only. Instants never go back.
func (m *Machine) Step(now cluster.Instant, wall time.Time, ev Event) Effects {
	m.eff = &Effects{}
	m.now, m.wall = now, wall
	m.noticeStandstill()
	if m.exited {
		m.eff.Exit = true
		return *m.eff
	}
	applied, lead := m.applied, m.lead
	m.take(ev)
	m.drainRaft()
	m.tick()
	m.drainRaft()
	m.leave()
	for range maxRounds { // what one part does may be due for another at once
		m.follow()
		m.followMirrors()
		m.pump()
		m.leadOn()
		m.drainRaft()
		if !m.busy() {
			break
		}
	}
	m.tellRuns()
	m.eff.Changed = m.applied != applied || m.lead != lead
	m.eff.Lease, _ = m.leaseEnd()
	m.eff.Guard = m.guard()
	m.eff.WakeAt = m.nextWake()
	m.wakeAt = m.eff.WakeAt
	return *m.eff
}

// noticeStandstill notes that this step comes much later than was asked for: the
// daemon or its machine stood still. What it last heard is old, and what came
// meanwhile is still on its way here.
func (m *Machine) noticeStandstill() {
	if m.wakeAt == 0 || m.now.Sub(m.wakeAt) < 2*m.timing().Heartbeat {
		return
	}
	m.awake = m.now
	for _, p := range m.peers {
		p.deaf = 0 // nobody has heard us meanwhile
	}
	if !m.boundToPing() {
		m.ping, m.pingAt, m.pingAsked = quorum.PingUnknown, 0, 0
	}
}

// dazed says whether this node has been awake for too short a time to know who
// else is.
func (m *Machine) dazed() bool {
	return m.awake > 0 && m.now < m.awake.Add(2*m.timing().Heartbeat)
}

// maxRounds bounds the rounds of one Step; what is left waits for the next.
const maxRounds = 8

// busy says whether the last round has left something that the next can do at
// once.
func (m *Machine) busy() bool {
	if m.applied != m.followed {
		m.followed = m.applied
		return true
	}
	for _, p := range m.outbox {
		if p.sentTo == "" && m.lead != "" && m.raft != nil {
			return true
		}
	}
	return m.proposed == "" && len(m.queue) > 0 && m.leading()
}

func (m *Machine) take(ev Event) {
	switch {
	case ev.Beat != nil:
		m.takeBeat(*ev.Beat)
	case ev.Peer != nil:
		m.takePeer(*ev.Peer)
	case ev.Ask != nil:
		m.ask(*ev.Ask, true)
	case ev.OpDone != nil:
		m.takeOpDone(*ev.OpDone)
	case ev.Checked != nil:
		m.takeChecked(*ev.Checked)
	case ev.Failed != nil:
		m.takeFailed(*ev.Failed)
	case ev.Exposed != nil:
		m.takeExposed(*ev.Exposed)
	case ev.Probe != nil:
		m.takeProbe(*ev.Probe)
	case ev.Script != nil:
		m.takeScript(*ev.Script)
	case ev.Pinged != nil:
		m.takePinged(*ev.Pinged)
	case ev.Fenced != nil:
		m.takeFenced(*ev.Fenced)
	case ev.Fence != nil:
		m.orderFence(*ev.Fence)
	case ev.Alone != nil:
		m.startAlone(*ev.Alone)
	case ev.Log != nil:
		m.logLine(*ev.Log)
	case ev.Rehearse != nil:
		m.rehearse(*ev.Rehearse)
	case ev.Mirror != nil:
		m.takeMirrorAsk(*ev.Mirror)
	case ev.MirrorStatus != nil:
		m.takeMirrorStatus(*ev.MirrorStatus)
	case ev.Leave:
		m.beginLeave()
	}
}

// file returns the cluster file that this node goes by.
func (m *Machine) file() *config.File {
	if m.st.Config.Version > 0 {
		return m.st.File()
	}
	return m.seed
}

func (m *Machine) timing() config.Timing {
	t := m.file().Timing
	if t.Heartbeat <= 0 {
		t.Heartbeat = 100 * time.Millisecond
	}
	if t.Lease <= 0 {
		t.Lease = time.Second
	}
	if t.Isolate <= 0 {
		t.Isolate = 300 * time.Millisecond
	}
	return t
}

// log writes one line of the operator's log and returns its id.
func (m *Machine) event(level cluster.Level, module, code string, cause cluster.EventID, fields map[string]string, format string, args ...any) cluster.EventID {
	return m.logLine(api.Event{Level: level, Module: module, Code: code, Cause: cause, Fields: fields, Text: fmt.Sprintf(format, args...)})
}

// FieldEntry is the field of events that tell what an entry of the log has
// changed: which one, so that a node that starts again knows what it has told.
const FieldEntry = "entry"

func (m *Machine) entryRef(index uint64) string {
	return fmt.Sprintf("%s/%d", m.meta.Incarnation, index)
}

func (m *Machine) logLine(e api.Event) cluster.EventID {
	if m.narrating > 0 {
		if e.Fields == nil {
			e.Fields = map[string]string{}
		}
		e.Fields[FieldEntry] = m.entryRef(m.narrating)
	}
	e.ID = cluster.EventID(fmt.Sprintf("%s/%d", m.self, m.seq))
	m.seq++
	e.Node, e.Time = m.self, m.wall
	if e.Level == "" {
		e.Level = cluster.LevelInfo
	}
	m.eff.Events = append(m.eff.Events, e)
	return e.ID
}

// newID returns an id for an ask of this node.
func (m *Machine) newID(what string) cluster.RequestID {
	m.asks++
	return cluster.RequestID(fmt.Sprintf("%s/%s/%s/%d", m.self, m.daemon, what, m.asks))
}

// NewAsk completes an ask that comes from this node: id and time of day.
func (m *Machine) newAsk(kind admission.Kind, why string, cause cluster.EventID) admission.Ask {
	return admission.Ask{ID: m.newID(string(kind)), Kind: kind, Why: why, Cause: cause, Wall: m.wall}
}

// sortedKeys returns the keys of a map in order, so that a seed replays a story.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	if len(m) == 0 {
		return nil
	}
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

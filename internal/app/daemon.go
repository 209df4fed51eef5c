package app

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/fence"
	"github.com/tasuki-ha/tasuki/internal/heartbeat"
	"github.com/tasuki-ha/tasuki/internal/host"
	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/journal"
	"github.com/tasuki-ha/tasuki/internal/metrics"
	"github.com/tasuki-ha/tasuki/internal/outlet"
	"github.com/tasuki-ha/tasuki/internal/paths"
	"github.com/tasuki-ha/tasuki/internal/peer"
	"github.com/tasuki-ha/tasuki/internal/request"
	"github.com/tasuki-ha/tasuki/internal/script"
	"github.com/tasuki-ha/tasuki/internal/state"
	"github.com/tasuki-ha/tasuki/internal/store"
)

// Options is what a daemon is started with.
type Options struct {
	Dirs    paths.Dirs
	Version string
	Log     *slog.Logger
	// OnlyInNamespace keeps the watchdog from resetting anything but a PID
	// namespace, for nodes that are not a machine.
	OnlyInNamespace bool
	// LabPower is the socket of the power switches of this host's guests in a
	// lab; "" outside of one.
	LabPower string
	// Witness is a daemon that votes and does nothing else: no resource, monitor
	// or script runs in it, and others like it may run in the same process.
	Witness bool
}

// Names of files below the directories of a node, and of the values beside the
// log.
const (
	dirIdentity = "identity"
	dirJournal  = "events"
	fileStore   = "raft.db"
	metaEngine  = "engine"
	metaSeed    = "seed" // the cluster file that a joining node was given
)

// Kinds of messages between nodes: the first byte.
const (
	toEngine = 'E'
	toGossip = 'J'
)

// Daemon is one node, running.
type Daemon struct {
	opt     Options
	dirs    paths.Dirs
	log     *slog.Logger
	node    cluster.NodeName
	ctx     context.Context // ends when the daemon ends
	product script.Product
	// The ports that count until the daemon starts anew: of nodes that name
	// none, and of this one.
	clusterPort, port uint16

	id       *identity.Identity
	store    *store.Store
	journal  *journal.Journal
	lease    *leaseFile
	network  *host.Linux
	loop     *engine.Loop
	actor    *actor
	monitors *monitors
	fences   *fence.Fencer
	gossip   *gossip
	peers    *peer.Transport
	beats    *heartbeat.Transport
	sender   *request.Sender
	answered *answered
	metrics  *metrics.Set
	outlets  *outlet.Outlets
	gate     *gate
	news     bell // of the status
	away     *turnedAway
	tasks    []func(context.Context) error // what runs as long as the daemon

	current   atomic.Pointer[config.File]
	gaveUp    bool // it could not go on
	stalls    *stalls
	progress  atomic.Pointer[time.Time] // of the engine's latest step
	switching chan struct{}             // capacity maxSwitching: actions on guests' power
	looking   chan struct{}             // capacity maxSwitching: looks at it
	passed    chan struct{}             // capacity 1: the engine has made a step
	foreseer  *foreseer
	drafter   *foreseer         // apart: the set-up wizard waits for no simulation
	guard     atomic.Int64      // engine.Effects.Guard
	newFile   chan *config.File // capacity 1: the latest wins
	inbox     chan gossipIn     // events of other nodes, which may wait for the disk

	mu      sync.Mutex
	waiting map[cluster.RequestID]chan engine.Reply
}

type gossipIn struct {
	from cluster.NodeName
	data []byte
}

// file returns the cluster file in force.
func (d *Daemon) file() *config.File { return d.current.Load() }

// record writes a line of the operator's log and returns its id.
func (d *Daemon) record(ctx context.Context, e api.Event) cluster.EventID {
	eff, err := d.loop.Step(ctx, engine.Event{Log: &e})
	if err != nil || len(eff.Events) == 0 {
		return ""
	}
	for _, got := range eff.Events {
		if got.Code == e.Code && got.Text == e.Text {
			return got.ID
		}
	}
	return ""
}

// ask brings an ask to the cluster and waits for what it comes to.
func (d *Daemon) ask(ctx context.Context, a admission.Ask) (state.Answer, *api.Error) {
	ch := make(chan engine.Reply, 1)
	d.mu.Lock()
	d.waiting[a.ID] = ch
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.waiting, a.ID)
		d.mu.Unlock()
	}()
	stopping := &api.Error{Code: "timed-out", Message: "no answer in time", Hint: "tasuki status shows whether the cluster can decide"}
	if !d.loop.Post(ctx, engine.Event{Ask: &a}) {
		return state.Answer{}, stopping
	}
	select {
	case r := <-ch:
		return r.Answer, r.Err
	case <-ctx.Done():
		return state.Answer{}, stopping
	}
}

// Persist implements engine.Ports.
func (d *Daemon) Persist(p *engine.Persist) error {
	b := store.Batch{Reset: p.Reset, HardState: p.HardState, Entries: p.Entries, Snapshot: p.Snapshot}
	if p.Meta != nil {
		b.Meta = map[string][]byte{metaEngine: p.Meta}
	}
	began := time.Now()
	defer func() { d.stalls.wrote(time.Since(began)) }()
	return d.store.Save(b)
}

// Do implements engine.Ports.
func (d *Daemon) Do(eff engine.Effects) {
	began := time.Now()
	d.keepTime(eff)
	for _, s := range eff.Sends {
		class := peer.Normal
		if s.Bulk {
			class = peer.Bulk
		}
		d.peers.Send(s.To, class, append([]byte{toEngine}, s.Data...))
	}
	d.sendBeats(eff.Beats)
	for _, e := range eff.Events {
		if err := d.journal.Append(e); err != nil {
			d.log.Error("an event could not be kept", "event", e.ID, "error", err)
		}
		d.metrics.Event(&e)
	}
	d.gossip.spread(eff.Events)
	if eff.Changed || len(eff.Events) > 0 || len(eff.Ops) > 0 {
		d.news.ring()
	}
	if eff.Config != nil {
		d.follow(eff.Config)
	}
	if eff.Runs != nil {
		if err := writeRuns(d.dirs.Run, runs{Cluster: d.file().Cluster, Node: d.node, Runs: *eff.Runs}); err != nil {
			d.log.Error("a daemon that cannot read its state would not know what to end", "error", err)
		}
	}
	exposed := false
	if d.opt.Witness {
		d.actAsWitness(eff)
	} else {
		exposed = d.act(eff)
	}
	for _, r := range eff.Replies {
		d.mu.Lock()
		ch := d.waiting[r.ID]
		d.mu.Unlock()
		if ch != nil {
			select {
			case ch <- r:
			default: // answered already
			}
		}
	}
	if eff.Guard > 0 {
		d.lease.write(eff.Lease)
	}
	if !exposed { // else it stays as it was: the engine is about to hear of it
		d.guard.Store(int64(eff.Guard))
	}
	now := time.Now()
	d.stalls.carried(now.Sub(began))
	d.progress.Store(&now)
	select {
	case d.passed <- struct{}{}:
	default:
	}
}

// guardLeft returns how long what runs here may go on without a renewal of the
// lease.
func (d *Daemon) guardLeft() (time.Duration, bool) {
	g := cluster.Instant(d.guard.Load())
	return g.Sub(engine.Now()), g > 0
}

// act starts what the effects want done outside; nothing here waits but the
// isolation, which is bounded. It says whether something could not be isolated.
func (d *Daemon) act(eff engine.Effects) bool {
	var wg sync.WaitGroup
	var exposed atomic.Bool
	within := d.file().Timing.Isolate
	d.tellMirrors(eff)
	for _, t := range eff.Isolate {
		wg.Go(func() {
			if !d.actor.isolate(t, within) {
				exposed.Store(true)
				go d.post(engine.Event{Exposed: &engine.Exposed{Group: t.Group.Name}})
			}
		})
	}
	wg.Wait()
	for _, t := range eff.Restore {
		wg.Go(func() { d.actor.restore(t, within) })
	}
	wg.Wait()
	for _, t := range eff.Announce {
		d.actor.announce(t)
	}
	for _, op := range eff.Ops {
		d.actor.operate(op)
	}
	for _, t := range eff.Checks {
		d.actor.check(t)
	}
	for _, s := range eff.Scripts {
		go func() {
			f := d.file()
			done := ladderScript(d.ctx, d.product, d.dirs, f.Cluster, d.node, s)
			d.post(engine.Event{Script: &done})
		}()
	}
	if eff.Ping != nil {
		go d.ping(*eff.Ping)
	}
	for _, f := range eff.Fences {
		go d.forceOff(f)
	}
	if eff.Final != nil {
		go d.final(*eff.Final)
	}
	return exposed.Load()
}

func (d *Daemon) sendBeats(beats []engine.BeatOut) {
	for _, b := range beats {
		for _, path := range b.Paths {
			d.beats.Send(b.To, path, b.Payload)
		}
	}
}

// post hands an event to the engine, for as long as the daemon lives.
func (d *Daemon) post(ev engine.Event) { d.loop.Post(d.ctx, ev) }

// follow notes a new cluster file; the parts follow it outside of the engine's
// step.
func (d *Daemon) follow(f *config.File) {
	d.current.Store(f)
	for {
		select {
		case d.newFile <- f:
			return
		default:
		}
		select {
		case <-d.newFile: // an older one that nobody took yet
		default:
		}
	}
}

// reconfigure lets addresses and monitors follow the cluster file.
func (d *Daemon) reconfigure(f *config.File) {
	self := f.Node(d.node)
	if self == nil {
		return
	}
	var ps []peer.Peer
	for _, n := range f.Nodes {
		if n.Name != d.node {
			ps = append(ps, peer.Peer{Name: n.Name, Addresses: n.Addresses, Port: cmp.Or(n.Port, d.clusterPort)})
		}
	}
	d.peers.SetPeers(ps, self.Addresses)
	d.beats.SetPeers(beatPeers(ps), self.Addresses)
	d.metrics.Forget(f)
	if d.opt.Witness {
		return
	}
	d.followDrivers(f)
	d.monitors.follow(d.ctx, f)
	d.fences.Changed()
	d.outlets.Follow(d.ctx, f)
}

// received takes a message of another node.
func (d *Daemon) received(from cluster.NodeName, _ peer.Class, msg []byte) {
	if len(msg) == 0 {
		return
	}
	switch msg[0] {
	case toEngine:
		d.post(engine.Event{Peer: &engine.PeerIn{From: from, Data: msg[1:]}})
	case toGossip:
		select {
		case d.inbox <- gossipIn{from, msg[1:]}:
		default: // the next comparison of digests brings it again
		}
	}
}

const pingWithin = 500 * time.Millisecond

// ping asks all ping targets at once.
func (d *Daemon) ping(run engine.PingRun) {
	ctx, cancel := context.WithTimeout(d.ctx, pingWithin)
	defer cancel()
	var answered atomic.Int64
	var wg sync.WaitGroup
	for _, a := range run.Targets {
		wg.Go(func() {
			if _, err := d.network.Ping(ctx, a); err == nil && answered.Add(1) >= int64(run.Need) {
				cancel() // that is enough
			}
		})
	}
	wg.Wait()
	d.post(engine.Event{Pinged: &engine.Pinged{Reached: answered.Load() >= int64(run.Need)}})
}

// final carries out a final action once its line of the log is safe.
func (d *Daemon) final(f engine.Final) {
	if err := d.journal.Sync(); err != nil {
		d.log.Error("the log could not be written before the final action", "error", err)
	}
	if f.Action == cluster.ActionStopDaemon {
		d.post(engine.Event{Leave: true})
		return
	}
	takeFinal(d.ctx, f.Action, d.log)
}

// makeDirs makes the directories of a node.
func makeDirs(dirs paths.Dirs) error {
	for _, dir := range []string{dirs.Etc, dirs.State, dirs.Log, dirs.Run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a directory of Tasuki: %w", err)
		}
	}
	return nil
}

// openStore opens the replicated state, or says what to do about it.
func openStore(dirs paths.Dirs, log *slog.Logger) (*store.Store, error) {
	return store.Open(filepath.Join(dirs.State, fileStore), store.Options{
		SlowAfter: time.Second,
		OnSlow:    func(d time.Duration) { log.Warn("the disk is slow: a write takes longer than expected", "limit", d) },
	})
}

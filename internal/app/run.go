package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/heartbeat"
	"github.com/tasuki-ha/tasuki/internal/host"
	"github.com/tasuki-ha/tasuki/internal/host/priority"
	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/journal"
	"github.com/tasuki-ha/tasuki/internal/monitor"
	"github.com/tasuki-ha/tasuki/internal/monitor/custom"
	"github.com/tasuki-ha/tasuki/internal/monitor/mirror"
	"github.com/tasuki-ha/tasuki/internal/monitor/niclink"
	"github.com/tasuki-ha/tasuki/internal/monitor/userspace"
	"github.com/tasuki-ha/tasuki/internal/peer"
	"github.com/tasuki-ha/tasuki/internal/request"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/resource/exec"
	"github.com/tasuki-ha/tasuki/internal/resource/floatingip"
	"github.com/tasuki-ha/tasuki/internal/script"
)

// linkPing is how often an idle connection to a linked cluster is tried. A
// request does not depend on it: it tries the next address after milliseconds.
const linkPing = 3 * time.Second

// Run runs the daemon of this node until ctx ends; then it hands its groups over
// and returns. An error says why it could not start or go on.
func Run(ctx context.Context, o Options) error {
	if err := makeDirs(o.Dirs); err != nil {
		return err
	}
	// The daemon waits nearly all the time; a second processor only costs it the
	// waking of threads that find nothing to do.
	runtime.GOMAXPROCS(1)
	raise(o.Log)
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	d := &Daemon{
		opt: o, dirs: o.Dirs, log: o.Log, ctx: life, product: script.ThisProduct(o.Version),
		answered: &answered{byID: map[cluster.RequestID]*answer{}}, waiting: map[cluster.RequestID]chan engine.Reply{},
		switching: make(chan struct{}, maxSwitching), looking: make(chan struct{}, maxSwitching), foreseer: newForeseer(), drafter: newForeseer(), stalls: newStalls(time.Now()),
		passed: make(chan struct{}, 1), newFile: make(chan *config.File, 1), inbox: make(chan gossipIn, 256),
	}
	d.gate, d.away = newGate(), newTurnedAway(d.record)
	err := d.live(ctx, end)
	if err != nil && !o.Witness { // which runs nothing that could be left behind
		d.abandon(err)
	}
	return err
}

// live opens all parts, runs them, and closes them.
func (d *Daemon) live(ctx context.Context, end context.CancelFunc) error {
	var closers closeStack
	defer func() { closers.close(d.log) }()
	if err := d.open(&closers); err != nil {
		return err
	}
	if err := d.wire(&closers); err != nil {
		return err
	}
	err := d.serve(ctx, end)
	d.gaveUp = err != nil
	return err
}

// raise gives the daemon precedence over other programs, so that an overloaded
// machine keeps its lease, and says what could be had.
func raise(log *slog.Logger) {
	got := priority.Raise()
	level := slog.LevelInfo
	if len(got.Missing) > 0 {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "the daemon "+got.String())
}

// closeStack is what was opened; it closes last in, first out.
type closeStack []struct {
	name string
	f    func() error
}

func (c *closeStack) push(name string, f func() error) {
	*c = append(*c, struct {
		name string
		f    func() error
	}{name, f})
}

func (c closeStack) close(log *slog.Logger) {
	for i := len(c) - 1; i >= 0; i-- {
		if err := c[i].f(); err != nil {
			log.Error("a part did not close well", "part", c[i].name, "error", err)
		}
	}
}

// open opens what is on disk and makes the machine from it.
func (d *Daemon) open(closers *closeStack) error {
	id, err := identity.Load(filepath.Join(d.dirs.Etc, dirIdentity))
	if err != nil {
		return err
	}
	d.id, d.node = id, id.Node()
	if d.store, err = openStore(d.dirs, d.log); err != nil {
		return err
	}
	closers.push("state", d.store.Close)
	saved, err := d.store.Load()
	if err != nil {
		return err
	}
	if d.journal, err = journal.Open(filepath.Join(d.dirs.State, dirJournal), d.node, journal.Options{Cluster: id.Cluster(), Log: d.log}); err != nil {
		return err
	}
	closers.push("events", d.journal.Close)
	boot, err := bootID(d.dirs.Run)
	if err != nil {
		return err
	}
	daemon, err := newID()
	if err != nil {
		return err
	}
	lease, until, err := openLease(d.dirs.Run)
	if err != nil {
		return err
	}
	d.lease = lease
	closers.push("lease", lease.f.Close)
	inherited, err := readRuns(d.dirs.Run)
	if err != nil {
		return err
	}
	again, err := countResets(d.dirs.State, boot)
	if err != nil {
		return err
	}
	eo := engine.Options{
		Self: d.node, Boot: boot, Daemon: daemon, Now: engine.Now(), NextSeq: d.journal.Next(), Version: d.opt.Version,
		Narrated: narrated(d.journal, d.node), HardState: saved.HardState, Snapshot: saved.Snapshot, Entries: saved.Entries, Meta: saved.Meta[metaEngine], Lease: until, Runs: inherited.Runs, Resets: again,
	}
	if seed := saved.Meta[metaSeed]; len(seed) > 0 {
		f, errs := config.Parse("cluster file", seed)
		if len(errs) > 0 {
			return fmt.Errorf("read the cluster file that this node joined with: %w", errs)
		}
		eo.Seed = f
	}
	m, err := engine.New(eo)
	if err != nil {
		return err
	}
	if m.File().Node(d.node) == nil {
		return &api.Error{Code: "no-state", Message: fmt.Sprintf("node %s has an identity but no cluster file", d.node),
			Hint: "its state directory was lost: take its identity away too and join again"}
	}
	if err := d.onlyVotes(m.File()); err != nil {
		return err
	}
	d.current.Store(m.File())
	d.clusterPort, d.port = m.File().Port, m.File().PortOf(m.File().Node(d.node))
	d.loop = engine.NewLoop(m, d)
	d.peers = peer.New(peer.Options{
		Self: d.node, Boot: daemon, Log: d.log, TLS: id.PeerTLS, Receive: d.received, Key: d.newKey,
	})
	return nil
}

// narrated returns which entry of the log this node has told of last.
func narrated(j *journal.Journal, self cluster.NodeName) string {
	for _, e := range slices.Backward(j.Query(journal.Filter{Node: self, Newest: true, Limit: 1000})) {
		if ref := e.Fields[engine.FieldEntry]; ref != "" {
			return ref
		}
	}
	return ""
}

// newKey gives the heartbeats the key of a new connection.
func (d *Daemon) newKey(n cluster.NodeName, secret []byte, dialer bool) {
	if err := d.beats.AddKey(n, heartbeat.Key{Secret: secret, Dialer: dialer}); err != nil {
		d.log.Error("a heartbeat key could not be used", "node", n, "error", err)
	}
}

func beatPeers(ps []peer.Peer) []heartbeat.Peer {
	out := make([]heartbeat.Peer, len(ps))
	for i, p := range ps {
		out[i] = heartbeat.Peer(p)
	}
	return out
}

// wire joins the parts that need no disk.
func (d *Daemon) wire(closers *closeStack) error {
	d.measure()
	d.beats = heartbeat.New(heartbeat.Options{Port: d.port, Log: d.log, Receive: func(from cluster.NodeName, path int, payload []byte) {
		d.metrics.Beat(from, path, payload)
		d.loop.Offer(engine.Event{Beat: &engine.BeatIn{From: from, Path: path, Payload: payload}})
		d.peers.Kick(from, path)
	}})
	d.gossip = &gossip{journal: d.journal, log: d.log, peers: d.otherNodes, send: func(to cluster.NodeName, data []byte) {
		d.peers.Send(to, peer.Normal, append([]byte{toGossip}, data...))
	}}
	d.fences = d.newFencer()
	links := d.askable
	if d.opt.Witness {
		links = func() []request.Link { return nil }
	}
	d.sender = request.New(request.Options{Identity: d.id, Logger: d.log, Links: links, PingEvery: linkPing})
	d.tasks = append(d.tasks, d.stalls.Run, d.sender.Run, d.peers.Run, d.beats.Run, d.journal.Run)
	if d.opt.Witness {
		return nil
	}
	return d.wireGroups(closers)
}

// wireGroups joins the parts that run groups and watch.
func (d *Daemon) wireGroups(closers *closeStack) error {
	network, err := host.NewLinux()
	if err != nil {
		return err
	}
	d.network = network
	closers.push("network", func() error { network.Close(); return nil })
	f := d.file()
	d.actor = &actor{cluster: f.Cluster, node: d.node, post: d.post, log: d.log, ctx: d.ctx, lanes: map[cluster.ResourceName]*lane{}}
	fip := floatingip.New(floatingip.Options{Network: network, Log: d.log, Failed: d.actor.failed, Notice: d.actor.notice,
		Nodes: func() []config.Node { return d.file().Nodes }})
	scripts := exec.New(exec.Options{Dirs: d.dirs, Product: d.product, Log: d.log, Failed: d.actor.failed, Notice: d.actor.notice})
	disks := d.newMirrorDisks(closers)
	d.actor.drivers = map[config.ResourceKind]resource.Driver{config.KindFloatingIP: fip, config.KindExec: scripts, config.KindMirrorDisk: disks}
	d.tasks = append(d.tasks, fip.Run, scripts.Run, d.fences.Run)
	d.newOutlets()
	dogs := d.dogs()
	d.monitors = &monitors{node: d.node, post: d.post, log: d.log, running: map[cluster.MonitorName]*runningMonitor{}}
	d.monitors.drivers = map[config.MonitorKind]monitor.Driver{
		config.KindNICLink:       niclink.New(niclink.Host{Network: network}),
		config.KindCustom:        custom.New(custom.Scripts{Product: d.product, Log: d.log}, d.dirs),
		config.KindMirror:        mirror.New(disks.Copy),
		config.KindMirrorConnect: mirror.NewConnect(disks.Copy),
		config.KindUserspace:     userspace.New(userspace.Options{Open: dogs.Open, Progress: d.lastProgress, Passed: d.passed, Guard: d.guardLeft, Log: d.log}),
	}
	closers.push("monitors", func() error {
		if d.gaveUp {
			d.monitors.stop(userspace.ErrKeepArmed) // until what runs here is ended
		} else {
			d.monitors.stop(nil)
		}
		return nil
	})
	if !keepsAlive(f, d.node) {
		if err := dogs.DisarmLeftover(); err != nil {
			d.log.Error("a watchdog of an earlier daemon could not be disarmed", "error", err)
		}
	}
	return nil
}

// keepsAlive says whether the node has a monitor that a helper process of an
// earlier daemon may still be waiting for.
func keepsAlive(f *config.File, n cluster.NodeName) bool {
	for _, m := range f.Monitors {
		if m.UserSp == nil || m.UserSp.Method != config.MethodKeepalive {
			continue
		}
		for _, on := range m.Nodes {
			if on == n {
				return true
			}
		}
	}
	return false
}

func (d *Daemon) lastProgress() time.Time {
	if t := d.progress.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

func (d *Daemon) otherNodes() []cluster.NodeName {
	var names []cluster.NodeName
	for _, n := range d.file().Nodes {
		if n.Name != d.node {
			names = append(names, n.Name)
		}
	}
	return names
}

// serve runs all parts until the engine has handed everything over, or a part
// fails.
func (d *Daemon) serve(ctx context.Context, end context.CancelFunc) error {
	g, life := errgroup.WithContext(d.ctx)
	servers, err := d.listen(life)
	if err != nil {
		return err
	}
	d.reconfigure(d.file())
	for _, run := range d.tasks {
		g.Go(func() error { return run(life) })
	}
	g.Go(func() error { d.gossip.run(life); return nil })
	g.Go(func() error { d.carryGossip(life); return nil })
	g.Go(func() error { return d.carryFiles(life) })
	g.Go(func() error { return d.tendCertificates(life) })
	for _, s := range servers {
		g.Go(s)
	}
	g.Go(func() error { // a stop by plan
		select {
		case <-ctx.Done():
			d.loop.Post(life, engine.Event{Leave: true})
		case <-life.Done():
		}
		if d.opt.Witness {
			endAfter(life, witnessLeaves, end)
		}
		return nil
	})
	g.Go(func() error {
		defer end() // the engine ends last: all other parts follow it
		return d.contained(func() error { return d.loop.Run(life) })
	})
	if why := lastEnd(d.dirs.Run, d.log); why != "" {
		go d.post(engine.Event{Log: &api.Event{Level: cluster.LevelError, Module: "nm", Code: "daemon-gave-up",
			Text: fmt.Sprintf("The daemon of %s could not go on and has stopped what ran here: %s.", d.node, why)}})
	}
	d.log.Info("the daemon runs", "node", d.node, "cluster", d.id.Cluster())
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (d *Daemon) carryGossip(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case in := <-d.inbox:
			d.gossip.take(in.from, in.data)
		}
	}
}

func (d *Daemon) carryFiles(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-d.newFile:
			if err := d.onlyVotes(f); err != nil {
				return err
			}
			d.reconfigure(f)
		}
	}
}

// trust returns the authorities of linked clusters.
func (d *Daemon) trust() []identity.Trusted {
	var out []identity.Trusted
	for name, l := range d.links() {
		cas, err := identity.ParseCertificates([]byte(l.CA))
		if err != nil {
			continue
		}
		for _, ca := range cas {
			out = append(out, identity.Trusted{Link: name, CA: ca})
		}
	}
	return out
}

// Package sim is a world for the shipped machines: nodes with their own clocks
// and disks, networks that can be cut, resources that take time and fail, all
// in one goroutine and from one seed. After every step it checks what must
// never happen.
package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/agenda"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/plan"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// epoch is the wall clock at the start of every world.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// World is one installation of one cluster. Create it with NewWorld.
type World struct {
	agenda agenda.Agenda
	rng    *rand.Rand
	nodes  map[cluster.NodeName]*Node
	names  []cluster.NodeName
	cut    map[link]bool
	redial map[link]time.Duration // until then the streams of a healed link are being set up again
	air    map[link]weather       // by from and to
	last   map[link]time.Duration // when the latest stream data arrives, by from and to
	text   string
	file   *config.File
	daemon int
	asked  int

	behave  map[string]behavior // "RESOURCE start", "RESOURCE stop" or "RESOURCE force"
	pings   map[cluster.NodeName]bool
	fences  map[cluster.NodeName]device // by the node that they switch off
	answers map[cluster.RequestID]engine.Reply
	granted []cluster.RequestID                  // what was asked and answered, in order, without what was refused
	disks   map[cluster.ResourceName]*mirrorDisk // where addDisks was called
	talk    bool                                 // of what the mirror disks do
	changed bool                                 // what is active where, since check looked
	shared  bool                                 // two owners are expected (arbitration none and a cut)

	// Watchdog is the time-out of every node's watchdog; 0 is none.
	Watchdog time.Duration

	// Beats and BeatBytes count the heartbeats that were sent, once for each path,
	// and their payload.
	Beats, BeatBytes int

	// Log is every event of every node in the order of the world's clock.
	Log []api.Event
	// Scripts is every script of a ladder that was run, as NODE SCRIPT ACTION.
	Scripts []string
	// Broken is the first rule that was broken; the world then stands still.
	Broken string

	over bool // the faults of a hunt have ended
}

type link struct {
	from, to cluster.NodeName
	path     int
}

// weather is what datagrams and streams from one node to another meet on all
// networks.
type weather struct {
	loss  float64       // of datagrams, 0 to 1
	twice float64       // of datagrams that arrive again a moment later
	delay time.Duration // at most so much more, at random
	mute  bool          // no datagram arrives, streams are as they were
}

// device is a fence device. The zero device switches off in half a second.
type device struct {
	takes time.Duration // at least deviceTakes
	fails bool
	lies  bool // it says that the node is off, and does nothing
}

type behavior struct {
	takes time.Duration
	hangs bool // no word of it ever
	fails int  // how many times from now on; -1 for ever
}

// Node is one machine of the world.
type Node struct {
	name       cluster.NodeName
	machine    *engine.Machine // nil while it is off
	boots      int
	on         bool
	power      int // how often it went off or on
	paused     bool
	held       []engine.Event // what arrived while it was paused
	disk       disk
	kept       *disk                    // as it was when it was kept
	wake       uint64                   // only the latest wake-up counts
	active     map[string]cluster.Epoch // GROUP/RESOURCE that is active here
	harmless   map[string]bool          // GROUP that is isolated here
	isolating  int                      // groups that are being isolated
	isolations map[string]int           // by GROUP: begun and undone
	final      cluster.FinalAction
	lease      cluster.Instant // in memory that survives the daemon
	runs       engine.Runs     // there too
	dog        uint64          // only the latest feeding of the watchdog counts
	bitten     bool            // it was the watchdog that took the power
	resets     int             // how often in a row that was so before this boot
	pace       pace            // of its clock
	wall       time.Duration   // how far its clock of the day is off
	slow       time.Duration   // how much later everything happens here
	leaving    bool            // its daemon was told to stop by plan
	copies     map[cluster.ResourceName]*copyHere
	began      map[cluster.ResourceName]state.Mirror // as the latest start was given it
	doom       int                                   // the step, counted from now, in which the power goes; 0: none
}

type disk struct {
	hard    *raftpb.HardState
	snap    *raftpb.Snapshot
	entries []*raftpb.Entry
	meta    []byte
	seq     uint64
}

// NewWorld returns a world whose nodes are all off. The first node of the file
// has made the cluster; the others join it when they are switched on.
func NewWorld(text string, seed uint64) (*World, error) {
	f, errs := config.Parse("cluster.yaml", []byte(text))
	if len(errs) > 0 {
		return nil, errs
	}
	w := &World{
		rng: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)), nodes: map[cluster.NodeName]*Node{},
		cut: map[link]bool{}, redial: map[link]time.Duration{}, air: map[link]weather{}, last: map[link]time.Duration{}, text: text, file: f, behave: map[string]behavior{},
		pings: map[cluster.NodeName]bool{}, fences: map[cluster.NodeName]device{}, answers: map[cluster.RequestID]engine.Reply{},
	}
	for i := range f.Nodes {
		n := &Node{name: f.Nodes[i].Name, active: map[string]cluster.Epoch{}, harmless: map[string]bool{}, isolations: map[string]int{}}
		n.disk.seq = 1
		w.nodes[n.name], w.names = n, append(w.names, n.name)
	}
	p, err := engine.Bootstrap(w.names[0], text, "sim", epoch)
	if err != nil {
		return nil, err
	}
	w.nodes[w.names[0]].disk.write(p)
	return w, nil
}

func (d *disk) write(p *engine.Persist) {
	if p.Reset {
		d.hard, d.snap, d.entries = nil, nil, nil
	}
	if p.Snapshot != nil {
		d.snap = p.Snapshot
		index := p.Snapshot.GetMetadata().GetIndex()
		d.entries = slices.DeleteFunc(slices.Clone(d.entries), func(e *raftpb.Entry) bool { return e.GetIndex() <= index })
	}
	if p.HardState != nil {
		d.hard = p.HardState
	}
	if len(p.Entries) > 0 {
		first := p.Entries[0].GetIndex()
		d.entries = slices.DeleteFunc(slices.Clone(d.entries), func(e *raftpb.Entry) bool { return e.GetIndex() >= first })
		d.entries = append(d.entries, p.Entries...)
	}
	if p.Meta != nil {
		d.meta = p.Meta
	}
}

func (w *World) after(d time.Duration, do func()) { w.agenda.After(d, do) }

// Run lets d of the world's time pass.
func (w *World) Run(d time.Duration) {
	end := w.agenda.Now() + d
	for w.Broken == "" && w.agenda.Next(end) {
		if w.changed {
			w.changed = false
			w.check()
		}
	}
	w.agenda.Reach(end)
}

// Boot switches a node on; its disk is as it was, its memory is gone.
func (w *World) Boot(name cluster.NodeName) error {
	n := w.nodes[name]
	n.boots++
	n.on = true
	n.power++
	n.isolating = 0
	if n.resets++; !n.bitten {
		n.resets = 0
	}
	n.bitten = false
	return w.startDaemon(n)
}

// StartDaemon starts the daemon of a node whose resources may still run.
func (w *World) StartDaemon(name cluster.NodeName) error { return w.startDaemon(w.nodes[name]) }

func (w *World) startDaemon(n *Node) error {
	w.daemon++
	m, err := engine.New(engine.Options{
		Self: n.name, Boot: fmt.Sprintf("b%d", n.boots), Daemon: fmt.Sprintf("d%d", w.daemon), Now: w.clock(n), NextSeq: n.disk.seq,
		Resets: n.resets, Lease: n.lease, Runs: n.runs, Narrated: w.narrated(n.name),
		HardState: n.disk.hard, Snapshot: n.disk.snap, Entries: n.disk.entries, Meta: n.disk.meta, Seed: w.file,
	})
	if err != nil {
		return err
	}
	n.machine, n.paused, n.leaving, n.held, n.final = m, false, false, nil, ""
	w.disksOf(n, (*mirrorDisk).serve)
	w.step(n, engine.Event{})
	return nil
}

// Crash takes a node's power away.
func (w *World) Crash(name cluster.NodeName) {
	n := w.nodes[name]
	n.on = false
	n.power++
	n.lease, n.runs, n.doom, n.paused, n.held = 0, engine.Runs{}, 0, false, nil
	n.machine, n.active, n.harmless = nil, map[string]cluster.Epoch{}, map[string]bool{}
	n.wake++
	w.disksOf(n, (*mirrorDisk).crash)
}

// Keep keeps a node's disk as it is, Restore brings it back: the node must be off.
func (w *World) Keep(name cluster.NodeName) {
	d := w.nodes[name].disk
	w.nodes[name].kept = &d
}

// Restore undoes what was written since Keep, but for the numbers of events.
func (w *World) Restore(name cluster.NodeName) {
	n := w.nodes[name]
	seq := n.disk.seq
	n.disk = *n.kept
	n.disk.seq = seq
}

// KillDaemon ends a node's daemon; its resources go on.
func (w *World) KillDaemon(name cluster.NodeName) {
	n := w.nodes[name]
	n.machine = nil
	n.wake++
}

// Wipe takes away all that a node that is off has on its disk but the identity
// and the cluster file with which a node joins.
func (w *World) Wipe(name cluster.NodeName) error {
	n := w.nodes[name]
	if n.machine != nil || name == w.names[0] && len(w.Log) == 0 {
		return fmt.Errorf("%s must be off, and the cluster made", name)
	}
	n.disk = disk{seq: n.disk.seq}
	return nil
}

// Pause freezes a node's daemon, Resume lets it go on.
func (w *World) Pause(name cluster.NodeName) { w.nodes[name].paused = true }

// Resume ends a Pause; what arrived meanwhile is delivered now.
func (w *World) Resume(name cluster.NodeName) {
	n := w.nodes[name]
	held := n.held
	n.paused, n.held = false, nil
	w.step(n, engine.Event{})
	for _, ev := range held {
		w.step(n, ev)
	}
}

// Cut ends what a sends to b on a path; path -1 is all of them.
func (w *World) Cut(a, b cluster.NodeName, path int) { w.setCut(a, b, path, true) }

// Heal undoes Cut.
func (w *World) Heal(a, b cluster.NodeName, path int) { w.setCut(a, b, path, false) }

func (w *World) setCut(a, b cluster.NodeName, path int, cut bool) {
	for i := range w.file.Node(b).Addresses {
		l := link{a, b, i}
		if path >= 0 && i != path || w.cut[l] == cut {
			continue
		}
		w.cut[l] = cut
		if !cut {
			w.redial[l] = w.agenda.Now() + time.Duration(w.rng.Int64N(int64(redialWithin)))
		}
	}
}

// redialWithin bounds how long streams need after a link works again; datagrams
// get through at once.
const redialWithin = 500 * time.Millisecond

// streams says whether a stream between two nodes works on a path, which takes
// both directions.
func (w *World) streams(a, b cluster.NodeName, path int) bool {
	there, back := link{a, b, path}, link{b, a, path}
	return !w.cut[there] && !w.cut[back] && w.agenda.Now() >= w.redial[there] && w.agenda.Now() >= w.redial[back]
}

// narrated returns which entry of the log a node has told of last.
func (w *World) narrated(name cluster.NodeName) string {
	for _, e := range slices.Backward(w.Log) {
		if e.Node == name && e.Fields[engine.FieldEntry] != "" {
			return e.Fields[engine.FieldEntry]
		}
	}
	return ""
}

// step gives a node's machine one event and carries out the effects.
func (w *World) step(n *Node, ev engine.Event) {
	if n.machine == nil || w.Broken != "" {
		return
	}
	if n.paused {
		if len(n.held) < 1_000 {
			n.held = append(n.held, ev)
		}
		return
	}
	eff := n.machine.Step(w.clock(n), epoch.Add(w.agenda.Now()+n.wall), ev)
	if n.doom > 0 {
		if n.doom--; n.doom == 0 {
			w.crashIn(n, eff)
			return
		}
	}
	if eff.Persist != nil {
		n.disk.write(eff.Persist)
		if len(n.disk.entries) > mostEntries {
			w.Broken = fmt.Sprintf("%s: the log of %s grows without end", w.agenda.Now(), n.name)
		}
	}
	n.lease = eff.Lease
	if eff.Runs != nil {
		n.runs = *eff.Runs
	}
	if len(eff.Isolate) == 0 && n.isolating == 0 { // until that is done the watchdog counts on
		w.feed(n, eff.Guard)
	}
	w.transmit(n, eff)
	w.carry(n, eff)
	if eff.Exit {
		n.machine = nil
		return
	}
	n.wake++
	wake := n.wake
	w.after(n.slow+max(w.lasts(n, eff.WakeAt.Sub(w.clock(n))), 100*time.Microsecond), func() {
		if n.wake == wake {
			w.step(n, engine.Event{})
		}
	})
}

// mostEntries is more than a log ever holds: it is cut off behind each snapshot.
const mostEntries = 2_000

// crashIn takes the power away in the middle of a step: nothing of it is on disk
// yet, or it is but nobody was told, or others were told but nothing is done.
func (w *World) crashIn(n *Node, eff engine.Effects) {
	done := w.rng.IntN(3)
	if done > 0 && eff.Persist != nil {
		n.disk.write(eff.Persist)
	}
	if done > 1 {
		w.transmit(n, eff)
	}
	w.Crash(n.name)
}

// feed lets the node's watchdog begin anew, but not beyond the instant by which
// the node must be harmless.
func (w *World) feed(n *Node, guard cluster.Instant) {
	within := w.Watchdog
	if guard > 0 {
		within = min(within, guard.Sub(w.clock(n)))
	}
	if within <= 0 {
		return
	}
	n.dog++
	dog := n.dog
	w.after(w.lasts(n, within), func() {
		if n.dog == dog && len(n.active) > 0 {
			w.off(n)
			n.bitten = true
		}
	})
}

// later delivers an event to the same life of the node's daemon.
func (w *World) later(n *Node, d time.Duration, ev engine.Event) {
	m := n.machine
	w.after(d+n.slow, func() {
		if n.machine == m {
			w.step(n, ev)
		}
	})
}

func (w *World) carry(n *Node, eff engine.Effects) {
	if eff.Config != nil && eff.Config.Node(n.name) == nil {
		w.Broken = fmt.Sprintf("%s: %s is told of a cluster file in which it is not: it would refuse all others", w.agenda.Now(), n.name)
	}
	for _, e := range eff.Events {
		n.disk.seq++
		w.Log = append(w.Log, e)
	}
	w.tell(n, eff)
	for _, t := range eff.Isolate {
		w.isolate(n, &t.Group)
	}
	for _, t := range eff.Restore {
		for _, r := range t.Group.Resources {
			if r.Kind == config.KindFloatingIP { // the address is put back, whether it was here or not
				n.active[key(t.Group.Name, r.Name)] = t.Epoch
			}
		}
		w.expose(n, string(t.Group.Name))
	}
	for _, op := range eff.Ops {
		w.operate(n, op)
	}
	for _, t := range eff.Checks {
		w.look(n, t)
	}
	for _, s := range eff.Scripts {
		w.Scripts = append(w.Scripts, fmt.Sprintf("%s %s %s", n.name, s.Path, s.Action))
		w.later(n, 5*time.Millisecond, engine.Event{Script: &engine.ScriptDone{Monitor: s.Monitor, Run: s.Run, Took: 5 * time.Millisecond}})
	}
	if eff.Ping != nil {
		reached, told := w.pings[n.name]
		w.later(n, time.Millisecond, engine.Event{Pinged: &engine.Pinged{Reached: reached || !told}})
	}
	for _, f := range eff.Fences {
		w.fence(n, f)
	}
	if eff.Final != nil {
		n.final = eff.Final.Action
		switch n.final {
		case cluster.ActionReboot, cluster.ActionPanic, cluster.ActionWatchdogReset:
			w.off(n)
		default:
			w.Crash(n.name)
		}
	}
	for _, r := range eff.Replies {
		w.answers[r.ID] = r
		if r.Err == nil {
			w.granted = append(w.granted, r.ID)
		}
	}
}

// deviceTakes is how long a fence device needs for its last command.
const deviceTakes = 500 * time.Millisecond

// isolate makes a group harmless within the time that the cluster file keeps for
// it, on the clock of its node, or fails to.
func (w *World) isolate(n *Node, g *config.Group) {
	for i := range g.Resources {
		if w.behave[string(g.Resources[i].Name)+" isolate"].fails != 0 {
			w.later(n, time.Millisecond, engine.Event{Exposed: &engine.Exposed{Group: g.Name}})
			return
		}
	}
	group := string(g.Name)
	n.isolations[group]++
	this, power := n.isolations[group], n.power
	n.isolating++
	w.after(w.lasts(n, w.upTo(w.file.Timing.Isolate)), func() {
		if n.power != power {
			return
		}
		n.isolating--
		if n.isolations[group] == this {
			n.harmless[group] = true
			w.copiesOf(n, group, true)
		}
		w.step(n, engine.Event{}) // the loop goes on
	})
}

// expose undoes an isolation, also one that has not been carried out yet.
func (w *World) expose(n *Node, group string) {
	n.isolations[group]++
	delete(n.harmless, group)
	w.copiesOf(n, group, false)
	w.changed = true
}

// fence switches a node off as its device does. What comes before the last
// command ends with the daemon that asked.
func (w *World) fence(by *Node, f engine.FenceRun) {
	if w.file.Node(by.name).Witness {
		w.Broken = "a witness forces a node off, which it cannot"
	}
	dev, m := w.fences[f.Node], by.machine
	took := max(dev.takes, deviceTakes)
	w.after(took-deviceTakes, func() {
		if by.machine != m {
			return
		}
		w.after(deviceTakes, func() {
			done := engine.Fenced{Node: f.Node, Run: f.Run, Off: !dev.fails, Took: took}
			if dev.fails {
				done.Why = "the device does not answer"
			} else if !dev.lies {
				w.off(w.nodes[f.Node])
			}
			if by.machine == m {
				w.step(by, engine.Event{Fenced: &done})
			}
		})
	})
}

// off is what a fence device, a watchdog, or a final action that reboots does to a
// node; it comes back after some seconds.
func (w *World) off(n *Node) {
	w.Crash(n.name)
	power := n.power
	w.after(bootTakes, func() {
		if !n.on && n.power == power {
			if err := w.Boot(n.name); err != nil {
				w.Broken = err.Error()
			}
		}
	})
}

// bootTakes is how long a machine needs until its daemon runs.
const bootTakes = 5 * time.Second

func (w *World) transmit(n *Node, eff engine.Effects) {
	for _, s := range eff.Sends {
		to := w.nodes[s.To]
		if to == nil {
			continue
		}
		for path := range w.file.Node(s.To).Addresses { // the transport delivers once, over whatever works
			if w.streams(n.name, s.To, path) {
				w.stream(n, to, engine.Event{Peer: &engine.PeerIn{From: n.name, Data: s.Data}})
				break
			}
		}
	}
	for _, b := range eff.Beats {
		to := w.nodes[b.To]
		if to == nil {
			continue
		}
		for _, path := range b.Paths {
			w.Beats, w.BeatBytes = w.Beats+1, w.BeatBytes+len(b.Payload)
			if !w.cut[link{n.name, b.To, path}] {
				w.datagram(n, to, engine.Event{Beat: &engine.BeatIn{From: n.name, Path: path, Payload: b.Payload}})
			}
		}
	}
}

// datagram delivers something once, never, or twice.
func (w *World) datagram(from, to *Node, ev engine.Event) {
	delay := w.travel()
	if air, bad := w.air[link{from: from.name, to: to.name}]; bad {
		if air.mute || w.rng.Float64() < air.loss {
			return
		}
		delay += w.upTo(air.delay)
		if w.rng.Float64() < air.twice {
			w.after(delay+w.upTo(50*time.Millisecond), func() { w.step(to, ev) })
		}
	}
	w.after(delay+to.slow, func() { w.step(to, ev) })
}

// stream delivers something in order; what is lost on the way is sent again,
// which takes time.
func (w *World) stream(from, to *Node, ev engine.Event) {
	l := link{from: from.name, to: to.name}
	delay := w.travel()
	if air, bad := w.air[l]; bad {
		delay += w.upTo(air.delay)
		for w.rng.Float64() < air.loss {
			delay += 200 * time.Millisecond
		}
	}
	at := max(w.agenda.Now()+delay+to.slow, w.last[l])
	w.last[l] = at
	w.after(at-w.agenda.Now(), func() { w.step(to, ev) })
}

func (w *World) travel() time.Duration {
	return 200*time.Microsecond + time.Duration(w.rng.Int64N(int64(100*time.Microsecond)))
}

func (w *World) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.rng.Int64N(int64(d)))
}

func key(g cluster.GroupName, r cluster.ResourceName) string { return string(g) + "/" + string(r) }

func (w *World) operate(n *Node, op engine.Operation) {
	what, complaint := string(op.Op.Resource)+" stop", "the script ended with exit code 1"
	switch {
	case op.Op.Start:
		what = string(op.Op.Resource) + " start"
	case op.Op.Force:
		what, complaint = string(op.Op.Resource)+" force", "a process still runs after SIGKILL"
	}
	b := w.behave[what]
	fails := b.fails != 0
	if b.fails > 0 {
		b.fails--
		w.behave[what] = b
	}
	m, k := n.machine, key(op.Group.Name, op.Op.Resource)
	if op.Op.Start && !fails {
		n.active[k] = op.Epoch // from the first moment on it may be seen outside
		w.expose(n, string(op.Group.Name))
	}
	if b.hangs {
		return
	}
	if d := w.disks[op.Op.Resource]; d != nil && !fails {
		d.operate(n, op)
		return
	}
	w.after(b.takes+time.Millisecond, func() {
		if n.machine != m {
			return
		}
		why := ""
		switch {
		case fails:
			why = complaint
		case !op.Op.Start:
			delete(n.active, k)
		}
		w.step(n, engine.Event{OpDone: &engine.OpDone{Group: op.Group.Name, Epoch: op.Epoch, Op: plan.Op(op.Op), Why: why, Took: b.takes + time.Millisecond}})
	})
}

func (w *World) look(n *Node, t engine.Task) {
	c := engine.Checked{Group: t.Group.Name, Epoch: t.Epoch, Inactive: map[cluster.ResourceName]string{}}
	for i := range t.Group.Resources {
		r := &t.Group.Resources[i]
		_, active := n.active[key(t.Group.Name, r.Name)]
		isolated := r.Kind == config.KindFloatingIP && n.harmless[string(t.Group.Name)] // which takes addresses off
		if !active || isolated {
			c.Inactive[r.Name] = "it is not there"
		}
	}
	w.later(n, time.Millisecond, engine.Event{Checked: &c})
}

// Ask lets a node ask something; Answer returns what came of it.
func (w *World) Ask(name cluster.NodeName, a admission.Ask) cluster.RequestID {
	w.asked++
	a.ID = cluster.RequestID(fmt.Sprintf("ask-%d", w.asked))
	a.Wall = epoch.Add(w.agenda.Now())
	w.step(w.nodes[name], engine.Event{Ask: &a})
	return a.ID
}

// check looks whether something happened that must never happen.
func (w *World) check() {
	if w.shared {
		return
	}
	for i := range w.file.Groups {
		g := w.file.Groups[i].Name
		if owners := w.Owners(g); len(owners) > 1 {
			w.Broken = fmt.Sprintf("%s: group %s is active on %v at once", w.agenda.Now(), g, owners)
		}
	}
}

// Owners returns the nodes on which something of the group is active and not
// isolated.
func (w *World) Owners(g cluster.GroupName) []cluster.NodeName {
	var owners []cluster.NodeName
	for _, name := range w.names {
		n := w.nodes[name]
		if n.harmless[string(g)] {
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(n.active)) {
			if len(k) > len(g) && k[:len(g)] == string(g) && k[len(g)] == '/' {
				owners = append(owners, name)
				break
			}
		}
	}
	return owners
}

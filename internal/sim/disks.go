package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/mirror/mirrortest"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// mirrorDisk is a mirror disk of the world: both copies, each in a process of its
// own that outlives the daemon, and what their drivers remember.
type mirrorDisk struct {
	*mirrortest.Pair
	w     *World
	name  cluster.ResourceName
	group cluster.GroupName
	nodes [2]*Node

	starts, stops [2]func(why string) // that are under way
	epoch         [2]uint64           // number of the copy that is active; 0: it is not
	life          [2]uint32           // of consensus, as the node was told
	frozen        [2]bool
	ordered       [2]uint64 // the latest order that was carried out
	forks         bool      // both nodes may own the group at once
	given         bool      // an operator has given up what one copy alone holds
	log           []string
}

// smallest is a device with more extents than the activity log of the models
// holds, used seldom.
var smallest = mirrortest.Config{Extents: 34, Shift: 16, Tick: 250 * time.Millisecond, Dial: 250 * time.Millisecond, Gap: 300 * time.Millisecond}

// addDisks gives the world its mirror disks.
func (w *World) addDisks(seed uint64, forks bool) {
	w.disks = map[cluster.ResourceName]*mirrorDisk{}
	for i := range w.file.Groups {
		g := &w.file.Groups[i]
		for _, r := range g.Mirrors() {
			d := &mirrorDisk{w: w, name: r.Name, group: g.Name, nodes: [2]*Node{w.nodes[g.Nodes[0]], w.nodes[g.Nodes[1]]}, forks: forks}
			c := smallest
			c.Policy = replica.Policy(r.MirrorDisk.SplitBrain)
			d.Pair = mirrortest.New(d, rand.New(rand.NewPCG(seed, 0xd15c)), c)
			w.disks[r.Name] = d
		}
	}
}

// disksOf calls do with each mirror disk that has a copy on the node.
func (w *World) disksOf(n *Node, do func(d *mirrorDisk, i int)) {
	for _, r := range sortedNames(w.disks) {
		if i := slices.Index(w.disks[r].nodes[:], n); i >= 0 {
			do(w.disks[r], i)
		}
	}
}

func sortedNames(m map[cluster.ResourceName]*mirrorDisk) (out []cluster.ResourceName) {
	for r := range m {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

func (d *mirrorDisk) Now() time.Duration                { return d.w.agenda.Now() }
func (d *mirrorDisk) After(t time.Duration, do func())  { d.w.after(t, do) }
func (d *mirrorDisk) Breaks(format string, args ...any) { d.w.breaks(format, args...) }
func (d *mirrorDisk) of(n *Node) int                    { return slices.Index(d.nodes[:], n) }

func (w *World) breaks(format string, args ...any) {
	if w.Broken == "" {
		w.Broken = fmt.Sprintf("%s: ", w.agenda.Now()) + fmt.Sprintf(format, args...)
	}
}

// Say keeps the last lines for who replays a story.
func (d *mirrorDisk) Say(format string, args ...any) {
	if d.w.talk {
		d.log = append(d.log, fmt.Sprintf("%12s %s: ", d.w.agenda.Now().Round(time.Millisecond), d.name)+fmt.Sprintf(format, args...))
	}
}

// Linked says whether a stream between the two nodes works on any network.
func (d *mirrorDisk) Linked() bool {
	a, b := d.nodes[0], d.nodes[1]
	if !a.on || !b.on {
		return false
	}
	for path := range d.w.file.Node(b.name).Addresses {
		if d.w.streams(a.name, b.name, path) {
			return true
		}
	}
	return false
}

// Asked brings the wish of a copy to the daemon, if one runs.
func (d *mirrorDisk) Asked(h *mirrortest.Host) {
	n := d.nodes[h.N]
	d.w.after(time.Millisecond, func() {
		if n.machine == nil || !h.On() || h.Core.Wish() == nil {
			return
		}
		a := h.Core.Wish()
		ask := engine.MirrorAsk{Resource: d.name, Epoch: epochOf(d.epoch[h.N]), Base: a.Rev, Why: a.Why}
		for i, in := range []bool{a.Self, a.Peer} {
			if in {
				ask.InSync = append(ask.InSync, d.nodes[(h.N+i)%2].name)
			}
		}
		d.w.step(n, engine.Event{Mirror: &ask})
	})
}

// Became ends the start or the stop that waits for it.
func (d *mirrorDisk) Became(h *mirrortest.Host, r replica.Role) {
	i := h.N
	if r == replica.Active {
		h.Client.Attach()
		answer(&d.starts[i], "")
		return
	}
	d.epoch[i] = 0
	answer(&d.stops[i], "")
}

// answer calls what waits, once.
func answer(f *func(string), why string) {
	if do := *f; do != nil {
		*f = nil
		do(why)
	}
}

// Failed tells the daemon that the resource has failed.
func (d *mirrorDisk) Failed(h *mirrortest.Host, why string) {
	n := d.nodes[h.N]
	d.w.later(n, time.Millisecond, engine.Event{Failed: &engine.Failed{Group: d.group, Resource: d.name, Epoch: epochOf(d.epoch[h.N]), Why: why}})
}

// Counts says whether the node of h was told that the other copy is complete.
func (d *mirrorDisk) Counts(h *mirrortest.Host) bool {
	c := d.nodes[h.N].copies[d.name]
	return c != nil && slices.Contains(c.inSync, d.nodes[1-h.N].name)
}

// Set is what the daemon tells a process that starts.
func (d *mirrorDisk) Set(h *mirrortest.Host) (replica.Set, bool) {
	n := d.nodes[h.N]
	if n.machine == nil || n.machine.State().Mirror(d.name) == nil {
		return replica.Set{}, false
	}
	return d.setOf(h.N, n.machine.State().Mirror(d.name)), true
}

func (d *mirrorDisk) setOf(i int, m *state.Mirror) replica.Set {
	return replica.Set{Self: m.Has(d.nodes[i].name), Peer: m.Has(d.nodes[1-i].name), Rev: m.Rev}
}

// told passes on what is agreed on; before is what the node was told last.
func (d *mirrorDisk) told(i int, t *engine.MirrorTold, before []cluster.NodeName) {
	h, peer, m := d.Hosts[i], d.nodes[1-i].name, &t.Mirror
	d.life[i] = t.Life
	d.given = d.given || m.Forced != nil || m.Victim != ""
	if h.Active() && m.Has(peer) && !slices.Contains(before, peer) {
		if h.Lacks() && !d.given && d.Policy == replica.PolicyNone {
			d.w.breaks("what %s had acknowledged is overwritten, and nobody has ordered it", peer)
		}
		h.Joined()
		d.given = false
	}
	victim := replica.Neither
	switch m.Victim {
	case d.nodes[i].name:
		victim = replica.Self
	case peer:
		victim = replica.Peer
	}
	set, paused, order := d.setOf(i, m), m.Paused != nil, m.Order
	d.w.after(time.Millisecond, func() {
		h.Do(func() { h.Core.Assigned(uint64(t.Life) << 32) })
		h.Ordered(victim, paused)
		h.Told(set)
		if order != nil && order.Serial > d.ordered[i] {
			d.ordered[i] = order.Serial
			d.carryOut(h, order.Kind)
		}
	})
}

func (d *mirrorDisk) carryOut(h *mirrortest.Host, k state.MirrorOrderKind) {
	h.Do(func() {
		switch k {
		case state.OrderResync, state.OrderFull:
			h.Core.Recopy(k == state.OrderFull)
		case state.OrderVerify, state.OrderVerifyRepair:
			h.Core.Verify(k == state.OrderVerifyRepair)
		}
	})
}

// serve starts the process of a copy, and joins it to the daemon.
func (d *mirrorDisk) serve(i int) {
	h := d.Hosts[i]
	if !h.On() {
		role := replica.Standby
		if d.epoch[i] != 0 {
			role = replica.Active
		}
		h.Start(role, d.epoch[i])
		if d.frozen[i] {
			h.Do(h.Core.Freeze)
		}
		if h.Active() && d.stops[i] == nil {
			h.Client.Attach()
		}
	}
	if h.On() {
		d.Asked(h)
	}
}

// kill ends the process of a copy; its keeper starts another.
func (d *mirrorDisk) kill(i int) {
	h, power := d.Hosts[i], d.nodes[i].power
	if !h.On() {
		return
	}
	h.Stop(false)
	d.w.after(d.Between(5*time.Millisecond, 400*time.Millisecond), func() {
		if d.nodes[i].power != power || h.On() {
			return
		}
		if d.starts[i] != nil {
			d.epoch[i] = 0
		}
		d.serve(i)
		answer(&d.starts[i], "its process has ended")
		if d.stops[i] != nil {
			d.end(i, true)
		}
	})
}

// crash takes the power from a copy.
func (d *mirrorDisk) crash(i int) {
	d.Hosts[i].Stop(true)
	d.starts[i], d.stops[i], d.epoch[i], d.frozen[i] = nil, nil, 0, false
}

// freeze holds everything on a node, or lets it go on.
func (d *mirrorDisk) freeze(i int, on bool) {
	d.frozen[i] = on
	h := d.Hosts[i]
	h.Do(func() {
		if on {
			h.Core.Freeze()
		} else if h.Active() {
			h.Core.Thaw()
		}
	})
}

// operate starts or stops the active part of a copy, as its driver does.
func (d *mirrorDisk) operate(n *Node, op engine.Operation) {
	i, m, k := d.of(n), n.machine, key(op.Group.Name, op.Op.Resource)
	done := func(why string) {
		if op.Op.Start == (why != "") {
			delete(n.active, k)
		}
		d.w.after(time.Millisecond, func() {
			if n.machine == m {
				d.w.step(n, engine.Event{OpDone: &engine.OpDone{Group: op.Group.Name, Epoch: op.Epoch, Op: op.Op, Why: why, Took: time.Millisecond}})
			}
		})
	}
	if op.Op.Start {
		d.start(i, op, done)
		return
	}
	d.stops[i] = done
	d.end(i, op.Op.Force || d.frozen[i])
}

// end ends the active part. The process may have to come up first.
func (d *mirrorDisk) end(i int, force bool) {
	h := d.Hosts[i]
	switch {
	case !h.On() && d.epoch[i] != 0: // kill goes on with it
	case !h.Active():
		d.epoch[i] = 0
		answer(&d.stops[i], "")
	default:
		h.Client.Detach(force, func() { h.Do(h.Core.Demote) })
	}
}

func (d *mirrorDisk) start(i int, op engine.Operation, done func(string)) {
	h, is := d.Hosts[i], op.Mirrors[d.name]
	if len(is.InSync) == 0 && h.Blank() {
		h.Stop(false)
		h.Construct()
		d.serve(i)
	}
	if !h.On() {
		done("its process does not run")
		return
	}
	if h.Active() {
		if why := "it is active since an earlier start"; d.epoch[i] != d.number(i, op.Epoch) {
			done(why)
			return
		}
		done("")
		return
	}
	peer := d.nodes[1-i].name
	force := is.Forced != nil && is.Forced.Node == d.nodes[i].name && !is.Has(peer)
	if is.Has(d.nodes[i].name) {
		h.Counted()
	}
	lacks := !force && !d.forks && len(is.InSync) > 0 && h.Lacks()
	d.starts[i], d.epoch[i] = done, d.number(i, op.Epoch)
	var err error
	if h.Do(func() { err = h.Core.Promote(d.epoch[i], d.setOf(i, &is), force) }); err != nil {
		d.epoch[i] = 0
		answer(&d.starts[i], err.Error())
		return
	}
	if lacks {
		d.w.breaks("%s becomes active, and its copy lacks what was promised", d.nodes[i].name)
	}
	if slices.Contains(op.Ended, peer) && !op.Handed {
		h.Do(h.Core.PeerDown)
	}
}

// number is what the copies know an assignment by: epochs are counted anew in
// each life of consensus.
func (d *mirrorDisk) number(i int, e cluster.Epoch) uint64 {
	return uint64(d.life[i])<<32 | uint64(e)
}

func epochOf(number uint64) cluster.Epoch { return cluster.Epoch(number & (1<<32 - 1)) }

// meddleDisk is what faults do to a mirror disk.
func (w *World) meddleDisk(f Fault) {
	names := sortedNames(w.disks)
	if len(names) == 0 {
		return
	}
	d := w.disks[names[f.Much%len(names)]]
	i := max(d.of(w.nodes[f.A]), 0)
	h := d.Hosts[i]
	switch f.Kind {
	case DiskKill:
		d.kill(i)
	case DiskBad:
		what := []*int{&h.BadWrites, &h.BadReads, &h.BadMeta}[f.Much%3]
		*what = 1 + f.Much%2
		w.after(f.For, func() { *what = 0 })
	case DiskNew:
		// Of a pair that was parted only one knows what counts in the end.
		if a := d.Hosts[1-i]; !d.forks && a.Active() && a.Core.Status().Set.Self && d.Counts(a) && d.Counts(h) && !h.Active() && w.nodes[f.A] == d.nodes[i] {
			w.Crash(f.A)
			h.Replace()
			w.after(f.For+time.Millisecond, func() { w.revive(f.A) })
		}
	case DiskOrder:
		a := admission.Ask{
			Kind:     []admission.Kind{admission.MirrorBreak, admission.MirrorResume, admission.MirrorResume, admission.MirrorCopy, admission.MirrorVerify, admission.MirrorInvalidate, admission.MirrorForce}[f.Much%7],
			Thorough: f.Much%2 == 0,
		}
		if a.Kind == admission.MirrorInvalidate || a.Kind == admission.MirrorForce {
			a.Node = d.nodes[i].name
		}
		if a.Kind == admission.MirrorForce && (!h.On() || !h.Core.Status().Super.Constructed) {
			return // nobody forces what has nothing on it
		}
		d.ask(f.A, a)
	}
}

// ask lets an operator say something about the mirror disk.
func (d *mirrorDisk) ask(at cluster.NodeName, a admission.Ask) {
	a.Resource, a.Confirm, a.Why, a.Author = d.name, string(d.w.file.Cluster), "for the story", "admin"
	d.w.askAny(at, a)
}

// The bounds of what an operator and a copy take after the last fault.
const (
	joinRounds = 12
	joinRound  = 5 * time.Second
)

// joinDisks brings both copies of every mirror disk together, as an operator
// does, and says what does not come right, or "".
func (w *World) joinDisks() string {
	for _, r := range sortedNames(w.disks) {
		if why := w.disks[r].joinUp(); why != "" {
			return fmt.Sprintf("mirror disk %s: %s", r, why)
		}
	}
	return ""
}

func (d *mirrorDisk) joinUp() string {
	for _, h := range d.Hosts {
		h.BadWrites, h.BadReads, h.BadMeta = 0, 0, 0
	}
	for range joinRounds {
		d.w.Run(joinRound)
		if d.w.Broken != "" {
			return d.w.Broken
		}
		if d.help() {
			break
		}
	}
	a := slices.IndexFunc(d.Hosts[:], (*mirrortest.Host).Active)
	if a < 0 {
		return "no copy is active"
	}
	if s := d.Hosts[a].Core.Status(); s.Phase != "joined" || !s.Set.Peer {
		return fmt.Sprintf("the copies are not joined: %+v", s)
	}
	d.Hosts[a].Client.Quiet()
	d.w.Run(joinRound)
	if n := d.Hosts[a].Client.Under(); n > 0 {
		return fmt.Sprintf("%d requests are not answered", n)
	}
	if b := d.Differs(); b >= 0 {
		return fmt.Sprintf("cell %d differs", b)
	}
	return d.w.Broken
}

// startWhole starts a group on the other node where a copy that is new, or whose
// disk has failed, has kept it from the first one. Where that is so of both, one
// has to be given up.
func (w *World) startWhole(g cluster.GroupName) {
	for _, r := range sortedNames(w.disks) {
		d := w.disks[r]
		if d.group != g || d.Hosts[0].Active() || d.Hosts[1].Active() {
			continue
		}
		at := slices.IndexFunc(d.Hosts[:], bad)
		if at < 0 {
			continue
		}
		start := func() {
			w.askAny("", admission.Ask{Kind: admission.GroupClear, Group: g})
			w.askAny("", admission.Ask{Kind: admission.GroupStart, Group: g, To: d.nodes[1-at].name})
		}
		if !bad(d.Hosts[0]) || !bad(d.Hosts[1]) {
			start()
			continue
		}
		d.given = true
		if !made(d.Hosts[1]) {
			at = 1
		}
		w.askAny("", admission.Ask{Kind: admission.GroupStop, Group: g})
		w.after(time.Second, func() {
			d.ask("", admission.Ask{Kind: admission.MirrorInvalidate, Node: d.nodes[at].name})
			start()
		})
	}
}

// made says whether there is a copy on the host.
func made(h *mirrortest.Host) bool { return h.On() && h.Core.Status().Super.Constructed }

// bad says whether the copy of the host refuses to become active while there is
// another one that is complete.
func bad(h *mirrortest.Host) bool { return !made(h) || h.Core.Status().Super.Failed }

// badCopy says whether a copy on the node keeps the group from it while the other
// one counts.
func (w *World) badCopy(g cluster.GroupName, n cluster.NodeName) bool {
	for _, r := range sortedNames(w.disks) {
		d := w.disks[r]
		if i := d.of(w.nodes[n]); d.group == g && i >= 0 && bad(d.Hosts[i]) && d.Counts(d.Hosts[i]) {
			return true
		}
	}
	return false
}

// help does what an operator would do now, and says whether nothing is left to
// do.
func (d *mirrorDisk) help() bool {
	if !d.Hosts[0].Active() && !d.Hosts[1].Active() {
		d.w.start()
	}
	for i, h := range d.Hosts {
		if !h.On() {
			return false
		}
		s := h.Core.Status()
		switch {
		case s.Broken != "": // a disk that has failed is tried again
			d.kill(i)
		case s.Role != replica.Active:
		case s.Relation == replica.Forked || s.Relation == replica.Ahead:
			d.ask("", admission.Ask{Kind: admission.MirrorResume})
			d.ask("", admission.Ask{Kind: admission.MirrorResolve, Node: d.nodes[1-i].name})
		case s.Phase == "joined" && s.Set.Peer:
			return true
		default:
			d.ask("", admission.Ask{Kind: admission.MirrorResume})
			d.ask("", admission.Ask{Kind: admission.MirrorCopy})
		}
	}
	return false
}

// copiesOf freezes the copies of a group on a node, or lets them go on.
func (w *World) copiesOf(n *Node, group string, frozen bool) {
	w.disksOf(n, func(d *mirrorDisk, i int) {
		if string(d.group) == group {
			d.freeze(i, frozen)
		}
	})
}

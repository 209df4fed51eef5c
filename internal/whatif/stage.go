package whatif

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/agenda"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// How long things take outside of the machines where nothing is known better.
const (
	travels    = 250 * time.Microsecond // a message
	quick      = time.Millisecond       // a step of a resource that never took any time, a look, a ping
	fenceTakes = 500 * time.Millisecond // a fence device
	copyHolds  = 100 * time.Millisecond // the active copy of a mirror disk, before it asks for the other one to be out
	hangs      = 10 * time.Second       // beyond its limit, until nothing is expected of a step any more
)

// begin is what the clock of every node shows when the stage is set: not 0,
// which is never.
const begin = cluster.Instant(time.Hour)

// mostSteps bounds what a stage computes, in steps of its machines: some seconds
// of a processor.
const mostSteps = 2_000_000

// stage is the copy of a cluster, and the outside.
type stage struct {
	agenda agenda.Agenda // from when it was set
	wall   time.Time     // then
	steps  int

	file  *config.File
	names []cluster.NodeName
	nodes map[cluster.NodeName]*actor
	cut   map[hop]bool
	mute  map[cluster.NodeName]map[netip.Addr]bool // ping targets that do not answer there
	fate  map[Step]Suppose
	known map[Step]bool // how long it takes is known
	waits int           // steps of resources, fences and scripts that are under way

	log     []line
	answers map[cluster.RequestID]engine.Reply
	served  map[cluster.GroupName]*service
	looked  *config.File // whose groups served has
}

// line is one event and when it was written.
type line struct {
	at time.Duration
	api.Event
}

// service is when a group was active as a whole, on one node.
type service struct {
	on  bool
	off time.Duration // since when it is not
	sum time.Duration // for how long in all it was not
}

// hop is one direction between two nodes on a network.
type hop struct {
	from, to cluster.NodeName
	path     int
}

// actor is one node.
type actor struct {
	name     cluster.NodeName
	machine  *engine.Machine          // nil while it is off
	wake     uint64                   // only the latest wake-up counts
	active   map[string]cluster.Epoch // GROUP/RESOURCE
	stopping map[string]bool          // of active
	harmless map[cluster.GroupName]bool
	copies   map[cluster.ResourceName]state.Mirror // as they were told
	end      string                                // what ended it
}

func (s *stage) after(d time.Duration, do func()) { s.agenda.After(d, do) }

// run lets time pass until end.
func (s *stage) run(end time.Duration) {
	for s.steps < mostSteps && s.agenda.Next(end) {
	}
	s.agenda.Reach(end)
}

func (s *stage) clock() cluster.Instant { return begin.Add(s.agenda.Now()) }

// step gives a machine one event and carries out what it wants done.
func (s *stage) step(n *actor, ev engine.Event) {
	if n.machine == nil {
		return
	}
	s.steps++
	eff := n.machine.Step(s.clock(), s.wall.Add(s.agenda.Now()), ev)
	s.transmit(n, eff)
	s.carry(n, eff)
	if eff.Exit {
		s.off(n, "it has left by plan")
		return
	}
	if n.machine == nil {
		return
	}
	n.wake++
	wake := n.wake
	s.after(max(eff.WakeAt.Sub(s.clock()), 100*time.Microsecond), func() {
		if n.wake == wake {
			s.step(n, engine.Event{})
		}
	})
}

// off ends a node with all that is active on it.
func (s *stage) off(n *actor, why string) {
	n.machine, n.end = nil, why
	n.wake++
	clear(n.active)
	clear(n.stopping)
	clear(n.harmless)
	s.look()
	s.copiesPart()
}

// later delivers an event to the same life of a node.
func (s *stage) later(n *actor, d time.Duration, ev engine.Event) {
	m := n.machine
	s.after(d, func() {
		if n.machine == m {
			s.step(n, ev)
		}
	})
}

// reaches says whether what one node sends the other arrives on a path.
func (s *stage) reaches(from, to cluster.NodeName, path int) bool {
	return !s.cut[hop{from, to, path}]
}

// linked says whether a stream between two nodes works on any network, which
// takes both directions.
func (s *stage) linked(a, b *actor) bool {
	if a.machine == nil || b.machine == nil {
		return false
	}
	is := s.file.Node(b.name)
	if is == nil { // a new cluster file is without it
		return false
	}
	for path := range is.Addresses {
		if s.reaches(a.name, b.name, path) && s.reaches(b.name, a.name, path) {
			return true
		}
	}
	return false
}

func (s *stage) transmit(n *actor, eff engine.Effects) {
	for _, m := range eff.Sends {
		if to := s.nodes[m.To]; to != nil && s.linked(n, to) {
			s.after(travels, func() { s.step(to, engine.Event{Peer: &engine.PeerIn{From: n.name, Data: m.Data}}) })
		}
	}
	for _, b := range eff.Beats {
		to := s.nodes[b.To]
		if to == nil {
			continue
		}
		for _, path := range b.Paths {
			if s.reaches(n.name, b.To, path) {
				s.after(travels, func() {
					s.step(to, engine.Event{Beat: &engine.BeatIn{From: n.name, Path: path, Payload: b.Payload}})
				})
			}
		}
	}
}

func (s *stage) carry(n *actor, eff engine.Effects) {
	for _, e := range eff.Events {
		s.log = append(s.log, line{s.agenda.Now(), e})
	}
	if eff.Config != nil {
		s.file = eff.Config
	}
	for _, t := range eff.Mirrors {
		n.copies[t.Resource] = t.Mirror
	}
	for _, t := range eff.Isolate {
		s.isolate(n, &t.Group)
	}
	for _, t := range eff.Restore {
		delete(n.harmless, t.Group.Name)
	}
	for _, op := range eff.Ops {
		s.operate(n, op)
	}
	for _, t := range eff.Checks {
		s.check(n, t)
	}
	for _, r := range eff.Scripts {
		s.script(n, r)
	}
	if eff.Ping != nil {
		s.later(n, quick, engine.Event{Pinged: &engine.Pinged{Reached: s.pings(n.name, *eff.Ping)}})
	}
	for _, f := range eff.Fences {
		s.fence(n, f)
	}
	for _, r := range eff.Replies {
		s.answers[r.ID] = r
	}
	if eff.Final != nil {
		s.off(n, fmt.Sprintf("final action %s: %s", eff.Final.Action, strings.TrimSuffix(eff.Final.Why, ".")))
	}
	if len(eff.Isolate)+len(eff.Restore) > 0 {
		s.look()
	}
	if len(eff.Mirrors) > 0 {
		s.copiesPart()
	}
}

// isolate makes a group harmless at once, unless that is supposed to fail.
func (s *stage) isolate(n *actor, g *config.Group) {
	for i := range g.Resources {
		if s.fate[Step{g.Resources[i].Name, Isolate}].Fails != 0 {
			s.later(n, quick, engine.Event{Exposed: &engine.Exposed{Group: g.Name}})
			return
		}
	}
	n.harmless[g.Name] = true
}

func (s *stage) pings(n cluster.NodeName, p engine.PingRun) bool {
	answer := 0
	for _, t := range p.Targets {
		if !s.mute[n][t] {
			answer++
		}
	}
	return answer >= max(p.Need, 1)
}

func key(g cluster.GroupName, r cluster.ResourceName) string { return string(g) + "/" + string(r) }

// operate is a step of a resource.
func (s *stage) operate(n *actor, op engine.Operation) {
	what, complaint := Stop, "it is supposed to fail"
	switch {
	case op.Op.Start:
		what = Start
	case op.Op.Force:
		what = Force
	}
	at := Step{op.Op.Resource, what}
	f := s.fate[at]
	fails := f.Fails != 0
	if f.Fails > 0 {
		f.Fails--
		s.fate[at] = f
	}
	if op.Op.Start && !fails {
		delete(n.harmless, op.Group.Name)
	}
	k := key(op.Group.Name, op.Op.Resource)
	if !op.Op.Start {
		n.stopping[k] = true
		s.lookAt(op.Group.Name)
	}
	s.waits++
	if f.Hangs { // the machine gives it up in its time
		s.after(op.Op.Limit(op.Group.Resource(op.Op.Resource))+hangs, func() { s.waits-- })
		return
	}
	m, took := n.machine, max(f.Takes, quick)
	s.after(took, func() {
		s.waits--
		if n.machine != m {
			return
		}
		why := ""
		delete(n.stopping, k)
		switch {
		case fails:
			why = complaint
		case op.Op.Start:
			n.active[k] = op.Epoch
		default:
			delete(n.active, k)
		}
		s.lookAt(op.Group.Name)
		s.step(n, engine.Event{OpDone: &engine.OpDone{Group: op.Group.Name, Epoch: op.Epoch, Op: op.Op, Why: why, Took: took}})
		s.copiesPart()
	})
}

// check answers what is active. All that the state says is taken for true.
func (s *stage) check(n *actor, t engine.Task) {
	c := engine.Checked{Group: t.Group.Name, Epoch: t.Epoch, Inactive: map[cluster.ResourceName]string{}}
	for i := range t.Group.Resources {
		r := &t.Group.Resources[i]
		if _, active := n.active[key(t.Group.Name, r.Name)]; !active {
			c.Inactive[r.Name] = "it is not there"
		}
	}
	s.later(n, quick, engine.Event{Checked: &c})
}

// script is a script of a ladder. What it does nobody knows but who wrote it.
func (s *stage) script(n *actor, r engine.ScriptRun) {
	s.log = append(s.log, line{s.agenda.Now(), api.Event{Node: n.name, Level: cluster.LevelWarn, Module: "rm", Code: codeScript,
		Text: fmt.Sprintf("Script %s of %s runs (%s): what it does is not foreseen.", r.Path, r.Monitor, r.Action)}})
	s.waits++
	m := n.machine
	s.after(quick, func() {
		s.waits--
		if n.machine == m {
			s.step(n, engine.Event{Script: &engine.ScriptDone{Monitor: r.Monitor, Run: r.Run, Took: quick}})
		}
	})
}

// codeScript is the code of the line that stands for a script.
const codeScript = "script-runs"

// fence is a fence device; it works, unless it is supposed to fail.
func (s *stage) fence(by *actor, f engine.FenceRun) {
	fate := s.fate[FenceOf(f.Node)]
	took := cmp.Or(fate.Takes, s.fenceTakes(f.Node))
	m := by.machine
	s.waits++
	s.after(took, func() {
		s.waits--
		done := engine.Fenced{Node: f.Node, Run: f.Run, Off: fate.Fails == 0, Took: took}
		if !done.Off {
			done.Why = "the device is supposed to fail"
		} else if n := s.nodes[f.Node]; n != nil && n.machine != nil {
			s.off(n, fmt.Sprintf("%s forced it off: %s", by.name, f.Why))
		}
		if by.machine == m {
			s.step(by, engine.Event{Fenced: &done})
		}
	})
}

// fenceTakes is how long the first level of a node's fence takes, if nobody knows
// better.
func (s *stage) fenceTakes(n cluster.NodeName) time.Duration {
	took := fenceTakes
	if is := s.file.Node(n); is != nil && len(is.Fence) > 0 {
		for _, step := range is.Fence[0] {
			took += step.Delay
		}
	}
	return took
}

// FenceOf is the step under which the fence of a node is supposed to take some
// time or to fail.
func FenceOf(n cluster.NodeName) Step { return Step{cluster.ResourceName(n), "fence"} }

// copiesPart has the active copies that hear nothing of the other one ask for it
// to be out of the in-sync set, after holding the writes for a moment.
func (s *stage) copiesPart() {
	for i := range s.file.Groups {
		g := &s.file.Groups[i]
		for _, r := range g.Mirrors() {
			for _, name := range g.Nodes {
				n := s.nodes[name]
				if n == nil || n.machine == nil {
					continue
				}
				e, active := n.active[key(g.Name, r.Name)]
				m, told := n.copies[r.Name]
				if active && told && s.apart(n, m) {
					s.after(copyHolds, func() { s.askAlone(n, g.Name, r.Name, e, m.Rev) })
				}
			}
		}
	}
}

// apart says whether a node of the set does not hear this one.
func (s *stage) apart(n *actor, m state.Mirror) bool {
	return m.Has(n.name) && slices.ContainsFunc(m.InSync, func(o cluster.NodeName) bool {
		return o != n.name && (s.nodes[o] == nil || !s.linked(n, s.nodes[o]))
	})
}

func (s *stage) askAlone(n *actor, g cluster.GroupName, r cluster.ResourceName, e cluster.Epoch, rev uint64) {
	now, active := n.active[key(g, r)]
	m := n.copies[r]
	if n.machine == nil || !active || now != e || m.Rev != rev || !s.apart(n, m) || n.harmless[g] {
		return
	}
	s.step(n, engine.Event{Mirror: &engine.MirrorAsk{Resource: r, Epoch: e, Base: rev, InSync: []cluster.NodeName{n.name}, Why: "the other copy is not reached"}})
}

// look notes which groups are served.
func (s *stage) look() {
	s.looked = s.file
	for i := range s.file.Groups {
		s.note(&s.file.Groups[i])
	}
}

// lookAt notes whether a group is served, where nothing else can have changed.
func (s *stage) lookAt(name cluster.GroupName) {
	if s.looked != s.file { // a new one is in force
		s.look()
	} else if g := s.file.Group(name); g != nil {
		s.note(g)
	}
}

func (s *stage) note(g *config.Group) {
	v := s.served[g.Name]
	if v == nil {
		v = &service{off: s.agenda.Now()}
		s.served[g.Name] = v
	}
	switch on := len(s.owners(g)) > 0; {
	case on && !v.on:
		v.on, v.sum = true, v.sum+s.agenda.Now()-v.off
	case !on && v.on:
		v.on, v.off = false, s.agenda.Now()
	}
}

// owners returns the nodes on which all of the group is active, and neither
// isolated nor being stopped.
func (s *stage) owners(g *config.Group) []cluster.NodeName {
	var out []cluster.NodeName
	for _, name := range g.Nodes {
		n := s.nodes[name]
		if n == nil || n.machine == nil || n.harmless[g.Name] || len(g.Resources) == 0 {
			continue
		}
		all := true
		for _, r := range g.Resources {
			k := key(g.Name, r.Name)
			_, active := n.active[k]
			all = all && active && !n.stopping[k]
		}
		if all {
			out = append(out, name)
		}
	}
	return out
}

// alive returns the nodes whose daemons run, in file order; the leader first.
func (s *stage) alive() []*actor {
	var out []*actor
	for _, name := range s.names {
		n := s.nodes[name]
		if n.machine == nil {
			continue
		}
		if n.machine.Leader() == name {
			out = slices.Insert(out, 0, n)
			continue
		}
		out = append(out, n)
	}
	return out
}

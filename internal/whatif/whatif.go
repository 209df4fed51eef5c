package whatif

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/lease"
	"github.com/tasuki-ha/tasuki/internal/quorum"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Question is what is asked: from that state, what follows when all the changes
// happen at once.
type Question struct {
	Snapshot api.Snapshot
	Changes  []Change
	// Fate is how steps go that are not to go as they should, Took how long each
	// took last; what is in neither takes no time.
	Fate map[Step]Suppose
	Took map[Step]time.Duration
	// Mute are ping targets that do not answer on a node.
	Mute map[cluster.NodeName][]netip.Addr
}

// mostTime is how far a simulation looks ahead.
const mostTime = time.Hour

// Ask answers a question. The error is an *api.Error where the question cannot be
// asked; what the cluster refuses is in the answer.
func Ask(q Question) (api.Simulation, error) {
	s, st, err := set(q)
	if err != nil {
		return api.Simulation{}, err
	}
	for _, c := range q.Changes {
		if no := c.check(s.file); no != nil {
			return api.Simulation{}, no
		}
	}
	r := api.Simulation{
		Cluster: s.file.Cluster, Time: q.Snapshot.Time, Assumed: s.assumed(q, st), Bounds: lease.Worst(s.file).Sentences(),
	}
	before := s.rest(q)
	r.Before = s.faults()
	began := s.agenda.Now()
	if no := s.change(q.Changes, &r); no != nil {
		r.Refused = no
	} else {
		r.Complete = s.settle(q.Changes)
	}
	s.tell(&r, st, before, began)
	return r, nil
}

// set returns the stage, its nodes on but not yet acquainted, and the state that
// it begins with.
func set(q Question) (*stage, *state.State, error) {
	snap := q.Snapshot
	if snap.Generation == 0 {
		return nil, nil, &api.Error{Code: "no-state", Message: fmt.Sprintf("%s has no state of the cluster to ask about", snap.Status.Node), Hint: "ask another node"}
	}
	st, err := agreed(snap)
	if err != nil {
		return nil, nil, err
	}
	s := &stage{
		wall: snap.Time, file: st.File(), nodes: map[cluster.NodeName]*actor{}, cut: map[hop]bool{}, mute: map[cluster.NodeName]map[netip.Addr]bool{},
		fate: map[Step]Suppose{}, known: map[Step]bool{}, answers: map[cluster.RequestID]engine.Reply{}, served: map[cluster.GroupName]*service{},
	}
	for n, targets := range q.Mute {
		s.silence(n, targets)
	}
	for _, net := range snap.Status.Networks {
		for _, d := range net.Directions {
			if d.State == api.DirectionLost {
				s.cut[hop{d.From, d.To, net.Number - 1}] = true
			}
		}
	}
	for i := range s.file.Nodes {
		name := s.file.Nodes[i].Name
		s.names = append(s.names, name)
		s.nodes[name] = &actor{name: name, active: map[string]cluster.Epoch{}, stopping: map[string]bool{}, harmless: map[cluster.GroupName]bool{}, copies: map[cluster.ResourceName]state.Mirror{}}
	}
	return s, st, s.raise(snap, st)
}

// agreed returns the state of a snapshot, with its cluster file.
func agreed(snap api.Snapshot) (*state.State, error) {
	var st state.State
	if err := json.Unmarshal(snap.State, &st); err != nil {
		return nil, fmt.Errorf("read the state of the cluster: %w", err)
	}
	st.Config.Text = snap.Config
	data, err := st.Marshal()
	if err != nil {
		return nil, fmt.Errorf("read the state of the cluster: %w", err)
	}
	return state.Unmarshal(data)
}

func (s *stage) silence(n cluster.NodeName, targets []netip.Addr) {
	if s.mute[n] == nil {
		s.mute[n] = map[netip.Addr]bool{}
	}
	for _, t := range targets {
		s.mute[n][t] = true
	}
}

// raise starts the machines of all nodes that are on. The one that leads comes
// first, so that it leads again: the others come when it is about to stand.
func (s *stage) raise(snap api.Snapshot, st *state.State) error {
	life := engine.Life{Incarnation: quorum.Incarnation{Generation: snap.Generation, Node: snap.Began}, Voters: snap.Voters, Learners: snap.Learners}
	persisted, err := engine.Replica(st, life)
	if err != nil {
		return err
	}
	hb := s.file.Timing.Heartbeat
	head := time.Duration(1+2*slices.Index(s.names, snap.Status.Leader))*hb - hb/2
	for _, n := range snap.Status.Nodes {
		agreed := st.Nodes[n.Name]
		if !heard(n) || agreed == nil || s.nodes[n.Name] == nil {
			continue
		}
		o := engine.Options{
			Self: n.Name, Boot: agreed.Boot, Daemon: agreed.Daemon, NextSeq: 1, Seed: s.file,
			HardState: persisted.HardState, Snapshot: persisted.Snapshot, Meta: persisted.Meta, Like: st,
			Lease: begin.Add(s.legacy()), Runs: s.runs(st, n.Name),
		}
		delay := time.Duration(0)
		if n.Name != snap.Status.Leader {
			delay = max(head, 0)
		}
		s.after(delay, func() {
			o.Now = s.clock()
			m, err := engine.New(o)
			if err != nil { // what the daemon goes by was read from its own words
				s.nodes[o.Self].end = err.Error()
				return
			}
			m.Recall(snap.Status.Monitors)
			s.nodes[o.Self].machine = m
			s.step(s.nodes[o.Self], engine.Event{})
		})
	}
	return nil
}

func heard(n api.Node) bool {
	return n.Self || slices.ContainsFunc(n.Addresses, func(p api.Path) bool { return p.Up })
}

// warmup is how long the machines take to be what they are in the cluster that
// they stand for: a leader is elected, leases are held, promises have been made.
func (s *stage) warmup() time.Duration { return 40*s.file.Timing.Heartbeat + 3*s.file.Timing.Lease }

// legacy is how long they hold the leases that they came with.
func (s *stage) legacy() time.Duration { return s.warmup() - 2*s.file.Timing.Lease }

// runs returns what a node runs, as its daemon would find it.
func (s *stage) runs(st *state.State, n cluster.NodeName) engine.Runs {
	r := engine.Runs{Guarded: true}
	for _, name := range st.OwnedBy(n) {
		g, gs := s.file.Group(name), st.Groups[name]
		if g == nil {
			continue
		}
		r.Groups = append(r.Groups, engine.Task{Group: *g, Epoch: gs.Epoch, Previous: gs.Previous, Factor: cluster.FactorGroupStart, Event: "START"})
		for i := range g.Resources {
			if is := gs.Resources[g.Resources[i].Name].State; gs.Phase != cluster.PhaseStarting || is == cluster.ResourceOnline {
				s.nodes[n].active[key(name, g.Resources[i].Name)] = gs.Epoch
			}
		}
	}
	return r
}

// rest lets the machines come to rest and returns where each group runs then.
// What they had to say until then is forgotten.
func (s *stage) rest(q Question) map[cluster.GroupName]cluster.NodeName {
	half := s.warmup() / 2
	s.run(half)
	for _, m := range q.Snapshot.Status.Monitors {
		for _, on := range m.Nodes {
			if n := s.nodes[on.Node]; n != nil && on.Verdict == cluster.VerdictGood {
				s.step(n, engine.Event{Probe: &engine.Probe{Monitor: m.Name, Good: true}})
			}
		}
	}
	s.run(2 * half)
	s.log = nil
	before := map[cluster.GroupName]cluster.NodeName{}
	s.look()
	for i := range s.file.Groups {
		g := &s.file.Groups[i]
		if owners := s.owners(g); len(owners) > 0 {
			before[g.Name] = owners[0]
		}
		v := s.served[g.Name]
		v.sum, v.off = 0, s.agenda.Now()
	}
	for at, took := range q.Took { // what is at rest began as it should
		s.fate[at], s.known[at] = Suppose{Takes: took}, true
	}
	maps.Copy(s.fate, q.Fate)
	return before
}

// change lets all of it happen, and returns why the cluster does not do what was
// asked of it, if it does not.
func (s *stage) change(changes []Change, r *api.Simulation) *api.Error {
	for i, c := range changes {
		if c.Fail != nil && c.Fail.Node == "" {
			at, no := s.where(c.Fail)
			if no != nil {
				return no
			}
			named := *c.Fail
			named.Node, c.Fail = at, &named
		}
		r.Change = append(r.Change, c.String())
		switch {
		case c.Ask != nil:
			if no := s.ask(*c.Ask, i); no != nil {
				return no
			}
		case c.Kill != "":
			s.off(s.nodes[c.Kill], "it has lost its power")
		case c.Leave != "":
			s.step(s.nodes[c.Leave], engine.Event{Leave: true})
		case c.Fence != nil:
			if by := s.nodes[c.Fence.By]; by != nil {
				s.step(by, engine.Event{Fence: &engine.Fence{Node: c.Fence.Node, Why: "an operator ordered it"}})
			}
		case c.Cut != nil:
			s.sever(*c.Cut)
		case c.Pull != nil:
			s.pull(*c.Pull)
		case c.Fail != nil:
			s.fail(*c.Fail)
		}
	}
	return nil
}

// where returns the node on which something fails that nobody named.
func (s *stage) where(f *Fail) (cluster.NodeName, *api.Error) {
	if g := f.about(s.file); g != nil {
		if owners := s.owners(g); len(owners) > 0 {
			return owners[0], nil
		}
		return "", &api.Error{Code: "not-active", Message: fmt.Sprintf("group %s is not active anywhere, so nothing of it fails", g.Name), Hint: "name a node: @NODE"}
	}
	if nodes := s.file.Monitor(f.Monitor).Nodes; len(nodes) == 1 {
		return nodes[0], nil
	}
	return "", &api.Error{Code: "bad-request", Message: fmt.Sprintf("monitor %s watches on several nodes", f.Monitor), Hint: "name a node: @NODE"}
}

// ask asks at a node that is on and waits for the answer.
func (s *stage) ask(a admission.Ask, i int) *api.Error {
	a.ID, a.Wall = cluster.RequestID(fmt.Sprintf("ask-%d", i)), s.wall.Add(s.agenda.Now())
	at := s.alive()
	if len(at) == 0 {
		return &api.Error{Code: "no-node", Message: "no node is on that could be asked", Hint: "tasuki status shows the nodes"}
	}
	s.step(at[0], engine.Event{Ask: &a})
	for end := s.agenda.Now() + askedWithin; s.agenda.Now() < end; {
		if reply, done := s.answers[a.ID]; done {
			return reply.Err
		}
		s.run(s.agenda.Now() + quick)
	}
	return &api.Error{Code: "timed-out", Message: "the cluster does not answer", Hint: "tasuki status shows whether it has a majority"}
}

// askedWithin is longer than a machine waits for a leader.
const askedWithin = 10 * time.Second

func (s *stage) sever(c Cut) {
	for path := range s.file.Node(c.To).Addresses {
		if c.Path == AllPaths || c.Path == path {
			s.cut[hop{c.From, c.To, path}] = true
		}
	}
	s.copiesPart()
}

// pull takes a cable out: nothing passes on the networks behind it, its ping
// targets are out of reach, and what watches its carrier sees that.
func (s *stage) pull(p Pull) {
	for _, o := range s.names {
		for _, path := range p.Paths {
			s.cut[hop{p.Node, o, path}], s.cut[hop{o, p.Node, path}] = true, true
		}
	}
	s.silence(p.Node, p.Targets)
	s.copiesPart()
	for i := range s.file.Monitors {
		m := &s.file.Monitors[i]
		if p.Device != "" && m.NICLink != nil && slices.Contains(m.Nodes, p.Node) && cmp.Or(m.NICLink.PerNode[p.Node], m.NICLink.Device) == p.Device {
			bad := engine.Probe{Monitor: m.Name, Code: linkDown, Text: fmt.Sprintf("NIC %s link was down.", p.Device)}
			s.trouble(s.nodes[p.Node], m, bad)
		}
	}
}

// linkDown is the code with which a monitor tells of a link that is down.
const linkDown = 20

// fail lets a resource end, or a monitor find trouble with every look.
func (s *stage) fail(f Fail) {
	n := s.nodes[f.Node]
	if f.Rehearse {
		s.step(n, engine.Event{Rehearse: &engine.Rehearse{Monitor: f.Monitor}})
		return
	}
	if f.Resource == "" {
		s.trouble(n, s.file.Monitor(f.Monitor), engine.Probe{Monitor: f.Monitor, Code: 1, Text: f.Text})
		return
	}
	g := s.file.GroupOf(f.Resource)
	epoch, active := n.active[key(g.Name, f.Resource)]
	if !active {
		return
	}
	delete(n.active, key(g.Name, f.Resource))
	s.look()
	s.step(n, engine.Event{Failed: &engine.Failed{Group: g.Name, Resource: f.Resource, Epoch: epoch, Why: f.Text}})
}

// trouble lets a monitor find the same with every look. One that the kernel tells
// looks once, unless it counts.
func (s *stage) trouble(n *actor, m *config.Monitor, bad engine.Probe) {
	s.step(n, engine.Event{Probe: &bad})
	if n.machine != nil && (m.NICLink == nil || m.Retries > 0) {
		s.after(cmp.Or(m.Interval, time.Second), func() { s.trouble(n, m, bad) })
	}
}

// settle lets time pass until nothing happens any more, and says whether that
// was reached.
func (s *stage) settle(changes []Change) bool {
	still := max(5*time.Second, 6*s.file.Timing.Lease, 50*s.file.Timing.Heartbeat)
	for _, c := range changes {
		if c.Fail != nil && c.Fail.Monitor != "" {
			m := s.file.Monitor(c.Fail.Monitor)
			still = max(still, time.Duration(m.Retries+2)*m.Interval)
		}
	}
	latest := s.agenda.Now()
	for end := s.agenda.Now() + mostTime; s.agenda.Now() < end && s.steps < mostSteps; {
		seen := len(s.log)
		s.run(s.agenda.Now() + still/10)
		if len(s.log) > seen || s.waits > 0 {
			latest = s.agenda.Now()
		}
		if s.agenda.Now()-latest >= still {
			return true
		}
	}
	return false
}

// assumed lists what the answer stands on that nobody knows.
func (s *stage) assumed(q Question, st *state.State) []string {
	var out []string
	for _, m := range q.Snapshot.Status.Monitors {
		for _, on := range m.Nodes {
			if on.Verdict == cluster.VerdictBad || on.Verdict == cluster.VerdictSuspect {
				out = append(out, fmt.Sprintf("monitor %s is %s on %s now: what it still leads to is left out", m.Name, on.Verdict, on.Node))
			}
		}
	}
	for _, name := range st.GroupNames() {
		if p := st.Groups[name].Plan; p != nil {
			out = append(out, fmt.Sprintf("the %s of group %s, which is under way, goes well before anything else happens", p.Action, name))
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(q.Fate), compareSteps) {
		out = append(out, fmt.Sprintf("%s of %s %s", at.What, at.Resource, q.Fate[at]))
	}
	for _, c := range q.Changes {
		if c.Pull != nil && c.Pull.Node != q.Snapshot.Status.Node && c.Pull.Device != "" {
			out = append(out, fmt.Sprintf("%s is connected at %s as it is at %s", c.Pull.Device, c.Pull.Node, q.Snapshot.Status.Node))
		}
	}
	return out
}

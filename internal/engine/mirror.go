package engine

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/placement"
	"github.com/tasuki-ha/tasuki/internal/quorum"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// MirrorAsk asks, for the active copy of a mirror disk on this node, for another
// in-sync set. It stands until the mirror has another revision than Base, by this
// or another change, another ask of the same resource takes its place, or it comes
// to nothing; Effects.Mirrors tells the one, Effects.Refused the other.
type MirrorAsk struct {
	Resource cluster.ResourceName
	Epoch    cluster.Epoch // Task.Epoch of the start in which the copy became active
	Base     uint64        // state.Mirror.Rev that it was asked on
	InSync   []cluster.NodeName
	Why      string
	Cause    cluster.EventID
}

// MirrorTold is what is agreed on about a mirror disk that has a copy on this
// node. Of two the later one holds, whatever their Rev: a new life of consensus
// may begin with an older one.
type MirrorTold struct {
	Group    cluster.GroupName
	Resource cluster.ResourceName
	Mirror   state.Mirror
	// Life is of this life of consensus, higher than of those that yielded to it.
	// Epochs are counted within one: a pair that was parted has counted twice.
	Life uint32
}

// MirrorRefused says that a MirrorAsk has come to nothing.
type MirrorRefused struct {
	Resource cluster.ResourceName
	Why      string
}

// MirrorStatus is what the copy on this node says of itself, for people. Nothing
// is decided by it.
type MirrorStatus struct {
	Resource cluster.ResourceName
	Copy     api.MirrorCopy // its Node is filled in
}

// mirrorsHere is what this node does about mirror disks.
type mirrorsHere struct {
	wishes map[cluster.ResourceName]*mirrorWish
	told   map[cluster.ResourceName]uint64 // Rev, in this life of consensus
	life   quorum.Incarnation
	looked uint64 // applied, when tellMirrors last looked

	refused map[cluster.ResourceName]*refusals // as they were told of

	copies map[cluster.ResourceName]api.MirrorCopy // on this node
	spread cluster.Instant                         // when the other nodes were told of them last
	fresh  bool                                    // they have changed since
}

// mirrorWish is a MirrorAsk that is not agreed on yet.
type mirrorWish struct {
	MirrorAsk
	id    cluster.RequestID // of the ask that is under way; "": none was made
	epoch cluster.Epoch     // in which that was made
}

// refusals is what was told last of asks of one mirror disk that came to nothing.
type refusals struct {
	inSync []cluster.NodeName // that was asked for
	told   cluster.Instant
	more   int // that were not told of since then
}

// refusedAgain is how long the same is not told again: a copy asks again at once,
// and again.
const refusedAgain = time.Minute

// spreadMirrors is how often the progress of a copy is told to the other nodes.
const spreadMirrors = time.Second

func newMirrorsHere() mirrorsHere {
	return mirrorsHere{wishes: map[cluster.ResourceName]*mirrorWish{}, told: map[cluster.ResourceName]uint64{}, refused: map[cluster.ResourceName]*refusals{},
		copies: map[cluster.ResourceName]api.MirrorCopy{}}
}

func (m *Machine) takeMirrorAsk(a MirrorAsk) {
	a.InSync = slices.Sorted(slices.Values(a.InSync))
	if w := m.mirrors.wishes[a.Resource]; w != nil {
		delete(m.outbox, w.id)
	}
	m.mirrors.wishes[a.Resource] = &mirrorWish{MirrorAsk: a}
}

// followMirrors asks for what the copies here want, and tells them what is
// agreed on.
func (m *Machine) followMirrors() {
	for _, r := range sortedKeys(m.mirrors.wishes) {
		m.followWish(r, m.mirrors.wishes[r])
	}
	m.tellMirrors()
	m.spreadCopies()
}

// followWish asks in the epoch that the group is in now: what is counted on while
// the group stays here, for a stop above all, must not make an ask void, or the
// writes that the stop waits for would never complete.
func (m *Machine) followWish(r cluster.ResourceName, w *mirrorWish) {
	agreed := m.st.Mirror(r)
	if agreed != nil && agreed.Rev != w.Base {
		m.endWish(r, w)
		delete(m.mirrors.told, r) // it may have been told of this before it asked
		m.mirrors.looked = 0
		return
	}
	g := m.file().GroupOf(r)
	if g == nil {
		m.refuseWish(r, w, "it is not in the cluster file")
		return
	}
	gs, l := m.st.Groups[g.Name], m.groups.at[g.Name]
	switch {
	case l != nil && l.inherited && !m.overtaken(l, gs):
		return // the state that this daemon started with may be older than what runs
	case gs == nil || gs.Owner != m.self || l == nil || l.lost:
		m.refuseWish(r, w, fmt.Sprintf("group %s is not this node's any more", g.Name))
		return
	case w.Epoch < l.assigned:
		m.refuseWish(r, w, fmt.Sprintf("it is of an earlier assignment of group %s", g.Name))
		return
	case w.id != "" && w.epoch == gs.Epoch && m.outbox[w.id] != nil:
		return
	}
	c := state.SetMirror{Resource: r, Group: g.Name, Epoch: gs.Epoch, Node: m.self, Base: w.Base, InSync: w.InSync, Why: w.Why, Cause: w.Cause, Time: m.wall}
	if why := m.st.CheckMirror(c); why != "" {
		m.refuseWish(r, w, why)
		return
	}
	delete(m.outbox, w.id)
	a := m.newAsk(admission.Commands, w.Why, w.Cause)
	a.Commands = []state.Command{{Mirror: &c}}
	w.id, w.epoch = a.ID, gs.Epoch
	m.ask(a, false)
}

func (m *Machine) endWish(r cluster.ResourceName, w *mirrorWish) {
	delete(m.outbox, w.id)
	delete(m.mirrors.wishes, r)
}

func (m *Machine) refuseWish(r cluster.ResourceName, w *mirrorWish, why string) {
	m.endWish(r, w)
	m.eff.Refused = append(m.eff.Refused, MirrorRefused{Resource: r, Why: why})
	was, before := m.mirrors.refused[r], ""
	if was != nil && slices.Equal(was.inSync, w.InSync) {
		if m.now.Sub(was.told) < refusedAgain {
			was.more++
			return
		}
		if was.more > 0 {
			before = fmt.Sprintf(" The same happened %d times more since it was told last.", was.more)
		}
	}
	m.mirrors.refused[r] = &refusals{inSync: w.InSync, told: m.now}
	m.event(cluster.LevelWarn, "md", "mirror-refused", w.Cause, map[string]string{"resource": string(r)},
		"The in-sync set of mirror disk %s stays as it is, although %s was asked for (%s): %s.%s", r, list(w.InSync), reason(w.Why), why, before)
}

// tellMirrors tells the copies on this node what is agreed on: once in every life
// of consensus, and whenever it changes. An active copy is told only under a lease:
// without one this node cannot know that nothing newer was agreed on.
func (m *Machine) tellMirrors() {
	if m.meta.Incarnation.Blank() || m.st.Config.Version == 0 {
		return
	}
	here := &m.mirrors
	if here.life != m.meta.Incarnation {
		here.life, here.looked = m.meta.Incarnation, 0
		clear(here.told)
	}
	if here.looked == m.applied {
		return
	}
	here.looked = m.applied
	mayRun := m.mayRun()
	f := m.file()
	for i := range f.Groups {
		g := &f.Groups[i]
		mirrors := g.Mirrors()
		if len(mirrors) == 0 || !slices.Contains(g.Nodes, m.self) {
			continue
		}
		if l := m.groups.at[g.Name]; l != nil && !l.idle() && !mayRun {
			here.looked = 0 // what a daemon starts with may be older than what its active copy was told
			continue
		}
		for _, r := range mirrors {
			if is := m.st.Mirror(r.Name); is != nil && here.told[r.Name] != is.Rev {
				here.told[r.Name] = is.Rev
				m.eff.Mirrors = append(m.eff.Mirrors, MirrorTold{Group: g.Name, Resource: r.Name, Mirror: is.Clone(), Life: here.life.Order(f)})
			}
		}
	}
}

// mirrorsOf returns what is agreed on about the mirror disks of a group.
func (m *Machine) mirrorsOf(g *config.Group) map[cluster.ResourceName]state.Mirror {
	var out map[cluster.ResourceName]state.Mirror
	for _, r := range g.Mirrors() {
		if is := m.st.Mirror(r.Name); is != nil {
			if out == nil {
				out = map[cluster.ResourceName]state.Mirror{}
			}
			out[r.Name] = is.Clone()
		}
	}
	return out
}

// mirrorCopyOf is what one node tells the others of one copy.
type mirrorCopyOf struct {
	Resource cluster.ResourceName `json:"m"`
	api.MirrorCopy
}

func (m *Machine) takeMirrorStatus(s MirrorStatus) {
	was, now := m.mirrors.copies[s.Resource], s.Copy
	now.Node = m.self
	m.mirrors.copies[s.Resource] = now
	m.mirrors.fresh = true
	if was.State != now.State || was.Role != now.Role || was.Connected != now.Connected || was.Text != now.Text {
		m.mirrors.spread = 0 // at once
	}
	if now.State == api.MirrorSplit && was.State != now.State && m.speaksFor(s.Resource) {
		fields := map[string]string{"resource": string(s.Resource)}
		if g := m.file().GroupOf(s.Resource); g != nil {
			fields["group"] = string(g.Name)
		}
		m.event(cluster.LevelError, "md", "mirror-split", "", fields,
			"The two copies of mirror disk %s were written apart from each other (split brain). Both are kept as they are, and nothing is copied until an operator decides whose writes are given up: tasuki mirror resolve %s --discard NODE.", s.Resource, s.Resource)
	}
}

// speaksFor says whether it is this node that tells what both copies see: the
// owner of the group, or else the first of its nodes that is heard.
func (m *Machine) speaksFor(r cluster.ResourceName) bool {
	g := m.file().GroupOf(r)
	if g == nil {
		return false
	}
	if gs := m.st.Groups[g.Name]; gs != nil && gs.Owner != "" {
		return gs.Owner == m.self
	}
	i := slices.IndexFunc(g.Nodes, m.alive)
	return i >= 0 && g.Nodes[i] == m.self
}

// spreadCopies tells the other nodes what the copies here say of themselves: at
// once where their state has changed, else once a second while they change, and
// now and then in any case.
func (m *Machine) spreadCopies() {
	here := &m.mirrors
	maps.DeleteFunc(here.copies, func(r cluster.ResourceName, _ api.MirrorCopy) bool { return m.file().GroupOf(r) == nil })
	since := m.now.Sub(here.spread)
	if len(here.copies) == 0 || since < spreadMirrors || !here.fresh && since < tellEvery {
		return
	}
	here.spread, here.fresh = m.now, false
	var tell []mirrorCopyOf
	for _, r := range sortedKeys(here.copies) {
		tell = append(tell, mirrorCopyOf{r, here.copies[r]})
	}
	for _, n := range sortedKeys(m.peers) {
		if m.alive(n) {
			m.send(n, false, message{Mirrors: tell})
		}
	}
}

// mirrorStatus puts what is agreed on and what the copies say together.
func (m *Machine) mirrorStatus() []api.Mirror {
	var out []api.Mirror
	f := m.file()
	for i := range f.Groups {
		g := &f.Groups[i]
		for _, r := range g.Mirrors() {
			is := m.st.Mirror(r.Name)
			if is == nil {
				continue
			}
			s := api.Mirror{Name: r.Name, Group: g.Name, Mode: r.MirrorDisk.Mode, Mount: r.MirrorDisk.Mount, Comment: r.Comment,
				InSync: is.InSync, Since: is.Since, Why: is.Why, Victim: is.Victim}
			if gs := m.st.Groups[g.Name]; gs != nil {
				s.Owner = gs.Owner
			}
			if x := is.Forced; x != nil {
				s.Forced = &api.MirrorForced{Node: x.Node, Why: x.Why, Author: x.Author, Since: x.Since}
			}
			if x := is.Paused; x != nil {
				s.Paused = &api.MirrorPaused{Why: x.Why, Author: x.Author, Since: x.Since}
			}
			for _, n := range g.Nodes {
				s.Copies = append(s.Copies, m.copyStatus(r.Name, is, n))
			}
			out = append(out, s)
		}
	}
	return out
}

// copyStatus returns the copy on a node. Where its word and the agreed set differ
// about whether it is complete, the set holds.
func (m *Machine) copyStatus(r cluster.ResourceName, is *state.Mirror, n cluster.NodeName) api.MirrorCopy {
	c := m.copyOf(r, n)
	if len(is.InSync) > 0 && !is.Has(n) && (c.State == api.MirrorInSync || c.State == api.MirrorUnknown) {
		c.State = api.MirrorOutdated
	}
	return c
}

// copyOf returns what the copy on a node says of itself, as far as that is known.
func (m *Machine) copyOf(r cluster.ResourceName, n cluster.NodeName) api.MirrorCopy {
	c := api.MirrorCopy{State: api.MirrorUnknown}
	if own := m.mirrors.copies[r]; n == m.self && own.State != "" {
		c = own
	}
	if p := m.peers[n]; n != m.self && p != nil && m.alive(n) {
		for _, x := range p.mirrors {
			if x.Resource == r && x.State != "" {
				c = x.MirrorCopy
			}
		}
	}
	c.Node = n
	return c
}

// stale says whether a copy on the node that the group needs is out of date.
func (m *Machine) stale(name cluster.GroupName, n cluster.NodeName) bool {
	g := m.file().Group(name)
	return g != nil && m.st.OutOfDate(g, n) != ""
}

// staleCopies says which copies keep nodes that are here from taking the group.
func (m *Machine) staleCopies(g *config.Group) string {
	text := ""
	for _, n := range g.Nodes {
		if why := placement.OutOfDate(m.st, g, n); why != "" && m.alive(n) {
			text += ": " + why
		}
	}
	return text
}

// narrateMirror writes the lines about a change of a mirror disk: its owner's
// about what it asked for, the leader's about what an operator did.
func (m *Machine) narrateMirror(c state.Command, b before) {
	switch {
	case c.Mirror != nil && c.Mirror.Node == m.self:
		was, now := b.mirrors[c.Mirror.Resource], m.st.Mirror(c.Mirror.Resource)
		if now != nil && was.Rev != now.Rev {
			m.narrateSet(c.Mirror.Group, c.Mirror.Resource, &was, now)
		}
	case c.OperateMirror != nil && m.lead == m.self:
		was, now := b.mirrors[c.OperateMirror.Resource], m.st.Mirror(c.OperateMirror.Resource)
		if now != nil && was.Rev != now.Rev {
			m.narrateOperation(c.OperateMirror)
		}
	}
}

func (m *Machine) narrateSet(g cluster.GroupName, r cluster.ResourceName, was, now *state.Mirror) {
	fields := func(n cluster.NodeName) map[string]string {
		return map[string]string{"group": string(g), "resource": string(r), "node": string(n)}
	}
	if len(was.InSync) == 0 {
		m.event(cluster.LevelInfo, "md", "mirror-constructed", now.Cause, fields(m.self), "Mirror disk %s has been constructed, the complete copies are on %s: %s.", r, list(now.InSync), reason(now.Why))
		return
	}
	for _, n := range was.InSync {
		if !now.Has(n) {
			m.event(cluster.LevelWarn, "md", "mirror-out", now.Cause, fields(n), "The copy of mirror disk %s on %s is out of date: %s. Only %s can be active.", r, n, reason(now.Why), list(now.InSync))
		}
	}
	for _, n := range now.InSync {
		if !was.Has(n) {
			m.event(cluster.LevelInfo, "md", "mirror-in", now.Cause, fields(n), "The copy of mirror disk %s on %s is complete: %s.", r, n, reason(now.Why))
		}
	}
}

func (m *Machine) narrateOperation(c *state.OperateMirror) {
	fields := map[string]string{"resource": string(c.Resource), "author": c.Author}
	if g := m.file().GroupOf(c.Resource); g != nil {
		fields["group"] = string(g.Name)
	}
	if c.Node != "" {
		fields["node"] = string(c.Node)
	}
	tell := func(level cluster.Level, code, format string, args ...any) {
		m.event(level, "md", code, c.Cause, fields, format, args...)
	}
	switch r := c.Resource; c.Verb {
	case state.MirrorForce:
		tell(cluster.LevelWarn, "mirror-forced", "The copy of mirror disk %s on %s counts as complete from now on, although it may be out of date (%s: %s). Writes that only another copy has are given up.", r, c.Node, c.Author, reason(c.Why))
	case state.MirrorAcknowledge:
		tell(cluster.LevelInfo, "mirror-acknowledged", "%s has acknowledged that a copy of mirror disk %s was forced.", c.Author, r)
	case state.MirrorResolve:
		tell(cluster.LevelWarn, "mirror-resolved", "What only the copy of mirror disk %s on %s holds is given up (%s: %s).", r, c.Node, c.Author, reason(c.Why))
	case state.MirrorBreak:
		tell(cluster.LevelWarn, "mirror-broken", "Mirror disk %s is broken: nothing is copied until it is resumed (%s: %s).", r, c.Author, reason(c.Why))
	case state.MirrorResume:
		tell(cluster.LevelInfo, "mirror-resumed", "Mirror disk %s copies by itself again (%s).", r, c.Author)
	case state.MirrorInvalidate:
		tell(cluster.LevelWarn, "mirror-out", "The copy of mirror disk %s on %s is out of date: %s declared it so (%s).", r, c.Node, c.Author, reason(c.Why))
	default:
		tell(cluster.LevelInfo, "mirror-ordered", "%s has ordered of mirror disk %s: %s.", c.Author, r, orders[state.MirrorOrderKind(c.Verb)])
	}
}

var orders = map[state.MirrorOrderKind]string{
	state.OrderResync: "copy what differs", state.OrderFull: "copy everything",
	state.OrderVerify: "compare both copies", state.OrderVerifyRepair: "compare both copies and copy what differs",
	state.OrderGrow: "grow to the size of the data devices",
}

// list puts names into words.
func list(names []cluster.NodeName) string {
	out := "nobody"
	for i, n := range names {
		switch {
		case i == 0:
			out = string(n)
		case i == len(names)-1:
			out += " and " + string(n)
		default:
			out += ", " + string(n)
		}
	}
	return out
}

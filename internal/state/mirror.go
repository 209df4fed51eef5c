package state

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Mirror is what is agreed on about one mirror disk.
type Mirror struct {
	// InSync is the in-sync set, sorted: the nodes whose copy is complete. Only they
	// may become active. Empty: the mirror was never constructed, and whoever
	// becomes active first constructs it. Once it has a member it is never empty
	// again. A member that is down stays in it: its copy is complete until the
	// active one writes without it, and that one asks first.
	InSync []cluster.NodeName `json:"in_sync,omitempty"`
	Rev    uint64             `json:"rev"` // grows with every change of this mirror, also over its end and a new one of its name
	Why    string             `json:"why,omitempty"`
	Since  time.Time          `json:"since,omitzero"` // of InSync, by the clock of who asked
	Cause  cluster.EventID    `json:"cause,omitempty"`

	Forced *Forced          `json:"forced,omitempty"` // a copy that may have been out of date was made the latest one; stays until acknowledged
	Victim cluster.NodeName `json:"victim,omitempty"` // an operator said that what its copy alone holds may be overwritten; until it comes in
	Paused *Paused          `json:"paused,omitempty"` // nothing is copied by itself
	Order  *MirrorOrder     `json:"order,omitempty"`  // the latest one
}

// Forced says that an operator made the copy of a node the latest one.
type Forced struct {
	Node   cluster.NodeName `json:"node"`
	Why    string           `json:"why"`
	Author string           `json:"author"`
	Since  time.Time        `json:"since"`
}

// Paused says that an operator broke the mirror.
type Paused struct {
	Why    string    `json:"why"`
	Author string    `json:"author"`
	Since  time.Time `json:"since"`
}

// MirrorOrder is work that an operator ordered of the active copy. One with a
// Serial that was carried out is not carried out again.
type MirrorOrder struct {
	Serial uint64          `json:"serial"` // the Rev in which it was ordered
	Kind   MirrorOrderKind `json:"kind"`
	Author string          `json:"author"`
	Time   time.Time       `json:"time"`
}

// MirrorOrderKind names what is ordered.
type MirrorOrderKind string

// The orders: copy what differs, copy everything, compare both copies,
// compare them and copy what differs from the active one, and take more of data
// devices that have grown into use.
const (
	OrderResync       MirrorOrderKind = "resync"
	OrderFull         MirrorOrderKind = "full"
	OrderVerify       MirrorOrderKind = "verify"
	OrderVerifyRepair MirrorOrderKind = "verify-repair"
	OrderGrow         MirrorOrderKind = "grow"
)

// SetMirror is what the owner of a group asks for: another in-sync set, or the
// same again, which gives the mirror its next revision all the same: so that what
// was asked before and has not arrived yet is void for sure. It changes nothing
// where CheckMirror has an objection.
type SetMirror struct {
	Resource cluster.ResourceName `json:"resource"`
	Group    cluster.GroupName    `json:"group"`
	Epoch    cluster.Epoch        `json:"epoch"`
	Node     cluster.NodeName     `json:"node"` // the owner
	Base     uint64               `json:"base"` // Mirror.Rev that it was asked on; another one makes it void
	InSync   []cluster.NodeName   `json:"in_sync"`
	Why      string               `json:"why,omitempty"`
	Cause    cluster.EventID      `json:"cause,omitempty"`
	Time     time.Time            `json:"time"`
}

// MirrorVerb names what an operator does with a mirror disk.
type MirrorVerb string

// The verbs. Orders are verbs too, by their names.
const (
	MirrorForce       MirrorVerb = "force"       // Node's copy is the latest one, whatever the others hold; while the group is offline
	MirrorAcknowledge MirrorVerb = "acknowledge" // that it was forced
	MirrorResolve     MirrorVerb = "resolve"     // Node's copy is the victim
	MirrorBreak       MirrorVerb = "break"       //
	MirrorResume      MirrorVerb = "resume"      //
	MirrorInvalidate  MirrorVerb = "invalidate"  // Node's copy is not complete, although it looks so
)

// OperateMirror is what an operator does with a mirror disk. What does not fit
// any more changes nothing.
type OperateMirror struct {
	Resource cluster.ResourceName `json:"resource"`
	Verb     MirrorVerb           `json:"verb"`
	Node     cluster.NodeName     `json:"node,omitempty"`
	Why      string               `json:"why,omitempty"`
	Author   string               `json:"author,omitempty"`
	Cause    cluster.EventID      `json:"cause,omitempty"`
	Time     time.Time            `json:"time"`
}

// Has says whether the node is in the in-sync set.
func (m *Mirror) Has(n cluster.NodeName) bool { return slices.Contains(m.InSync, n) }

// Clone returns a copy that shares nothing with the state.
func (m *Mirror) Clone() Mirror {
	c := *m
	c.InSync = slices.Clone(m.InSync)
	c.Forced, c.Paused, c.Order = copyOf(m.Forced), copyOf(m.Paused), copyOf(m.Order)
	return c
}

func copyOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// Mirror returns what is agreed on about a mirror disk of the cluster file, or
// nil where there is none of that name.
func (s *State) Mirror(r cluster.ResourceName) *Mirror { return s.Mirrors[r] }

// OutOfDate returns the first mirror disk of the group of which the node's copy
// is not complete while another one is; "" if there is none. Such a node must
// not become the group's owner.
func (s *State) OutOfDate(g *config.Group, n cluster.NodeName) cluster.ResourceName {
	for _, r := range g.Mirrors() {
		if m := s.Mirrors[r.Name]; m != nil && len(m.InSync) > 0 && !m.Has(n) {
			return r.Name
		}
	}
	return ""
}

// mayStart says whether every copy on the node that the group needs is complete.
func (s *State) mayStart(group cluster.GroupName, n cluster.NodeName) bool {
	g := s.file.Group(group)
	return g == nil || s.OutOfDate(g, n) == ""
}

// awaitCopies notes where a failback must wait: the first node of a group's list
// has come up, and a copy on it has to be brought up to date first.
func (s *State) awaitCopies(c SetNode) {
	for i := range s.file.Groups {
		g := &s.file.Groups[i]
		gs := s.Groups[g.Name]
		if gs != nil && gs.Home == c.Name {
			gs.Home = ""
		}
		if gs != nil && c.State == cluster.NodeUp && g.Failback == config.Auto && g.Nodes[0] == c.Name && gs.Owner != "" && s.OutOfDate(g, c.Name) != "" {
			gs.Home = c.Name
		}
	}
}

// CheckMirror says why the owner's ask changes nothing, or "".
func (s *State) CheckMirror(c SetMirror) string {
	m, g, f := s.Mirrors[c.Resource], s.Groups[c.Group], s.file.Group(c.Group)
	switch {
	case m == nil || g == nil || f == nil || f.Resource(c.Resource) == nil:
		return fmt.Sprintf("group %s has no mirror disk %s", c.Group, c.Resource)
	case g.Owner != c.Node || c.Node == "":
		return fmt.Sprintf("group %s is not %s's", c.Group, c.Node)
	case g.Epoch != c.Epoch:
		return fmt.Sprintf("group %s is in epoch %d, not %d", c.Group, g.Epoch, c.Epoch)
	case m.Rev != c.Base:
		return fmt.Sprintf("it was asked on revision %d, and this is %d", c.Base, m.Rev)
	case !within(c.InSync, f.Nodes):
		return fmt.Sprintf("%v are not nodes of group %s", c.InSync, c.Group)
	case !slices.Contains(c.InSync, c.Node) && g.Phase == cluster.PhaseStarting:
		return fmt.Sprintf("group %s is being started on %s and needs its copy", c.Group, c.Node)
	case len(m.InSync) == 0 && !slices.Contains(c.InSync, c.Node):
		return "the mirror is constructed from the active copy"
	case len(m.InSync) > 0 && !slices.ContainsFunc(c.InSync, m.Has):
		return "no complete copy would be left"
	}
	return ""
}

// within says whether the set is not empty, has no member twice, and has only
// nodes of the list.
func within(set, list []cluster.NodeName) bool {
	for i, n := range set {
		if !slices.Contains(list, n) || slices.Contains(set[:i], n) {
			return false
		}
	}
	return len(set) > 0
}

func (s *State) setMirror(c SetMirror) {
	if s.CheckMirror(c) != "" {
		return
	}
	m := s.Mirrors[c.Resource]
	set := slices.Sorted(slices.Values(c.InSync))
	if slices.Contains(set, m.Victim) {
		m.Victim = ""
	}
	s.changeSet(m, set, c.Why, c.Cause, c.Time)
}

func (s *State) changeSet(m *Mirror, set []cluster.NodeName, why string, cause cluster.EventID, at time.Time) {
	m.InSync, m.Why, m.Cause, m.Since = set, why, cause, at
	s.changed(m)
}

// changed gives a mirror its next revision.
func (s *State) changed(m *Mirror) {
	s.MirrorSeq++
	m.Rev = s.MirrorSeq
}

// without returns the set without a node; nil if it would be empty or the node
// is not in it.
func (m *Mirror) without(n cluster.NodeName) []cluster.NodeName {
	if !m.Has(n) || len(m.InSync) < 2 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(m.InSync), func(x cluster.NodeName) bool { return x == n })
}

// operateMirror says whether the command still fitted.
func (s *State) operateMirror(c OperateMirror) bool {
	m, f := s.Mirrors[c.Resource], s.file.GroupOf(c.Resource)
	if m == nil || f == nil || s.Groups[f.Name] == nil {
		return false
	}
	owner, named := s.Groups[f.Name].Owner, slices.Contains(f.Nodes, c.Node)
	switch c.Verb {
	case MirrorForce:
		if !named || owner != "" || len(m.InSync) == 0 || m.Has(c.Node) {
			return false
		}
		m.Forced = &Forced{Node: c.Node, Why: c.Why, Author: c.Author, Since: c.Time}
		if m.Victim == c.Node {
			m.Victim = ""
		}
		s.changeSet(m, []cluster.NodeName{c.Node}, fmt.Sprintf("forced by %s: %s", c.Author, c.Why), c.Cause, c.Time)
		return true
	case MirrorAcknowledge:
		if m.Forced == nil {
			return false
		}
		m.Forced = nil
	case MirrorResolve:
		if !named || owner == c.Node || len(m.InSync) == 0 || m.Has(c.Node) && m.without(c.Node) == nil {
			return false
		}
		m.Victim = c.Node
		if set := m.without(c.Node); set != nil {
			s.changeSet(m, set, fmt.Sprintf("named as the victim by %s: %s", c.Author, c.Why), c.Cause, c.Time)
			return true
		}
	case MirrorInvalidate:
		set := m.without(c.Node)
		if owner == c.Node || set == nil {
			return false
		}
		s.changeSet(m, set, fmt.Sprintf("the copy on %s was declared invalid by %s: %s", c.Node, c.Author, c.Why), c.Cause, c.Time)
		return true
	case MirrorBreak:
		m.Paused = &Paused{Why: c.Why, Author: c.Author, Since: c.Time}
	case MirrorResume:
		if m.Paused == nil {
			return false
		}
		m.Paused = nil
	case MirrorVerb(OrderResync), MirrorVerb(OrderFull), MirrorVerb(OrderVerify), MirrorVerb(OrderVerifyRepair), MirrorVerb(OrderGrow):
		m.Order = &MirrorOrder{Serial: s.MirrorSeq + 1, Kind: MirrorOrderKind(c.Verb), Author: c.Author, Time: c.Time}
	default: // of a newer version
		return false
	}
	s.changed(m)
	return true
}

// followMirrors makes and forgets mirrors as the cluster file names them. Nodes
// that have left a group have no copy; a set of nothing but such nodes stays, or
// an older copy would count as complete.
func (s *State) followMirrors(at time.Time) {
	named := map[cluster.ResourceName]bool{}
	for i := range s.file.Groups {
		g := &s.file.Groups[i]
		for _, r := range g.Mirrors() {
			named[r.Name] = true
			m := s.Mirrors[r.Name]
			if m == nil {
				m = &Mirror{}
				s.Mirrors[r.Name] = m
				s.changed(m)
				continue
			}
			set := slices.DeleteFunc(slices.Clone(m.InSync), func(n cluster.NodeName) bool { return !slices.Contains(g.Nodes, n) })
			if len(set) > 0 && len(set) < len(m.InSync) {
				s.changeSet(m, set, "the cluster file gives the other copy to another node", "", at)
			}
		}
	}
	maps.DeleteFunc(s.Mirrors, func(r cluster.ResourceName, _ *Mirror) bool { return !named[r] })
}

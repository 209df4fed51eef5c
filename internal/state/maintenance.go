package state

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Maintenance is a time in which an operator works on a node, a group or the
// whole cluster, and less is done by itself. At most one of Node and Group is
// set.
type Maintenance struct {
	Node   cluster.NodeName  `json:"node,omitempty"`  // it is given no groups
	Group  cluster.GroupName `json:"group,omitempty"` // its failures are not acted on
	Owner  string            `json:"owner"`           // who asked
	Reason string            `json:"reason"`
	Since  time.Time         `json:"since"`
	Until  time.Time         `json:"until"`
	Drain  bool              `json:"drain,omitempty"`  // groups move away from the node
	Warned bool              `json:"warned,omitempty"` // that it ends soon
}

// Key is the key under which it stands in the state.
func (m Maintenance) Key() string { return MaintenanceKey(m.Node, m.Group) }

// What names what is in maintenance.
func (m Maintenance) What() string {
	switch {
	case m.Node != "":
		return fmt.Sprintf("node %s", m.Node)
	case m.Group != "":
		return fmt.Sprintf("group %s", m.Group)
	}
	return "the cluster"
}

// Text says what is in maintenance, by whom and why.
func (m Maintenance) Text() string {
	return fmt.Sprintf("%s is in maintenance (%s: %s)", m.What(), m.Owner, m.Reason)
}

// MaintenanceKey is the key of Maintenance: of a node, of a group, or where both
// are empty of the cluster.
func MaintenanceKey(n cluster.NodeName, g cluster.GroupName) string {
	switch {
	case n != "":
		return "node/" + string(n)
	case g != "":
		return "group/" + string(g)
	}
	return "cluster"
}

// Maintenances returns what is in maintenance, in a fixed order.
func (s *State) Maintenances() []Maintenance {
	var list []Maintenance
	for _, k := range slices.Sorted(maps.Keys(s.Maintenance)) {
		list = append(list, s.Maintenance[k])
	}
	return list
}

// Suspended says why nothing is done by itself for the group, or "": it or the
// cluster is in maintenance.
func (s *State) Suspended(g cluster.GroupName) string {
	for _, key := range []string{MaintenanceKey("", ""), MaintenanceKey("", g)} {
		if m, on := s.Maintenance[key]; on {
			return m.Text()
		}
	}
	return ""
}

func (s *State) maintain(c Maintain) {
	if c.Set == nil {
		if m, on := s.Maintenance[c.Key]; on && m.Until.Equal(c.Until) {
			delete(s.Maintenance, c.Key)
			s.recheck(m, c.Time)
		}
		return
	}
	was, on := s.Maintenance[c.Key]
	known := c.Set.Node == "" || s.Nodes[c.Set.Node] != nil
	known = known && (c.Set.Group == "" || s.Groups[c.Set.Group] != nil)
	if !known || c.Key != c.Set.Key() || c.Set.Warned && !(on && was.Until.Equal(c.Set.Until)) {
		return
	}
	s.Maintenance[c.Key] = *c.Set
}

// recheck has the owners look anew at the resources that failed by themselves
// during the maintenance: they may have been mended.
func (s *State) recheck(m Maintenance, at time.Time) {
	for name, g := range s.Groups {
		if m.Node != "" || m.Group != "" && m.Group != name || g.Phase != cluster.PhaseFailed || s.Suspended(name) != "" {
			continue
		}
		failed := false
		for _, r := range g.Resources {
			failed = failed || r.State == cluster.ResourceFailed
			if r.State != cluster.ResourceFailed && r.State != cluster.ResourceOnline {
				failed = false
				break
			}
		}
		if failed {
			g.Recheck = at
		}
	}
}

// checked takes what the owner has found.
func (s *State) checked(g *Group) {
	if g.Phase != cluster.PhaseFailed || g.Recheck.IsZero() {
		return
	}
	g.Recheck = time.Time{}
	for _, r := range g.Resources {
		if r.State != cluster.ResourceOnline {
			return
		}
	}
	g.Phase, g.Why = cluster.PhaseOnline, "found active after the maintenance"
}

// endMaintenance forgets what is no longer in the cluster file.
func (s *State) endMaintenance() {
	maps.DeleteFunc(s.Maintenance, func(_ string, m Maintenance) bool {
		return m.Node != "" && s.file.Node(m.Node) == nil || m.Group != "" && s.file.Group(m.Group) == nil
	})
}

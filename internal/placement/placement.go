// Package placement chooses the node for a group. Every node that is passed
// over has a reason.
package placement

import (
	"fmt"
	"strings"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Choice is the outcome: a node, or none, and why the others were passed over.
type Choice struct {
	Node   cluster.NodeName // "" if no node can take the group
	Passed []string         // one sentence for each node that was passed over before it
	// LastResort is set where Node is not: a node that is quarantined and could
	// run the group all the same.
	LastResort cluster.NodeName
}

// Why puts the reasons into one sentence.
func (c Choice) Why() string {
	if len(c.Passed) == 0 {
		return "no other node is in its list"
	}
	return strings.Join(c.Passed, ", ")
}

// Choose returns the first node of the group's order of preference that is up
// and neither in maintenance, excluded nor quarantined; avoid is a node that
// must not be chosen, or "".
func Choose(s *state.State, g *config.Group, avoid cluster.NodeName) Choice {
	var c Choice
	for _, n := range g.Nodes {
		if n == avoid {
			continue
		}
		if why := Refuse(s, g, n); why != "" {
			c.Passed = append(c.Passed, why)
			if c.LastResort == "" && Able(s, g, n) {
				c.LastResort = n
			}
			continue
		}
		c.Node, c.LastResort = n, ""
		return c
	}
	return c
}

// Refuse says why the node should not take the group now, or "".
func Refuse(s *state.State, g *config.Group, n cluster.NodeName) string {
	if why := barred(s, g, n); why != "" {
		return why
	}
	if q := s.Nodes[n].Quarantine; q != nil {
		return fmt.Sprintf("%s is quarantined until %s (%s)", n, q.Until.UTC().Format("2006-01-02 15:04:05 MST"), q.Why)
	}
	return ""
}

// Able says whether the node could take the group, be it as the last one left:
// availability counts more than a quarantine.
func Able(s *state.State, g *config.Group, n cluster.NodeName) bool { return barred(s, g, n) == "" }

func barred(s *state.State, g *config.Group, n cluster.NodeName) string {
	if why := Unfit(s, g, n); why != "" {
		return why
	}
	if q := s.Nodes[n].Quarantine; q != nil && q.Open() {
		return fmt.Sprintf("%s is quarantined until it is released (%s)", n, q.Why)
	}
	if m, on := s.Maintenance[state.MaintenanceKey(n, "")]; on {
		return m.Text()
	}
	if gs := s.Groups[g.Name]; gs != nil {
		if why, excluded := gs.Excluded[n]; excluded {
			return fmt.Sprintf("the activation failed on %s (%s)", n, why)
		}
	}
	return ""
}

// Unfit says why the node cannot run the group even if an operator asks for it,
// or "".
func Unfit(s *state.State, g *config.Group, n cluster.NodeName) string {
	listed := false
	for _, m := range g.Nodes {
		listed = listed || m == n
	}
	node := s.Nodes[n]
	switch {
	case !listed:
		return fmt.Sprintf("%s is not in the list of nodes of group %s", n, g.Name)
	case node == nil || node.State == cluster.NodeUnknown:
		return fmt.Sprintf("%s has not been seen yet", n)
	case node.State != cluster.NodeUp:
		return fmt.Sprintf("%s is %s", n, node.State)
	case node.Leaving:
		return fmt.Sprintf("%s is leaving", n)
	}
	return OutOfDate(s, g, n)
}

// OutOfDate says which copy on the node that the group needs is not complete, or
// "". No decision of a machine and no move by an operator makes such a copy the
// active one; only forcing it does.
func OutOfDate(s *state.State, g *config.Group, n cluster.NodeName) string {
	r := s.OutOfDate(g, n)
	if r == "" {
		return ""
	}
	m := s.Mirror(r)
	only := make([]string, len(m.InSync))
	for i, in := range m.InSync {
		only[i] = string(in)
	}
	return fmt.Sprintf("the copy of %s on %s is out of date since %s, only %s can be active",
		r, n, m.Since.UTC().Format("2006-01-02 15:04:05 MST"), strings.Join(only, " or "))
}

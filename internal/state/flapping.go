package state

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// count uses up a failover counter of the group.
func (g *Group) count(c Begin) {
	if g.Failovers == nil {
		g.Failovers = map[string]int{}
	}
	if g.Counted == nil {
		g.Counted = map[string]time.Time{}
	}
	g.Failovers[c.Count]++
	g.Counted[c.Count] = c.Time
	if c.Plan.Action == ActionFailover {
		g.Moves = keepLast(append(g.Moves, c.Time), MaxTimes)
	}
}

func (s *State) forget(c Forget) {
	g := s.Groups[c.Group]
	if g == nil {
		return
	}
	for name := range g.Failovers {
		if g.CountedBy(name, c.Before) {
			delete(g.Failovers, name)
			delete(g.Counted, name)
		}
	}
	for n := range g.Excluded {
		if g.FailedBy(n, c.Before) {
			delete(g.Excluded, n)
			delete(g.Failed, n)
		}
	}
}

// CountedBy says whether the counter was used last at t or earlier, as far as
// that is known.
func (g *Group) CountedBy(counter string, t time.Time) bool {
	at := g.Counted[counter]
	return !at.IsZero() && !at.After(t)
}

// FailedBy says whether the activation failed on the node at t or earlier, as
// far as that is known.
func (g *Group) FailedBy(n cluster.NodeName, t time.Time) bool {
	at := g.Failed[n]
	return !at.IsZero() && !at.After(t)
}

func (s *State) hold(c Hold) {
	g := s.Groups[c.Group]
	switch {
	case g == nil:
	case c.Held == nil:
		g.Held, g.Moves = nil, nil
	case g.Held == nil:
		g.Held = c.Held
	}
}

func (s *State) quarantine(c SetQuarantine) {
	n := s.Nodes[c.Node]
	switch {
	case n == nil:
	case c.Quarantine != nil:
		n.Quarantine, n.Losses = c.Quarantine, nil
	case n.Quarantine != nil && n.Quarantine.Until.Equal(c.Until):
		if n.Quarantine.Open() {
			n.Released = n.Boot
		}
		n.Quarantine = nil
	}
}

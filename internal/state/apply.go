package state

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Apply changes the state by one entry. Commands that no longer fit (an old
// epoch, an unknown name) change nothing; that is no error, because the one who
// proposed them could not know.
func (s *State) Apply(e Entry) {
	if e.Answer != nil {
		if _, known := s.Answered(e.Answer.ID); known {
			return // the same ask arrived twice: it acts once
		}
	}
	fits := true
	for _, c := range e.Commands {
		fits = s.apply(c) && fits
	}
	if e.Answer == nil {
		return
	}
	a := *e.Answer
	if !fits {
		a = Answer{ID: a.ID, Err: &api.Error{Code: "changed-meanwhile", Message: "the cluster changed while this was being decided", Hint: "ask again"}}
	}
	s.Answers = keepLast(append(s.Answers, a), MaxAnswers)
}

// apply says whether the command still fitted, for those that an answer depends
// on.
func (s *State) apply(c Command) bool {
	switch {
	case c.Config != nil:
		return s.setConfig(*c.Config)
	case c.Node != nil:
		s.setNode(*c.Node)
	case c.Begin != nil:
		return s.begin(*c.Begin)
	case c.Report != nil:
		s.report(*c.Report)
	case c.Want != nil:
		if g := s.Groups[c.Want.Group]; g != nil {
			g.Wanted, g.Why = c.Want.Wanted, c.Want.Why
		}
	case c.Clear != nil:
		if g := s.Groups[c.Clear.Group]; g != nil {
			g.Failovers, g.Counted, g.Excluded, g.Failed, g.Moves = nil, nil, nil, nil, nil
		}
	case c.Forget != nil:
		s.forget(*c.Forget)
	case c.Hold != nil:
		s.hold(*c.Hold)
	case c.Quarantine != nil:
		s.quarantine(*c.Quarantine)
	case c.Maintain != nil:
		s.maintain(*c.Maintain)
	case c.Suspend != nil:
		key := SuspendKey(c.Suspend.Monitor, c.Suspend.Node)
		if c.Suspend.On {
			s.Suspends[key] = true
		} else {
			delete(s.Suspends, key)
		}
	case c.Token != nil:
		if c.Token.Token == nil {
			delete(s.Tokens, c.Token.ID)
		} else {
			s.Tokens[c.Token.ID] = *c.Token.Token
		}
	case c.Link != nil:
		s.setLink(*c.Link)
	case c.User != nil:
		s.setUser(*c.User)
	case c.Access != nil:
		s.setAccess(*c.Access)
	case c.Mirror != nil:
		s.setMirror(*c.Mirror)
	case c.OperateMirror != nil:
		return s.operateMirror(*c.OperateMirror)
	}
	return true
}

func (s *State) setConfig(c SetConfig) bool {
	f, errs := config.Parse("cluster file", []byte(c.Text))
	if c.Base != s.Config.Version || len(errs) > 0 {
		return false
	}
	if s.Config.Version > 0 {
		s.History = keepLast(append(s.History, s.Config), MaxHistory)
	}
	s.Config.Version++
	s.Config.Text, s.Config.Author, s.Config.Note, s.Config.Time = c.Text, c.Author, c.Note, c.Time
	s.file = f
	for i := range f.Nodes {
		if n := f.Nodes[i].Name; s.Nodes[n] == nil {
			s.Nodes[n] = &Node{State: cluster.NodeUnknown, Since: c.Time}
		}
	}
	maps.DeleteFunc(s.Nodes, func(n cluster.NodeName, _ *Node) bool { return f.Node(n) == nil })
	for i := range f.Groups {
		if g := &f.Groups[i]; s.Groups[g.Name] == nil {
			s.Groups[g.Name] = &Group{Phase: cluster.PhaseOffline, Wanted: g.Startup == config.Auto}
		}
	}
	maps.DeleteFunc(s.Groups, func(n cluster.GroupName, g *Group) bool {
		return f.Group(n) == nil && g.Owner == ""
	})
	s.followMirrors(c.Time)
	s.endMaintenance()
	maps.DeleteFunc(s.Suspends, func(key string, _ bool) bool {
		for _, m := range f.Monitors {
			for _, n := range f.Nodes {
				if key == SuspendKey(m.Name, n.Name) {
					return false
				}
			}
		}
		return true
	})
	return true
}

func (s *State) setNode(c SetNode) {
	n := s.Nodes[c.Name]
	if n == nil {
		return
	}
	lost := ""
	switch {
	case c.State == cluster.NodeDown || c.State == cluster.NodeLeft:
		lost = fmt.Sprintf("%s is %s", c.Name, c.State)
	case n.Boot != "" && c.Boot != "" && n.Boot != c.Boot:
		lost = fmt.Sprintf("%s has booted anew", c.Name)
	}
	if lost != "" && n.State == cluster.NodeUp && c.State != cluster.NodeLeft && !n.Leaving {
		n.Losses = keepLast(append(n.Losses, c.Time), MaxTimes)
	}
	if n.State != c.State {
		n.Since = c.Time
		s.awaitCopies(c)
	}
	n.State, n.Why, n.Leaving = c.State, c.Why, c.Leaving
	if c.Boot != "" {
		n.Boot, n.Daemon = c.Boot, c.Daemon
	}
	if lost == "" {
		return
	}
	if c.Why != "" {
		lost += ": " + c.Why
	}
	for _, name := range s.OwnedBy(c.Name) {
		s.release(name, c.Name, lost, c.Cause)
	}
}

// release takes a group from a node that surely runs nothing of it any more.
func (s *State) release(name cluster.GroupName, from cluster.NodeName, why string, cause cluster.EventID) {
	g := s.Groups[name]
	s.endPlan(name, g, false, why)
	g.Phase, g.Owner, g.Previous, g.Resources = cluster.PhaseOffline, "", from, nil
	g.Epoch++
	g.Why, g.Cause, g.Recheck = why, cause, time.Time{}
	f := s.file.Group(name)
	if f == nil {
		delete(s.Groups, name)
		return
	}
	if f.Failover == config.Manual {
		g.Wanted = false
		g.Why = why + "; its failover is manual"
	}
}

func (s *State) begin(c Begin) bool {
	g := s.Groups[c.Group]
	if g == nil || g.Epoch != c.Epoch || g.Plan != nil || g.Owner != c.Plan.From {
		return false
	}
	if c.Plan.To != "" && (!s.Up(c.Plan.To) || !s.mayStart(c.Group, c.Plan.To)) {
		return false
	}
	s.PlanSeq++
	p := c.Plan
	p.ID = fmt.Sprintf("p%d", s.PlanSeq)
	p.Active = nil
	if p.From != "" && p.To != "" && p.From != p.To {
		p.Active = g.online()
	}
	g.Plan, g.Wanted, g.Why, g.Cause, g.Recheck = &p, p.Wanted, p.Why, p.Cause, time.Time{}
	if p.Action == ActionMove || p.Action == ActionStop {
		g.Home = "" // it is there, or an operator has it elsewhere
	}
	g.Epoch++
	if c.Count != "" {
		g.count(c)
	}
	if p.From != "" {
		g.Phase = cluster.PhaseStopping
		return true
	}
	s.assign(c.Group, g)
	return true
}

// online returns the resources that the owner reported active, sorted.
func (g *Group) online() (names []cluster.ResourceName) {
	for n, r := range g.Resources {
		if r.State == cluster.ResourceOnline {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

// assign gives the group to its plan's target.
func (s *State) assign(name cluster.GroupName, g *Group) {
	to := g.Plan.To
	switch {
	case to == "":
		g.Phase, g.Owner, g.Resources = cluster.PhaseOffline, "", nil
		s.endPlan(name, g, true, "stopped")
		if s.file.Group(name) == nil {
			delete(s.Groups, name)
		}
	case s.Nodes[to] == nil || s.Nodes[to].State != cluster.NodeUp:
		g.Phase, g.Owner, g.Resources = cluster.PhaseOffline, "", nil
		s.endPlan(name, g, false, fmt.Sprintf("%s is not up any more", to))
	case !s.mayStart(name, to) && g.Plan.Resource != "":
		// The rest of the group is still active here: stop that too.
		g.Plan.Resource, g.Plan.To = "", ""
		g.Plan.Why += fmt.Sprintf("; the copy of a mirror disk on %s has become out of date meanwhile", to)
		g.Epoch++
	case !s.mayStart(name, to):
		g.Phase, g.Owner, g.Resources = cluster.PhaseOffline, "", nil
		s.endPlan(name, g, false, fmt.Sprintf("the copy of a mirror disk on %s has become out of date", to))
	default:
		g.Phase, g.Owner = cluster.PhaseStarting, to
		g.Epoch++
	}
}

func (s *State) report(c Report) {
	g := s.Groups[c.Group]
	if g == nil || c.Node == "" || g.Epoch != c.Epoch || g.Owner != c.Node {
		return
	}
	if c.Resources != nil {
		g.Resources = c.Resources
	}
	switch c.Step {
	case StepStopped:
		if g.Phase != cluster.PhaseStopping || g.Plan == nil {
			return
		}
		if g.Plan.From != g.Plan.To {
			g.Previous = c.Node
		}
		s.assign(c.Group, g)
	case StepStarted:
		if g.Phase != cluster.PhaseStarting {
			return
		}
		g.Phase = cluster.PhaseOnline
		delete(g.Excluded, c.Node)
		delete(g.Failed, c.Node)
		s.endPlan(c.Group, g, true, "online on "+string(c.Node))
	case StepStartFailed:
		if g.Excluded == nil {
			g.Excluded = map[cluster.NodeName]string{}
		}
		g.Excluded[c.Node] = c.Why
		if g.Failed == nil {
			g.Failed = map[cluster.NodeName]time.Time{}
		}
		g.Failed[c.Node] = c.Time
		s.fail(c, g)
	case StepChecked:
		s.checked(g)
	case StepReleased:
		s.release(c.Group, c.Node, c.Why, c.Cause)
	case StepStopFailed, StepFailed:
		s.fail(c, g)
	}
}

func (s *State) fail(c Report, g *Group) {
	g.Phase, g.Why = cluster.PhaseFailed, c.Why
	if c.Cause != "" {
		g.Cause = c.Cause
	}
	s.endPlan(c.Group, g, false, c.Why)
}

func (s *State) endPlan(name cluster.GroupName, g *Group, ok bool, text string) {
	if g.Plan == nil {
		return
	}
	s.Plans = keepLast(append(s.Plans, EndedPlan{Plan: *g.Plan, Group: name, OK: ok, Text: text}), MaxPlans)
	g.Plan = nil
}

func (s *State) setLink(c SetLink) {
	if c.Link == nil {
		delete(s.Links, c.Name)
		return
	}
	l := s.Links[c.Name]
	if l == nil || l.CA != c.Link.CA {
		// Another key is another cluster: rights of the old one do not carry over.
		l = &Link{CA: c.Link.CA}
		s.Links[c.Name] = l
	}
	if c.Link.Asks {
		l.Asks, l.Verbs, l.Groups, l.Scripts, l.Guests = true, c.Link.Verbs, c.Link.Groups, c.Link.Scripts, c.Link.Guests
	}
	if c.Link.Asked {
		l.Asked = true
	}
	if len(c.Link.Nodes) > 0 {
		l.Nodes = c.Link.Nodes
	}
}

// keepLast drops what is older. What it drops goes when the rest is appended to
// next and has no room, so that not every entry has all of it copied.
func keepLast[T any](s []T, n int) []T { return s[max(len(s)-n, 0):] }

package state

import (
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// failOver has group web failed over from its owner to the other of a and b.
func failOver(s *State, counter string, at time.Time, step Step) {
	gs := s.Groups["web"]
	to := cluster.NodeName("b")
	if gs.Owner == "b" {
		to = "a"
	}
	apply(s, Command{Begin: &Begin{Group: "web", Epoch: gs.Epoch, Plan: Plan{Action: ActionFailover, From: gs.Owner, To: to, Wanted: true}, Count: counter, Time: at}})
	report(s, "web", StepStopped)
	apply(s, Command{Report: &Report{Group: "web", Epoch: gs.Epoch, Node: gs.Owner, Step: step, Why: "so it is", Time: at}})
}

func TestForget(t *testing.T) {
	s := online(t, "a")
	failOver(s, "early", noon, StepStartFailed)
	failOver(s, "late", noon.Add(time.Hour), StepStartFailed)
	gs := s.Groups["web"]
	gs.Failovers["old"], gs.Excluded["c"] = 1, "an older version gave no time"
	apply(s, Command{Forget: &Forget{"db", noon.Add(2 * time.Hour)}}, Command{Forget: &Forget{"mail", noon}}, Command{Forget: &Forget{"web", noon.Add(-1)}})
	if len(gs.Failovers) != 3 || len(gs.Excluded) != 3 {
		t.Fatalf("forgotten too early: %+v", gs)
	}
	apply(s, Command{Forget: &Forget{"web", noon}})
	if gs.Failovers["early"] != 0 || gs.Failovers["late"] != 1 || gs.Excluded["b"] != "" || gs.Excluded["a"] == "" || len(gs.Counted) != 1 || len(gs.Failed) != 1 {
		t.Errorf("%+v", gs)
	}
	apply(s, Command{Forget: &Forget{"web", noon.Add(2 * time.Hour)}})
	if gs.Failovers["old"] != 1 || gs.Excluded["c"] == "" || len(gs.Failovers) != 1 || len(gs.Excluded) != 1 {
		t.Errorf("what has no time is not old: %+v", gs)
	}
	if apply(s, Command{Clear: &Clear{"web"}}); len(gs.Failovers)+len(gs.Counted)+len(gs.Excluded)+len(gs.Failed) != 0 {
		t.Errorf("%+v", gs)
	}
}

func TestHold(t *testing.T) {
	s := online(t, "a")
	for i := range MaxTimes + 3 {
		failOver(s, "check", noon.Add(time.Duration(i)*time.Second), StepStarted)
	}
	gs := s.Groups["web"]
	if len(gs.Moves) != MaxTimes || !gs.Moves[0].Equal(noon.Add(3*time.Second)) {
		t.Errorf("%d times, from %s", len(gs.Moves), gs.Moves[0])
	}
	first := &Held{Why: "first", Since: noon}
	apply(s, Command{Hold: &Hold{Group: "web", Held: first}}, Command{Hold: &Hold{Group: "web", Held: &Held{Why: "second"}}}, Command{Hold: &Hold{Group: "mail", Held: first}})
	if gs.Held == nil || gs.Held.Why != "first" || s.Groups["db"].Held != nil {
		t.Errorf("held: %+v", gs.Held)
	}
	if apply(s, Command{Clear: &Clear{"web"}}); gs.Held == nil || len(gs.Moves) > 0 {
		t.Error("clearing counters has released it, or forgot no failovers")
	}
	if apply(s, Command{Hold: &Hold{Group: "web"}}); gs.Held != nil || len(gs.Moves) != 0 {
		t.Errorf("released: %+v", gs)
	}
}

// TestWhatCountsAsAFailover: a restart in place and what an operator asks for are
// none.
func TestWhatCountsAsAFailover(t *testing.T) {
	s := online(t, "a")
	apply(s, Command{Begin: &Begin{Group: "web", Epoch: s.Groups["web"].Epoch, Plan: Plan{Action: ActionRestart, From: "a", To: "a"}, Count: "ip/restart", Time: noon}})
	report(s, "web", StepStopped)
	report(s, "web", StepStarted)
	failOver(s, "", noon, StepStarted)
	if gs := s.Groups["web"]; len(gs.Moves) != 0 || gs.Failovers["ip/restart"] != 1 || gs.Owner != "b" {
		t.Errorf("%+v", gs)
	}
}

func TestLosses(t *testing.T) {
	s := fresh(t)
	leaving := func(c Command) Command { c.Node.Leaving = true; return c }
	for name, step := range map[string]struct {
		cmds []Command
		lost int
	}{
		"declared down once":   {[]Command{node("a", cluster.NodeDown, ""), node("a", cluster.NodeDown, "")}, 1},
		"down, then another":   {[]Command{node("b", cluster.NodeDown, ""), node("b", cluster.NodeUp, "b2")}, 1},
		"booted anew, unheard": {[]Command{node("c", cluster.NodeUp, "c2")}, 1},
	} {
		s := fresh(t)
		apply(s, step.cmds...)
		if n := s.Nodes[step.cmds[0].Node.Name]; len(n.Losses) != step.lost {
			t.Errorf("%s: lost at %v", name, n.Losses)
		}
	}
	apply(s, leaving(node("a", cluster.NodeUp, "a1")), node("a", cluster.NodeLeft, ""), node("a", cluster.NodeUp, "a2"))
	apply(s, leaving(node("b", cluster.NodeUp, "b1")), node("b", cluster.NodeDown, ""))
	apply(s, Command{Node: &SetNode{Name: "c", State: cluster.NodeUp, Boot: "c1", Daemon: "other"}})
	for n, node := range s.Nodes {
		if len(node.Losses) > 0 {
			t.Errorf("%s: a planned leave, or a new daemon, counts as a loss", n)
		}
	}
}

func TestQuarantine(t *testing.T) {
	s := fresh(t)
	apply(s, node("a", cluster.NodeDown, ""), node("a", cluster.NodeUp, "a2"))
	q := &Quarantine{Why: "so", Since: noon, Until: noon.Add(time.Hour)}
	apply(s, Command{Quarantine: &SetQuarantine{Node: "a", Quarantine: q}}, Command{Quarantine: &SetQuarantine{Node: "z", Quarantine: q}})
	if n := s.Nodes["a"]; n.Quarantine == nil || len(n.Losses) > 0 || !s.Up("a") {
		t.Errorf("%+v", n)
	}
	if apply(s, Command{Quarantine: &SetQuarantine{Node: "a", Until: noon}}); s.Nodes["a"].Quarantine == nil {
		t.Error("the end of another quarantine has ended this one")
	}
	if apply(s, Command{Quarantine: &SetQuarantine{Node: "a", Until: q.Until}}); s.Nodes["a"].Quarantine != nil {
		t.Error("it does not end")
	}
}

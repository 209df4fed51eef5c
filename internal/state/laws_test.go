package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

var (
	nodeNames  = []cluster.NodeName{"a", "b", "c", "z"}
	groupNames = []cluster.GroupName{"web", "web", "web", "db", "db", "db", "zero"}
	steps      = []Step{StepStarted, StepStarted, StepStopped, StepStopped, StepStartFailed, StepStopFailed, StepReleased, StepFailed, "newer"}
)

// rarely is true once in ten times; small numbers of a range come more often.
func rarely(rt *rapid.T, label string) bool {
	return rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}).Draw(rt, label) == 1
}

// drawCommand draws a command that often fits the state, and often does not.
func drawCommand(rt *rapid.T, s *State) Command {
	n := rapid.SampledFrom(nodeNames).Draw(rt, "node")
	g := rapid.SampledFrom(groupNames).Draw(rt, "group")
	gs := s.Groups[g]
	if gs == nil {
		gs = &Group{}
	}
	epoch := gs.Epoch + cluster.Epoch(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 0, 1, -1}).Draw(rt, "stale"))
	switch rapid.SampledFrom([]string{"file", "node", "begin", "begin", "begin", "report", "report", "report", "mirror", "mirror", "operate", "other"}).Draw(rt, "command") {
	case "file":
		if !rarely(rt, "a new file") { // parsing takes long
			return Command{}
		}
		text := clusterFile + fmt.Sprintf("comment: %q\n", rapid.StringMatching(`[a-z]{0,3}`).Draw(rt, "comment"))
		return setConfig(s.Config.Version-rapid.Uint64Range(0, 1).Draw(rt, "base"), text)
	case "node":
		st := rapid.SampledFrom([]cluster.NodeState{cluster.NodeUp, cluster.NodeUp, cluster.NodeUp, cluster.NodeDown, cluster.NodeLeft}).Draw(rt, "state")
		boot := string(n) + rapid.SampledFrom([]string{"1", "1", "1", "2"}).Draw(rt, "boot")
		c := node(n, st, boot)
		c.Node.Leaving = rarely(rt, "leaving")
		return c
	case "begin":
		p := Plan{Action: ActionMove, From: gs.Owner, To: rapid.SampledFrom(append(nodeNames, "")).Draw(rt, "to"), Wanted: rapid.Bool().Draw(rt, "wanted"), Why: "so"}
		if rarely(rt, "wrong") {
			p.From = n
		}
		return Command{Begin: &Begin{Group: g, Epoch: epoch, Plan: p, Count: rapid.SampledFrom([]string{"", "check"}).Draw(rt, "count"), Time: noon}}
	case "report":
		r := Report{Group: g, Epoch: epoch, Node: gs.Owner, Step: rapid.SampledFrom(steps).Draw(rt, "step"), Why: "so"}
		if fits := map[cluster.Phase]Step{cluster.PhaseStarting: StepStarted, cluster.PhaseStopping: StepStopped}[gs.Phase]; fits != "" && !rarely(rt, "surprise") {
			r.Step = fits
		}
		if gs.Owner == "" || rarely(rt, "wrong") {
			r.Node = n // every report names a node
		}
		if rapid.Bool().Draw(rt, "resources") {
			r.Resources = map[cluster.ResourceName]Resource{"ip": {State: cluster.ResourceOnline}}
		}
		return Command{Report: &r}
	case "mirror":
		return drawMirror(rt, s, n)
	case "operate":
		return drawOperate(rt, n)
	}
	return drawOther(rt, n, g)
}

func drawOther(rt *rapid.T, n cluster.NodeName, g cluster.GroupName) Command {
	return rapid.SampledFrom([]Command{
		{Clear: &Clear{g}}, {Forget: &Forget{g, noon}}, {Hold: &Hold{Group: g, Held: &Held{"so", noon}}}, {Hold: &Hold{Group: g}},
		{Quarantine: &SetQuarantine{Node: n, Quarantine: &Quarantine{"so", noon, noon}}}, {Quarantine: &SetQuarantine{Node: n, Until: noon}},
		maintain(Maintenance{Node: n, Until: noon}), maintain(Maintenance{Group: g, Until: noon}), {Maintain: &Maintain{Key: "node/a", Until: noon}}, {Want: &Want{g, true, "so"}}, {Suspend: &Suspend{"check", n, true}}, {Suspend: &Suspend{"check", n, false}},
		{Token: &SetToken{"t", &Token{Record: json.RawMessage(`{}`)}}}, {Token: &SetToken{ID: "t"}}, {Link: &SetLink{"l", &Link{CA: "ca", Asks: true}}}, {},
		{User: &SetUser{Name: "u", User: &User{Hash: "h", Roles: cluster.Roles(), Changed: noon}}}, {User: &SetUser{Name: "u"}},
		{Access: &SetAccess{ID: "t", Access: &Access{Name: "n", Expires: noon}, Time: noon}}, {Access: &SetAccess{ID: "t", Time: noon.Add(1)}},
	}).Draw(rt, "other")
}

func drawEntry(rt *rapid.T, s *State) Entry {
	e := Entry{Commands: []Command{drawCommand(rt, s)}}
	if rapid.Bool().Draw(rt, "asked for") {
		e.Answer = &Answer{ID: cluster.RequestID(fmt.Sprint("r", rapid.IntRange(1, 40).Draw(rt, "id"))), Text: "done"}
	}
	return e
}

// sound fails if a group's phase, owner and plan do not belong together.
func sound(rt *rapid.T, s *State) {
	for name, g := range s.Groups {
		moving := g.Phase == cluster.PhaseStarting || g.Phase == cluster.PhaseStopping
		if (g.Plan != nil) != moving || (g.Owner == "") != (g.Phase == cluster.PhaseOffline) {
			rt.Fatalf("group %s is %s on %q with plan %+v", name, g.Phase, g.Owner, g.Plan)
		}
		if g.Plan != nil && (g.Phase == cluster.PhaseStopping && g.Plan.From != g.Owner || g.Phase == cluster.PhaseStarting && g.Plan.To != g.Owner) {
			rt.Fatalf("group %s is %s on %q, its plan says %+v", name, g.Phase, g.Owner, g.Plan)
		}
		if n := s.Nodes[g.Owner]; g.Owner != "" && (n == nil || n.State != cluster.NodeUp) {
			rt.Fatalf("group %s is on %q, which is %+v", name, g.Owner, n)
		}
	}
}

// oneOwner fails if the group was taken from its owner by anything but the word
// of the owner that it has stopped, or the certainty that it runs nothing.
func oneOwner(rt *rapid.T, before, after *State, e Entry) {
	for name, was := range before.Groups {
		is := after.Groups[name]
		if is == nil {
			rt.Fatalf("group %s is gone", name)
		}
		if is.Epoch < was.Epoch || is.Owner != was.Owner && is.Owner != "" && is.Epoch == was.Epoch {
			rt.Fatalf("group %s: epoch %d on %q, then epoch %d on %q", name, was.Epoch, was.Owner, is.Epoch, is.Owner)
		}
		if was.Owner == "" || is.Owner == was.Owner {
			continue
		}
		switch c := e.Commands[0]; {
		case c.Report != nil && c.Report.Node == was.Owner && c.Report.Epoch == was.Epoch && (c.Report.Step == StepStopped || c.Report.Step == StepReleased):
		case c.Node != nil && c.Node.Name == was.Owner && (c.Node.State == cluster.NodeDown || c.Node.State == cluster.NodeLeft || c.Node.Boot != before.Nodes[was.Owner].Boot):
			if is.Owner != "" {
				rt.Fatalf("group %s went from %s to %s in one step", name, was.Owner, is.Owner)
			}
		default:
			rt.Fatalf("group %s was taken from %s by %s", name, was.Owner, e.Encode())
		}
	}
}

// plansEnd fails if a plan that was under way is neither under way nor ended.
func plansEnd(rt *rapid.T, before, after *State) {
	for name, was := range before.Groups {
		if was.Plan == nil || after.Groups[name].Plan != nil && after.Groups[name].Plan.ID == was.Plan.ID {
			continue
		}
		if p, ok := after.Ended(was.Plan.ID); !ok || p.Group != name || p.Text == "" {
			rt.Fatalf("plan %s of group %s has vanished", was.Plan.ID, name)
		}
	}
}

func marshal(rt *rapid.T, s *State) string {
	data, err := s.Marshal()
	if err != nil {
		rt.Fatal(err)
	}
	return string(data)
}

func reload(rt *rapid.T, s *State) *State {
	c, err := Unmarshal([]byte(marshal(rt, s)))
	if err != nil {
		rt.Fatal(err)
	}
	return c
}

// snap returns the state as it is now, without parsing the cluster file again.
func snap(rt *rapid.T, s *State) *State {
	c := New()
	if err := json.Unmarshal([]byte(marshal(rt, s)), c); err != nil {
		rt.Fatal(err)
	}
	c.file = s.file
	return c
}

// TestLaws applies anything in any order and checks what must always hold: on
// every node the same entries give the same state, whether they came as values
// or from the log, with or without a snapshot on the way; a group changes hands
// only by its owner's word or its owner's end; an ask acts once.
func TestLaws(t *testing.T) {
	start, moved := fresh(t), 0
	rapid.Check(t, func(rt *rapid.T) {
		s := snap(rt, start)
		twin := snap(rt, start)
		for range rapid.IntRange(10, 30).Draw(rt, "entries") {
			e := drawEntry(rt, s)
			before := snap(rt, s)
			known := false
			if e.Answer != nil {
				_, known = s.Answered(e.Answer.ID)
			}
			s.Apply(e)
			decoded, err := DecodeEntry(e.Encode())
			if err != nil {
				rt.Fatal(err)
			}
			if rarely(rt, "snapshot") {
				twin = reload(rt, twin)
			}
			twin.Apply(decoded)
			mine, its := marshal(rt, s), marshal(rt, twin)
			if mine != its {
				rt.Fatalf("two nodes differ after %s:\n%s", e.Encode(), cmp.Diff(mine, its))
			}
			if known && mine != marshal(rt, before) {
				rt.Fatalf("an ask that was answered acted again: %s", e.Encode())
			}
			if e.Answer != nil {
				if _, answered := s.Answered(e.Answer.ID); !answered {
					rt.Fatalf("an ask without an answer: %s", e.Encode())
				}
			}
			sound(rt, s)
			oneOwner(rt, before, s, e)
			plansEnd(rt, before, s)
			mirrorsHold(rt, before, s, e)
			for name, g := range s.Groups {
				if g.Owner != "" && g.Owner != before.Groups[name].Owner {
					moved++
				}
			}
		}
	})
	if moved < 50 {
		t.Errorf("groups moved only %d times: the property says little", moved)
	}
}

// TestSnapshotIsWhole: a state that came from a snapshot is equal to its origin
// in what it holds, and has its cluster file parsed.
func TestSnapshotIsWhole(t *testing.T) {
	start := fresh(t)
	rapid.Check(t, func(rt *rapid.T) {
		s := snap(rt, start)
		for range rapid.IntRange(10, 40).Draw(rt, "entries") {
			s.Apply(drawEntry(rt, s))
		}
		back := reload(rt, s)
		if a, b := marshal(rt, s), marshal(rt, back); a != b {
			rt.Fatal(cmp.Diff(a, b))
		}
		if !cmp.Equal(s.GroupNames(), back.GroupNames()) || back.File().Comment != s.File().Comment || len(back.File().Monitors) != 1 {
			rt.Fatalf("the cluster file is not there: %v", back.GroupNames())
		}
		for _, n := range nodeNames {
			if s.Up(n) != back.Up(n) || !cmp.Equal(s.OwnedBy(n), back.OwnedBy(n)) {
				rt.Fatalf("%s: up %v and %v, owns %v and %v", n, s.Up(n), back.Up(n), s.OwnedBy(n), back.OwnedBy(n))
			}
		}
		if !maps.Equal(s.Suspends, back.Suspends) {
			rt.Fatalf("%v %v", s.Suspends, back.Suspends)
		}
	})
}

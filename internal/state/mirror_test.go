package state

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

type set = []cluster.NodeName

func operate(verb MirrorVerb, n cluster.NodeName) Command {
	return Command{OperateMirror: &OperateMirror{Resource: "md", Verb: verb, Node: n, Why: "so", Author: "anna", Time: noon}}
}

// mirrored returns fresh with group db, which has a mirror disk, online on b
// and that in-sync set.
func mirrored(t testing.TB, in ...cluster.NodeName) *State {
	t.Helper()
	s := fresh(t)
	begin(s, "db", Plan{Action: ActionStart, To: "b", Wanted: true})
	report(s, "db", StepStarted)
	stands(t, s, "db", cluster.PhaseOnline, "b")
	if len(in) > 0 {
		apply(s, asked(s, in...))
		isInSync(t, s, in...)
	}
	return s
}

// asked is what the owner of group db asks for now.
func asked(s *State, in ...cluster.NodeName) Command {
	g := s.Groups["db"]
	return Command{Mirror: &SetMirror{Resource: "md", Group: "db", Epoch: g.Epoch, Node: g.Owner, Base: s.Mirrors["md"].Rev, InSync: in, Why: "so it is", Cause: "b/7", Time: noon}}
}

func isInSync(t testing.TB, s *State, want ...cluster.NodeName) {
	t.Helper()
	if got := s.Mirrors["md"].InSync; !slices.Equal(got, want) {
		t.Fatalf("in sync: %v, want %v", got, want)
	}
}

func TestMirrorFollowsTheFile(t *testing.T) {
	s := fresh(t)
	if m := s.Mirrors["md"]; m == nil || len(m.InSync) != 0 || m.Rev == 0 || len(s.Mirrors) != 1 {
		t.Fatalf("%+v", s.Mirrors)
	}
	s = mirrored(t, "a", "b")
	rev := s.Mirrors["md"].Rev
	report(s, "db", StepReleased)
	to := func(nodes string) {
		t.Helper()
		apply(s, setConfig(s.Config.Version, strings.Replace(clusterFile, "nodes: [b, a]", "nodes: "+nodes, 1)))
	}
	to("[b, c]")
	isInSync(t, s, "b") // a has no copy any more, c none yet
	to("[a, c]")
	isInSync(t, s, "b") // or a copy of a or c would count as complete
	if why := s.OutOfDate(s.file.Group("db"), "a"); why != "md" {
		t.Errorf("the old copy of a may start: %q", why)
	}
	apply(s, setConfig(s.Config.Version, strings.Replace(clusterFile, "md:", "md2:", 1)))
	if s.Mirrors["md"] != nil || s.Mirrors["md2"] == nil {
		t.Errorf("%+v", s.Mirrors)
	}
	apply(s, setConfig(s.Config.Version, clusterFile))
	if m := s.Mirrors["md"]; m == nil || len(m.InSync) != 0 || m.Rev <= rev {
		t.Errorf("a new mirror of the old name: %+v", m)
	}
}

func TestOwnerSetsTheInSyncSet(t *testing.T) {
	s := mirrored(t)
	steps := []struct {
		name     string
		in, want set
	}{
		{"constructed", set{"b"}, set{"b"}},
		{"the other one is complete", set{"b", "a"}, set{"a", "b"}},
		{"the other one is out", set{"b"}, set{"b"}},
		{"the owner alone cannot leave", set{"a"}, set{"b"}},
		{"the other one is in again", set{"a", "b"}, set{"a", "b"}},
		{"its own disk has failed", set{"a"}, set{"a"}},
		{"nothing complete would be left", set{"b"}, set{"a"}},
		{"its own disk is complete again", set{"a", "b"}, set{"a", "b"}},
		{"nobody", set{}, set{"a", "b"}},
		{"twice", set{"b", "b"}, set{"a", "b"}},
		{"a node of another group", set{"b", "c"}, set{"a", "b"}},
	}
	for _, step := range steps {
		was := *s.Mirrors["md"]
		apply(s, asked(s, step.in...))
		m := s.Mirrors["md"]
		if !slices.Equal(m.InSync, step.want) {
			t.Fatalf("%s: %v, want %v", step.name, m.InSync, step.want)
		}
		if changed := slices.Equal(step.in, m.InSync) || !slices.Equal(was.InSync, m.InSync); changed != (m.Rev > was.Rev) || changed && (m.Why != "so it is" || m.Cause != "b/7" || !m.Since.Equal(noon)) {
			t.Errorf("%s: %+v, before %+v", step.name, m, was)
		}
	}
}

func TestMirrorAsksThatDoNotCount(t *testing.T) {
	for name, change := range map[string]func(*State, *SetMirror){
		"an old epoch":      func(_ *State, c *SetMirror) { c.Epoch-- },
		"a later epoch":     func(_ *State, c *SetMirror) { c.Epoch++ },
		"not the owner":     func(_ *State, c *SetMirror) { c.Node = "a" },
		"nobody":            func(_ *State, c *SetMirror) { c.Node = "" },
		"an old revision":   func(_ *State, c *SetMirror) { c.Base-- },
		"another group":     func(_ *State, c *SetMirror) { c.Group = "web" },
		"no such resource":  func(_ *State, c *SetMirror) { c.Resource = "base" },
		"the group is gone": func(s *State, _ *SetMirror) { report(s, "db", StepReleased) },
	} {
		s := mirrored(t, "a", "b")
		c := asked(s, "b")
		change(s, c.Mirror)
		before := text(t, s)
		apply(s, c)
		if d := cmp.Diff(before, text(t, s)); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

// A member that is declared down keeps its place: its copy is complete.
func TestDownStaysInSync(t *testing.T) {
	s := mirrored(t, "a", "b")
	apply(s, node("a", cluster.NodeDown, ""))
	isInSync(t, s, "a", "b")
	apply(s, node("b", cluster.NodeDown, ""))
	isInSync(t, s, "a", "b")
}

func TestOnlyTheInSyncStart(t *testing.T) {
	t.Run("start", func(t *testing.T) {
		s := mirrored(t, "b")
		report(s, "db", StepReleased)
		begin(s, "db", Plan{Action: ActionStart, To: "a", Wanted: true})
		stands(t, s, "db", cluster.PhaseOffline, "")
		begin(s, "db", Plan{Action: ActionStart, To: "b", Wanted: true})
		stands(t, s, "db", cluster.PhaseStarting, "b")
	})
	t.Run("move to a copy that is out of date", func(t *testing.T) {
		s := mirrored(t, "b")
		begin(s, "db", Plan{Action: ActionMove, From: "b", To: "a", Wanted: true})
		stands(t, s, "db", cluster.PhaseOnline, "b")
	})
	t.Run("out amid a move", func(t *testing.T) {
		s := mirrored(t, "a", "b")
		begin(s, "db", Plan{Action: ActionMove, From: "b", To: "a", Wanted: true})
		apply(s, asked(s, "b"))
		isInSync(t, s, "b")
		report(s, "db", StepStopped)
		stands(t, s, "db", cluster.PhaseOffline, "")
		if p := s.Plans[len(s.Plans)-1]; p.OK || !strings.Contains(p.Text, "out of date") || !s.Groups["db"].Wanted {
			t.Errorf("%+v, %+v", p, s.Groups["db"])
		}
	})
	t.Run("its own disk fails amid a start", func(t *testing.T) {
		s := mirrored(t, "a", "b")
		begin(s, "db", Plan{Action: ActionRestart, From: "b", To: "b", Wanted: true})
		report(s, "db", StepStopped)
		stands(t, s, "db", cluster.PhaseStarting, "b")
		apply(s, asked(s, "a"))
		isInSync(t, s, "a", "b")
	})
	t.Run("its own disk fails amid the restart of a part", func(t *testing.T) {
		s := mirrored(t, "a", "b")
		begin(s, "db", Plan{Action: ActionRestart, From: "b", To: "b", Resource: "base", Wanted: true})
		apply(s, asked(s, "a"))
		epoch := s.Groups["db"].Epoch
		report(s, "db", StepStopped)
		stands(t, s, "db", cluster.PhaseStopping, "b") // what was not stopped yet
		if g := s.Groups["db"]; g.Epoch <= epoch || g.Plan.Resource != "" || g.Plan.To != "" {
			t.Errorf("%+v", g.Plan)
		}
		report(s, "db", StepStopped)
		stands(t, s, "db", cluster.PhaseOffline, "")
	})
}

func TestForcedCopy(t *testing.T) {
	s := mirrored(t, "b")
	apply(s, operate(MirrorForce, "a"))
	isInSync(t, s, "b") // while the group is active
	report(s, "db", StepReleased)
	apply(s, operate(MirrorForce, "b"), operate(MirrorForce, "c"))
	isInSync(t, s, "b") // it is in already, it has no copy
	apply(s, operate(MirrorForce, "a"))
	isInSync(t, s, "a")
	if f := s.Mirrors["md"].Forced; f == nil || *f != (Forced{"a", "so", "anna", noon}) {
		t.Errorf("%+v", f)
	}
	rev := s.Mirrors["md"].Rev
	apply(s, operate(MirrorAcknowledge, ""))
	if m := s.Mirrors["md"]; m.Forced != nil || m.Rev <= rev {
		t.Errorf("%+v", m)
	}
	unconstructed := fresh(t)
	apply(unconstructed, operate(MirrorForce, "a"))
	isInSync(t, unconstructed)
}

func TestVictim(t *testing.T) {
	s := mirrored(t, "b")
	apply(s, operate(MirrorResolve, "b"))
	if m := s.Mirrors["md"]; m.Victim != "" {
		t.Error("the active copy is the victim")
	}
	apply(s, operate(MirrorResolve, "a"))
	if m := s.Mirrors["md"]; m.Victim != "a" {
		t.Errorf("%+v", m)
	}
	apply(s, asked(s, "b", "a"))
	if m := s.Mirrors["md"]; m.Victim != "" {
		t.Errorf("it came in and is still the victim: %+v", m)
	}
	report(s, "db", StepReleased)
	apply(s, operate(MirrorResolve, "b"))
	isInSync(t, s, "a")
	apply(s, operate(MirrorResolve, "a"))
	isInSync(t, s, "a") // the last complete copy is nobody's victim
	if m := s.Mirrors["md"]; m.Victim != "b" {
		t.Errorf("%+v", m)
	}
}

func TestMirrorOrders(t *testing.T) {
	s := mirrored(t, "a", "b")
	m := s.Mirrors["md"]
	apply(s, operate(MirrorInvalidate, "b"))
	isInSync(t, s, "a", "b") // the active one
	apply(s, operate(MirrorInvalidate, "a"))
	isInSync(t, s, "b")
	apply(s, operate(MirrorBreak, ""))
	if m.Paused == nil || *m.Paused != (Paused{"so", "anna", noon}) {
		t.Errorf("%+v", m.Paused)
	}
	apply(s, operate(MirrorResume, ""))
	if m.Paused != nil {
		t.Errorf("%+v", m.Paused)
	}
	for _, kind := range []MirrorOrderKind{OrderResync, OrderFull, OrderVerify, OrderVerifyRepair} {
		apply(s, operate(MirrorVerb(kind), ""))
		if o := m.Order; o == nil || o.Kind != kind || o.Serial != m.Rev || o.Author != "anna" {
			t.Errorf("%+v", o)
		}
	}
	before := text(t, s)
	apply(s, operate("dance", "b"), operate(MirrorInvalidate, "b"), operate(MirrorResume, ""), operate(MirrorAcknowledge, ""))
	if d := cmp.Diff(before, text(t, s)); d != "" {
		t.Error(d)
	}
}

func TestMirrorCloneSharesNothing(t *testing.T) {
	s := mirrored(t, "a", "b")
	apply(s, operate(MirrorBreak, ""), operate(MirrorVerb(OrderFull), ""))
	before := text(t, s)
	c := s.Mirrors["md"].Clone()
	c.InSync[0], c.Paused.Why, c.Order.Kind = "z", "z", "z"
	if d := cmp.Diff(before, text(t, s)); d != "" {
		t.Error(d)
	}
}

func drawMirror(rt *rapid.T, s *State, n cluster.NodeName) Command {
	c := asked(s, rapid.SampledFrom([]set{{"a", "b"}, {"a", "b"}, {"b"}, {"a"}, {"b"}, {"a"}, {}, {"c"}, {"b", "b"}}).Draw(rt, "in sync")...)
	if rarely(rt, "wrong") {
		c.Mirror.Node = n
	}
	c.Mirror.Epoch += cluster.Epoch(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 1, -1}).Draw(rt, "stale"))
	return c
}

func drawOperate(rt *rapid.T, n cluster.NodeName) Command {
	return operate(rapid.SampledFrom([]MirrorVerb{
		MirrorForce, MirrorForce, MirrorAcknowledge, MirrorResolve, MirrorResolve, MirrorInvalidate, MirrorInvalidate, MirrorBreak, MirrorResume,
		MirrorVerb(OrderVerify), "newer",
	}).Draw(rt, "verb"), n)
}

// mirrorsHold fails if a set became empty, if a command of another epoch had an
// effect, or if a node is given the group whose copy is out of date.
func mirrorsHold(rt *rapid.T, before, after *State, e Entry) {
	was, is := before.Mirrors["md"], after.Mirrors["md"]
	if is == nil || len(was.InSync) > 0 && len(is.InSync) == 0 || !slices.IsSorted(is.InSync) || is.Rev < was.Rev {
		rt.Fatalf("mirror %+v became %+v by %s", was, is, e.Encode())
	}
	if same := cmp.Equal(was, is); same != (was.Rev == is.Rev) {
		rt.Fatalf("mirror %+v became %+v by %s", was, is, e.Encode())
	}
	g := before.Groups["db"]
	if c := e.Commands[0].Mirror; c != nil && (c.Epoch != g.Epoch || c.Node != g.Owner) && was.Rev != is.Rev {
		rt.Fatalf("epoch %d of %q changed the mirror in epoch %d of %q", c.Epoch, c.Node, g.Epoch, g.Owner)
	}
	forced := e.Commands[0].OperateMirror != nil && e.Commands[0].OperateMirror.Verb == MirrorForce
	if len(was.InSync) > 0 && !forced && !slices.ContainsFunc(is.InSync, was.Has) {
		rt.Fatalf("in sync were %v and are %v by %s", was.InSync, is.InSync, e.Encode())
	}
	if g := after.Groups["db"]; g.Phase == cluster.PhaseStarting && len(is.InSync) > 0 && !is.Has(g.Owner) {
		rt.Fatalf("group db is being started on %s, in sync are %v, by %s", g.Owner, is.InSync, e.Encode())
	}
}

// TestMirrorLaws is TestLaws with nothing but the group of the mirror disk: a
// plan, a change of the set and a report must meet.
func TestMirrorLaws(t *testing.T) {
	start, starts := mirrored(t, "a", "b"), 0
	rapid.Check(t, func(rt *rapid.T) {
		s := snap(rt, start)
		for range rapid.IntRange(5, 30).Draw(rt, "entries") {
			g := s.Groups["db"]
			n := rapid.SampledFrom([]cluster.NodeName{"a", "b"}).Draw(rt, "node")
			var c Command
			switch rapid.SampledFrom([]string{"begin", "begin", "report", "report", "mirror", "operate"}).Draw(rt, "command") {
			case "begin":
				p := Plan{Action: ActionMove, From: g.Owner, To: n, Wanted: true}
				if n == g.Owner && rapid.Bool().Draw(rt, "a part") {
					p.Resource = "base"
				}
				c = Command{Begin: &Begin{Group: "db", Epoch: g.Epoch, Plan: p}}
			case "report":
				step := rapid.SampledFrom([]Step{StepStarted, StepStopped, StepReleased}).Draw(rt, "step")
				if fits := map[cluster.Phase]Step{cluster.PhaseStarting: StepStarted, cluster.PhaseStopping: StepStopped}[g.Phase]; fits != "" {
					step = fits
				}
				c = Command{Report: &Report{Group: "db", Epoch: g.Epoch, Node: g.Owner, Step: step}}
			case "mirror":
				c = drawMirror(rt, s, n)
			default:
				c = drawOperate(rt, n)
			}
			before := snap(rt, s)
			e := Entry{Commands: []Command{c}}
			s.Apply(e)
			sound(rt, s)
			oneOwner(rt, before, s, e)
			mirrorsHold(rt, before, s, e)
			if s.Groups["db"].Phase == cluster.PhaseStarting && before.Groups["db"].Phase != cluster.PhaseStarting {
				starts++
			}
		}
	})
	if starts < 50 {
		t.Errorf("the group was started only %d times: the property says little", starts)
	}
}

package admission

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

var mirrorFile = strings.Replace(clusterFile, "      base:", "      md: {kind: mirror-disk, data: /dev/vdb2, meta: /dev/vdb1, mount: /data, fs: ext4}\n      base:", 1)

// mirrored returns three nodes that are up, with group db, which has a mirror
// disk, online on b, and both copies complete.
func mirrored(t testing.TB) *state.State {
	t.Helper()
	s := unconstructed(t)
	set("a", "b")(s)
	if m := s.Mirror("md"); m == nil || len(m.InSync) != 2 {
		t.Fatalf("the test's world is wrong: %+v", m)
	}
	return s
}

func unconstructed(t testing.TB) *state.State {
	t.Helper()
	s := state.New()
	apply(s, state.Command{Config: &state.SetConfig{Text: mirrorFile}}, node("a", cluster.NodeUp, false), node("b", cluster.NodeUp, false), node("c", cluster.NodeUp, false))
	begin(s, "db", state.Plan{Action: state.ActionStart, To: "b", Wanted: true})
	report(s, "db", state.StepStarted, nil)
	return s
}

// set has the owner of group db ask for that in-sync set.
func set(in ...cluster.NodeName) func(*state.State) {
	return func(s *state.State) {
		g := s.Groups["db"]
		apply(s, state.Command{Mirror: &state.SetMirror{Resource: "md", Group: "db", Epoch: g.Epoch, Node: g.Owner, Base: s.Mirrors["md"].Rev, InSync: in}})
	}
}

// in combines states.
func in(steps ...func(*state.State)) func(*state.State) {
	return func(s *state.State) {
		for _, f := range steps {
			f(s)
		}
	}
}

func dbOffline(s *state.State) { report(s, "db", state.StepReleased, nil) }

func operated(verb state.MirrorVerb, n cluster.NodeName) func(*state.State) {
	return func(s *state.State) {
		apply(s, state.Command{OperateMirror: &state.OperateMirror{Resource: "md", Verb: verb, Node: n, Why: "so", Author: "anna"}})
	}
}

func ask(k Kind, n cluster.NodeName) Ask {
	return Ask{ID: "r1", Kind: k, Resource: "md", Node: n, Confirm: "web", Why: "the other one burnt", Author: "anna"}
}

func TestMirrorRefusals(t *testing.T) {
	unconfirmed := func(k Kind, confirm, why string) Ask {
		a := ask(k, "a")
		a.Confirm, a.Why = confirm, why
		return a
	}
	blank := func(a Ask) Ask { a.Blank = true; return a }
	file := func(from, to string) Ask { return file(1, strings.Replace(mirrorFile, from, to, 1)) }
	refusedIn(t, mirrored, map[string]refusal{
		"no such mirror disk":                    {nil, Ask{Kind: MirrorBreak, Resource: "mdx"}, "no-such-mirror", "mdx"},
		"a resource of another kind":             {nil, Ask{Kind: MirrorBreak, Resource: "base"}, "no-such-mirror", "base"},
		"force without the name of the cluster":  {in(set("b"), dbOffline), unconfirmed(MirrorForce, "", "x"), "not-confirmed", "confirmation"},
		"force with another cluster's name":      {in(set("b"), dbOffline), unconfirmed(MirrorForce, "mail", "x"), "not-confirmed", "mail"},
		"force without a reason":                 {in(set("b"), dbOffline), unconfirmed(MirrorForce, "web", " "), "bad-request", "reason"},
		"force of nobody's copy":                 {in(set("b"), dbOffline), ask(MirrorForce, ""), "no-such-copy", `""`},
		"force of a node without a copy":         {in(set("b"), dbOffline), ask(MirrorForce, "c"), "no-such-copy", "c"},
		"force while the group is active":        {set("b"), ask(MirrorForce, "a"), "group-active", "b"},
		"force while the group is being stopped": {in(set("b"), func(s *state.State) { begin(s, "db", state.Plan{Action: state.ActionStop, From: "b"}) }), ask(MirrorForce, "a"), "group-active", "b"},
		"force of a complete copy":               {dbOffline, ask(MirrorForce, "a"), "already-in-sync", "a"},
		"force of a copy that was never made":    {in(set("b"), dbOffline), blank(ask(MirrorForce, "a")), "copy-blank", "never made"},
		"acknowledgement of nothing":             {nil, ask(MirrorAcknowledge, ""), "not-forced", "md"},
		"resolve without the cluster's name":     {set("b"), unconfirmed(MirrorResolve, "", "x"), "not-confirmed", "confirmation"},
		"resolve against nobody":                 {set("b"), ask(MirrorResolve, ""), "no-such-copy", `""`},
		"resolve against the active copy":        {set("b"), ask(MirrorResolve, "b"), "copy-active", "b"},
		"resolve against the last complete copy": {in(set("b"), dbOffline), ask(MirrorResolve, "b"), "last-copy", "b"},
		"break of what is broken":                {operated(state.MirrorBreak, ""), ask(MirrorBreak, ""), "already-broken", "anna"},
		"resume of what is not broken":           {nil, ask(MirrorResume, ""), "not-broken", "md"},
		"copy while nothing is active":           {in(set("b"), dbOffline), ask(MirrorCopy, ""), "not-active", "db"},
		"copy where both are complete":           {nil, ask(MirrorCopy, ""), "already-in-sync", "md"},
		"verify while nothing is active":         {dbOffline, ask(MirrorVerify, ""), "not-active", "db"},
		"verify of a copy that is out of date":   {set("b"), ask(MirrorVerify, ""), "not-in-sync", "md"},
		"invalidate the active copy":             {nil, ask(MirrorInvalidate, "b"), "copy-active", "b"},
		"invalidate the last complete copy":      {in(set("b"), dbOffline), ask(MirrorInvalidate, "b"), "last-copy", "b"},
		"invalidate what is out of date":         {set("b"), ask(MirrorInvalidate, "a"), "not-in-sync", "a"},
		"invalidate nobody's copy":               {nil, ask(MirrorInvalidate, "c"), "no-such-copy", "c"},
		"a move to a copy that is out of date":   {set("b"), Ask{Kind: GroupMove, Group: "db", To: "a"}, "standby-down", "the copy of md on a is out of date"},
		"a move with no complete copy elsewhere": {set("b"), Ask{Kind: GroupMove, Group: "db"}, "standby-down", "only b can be active"},
		"a start of a copy that is out of date":  {in(set("b"), dbOffline), Ask{Kind: GroupStart, Group: "db", To: "a"}, "node-unfit", "out of date"},
		"a start with no complete copy": {in(set("b"), dbOffline, func(s *state.State) { apply(s, node("b", cluster.NodeDown, false)) }), Ask{Kind: GroupStart, Group: "db"},
			"no-node", "out of date"},
		"a restart where its own disk has failed":     {set("a"), Ask{Kind: GroupRestart, Group: "db"}, "node-unfit", "out of date"},
		"a file that moves a copy of what is active":  {nil, file("nodes: [b, a]", "nodes: [b, c]"), "config-group-active", "md"},
		"a file without the only complete copy":       {in(set("b"), dbOffline), file("nodes: [b, a]", "nodes: [c, a]"), "config-mirror", "b"},
		"a file that changes the disk of what is not": {nil, file("/dev/vdb2", "/dev/vdb3"), "config-group-active", "db"},
	})
	refusedIn(t, unconstructed, map[string]refusal{
		"force before it was constructed":      {dbOffline, ask(MirrorForce, "a"), "not-constructed", "md"},
		"resolve before it was constructed":    {dbOffline, ask(MirrorResolve, "a"), "not-constructed", "md"},
		"copy before it was constructed":       {nil, ask(MirrorCopy, ""), "not-constructed", "md"},
		"invalidate before it was constructed": {nil, ask(MirrorInvalidate, "a"), "not-constructed", "md"},
	})
}

func TestMirrorAdmitted(t *testing.T) {
	thorough := func(k Kind) Ask { a := ask(k, ""); a.Thorough = true; return a }
	tests := map[string]struct {
		in   func(*state.State)
		ask  Ask
		want func(*state.Mirror) bool
	}{
		"force": {in(set("b"), dbOffline), ask(MirrorForce, "a"), func(m *state.Mirror) bool {
			return slices.Equal(m.InSync, []cluster.NodeName{"a"}) && m.Forced != nil && m.Forced.Author == "anna" && m.Forced.Why == "the other one burnt"
		}},
		"acknowledge": {in(set("b"), dbOffline, operated(state.MirrorForce, "a")), ask(MirrorAcknowledge, ""), func(m *state.Mirror) bool { return m.Forced == nil }},
		"resolve":     {set("b"), ask(MirrorResolve, "a"), func(m *state.Mirror) bool { return m.Victim == "a" && slices.Equal(m.InSync, []cluster.NodeName{"b"}) }},
		"break":       {nil, ask(MirrorBreak, ""), func(m *state.Mirror) bool { return m.Paused != nil && m.Paused.Author == "anna" && len(m.InSync) == 2 }},
		"resume":      {operated(state.MirrorBreak, ""), ask(MirrorResume, ""), func(m *state.Mirror) bool { return m.Paused == nil }},
		"copy":        {set("b"), ask(MirrorCopy, ""), func(m *state.Mirror) bool { return m.Order.Kind == state.OrderResync && m.Order.Serial == m.Rev }},
		"full copy":   {nil, thorough(MirrorCopy), func(m *state.Mirror) bool { return m.Order.Kind == state.OrderFull }},
		"verify":      {nil, ask(MirrorVerify, ""), func(m *state.Mirror) bool { return m.Order.Kind == state.OrderVerify }},
		"repair":      {nil, thorough(MirrorVerify), func(m *state.Mirror) bool { return m.Order.Kind == state.OrderVerifyRepair }},
		"invalidate":  {nil, ask(MirrorInvalidate, "a"), func(m *state.Mirror) bool { return slices.Equal(m.InSync, []cluster.NodeName{"b"}) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := mirrored(t)
			if tt.in != nil {
				tt.in(s)
			}
			rev := s.Mirror("md").Rev
			e, no := Admit(s, tt.ask)
			if no != nil {
				t.Fatalf("refused: %s (%s)", no, no.Code)
			}
			s.Apply(e)
			if a, _ := s.Answered("r1"); a.Err != nil || a.Text == "" {
				t.Errorf("answered %+v", a)
			}
			if m := s.Mirror("md"); !tt.want(m) || m.Rev <= rev {
				t.Errorf("%+v", m)
			}
		})
	}
}

// A set that changes between the admission and the entry is not overridden: the
// answer says that it came to nothing.
func TestMirrorChangesMeanwhile(t *testing.T) {
	s := mirrored(t)
	e, no := Admit(s, ask(MirrorInvalidate, "a"))
	if no != nil {
		t.Fatal(no)
	}
	set("b")(s)
	s.Apply(e)
	if a, _ := s.Answered("r1"); a.Err == nil || a.Err.Code != "changed-meanwhile" {
		t.Errorf("answered %+v", a)
	}
}

// TestMirrorLaws asks anything of a mirror disk in any state: what is admitted
// fits, and no order of asks leaves a constructed mirror without a complete copy.
func TestMirrorLaws(t *testing.T) {
	start, admitted := mirrored(t), 0
	kinds := []Kind{MirrorForce, MirrorAcknowledge, MirrorResolve, MirrorBreak, MirrorResume, MirrorCopy, MirrorVerify, MirrorInvalidate}
	rapid.Check(t, func(rt *rapid.T) {
		data, _ := start.Marshal()
		s, err := state.Unmarshal(data)
		if err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(1, 12).Draw(rt, "asks") {
			switch rapid.SampledFrom([]string{"", "", "offline", "start", "set"}).Draw(rt, "meanwhile") {
			case "offline":
				if s.Groups["db"].Owner != "" {
					dbOffline(s)
				}
			case "start":
				begin(s, "db", state.Plan{Action: state.ActionStart, To: rapid.SampledFrom([]cluster.NodeName{"a", "b"}).Draw(rt, "to"), Wanted: true})
				report(s, "db", state.StepStarted, nil)
			case "set":
				set(rapid.SampledFrom([][]cluster.NodeName{{"a", "b"}, {"a"}, {"b"}}).Draw(rt, "set")...)(s)
			}
			a := ask(rapid.SampledFrom(kinds).Draw(rt, "kind"), rapid.SampledFrom([]cluster.NodeName{"a", "b", "c", ""}).Draw(rt, "node"))
			a.ID = cluster.RequestID(rapid.StringMatching(`[a-z]{12}`).Draw(rt, "id"))
			a.Thorough = rapid.Bool().Draw(rt, "thorough")
			before, _ := s.Marshal()
			e, no := Admit(s, a)
			if after, _ := s.Marshal(); string(after) != string(before) {
				rt.Fatal("asking changed something")
			}
			if no != nil {
				wellPut(t, no)
				continue
			}
			admitted++
			was := s.Mirror("md").Clone()
			s.Apply(e)
			m := s.Mirror("md")
			if ans, known := s.Answered(a.ID); !known || ans.Err != nil {
				rt.Fatalf("%+v was admitted, then answered %+v", a, ans)
			}
			complete := slices.ContainsFunc(m.InSync, was.Has)
			if len(m.InSync) == 0 || !complete && a.Kind != MirrorForce || s.Groups["db"].Owner != "" && was.Has(s.Groups["db"].Owner) && !m.Has(s.Groups["db"].Owner) {
				rt.Fatalf("%+v made %v of %v", a, m.InSync, was.InSync)
			}
		}
	})
	if admitted < 50 {
		t.Errorf("only %d asks were admitted: the property says little", admitted)
	}
}

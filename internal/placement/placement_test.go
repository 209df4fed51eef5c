package placement

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
)

func three() (*state.State, *config.Group) {
	s := state.New()
	for _, n := range []cluster.NodeName{"a", "b", "c"} {
		s.Nodes[n] = &state.Node{State: cluster.NodeUp}
	}
	s.Groups["web"] = &state.Group{Phase: cluster.PhaseOffline}
	return s, &config.Group{Name: "web", Nodes: []cluster.NodeName{"b", "a", "c"}}
}

// mirror gives the group a mirror disk with that in-sync set.
func mirror(in ...cluster.NodeName) func(*state.State, *config.Group) {
	return func(s *state.State, g *config.Group) {
		g.Resources = append(g.Resources, config.Resource{Name: "md", Kind: config.KindMirrorDisk, MirrorDisk: &config.MirrorDisk{}})
		s.Mirrors["md"] = &state.Mirror{InSync: in, Since: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)}
	}
}

func TestChoose(t *testing.T) {
	tests := map[string]struct {
		change func(s *state.State, g *config.Group)
		avoid  cluster.NodeName
		want   cluster.NodeName
		passed []string
	}{
		"the first of the list":  {nil, "", "b", nil},
		"avoided":                {nil, "b", "a", nil},
		"avoided, not the first": {nil, "a", "b", nil},
		"down":                   {func(s *state.State, _ *config.Group) { s.Nodes["b"].State = cluster.NodeDown }, "", "a", []string{"b is down"}},
		"left":                   {func(s *state.State, _ *config.Group) { s.Nodes["b"].State = cluster.NodeLeft }, "", "a", []string{"b is left"}},
		"not seen yet": {func(s *state.State, _ *config.Group) { s.Nodes["b"].State = cluster.NodeUnknown }, "", "a",
			[]string{"b has not been seen yet"}},
		"not known": {func(s *state.State, _ *config.Group) { delete(s.Nodes, "b") }, "", "a", []string{"b has not been seen yet"}},
		"leaving":   {func(s *state.State, _ *config.Group) { s.Nodes["b"].Leaving = true }, "", "a", []string{"b is leaving"}},
		"excluded": {func(s *state.State, _ *config.Group) {
			s.Groups["web"].Excluded = map[cluster.NodeName]string{"b": "fip did not start"}
		}, "", "a", []string{"the activation failed on b (fip did not start)"}},
		"excluded without a reason": {func(s *state.State, _ *config.Group) {
			s.Groups["web"].Excluded = map[cluster.NodeName]string{"b": ""}
		}, "", "a", []string{"the activation failed on b ()"}},
		"another group's exclusion": {func(s *state.State, _ *config.Group) {
			s.Groups["db"] = &state.Group{Excluded: map[cluster.NodeName]string{"b": "no"}}
		}, "", "b", nil},
		"a group that is not agreed on yet": {func(s *state.State, _ *config.Group) { delete(s.Groups, "web") }, "", "b", nil},
		"nobody": {func(s *state.State, _ *config.Group) {
			s.Nodes["b"].State, s.Nodes["c"].Leaving = cluster.NodeDown, true
		}, "a", "", []string{"b is down", "c is leaving"}},
		"a copy that is out of date": {mirror("a"), "", "a", []string{"the copy of md on b is out of date since 2026-01-02 12:00:00 UTC, only a can be active"}},
		"only an avoided copy is complete": {mirror("a"), "a", "", []string{
			"the copy of md on b is out of date since 2026-01-02 12:00:00 UTC, only a can be active",
			"the copy of md on c is out of date since 2026-01-02 12:00:00 UTC, only a can be active"}},
		"a mirror that was never constructed": {mirror(), "", "b", nil},
		"both copies are complete":            {mirror("a", "b"), "", "b", nil},
		"a node outside of the list":          {func(_ *state.State, g *config.Group) { g.Nodes = g.Nodes[:1] }, "b", "", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, g := three()
			if tt.change != nil {
				tt.change(s, g)
			}
			c := Choose(s, g, tt.avoid)
			if c.Node != tt.want || !slices.Equal(c.Passed, tt.passed) {
				t.Errorf("%+v, want %q, passed %q", c, tt.want, tt.passed)
			}
			if c.Why() == "" {
				t.Error("no reason")
			}
		})
	}
}

func TestWhy(t *testing.T) {
	if got := (Choice{}).Why(); got != "no other node is in its list" {
		t.Error(got)
	}
	if got := (Choice{Passed: []string{"a is down", "b is leaving"}}).Why(); got != "a is down, b is leaving" {
		t.Error(got)
	}
}

// TestAnOperatorMayOverruleAnExclusion: a failed activation refuses a choice by
// the machine, but does not make the node unfit.
func TestAnOperatorMayOverruleAnExclusion(t *testing.T) {
	s, g := three()
	s.Groups["web"].Excluded = map[cluster.NodeName]string{"a": "no"}
	if Refuse(s, g, "a") == "" || Unfit(s, g, "a") != "" {
		t.Errorf("refuse %q, unfit %q", Refuse(s, g, "a"), Unfit(s, g, "a"))
	}
	g.Nodes = []cluster.NodeName{"b"}
	if why := Unfit(s, g, "a"); !strings.Contains(why, "not in the list of nodes of group web") {
		t.Errorf("unfit %q", why)
	}
	if why := Unfit(s, g, ""); why == "" {
		t.Error("no node at all is fit")
	}
}

func draw(rt *rapid.T) (*state.State, *config.Group, cluster.NodeName) {
	all := []cluster.NodeName{"a", "b", "c", "d", "e"}
	s := state.New()
	g := &config.Group{Name: "web", Nodes: rapid.Permutation(all).Draw(rt, "order")[:rapid.IntRange(1, 5).Draw(rt, "listed")]}
	gs := &state.Group{Excluded: map[cluster.NodeName]string{}}
	s.Groups["web"] = gs
	states := []cluster.NodeState{cluster.NodeUp, cluster.NodeUp, cluster.NodeUp, cluster.NodeDown, cluster.NodeLeft, cluster.NodeUnknown}
	for _, n := range all {
		if rapid.IntRange(0, 9).Draw(rt, "known") > 0 {
			s.Nodes[n] = &state.Node{State: rapid.SampledFrom(states).Draw(rt, "state"), Leaving: rapid.IntRange(0, 4).Draw(rt, "leaving") == 0}
		}
		if rapid.IntRange(0, 3).Draw(rt, "excluded") == 0 {
			gs.Excluded[n] = "it failed"
		}
	}
	return s, g, rapid.SampledFrom(append(all, "")).Draw(rt, "avoid")
}

// TestLaws: the choice is the first node of the list that is up, not leaving,
// not excluded and not avoided; every other one before it has a sentence that
// names it; the same state gives the same choice and is left as it was.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, g, avoid := draw(rt)
		before, err := s.Marshal()
		if err != nil {
			rt.Fatal(err)
		}
		c := Choose(s, g, avoid)
		able := func(n cluster.NodeName) bool {
			_, excluded := s.Groups["web"].Excluded[n]
			return n != avoid && s.Nodes[n] != nil && s.Nodes[n].State == cluster.NodeUp && !s.Nodes[n].Leaving && !excluded
		}
		want := cluster.NodeName("")
		if i := slices.IndexFunc(g.Nodes, able); i >= 0 {
			want = g.Nodes[i]
		}
		if c.Node != want {
			rt.Fatalf("chose %q, want %q", c.Node, want)
		}
		for _, n := range g.Nodes {
			if n == c.Node {
				break
			}
			named := slices.ContainsFunc(c.Passed, func(p string) bool { return slices.Contains(strings.Fields(p), string(n)) })
			if n != avoid && !named {
				rt.Fatalf("%s was passed over without a reason: %q", n, c.Passed)
			}
		}
		if again := Choose(s, g, avoid); !cmp.Equal(c, again) {
			rt.Fatalf("first %+v, then %+v", c, again)
		}
		if after, _ := s.Marshal(); string(after) != string(before) {
			rt.Fatalf("choosing changed the state:\n%s\n%s", before, after)
		}
	})
}

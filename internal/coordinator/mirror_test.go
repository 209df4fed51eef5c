package coordinator

import (
	"strings"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// mirrored is running with a mirror disk in group db, whose in-sync set is that.
func mirrored(t testing.TB, in ...cluster.NodeName) *state.State {
	t.Helper()
	s := state.New()
	apply(s, state.Command{Config: &state.SetConfig{Text: strings.Replace(clusterFile, "      base:", "      md: {kind: mirror-disk, data: /dev/vdb2, meta: /dev/vdb1, mount: /data, fs: ext4}\n      base:", 1)}})
	apply(s, Decide(s, all())...)
	apply(s, Decide(s, all())...)
	report(s, "web", state.StepStarted, "", "")
	report(s, "db", state.StepStarted, "", "")
	if s.Groups["db"].Owner != "b" {
		t.Fatalf("the test's world is wrong: %+v", s.Groups["db"])
	}
	sync(s, "a", "b")
	sync(s, in...)
	return s
}

func sync(s *state.State, in ...cluster.NodeName) {
	g := s.Groups["db"]
	apply(s, state.Command{Mirror: &state.SetMirror{Resource: "md", Group: "db", Epoch: g.Epoch, Node: g.Owner, Base: s.Mirrors["md"].Rev, InSync: in, Why: "so it is", Time: noon}})
}

// A stale copy is started by no decision of the leader: the group waits for the
// node whose copy is complete.
func TestNoTakeoverByAStaleCopy(t *testing.T) {
	s := mirrored(t, "b")
	carry(t, s, silent(all(), "b"), "b down")
	decides(t, s, silent(all(), "b"), "")
	carry(t, s, all(), "b up")
	carry(t, s, all(), "db start >b")
}

func TestTakeoverByACompleteCopy(t *testing.T) {
	s := mirrored(t, "a", "b")
	carry(t, s, silent(all(), "b"), "b down")
	carry(t, s, silent(all(), "b"), "db takeover >a")
}

// A node whose own disk has failed keeps running on the other copy, but nothing
// is begun anew there.
func TestNoRestartOnAStaleCopy(t *testing.T) {
	s := mirrored(t, "a")
	report(s, "db", state.StepFailed, "base", cluster.ResourceFailed)
	carry(t, s, all(), "db stop b>") // no failovers are left to base; final action: stop the group
	s = mirrored(t, "a")
	s.File().Group("db").Resource("base").Activation.Retries = 3
	s.File().Group("db").Resource("base").Activation.Failovers = 1
	report(s, "db", state.StepFailed, "base", cluster.ResourceFailed)
	carry(t, s, all(), "db failover b>a (base)")
}

// Of a node whose own disk has failed the group goes to the complete copy, however
// often it has failed over: nothing is written where it is. Only who wants no
// failover of the resource at all gets none.
func TestFailedDiskOverTheLimit(t *testing.T) {
	for _, c := range []struct {
		in    []cluster.NodeName
		limit int
		want  string
	}{
		{[]cluster.NodeName{"a"}, 1, "db failover b>a (base)"},
		{[]cluster.NodeName{"a", "b"}, 1, "db stop b>"},
		{[]cluster.NodeName{"a"}, 0, "db stop b>"},
	} {
		s := mirrored(t, c.in...)
		s.File().Group("db").Resource("base").Activation.Failovers = c.limit
		s.Groups["db"].Failovers = map[string]int{"base": 1}
		report(s, "db", state.StepFailed, "base", cluster.ResourceFailed)
		carry(t, s, all(), c.want)
		if p := s.Groups["db"].Plan; c.limit == 1 && len(c.in) == 1 && !strings.Contains(p.Why, "over the limit, because the copy of md on b is out of date") {
			t.Errorf("%s", p.Why)
		}
	}
}

// The node that a group prefers has to be up to date first; then it gets the
// group back.
func TestFailbackWaitsForTheCopy(t *testing.T) {
	s := mirrored(t, "a", "b")
	carry(t, s, silent(all(), "b"), "b down")
	carry(t, s, silent(all(), "b"), "db takeover >a")
	report(s, "db", state.StepStarted, "", "")
	sync(s, "a")
	carry(t, s, all(), "b up")
	decides(t, s, all(), "")
	sync(s, "a", "b")
	carry(t, s, all(), "db move a>b")
	if p := s.Groups["db"].Plan; !strings.Contains(p.Why, "complete again") {
		t.Errorf("%+v", p)
	}
	report(s, "db", state.StepStopped, "", "")
	report(s, "db", state.StepStarted, "", "")
	decides(t, s, all(), "")
}

// Who was waited for is forgotten when an operator stops the group.
func TestFailbackThatIsForgotten(t *testing.T) {
	s := mirrored(t, "a", "b")
	carry(t, s, silent(all(), "b"), "b down")
	carry(t, s, silent(all(), "b"), "db takeover >a")
	report(s, "db", state.StepStarted, "", "")
	sync(s, "a")
	carry(t, s, all(), "b up")
	if s.Groups["db"].Home != "b" {
		t.Fatal("nobody is waited for")
	}
	apply(s, state.Command{Begin: &state.Begin{Group: "db", Epoch: s.Groups["db"].Epoch, Plan: state.Plan{Action: state.ActionStop, From: "a"}}})
	report(s, "db", state.StepStopped, "", "")
	apply(s, state.Command{Begin: &state.Begin{Group: "db", Epoch: s.Groups["db"].Epoch, Plan: state.Plan{Action: state.ActionStart, To: "a", Wanted: true}}})
	report(s, "db", state.StepStarted, "", "")
	sync(s, "a", "b")
	decides(t, s, all(), "")
}

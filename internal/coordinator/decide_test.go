package coordinator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

const clusterFile = `cluster: web
nodes:
  a: {addresses: [10.0.0.1]}
  b: {addresses: [10.0.0.2]}
  c: {addresses: [10.0.0.3]}
groups:
  web:
    nodes: [a, b, c]
    resources:
      ip: {kind: floating-ip, address: 10.0.0.10, activation: {retries: 1, failovers: 2, final_action: none}}
      server: {kind: exec, after: [ip], start: s.sh, activation: {retries: 0, failovers: 1, final_action: reboot}}
  db:
    nodes: [b, a]
    failback: auto
    resources:
      base: {kind: exec, start: s.sh, activation: {retries: 0, failovers: 0, final_action: stop-group}}
  hand:
    startup: manual
    failover: manual
    resources:
      tool: {kind: exec, start: s.sh, activation: {retries: 2, failovers: 3, final_action: none}}
`

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func apply(s *state.State, cmds ...state.Command) { s.Apply(state.Entry{Commands: cmds}) }

// all returns a view in which every node is heard.
func all() View {
	v := View{Wall: noon, WaitOver: true, Nodes: map[cluster.NodeName]Seen{}}
	for _, n := range []cluster.NodeName{"a", "b", "c"} {
		v.Nodes[n] = Seen{Alive: true, Boot: string(n) + "1", Daemon: string(n) + "d"}
	}
	return v
}

// silent returns the view without that node, whose promises have run out.
func silent(v View, n cluster.NodeName) View {
	v.Nodes[n] = Seen{Boot: string(n) + "1", Daemon: string(n) + "d", Expired: true, Silent: 1050 * time.Millisecond}
	return v
}

// empty returns a cluster that has its file and has seen nobody.
func empty(t testing.TB) *state.State {
	t.Helper()
	s := state.New()
	apply(s, state.Command{Config: &state.SetConfig{Text: clusterFile}})
	if s.Config.Version != 1 {
		t.Fatal("the test's cluster file was refused")
	}
	return s
}

// running returns all three nodes up, web online on a, and db on b.
func running(t testing.TB) *state.State {
	t.Helper()
	s := empty(t)
	apply(s, Decide(s, all())...)
	apply(s, Decide(s, all())...)
	report(s, "web", state.StepStarted, "", "")
	report(s, "db", state.StepStarted, "", "")
	if s.Groups["web"].Owner != "a" || s.Groups["db"].Owner != "b" || s.Groups["hand"].Owner != "" || len(Decide(s, all())) > 0 {
		t.Fatalf("the test's world is wrong: %v", Decide(s, all()))
	}
	return s
}

// report has the owner report a step, with one resource in that state.
func report(s *state.State, g cluster.GroupName, step state.Step, r cluster.ResourceName, st cluster.ResourceState) {
	gs := s.Groups[g]
	rep := state.Report{Group: g, Epoch: gs.Epoch, Node: gs.Owner, Step: step, Why: "so it is", Cause: "x/9"}
	if r != "" {
		rep.Resource, rep.Resources = r, map[cluster.ResourceName]state.Resource{r: {State: st, Why: "so it is"}}
	}
	apply(s, state.Command{Report: &rep})
}

// text writes commands for example as "a up" or "web failover a>b (ip)".
func text(cmds []state.Command) string {
	var parts []string
	for _, c := range cmds {
		switch {
		case c.Node != nil:
			parts = append(parts, string(c.Node.Name)+" "+string(c.Node.State))
		case c.Begin != nil:
			p := c.Begin.Plan
			s := string(c.Begin.Group) + " " + string(p.Action) + " " + string(p.From) + ">" + string(p.To)
			if c.Begin.Count != "" {
				s += " (" + c.Begin.Count + ")"
			}
			if p.After != "" {
				s += " then " + p.After
			}
			parts = append(parts, s)
		case c.Hold != nil && c.Hold.Held != nil:
			parts = append(parts, string(c.Hold.Group)+" held")
		case c.Hold != nil:
			parts = append(parts, string(c.Hold.Group)+" released")
		case c.Quarantine != nil && c.Quarantine.Quarantine != nil:
			parts = append(parts, string(c.Quarantine.Node)+" quarantined")
		case c.Quarantine != nil:
			parts = append(parts, string(c.Quarantine.Node)+" released")
		case c.Maintain != nil && c.Maintain.Set != nil:
			parts = append(parts, c.Maintain.Key+" warned")
		case c.Maintain != nil:
			parts = append(parts, c.Maintain.Key+" ends")
		case c.Forget != nil:
			parts = append(parts, string(c.Forget.Group)+" forgets")
		default:
			parts = append(parts, "?")
		}
	}
	return strings.Join(parts, ", ")
}

// decides fails unless those are the commands that are due, each with a why.
func decides(t *testing.T, s *state.State, v View, want string) []state.Command {
	t.Helper()
	cmds := Decide(s, v)
	if got := text(cmds); got != want {
		t.Fatalf("decided %q, want %q", got, want)
	}
	for _, c := range cmds {
		if c.Node != nil && c.Node.Why == "" || c.Begin != nil && c.Begin.Plan.Why == "" {
			t.Fatalf("without a why: %s", text([]state.Command{c}))
		}
	}
	return cmds
}

// carry applies what is due, if it is what is wanted.
func carry(t *testing.T, s *state.State, v View, want string) {
	t.Helper()
	apply(s, decides(t, s, v, want)...)
}

func TestColdStart(t *testing.T) {
	s, v := empty(t), all()
	carry(t, s, v, "a up, b up, c up")
	v.WaitOver = false
	decides(t, s, v, "") // the nodes still wait for each other
	v.WaitOver = true
	carry(t, s, v, "web start >a, db start >b") // hand waits for an operator
	decides(t, s, v, "")
	if p := s.Groups["web"].Plan; p.Factor != cluster.FactorClusterStart || !p.Wanted {
		t.Errorf("%+v", p)
	}
}

func TestColdStartWithoutTheFirst(t *testing.T) {
	s, v := empty(t), all()
	v.Nodes["a"] = Seen{}
	carry(t, s, v, "b up, c up")
	carry(t, s, v, "web start >b, db start >b")
}

func TestNobodyIsThere(t *testing.T) {
	decides(t, empty(t), View{WaitOver: true}, "")
	decides(t, state.New(), all(), "")
}

func TestTakeover(t *testing.T) {
	s := running(t)
	v := silent(all(), "a")
	early := v
	early.Nodes = map[cluster.NodeName]Seen{"a": {Silent: time.Second}, "b": v.Nodes["b"], "c": v.Nodes["c"]}
	decides(t, s, early, "") // a promise still stands
	early.Nodes["a"] = v.Nodes["a"]
	early.WaitOver = false
	decides(t, s, early, "")
	cmds := decides(t, s, v, "a down")
	if why := cmds[0].Node.Why; !strings.Contains(why, "1.05s") {
		t.Errorf("why %q", why)
	}
	cmds[0].Node.Cause = "b/3"
	apply(s, cmds...)
	cmds = decides(t, s, v, "web takeover >b")
	if p := cmds[0].Begin.Plan; p.Cause != "b/3" || p.Factor != cluster.FactorGroupFailover || !strings.Contains(p.Why, "silent") {
		t.Errorf("%+v", p)
	}
	apply(s, cmds...)
	report(s, "web", state.StepStarted, "", "")
	decides(t, s, v, "")
	carry(t, s, all(), "a up") // back, and web stays: its failback is manual
	decides(t, s, all(), "")
}

func TestFailback(t *testing.T) {
	s := running(t)
	v := silent(all(), "b")
	carry(t, s, v, "b down")
	carry(t, s, v, "db takeover >a")
	report(s, "db", state.StepStarted, "", "")
	carry(t, s, all(), "b up, db move a>b")
	report(s, "db", state.StepStopped, "", "")
	report(s, "db", state.StepStarted, "", "")
	if decides(t, s, all(), ""); s.Groups["db"].Owner != "b" {
		t.Errorf("%+v", s.Groups["db"])
	}
}

func TestNoFailbackToWhereItFailed(t *testing.T) {
	s := running(t)
	v := silent(all(), "b")
	carry(t, s, v, "b down")
	carry(t, s, v, "db takeover >a")
	report(s, "db", state.StepStarted, "", "")
	s.Groups["db"].Excluded = map[cluster.NodeName]string{"b": "it failed"}
	carry(t, s, all(), "b up")
	decides(t, s, all(), "")
}

func TestManualFailoverStaysDown(t *testing.T) {
	s := running(t)
	apply(s, state.Command{Begin: &state.Begin{Group: "hand", Plan: state.Plan{To: "c", Wanted: true}}})
	report(s, "hand", state.StepStarted, "", "")
	carry(t, s, silent(all(), "c"), "c down")
	decides(t, s, silent(all(), "c"), "")
}

// TestBootedAnew: a node that was away too shortly to be missed ran nothing any
// more, and is not the first choice for what ran on it.
func TestBootedAnew(t *testing.T) {
	s, v := running(t), all()
	v.Nodes["a"] = Seen{Alive: true, Boot: "a2", Daemon: "x"}
	v.WaitOver = false
	decides(t, s, v, "") // it is not known yet who lived on
	v.WaitOver = true
	cmds := decides(t, s, v, "a up, web takeover >b")
	if !strings.Contains(cmds[0].Node.Why, "booted anew") || !strings.Contains(cmds[1].Begin.Plan.Why, "lived on") {
		t.Errorf("%q, %q", cmds[0].Node.Why, cmds[1].Begin.Plan.Why)
	}
	apply(s, cmds...)
	if gs := s.Groups["web"]; gs.Owner != "b" || gs.Phase != cluster.PhaseStarting {
		t.Errorf("%+v", gs)
	}
	decides(t, s, v, "")
}

func TestAllBootedAnew(t *testing.T) {
	s, v := running(t), all()
	for n := range v.Nodes {
		v.Nodes[n] = Seen{Alive: true, Boot: string(n) + "2", Daemon: "x"}
	}
	carry(t, s, v, "a up, b up, c up")
	carry(t, s, v, "web start >a, db start >b")
}

func TestDaemonStartedAnew(t *testing.T) {
	s, v := running(t), all()
	v.Nodes["a"] = Seen{Alive: true, Boot: "a1", Daemon: "x"}
	carry(t, s, v, "a up")
	if decides(t, s, v, ""); s.Groups["web"].Owner != "a" || s.Groups["web"].Phase != cluster.PhaseOnline {
		t.Errorf("what runs was touched: %+v", s.Groups["web"])
	}
}

func TestWhoLeftStaysAway(t *testing.T) {
	s, v := running(t), all()
	apply(s, state.Command{Node: &state.SetNode{Name: "c", State: cluster.NodeLeft, Boot: "c1", Daemon: "cd"}})
	decides(t, s, v, "") // it is still heard, and has left
	decides(t, s, silent(all(), "c"), "")
	v.Nodes["c"] = Seen{Alive: true, Boot: "c1", Daemon: "c2"}
	decides(t, s, v, "c up")
}

func TestLeaving(t *testing.T) {
	leave := func(s *state.State, n cluster.NodeName) {
		apply(s, state.Command{Node: &state.SetNode{Name: n, State: cluster.NodeUp, Boot: string(n) + "1", Daemon: string(n) + "d", Leaving: true}})
	}
	s := running(t)
	leave(s, "a")
	carry(t, s, all(), "web move a>b")
	if p := s.Groups["web"].Plan; !p.Wanted || p.Factor != cluster.FactorServerShutdown {
		t.Errorf("%+v", p)
	}
	decides(t, s, all(), "")
	s = running(t)
	leave(s, "a")
	leave(s, "b") // only c is left, which is not in the list of db
	carry(t, s, all(), "web move a>c, db stop b>")
	report(s, "db", state.StepStopped, "", "")
	if !s.Groups["db"].Wanted {
		t.Error("a group that lost its last node is not wanted any more")
	}
	decides(t, s, all(), "") // not back on who is leaving
}

func TestFailedActivation(t *testing.T) {
	s := running(t)
	report(s, "web", state.StepFailed, "ip", cluster.ResourceFailed)
	carry(t, s, all(), "web restart a>a (ip/restart)") // first in place
	if p := s.Groups["web"].Plan; p.Resource != "ip" || p.Factor != cluster.FactorResourceRestart || p.Cause != "x/9" {
		t.Errorf("%+v", p)
	}
	report(s, "web", state.StepStopped, "", "")
	report(s, "web", state.StepStarted, "", "")
	report(s, "web", state.StepFailed, "ip", cluster.ResourceFailed)
	carry(t, s, all(), "web failover a>b (ip)") // the retry is used up
	report(s, "web", state.StepStopped, "", "")
	report(s, "web", state.StepStartFailed, "ip", cluster.ResourceStartFailed)
	carry(t, s, all(), "web failover b>a (ip)") // the runner has had its retries already
	report(s, "web", state.StepStopped, "", "")
	report(s, "web", state.StepStartFailed, "ip", cluster.ResourceStartFailed)
	decides(t, s, all(), "") // two failovers are used up; final action: none
	apply(s, state.Command{Clear: &state.Clear{Group: "web"}})
	decides(t, s, all(), "web failover a>b (ip)")
}

func TestNoFailoverToWhereItFailed(t *testing.T) {
	s := running(t)
	s.Groups["web"].Excluded = map[cluster.NodeName]string{"b": "no", "c": "no"}
	s.Groups["web"].Failovers = map[string]int{RestartCounter("ip"): 1}
	report(s, "web", state.StepFailed, "ip", cluster.ResourceFailed)
	decides(t, s, all(), "")
}

func TestFinalActions(t *testing.T) {
	s := running(t)
	s.Groups["web"].Failovers = map[string]int{"server": 1}
	report(s, "web", state.StepFailed, "server", cluster.ResourceFailed)
	carry(t, s, all(), "web stop a> then reboot")
	if s.Groups["web"].Wanted || s.Groups["web"].Plan.Factor != cluster.FactorServerShutdown {
		t.Errorf("%+v", s.Groups["web"].Plan)
	}
	s = running(t)
	report(s, "db", state.StepFailed, "base", cluster.ResourceFailed)
	carry(t, s, all(), "db stop b>") // no failovers; final action: stop the group
	report(s, "db", state.StepStopped, "", "")
	decides(t, s, all(), "") // and it stays stopped
}

func TestManualFailoverOfAResource(t *testing.T) {
	s := running(t)
	apply(s, state.Command{Begin: &state.Begin{Group: "hand", Plan: state.Plan{To: "c", Wanted: true}}})
	report(s, "hand", state.StepStartFailed, "tool", cluster.ResourceStartFailed)
	decides(t, s, all(), "")
}

// TestFailedStopIsLeftAlone: what may still run is not started anywhere by a
// machine's decision.
func TestFailedStopIsLeftAlone(t *testing.T) {
	s := running(t)
	report(s, "web", state.StepFailed, "server", cluster.ResourceFailed)
	carry(t, s, all(), "web failover a>b (server)")
	report(s, "web", state.StepStopFailed, "server", cluster.ResourceStopFailed)
	decides(t, s, all(), "")
	if s.Groups["web"].Owner != "a" {
		t.Errorf("%+v", s.Groups["web"])
	}
	carry(t, s, silent(all(), "a"), "a down") // now it surely runs nothing
	decides(t, s, silent(all(), "a"), "web takeover >b")
}

// TestFailedStopBesideAnotherFailure: what may still run counts more than what
// could be tried again.
func TestFailedStopBesideAnotherFailure(t *testing.T) {
	for _, st := range []cluster.ResourceState{cluster.ResourceFailed, cluster.ResourceStartFailed} {
		s := running(t)
		report(s, "web", state.StepFailed, "ip", st)
		s.Groups["web"].Resources["server"] = state.Resource{State: cluster.ResourceStopFailed, Why: "busy"}
		decides(t, s, all(), "")
	}
}

func TestBootedAnewAndNobodyFitLivedOn(t *testing.T) {
	s, v := running(t), all()
	s.Groups["db"].Excluded = map[cluster.NodeName]string{"a": "no"}
	v.Nodes["b"] = Seen{Alive: true, Boot: "b2", Daemon: "x"}
	carry(t, s, v, "b up") // c is not in the list of db, and on a it did not start
	decides(t, s, v, "db start >b")
	s, v = running(t), all()
	v.Nodes["a"], v.Nodes["b"] = Seen{Alive: true, Boot: "a2", Daemon: "x"}, Seen{Boot: "b1", Daemon: "bd"}
	decides(t, s, v, "a up, web takeover >c") // b is not heard now
}

func TestDecidingReadsOnly(t *testing.T) {
	s := running(t)
	report(s, "web", state.StepFailed, "ip", cluster.ResourceFailed)
	v := silent(all(), "c")
	before, _ := s.Marshal()
	first := Decide(s, v)
	if d := cmp.Diff(first, Decide(s, v)); d != "" {
		t.Error(d)
	}
	if after, _ := s.Marshal(); string(after) != string(before) {
		t.Error("deciding changed the state")
	}
	if !slices.ContainsFunc(first, func(c state.Command) bool { return c.Node != nil }) || slices.ContainsFunc(first, func(c state.Command) bool { return c.Begin != nil }) {
		t.Errorf("groups are decided on the state that follows: %s", text(first))
	}
}

func TestLeavingWithAFailedGroup(t *testing.T) {
	s := running(t)
	report(s, "web", state.StepStartFailed, "ip", cluster.ResourceStartFailed)
	apply(s, state.Command{Node: &state.SetNode{Name: "a", State: cluster.NodeUp, Boot: "a1", Daemon: "ad", Leaving: true}})
	if cmds := Decide(s, all()); len(cmds) == 0 {
		t.Error("nothing takes the failed group web from the leaving node a")
	}
}

func TestFailbackBesideABootedOwner(t *testing.T) {
	s := running(t)
	carry(t, s, silent(all(), "b"), "b down")
	carry(t, s, silent(all(), "b"), "db takeover >a")
	report(s, "db", state.StepStarted, "", "")
	v := all()
	v.Nodes["a"] = Seen{Alive: true, Boot: "a2", Daemon: "x"} // the owner, booted anew
	cmds := Decide(s, v)
	for _, c := range cmds {
		if c.Begin != nil && c.Begin.Group == "db" && c.Begin.Plan.From == "a" {
			t.Errorf("a move from a, which has booted anew: %s", text(cmds))
		}
	}
}

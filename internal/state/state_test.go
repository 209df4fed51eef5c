package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

const clusterFile = `cluster: web
nodes:
  a: {addresses: [10.0.0.1]}
  b: {addresses: [10.0.0.2]}
  c: {addresses: [10.0.0.3]}
groups:
  web:
    resources:
      ip: {kind: floating-ip, address: 10.0.0.10}
      server: {kind: exec, after: [ip], start: s.sh}
  db:
    startup: manual
    failover: manual
    nodes: [b, a]
    resources:
      base: {kind: exec, start: s.sh}
      md: {kind: mirror-disk, data: /dev/vdb2, meta: /dev/vdb1, mount: /data, fs: ext4}
monitors:
  check: {kind: custom, script: check.sh, target: {group: web}}
`

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func apply(s *State, cmds ...Command) { s.Apply(Entry{Commands: cmds}) }

func setConfig(base uint64, text string) Command {
	return Command{Config: &SetConfig{Base: base, Text: text, Author: "root", Time: noon}}
}

func node(n cluster.NodeName, st cluster.NodeState, boot string) Command {
	return Command{Node: &SetNode{Name: n, State: st, Boot: boot, Daemon: boot + "d", Time: noon}}
}

// fresh returns a cluster of three nodes that are up.
func fresh(t testing.TB) *State {
	t.Helper()
	s := New()
	apply(s, setConfig(0, clusterFile), node("a", cluster.NodeUp, "a1"), node("b", cluster.NodeUp, "b1"), node("c", cluster.NodeUp, "c1"))
	if s.Config.Version != 1 || !s.Up("a") || len(s.Groups) != 2 {
		t.Fatalf("the test's cluster file was not taken: %s", text(t, s))
	}
	return s
}

func text(t testing.TB, s *State) string {
	t.Helper()
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func begin(s *State, g cluster.GroupName, p Plan) {
	apply(s, Command{Begin: &Begin{Group: g, Epoch: s.Groups[g].Epoch, Plan: p}})
}

func report(s *State, g cluster.GroupName, step Step) {
	gs := s.Groups[g]
	apply(s, Command{Report: &Report{Group: g, Epoch: gs.Epoch, Node: gs.Owner, Step: step, Why: "so it is"}})
}

// online returns fresh with group web online on that node.
func online(t testing.TB, n cluster.NodeName) *State {
	t.Helper()
	s := fresh(t)
	begin(s, "web", Plan{Action: ActionStart, To: n, Wanted: true})
	report(s, "web", StepStarted)
	stands(t, s, "web", cluster.PhaseOnline, n)
	return s
}

func stands(t testing.TB, s *State, g cluster.GroupName, p cluster.Phase, owner cluster.NodeName) {
	t.Helper()
	gs := s.Groups[g]
	if gs == nil || gs.Phase != p || gs.Owner != owner {
		t.Fatalf("group %s is %+v, want %s on %q", g, gs, p, owner)
	}
	if (gs.Plan != nil) != (p == cluster.PhaseStarting || p == cluster.PhaseStopping) {
		t.Fatalf("group %s is %s with plan %+v", g, p, gs.Plan)
	}
}

func TestFirstFile(t *testing.T) {
	s := New()
	apply(s, setConfig(0, clusterFile))
	if s.Config.Version != 1 || s.Config.Author != "root" || len(s.History) != 0 {
		t.Errorf("%+v, history %v", s.Config.ConfigVersion, s.History)
	}
	if got := s.GroupNames(); !slices.Equal(got, []cluster.GroupName{"web", "db"}) {
		t.Errorf("groups %v", got)
	}
	if len(s.Nodes) != 3 || s.Nodes["b"].State != cluster.NodeUnknown || s.Up("b") || s.Up("nobody") {
		t.Errorf("nodes %+v", s.Nodes)
	}
	if !s.Groups["web"].Wanted || s.Groups["db"].Wanted {
		t.Error("startup auto wants to run, startup manual does not")
	}
	stands(t, s, "web", cluster.PhaseOffline, "")
}

func TestFileFromAnotherBaseChangesNothing(t *testing.T) {
	s := fresh(t)
	before := text(t, s)
	for _, c := range []Command{
		setConfig(0, strings.Replace(clusterFile, "cluster: web", "cluster: web\ncomment: old", 1)),
		setConfig(2, clusterFile),
		setConfig(1, "cluster: web\nnodes: {}\n"),
		setConfig(1, "not a file"),
	} {
		apply(s, c)
		if after := text(t, s); after != before {
			t.Errorf("base %d changed something: %s", c.Config.Base, cmp.Diff(before, after))
		}
	}
}

func TestFileHistory(t *testing.T) {
	s := fresh(t)
	for v := uint64(1); v < 30; v++ {
		apply(s, setConfig(v, fmt.Sprintf("%scomment: version %d\n", clusterFile, v+1)))
	}
	if s.Config.Version != 30 || s.File().Comment != "version 30" {
		t.Fatalf("version %d, comment %q", s.Config.Version, s.File().Comment)
	}
	if n := len(s.History); n != MaxHistory || s.History[n-1].Version != 29 || s.History[0].Version != 10 || !strings.HasSuffix(s.History[0].Text, "version 10\n") {
		t.Errorf("%d old versions, %d to %d", n, s.History[0].Version, s.History[n-1].Version)
	}
}

func TestFileAddsAndTakesOut(t *testing.T) {
	s := online(t, "a")
	apply(s, Command{Suspend: &Suspend{"check", "a", true}}, Command{Suspend: &Suspend{"check", "c", true}})
	without := strings.Replace(clusterFile, "  c: {addresses: [10.0.0.3]}\n", "  d: {addresses: [10.0.0.4]}\n", 1)
	head, tail, _ := strings.Cut(without, "  db:")
	_, monitors, _ := strings.Cut(tail, "monitors:")
	apply(s, setConfig(1, head+"  mail: {resources: {smtp: {kind: exec, start: s.sh}}}\nmonitors:"+monitors))
	if s.Config.Version != 2 {
		t.Fatal("the file was refused")
	}
	if s.Nodes["c"] != nil || s.Nodes["d"] == nil || s.Nodes["d"].State != cluster.NodeUnknown || s.Nodes["a"].State != cluster.NodeUp {
		t.Errorf("nodes %+v", s.Nodes)
	}
	if s.Groups["db"] != nil || s.Groups["mail"] == nil {
		t.Errorf("groups %+v", s.Groups)
	}
	stands(t, s, "web", cluster.PhaseOnline, "a") // untouched
	if !s.Suspends[SuspendKey("check", "a")] || s.Suspends[SuspendKey("check", "c")] {
		t.Errorf("suspended: %v", s.Suspends)
	}
}

// TestActiveGroupOutlivesItsFile: should a file take an active group out, the
// state does not forget who runs it, until it is surely stopped.
func TestActiveGroupOutlivesItsFile(t *testing.T) {
	head, _, _ := strings.Cut(clusterFile, "groups:")
	for name, end := range map[string]func(s *State){
		"stopped":  func(s *State) { begin(s, "web", Plan{Action: ActionStop, From: "a"}); report(s, "web", StepStopped) },
		"released": func(s *State) { report(s, "web", StepReleased) },
		"down":     func(s *State) { apply(s, node("a", cluster.NodeDown, "")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := online(t, "a")
			apply(s, setConfig(1, head))
			stands(t, s, "web", cluster.PhaseOnline, "a")
			if end(s); s.Groups["web"] != nil {
				t.Errorf("still there: %+v", s.Groups["web"])
			}
		})
	}
}

func TestStartMoveStop(t *testing.T) {
	s := fresh(t)
	begin(s, "web", Plan{Action: ActionStart, To: "a", Wanted: true, Why: "asked for", Cause: "a/7"})
	stands(t, s, "web", cluster.PhaseStarting, "a")
	if gs := s.Groups["web"]; gs.Plan.ID != "p1" || gs.Why != "asked for" || gs.Cause != "a/7" {
		t.Errorf("%+v", gs)
	}
	report(s, "web", StepStarted)
	stands(t, s, "web", cluster.PhaseOnline, "a")

	begin(s, "web", Plan{Action: ActionMove, From: "a", To: "b", Wanted: true})
	stands(t, s, "web", cluster.PhaseStopping, "a")
	report(s, "web", StepStarted) // not what it was told to do
	stands(t, s, "web", cluster.PhaseStopping, "a")
	report(s, "web", StepStopped)
	stands(t, s, "web", cluster.PhaseStarting, "b")
	if s.Groups["web"].Previous != "a" {
		t.Errorf("previous %q", s.Groups["web"].Previous)
	}
	report(s, "web", StepStopped) // neither this
	stands(t, s, "web", cluster.PhaseStarting, "b")
	report(s, "web", StepStarted)
	stands(t, s, "web", cluster.PhaseOnline, "b")

	begin(s, "web", Plan{Action: ActionRestart, From: "b", To: "b", Wanted: true})
	stands(t, s, "web", cluster.PhaseStopping, "b")
	report(s, "web", StepStopped)
	stands(t, s, "web", cluster.PhaseStarting, "b")
	if s.Groups["web"].Previous != "a" {
		t.Errorf("a restart in place is no move: previous %q", s.Groups["web"].Previous)
	}
	report(s, "web", StepStarted)

	begin(s, "web", Plan{Action: ActionStop, From: "b"})
	report(s, "web", StepStopped)
	stands(t, s, "web", cluster.PhaseOffline, "")
	if s.Groups["web"].Wanted || len(s.Plans) != 4 {
		t.Errorf("wanted %v, %d plans", s.Groups["web"].Wanted, len(s.Plans))
	}
	for i, p := range s.Plans {
		if ended, ok := s.Ended(fmt.Sprintf("p%d", i+1)); !ok || !ended.OK || ended.Group != "web" || ended.ID != p.ID {
			t.Errorf("plan %d: %+v", i+1, p)
		}
	}
	if _, ok := s.Ended("p5"); ok {
		t.Error("a plan that never was has ended")
	}
}

func TestBeginThatNoLongerFits(t *testing.T) {
	start := Plan{Action: ActionStart, To: "b", Wanted: true}
	tests := map[string]struct {
		prepare func(s *State)
		begin   func(s *State) Begin
	}{
		"an old epoch":    {nil, func(s *State) Begin { b := toB(s); b.Epoch--; return b }},
		"a newer epoch":   {nil, func(s *State) Begin { b := toB(s); b.Epoch++; return b }},
		"no such group":   {nil, func(*State) Begin { return Begin{Group: "mail", Plan: start} }},
		"not where it is": {nil, func(s *State) Begin { return Begin{Group: "web", Epoch: s.Groups["web"].Epoch, Plan: start} }},
		"somewhere else": {nil, func(s *State) Begin {
			return Begin{Group: "web", Epoch: s.Groups["web"].Epoch, Plan: Plan{From: "c", To: "b"}}
		}},
		"a plan is under way": {func(s *State) { begin(s, "web", Plan{Action: ActionMove, From: "a", To: "c"}) },
			func(s *State) Begin {
				return Begin{Group: "web", Epoch: s.Groups["web"].Epoch, Plan: Plan{From: "a", To: "b"}}
			}},
		"its target is down":    {func(s *State) { apply(s, node("b", cluster.NodeDown, "")) }, toB},
		"its target has left":   {func(s *State) { apply(s, node("b", cluster.NodeLeft, "")) }, toB},
		"its target is unknown": {func(s *State) { delete(s.Nodes, "b") }, toB},
		"its target is leaving": {func(s *State) {
			apply(s, Command{Node: &SetNode{Name: "b", State: cluster.NodeUp, Boot: "b1", Leaving: true}})
		}, toB},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := online(t, "a")
			if tt.prepare != nil {
				tt.prepare(s)
			}
			before := text(t, s)
			b := tt.begin(s)
			b.Count = "check"
			s.Apply(Entry{Commands: []Command{{Begin: &b}}})
			if after := text(t, s); after != before {
				t.Errorf("it changed something:\n%s", cmp.Diff(before, after))
			}
			s.Apply(Entry{Answer: &Answer{ID: "r1", Plan: "p2"}, Commands: []Command{{Begin: &b}}})
			a, ok := s.Answered("r1")
			if !ok || a.Err == nil || a.Err.Code != "changed-meanwhile" || a.Err.Hint == "" || a.Plan != "" {
				t.Errorf("answered %+v %v", a, ok)
			}
		})
	}
}

func toB(s *State) Begin {
	return Begin{Group: "web", Epoch: s.Groups["web"].Epoch, Plan: Plan{Action: ActionMove, From: "a", To: "b"}}
}

func TestTargetLostBeforeItsTurn(t *testing.T) {
	s := online(t, "a")
	begin(s, "web", Plan{Action: ActionMove, From: "a", To: "b", Wanted: true})
	apply(s, node("b", cluster.NodeDown, ""))
	stands(t, s, "web", cluster.PhaseStopping, "a")
	report(s, "web", StepStopped)
	stands(t, s, "web", cluster.PhaseOffline, "")
	if p, ok := s.Ended("p2"); !ok || p.OK || !strings.Contains(p.Text, "b is not up") || !s.Groups["web"].Wanted {
		t.Errorf("%+v, wanted %v", p, s.Groups["web"].Wanted)
	}
}

func TestReportsThatDoNotCount(t *testing.T) {
	for name, change := range map[string]func(r *Report){
		"an older epoch":   func(r *Report) { r.Epoch-- },
		"a newer epoch":    func(r *Report) { r.Epoch++ },
		"another node":     func(r *Report) { r.Node = "b" },
		"nobody":           func(r *Report) { r.Node = "" },
		"no such group":    func(r *Report) { r.Group = "mail" },
		"an offline group": func(r *Report) { r.Group, r.Epoch, r.Node = "db", 0, "a" },
	} {
		t.Run(name, func(t *testing.T) {
			for _, step := range []Step{StepStarted, StepStopped, StepStartFailed, StepStopFailed, StepReleased, StepFailed} {
				s := online(t, "a")
				begin(s, "web", Plan{Action: ActionMove, From: "a", To: "b"})
				before := text(t, s)
				r := Report{Group: "web", Epoch: s.Groups["web"].Epoch, Node: "a", Step: step, Why: "x",
					Resources: map[cluster.ResourceName]Resource{"ip": {State: cluster.ResourceFailed}}}
				change(&r)
				apply(s, Command{Report: &r})
				if after := text(t, s); after != before {
					t.Errorf("%s changed something:\n%s", step, cmp.Diff(before, after))
				}
			}
		})
	}
}

func TestFailedStart(t *testing.T) {
	s := fresh(t)
	begin(s, "web", Plan{Action: ActionStart, To: "a", Wanted: true})
	apply(s, Command{Report: &Report{Group: "web", Epoch: s.Groups["web"].Epoch, Node: "a", Step: StepStartFailed, Why: "ip: no interface", Cause: "a/9",
		Resources: map[cluster.ResourceName]Resource{"ip": {State: cluster.ResourceStartFailed, Why: "no interface"}}}})
	stands(t, s, "web", cluster.PhaseFailed, "a")
	gs := s.Groups["web"]
	if gs.Excluded["a"] != "ip: no interface" || gs.Why != "ip: no interface" || gs.Cause != "a/9" || gs.Resources["ip"].State != cluster.ResourceStartFailed {
		t.Errorf("%+v", gs)
	}
	if p, _ := s.Ended("p1"); p.OK || p.Text != "ip: no interface" {
		t.Errorf("%+v", p)
	}
	begin(s, "web", Plan{Action: ActionRestart, From: "a", To: "a", Wanted: true})
	report(s, "web", StepStopped)
	report(s, "web", StepStarted)
	if _, excluded := s.Groups["web"].Excluded["a"]; excluded {
		t.Error("excluded though it has started there")
	}
}

func TestFailedStopKeepsItsOwner(t *testing.T) {
	s := online(t, "a")
	begin(s, "web", Plan{Action: ActionFailover, From: "a", To: "b", Wanted: true})
	report(s, "web", StepStopFailed)
	stands(t, s, "web", cluster.PhaseFailed, "a")
	if p, _ := s.Ended("p2"); p.OK {
		t.Errorf("%+v", p)
	}
}

func TestWhoLosesItsGroups(t *testing.T) {
	tests := map[string]struct {
		set  SetNode
		lost bool
	}{
		"down":                         {SetNode{State: cluster.NodeDown, Why: "silent"}, true},
		"left":                         {SetNode{State: cluster.NodeLeft}, true},
		"booted anew":                  {SetNode{State: cluster.NodeUp, Boot: "a2", Daemon: "x"}, true},
		"its daemon started anew":      {SetNode{State: cluster.NodeUp, Boot: "a1", Daemon: "x"}, false},
		"leaving":                      {SetNode{State: cluster.NodeUp, Boot: "a1", Leaving: true}, false},
		"nothing is known of its boot": {SetNode{State: cluster.NodeUp}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := online(t, "a")
			begin(s, "web", Plan{Action: ActionMove, From: "a", To: "b", Wanted: true})
			epoch := s.Groups["web"].Epoch
			tt.set.Name, tt.set.Cause, tt.set.Time = "a", "b/3", noon
			apply(s, Command{Node: &tt.set})
			if n := s.Nodes["a"]; n.State != tt.set.State || n.Leaving != tt.set.Leaving || n.Boot == "" {
				t.Errorf("node %+v", n)
			}
			if !tt.lost {
				stands(t, s, "web", cluster.PhaseStopping, "a")
				return
			}
			stands(t, s, "web", cluster.PhaseOffline, "")
			gs := s.Groups["web"]
			if gs.Epoch <= epoch || gs.Previous != "a" || !gs.Wanted || gs.Cause != "b/3" || gs.Resources != nil {
				t.Errorf("%+v", gs)
			}
			if p, ok := s.Ended("p2"); !ok || p.OK || p.Text == "" {
				t.Errorf("its plan: %+v %v", p, ok)
			}
			if !s.Nodes["a"].Since.Equal(noon) || !s.Up("b") {
				t.Error("another node was touched")
			}
		})
	}
}

func TestNodeThatIsNotInTheFile(t *testing.T) {
	s := fresh(t)
	before := text(t, s)
	apply(s, node("z", cluster.NodeUp, "z1"))
	if after := text(t, s); after != before {
		t.Error(cmp.Diff(before, after))
	}
}

// TestManualFailover: a group whose failover is manual does not run elsewhere by
// itself when its node is lost.
func TestManualFailover(t *testing.T) {
	s := fresh(t)
	begin(s, "db", Plan{Action: ActionStart, To: "b", Wanted: true})
	report(s, "db", StepStarted)
	apply(s, node("b", cluster.NodeDown, ""))
	stands(t, s, "db", cluster.PhaseOffline, "")
	if gs := s.Groups["db"]; gs.Wanted || !strings.Contains(gs.Why, "manual") {
		t.Errorf("%+v", gs)
	}
}

func TestReleased(t *testing.T) {
	s := online(t, "a")
	epoch := s.Groups["web"].Epoch
	report(s, "web", StepReleased)
	stands(t, s, "web", cluster.PhaseOffline, "")
	if gs := s.Groups["web"]; gs.Epoch <= epoch || gs.Previous != "a" || !gs.Wanted {
		t.Errorf("%+v", gs)
	}
}

func TestCounters(t *testing.T) {
	s := online(t, "a")
	for i := range 3 {
		from, to := cluster.NodeName("a"), cluster.NodeName("b")
		if i%2 == 1 {
			from, to = to, from
		}
		apply(s, Command{Begin: &Begin{Group: "web", Epoch: s.Groups["web"].Epoch, Plan: Plan{Action: ActionFailover, From: from, To: to}, Count: "check"}})
		report(s, "web", StepStopped)
		report(s, "web", StepStartFailed)
	}
	gs := s.Groups["web"]
	if gs.Failovers["check"] != 3 || len(gs.Failovers) != 1 || len(gs.Excluded) != 2 {
		t.Fatalf("%v %v", gs.Failovers, gs.Excluded)
	}
	apply(s, Command{Clear: &Clear{"mail"}}, Command{Clear: &Clear{"db"}})
	if gs.Failovers["check"] != 3 {
		t.Error("the counters of another group were cleared")
	}
	if apply(s, Command{Clear: &Clear{"web"}}); len(gs.Failovers) != 0 || len(gs.Excluded) != 0 {
		t.Errorf("%v %v", gs.Failovers, gs.Excluded)
	}
}

func TestSameAskActsOnce(t *testing.T) {
	s := online(t, "a")
	e := Entry{Answer: &Answer{ID: "r1", Plan: "p2", Text: "move begun"}, Commands: []Command{{Begin: &Begin{
		Group: "web", Epoch: s.Groups["web"].Epoch, Plan: Plan{Action: ActionMove, From: "a", To: "b", Wanted: true}, Count: "check"}}}}
	s.Apply(e)
	once := text(t, s)
	s.Apply(e)
	if twice := text(t, s); twice != once {
		t.Errorf("the second time changed something:\n%s", cmp.Diff(once, twice))
	}
	s.Apply(Entry{Answer: &Answer{ID: "r1", Text: "another thing"}, Commands: []Command{{Clear: &Clear{"web"}}}})
	if again := text(t, s); again != once {
		t.Errorf("another ask under the same id did something:\n%s", cmp.Diff(once, again))
	}
	if a, ok := s.Answered("r1"); !ok || a.Plan != "p2" || a.Text != "move begun" || a.Err != nil {
		t.Errorf("%+v %v", a, ok)
	}
}

func TestAnswersAndPlansAreBounded(t *testing.T) {
	s := fresh(t)
	for i := range MaxAnswers + 100 {
		s.Apply(Entry{Answer: &Answer{ID: cluster.RequestID(fmt.Sprint("r", i))}})
		begin(s, "web", Plan{Action: ActionStart, To: "a"})
		report(s, "web", StepReleased)
	}
	if len(s.Answers) != MaxAnswers || len(s.Plans) != MaxPlans {
		t.Fatalf("%d answers, %d plans", len(s.Answers), len(s.Plans))
	}
	if _, ok := s.Answered(cluster.RequestID(fmt.Sprint("r", MaxAnswers+99))); !ok {
		t.Error("the latest answer is forgotten")
	}
	if _, ok := s.Answered("r99"); ok {
		t.Error("the oldest answer is kept")
	}
	if _, ok := s.Ended(fmt.Sprintf("p%d", MaxAnswers+100)); !ok {
		t.Error("the latest plan is forgotten")
	}
}

func TestWantSuspendToken(t *testing.T) {
	s := fresh(t)
	apply(s, Command{Want: &Want{"db", true, "asked for"}}, Command{Want: &Want{"mail", true, "no such group"}},
		Command{Suspend: &Suspend{"check", "a", true}}, Command{Token: &SetToken{"t1", &Token{Record: json.RawMessage(`{}`)}}})
	if !s.Groups["db"].Wanted || s.Groups["db"].Why != "asked for" || s.Groups["mail"] != nil {
		t.Errorf("%+v", s.Groups)
	}
	if _, ok := s.Tokens["t1"]; !ok || !s.Suspends["check@a"] || len(s.Suspends) != 1 {
		t.Errorf("%v %v", s.Tokens, s.Suspends)
	}
	apply(s, Command{Suspend: &Suspend{"check", "a", false}}, Command{Token: &SetToken{ID: "t1"}}, Command{Token: &SetToken{ID: "t2"}})
	if len(s.Tokens) != 0 || len(s.Suspends) != 0 {
		t.Errorf("%v %v", s.Tokens, s.Suspends)
	}
}

func TestLinks(t *testing.T) {
	s := fresh(t)
	verbs := []cluster.Verb{cluster.VerbGroupFailover}
	apply(s, Command{Link: &SetLink{"esx", &Link{CA: "one", Asks: true, Verbs: verbs, Groups: []cluster.GroupName{"web"}}}})
	apply(s, Command{Link: &SetLink{"esx", &Link{CA: "one", Asked: true, Nodes: []LinkNode{{"h", []string{"h:1"}}}}}})
	want := &Link{CA: "one", Asks: true, Verbs: verbs, Groups: []cluster.GroupName{"web"}, Asked: true, Nodes: []LinkNode{{"h", []string{"h:1"}}}}
	if d := cmp.Diff(want, s.Links["esx"]); d != "" {
		t.Errorf("merged: %s", d)
	}
	apply(s, Command{Link: &SetLink{"esx", &Link{CA: "two", Asked: true}}})
	if d := cmp.Diff(&Link{CA: "two", Asked: true}, s.Links["esx"]); d != "" {
		t.Errorf("another key is another cluster, without the rights of the old one: %s", d)
	}
	if apply(s, Command{Link: &SetLink{Name: "esx"}}); len(s.Links) != 0 {
		t.Errorf("%v", s.Links)
	}
}

func TestDeclaresDown(t *testing.T) {
	e := Entry{Commands: []Command{node("a", cluster.NodeDown, ""), node("b", cluster.NodeUp, "b2"), node("c", cluster.NodeLeft, ""),
		{Clear: &Clear{"web"}}, node("d", cluster.NodeDown, "")}}
	if got, err := DeclaresDown(e.Encode()); err != nil || !slices.Equal(got, []cluster.NodeName{"a", "d"}) {
		t.Error(got)
	}
}

func TestDamagedInputIsRefused(t *testing.T) {
	good := text(t, fresh(t))
	for name, data := range map[string]string{
		"empty":                                  "",
		"cut off":                                good[:len(good)-1],
		"no object":                              `[]`,
		"another format":                         `{"config": {"version": "one"}}`,
		"its cluster file does not check":        `{"config": {"version": 3, "text": "cluster: web\n"}}`,
		"its cluster file is of a newer version": `{"config": {"version": 3, "text": ` + quote(clusterFile+"quantum: {on: true}\n") + `}}`,
	} {
		if s, err := Unmarshal([]byte(data)); err == nil || s != nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, data := range []string{"", "{", `{"commands": {}}`, `{"commands": [{"begin": {"epoch": -1}}]}`} {
		if _, err := DecodeEntry([]byte(data)); err == nil {
			t.Errorf("entry %q: taken", data)
		}
	}
}

func quote(s string) string {
	data, _ := json.Marshal(s)
	return string(data)
}

func TestEntryComesBack(t *testing.T) {
	e := Entry{Nonce: "n", Answer: &Answer{ID: "r1", Err: &api.Error{Code: "x", Message: "m", Hint: "h"}}, Commands: []Command{
		setConfig(1, clusterFile), node("a", cluster.NodeUp, "a1"), {Want: &Want{"web", true, "so"}}, {Clear: &Clear{"web"}},
		{Begin: &Begin{Group: "web", Epoch: 7, Plan: Plan{ID: "p1", Action: ActionMove, From: "a", To: "b", Cause: "a/1", Resource: "ip", Wanted: true, After: "reboot"}, Count: "c"}},
		{Report: &Report{Group: "web", Epoch: 7, Node: "a", Step: StepFailed, Resource: "ip", Why: "w", Cause: "a/1", Resources: map[cluster.ResourceName]Resource{"ip": {State: cluster.ResourceFailed, Why: "w", Rung: cluster.RungFinal}}}},
		{Suspend: &Suspend{"check", "a", true}}, {Token: &SetToken{"t", &Token{Record: json.RawMessage(`{"a":1}`)}}}, {Link: &SetLink{"l", &Link{CA: "c"}}},
	}}
	back, err := DecodeEntry(e.Encode())
	if d := cmp.Diff(e, back); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}

func TestReportOfNobody(t *testing.T) {
	for _, step := range []Step{StepStartFailed, StepStopFailed, StepFailed} {
		s := fresh(t)
		apply(s, Command{Report: &Report{Group: "web", Epoch: s.Groups["web"].Epoch, Step: step, Why: "x"}})
		if gs := s.Groups["web"]; gs.Phase != cluster.PhaseOffline {
			t.Errorf("%s: group web is %s on %q", step, gs.Phase, gs.Owner)
		}
	}
}

// What was active where a move stops is told to the target; a start, and what
// had failed, is not.
func TestWhatAMoveHandsOver(t *testing.T) {
	s := online(t, "a")
	s.Groups["web"].Resources = map[cluster.ResourceName]Resource{"server": {State: cluster.ResourceOnline}, "ip": {State: cluster.ResourceOnline}}
	begin(s, "web", Plan{Action: ActionMove, From: "a", To: "b", Wanted: true})
	report(s, "web", StepStopped)
	stands(t, s, "web", cluster.PhaseStarting, "b")
	if got := s.Groups["web"].Plan.Active; !slices.Equal(got, []cluster.ResourceName{"ip", "server"}) {
		t.Errorf("a move hands over %v", got)
	}
	report(s, "web", StepStarted)
	s.Groups["web"].Resources = map[cluster.ResourceName]Resource{"ip": {State: cluster.ResourceFailed}}
	begin(s, "web", Plan{Action: ActionFailover, From: "b", To: "a", Wanted: true})
	if got := s.Groups["web"].Plan.Active; got != nil {
		t.Errorf("a failover for the address hands over %v", got)
	}
	report(s, "web", StepStopped)
	apply(s, node("a", cluster.NodeDown, ""))
	begin(s, "web", Plan{Action: ActionTakeover, To: "c", Wanted: true})
	if got := s.Groups["web"].Plan.Active; got != nil {
		t.Errorf("a takeover hands over %v", got)
	}
}

package admission

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
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
    nodes: [b, a]
    resources:
      base: {kind: exec, start: s.sh}
`

func apply(s *state.State, cmds ...state.Command) { s.Apply(state.Entry{Commands: cmds}) }

func node(n cluster.NodeName, st cluster.NodeState, leaving bool) state.Command {
	return state.Command{Node: &state.SetNode{Name: n, State: st, Boot: string(n) + "1", Daemon: "d", Leaving: leaving}}
}

func report(s *state.State, g cluster.GroupName, step state.Step, r map[cluster.ResourceName]state.Resource) {
	gs := s.Groups[g]
	apply(s, state.Command{Report: &state.Report{Group: g, Epoch: gs.Epoch, Node: gs.Owner, Step: step, Why: "so it is", Resources: r}})
}

func begin(s *state.State, g cluster.GroupName, p state.Plan) {
	apply(s, state.Command{Begin: &state.Begin{Group: g, Epoch: s.Groups[g].Epoch, Plan: p}})
}

// world returns three nodes that are up, with group web online on a and group
// db offline.
func world(t testing.TB) *state.State {
	t.Helper()
	s := state.New()
	apply(s, state.Command{Config: &state.SetConfig{Text: clusterFile}}, node("a", cluster.NodeUp, false), node("b", cluster.NodeUp, false), node("c", cluster.NodeUp, false))
	begin(s, "web", state.Plan{Action: state.ActionStart, To: "a", Wanted: true})
	report(s, "web", state.StepStarted, nil)
	if g := s.Groups["web"]; g == nil || g.Phase != cluster.PhaseOnline || g.Owner != "a" {
		t.Fatalf("the test's world is wrong: %+v", g)
	}
	return s
}

// The states in which asks are made.
var (
	moving = func(s *state.State) {
		begin(s, "web", state.Plan{Action: state.ActionMove, From: "a", To: "b", Why: "for a test", Wanted: true})
	}
	offline = func(s *state.State) { report(s, "web", state.StepReleased, nil) }
	stuck   = func(s *state.State) {
		moving(s)
		report(s, "web", state.StepStopFailed, map[cluster.ResourceName]state.Resource{"server": {State: cluster.ResourceStopFailed}})
	}
	fallen = func(s *state.State) {
		begin(s, "web", state.Plan{Action: state.ActionRestart, From: "a", To: "a", Wanted: true})
		report(s, "web", state.StepStopped, nil)
		report(s, "web", state.StepStartFailed, map[cluster.ResourceName]state.Resource{"server": {State: cluster.ResourceStartFailed}})
	}
	alone    = func(s *state.State) { apply(s, node("b", cluster.NodeDown, false), node("c", cluster.NodeUp, true)) }
	noneLeft = func(s *state.State) { alone(s); apply(s, node("a", cluster.NodeDown, false)) }
	counted  = func(s *state.State) { s.Groups["web"].Failovers = map[string]int{"check": 2} }
)

// refusal is an ask in a state in which it must be refused.
type refusal struct {
	in   func(s *state.State)
	ask  Ask
	code string
	says string
}

func TestGroupRefusals(t *testing.T) {
	refused(t, map[string]refusal{
		"what nobody knows":                   {nil, Ask{Kind: "dance"}, "unknown-ask", "dance"},
		"start of no group":                   {nil, Ask{Kind: GroupStart, Group: "mail"}, "no-such-group", "mail"},
		"stop of no group":                    {nil, Ask{Kind: GroupStop, Group: "mail"}, "no-such-group", "mail"},
		"move of no group":                    {nil, Ask{Kind: GroupMove}, "no-such-group", ""},
		"clear of no group":                   {nil, Ask{Kind: GroupClear, Group: "mail"}, "no-such-group", "mail"},
		"failover by no resource":             {nil, Ask{Kind: GroupFailover, Resource: "fip"}, "no-such-resource", "fip"},
		"start of what is active":             {nil, Ask{Kind: GroupStart, Group: "web"}, "already-active", "a"},
		"start elsewhere of what is active":   {nil, Ask{Kind: GroupStart, Group: "web", To: "b"}, "already-active", "a"},
		"start after a failed stop":           {stuck, Ask{Kind: GroupStart, Group: "web"}, "stop-failed", "may still be active"},
		"start elsewhere after a failed stop": {stuck, Ask{Kind: GroupStart, Group: "web", To: "b"}, "stop-failed", "may still be active"},
		"start on a node that is down":        {func(s *state.State) { offline(s); alone(s) }, Ask{Kind: GroupStart, Group: "web", To: "b"}, "node-unfit", "b is down"},
		"start on a node that is leaving":     {func(s *state.State) { offline(s); alone(s) }, Ask{Kind: GroupStart, Group: "web", To: "c"}, "node-unfit", "c is leaving"},
		"start on a node that is not listed":  {nil, Ask{Kind: GroupStart, Group: "db", To: "c"}, "node-unfit", "list"},
		"start on a node that there is not":   {nil, Ask{Kind: GroupStart, Group: "db", To: "z"}, "node-unfit", "z"},
		"start where no node is left":         {noneLeft, Ask{Kind: GroupStart, Group: "web"}, "no-node", "b is down"},
		"stop of what is not active":          {nil, Ask{Kind: GroupStop, Group: "db"}, "not-active", "db"},
		"restart of what is not active":       {nil, Ask{Kind: GroupRestart, Group: "db"}, "not-active", "db"},
		"restart after a failed stop":         {stuck, Ask{Kind: GroupRestart, Group: "web"}, "stop-failed", "may still be active"},
		"move of what is not active":          {nil, Ask{Kind: GroupMove, Group: "db"}, "not-active", "db"},
		"move to where it is":                 {nil, Ask{Kind: GroupMove, Group: "web", To: "a"}, "already-there", "a"},
		"move to a node that is down":         {alone, Ask{Kind: GroupMove, Group: "web", To: "b"}, "standby-down", "b is down"},
		"move to a node that is not listed":   {func(s *state.State) { begin(s, "db", state.Plan{To: "b"}); report(s, "db", state.StepStarted, nil) }, Ask{Kind: GroupMove, Group: "db", To: "c"}, "standby-down", "list"},
		"move with no other node":             {alone, Ask{Kind: GroupMove, Group: "web"}, "standby-down", "b is down, c is leaving"},
		"move after a failed stop":            {stuck, Ask{Kind: GroupMove, Group: "web", To: "c"}, "stop-failed", "may still be active"},
		"failover of what is not active":      {nil, Ask{Kind: GroupFailover, Resource: "base"}, "not-active", "db"},
		"failover with no other node":         {alone, Ask{Kind: GroupFailover, Resource: "ip"}, "standby-down", "c is leaving"},
		"failover after a failed stop":        {stuck, Ask{Kind: GroupFailover, Group: "web"}, "stop-failed", "may still be active"},
		"failover with the counter used up":   {counted, Ask{Kind: GroupFailover, Group: "web", Count: "check", Limit: 2}, "counter-used-up", "2 times"},
		"start amid a move":                   {moving, Ask{Kind: GroupStart, Group: "web"}, "busy", "for a test"},
		"stop amid a move":                    {moving, Ask{Kind: GroupStop, Group: "web"}, "busy", "move"},
		"restart amid a move":                 {moving, Ask{Kind: GroupRestart, Group: "web"}, "busy", "move"},
		"move amid a move":                    {moving, Ask{Kind: GroupMove, Group: "web", To: "c"}, "busy", "move"},
		"failover amid a move":                {moving, Ask{Kind: GroupFailover, Resource: "ip"}, "busy", "move"},
	})
}

func TestRefusals(t *testing.T) {
	refused(t, map[string]refusal{
		"release of no node":                    {nil, Ask{Kind: NodeRelease, Node: "z"}, "no-such-node", "z"},
		"release of a node that is free":        {nil, Ask{Kind: NodeRelease, Node: "b"}, "not-quarantined", "b"},
		"a move to nothing but a quarantine":    {quarantined, Ask{Kind: GroupMove, Group: "db"}, "standby-down", "a is quarantined until"},
		"maintenance of no node":                {nil, Ask{Kind: MaintainOn, Node: "z", Why: "x"}, "no-such-node", "z"},
		"maintenance of no group":               {nil, Ask{Kind: MaintainOn, Group: "z", Why: "x"}, "no-such-group", "z"},
		"maintenance of two things":             {nil, Ask{Kind: MaintainOn, Group: "web", Node: "a", Why: "x"}, "bad-request", "two"},
		"maintenance without a reason":          {nil, Ask{Kind: MaintainOn, Group: "web"}, "bad-request", "reason"},
		"maintenance for a moment":              {nil, Ask{Kind: MaintainOn, Group: "web", Why: "x", For: time.Second}, "bad-request", "1s"},
		"maintenance for ever":                  {nil, Ask{Kind: MaintainOn, Group: "web", Why: "x", For: 1e4 * time.Hour}, "bad-request", "10000h"},
		"maintenance for a negative time":       {nil, Ask{Kind: MaintainOn, Why: "x", For: -time.Hour}, "bad-request", "-1h"},
		"drain of a group":                      {nil, Ask{Kind: MaintainOn, Group: "web", Why: "x", Drain: true}, "bad-request", "group web"},
		"end of a maintenance that is not":      {nil, Ask{Kind: MaintainOff, Group: "web"}, "not-in-maintenance", "group web"},
		"a monitor's restart in maintenance":    {worked("", "web"), Ask{Kind: GroupRestart, Group: "web", Auto: true}, "in-maintenance", "patches"},
		"a monitor's failover in maintenance":   {worked("", ""), Ask{Kind: GroupFailover, Group: "web", Auto: true}, "in-maintenance", "patches"},
		"a move to a drained node":              {worked("b", ""), Ask{Kind: GroupMove, Group: "web", To: "b"}, "standby-down", "move away"},
		"release of no group":                   {nil, Ask{Kind: GroupRelease, Group: "z"}, "no-such-group", "z"},
		"release of a group that is not held":   {nil, Ask{Kind: GroupRelease, Group: "web"}, "not-held", "web"},
		"a monitor's failover of a held group":  {held, Ask{Kind: GroupFailover, Group: "web", Count: "check", Auto: true}, "held", "3 failovers"},
		"a monitor's stop of a held group":      {held, Ask{Kind: GroupStop, Group: "web", Auto: true}, "held", "3 failovers"},
		"leave of no node":                      {nil, Ask{Kind: NodeLeave, Node: "z"}, "no-such-node", "z"},
		"return of no node":                     {nil, Ask{Kind: NodeReturn, Node: "z"}, "no-such-node", "z"},
		"leave of a node that is down":          {alone, Ask{Kind: NodeLeave, Node: "b"}, "node-not-up", "b is down"},
		"leave with what did not stop":          {stuck, Ask{Kind: NodeLeave, Node: "a"}, "stop-failed", "may still be active"},
		"a token that was used":                 {nil, Ask{Kind: TokenUse, Token: "t1"}, "token-used", "used"},
		"a file against an older version":       {nil, file(0, clusterFile), "config-changed", "version 1 is in force"},
		"a file against a version to come":      {nil, file(2, clusterFile), "config-changed", "version 1 is in force"},
		"a file that does not check":            {nil, file(1, "cluster: web\nnods: {}\n"), "config-invalid", "nods"},
		"a file of another cluster":             {nil, file(1, strings.Replace(clusterFile, "cluster: web", "cluster: mail", 1)), "config-cluster", "mail"},
		"a file without an active group":        {nil, file(1, clusterFile[:strings.Index(clusterFile, "groups:")]), "config-group-active", "web"},
		"a file that takes the group's node":    {nil, file(1, strings.Replace(clusterFile, "  web:\n    res", "  web:\n    nodes: [b, c]\n    res", 1)), "config-group-active", "a"},
		"a file that changes what is active":    {nil, file(1, strings.Replace(clusterFile, "10.0.0.10", "10.0.0.11", 1)), "config-group-active", "web"},
		"a file that adds to what is active":    {nil, file(1, strings.Replace(clusterFile, "  db:", "      mail: {kind: exec, start: m.sh}\n  db:", 1)), "config-group-active", "web"},
		"a file that reorders what is active":   {nil, file(1, strings.Replace(clusterFile, "after: [ip], ", "", 1)), "config-group-active", "web"},
		"a file that changes what is moving":    {moving, file(1, strings.Replace(clusterFile, "10.0.0.10", "10.0.0.11", 1)), "config-group-active", "web"},
		"a file that changes what did not stop": {stuck, file(1, strings.Replace(clusterFile, "10.0.0.10", "10.0.0.11", 1)), "config-group-active", "web"},
		"a file without a node that is up":      {nil, file(1, strings.Replace(clusterFile, "  c: {addresses: [10.0.0.3]}\n", "", 1)), "config-node-up", "c"},
	})
}

func refused(t *testing.T, tests map[string]refusal) {
	t.Helper()
	refusedIn(t, world, tests)
}

func refusedIn(t *testing.T, world func(testing.TB) *state.State, tests map[string]refusal) {
	t.Helper()
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := world(t)
			if tt.in != nil {
				tt.in(s)
			}
			before, _ := s.Marshal()
			e, no := Admit(s, tt.ask)
			if no == nil {
				t.Fatalf("admitted: %s", e.Encode())
			}
			if no.Code != tt.code || !strings.Contains(no.Message, tt.says) {
				t.Errorf("refused with %s (%s), want %s with %q", no.Code, no.Message, tt.code, tt.says)
			}
			wellPut(t, no)
			if len(e.Commands) > 0 || e.Answer != nil {
				t.Errorf("a refusal with an entry: %s", e.Encode())
			}
			if after, _ := s.Marshal(); string(after) != string(before) {
				t.Error("a refusal changed something")
			}
		})
	}
}

func file(base uint64, text string) Ask {
	return Ask{Kind: ConfigApply, Config: &state.SetConfig{Base: base, Text: text, Author: "root"}}
}

// wellPut fails unless the error has a code, one lower-case sentence and a hint.
func wellPut(t testing.TB, no *api.Error) {
	t.Helper()
	if no.Code == "" || no.Message == "" || no.Hint == "" || strings.ToLower(no.Message[:1]) != no.Message[:1] || strings.HasSuffix(no.Message, ".") {
		t.Errorf("badly put: %+v", no)
	}
}

func TestAdmittedPlans(t *testing.T) {
	tests := map[string]struct {
		in   func(s *state.State)
		ask  Ask
		want state.Plan
	}{
		"start": {nil, Ask{Kind: GroupStart, Group: "db"},
			state.Plan{Action: state.ActionStart, To: "b", Factor: cluster.FactorGroupStart, Wanted: true, Why: "asked for"}},
		"start on a node": {nil, Ask{Kind: GroupStart, Group: "db", To: "a", Why: "the operator wants it", Cause: "a/7"},
			state.Plan{Action: state.ActionStart, To: "a", Factor: cluster.FactorGroupStart, Wanted: true, Why: "the operator wants it", Cause: "a/7"}},
		"start on an excluded node": {func(s *state.State) { s.Groups["db"].Excluded = map[cluster.NodeName]string{"a": "no"} }, Ask{Kind: GroupStart, Group: "db", To: "a"},
			state.Plan{Action: state.ActionStart, To: "a", Factor: cluster.FactorGroupStart, Wanted: true, Why: "asked for"}},
		"start of what has failed stops it first": {fallen, Ask{Kind: GroupStart, Group: "web"},
			state.Plan{Action: state.ActionStart, From: "a", To: "b", Factor: cluster.FactorGroupStart, Wanted: true, Why: "asked for"}},
		"stop": {nil, Ask{Kind: GroupStop, Group: "web"},
			state.Plan{Action: state.ActionStop, From: "a", Factor: cluster.FactorGroupStop, Why: "asked for"}},
		"stop once more after a failed stop": {stuck, Ask{Kind: GroupStop, Group: "web"},
			state.Plan{Action: state.ActionStop, From: "a", Factor: cluster.FactorGroupStop, Why: "asked for"}},
		"stop with a final action": {nil, Ask{Kind: GroupStop, Group: "web", After: "reboot", Why: "check is bad"},
			state.Plan{Action: state.ActionStop, From: "a", Factor: cluster.FactorGroupStop, Why: "check is bad", After: "reboot"}},
		"restart": {nil, Ask{Kind: GroupRestart, Group: "web"},
			state.Plan{Action: state.ActionRestart, From: "a", To: "a", Factor: cluster.FactorGroupRestart, Wanted: true, Why: "asked for"}},
		"restart of a resource": {nil, Ask{Kind: GroupRestart, Group: "web", Resource: "server"},
			state.Plan{Action: state.ActionRestart, From: "a", To: "a", Resource: "server", Factor: cluster.FactorResourceRestart, Wanted: true, Why: "asked for"}},
		"move": {nil, Ask{Kind: GroupMove, Group: "web"},
			state.Plan{Action: state.ActionMove, From: "a", To: "b", Factor: cluster.FactorGroupMove, Wanted: true, Why: "asked for"}},
		"move to a node": {nil, Ask{Kind: GroupMove, Group: "web", To: "c"},
			state.Plan{Action: state.ActionMove, From: "a", To: "c", Factor: cluster.FactorGroupMove, Wanted: true, Why: "asked for"}},
		"move past an excluded node": {func(s *state.State) { s.Groups["web"].Excluded = map[cluster.NodeName]string{"b": "no"} }, Ask{Kind: GroupMove, Group: "web"},
			state.Plan{Action: state.ActionMove, From: "a", To: "c", Factor: cluster.FactorGroupMove, Wanted: true, Why: "asked for"}},
		"failover by a resource": {nil, Ask{Kind: GroupFailover, Resource: "ip"},
			state.Plan{Action: state.ActionFailover, From: "a", To: "b", Factor: cluster.FactorGroupFailover, Wanted: true, Why: "asked for"}},
		"failover below the limit": {counted, Ask{Kind: GroupFailover, Group: "web", Count: "check", Limit: 3},
			state.Plan{Action: state.ActionFailover, From: "a", To: "b", Factor: cluster.FactorGroupFailover, Wanted: true, Why: "asked for"}},
		"failover by another counter": {counted, Ask{Kind: GroupFailover, Group: "web", Count: "other", Limit: 1},
			state.Plan{Action: state.ActionFailover, From: "a", To: "b", Factor: cluster.FactorGroupFailover, Wanted: true, Why: "asked for"}},
		"failover without a limit": {counted, Ask{Kind: GroupFailover, Group: "web", Count: "check"},
			state.Plan{Action: state.ActionFailover, From: "a", To: "b", Factor: cluster.FactorGroupFailover, Wanted: true, Why: "asked for"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := world(t)
			if tt.in != nil {
				tt.in(s)
			}
			tt.ask.ID = "r1"
			e, no := Admit(s, tt.ask)
			if no != nil {
				t.Fatalf("refused: %s (%s)", no, no.Code)
			}
			if len(e.Commands) != 1 || e.Commands[0].Begin == nil || e.Answer == nil || e.Answer.ID != "r1" || e.Answer.Text == "" {
				t.Fatalf("entry %s", e.Encode())
			}
			b := *e.Commands[0].Begin
			if d := cmp.Diff(tt.want, b.Plan); d != "" || b.Epoch != s.Groups[b.Group].Epoch || b.Count != tt.ask.Count {
				t.Errorf("%+v: %s", b, d)
			}
			before := s.Groups[b.Group].Failovers[b.Count]
			s.Apply(e)
			a, _ := s.Answered("r1")
			gs := s.Groups[b.Group]
			if a.Err != nil || gs.Plan == nil || gs.Plan.ID != a.Plan {
				t.Errorf("answered %+v, the plan is %+v", a, gs.Plan)
			}
			if b.Count != "" && gs.Failovers[b.Count] != before+1 {
				t.Errorf("counters %v", gs.Failovers)
			}
		})
	}
}

func TestClear(t *testing.T) {
	s := world(t)
	counted(s)
	e, no := Admit(s, Ask{ID: "r1", Kind: GroupClear, Group: "web"})
	if no != nil {
		t.Fatal(no)
	}
	s.Apply(e)
	if _, no = Admit(s, Ask{ID: "r2", Kind: GroupFailover, Group: "web", Count: "check", Limit: 2}); no != nil {
		t.Errorf("still refused after clearing: %s", no)
	}
}

func held(s *state.State) {
	apply(s, state.Command{Hold: &state.Hold{Group: "web", Held: &state.Held{Why: "3 failovers in 10m"}}})
}

// quarantined has group db run on b, with a, the other node of its list, in
// quarantine.
func quarantined(s *state.State) {
	apply(s, state.Command{Quarantine: &state.SetQuarantine{Node: "a", Quarantine: &state.Quarantine{Why: "lost 3 times", Until: time.Unix(1e9, 0)}}})
	if s.Up("b") && s.Groups["db"].Plan == nil {
		begin(s, "db", state.Plan{To: "b"})
		report(s, "db", state.StepStarted, nil)
	}
}

func TestQuarantinedNode(t *testing.T) {
	s := world(t)
	quarantined(s)
	if _, no := Admit(s, Ask{Kind: GroupMove, Group: "db", To: "a"}); no != nil {
		t.Errorf("who names the node is obeyed: %s", no)
	}
	apply(s, node("b", cluster.NodeDown, false))
	if e, no := Admit(s, Ask{Kind: GroupStart, Group: "db"}); no != nil || e.Commands[0].Begin.Plan.To != "a" {
		t.Errorf("no other node can run it: %v", no)
	}
	e, no := Admit(s, Ask{ID: "r1", Kind: NodeRelease, Node: "a"})
	if no != nil {
		t.Fatal(no)
	}
	if s.Apply(e); s.Nodes["a"].Quarantine != nil {
		t.Error("still quarantined")
	}
}

// worked has a maintenance begin; a node is drained.
func worked(n cluster.NodeName, g cluster.GroupName) func(*state.State) {
	return func(s *state.State) {
		m := state.Maintenance{Node: n, Group: g, Owner: "root", Reason: "patches", Until: time.Unix(1e9, 0), Drain: n != ""}
		apply(s, state.Command{Maintain: &state.Maintain{Key: m.Key(), Set: &m}})
	}
}

func TestMaintenance(t *testing.T) {
	s := world(t)
	on := Ask{ID: "r1", Kind: MaintainOn, Group: "web", Why: "patches", Author: "root", Wall: time.Unix(1000, 0)}
	for _, a := range []Ask{on, on, {ID: "r2", Kind: MaintainOn, Node: "b", Why: "disks", Drain: true, For: time.Hour, Wall: on.Wall}} {
		e, no := Admit(s, a)
		if no != nil {
			t.Fatal(no)
		}
		s.Apply(e)
	}
	is := s.Maintenances()
	if len(is) != 2 || is[0].Owner != "root" || is[0].Reason != "patches" || is[0].Until.Sub(on.Wall) != 8*time.Hour || !is[1].Drain || is[1].Until.Sub(on.Wall) != time.Hour {
		t.Errorf("%+v", is)
	}
	for _, a := range []Ask{{Kind: GroupRestart, Group: "web"}, {Kind: GroupMove, Group: "web"}, {Kind: GroupStop, Group: "web"}} {
		if _, no := Admit(s, a); no != nil {
			t.Errorf("who asks himself is obeyed: %s: %s", a.Kind, no)
		}
	}
	e, no := Admit(s, Ask{ID: "r3", Kind: MaintainOff, Group: "web"})
	if no != nil {
		t.Fatal(no)
	}
	if s.Apply(e); s.Suspended("web") != "" {
		t.Error("it goes on")
	}
}

func TestHeldGroup(t *testing.T) {
	s := world(t)
	held(s)
	for _, a := range []Ask{{Kind: GroupMove, Group: "web"}, {Kind: GroupFailover, Group: "web"}, {Kind: GroupStop, Group: "web"}, {Kind: GroupRestart, Group: "web", Auto: true}} {
		if _, no := Admit(s, a); no != nil {
			t.Errorf("%s (auto %v): %s", a.Kind, a.Auto, no)
		}
	}
	e, no := Admit(s, Ask{ID: "r1", Kind: GroupRelease, Group: "web"})
	if no != nil {
		t.Fatal(no)
	}
	s.Apply(e)
	if _, no := Admit(s, Ask{Kind: GroupFailover, Group: "web", Auto: true}); no != nil {
		t.Errorf("still refused after the release: %s", no)
	}
}

func TestLeaveAndReturn(t *testing.T) {
	s := world(t)
	admit := func(k Kind, n cluster.NodeName) *state.Node {
		t.Helper()
		e, no := Admit(s, Ask{ID: cluster.RequestID(string(k) + string(n)), Kind: k, Node: n, Why: "asked for", Wall: time.Unix(1, 0)})
		if no != nil {
			t.Fatalf("%s of %s: %s", k, n, no)
		}
		s.Apply(e)
		return s.Nodes[n]
	}
	if n := admit(NodeLeave, "c"); n.State != cluster.NodeLeft || n.Boot != "c1" {
		t.Errorf("who runs nothing leaves at once: %+v", n)
	}
	if n := admit(NodeLeave, "a"); n.State != cluster.NodeUp || !n.Leaving || s.Groups["web"].Owner != "a" {
		t.Errorf("who runs a group leaves when it has been moved: %+v", n)
	}
	if n := admit(NodeReturn, "a"); n.State != cluster.NodeUp || n.Leaving || s.Groups["web"].Owner != "a" {
		t.Errorf("called back: %+v", n)
	}
	if n := admit(NodeReturn, "c"); n.State != cluster.NodeUnknown || s.Up("c") { // up is who is heard
		t.Errorf("called back: %+v", n)
	}
}

func TestTokenIsGoodOnce(t *testing.T) {
	s := world(t)
	e, no := Admit(s, Ask{ID: "r1", Kind: Commands, Commands: []state.Command{{Token: &state.SetToken{ID: "t1", Token: &state.Token{Record: json.RawMessage(`{}`)}}}}})
	if no != nil {
		t.Fatal(no)
	}
	s.Apply(e)
	if e, no = Admit(s, Ask{ID: "r2", Kind: TokenUse, Token: "t1"}); no != nil {
		t.Fatal(no)
	}
	s.Apply(e)
	if _, no = Admit(s, Ask{ID: "r3", Kind: TokenUse, Token: "t1"}); no == nil || no.Code != "token-used" {
		t.Errorf("a second use: %v", no)
	}
}

func TestFilesThatMayCome(t *testing.T) {
	withoutC := strings.Replace(clusterFile, "  c: {addresses: [10.0.0.3]}\n", "", 1)
	tests := map[string]struct {
		in   func(s *state.State)
		text string
	}{
		"the same":                         {nil, clusterFile},
		"a comment":                        {nil, clusterFile + "comment: new\n"},
		"a group that is offline goes":     {nil, clusterFile[:strings.Index(clusterFile, "  db:")]},
		"a group that is offline changes":  {nil, strings.Replace(clusterFile, "base: {kind: exec, start: s.sh}", "base: {kind: exec, start: t.sh}", 1)},
		"a new group":                      {nil, clusterFile + "  mail: {resources: {smtp: {kind: exec, start: s.sh}}}\n"},
		"a new node":                       {nil, strings.Replace(clusterFile, "groups:", "  d: {addresses: [10.0.0.4]}\ngroups:", 1)},
		"a node that has left goes":        {func(s *state.State) { apply(s, node("c", cluster.NodeLeft, false)) }, withoutC},
		"a node that is down goes":         {func(s *state.State) { apply(s, node("c", cluster.NodeDown, false)) }, withoutC},
		"after it was stopped, it changes": {offline, strings.Replace(clusterFile, "10.0.0.10", "10.0.0.11", 1)},
		"other nodes in another order":     {nil, strings.Replace(clusterFile, "  web:\n    res", "  web:\n    nodes: [c, a]\n    res", 1)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := world(t)
			if tt.in != nil {
				tt.in(s)
			}
			ask := file(1, tt.text)
			ask.ID = "r1"
			e, no := Admit(s, ask)
			if no != nil {
				t.Fatalf("refused: %s (%s)", no, no.Code)
			}
			s.Apply(e)
			if a, _ := s.Answered("r1"); a.Err != nil || s.Config.Version != 2 || s.Config.Text != tt.text {
				t.Errorf("answered %+v, version %d", a, s.Config.Version)
			}
		})
	}
	if f, errs := config.Parse("f", []byte(clusterFile)); len(errs) > 0 || CheckChange(state.New(), f) != nil {
		t.Errorf("the first file of all: %v", errs)
	}
}

// TestLaws asks anything in any state: a refusal is well put and has no entry;
// what is admitted fits, is answered under its id, and takes no group from its
// owner by itself; asking reads only.
func TestLaws(t *testing.T) {
	start := world(t)
	admitted := 0
	rapid.Check(t, func(rt *rapid.T) {
		data, _ := start.Marshal()
		s, err := state.Unmarshal(data)
		if err != nil {
			rt.Fatal(err)
		}
		for _, in := range []func(*state.State){moving, offline, stuck, fallen, alone, counted, held, quarantined, worked("a", ""), worked("", "web")} {
			if rapid.SampledFrom([]bool{false, false, true}).Draw(rt, "in") && s.Groups["web"].Plan == nil && s.Groups["web"].Owner == "a" {
				in(s)
			}
		}
		a := Ask{ID: "r1",
			Kind:     rapid.SampledFrom([]Kind{GroupStart, GroupStop, GroupMove, GroupFailover, GroupRestart, GroupClear, GroupRelease, NodeRelease, MaintainOn, MaintainOff, NodeLeave, TokenUse, "dance"}).Draw(rt, "kind"),
			Group:    rapid.SampledFrom([]cluster.GroupName{"web", "web", "db", "mail", ""}).Draw(rt, "group"),
			Node:     rapid.SampledFrom([]cluster.NodeName{"a", "b", "c", "z"}).Draw(rt, "node"),
			To:       rapid.SampledFrom([]cluster.NodeName{"", "", "a", "b", "c", "z"}).Draw(rt, "to"),
			Count:    rapid.SampledFrom([]string{"", "check"}).Draw(rt, "count"),
			Limit:    rapid.IntRange(0, 3).Draw(rt, "limit"),
			Resource: rapid.SampledFrom([]cluster.ResourceName{"", "ip", "base"}).Draw(rt, "resource"),
		}
		a.Why = rapid.SampledFrom([]string{"", "patches"}).Draw(rt, "why")
		if a.Kind == MaintainOn || a.Kind == MaintainOff {
			a.Node = rapid.SampledFrom([]cluster.NodeName{"", "a"}).Draw(rt, "of")
		}
		a.Auto = rapid.Bool().Draw(rt, "auto")
		if a.Kind == GroupRestart && s.File().GroupOf(a.Resource) != s.File().Group(a.Group) {
			a.Resource = ""
		}
		before, _ := s.Marshal()
		e, no := Admit(s, a)
		if after, _ := s.Marshal(); string(after) != string(before) {
			rt.Fatal("asking changed something")
		}
		if no != nil {
			wellPut(t, no)
			if len(e.Commands) > 0 || e.Answer != nil {
				rt.Fatalf("refused with %s", e.Encode())
			}
			return
		}
		admitted++
		owners := map[cluster.GroupName]cluster.NodeName{"web": s.Groups["web"].Owner, "db": s.Groups["db"].Owner}
		s.Apply(e)
		if ans, known := s.Answered("r1"); !known || ans.Err != nil {
			rt.Fatalf("admitted, then answered %+v", ans)
		}
		for g, owner := range owners {
			if owner != "" && s.Groups[g].Owner != owner {
				rt.Fatalf("%+v took group %s from %s at once", a, g, owner)
			}
		}
	})
	if admitted < 10 {
		t.Errorf("only %d asks were admitted: the property says little", admitted)
	}
}

func TestRestartOfAResourceOfAnotherGroup(t *testing.T) {
	for _, r := range []cluster.ResourceName{"base", "nothing"} {
		if e, no := Admit(world(t), Ask{ID: "r1", Kind: GroupRestart, Group: "web", Resource: r}); no == nil {
			t.Errorf("admitted: %s", e.Encode())
		}
	}
}

func TestRestartOnALeavingNode(t *testing.T) {
	s := world(t)
	apply(s, node("a", cluster.NodeUp, true))
	e, no := Admit(s, Ask{ID: "r1", Kind: GroupRestart, Group: "web"})
	if no != nil {
		return
	}
	s.Apply(e)
	if a, _ := s.Answered("r1"); a.Err != nil {
		t.Errorf("admitted, then: %s (%s)", a.Err, a.Err.Code)
	}
}

func TestReturnOfWhoDidNotLeave(t *testing.T) {
	for _, st := range []cluster.NodeState{cluster.NodeDown, cluster.NodeUp} {
		s := world(t)
		apply(s, node("c", st, false))
		if e, no := Admit(s, Ask{ID: "r1", Kind: NodeReturn, Node: "c"}); no == nil {
			t.Errorf("%s: admitted: %s", st, e.Encode())
		}
	}
}

func TestFileThatWasNotSent(t *testing.T) {
	_, no := Admit(world(t), Ask{ID: "r1", Kind: ConfigApply})
	if no == nil {
		t.Fatal("admitted")
	}
	wellPut(t, no)
}

func TestFileThatTakesThePlansTarget(t *testing.T) {
	s := world(t)
	moving(s) // a to b
	e, no := Admit(s, file(1, strings.Replace(clusterFile, "  web:\n    res", "  web:\n    nodes: [a, c]\n    res", 1)))
	if no != nil {
		return
	}
	s.Apply(e)
	report(s, "web", state.StepStopped, nil)
	if gs := s.Groups["web"]; gs.Owner == "b" {
		t.Errorf("group web is %s on b, which is not in its list %v", gs.Phase, s.File().Group("web").Nodes)
	}
}

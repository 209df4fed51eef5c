package coordinator

import (
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/placement"
	"github.com/tasuki-ha/tasuki/internal/state"
)

func later(d time.Duration) View {
	v := all()
	v.Wall = noon.Add(d)
	return v
}

// failsOver has server fail where web is, and web go to the next node.
func failsOver(t *testing.T, s *state.State, v View, want string) {
	t.Helper()
	s.Groups["web"].Failovers = nil // the limits of the resource are not what is tested
	report(s, "web", state.StepFailed, "server", cluster.ResourceFailed)
	carry(t, s, v, want)
	report(s, "web", state.StepStopped, "", "")
	report(s, "web", state.StepStarted, "", "")
}

func TestHeld(t *testing.T) {
	s := running(t)
	failsOver(t, s, later(0), "web failover a>b (server)")
	failsOver(t, s, later(4*time.Minute), "web failover b>a (server)")
	failsOver(t, s, later(11*time.Minute), "web failover a>b (server)") // the first is too long ago
	decides(t, s, later(11*time.Minute), "")
	failsOver(t, s, later(12*time.Minute), "web failover b>a (server)")
	carry(t, s, later(12*time.Minute), "web held")
	if why := s.Groups["web"].Held.Why; why != "3 failovers in 10m" {
		t.Errorf("held because of %q", why)
	}
	s.Groups["web"].Failovers = map[string]int{"server": 1}
	report(s, "web", state.StepFailed, "server", cluster.ResourceFailed)
	decides(t, s, later(5*time.Hour), "") // neither a failover nor the final action
	v := silent(later(13*time.Minute), "a")
	carry(t, s, v, "a down")
	carry(t, s, v, "web takeover >b") // nothing runs, so a dead node's group is taken over
	report(s, "web", state.StepStarted, "", "")
	apply(s, state.Command{Hold: &state.Hold{Group: "web"}})
	failsOver(t, s, silent(later(14*time.Minute), "a"), "web failover b>c (server)")
}

func TestHeldGroupRestartsInPlaceAndDoesNotFailBack(t *testing.T) {
	s := running(t)
	s.Groups["web"].Held = &state.Held{Why: "so"}
	report(s, "web", state.StepFailed, "ip", cluster.ResourceFailed)
	decides(t, s, all(), "web restart a>a (ip/restart)")
	s = running(t)
	carry(t, s, silent(all(), "b"), "b down")
	carry(t, s, silent(all(), "b"), "db takeover >a")
	report(s, "db", state.StepStarted, "", "")
	s.Groups["db"].Held = &state.Held{Why: "so"}
	decides(t, s, all(), "b up")
}

func TestFileWithoutHoldReleases(t *testing.T) {
	s := running(t)
	s.Groups["web"].Held = &state.Held{Why: "so"}
	s.File().Group("web").Hold.Failovers = 0
	carry(t, s, all(), "web released")
	decides(t, s, all(), "")
}

func TestFailuresAgeOut(t *testing.T) {
	s := running(t)
	failsOver(t, s, later(0), "web failover a>b (server)")
	gs := s.Groups["web"]
	gs.Excluded, gs.Failed = map[cluster.NodeName]string{"c": "no"}, map[cluster.NodeName]time.Time{"c": noon.Add(time.Hour)}
	decides(t, s, later(24*time.Hour-1), "")
	carry(t, s, later(24*time.Hour), "web forgets")
	if len(gs.Failovers) != 0 || len(gs.Excluded) != 1 {
		t.Errorf("%+v", gs)
	}
	decides(t, s, later(24*time.Hour), "")
	report(s, "web", state.StepFailed, "server", cluster.ResourceFailed)
	for _, c := range Decide(s, later(26*time.Hour)) {
		if c.Forget != nil {
			t.Error("forgotten though it does not run well")
		}
	}
	report(s, "web", state.StepStarted, "", "")
	gs.Phase = cluster.PhaseOnline
	carry(t, s, later(26*time.Hour), "web forgets")
	s.File().Group("web").Forget = 0
	gs.Excluded, gs.Failed = map[cluster.NodeName]string{"c": "no"}, map[cluster.NodeName]time.Time{"c": noon}
	decides(t, s, later(1e6*time.Hour), "")
}

// TestClockThatGoesBack: what a clock of the day says decides when something is
// over, and nothing else.
func TestClockThatGoesBack(t *testing.T) {
	s := running(t)
	failsOver(t, s, later(0), "web failover a>b (server)")
	failsOver(t, s, later(-100*time.Hour), "web failover b>a (server)")
	if text := text(Decide(s, later(-100*time.Hour))); strings.Contains(text, "held") || strings.Contains(text, "forgets") {
		t.Error(text)
	}
}

// lose has node n be declared down and come back after a second.
func lose(t *testing.T, s *state.State, n cluster.NodeName, at time.Duration) []state.Command {
	t.Helper()
	v := silent(later(at), n)
	for range 3 {
		apply(s, Decide(s, v)...)
	}
	for _, g := range s.GroupNames() {
		report(s, g, state.StepStarted, "", "")
	}
	cmds := Decide(s, later(at+time.Second))
	apply(s, cmds...)
	return cmds
}

func TestQuarantined(t *testing.T) {
	s := running(t)
	for i, want := range []string{"b up", "b up", "b up", "b up, b quarantined"} {
		at := []time.Duration{0, 50, 100, 105}[i] * time.Minute
		if got := text(lose(t, s, "b", at)); i > 0 && got != want { // the first time db fails back
			t.Fatalf("return %d: %s, want %s", i+1, got, want)
		}
		if i == 0 {
			report(s, "db", state.StepStopped, "", "")
			report(s, "db", state.StepStarted, "", "")
			s.File().Group("db").Failback = "manual"
		}
	}
	s.File().Group("db").Failback = "auto"
	q := s.Nodes["b"].Quarantine
	if !strings.Contains(q.Why, "3 times within 1h") || q.Until.Sub(q.Since) != 2*time.Hour {
		t.Errorf("%+v", q)
	}
	v := later(106 * time.Minute)
	decides(t, s, v, "") // db, whose first choice is b, stays
	failsOver(t, s, v, "web failover a>c (server)")
	s.Groups["web"].Excluded = map[cluster.NodeName]string{"a": "no"}
	s.Groups["web"].Failovers = nil
	report(s, "web", state.StepFailed, "server", cluster.ResourceFailed)
	cmds := decides(t, s, v, "web failover c>b (server)") // better there than nowhere
	if why := cmds[0].Begin.Plan.Why; !strings.Contains(why, "quarantined") {
		t.Errorf("why: %s", why)
	}
	report(s, "web", state.StepStarted, "", "")
	s.Groups["web"].Phase = cluster.PhaseOnline
	decides(t, s, later(105*time.Minute+2*time.Hour), "")
	carry(t, s, later(105*time.Minute+2*time.Hour+time.Second), "b released, db move a>b")
}

func TestWhoIsNotQuarantined(t *testing.T) {
	for name, prepare := range map[string]func(s *state.State){
		"the file says never":    func(s *state.State) { s.File().Quarantine.Failures = 0 },
		"a witness":              func(s *state.State) { s.File().Node("c").Witness = true },
		"back from a leave":      func(s *state.State) { s.Nodes["c"].State, s.Nodes["c"].Daemon = cluster.NodeLeft, "other" },
		"lost over a long time":  func(s *state.State) { s.Nodes["c"].Losses[1] = noon.Add(-2 * time.Hour) },
		"lost not often enough":  func(s *state.State) { s.Nodes["c"].Losses = s.Nodes["c"].Losses[:2] },
		"already quarantined":    func(s *state.State) { s.Nodes["c"].Quarantine = &state.Quarantine{Until: noon.Add(time.Hour)} },
		"its daemon began again": func(s *state.State) { s.Nodes["c"].State, s.Nodes["c"].Daemon = cluster.NodeUp, "other" },
	} {
		s := running(t)
		s.Nodes["c"].State = cluster.NodeDown
		s.Nodes["c"].Losses = []time.Time{noon.Add(-4 * time.Hour), noon.Add(-20 * time.Minute), noon.Add(-10 * time.Minute), noon}
		prepare(s)
		if got := text(Decide(s, all())); got != "c up" {
			t.Errorf("%s: decided %s", name, got)
		}
	}
	s, v := running(t), all()
	s.Nodes["c"].Losses = []time.Time{noon, noon}
	v.Nodes["c"] = Seen{Alive: true, Boot: "c2", Daemon: "x"} // faster than anybody missed it
	decides(t, s, v, "c up, c quarantined")
}

func TestFileWithoutQuarantineReleases(t *testing.T) {
	s := running(t)
	s.Nodes["c"].Quarantine = &state.Quarantine{Until: noon.Add(time.Hour)}
	decides(t, s, all(), "")
	s.File().Quarantine.Failures = 0
	carry(t, s, all(), "c released")
	decides(t, s, all(), "")
}

func TestNodeThatResetItselfTwiceIsGivenNothing(t *testing.T) {
	s, v := running(t), all()
	back := func(boot, daemon string, resets int) {
		v.Nodes["c"] = Seen{Alive: true, Boot: boot, Daemon: daemon, Resets: resets}
	}
	back("c2", "x", 1)
	carry(t, s, v, "c up")
	s.File().Quarantine.Failures = 0 // it is not about how often others miss it
	back("c3", "x", 2)
	carry(t, s, v, "c up, c quarantined")
	v.Wall = v.Wall.Add(1000 * time.Hour)
	decides(t, s, v, "")
	g := s.File().Group("web")
	g.Nodes = []cluster.NodeName{"c"}
	if c := placement.Choose(s, g, ""); c.Node != "" || c.LastResort != "" || placement.Able(s, g, "c") {
		t.Errorf("it is given a group, be it the last resort: %+v", c)
	}
	s.Apply(state.Entry{Commands: []state.Command{{Quarantine: &state.SetQuarantine{Node: "c"}}}})
	if c := placement.Choose(s, g, ""); c.Node != "c" {
		t.Errorf("it is released and given nothing: %+v", c)
	}
	back("c3", "y", 2) // its daemon starts anew
	carry(t, s, v, "c up")
	back("c4", "z", 3)
	carry(t, s, v, "c up, c quarantined")
}

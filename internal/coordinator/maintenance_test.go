package coordinator

import (
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

func maintain(s *state.State, m state.Maintenance) {
	m.Owner, m.Reason, m.Since = "root", "patches", noon
	if m.Until.IsZero() {
		m.Until = noon.Add(1e6 * time.Hour)
	}
	apply(s, state.Command{Maintain: &state.Maintain{Key: m.Key(), Set: &m}})
}

func TestNodeInMaintenance(t *testing.T) {
	s := running(t)
	maintain(s, state.Maintenance{Node: "b"})
	decides(t, s, all(), "") // db stays there
	carry(t, s, silent(all(), "a"), "a down")
	cmds := Decide(s, silent(all(), "a"))
	if got := text(cmds); got != "web takeover >c" {
		t.Errorf("decided %s", got)
	}
	apply(s, cmds...)
	report(s, "web", state.StepStarted, "", "")
	carry(t, s, silent(silent(all(), "a"), "c"), "c down")
	decides(t, s, silent(silent(all(), "a"), "c"), "") // not even where no other node is left
}

func TestDrain(t *testing.T) {
	s := running(t)
	maintain(s, state.Maintenance{Node: "b", Drain: true})
	carry(t, s, all(), "db move b>a")
	report(s, "db", state.StepStopped, "", "")
	report(s, "db", state.StepStarted, "", "")
	decides(t, s, all(), "")
	s = running(t)
	maintain(s, state.Maintenance{Node: "b", Drain: true})
	maintain(s, state.Maintenance{Node: "a"})
	decides(t, s, all(), "") // no other node can take it: it goes on
	s = running(t)
	report(s, "db", state.StepStopFailed, "base", cluster.ResourceStopFailed)
	s.Groups["db"].Phase = cluster.PhaseFailed
	maintain(s, state.Maintenance{Node: "b", Drain: true})
	decides(t, s, all(), "") // it may still run there
}

func TestGroupInMaintenance(t *testing.T) {
	s := running(t)
	maintain(s, state.Maintenance{Group: "web"})
	report(s, "web", state.StepFailed, "server", cluster.ResourceFailed)
	decides(t, s, all(), "")
	carry(t, s, silent(all(), "a"), "a down")
	decides(t, s, silent(all(), "a"), "")
	carry(t, s, all(), "a up")
	decides(t, s, all(), "")
	s.Maintenance = nil
	decides(t, s, all(), "web start >a")
	for _, m := range []state.Maintenance{{Group: "web"}, {}} { // a leave is asked for by somebody
		s = running(t)
		maintain(s, m)
		apply(s, state.Command{Node: &state.SetNode{Name: "a", State: cluster.NodeUp, Boot: "a1", Daemon: "ad", Leaving: true}})
		decides(t, s, all(), "web move a>b")
	}
}

func TestClusterInMaintenance(t *testing.T) {
	s := running(t)
	maintain(s, state.Maintenance{})
	carry(t, s, silent(all(), "b"), "b down")
	decides(t, s, silent(all(), "b"), "")
	v := all()
	v.Nodes["b"] = Seen{Alive: true, Boot: "b2", Daemon: "x"}
	carry(t, s, v, "b up")
	carry(t, s, v, "db start >b") // where it ran
	report(s, "db", state.StepStarted, "", "")
	v.Nodes["a"] = Seen{Alive: true, Boot: "a2", Daemon: "x"}
	carry(t, s, v, "a up") // no takeover by who lived on
	decides(t, s, v, "web start >a")
	s = running(t)
	maintain(s, state.Maintenance{})
	report(s, "web", state.StepFailed, "server", cluster.ResourceFailed)
	decides(t, s, all(), "")
	s.Maintenance = nil
	decides(t, s, all(), "web failover a>b (server)")
}

func TestNoFailbackInMaintenance(t *testing.T) {
	for _, m := range []state.Maintenance{{Node: "b"}, {Group: "db"}, {}} {
		s := running(t)
		carry(t, s, silent(all(), "b"), "b down")
		carry(t, s, silent(all(), "b"), "db takeover >a")
		report(s, "db", state.StepStarted, "", "")
		maintain(s, m)
		decides(t, s, all(), "b up")
	}
}

func TestMaintenanceEnds(t *testing.T) {
	s := running(t)
	maintain(s, state.Maintenance{Node: "b", Until: noon.Add(time.Hour)})
	maintain(s, state.Maintenance{Group: "web", Until: noon.Add(5 * time.Minute)}) // too short for a warning
	decides(t, s, later(4*time.Minute), "")
	carry(t, s, later(5*time.Minute), "group/web ends")
	decides(t, s, later(49*time.Minute), "")
	carry(t, s, later(50*time.Minute), "node/b warned")
	decides(t, s, later(50*time.Minute), "")
	carry(t, s, later(time.Hour), "node/b ends")
	if len(s.Maintenance) > 0 {
		t.Errorf("%+v", s.Maintenance)
	}
	if got := text(Decide(s, later(-time.Hour))); strings.Contains(got, "ends") {
		t.Error(got)
	}
}

// TestRecheckIsWaitedFor: what the owner looks at anew is not acted on before it
// has told what it found, or has had the time to.
func TestRecheckIsWaitedFor(t *testing.T) {
	s := running(t)
	report(s, "web", state.StepFailed, "server", cluster.ResourceFailed)
	s.Groups["web"].Recheck = noon
	decides(t, s, later(0), "")
	decides(t, s, later(time.Minute-1), "")
	decides(t, s, later(time.Minute), "web failover a>b (server)")
	decides(t, s, later(-time.Hour), "web failover a>b (server)")
}

package recovery

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

var bad = Event{Kind: Bad, Code: 20, Text: "NIC vmnic1 link was down."}

func ladder(r config.Recovery) *Ladder {
	return New(Settings{Monitor: "miiw-vmnic1", Target: config.Target{Group: "failover"}, Recovery: r, Nodes: 2})
}

// want fails unless the decision is that rung with that script, and says why.
func want(t *testing.T, d Decision, do Rung, script string) {
	t.Helper()
	if d.Do != do || d.Script != script {
		t.Fatalf("decided %q with script %q, want %q with %q; why: %s", d.Do, d.Script, do, script, d.Why)
	}
	if d.Why == "" {
		t.Fatal("a decision without a reason")
	}
}

func TestReferenceLadder(t *testing.T) {
	l := New(Settings{Monitor: "miiw-vmnic1", Target: config.Target{Cluster: true},
		Recovery: config.Recovery{FinalAction: cluster.ActionNone, BeforeFinal: "preaction.sh", ScriptTimeout: time.Minute}})
	for episode := range 3 {
		now := cluster.Instant(episode) * cluster.Instant(time.Second)
		d := l.Step(now, bad)
		want(t, d, FinalAction, "preaction.sh")
		if d.Final != cluster.ActionNone || d.Do.Action() != "FINALACTION" || d.Timeout != time.Minute || !d.Target.Cluster || d.Rehearsal {
			t.Errorf("%+v", d)
		}
		want(t, l.Step(now, bad), Nothing, "") // while the script runs
		want(t, l.Step(now, Event{Kind: Done, Still: true}), Nothing, "")
		want(t, l.Step(now, bad), Nothing, "")
		want(t, l.Step(now, Event{Kind: Good}), Nothing, "")
	}
}

func TestFullLadder(t *testing.T) {
	l := ladder(config.Recovery{
		Scripts: 2, Restarts: 2, Failovers: 1, FinalAction: cluster.ActionReboot,
		Script: "recover.sh", BeforeRestart: "r.sh", BeforeFailover: "f.sh", BeforeFinal: "preaction.sh",
	})
	rungs := []struct {
		do     Rung
		script string
		action string
		count  Counters
	}{
		{RunScript, "recover.sh", "RECOVERY", Counters{1, 0, 0, false}},
		{RunScript, "recover.sh", "RECOVERY", Counters{2, 0, 0, false}},
		{RestartTarget, "r.sh", "RESTART", Counters{2, 1, 0, false}},
		{RestartTarget, "r.sh", "RESTART", Counters{2, 2, 0, false}},
		{FailoverTarget, "f.sh", "FAILOVER", Counters{2, 2, 1, false}},
		{FinalAction, "preaction.sh", "FINALACTION", Counters{2, 2, 1, true}},
	}
	for i, r := range rungs {
		d := l.Step(0, bad)
		want(t, d, r.do, r.script)
		if d.Counters != r.count || d.Do.Action() != r.action {
			t.Errorf("rung %d: %+v %s", i, d.Counters, d.Do.Action())
		}
		want(t, l.Step(0, Event{Kind: Done}), Nothing, "") // not told that it is still bad: wait for a probe
	}
	want(t, l.Step(0, bad), Nothing, "")
}

func TestStillBadClimbsAtOnce(t *testing.T) {
	l := ladder(config.Recovery{Restarts: 2, FinalAction: cluster.ActionStopGroup})
	want(t, l.Step(0, bad), RestartTarget, "")
	want(t, l.Step(1, Event{Kind: Done, Still: true}), RestartTarget, "")
	d := l.Step(2, Event{Kind: Done, Still: true})
	want(t, d, FinalAction, "")
	if d.Final != cluster.ActionStopGroup {
		t.Errorf("final action %s", d.Final)
	}
}

func TestGoodWhileARungRuns(t *testing.T) {
	l := ladder(config.Recovery{Restarts: 3})
	want(t, l.Step(0, bad), RestartTarget, "")
	want(t, l.Step(1, Event{Kind: Good}), Nothing, "")
	want(t, l.Step(2, Event{Kind: Done, Still: true}), Nothing, "")
	if l.Running() != Nothing || l.Counters().Restarts != 1 {
		t.Errorf("running %q, %+v", l.Running(), l.Counters())
	}
}

func TestCountersHeal(t *testing.T) {
	min := func(n int) cluster.Instant { return cluster.Instant(time.Duration(n) * time.Minute) }
	l := ladder(config.Recovery{Restarts: 1, BeforeFinal: "preaction.sh"})
	want(t, l.Step(min(0), bad), RestartTarget, "")
	l.Step(min(0), Event{Kind: Done})
	l.Step(min(1), Event{Kind: Good})
	want(t, l.Step(min(10), bad), FinalAction, "preaction.sh") // good for 9 minutes: the restart stays used up
	l.Step(min(10), Event{Kind: Done})
	l.Step(min(11), Event{Kind: Good})
	if when, ok := l.Next(); !ok || when != min(21) {
		t.Fatalf("next %v %v", when, ok)
	}
	if l.Tick(min(21)-1) || !l.Tick(min(21)) || l.Tick(min(22)) {
		t.Error("healed at the wrong time")
	}
	want(t, l.Step(min(30), bad), RestartTarget, "")
}

func TestFailoverRefused(t *testing.T) {
	l := ladder(config.Recovery{Failovers: 5, BeforeFinal: "preaction.sh"})
	want(t, l.Step(0, bad), FailoverTarget, "")
	d := l.Step(0, Event{Kind: Done, Still: true, Refused: "no other node is up"})
	want(t, d, FinalAction, "preaction.sh")
	if !strings.Contains(d.Why, "no other node is up") || d.Counters.Failovers != 0 {
		t.Errorf("%+v", d)
	}
	l.Step(0, Event{Kind: Done})
	l.Step(1, Event{Kind: Good})
	want(t, l.Step(2, bad), FailoverTarget, "") // tried again in the next trouble
	l.Clear()
	l.Step(3, Event{Kind: Done, Refused: "no other node is up"})
	if l.Counters().Failovers != 0 {
		t.Errorf("%+v", l.Counters())
	}
}

func TestAsManyFailoversAsNodes(t *testing.T) {
	l := ladder(config.Recovery{Failovers: config.AsManyAsNodes})
	for range 2 {
		want(t, l.Step(0, bad), FailoverTarget, "")
		l.Step(0, Event{Kind: Done})
	}
	want(t, l.Step(0, bad), Nothing, "")
	if !l.Counters().FinalDone {
		t.Error("a ladder whose final action is none and has no script is not at its top")
	}
}

func TestClear(t *testing.T) {
	l := ladder(config.Recovery{Restarts: 1})
	want(t, l.Step(0, bad), RestartTarget, "")
	l.Step(0, Event{Kind: Done})
	want(t, l.Step(0, bad), Nothing, "")
	l.Clear()
	want(t, l.Step(0, bad), RestartTarget, "")
}

func TestRehearsal(t *testing.T) {
	l := ladder(config.Recovery{Restarts: 1, Failovers: 1, FinalAction: cluster.ActionNone, BeforeFinal: "preaction.sh"})
	l.Step(0, bad)
	l.Step(0, Event{Kind: Done})
	l.Step(1, Event{Kind: Good})
	before := l.Counters()
	next := Event{Kind: Rehearse}
	for _, do := range []Rung{RestartTarget, FailoverTarget, FinalAction} {
		d := l.Step(2, next)
		if d.Do != do || !d.Rehearsal || !strings.Contains(d.Text("miiw-vmnic1"), "(rehearsal)") {
			t.Fatalf("%+v, want %s", d, do)
		}
		want(t, l.Step(2, Event{Kind: Rehearse}), Nothing, "")
		next = Event{Kind: Done}
	}
	want(t, l.Step(3, next), Nothing, "")
	if l.Rehearsal() || l.Counters() != before {
		t.Errorf("after the rehearsal: %+v, before: %+v", l.Counters(), before)
	}
}

func TestRehearsalEndsEarly(t *testing.T) {
	l := ladder(config.Recovery{Restarts: 3})
	want(t, l.Step(0, Event{Kind: EndRehearsal}), Nothing, "")
	want(t, l.Step(0, Event{Kind: Rehearse}), RestartTarget, "")
	want(t, l.Step(1, Event{Kind: EndRehearsal}), Nothing, "")
	want(t, l.Step(2, Event{Kind: Done}), Nothing, "")
	if (l.Counters() != Counters{}) {
		t.Errorf("%+v", l.Counters())
	}
}

func TestRealTroubleTakesARehearsalOver(t *testing.T) {
	l := ladder(config.Recovery{Restarts: 2})
	want(t, l.Step(0, Event{Kind: Rehearse}), RestartTarget, "")
	want(t, l.Step(1, bad), Nothing, "")
	want(t, l.Step(1, Event{Kind: Rehearse}), Nothing, "")
	d := l.Step(2, Event{Kind: Done, Still: true})
	want(t, d, RestartTarget, "")
	if d.Rehearsal || d.Counters.Restarts != 2 {
		t.Errorf("%+v", d)
	}
}

func TestTexts(t *testing.T) {
	if got := Detected("miiw-vmnic1", 20, "NIC vmnic1 link was down."); got != "Detected an error in monitoring miiw-vmnic1. (20 : NIC vmnic1 link was down.)" {
		t.Error(got)
	}
	d := ladder(config.Recovery{BeforeFinal: "preaction.sh"}).Step(0, bad)
	if got := d.Text("miiw-vmnic1"); got != "Recovery of miiw-vmnic1 by final action: miiw-vmnic1 is bad (20 : NIC vmnic1 link was down.); the file asks for no restart and no failover, so the script preaction.sh and then the final action none." {
		t.Error(got)
	}
}

// TestLaws lets anything happen in any order and checks what must always hold.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := config.Recovery{
			Scripts:   rapid.IntRange(0, 2).Draw(rt, "scripts"),
			Restarts:  rapid.IntRange(0, 2).Draw(rt, "restarts"),
			Failovers: rapid.IntRange(-1, 2).Draw(rt, "failovers"),
			Script:    "s.sh", BeforeFinal: rapid.SampledFrom([]string{"", "preaction.sh"}).Draw(rt, "before"),
			FinalAction: rapid.SampledFrom([]cluster.FinalAction{"", cluster.ActionNone, cluster.ActionReboot}).Draw(rt, "final"),
		}
		l, now := ladder(r), cluster.Instant(0)
		finals, running := 0, false // finals since the last good, clear or rehearsal
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(rt, "dt")) * time.Second)
			if rapid.IntRange(0, 20).Draw(rt, "clear") == 0 {
				l.Clear()
				finals = 0
			}
			ev := Event{Kind: rapid.SampledFrom([]Kind{Bad, Bad, Good, Done, Done, Rehearse, EndRehearsal}).Draw(rt, "event"), Still: rapid.Bool().Draw(rt, "still")}
			if rapid.IntRange(0, 4).Draw(rt, "refused") == 0 {
				ev.Refused = "no other node is up"
			}
			d := l.Step(now, ev)
			if ev.Kind == Good || ev.Kind == Rehearse || ev.Kind == EndRehearsal || d.Rehearsal {
				finals = 0
			}
			if ev.Kind == Done {
				running = false
			}
			if d.Do != Nothing {
				if running {
					rt.Fatalf("%s decided while another rung runs", d.Do)
				}
				running = true
			}
			if d.Do == FinalAction && !d.Rehearsal {
				if finals++; finals > 1 {
					rt.Fatal("a second final action in one trouble")
				}
			}
			checkCounters(rt, r, l.Counters())
			if d.Why == "" || d.Do == FinalAction && d.Final == cluster.ActionNone && d.Script == "" {
				rt.Fatalf("%+v", d)
			}
		}
	})
}

func checkCounters(rt *rapid.T, r config.Recovery, c Counters) {
	failovers := r.Failovers
	if failovers == config.AsManyAsNodes {
		failovers = 2
	}
	if c.Scripts < 0 || c.Scripts > r.Scripts || c.Restarts < 0 || c.Restarts > r.Restarts || c.Failovers < 0 || c.Failovers > failovers {
		rt.Fatalf("counters %+v are outside of %+v", c, r)
	}
}

package verdict

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func at(ms int) cluster.Instant { return cluster.Instant(time.Duration(ms) * time.Millisecond) }

// step is one call in a story: a probe at that millisecond, or a tick.
type step struct {
	ms   int
	do   string // good, bad, tick, suspend, resume
	want cluster.Verdict
}

func TestStories(t *testing.T) {
	ms := time.Millisecond
	stories := map[string]struct {
		set   Settings
		steps []step
		flaps int
	}{
		"bad at once": {Settings{}, []step{
			{0, "tick", "unknown"}, {1, "good", "good"}, {2, "bad", "bad"}, {3, "bad", "bad"}, {4, "good", "good"},
		}, 0},
		"a node that starts with the cable out": {Settings{Debounce: 100 * ms}, []step{
			{0, "bad", "suspect"}, {99, "tick", "suspect"}, {100, "tick", "bad"},
		}, 0},
		"a flap shorter than the debounce": {Settings{Debounce: 100 * ms}, []step{
			{0, "good", "good"}, {10, "bad", "suspect"}, {109, "good", "good"}, {110, "tick", "good"},
			{120, "bad", "suspect"}, {210, "tick", "suspect"}, {220, "tick", "bad"},
		}, 1},
		"repeated bad news do not prolong the debounce": {Settings{Debounce: 100 * ms}, []step{
			{0, "bad", "suspect"}, {60, "bad", "suspect"}, {100, "bad", "bad"},
		}, 0},
		"retries": {Settings{Retries: 2}, []step{
			{0, "bad", "suspect"}, {10, "bad", "suspect"}, {20, "bad", "bad"},
		}, 0},
		"retries begin anew after a good probe": {Settings{Retries: 1}, []step{
			{0, "bad", "suspect"}, {10, "good", "good"}, {20, "bad", "suspect"}, {30, "bad", "bad"},
		}, 1},
		"retries and debounce both hold": {Settings{Retries: 1, Debounce: 100 * ms}, []step{
			{0, "bad", "suspect"}, {100, "tick", "suspect"}, {150, "bad", "bad"},
		}, 0},
		"the wait keeps the latest only": {Settings{Wait: 50 * ms}, []step{
			{0, "bad", "unknown"}, {10, "good", "unknown"}, {20, "bad", "unknown"}, {49, "tick", "unknown"}, {50, "tick", "bad"},
		}, 0},
		"a late tick does not lose what was held": {Settings{Wait: 50 * ms, Retries: 1}, []step{
			{0, "bad", "unknown"}, {60, "bad", "bad"},
		}, 0},
		"suspended, then still bad": {Settings{Debounce: 100 * ms}, []step{
			{0, "good", "good"}, {5, "suspend", "suspended"}, {10, "bad", "suspended"}, {500, "tick", "suspended"},
			{1000, "resume", "suspect"}, {1099, "tick", "suspect"}, {1100, "tick", "bad"},
		}, 0},
		"suspended while bad, then good": {Settings{}, []step{
			{0, "bad", "bad"}, {5, "suspend", "suspended"}, {10, "good", "suspended"}, {20, "resume", "good"},
		}, 0},
		"resumed with nothing ever seen": {Settings{}, []step{
			{0, "suspend", "suspended"}, {5, "resume", "unknown"}, {6, "good", "good"},
		}, 0},
	}
	for name, s := range stories {
		t.Run(name, func(t *testing.T) {
			tr := New(0, s.set)
			for i, st := range s.steps {
				before := tr.Verdict()
				changed := apply(tr, st)
				if got := tr.Verdict(); got != st.want {
					t.Fatalf("step %d (%s at %d ms): %s, want %s", i, st.do, st.ms, got, st.want)
				}
				if changed != (before != tr.Verdict()) {
					t.Fatalf("step %d (%s at %d ms): changed=%v but %s became %s", i, st.do, st.ms, changed, before, tr.Verdict())
				}
			}
			if tr.Flaps() != s.flaps {
				t.Errorf("%d flaps, want %d", tr.Flaps(), s.flaps)
			}
		})
	}
}

func apply(tr *Tracker, s step) bool {
	switch s.do {
	case "good":
		return tr.Probe(at(s.ms), true, 0, "")
	case "bad":
		return tr.Probe(at(s.ms), false, 20, "NIC vmnic1 link was down.")
	case "suspend":
		return tr.Suspend()
	case "resume":
		return tr.Resume(at(s.ms))
	}
	return tr.Tick(at(s.ms))
}

func TestTextFollowsTheLatestProbe(t *testing.T) {
	tr := New(0, Settings{Debounce: time.Second})
	tr.Probe(1, false, 20, "down")
	if tr.Code() != 20 || tr.Text() != "down" {
		t.Errorf("%d %q", tr.Code(), tr.Text())
	}
	tr.Probe(2, false, 21, "gone")
	if tr.Code() != 21 || tr.Text() != "gone" {
		t.Errorf("%d %q", tr.Code(), tr.Text())
	}
	tr.Probe(3, true, 7, "never shown")
	if tr.Code() != 0 || tr.Text() != "" {
		t.Errorf("%d %q", tr.Code(), tr.Text())
	}
}

// TestAgainstDefinition compares the tracker with the rule as it is written,
// computed anew from the whole history after every step.
func TestAgainstDefinition(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		set := Settings{
			Retries:  rapid.IntRange(0, 3).Draw(rt, "retries"),
			Debounce: time.Duration(rapid.IntRange(0, 50).Draw(rt, "debounce")),
		}
		tr := New(0, set)
		var now cluster.Instant
		var seen []seenProbe
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			target := now.Add(time.Duration(rapid.IntRange(0, 30).Draw(rt, "dt")))
			for { // a caller that keeps its appointments
				when, ok := tr.Next()
				if !ok || when > target {
					break
				}
				tr.Tick(when)
				if again, still := tr.Next(); still && again <= when {
					rt.Fatalf("Next asks for %v again after Tick at %v", again, when)
				}
			}
			now = target
			good := rapid.Bool().Draw(rt, "good")
			tr.Probe(now, good, 1, "x")
			seen = append(seen, seenProbe{now, good})
			if got, want := tr.Verdict(), definition(set, now, seen); got != want {
				rt.Fatalf("after %v at %v: %s, want %s", seen, now, got, want)
			}
		}
	})
}

type seenProbe struct {
	at   cluster.Instant
	good bool
}

func definition(set Settings, now cluster.Instant, seen []seenProbe) cluster.Verdict {
	last := len(seen) - 1
	if seen[last].good {
		return cluster.VerdictGood
	}
	first := last
	for first > 0 && !seen[first-1].good {
		first--
	}
	if last-first+1 > set.Retries && now.Sub(seen[first].at) >= set.Debounce {
		return cluster.VerdictBad
	}
	return cluster.VerdictSuspect
}

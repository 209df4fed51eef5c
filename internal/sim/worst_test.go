package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lease"
)

// TestWorstCase holds what config check tells of the lease rule against worlds:
// the owner dies, hears nothing any more, or is cut off, at any moment.
func TestWorstCase(t *testing.T) {
	for name, text := range map[string]string{
		"witness": pairAndWitness, "three": trio,
		"ping": pairWith("{ping: {targets: [10.2.102.1]}}"), "none": pairWith("none"),
	} {
		for _, profile := range []string{"fast", "default", "steady"} {
			for _, how := range []string{"crash", "deaf", "off"} {
				if name == "none" && how == "deaf" {
					continue // it goes on
				}
				t.Run(fmt.Sprintf("%s/%s/%s", name, profile, how), func(t *testing.T) {
					t.Parallel()
					text := strings.ReplaceAll(text, "PROFILE", profile)
					for seed := range uint64(6) {
						checkWorst(t, text, how, seed)
					}
				})
			}
		}
	}
}

func checkWorst(t *testing.T, text, how string, seed uint64) {
	t.Helper()
	w, err := NewWorld(text, seed)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range w.names {
		if err := w.Boot(n); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	w.Run(20*time.Second + time.Duration(rng.Int64N(int64(2*time.Second))))
	owner, group := w.names[0], w.file.Groups[0].Name
	if got := w.Owners(group); len(got) != 1 || got[0] != owner {
		t.Fatalf("seed %d: before, the group is on %v\n%s", seed, got, Lines(w))
	}
	want := lease.Worst(w.file)
	latest := want.Latest
	w.shared = true
	switch how {
	case "crash":
		w.Crash(owner)
	case "deaf":
		latest = want.Deaf
		w.pings[owner] = false
		for _, n := range w.names[1:] {
			w.Cut(n, owner, -1)
		}
	case "off":
		w.pings[owner] = false
		w.cutOff(owner, true)
	}
	began := w.agenda.Now()
	harmless, taken := time.Duration(0), time.Duration(0)
	for taken == 0 && w.agenda.Now()-began < 2*latest {
		w.Run(time.Millisecond)
		here := false
		for _, n := range w.Owners(group) {
			here = here || n == owner
			if n != owner {
				taken = w.agenda.Now() - began
			}
		}
		if !here && harmless == 0 {
			harmless = w.agenda.Now() - began
		}
	}
	slack := 3 * time.Millisecond // the way of a heartbeat, and the steps of this test
	soonest := want.Earliest - lease.Pace(w.file.Timing) - w.file.Timing.Heartbeat
	if taken == 0 || taken > latest+slack || taken < soonest {
		t.Errorf("seed %d: taken over after %s, not within %s to %s\n%s", seed, taken, soonest, latest, Lines(w))
	}
	if alone := want.Rules == "none"; !alone && (harmless == 0 || harmless > want.Harmless+slack || harmless > taken) {
		t.Errorf("seed %d: harmless after %s, taken over after %s, want %s", seed, harmless, taken, want.Harmless)
	}
}

package sim

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestOneNetworkIsEnough cuts every network but one between any two nodes, in one
// direction or both, now this one and now that: nothing isolates, nothing is
// declared down, nothing moves, no leader is lost.
func TestOneNetworkIsEnough(t *testing.T) {
	for name, text := range map[string]string{"witness": pairAndWitness, "three": trio, "ping": pairWith("{ping: {targets: [10.2.102.1]}}")} {
		for _, profile := range []string{"default", "fast"} {
			t.Run(name+"/"+profile, func(t *testing.T) {
				t.Parallel()
				for seed := range uint64(5) {
					cutAllButOne(t, strings.ReplaceAll(text, "PROFILE", profile), seed)
				}
			})
		}
	}
}

func cutAllButOne(t *testing.T, text string, seed uint64) {
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
	w.Run(20 * time.Second)
	before, lead := len(w.Log), w.nodes[w.names[0]].machine.Status().Leader
	rng := rand.New(rand.NewPCG(seed, 2))
	for range 60 {
		for _, a := range w.names {
			for _, b := range w.names {
				w.Heal(a, b, -1)
			}
		}
		w.Run(redialWithin + 200*time.Millisecond) // the one that goes on works before the other goes
		for i, a := range w.names {
			for _, b := range w.names[i+1:] {
				lost := rng.IntN(2)
				if way := rng.IntN(4); way != 0 {
					w.setCut(a, b, lost, way&1 != 0)
					w.setCut(b, a, lost, way&2 != 0)
				}
			}
		}
		w.Run(time.Duration(rng.Int64N(int64(6 * time.Second))))
	}
	for _, e := range w.Log[before:] {
		if !strings.HasPrefix(e.Code, "path-") {
			t.Errorf("seed %d: %s %s", seed, e.Node, e.Text)
		}
	}
	if now := w.nodes[w.names[0]].machine.Status().Leader; now != lead || lead == "" {
		t.Errorf("seed %d: leader %q, then %q", seed, lead, now)
	}
}

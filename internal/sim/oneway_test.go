package sim

import (
	"strings"
	"testing"
	"time"
)

// TestOneWayKeepsALeader loses one direction between two nodes, on every network,
// for a minute: leadership may be handed over once, to who hears more, and stays
// there. Nobody campaigns it away again and again.
func TestOneWayKeepsALeader(t *testing.T) {
	for name, text := range map[string]string{"witness": pairAndWitness, "three": trio, "five": five} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.ReplaceAll(text, "PROFILE", "default")
			w, err := NewWorld(text, 1)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range w.names {
				if err := w.Boot(n); err != nil {
					t.Fatal(err)
				}
			}
			w.Run(20 * time.Second)
			for _, a := range w.names[:3] {
				for _, b := range w.names[:3] {
					if a == b {
						continue
					}
					before := len(w.Log)
					w.Cut(a, b, -1)
					lead, changes := w.nodes[b].machine.Status().Leader, 0
					for range 600 {
						w.Run(100 * time.Millisecond)
						if now := w.nodes[b].machine.Status().Leader; now != lead {
							lead, changes = now, changes+1
						}
					}
					w.Heal(a, b, -1)
					w.Run(5 * time.Second)
					if changes > 2 { // none while it is handed over
						t.Errorf("%s to %s lost: %s saw the leader change %d times", a, b, b, changes)
					}
					for _, e := range w.Log[before:] {
						if !strings.HasPrefix(e.Code, "path-") {
							t.Errorf("%s to %s lost: %s %s", a, b, e.Node, e.Text)
						}
					}
				}
			}
		})
	}
}

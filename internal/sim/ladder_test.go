package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Where a stop stands on its ladder is seen on every node while it is under way.
func TestStatusShowsTheLadder(t *testing.T) {
	w, err := NewWorld(strings.ReplaceAll(stopping, "PROFILE", "default"), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range w.names {
		if err := w.Boot(n); err != nil {
			t.Fatal(err)
		}
	}
	w.Run(8 * time.Second)
	w.behave["www stop"] = behavior{takes: time.Second, fails: 1}
	w.behave["www force"] = behavior{takes: time.Second}
	w.Ask("n1", admission.Ask{Kind: admission.GroupMove, Group: "web", To: "n2"})
	shown := func(at cluster.NodeName) (rung, next string) {
		for _, g := range w.nodes[at].machine.Status().Groups {
			for _, r := range g.Resources {
				if r.Name == "www" {
					return r.Rung, r.Next
				}
			}
		}
		return "", ""
	}
	w.Run(500 * time.Millisecond)
	if rung, next := shown("n1"); rung != "stop" || next != "force, then isolate, then reboot" {
		t.Errorf("at first: %q, next %q", rung, next)
	}
	w.Run(time.Second)
	for _, n := range w.names {
		if rung, next := shown(n); rung != "force" || next != "isolate, then reboot" {
			t.Errorf("%s, later: %q, next %q", n, rung, next)
		}
	}
	w.Run(2 * time.Second)
	if owners := w.Owners("web"); len(owners) != 1 || owners[0] != "n2" {
		t.Errorf("active on %v", owners)
	}
	if rung, next := shown("n2"); rung != "" || next != "" {
		t.Errorf("in the end: %q, next %q", rung, next)
	}
}

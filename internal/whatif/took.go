package whatif

import (
	"strconv"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Errand is a question that one process hands to another, which only thinks: all
// that it has to know is in it.
type Errand struct {
	Asked    api.SimulateRequest `json:"asked"`
	Snapshot api.Snapshot        `json:"snapshot"`
	Log      []api.Event         `json:"log"` // at least those of which Tells says so, the oldest first
}

// Outcome is what comes back of an errand: one of them.
type Outcome struct {
	Simulation *api.Simulation `json:"simulation,omitempty"`
	Error      *api.Error      `json:"error,omitempty"`
}

// Tells returns how long a step took, if that is what an event of the log tells.
func Tells(e *api.Event) (Step, time.Duration, bool) {
	at := Step{Resource: cluster.ResourceName(e.Fields["resource"])}
	switch e.Code {
	case "resource-started":
		at.What = Start
	case "resource-stopped":
		at.What = Stop
	case "resource-forced":
		at.What = Force
	case "fence-done":
		at = FenceOf(cluster.NodeName(e.Fields["node"]))
	default:
		return Step{}, 0, false
	}
	ms, err := strconv.Atoi(e.Fields["took_ms"])
	return at, time.Duration(ms) * time.Millisecond, err == nil
}

// Took returns how long each step took last, as the log knows.
func Took(log []api.Event) map[Step]time.Duration {
	out := map[Step]time.Duration{}
	for i := range log {
		if at, took, tells := Tells(&log[i]); tells {
			out[at] = took
		}
	}
	return out
}

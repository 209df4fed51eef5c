package lease

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/tasuki-ha/tasuki/internal/config"
)

// ElectionBeats is for how many heartbeats a leader must be silent to be
// replaced.
const ElectionBeats = 5

// Silence is how long a node must be unheard to count as silent on a path: four
// heartbeats, and at least 50 ms.
func Silence(t config.Timing) time.Duration {
	return max(4*t.Heartbeat, 50*time.Millisecond)
}

// Pace is the time between two heartbeats to a node that answers: three
// intervals, or less where the file leaves less than two of them until the node
// would isolate.
func Pace(t config.Timing) time.Duration {
	return t.Heartbeat * min(max((t.Lease-t.Isolate)/(2*t.Heartbeat), 1), 3)
}

// WorstCase is what the lease rule comes to for one cluster file. It holds while
// the clocks of the nodes run within Margin of each other, heartbeats arrive
// within a fraction of their interval, and the processes get to run; Stalled and
// Overlap say what else happens. Times that do not apply are 0.
type WorstCase struct {
	Isolates time.Duration         // a node without a majority isolates so long after the latest heartbeat that was acknowledged
	Harmless time.Duration         // and has isolated, by its own clock
	Rules    config.ArbitratorKind // what lets it go on all the same; "" is nothing

	// A takeover begins this long after a node was last heard. Latest counts the
	// election of a leader in place of one that died, and a decision.
	Earliest time.Duration
	Latest   time.Duration
	Deaf     time.Duration // the latest where the node is still heard, but hears nothing itself

	Fencing   time.Duration // that is only the beginning of forcing it off, which may take so long
	Confirmed bool          // nothing is taken over from a node that is not confirmed to be off

	Stalled time.Duration // the watchdog resets a stalled daemon's node by then, after its latest step; 0: nothing does, or nobody takes over
	Overlap time.Duration // for so long of it another node may have its groups
	Blind   bool          // nothing resets a stalled daemon's node, yet another takes over
}

// Worst computes the worst case of a cluster file that was checked.
func Worst(f *config.File) WorstCase {
	t := f.Timing
	if len(f.Nodes) < 2 {
		return WorstCase{}
	}
	w := WorstCase{Isolates: t.Lease - t.Isolate, Harmless: t.Lease}
	if len(f.Nodes) == 2 && len(f.Arbitration) == 0 || workers(f) < 2 {
		return w // without a majority nobody goes on, or nobody could
	}
	// The first candidate begins when the leader has been silent for long enough;
	// candidates are two heartbeats apart, and the second of the file is there if
	// the first was the leader.
	election := t.Heartbeat * (ElectionBeats + 3)
	if len(f.Nodes) == 2 {
		election = 0 // arbitration rules instead
	}
	if len(f.Arbitration) > 0 {
		w.Rules = f.Arbitration[0].Kind
	}
	decision := t.Heartbeat + t.Heartbeat/2
	w.Earliest = Promise(t.Lease)
	w.Latest = max(w.Earliest, election, Silence(t)) + decision
	if w.Rules != config.ArbitrateNone { // where it goes on, deaf or not
		w.Deaf = Silence(t) + Pace(t) + t.Heartbeat + w.Latest
	}
	if w.Rules == config.ArbitrateFence {
		w.Fencing = slowestFence(f)
		w.Confirmed = len(f.Arbitration) == 1
	}
	if f.Takeover == config.TakeoverFence {
		w.Fencing, w.Confirmed = slowestFence(f), true
	}
	if !w.Confirmed {
		w.stalls(f)
	}
	return w
}

// workers counts the nodes that can run groups.
func workers(f *config.File) int {
	n := 0
	for i := range f.Nodes {
		if !f.Nodes[i].Witness {
			n++
		}
	}
	return n
}

// slowestFence returns how long forcing off takes at most where every level is
// tried and each device needs all its time.
func slowestFence(f *config.File) time.Duration {
	var most time.Duration
	for i := range f.Nodes {
		var sum time.Duration
		for _, level := range f.Nodes[i].Fence {
			for _, step := range level {
				sum += step.Delay
				if at := slices.IndexFunc(f.Fences, func(d config.Fence) bool { return d.Name == step.Device }); at >= 0 {
					sum += f.Fences[at].Timeout
				}
			}
		}
		most = max(most, sum)
	}
	return most
}

// stalls looks at the daemon that stands still while its resources go on: the
// lease rule cannot bind who does not run. The keepalive helper counts to the end
// of the lease. A device of the kernel resets the node within the time-out of the
// userspace monitor after the latest step, which may have come as late as the
// moment before isolating.
func (w *WorstCase) stalls(f *config.File) {
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.Witness {
			continue
		}
		guarded := false
		for _, m := range f.Monitors {
			if m.UserSp == nil || m.UserSp.Method == config.MethodNone || !slices.Contains(m.Nodes, n.Name) {
				continue
			}
			guarded = true
			if m.UserSp.Method == config.MethodKeepalive {
				w.Stalled = max(w.Stalled, min(m.UserSp.Timeout, f.Timing.Lease))
				continue
			}
			w.Stalled = max(w.Stalled, m.UserSp.Timeout)
			w.Overlap = max(w.Overlap, w.Isolates+m.UserSp.Timeout-w.Earliest)
		}
		w.Blind = w.Blind || !guarded
	}
}

// Sentences tell the worst case to people.
func (w WorstCase) Sentences() []string {
	if w.Harmless == 0 {
		return []string{"one node: nothing takes over"}
	}
	first := fmt.Sprintf("a node that loses contact isolates its groups after %s s and is harmless after %s s",
		number(w.Isolates, math.Round), number(w.Harmless, math.Round))
	switch w.Rules {
	case config.ArbitrateNone:
		first = "a node that loses contact goes on, and so does the other: both have the groups until they see each other"
	case config.ArbitratePing:
		first += ", or goes on if the ping targets answer it"
	case config.ArbitrateFence:
		first += ", and goes on when the other is confirmed to be off"
	}
	out := []string{first}
	switch {
	case w.Earliest == 0:
		return append(out, "nothing takes over: without the other node no majority is left, or no node is left that could")
	case w.Fencing > 0:
		out = append(out, fmt.Sprintf("takeover when the other is confirmed to be off: forcing it off begins %s–%s after it was last heard and takes at most %s",
			number(w.Earliest, math.Floor), up(w.Latest), up(w.Fencing)))
	case w.Deaf == 0:
		out = append(out, fmt.Sprintf("takeover %s–%s after a node was last heard", number(w.Earliest, math.Floor), up(w.Latest)))
	default:
		out = append(out, fmt.Sprintf("takeover %s–%s after a node was last heard, at most %s after it hears nothing if it is still heard",
			number(w.Earliest, math.Floor), up(w.Latest), up(w.Deaf)))
	}
	switch {
	case w.Confirmed:
		return append(out, "a node that stands still, also one that its hypervisor pauses, is off before another takes over")
	case w.Blind:
		out = append(out, "a node whose daemon stands still keeps its groups although another takes over: not every node has a userspace monitor that resets it")
	case w.Overlap > 0:
		out = append(out, fmt.Sprintf("a node whose daemon stands still is reset within %s; another may have its groups for up to %s of that",
			up(w.Stalled), up(w.Overlap)))
	default:
		out = append(out, fmt.Sprintf("a node whose daemon stands still is reset within %s, before another takes over", up(w.Stalled)))
	}
	return append(out, "a hypervisor that pauses a whole node also pauses its watchdog: no figure bounds that, only forcing it off first does: arbitration fence for two nodes, takeover: fence for more")
}

// up returns what is at most d, in seconds.
func up(d time.Duration) string { return number(d, math.Ceil) + " s" }

// number returns seconds with at most two digits after the point.
func number(d time.Duration, round func(float64) float64) string {
	return strconv.FormatFloat(round(float64(d)/float64(10*time.Millisecond))/100, 'f', -1, 64)
}

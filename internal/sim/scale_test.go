package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/coordinator"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// many is a cluster file of so many nodes and groups; each group prefers another
// node and can run on all.
func many(nodes, groups int) string {
	var b strings.Builder
	b.WriteString("cluster: many\nnodes:\n")
	for i := range nodes {
		fmt.Fprintf(&b, "  n%02d: {addresses: [192.168.10.%d, 10.2.102.%d]}\n", i, i+1, i+1)
	}
	b.WriteString("timing: {start_wait: 5s}\ngroups:\n")
	for i := range groups {
		fmt.Fprintf(&b, "  g%03d:\n    nodes: [", i)
		for k := range nodes {
			fmt.Fprintf(&b, "n%02d, ", (i+k)%nodes)
		}
		fmt.Fprintf(&b, "]\n    resources:\n      ip%03d: {kind: floating-ip, address: 10.3.%d.%d}\n", i, i/200, i%200+1)
	}
	return b.String()
}

// Of 32 nodes ten are lost at once, with the leader among them and a majority of
// votes left: all groups run again, each on one node. What the idle cluster sends
// is told.
func TestThirtyTwoNodes(t *testing.T) {
	nodes, groups, losses := 32, 64, 10
	if raced {
		nodes, groups, losses = 12, 24, 4
	}
	w, err := NewWorld(many(nodes, groups), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range w.names {
		if err := w.Boot(n); err != nil {
			t.Fatal(err)
		}
	}
	running := func() (sum int) {
		for i := range w.file.Groups {
			if len(w.Owners(w.file.Groups[i].Name)) == 1 {
				sum++
			}
		}
		return sum
	}
	for running() != groups && w.agenda.Now() < 30*time.Second && w.Broken == "" {
		w.Run(100 * time.Millisecond)
	}
	w.Run(3 * time.Second)
	if running() != groups || w.Broken != "" {
		t.Fatalf("%d of %d groups run at first: %s", running(), groups, w.Broken)
	}
	beats, size := w.Beats, w.BeatBytes
	w.Run(2 * time.Second)
	t.Logf("idle: %.0f heartbeats a second of %d bytes in the whole cluster, %.1f for each node",
		float64(w.Beats-beats)/2, (w.BeatBytes-size)/(w.Beats-beats), float64(w.Beats-beats)/2/float64(nodes))
	lead := w.nodes[w.names[0]].machine.Status().Leader
	lost, votes := map[cluster.NodeName]bool{lead: true}, 1
	for _, n := range w.names {
		s := w.nodes[n].machine.Status()
		voter := s.Nodes[0].Voter
		for _, is := range s.Nodes {
			if is.Self {
				voter = is.Voter
			}
		}
		if len(lost) == losses || lost[n] || voter && votes == 3 {
			continue
		}
		if voter {
			votes++
		}
		lost[n] = true
	}
	for n := range lost {
		w.Crash(n)
	}
	began := w.agenda.Now()
	for running() != groups && w.agenda.Now() < began+20*time.Second && w.Broken == "" {
		w.Run(10 * time.Millisecond)
	}
	if running() != groups || w.Broken != "" {
		t.Fatalf("%d of %d groups run after the loss of %d nodes: %s", running(), groups, len(lost), w.Broken)
	}
	t.Logf("all groups of %d lost nodes, the leader among them, run again after %v", len(lost), w.agenda.Now()-began)
}

// BenchmarkDecide is one decision of a leader over 1,000 groups and 32 nodes, of
// which ten were just lost: where each of their groups goes.
func BenchmarkDecide(b *testing.B) {
	text := many(32, 1000)
	st := state.New()
	st.Apply(state.Entry{Commands: []state.Command{{Config: &state.SetConfig{Text: text}}}})
	view := coordinator.View{WaitOver: true, Nodes: map[cluster.NodeName]coordinator.Seen{}}
	for i, n := range st.File().Nodes {
		now := cluster.NodeUp
		if i%3 == 0 && i < 30 {
			now = cluster.NodeDown
		}
		st.Apply(state.Entry{Commands: []state.Command{{Node: &state.SetNode{Name: n.Name, State: now, Boot: "b", Daemon: "d"}}}})
		view.Nodes[n.Name] = coordinator.Seen{Alive: now == cluster.NodeUp, Boot: "b", Daemon: "d"}
	}
	if n := len(coordinator.Decide(st, view)); n == 0 {
		b.Fatal("nothing is decided")
	}
	for b.Loop() {
		coordinator.Decide(st, view)
	}
}

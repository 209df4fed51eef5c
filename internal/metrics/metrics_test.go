package metrics

import (
	"bytes"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/heartbeat"
)

var update = flag.Bool("update", false, "write what the tests got as what they want")

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// busy is a look at a node that has one of everything.
func busy() Look {
	heard := time.Now().Add(-100 * time.Millisecond)
	return Look{
		Answers: true,
		Vitals:  engine.Vitals{Term: 7, Applied: 40, Committed: 41, Leading: true, Lease: 900 * time.Millisecond, Votes: 3, VotesThere: 2},
		Timing:  config.Timing{Lease: time.Second, Isolate: 300 * time.Millisecond},
		Oldest:  400 * time.Millisecond,
		Beats:   heartbeat.Stats{Sent: 10, Received: 9, BadTag: 1},
		Certs:   []Certificate{{"node", noon}, {"authority", noon.AddDate(9, 0, 0)}},
		Mirrors: []Mirror{{Name: "md", Reads: 1, Writes: 2, ReadBytes: 4096, WrittenBytes: 8192, Waiting: 1, Oldest: time.Second}},
		Status: api.Status{
			Cluster: "c", Node: "a", Leader: "a", Generation: 1, Quorum: true, Survives: 1, Config: api.ConfigVersion{Version: 3},
			Nodes: []api.Node{
				{Name: "a", State: cluster.NodeUp, Self: true, Voter: true, Lease: true},
				{Name: "b", State: cluster.NodeDown, Voter: true, Heard: &heard, Quarantine: &api.Quarantine{}, Fence: []api.FenceState{
					{Level: 1, Device: "bmc", Plug: "b", Verified: noon}, {Level: 2, Device: "pdu", Plug: "3", Why: "no answer"}, {Level: 3, Device: "new", Plug: "b"}}},
				{Name: "w", State: cluster.NodeUp, Voter: true, Witness: true},
			},
			Networks: []api.Network{{Number: 1, Directions: []api.Direction{
				{From: "b", To: "a", State: api.DirectionLost}, {From: "w", To: "a", State: api.DirectionOK},
				{From: "a", To: "b", State: api.DirectionOK}, {From: "x", To: "a", State: api.DirectionUnknown}}}},
			Groups: []api.Group{
				{Name: "web", Phase: cluster.PhaseOnline, Owner: "a", Epoch: 5, Nodes: []cluster.NodeName{"a", "b"}, Failovers: 2, Held: &api.Held{},
					Resources: []api.Resource{{Name: "ip", Kind: "floating-ip", State: cluster.ResourceOnline}}},
				{Name: "db", Phase: cluster.PhaseOnline, Owner: "b", Epoch: 1, Nodes: []cluster.NodeName{"a", "b"},
					Resources: []api.Resource{{Name: "elsewhere", Kind: "exec", State: cluster.ResourceOnline}}},
			},
			Monitors: []api.Monitor{{Name: "userw", Kind: "userspace", Nodes: []api.MonitorOnNode{
				{Node: "a", Verdict: cluster.VerdictGood}, {Node: "b", Verdict: cluster.VerdictBad}}},
				{Name: "nic", Kind: "nic-link", Nodes: []api.MonitorOnNode{{Node: "a", Verdict: cluster.VerdictBad}}},
				{Name: "app", Kind: "custom", Nodes: []api.MonitorOnNode{{Node: "a", Verdict: cluster.VerdictSuspended}}}},
			Mirrors: []api.Mirror{{Name: "md", InSync: []cluster.NodeName{"a"}, Forced: &api.MirrorForced{}, Copies: []api.MirrorCopy{
				{Node: "a", Role: api.MirrorActive, State: api.MirrorInSync, Connected: true, Dirty: 4096, Size: 1 << 30, Percent: 50, Rate: 1 << 20, ETA: time.Minute},
				{Node: "b", State: api.MirrorCopying}}}},
			Links:       []api.Link{{Name: "bay7", Nodes: []api.LinkNode{{Name: "bay7-esx", Reachable: true}}}},
			Maintenance: []api.Maintenance{{Node: "b"}},
			Outlets:     []api.Outlet{{Name: "siem", Kind: "syslog", Works: true, Waiting: 3, Delivered: 12, Missed: 1, Failures: 4}},
		},
	}
}

func newSet(look func(time.Duration) Look) *Set {
	return New(Options{Cluster: "c", Node: "a", Version: "1.0", Look: look})
}

// scrape returns the lines of a scrape that are ours, without comments.
func scrape(t *testing.T, s *Set) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	var out strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, prefix) && !strings.HasPrefix(line, "tasuki_node_silence_seconds{") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// beatOf is a heartbeat as it travels: the field 5 is when it was sent.
func beatOf(sent cluster.Instant) []byte {
	out := []byte{5 << 3}
	for v := uint64(sent); ; v >>= 7 {
		if v < 0x80 {
			return append(out, byte(v))
		}
		out = append(out, byte(v)|0x80)
	}
}

// counted is a set on which each thing has happened once.
func counted() *Set {
	s := newSet(func(time.Duration) Look { return busy() })
	s.Beat("b", 0, beatOf(engine.Now().Add(-time.Hour))) // the first is what the next is compared with
	s.Beat("b", 0, beatOf(engine.Now().Add(-time.Hour)))
	s.Late(3 * time.Millisecond)
	s.Wrote(2 * time.Millisecond)
	s.Event(&api.Event{Level: cluster.LevelWarn, Code: "stalled"})
	s.Asked("bay7", cluster.VerbGroupFailover, nil)
	s.WasAsked("bay7", "no such verb", &api.Error{Code: "verb-not-allowed"})
	return s
}

func TestScrape(t *testing.T) {
	got := scrape(t, counted())
	// How much later than the first the second heartbeat was is not for a file.
	kept := slices.DeleteFunc(strings.SplitAfter(got, "\n"), func(l string) bool {
		return strings.HasPrefix(l, "tasuki_heartbeat_delay_seconds_") && !strings.Contains(l, "_count")
	})
	got = strings.Join(kept, "")
	const golden = "testdata/scrape.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// The names follow the conventions of Prometheus.
func TestConventions(t *testing.T) {
	s := counted()
	problems, err := testutil.GatherAndLint(s.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, prefix) {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// Every family of the table is told by a node that has one of everything, and
// nothing else is.
func TestFamiliesAreWhatIsTold(t *testing.T) {
	gathered, err := counted().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, f := range gathered {
		told[f.GetName()] = true
	}
	for _, f := range Families() {
		if !told[f.Name] {
			t.Errorf("%s is in the table and nobody tells it", f.Name)
		}
		delete(told, f.Name)
	}
	for name := range told {
		if strings.HasPrefix(name, prefix) {
			t.Errorf("%s is told and not in the table", name)
		}
	}
}

// A daemon whose engine does not answer tells what it knows without it, above
// all that.
func TestDegraded(t *testing.T) {
	s := newSet(func(time.Duration) Look { return Look{Beats: heartbeat.Stats{Sent: 4}} })
	s.Late(time.Second)
	got := scrape(t, s)
	for _, want := range []string{`tasuki_engine_answers{cluster="c"} 0`, `tasuki_heartbeats_sent_total{cluster="c"} 4`, `tasuki_engine_lateness_seconds_count{cluster="c"} 1`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "tasuki_leader_known") || strings.Contains(got, "tasuki_node_up") {
		t.Errorf("what is not known is told:\n%s", got)
	}
	// Without a leader everything that the node has is told.
	look := busy()
	look.Status.Quorum, look.Status.Leader, look.Vitals.Leading, look.Vitals.Lease = false, "", false, 0
	got = scrape(t, newSet(func(time.Duration) Look { return look }))
	for _, want := range []string{`tasuki_leader_known{cluster="c"} 0`, `tasuki_lease_held{cluster="c"} 0`, `tasuki_lease_margin_least_seconds{cluster="c"} 0`, `tasuki_group_phase{cluster="c",group="web",phase="online"} 1`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
}

// However many scrape, the daemon is looked at once a second.
func TestOneLookASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		s := newSet(func(time.Duration) Look { looks.Add(1); return busy() })
		for range 3 {
			var wg sync.WaitGroup
			for range scrapesAtOnce {
				wg.Go(func() { s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)) })
			}
			wg.Wait()
			<-time.After(lookEvery / 2)
		}
		if n := looks.Load(); n != 2 {
			t.Errorf("%d looks in a second and a half", n)
		}
	})
}

func TestDelay(t *testing.T) {
	d := delays{all: map[direction]*fastest{}}
	from := direction{"b", 0}
	at := cluster.Instant(time.Hour)
	beat := func(after, took time.Duration) string { // the sender's clock is 50 minutes behind
		at = at.Add(after)
		got, known := d.of(from, at.Add(-50*time.Minute-took), at)
		return fmt.Sprint(got, known)
	}
	for i, step := range []struct {
		after, took time.Duration
		want        string
	}{
		{0, 2 * time.Millisecond, "0s false"},                        // nothing to compare with
		{time.Second, 5 * time.Millisecond, "3ms true"},              //
		{time.Second, time.Millisecond, "0s true"},                   // the fastest so far
		{time.Second, 5 * time.Millisecond, "4ms true"},              // is compared with from now on
		{8 * time.Second, 5 * time.Millisecond, "4ms true"},          // a new window; the last one still counts
		{11 * time.Second, 5 * time.Millisecond, "0s true"},          // and now no more
		{time.Second, -40*time.Minute + time.Millisecond, "0s true"}, // the clock of a sender that was set forward
		{time.Second, time.Millisecond, "0s false"},                  // one that booted anew: its clock began again
		{time.Second, 2 * time.Millisecond, "1ms true"},              //
		{time.Minute, 9 * time.Millisecond, "0s false"},              // after a long silence
	} {
		if got := beat(step.after, step.took); got != step.want {
			t.Errorf("step %d: %s, not %s", i+1, got, step.want)
		}
	}
	d.keep(func(cluster.NodeName) bool { return false })
	if len(d.all) != 0 {
		t.Error("a node that is gone is remembered")
	}
}

const (
	docsFile   = "../../docs/metrics.md"
	docsMarker = "<!-- what follows is generated: go generate ./internal/metrics -->\n"
)

func TestDocsAreCurrent(t *testing.T) {
	got, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := bytes.Cut(got, []byte(docsMarker))
	if !ok {
		t.Fatalf("%s has no line %s", docsFile, docsMarker)
	}
	var out strings.Builder
	out.WriteString("\n| metric | type | labels | what it is |\n| --- | --- | --- | --- |\n")
	for _, f := range Families() {
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, strings.Join(f.Labels, ", "), f.Help)
	}
	want := append(bytes.Clone(head), docsMarker+out.String()...)
	if *update {
		if err := os.WriteFile(docsFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s is not current; write it with: go generate ./internal/metrics", docsFile)
	}
}

// BenchmarkBeat is what a heartbeat costs more because it is measured.
func BenchmarkBeat(b *testing.B) {
	s := newSet(func(time.Duration) Look { return Look{} })
	beat := beatOf(engine.Now())
	for b.Loop() {
		s.Beat("b", 0, beat)
	}
}

// BenchmarkScrape is a scrape of a node that owns half of 500 groups and watches
// with 2,000 monitors, without the look at the daemon.
func BenchmarkScrape(b *testing.B) {
	look := busy()
	for i := range 500 {
		owner := []cluster.NodeName{"a", "b"}[i%2]
		g := api.Group{Name: cluster.GroupName(fmt.Sprintf("g%d", i)), Phase: cluster.PhaseOnline, Owner: owner, Nodes: []cluster.NodeName{"a", "b"}}
		for r := range 4 {
			g.Resources = append(g.Resources, api.Resource{Name: cluster.ResourceName(fmt.Sprintf("r%d-%d", i, r)), Kind: "exec", State: cluster.ResourceOnline})
		}
		look.Status.Groups = append(look.Status.Groups, g)
	}
	for i := range 2000 {
		look.Status.Monitors = append(look.Status.Monitors, api.Monitor{Name: cluster.MonitorName(fmt.Sprintf("m%d", i)), Kind: "custom",
			Nodes: []api.MonitorOnNode{{Node: "a", Verdict: cluster.VerdictGood}, {Node: "b", Verdict: cluster.VerdictGood}}})
	}
	s := newSet(func(time.Duration) Look { return look })
	size := 0
	for b.Loop() {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		size = w.Body.Len()
	}
	b.ReportMetric(float64(size), "bytes")
}

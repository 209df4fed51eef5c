package demo

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
)

// busyLoops is how many programs want a processor for themselves while a
// cluster must keep its leases.
const busyLoops = 8

// BenchmarkOverload lets busy loops of normal priority take the processors
// from a cluster that has nothing to do, for MINUTES (1) with PROFILE
// (default), and counts what went wrong. How late a timer fires beside them is
// what a program without precedence sees; the client is one of those.
func BenchmarkOverload(b *testing.B) {
	minutes, profile := 1.0, "default"
	if v := os.Getenv("MINUTES"); v != "" {
		var err error
		minutes, err = strconv.ParseFloat(v, 64)
		check(b, err)
	}
	if v := os.Getenv("PROFILE"); v != "" {
		profile = v
	}
	t := startBench(b, "overload")
	t.tasuki(profile)
	active, before := t.active(), t.history()
	for range busyLoops {
		c := exec.CommandContext(b.Context(), "/bin/sh", "-c", "while :; do :; done")
		check(b, c.Start())
		defer func() {
			c.Process.Kill()
			c.Wait()
		}()
	}
	stole := stolen(b)
	b.ReportMetric(ms(stall(time.Duration(minutes*float64(time.Minute)))), "ordinary_stall_max_ms")
	b.ReportMetric(stolen(b).sub(stole), "stolen_%")
	t.kept()
	failovers, leases, silences := 0, 0, 0
	for _, e := range t.history()[len(before):] {
		switch e.Code {
		case "group-start-begun":
			failovers++
		case "group-isolated", "group-lost", "no-quorum":
			leases++
		case "path-down", "node-silent", "node-down":
			silences++
		default:
			continue
		}
		b.Logf("%s %s %s", e.Time.Format("15:04:05.000"), e.Node, e.Text)
	}
	b.ReportMetric(float64(failovers), "failovers")
	b.ReportMetric(float64(leases), "leases_lost")
	b.ReportMetric(float64(silences), "silences")
	b.ReportMetric(0, "ns/op")
	if failovers+leases > 0 || t.active() != active {
		b.Errorf("the group was active on %s and is on %s", active, t.active())
	}
}

// kept reports, for each node, how late its engine came at most and how old the
// acknowledgements got that its lease stands on: a heartbeat there and one back.
func (t *bench) kept() {
	t.b.Helper()
	for _, n := range t.Guests {
		st, err := t.Status(t.b.Context(), n)
		check(t.b, err)
		if st.Time != nil {
			t.b.ReportMetric(float64(st.Time.WorstMS), n+"_late_max_ms")
			t.b.ReportMetric(float64(st.Time.OldestAckMS), n+"_ack_max_ms")
		}
	}
}

// taken is what the hypervisor gave to others, of all the time of the processors,
// in ticks.
type taken struct{ stolen, all float64 }

// sub returns the share of it since before, in percent.
func (t taken) sub(before taken) float64 {
	return (t.stolen - before.stolen) / max(t.all-before.all, 1) * 100
}

// stolen reads the first line of /proc/stat: user, nice, system, idle, iowait,
// irq, softirq, steal (proc(5)).
func stolen(b *testing.B) (t taken) {
	b.Helper()
	data, err := os.ReadFile("/proc/stat")
	check(b, err)
	line, _, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		b.Fatalf("/proc/stat begins with %q", line)
	}
	for i, v := range f[1:9] {
		n, err := strconv.ParseFloat(v, 64)
		check(b, err)
		t.all += n
		if i == 7 {
			t.stolen = n
		}
	}
	return t
}

// history is the log of the whole cluster.
func (t *bench) history() []api.Event {
	t.b.Helper()
	events, err := t.Events(t.b.Context(), t.Guests[0])
	check(t.b, err)
	return events
}

// stall returns, after d, how late a timer of 5 ms was at most.
func stall(d time.Duration) (most time.Duration) {
	const every = 5 * time.Millisecond
	for end := time.Now().Add(d); ; {
		now := time.Now()
		if now.After(end) {
			return most
		}
		<-time.After(every)
		most = max(most, time.Since(now)-every)
	}
}

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab"
)

// The installation of the benchmarks: the web server runs on both nodes all the
// time and only the address moves.
const (
	benchFile = `cluster: bench
timing: {profile: %s}
nodes:
  n1: {addresses: [10.20.2.1, 10.20.1.1]}
  n2: {addresses: [10.20.2.2, 10.20.1.2]}
  w: {addresses: [10.20.2.3, 10.20.1.3], witness: true}
groups:
  g:
    nodes: [n1, n2]
    hold: {failovers: 0}
    resources:
      ip: {kind: floating-ip, address: 10.20.1.50}
monitors:
  userw: {kind: userspace, method: keepalive}
  public: {kind: nic-link, device: eth0, recovery: {scripts: 0, restarts: 0, failovers: 99}}
quarantine: {failures: 0} # it kills nodes and pulls cables more often than a cluster should bear
`
	benchURL   = "http://10.20.1.50/"
	benchEvery = 2 * time.Millisecond
)

// bench is a running installation with its web servers.
type bench struct {
	*Stage
	b      *testing.B
	active func() string
	web    map[string]io.Closer
	boots  map[string]int // of the machine that web answers for
	client *lab.Namespace
}

func startBench(b *testing.B, name string) *bench {
	if os.Geteuid() != 0 {
		b.Skip("needs root: namespaces")
	}
	layout, err := lab.Shipped("witness")
	check(b, err)
	l, err := lab.Start(b.Context(), lab.Options{Layout: layout, Name: name, Binary: binary(b), Attached: true})
	check(b, err)
	b.Cleanup(func() {
		if err := l.Down(context.WithoutCancel(b.Context())); err != nil {
			b.Error(err)
		}
		l.Close()
	})
	t := &bench{Stage: &Stage{Lab: l, Guests: []string{"n1", "n2"}, Client: "client", Group: "g"}, b: b, web: map[string]io.Closer{}, boots: map[string]int{}}
	for _, n := range t.Guests {
		t.serve(n)
	}
	t.client, err = l.Namespace(b.Context(), t.Client)
	check(b, err)
	return t
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// tasuki makes the cluster.
func (t *bench) tasuki(profile string) {
	check(t.b, t.Cluster(t.b.Context(), fmt.Appendf(nil, benchFile, profile), func(string) {}, "n1", "n2", "w"))
	t.active = func() string {
		for _, n := range t.Guests {
			if a := t.Active(t.b.Context(), n); a != "" {
				return string(a)
			}
		}
		return ""
	}
	t.whole()
}

// whole waits until all nodes are up and the group is active. A node that was
// reset meanwhile, which is told, gets its web server again.
func (t *bench) whole() {
	t.b.Helper()
	defer func() {
		for _, n := range t.Guests {
			info, err := t.Lab.Machine(t.b.Context(), n)
			check(t.b, err)
			if info.Boots != t.boots[n] {
				t.b.Logf("%s was reset by itself", n)
				t.serve(n)
			}
		}
	}()
	check(t.b, t.Until(t.b.Context(), "the group is active and all nodes are up", func() (bool, error) {
		for _, n := range []string{"n1", "n2", "w"} {
			st, err := t.Status(t.b.Context(), n)
			if err != nil || t.Stage.active(&st) == "" || !allUp(&st) || slices.ContainsFunc(st.Monitors, func(m api.Monitor) bool { return m.Verdict != cluster.VerdictGood }) {
				return false, nil
			}
		}
		return true, nil
	}))
}

// serve lets the bench itself answer for a node, in the node's network, as of
// its latest boot.
func (t *bench) serve(node string) {
	t.b.Helper()
	if w := t.web[node]; w != nil {
		w.Close()
	}
	var l net.Listener
	check(t.b, t.Lab.Do(t.b.Context(), node, func() (err error) {
		l, err = net.Listen("tcp4", ":80")
		return err
	}))
	info, err := t.Lab.Machine(t.b.Context(), node)
	check(t.b, err)
	t.web[node], t.boots[node] = l, info.Boots
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, node) }), ReadHeaderTimeout: time.Second}
	go func() {
		if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
			t.b.Error("the web server of ", node, ": ", err)
		}
	}()
}

// outage lets a client ask while f happens and until another node answers, and
// returns the longest time without an answer.
func (t *bench) outage(f func() error) time.Duration {
	t.b.Helper()
	ctx, cancel := context.WithTimeout(t.b.Context(), untilMost)
	defer cancel()
	p := &Prober{URL: benchURL, Dial: t.client.DialContext, Every: benchEvery}
	life, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(life) }()
	before, err := p.Await(ctx, 50)
	check(t.b, err)
	at := time.Now()
	check(t.b, f())
	for after := before; after == before; {
		if after, err = p.Await(ctx, 50); err != nil {
			for _, n := range t.Guests {
				events, _ := t.Do(t.b.Context(), n, "tasuki", "event", "-n", "15")
				t.b.Logf("%s:\n%s", n, events)
			}
			t.b.Fatal(err)
		}
	}
	stop()
	check(t.b, <-ended)
	o, found := longest(p.Samples(), at)
	if !found {
		t.b.Fatal("the client saw no change of nodes")
	}
	if late := p.Late(); late > 0 {
		t.b.Logf("the client was late %d times: the machine is too busy to measure", late)
	}
	return o.Length()
}

// report prints what n times showed.
func report(b *testing.B, what string, list []time.Duration) {
	slices.Sort(list)
	n := len(list)
	b.ReportMetric(ms(list[0]), what+"_min_ms")
	b.ReportMetric(ms((list[(n-1)/2]+list[n/2])/2), what+"_median_ms")
	b.ReportMetric(ms(list[n-1]), what+"_max_ms")
	b.ReportMetric(0, "ns/op")
	b.Logf("%s, %d times: %v", what, n, list)
}

// runs is how often each fault happens: RUNS, or 20.
func runs(b *testing.B) int {
	if v := os.Getenv("RUNS"); v != "" {
		n, err := strconv.Atoi(v)
		check(b, err)
		return n
	}
	return 20
}

func (t *bench) crashes() (list []time.Duration) {
	for range runs(t.b) {
		a := t.active()
		list = append(list, t.outage(func() error { return t.Lab.Kill(t.b.Context(), a) }))
		check(t.b, t.Lab.Boot(t.b.Context(), a))
		t.serve(a)
		t.whole()
	}
	return list
}

func (t *bench) pulls() (list []time.Duration) {
	for range runs(t.b) {
		a := t.active()
		list = append(list, t.outage(func() error { return t.Lab.Pull(t.b.Context(), a, "eth0") }))
		check(t.b, t.Lab.Plug(t.b.Context(), a, "eth0"))
		t.whole()
	}
	return list
}

func (t *bench) moves() (list []time.Duration) {
	for range runs(t.b) {
		to := map[string]string{"n1": "n2", "n2": "n1"}[t.active()]
		list = append(list, t.outage(func() error {
			_, err := t.Do(t.b.Context(), to, "tasuki", "group", "move", "g", "--to", to)
			return err
		}))
		t.whole()
	}
	return list
}

// BenchmarkFailover measures the outage of a client that asks every 2 ms, when
// the active node crashes, when its public cable is pulled, and when the group
// is moved as planned. RUNS is how often; ONLY is a part of the names to run.
func BenchmarkFailover(b *testing.B) {
	for _, profile := range []string{"default", "fast"} {
		b.Run("crash/"+profile, func(b *testing.B) {
			t := startBench(b, "crash-"+profile)
			t.tasuki(profile)
			report(b, "crash_"+profile, t.crashes())
		})
	}
	b.Run("pull", func(b *testing.B) {
		t := startBench(b, "pull")
		t.tasuki("default")
		report(b, "pull", t.pulls())
	})
	b.Run("move", func(b *testing.B) {
		t := startBench(b, "move")
		t.tasuki("default")
		report(b, "move", t.moves())
	})
}

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
	"sync"
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
	whole  func()            // waits until the next fault may come
	join   func(node string) // after a boot; nil: the node joins by itself
	client *lab.Namespace
	booted map[string]int // by the bench

	mu    sync.Mutex
	web   map[string]io.Closer
	boots map[string]int // of the machine that web answers for
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
	t := &bench{Stage: &Stage{Lab: l, Guests: []string{"n1", "n2"}, Client: "client", Group: "g"}, b: b, web: map[string]io.Closer{}, boots: map[string]int{}, booted: map[string]int{}}
	life, end := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t.tend(life)
	}()
	b.Cleanup(func() { end(); <-ended })
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
	t.whole = t.allUp
	t.whole()
}

// allUp waits until all nodes are up, with their web servers, and the group is
// active.
func (t *bench) allUp() {
	t.b.Helper()
	if err := t.Until(t.b.Context(), "the group is active and all nodes are up", func() (bool, error) {
		for _, n := range []string{"n1", "n2", "w"} {
			st, err := t.Status(t.b.Context(), n)
			if err != nil || t.Stage.active(&st) == "" || !allUp(&st) || slices.ContainsFunc(st.Monitors, func(m api.Monitor) bool { return m.Verdict != cluster.VerdictGood }) {
				return false, nil
			}
		}
		return t.served(), nil
	}); err != nil {
		t.fatal(err)
	}
}

// served says whether every node's web server runs in its latest boot.
func (t *bench) served() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.Guests {
		if m, err := t.Lab.Machine(t.b.Context(), n); err != nil || m.State != lab.Up || m.Boots != t.boots[n] {
			return false
		}
	}
	return true
}

// tendEvery is how often the bench looks for machines that have booted: also
// those that reset themselves, at any time.
const tendEvery = 50 * time.Millisecond

// tend gives each node its web server at every boot, until ctx ends.
func (t *bench) tend(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, n := range t.Guests {
			m, err := t.Lab.Machine(ctx, n)
			if err != nil || m.State != lab.Up {
				continue
			}
			t.mu.Lock()
			if m.Boots != t.boots[n] {
				if err := t.serve(ctx, n, m.Boots); err != nil && ctx.Err() == nil {
					t.b.Logf("no web server on %s yet: %v", n, err)
				}
			}
			t.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.web {
		w.Close()
	}
}

// serve lets the bench itself answer for a node, in the node's network. The
// caller has the lock.
func (t *bench) serve(ctx context.Context, node string, boot int) error {
	if w := t.web[node]; w != nil {
		w.Close()
		delete(t.web, node)
	}
	var l net.Listener
	if err := t.Lab.Do(ctx, node, func() (err error) {
		l, err = net.Listen("tcp4", ":80")
		return err
	}); err != nil {
		return err
	}
	t.web[node], t.boots[node] = l, boot
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, node) }), ReadHeaderTimeout: time.Second}
	go func() {
		if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
			t.b.Error("the web server of ", node, ": ", err)
		}
	}()
	return nil
}

// resets counts the boots that nobody ordered: machines that reset themselves.
func (t *bench) resets() (n int) {
	t.b.Helper()
	for _, name := range t.Guests {
		m, err := t.Lab.Machine(t.b.Context(), name)
		check(t.b, err)
		n += m.Boots - 1 - t.booted[name]
	}
	return n
}

// boot starts a machine that was killed.
func (t *bench) boot(name string) {
	t.b.Helper()
	t.booted[name]++
	check(t.b, t.Lab.Boot(t.b.Context(), name))
	if t.join != nil {
		t.join(name)
	}
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
			t.fatal(err)
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

// fatal tells what the nodes know, and ends.
func (t *bench) fatal(err error) {
	t.b.Helper()
	for _, n := range []string{"n1", "n2", "w"} {
		for _, c := range [][]string{{"status"}, {"event", "-n", "60"}, {"explain", "g"}} {
			out, err := t.Do(t.b.Context(), n, append([]string{"tasuki"}, c...)...)
			t.b.Logf("%s, %v: %v\n%s", n, c, err, out)
		}
	}
	t.b.Fatal(err)
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
		t.boot(a)
		t.whole()
	}
	t.b.ReportMetric(float64(t.resets()), "self_resets")
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
// is moved as planned. RUNS is how often; with PEER the first two also happen to
// keepalived.
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
	benchPeer(b)
}

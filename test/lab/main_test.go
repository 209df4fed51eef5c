// Package lab_test runs whole installations in labs: the shipped binary, real
// daemons, real networks, and an outside view of what they do.
package lab_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/examples"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// program is the tasuki of all machines, daemon the service of all: the same,
// or its twin with the race detector.
var (
	program string
	daemon  []string
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test says why it cannot run
	}
	// Machines see the outer /var/tmp.
	dir, err := os.MkdirTemp("/var/tmp", "tasuki-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "tasuki")
	err = build(program, "CGO_ENABLED=0")
	if err == nil && raced {
		daemon = []string{filepath.Join(dir, "tasuki-race"), "daemon"}
		err = build(daemon[0], "CGO_ENABLED=1", "-race")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(to, env string, flags ...string) error {
	c := exec.Command("go", append(append([]string{"build"}, flags...), "-o", to, "github.com/tasuki-ha/tasuki/cmd/tasuki")...)
	c.Env = append(os.Environ(), env)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet(string) {}

var labs atomic.Int32

// up starts a lab of its own for this test, of a shipped layout that edits may change.
// When the test ends it is taken down, after the daemons' own logs were searched for
// what must never be there.
func up(t *testing.T, layout string, edits ...func(*lab.Layout)) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: CI must run the lab tests as root")
		}
		t.Skip("needs root: namespaces")
	}
	l, err := lab.Shipped(layout)
	must(t, err)
	for _, edit := range edits {
		edit(l)
	}
	name := fmt.Sprintf("t%d-%d", os.Getpid(), labs.Add(1))
	got, err := lab.Start(t.Context(), lab.Options{Layout: l, Name: name, Binary: program, Service: daemon, Attached: true})
	must(t, err)
	t.Cleanup(func() {
		ctx := context.Background()
		complain(ctx, t, got)
		if err := got.Down(ctx); err != nil {
			t.Error(err)
		}
	})
	return got
}

// complain fails the test if a daemon panicked or raced, and shows what the
// machines said if the test failed.
func complain(ctx context.Context, t *testing.T, l *lab.Lab) {
	st, err := l.Status(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	for _, m := range st.Machines {
		if m.State != lab.Up {
			continue
		}
		r, err := l.Exec(ctx, m.Name, "sh", "-c", "cat /var/log/tasuki/daemon.log 2>/dev/null")
		if err != nil {
			t.Error(m.Name, err)
			continue
		}
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if at := strings.Index(string(r.Stdout), bad); at >= 0 {
				t.Errorf("%s: its daemon said:\n%.4000s", m.Name, r.Stdout[at:])
			}
		}
		if t.Failed() {
			events, _ := l.Exec(ctx, m.Name, "tasuki", "event", "-n", "40")
			t.Logf("%s\n%s\n%s", m.Name, events.Stdout, tail(r.Stdout, 1500))
		}
	}
}

func tail(b string, n int) string { return b[max(0, len(b)-n):] }

// reference builds the installation of the reference scenario.
func reference(t *testing.T, start string) *demo.Stage {
	t.Helper()
	s := demo.Reference(up(t, "reference"), start)
	must(t, s.Build(t.Context(), quiet))
	return s
}

// plain is reference without the mirror disk, for tests of something else: what a
// copy of a whole disk costs is no part of what they measure.
func plain(t *testing.T, start string) *demo.Stage {
	t.Helper()
	s := demo.Reference(up(t, "reference"), start)
	file, err := examples.Files.ReadFile("vmcluster.yaml")
	must(t, err)
	text := string(file)
	from, to := strings.Index(text, "      md:\n"), strings.Index(text, "      exec: #")
	monitors := text[strings.Index(text, "  mdw1:"):strings.Index(text, "\nrequests:")]
	s.Names = append(s.Names, text[from:to], "", "[fip, md]", "[fip]", monitors, "")
	must(t, s.Build(t.Context(), quiet))
	if s.Mirror {
		t.Fatal("the example still has its mirror disk")
	}
	return s
}

// built makes one cluster of machines by a cluster file, with the example's
// Apache as the script resource web of group g.
func built(t *testing.T, layout, file string, machines ...string) *demo.Stage {
	t.Helper()
	s := &demo.Stage{Lab: up(t, layout), Guests: machines, Client: "client", Group: "g", Resource: "web"}
	for _, m := range machines {
		must(t, s.Scripts(t.Context(), m))
	}
	must(t, s.Cluster(t.Context(), []byte(file), quiet, machines...))
	must(t, s.Until(t.Context(), "the group is active and all nodes are up", func() (bool, error) {
		st, err := s.Status(t.Context(), machines[0])
		return err == nil && owner(st, "g") != "" && everyNode(st, isUp), nil
	}))
	return s
}

func isUp(n api.Node) bool { return n.State == cluster.NodeUp && n.Voter }

func everyNode(st api.Status, ok func(api.Node) bool) bool {
	return !slices.ContainsFunc(st.Nodes, func(n api.Node) bool { return !ok(n) })
}

// owner returns where a group is online, or "".
func owner(st api.Status, group cluster.GroupName) cluster.NodeName {
	for _, g := range st.Groups {
		if g.Name == group && g.Phase == cluster.PhaseOnline && g.Plan == nil {
			return g.Owner
		}
	}
	return ""
}

// activeOn waits until the group is online on a node, as that node sees it.
func activeOn(t *testing.T, s *demo.Stage, node string) {
	t.Helper()
	must(t, s.Until(t.Context(), s.Group+" is active on "+node, func() (bool, error) {
		return s.Active(t.Context(), node) == cluster.NodeName(node), nil
	}))
}

// stays fails the test if the group moves, or stops, within d.
func stays(t *testing.T, s *demo.Stage, node string, d time.Duration) {
	t.Helper()
	for end := time.After(d); ; {
		st, err := s.Status(t.Context(), node)
		must(t, err)
		if got := owner(st, cluster.GroupName(s.Group)); got != cluster.NodeName(node) {
			t.Fatalf("group %s is not active on %s any more: %q, %+v", s.Group, node, got, st.Groups)
		}
		select {
		case <-end:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// told waits until a machine's log holds an event with that code whose text
// has a part, and returns it.
func told(t *testing.T, s *demo.Stage, machine, code, part string) (found api.Event) {
	t.Helper()
	must(t, s.Until(t.Context(), fmt.Sprintf("%s tells %s %q", machine, code, part), func() (bool, error) {
		events, err := s.Events(t.Context(), machine)
		if err != nil {
			return false, nil // it may be booting
		}
		i := slices.IndexFunc(events, func(e api.Event) bool { return e.Code == code && strings.Contains(e.Text, part) })
		if i >= 0 {
			found = events[i]
		}
		return i >= 0, nil
	}))
	return found
}

// count returns how many events of a machine's log have that code.
func count(t *testing.T, s *demo.Stage, machine, code string) (n int) {
	t.Helper()
	events, err := s.Events(t.Context(), machine)
	must(t, err)
	for _, e := range events {
		if e.Code == code {
			n++
		}
	}
	return n
}

// fails runs a command that must fail and returns its exit code and what it
// said on stderr.
func fails(t *testing.T, s *demo.Stage, machine string, argv ...string) (int, string) {
	t.Helper()
	r, err := s.Lab.Exec(t.Context(), machine, argv...)
	must(t, err)
	if r.Code == 0 {
		t.Fatalf("%v on %s should fail, and said:\n%s", argv, machine, r.Stdout)
	}
	return r.Code, string(r.Stdout) + string(r.Stderr)
}

// do runs a command that must succeed.
func do(t *testing.T, s *demo.Stage, machine string, argv ...string) string {
	t.Helper()
	out, err := s.Do(t.Context(), machine, argv...)
	must(t, err)
	return out
}

// asking is a client that asks the service every 5 ms.
type asking struct {
	*demo.Prober
	stop func() []demo.Sample
}

func ask(t *testing.T, s *demo.Stage, url string) asking {
	t.Helper()
	from, err := s.Lab.Namespace(t.Context(), s.Client)
	must(t, err)
	p := &demo.Prober{URL: url, Dial: from.DialContext}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	_, err = p.Await(t.Context(), 40)
	must(t, err)
	return asking{p, func() []demo.Sample {
		cancel()
		must(t, <-ended)
		from.Close()
		return p.Samples()
	}}
}

// Package chaos_test runs a real installation in a lab under random faults, and
// watches it from outside: by what clients get, by what each machine's kernel
// has, and by the locks that the application holds. It never asks the program
// under test whether all is well.
//
// The watchdog of every node is the keepalive monitor: without one a daemon
// that stands still keeps its address for ever, which the cluster file's check
// says. What is not among the faults, because a lab cannot make it: loss of order and slow
// disks (there is no netem here, and the state is in memory), a thread that stands
// still, and clocks, since all machines have the same one. The simulator makes
// those.
package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	minutes = flag.Float64("minutes", 0.4, "how long faults are made")
	seed    = flag.Uint64("seed", 1, "what the faults are rolled from")
	layout  = flag.String("layout", "witness", siteNames())
	only    = flag.String("only", "", "make faults of this kind only")
)

// program is the tasuki of all machines.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // the test says why it cannot run
	}
	dir, err := os.MkdirTemp("", "tasuki-chaos")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "tasuki")
	c := exec.Command("go", "build", "-o", program, "github.com/tasuki-ha/tasuki/cmd/tasuki")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wait returns after d, or with the context's error.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root: CI must run the lab tests as root")
	}
	t.Skip("needs root: namespaces")
}

func TestChaos(t *testing.T) {
	needsRoot(t)
	s, known := sites[*layout]
	if !known {
		t.Fatalf("-layout is one of %s, not %q", siteNames(), *layout)
	}
	c := build(t, s)
	c.play(t, time.Duration(*minutes*float64(time.Minute)))
	c.judge(t)
}

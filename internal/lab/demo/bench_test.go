package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab"
)

// idleFor is how long an idle node is watched.
const idleFor = 60 * time.Second

// BenchmarkIdle measures what an idle node of the demo costs: the daemon's time
// on the processor by the scheduler's own account, and its memory with what it
// shares divided among the sharers (PSS). BINARY is the program; without it one
// is built.
func BenchmarkIdle(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: namespaces")
	}
	ctx := b.Context()
	layout, err := lab.Shipped("reference")
	if err != nil {
		b.Fatal(err)
	}
	l, err := lab.Start(ctx, lab.Options{Layout: layout, Name: "idle", Binary: binary(b), Attached: true})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	defer func() {
		if err := l.Down(context.WithoutCancel(ctx)); err != nil {
			b.Error(err)
		}
	}()
	s := Reference(l, "CLP-1")
	if err := s.Build(ctx, func(string) {}); err != nil {
		b.Fatal(err)
	}
	machines := []string{"CLP-1", "CLP-2", "bay7-esx"}
	before := map[string]time.Duration{}
	began := time.Now()
	for _, m := range machines {
		before[m] = running(b, daemon(b, s, m, "daemon"))
	}
	<-time.After(idleFor)
	over := time.Since(began)
	for _, m := range machines {
		pid := daemon(b, s, m, "daemon")
		share := float64(running(b, pid)-before[m]) / float64(over) * 100
		b.ReportMetric(share, m+"_%core")
		b.ReportMetric(pss(b, pid), m+"_PSS_MiB")
	}
	b.ReportMetric(0, "ns/op")
}

func binary(b *testing.B) string {
	b.Helper()
	if p := os.Getenv("BINARY"); p != "" {
		return p
	}
	p := filepath.Join(b.TempDir(), "tasuki")
	c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", p, "github.com/tasuki-ha/tasuki/cmd/tasuki")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return p
}

// daemon returns the process of a machine's daemon, whose command line ends with
// a word, as this machine numbers it.
func daemon(b *testing.B, s *Stage, machine, word string) int {
	b.Helper()
	info, err := s.Lab.Machine(b.Context(), machine)
	if err != nil {
		b.Fatal(err)
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", info.PID))
	if err != nil {
		b.Fatal(err)
	}
	var children []byte // each is that of the thread that started it
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil {
			children = append(append(children, data...), ' ')
		}
	}
	for _, f := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			continue
		}
		cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && bytes.HasSuffix(bytes.TrimRight(cmd, "\x00"), []byte(word)) {
			return pid
		}
	}
	b.Fatalf("%s has no daemon", machine)
	return 0
}

// running returns how long a process's threads have run.
func running(b *testing.B, pid int) time.Duration {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		b.Fatalf("process %d has no threads: %v", pid, err)
	}
	var sum time.Duration
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has just ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// pss returns a process's proportional share of memory, in MiB.
func pss(b *testing.B, pid int) float64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib / 1024
		}
	}
	b.Fatalf("process %d tells no PSS", pid)
	return 0
}

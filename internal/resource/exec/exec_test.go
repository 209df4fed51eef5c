package exec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/paths"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/script"
)

// node is a driver over directories of its own.
type node struct {
	*Driver
	dirs     paths.Dirs
	failures chan resource.Failure
}

func newNode(t testing.TB) *node {
	t.Helper()
	return over(paths.At(t.TempDir()))
}

// over is the driver of a daemon that starts over the directories.
func over(dirs paths.Dirs) *node {
	n := &node{dirs: dirs, failures: make(chan resource.Failure, 10)}
	n.Driver = New(Options{
		Dirs: dirs, Product: script.Product{Version: "1", OSName: "Linux"},
		Failed: func(f resource.Failure) { n.failures <- f },
	})
	return n
}

// task makes the resource with these scripts; "" is none.
func (n *node) task(t testing.TB, mode, start, stop string) resource.Task {
	t.Helper()
	x := &config.Exec{Mode: mode, LogSizeMB: 1}
	for name, text := range map[string]string{"start.sh": start, "stop.sh": stop} {
		if text == "" {
			continue
		}
		path := n.dirs.ResourceScript("failover", "exec", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\ncd "+n.dirs.Etc+"\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if name == "start.sh" {
			x.Start = name
		} else {
			x.Stop = name
		}
	}
	return resource.Task{
		Cluster: "VMcluster", Node: "CLP-1", Epoch: 3, Event: "START", Factor: cluster.FactorGroupStart, Cause: "CLP-1/7",
		Group:    config.Group{Name: "failover", Nodes: []cluster.NodeName{"CLP-1", "CLP-2"}},
		Resource: config.Resource{Name: "exec", Kind: config.KindExec, Exec: x},
	}
}

// count says how many lines a script wrote to the file in Etc.
func (n *node) count(file string) int {
	b, _ := os.ReadFile(filepath.Join(n.dirs.Etc, file))
	return strings.Count(string(b), "\n")
}

func (n *node) must(t *testing.T, step func(context.Context, resource.Task) error, tk resource.Task) {
	t.Helper()
	if err := step(t.Context(), tk); err != nil {
		t.Fatal(err)
	}
}

func (n *node) check(t *testing.T, tk resource.Task, want bool) {
	t.Helper()
	if active, err := n.Check(t.Context(), tk); err != nil || active != want {
		t.Errorf("active: %v %v, want %v", active, err, want)
	}
}

func (n *node) failure(t *testing.T) resource.Failure {
	t.Helper()
	select {
	case f := <-n.failures:
		return f
	case <-time.After(5 * time.Second):
		t.Fatal("no failure was reported")
		return resource.Failure{}
	}
}

// pid reads the process id that a script wrote, when it is there.
func (n *node) pid(t *testing.T, file string) int {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(5 * time.Second)
	for {
		b, _ := os.ReadFile(filepath.Join(n.dirs.Etc, file))
		if text, ok := strings.CutSuffix(string(b), "\n"); ok {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if alive(pid) {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			})
			return pid
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("no process id in %s", file)
		}
	}
}

// alive also says no where the process is only waiting to be reaped.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestSync(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "echo >>started; env >env; echo hello", "echo >>stopped")
	n.check(t, tk, false)
	n.must(t, n.Stop, tk) // never started: nothing runs
	for range 2 {         // the second time it is active already
		n.must(t, n.Start, tk)
		n.check(t, tk, true)
	}
	for range 2 {
		n.must(t, n.Stop, tk)
		n.check(t, tk, false)
	}
	if n.count("started") != 1 || n.count("stopped") != 1 {
		t.Errorf("started %d times, stopped %d times", n.count("started"), n.count("stopped"))
	}
	if b, _ := os.ReadFile(filepath.Join(n.dirs.Log, "failover-exec.log")); string(b) != "hello\n" {
		t.Errorf("log holds %q", b)
	}
	env, _ := os.ReadFile(filepath.Join(n.dirs.Etc, "env"))
	for _, line := range []string{"CLP_RESOURCENAME=exec", "CLP_FACTOR=GROUPSTART", "CLP_EVENT=START", "TASUKI_CAUSE=CLP-1/7"} {
		if !strings.Contains("\n"+string(env), "\n"+line+"\n") {
			t.Errorf("the environment lacks %s", line)
		}
	}
}

// Apache forks: what a start script leaves behind is the service.
func TestSyncDaemonLives(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "sleep 60 & echo $! >pid", "kill $(cat pid)")
	n.must(t, n.Start, tk)
	pid := n.pid(t, "pid")
	if !alive(pid) {
		t.Error("the daemon ended with its start script")
	}
	n.must(t, n.Stop, tk)
}

func TestScriptsThatFail(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "echo no disk; exit 3", "echo >>stopped; test ! -e broken")
	err := n.Start(t.Context(), tk)
	if err == nil || !strings.Contains(err.Error(), "start.sh ended with exit code 3") || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("start: %v", err)
	}
	if _, err := n.Check(t.Context(), tk); !errors.Is(err, ErrInterrupted) {
		t.Errorf("half active: %v", err)
	}
	// Half active is stopped, and again until it succeeds.
	if err := os.WriteFile(filepath.Join(n.dirs.Etc, "broken"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(t.Context(), tk); err == nil {
		t.Error("a stop script that failed counts as a success")
	}
	if err := os.Remove(filepath.Join(n.dirs.Etc, "broken")); err != nil {
		t.Fatal(err)
	}
	n.must(t, n.Stop, tk)
	n.must(t, n.Stop, tk)
	if n.count("stopped") != 2 {
		t.Errorf("the stop script ran %d times, want 2", n.count("stopped"))
	}
	n.check(t, tk, false)
}

func TestTimeLimits(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "sleep 60 & echo $! >child; wait", "sleep 60")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := n.Start(ctx, tk); !errors.Is(err, script.ErrTimedOut) || !strings.Contains(err.Error(), "start.sh") {
		t.Errorf("start: %v", err)
	}
	if child := n.pid(t, "child"); alive(child) {
		t.Error("a child of the start script lives on")
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := n.Stop(ctx, tk); !errors.Is(err, script.ErrTimedOut) {
		t.Errorf("stop: %v", err)
	}
}

func TestScriptsAreChecked(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "exit 0", "")
	path := n.dirs.ResourceScript("failover", "exec", "start.sh")
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), tk); !errors.Is(err, script.ErrWritable) {
		t.Errorf("writable by all: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), tk); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	tk.Resource.Exec = nil
	if err := n.Start(t.Context(), tk); err == nil {
		t.Error("started without a script")
	}
}

func TestAsync(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecAsync, "echo >>started; sleep 60 & echo $! >child; echo $$ >pid; wait", "echo >>stopped")
	for range 2 {
		n.must(t, n.Start, tk)
		n.check(t, tk, true)
	}
	pid, child := n.pid(t, "pid"), n.pid(t, "child")
	for range 2 {
		n.must(t, n.Stop, tk)
		n.check(t, tk, false)
	}
	if alive(pid) || alive(child) {
		t.Errorf("alive after Stop: %v, its child %v", alive(pid), alive(child))
	}
	if n.count("started") != 1 || n.count("stopped") != 1 || len(n.failures) != 0 {
		t.Errorf("started %d, stopped %d, failures %d", n.count("started"), n.count("stopped"), len(n.failures))
	}
}

func TestAsyncDeathIsAFailure(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecAsync, "sleep 60 & echo $! >child; echo $$ >pid; echo going down; sleep 0.05; exit 4", "")
	n.must(t, n.Start, tk)
	f := n.failure(t)
	want := fmt.Sprintf(`process %d ended with exit code 4 (its last output: "going down")`, n.pid(t, "pid"))
	if f.Group != "failover" || f.Resource != "exec" || f.Epoch != 3 || f.Text != want || f.At.IsZero() {
		t.Errorf("%+v, want %s", f, want)
	}
	n.check(t, tk, false)
	child := n.pid(t, "child")
	if !alive(child) {
		t.Fatal("the child is gone")
	}
	// What the dead left is ended before the next one starts.
	if err := os.Remove(filepath.Join(n.dirs.Etc, "child")); err != nil {
		t.Fatal(err)
	}
	n.must(t, n.Start, tk)
	if alive(child) {
		t.Error("the child of the dead process runs beside the new one")
	}
	child = n.pid(t, "child")
	n.must(t, n.Stop, tk)
	if alive(child) {
		t.Error("a child lives on")
	}
}

func TestAsyncThatIgnoresSIGTERM(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecAsync, "trap '' TERM; echo $$ >pid; while :; do sleep 60; done", "sleep 60")
	n.must(t, n.Start, tk)
	pid := n.pid(t, "pid")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := n.Stop(ctx, tk); !errors.Is(err, script.ErrTimedOut) {
		t.Errorf("the stop script had no time: %v", err)
	}
	if alive(pid) {
		t.Error("the process lives on though the time is over")
	}
}

// A daemon that was restarted finds what runs and goes on with it.
func TestTakeOver(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecAsync, "echo >>started; echo $$ >pid; while :; do sleep 0.05; done", "")
	n.must(t, n.Start, tk)
	pid := n.pid(t, "pid")

	second := over(n.dirs)
	second.check(t, tk, true)
	second.must(t, second.Start, tk)
	if second.count("started") != 1 {
		t.Error("it was started twice")
	}
	tk.Epoch = 4
	third := over(n.dirs)
	third.check(t, tk, true)
	third.must(t, third.Stop, tk)
	if alive(pid) {
		t.Error("it lives on")
	}
	f := second.failure(t) // for the second one it ended by itself
	if f.Epoch != 3 || !strings.Contains(f.Text, "exit code is not known") {
		t.Errorf("%+v", f)
	}
	over(n.dirs).check(t, tk, false)
}

func TestTakeOverOfTheDead(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecAsync, "sleep 60 & echo $! >child; sleep 0.05", "")
	n.must(t, n.Start, tk)
	n.failure(t)
	child := n.pid(t, "child")
	second := over(n.dirs)
	second.check(t, tk, false)
	second.must(t, second.Stop, tk)
	if alive(child) {
		t.Error("what the dead process left lives on")
	}
}

func TestTakeOverOfSync(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "exit 0", "echo >>stopped")
	n.must(t, n.Start, tk)
	second := over(n.dirs)
	second.check(t, tk, true)
	second.must(t, second.Stop, tk)
	if n.count("stopped") != 1 {
		t.Error("it was not stopped")
	}
}

func TestRecordsOfAnotherBootAreVoid(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "echo >>started", "echo >>stopped")
	if err := n.save("exec", &record{State: stateActive, Boot: "other"}); err != nil {
		t.Fatal(err)
	}
	n.check(t, tk, false)
	n.must(t, n.Stop, tk)
	n.must(t, n.Start, tk)
	if n.count("started") != 1 || n.count("stopped") != 0 {
		t.Errorf("started %d, stopped %d", n.count("started"), n.count("stopped"))
	}
}

// A record that was cut short means that nobody knows: Stop makes sure.
func TestBrokenRecord(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "exit 0", "echo >>stopped")
	n.must(t, n.Start, tk)
	if err := os.WriteFile(n.recordPath("exec"), []byte(`{"sta`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Check(t.Context(), tk); !errors.Is(err, ErrInterrupted) {
		t.Errorf("check: %v", err)
	}
	n.must(t, n.Stop, tk)
	n.check(t, tk, false)
	if n.count("stopped") != 1 {
		t.Error("it was not stopped")
	}
}

// Isolated processes stand still, and go on after Restore.
func TestIsolateFreezes(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "while :; do echo >>beats; sleep 0.01; done >/dev/null 2>&1 &", "echo >>stopped")
	n.must(t, n.Start, tk)
	n.grows(t, "beats", true)
	n.must(t, n.Isolate, tk)
	n.grows(t, "beats", false)
	n.must(t, n.Restore, tk)
	n.grows(t, "beats", true)
	n.must(t, n.Isolate, tk)
	n.must(t, n.Stop, tk)
	n.grows(t, "beats", false)
	if n.count("stopped") != 1 {
		t.Error("its stop script was not run")
	}
}

// grows looks whether a file of the scripts gets longer.
func (n *node) grows(t *testing.T, file string, want bool) {
	t.Helper()
	began := n.count(file)
	for range 50 {
		if n.count(file) > began+1 {
			if !want {
				t.Errorf("%s grows", file)
			}
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	if want {
		t.Errorf("%s does not grow", file)
	}
}

// What another program runs for the scripts is out of reach.
func TestIsolateWithoutProcesses(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "exit 0", "")
	n.must(t, n.Isolate, tk) // nothing is active
	n.must(t, n.Start, tk)
	if err := n.Isolate(t.Context(), tk); !errors.Is(err, resource.ErrCannotIsolate) {
		t.Errorf("without a floating IP: %v", err)
	}
	tk.Group.Resources = []config.Resource{{Name: "fip", Kind: config.KindFloatingIP}, tk.Resource}
	n.must(t, n.Isolate, tk)
	n.must(t, n.Restore, tk)
}

func TestLogSettings(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "exit 0", "")
	tk.Resource.Exec.LogFile, tk.Resource.Exec.LogSizeMB = "own.log", 3
	want := script.Log{Path: filepath.Join(n.dirs.Log, "own.log"), MaxSize: 3 << 20}
	if got := n.logOf(tk); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	tk.Resource.Exec.LogFile = "/var/x.log"
	if got := n.logOf(tk); got.Path != "/var/x.log" {
		t.Errorf("%+v", got)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- newNode(t).Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func BenchmarkStartStop(b *testing.B) {
	n := newNode(b)
	tk := n.task(b, config.ExecSync, "exit 0", "exit 0")
	for b.Loop() {
		if err := errors.Join(n.Start(context.Background(), tk), n.Stop(context.Background(), tk)); err != nil {
			b.Fatal(err)
		}
	}
}

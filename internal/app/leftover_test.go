package app

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/paths"
	"github.com/tasuki-ha/tasuki/internal/script"
	"github.com/tasuki-ha/tasuki/internal/store"
)

const leftCluster = `cluster: c
nodes:
  a: {addresses: [192.0.2.1]}
  b: {addresses: [192.0.2.2]}
  w: {addresses: [192.0.2.3], witness: true}
groups:
  g:
    resources:
      web: {kind: exec, start: start.sh, stop: stop.sh}
`

// left is a daemon over a directory in which an earlier one has left a group
// running.
func left(t *testing.T, guarded bool) (d *Daemon, stopped func() bool) {
	t.Helper()
	f, errs := config.Parse("test", []byte(leftCluster))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	dirs := paths.At(t.TempDir())
	if err := makeDirs(dirs); err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(dirs.Run, "stopped")
	for name, text := range map[string]string{"start.sh": "exit 0", "stop.sh": "echo >" + mark} {
		path := dirs.ResourceScript("g", "web", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d = &Daemon{dirs: dirs, log: slog.New(slog.DiscardHandler), ctx: t.Context(), product: script.ThisProduct("1")}
	r := runs{Cluster: "c", Node: "a", Runs: engine.Runs{Guarded: guarded, Groups: []engine.Task{{Group: *f.Group("g"), Epoch: 7, Event: "START"}}}}
	if err := writeRuns(dirs.Run, r); err != nil {
		t.Fatal(err)
	}
	back, err := readRuns(dirs.Run)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, back); diff != "" {
		t.Errorf("what is kept is not what comes back: %s", diff)
	}
	start := engine.Operation{Task: r.Groups[0]}
	start.Op.Resource, start.Op.Start = "web", true
	if done := d.lastActor(r, nil).step(start); done.Why != "" {
		t.Fatal(done.Why)
	}
	return d, func() bool { _, err := os.Stat(mark); return err == nil }
}

func TestADaemonThatCannotGoOnStopsWhatRuns(t *testing.T) {
	d, stopped := left(t, true)
	d.abandon(errors.New("no space left on device"))
	if !stopped() {
		t.Error("what an earlier daemon left was not stopped")
	}
	if r, err := readRuns(d.dirs.Run); err != nil || len(r.Groups) > 0 {
		t.Errorf("%v %v", r, err)
	}
	if why := lastEnd(d.dirs.Run, d.log); why != "no space left on device" {
		t.Errorf("the next daemon is told %q", why)
	}
	if why := lastEnd(d.dirs.Run, d.log); why != "" {
		t.Errorf("and again: %q", why)
	}
}

func TestWhatRunsIsLeftAlone(t *testing.T) {
	d, stopped := left(t, true)
	if d.abandon(fmt.Errorf("open: %w", store.ErrLocked)); stopped() {
		t.Error("while another daemon is at work")
	}
	if d, stopped = left(t, false); stopped() {
		t.Error("at the start")
	}
	if d.abandon(errors.New("no")); stopped() {
		t.Error("where nobody else can take it over")
	}
	d, stopped = left(t, true)
	l, _, err := openLease(d.dirs.Run)
	if err != nil {
		t.Fatal(err)
	}
	defer l.f.Close()
	now := engine.Now()
	l.write(now.Add(isolateLeftover + 100*time.Millisecond))
	time.AfterFunc(10*time.Millisecond, func() { l.write(now.Add(time.Hour)) })
	if d.abandon(errors.New("no")); stopped() {
		t.Error("while another daemon renews the lease")
	}
}

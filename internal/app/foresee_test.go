package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

// thinker is a foreseer whose thinking is done by a script.
func thinker(t *testing.T, script string) *foreseer {
	t.Helper()
	f := newForeseer()
	f.program = filepath.Join(t.TempDir(), "thinker")
	if err := os.WriteFile(f.program, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

func errand(context.Context) (whatif.Errand, error) {
	return whatif.Errand{Asked: api.SimulateRequest{Move: "g"}}, nil
}

func codeOf(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestForesee(t *testing.T) {
	got, err := thinker(t, `test "$1" = foresee && grep -q '"move":"g"' && echo '{"simulation":{"cluster":"c","steps":null,"groups":null}}'`).ask(t.Context(), errand)
	if err != nil || got.Cluster != "c" {
		t.Error(got, err)
	}
	if _, err := thinker(t, `echo '{"error":{"code":"no-such-node","message":"m","hint":"h"}}'`).ask(t.Context(), errand); codeOf(err) != "no-such-node" {
		t.Error(err)
	}
	for script, want := range map[string]string{
		"echo 'runtime: out of memory' >&2; exit 2": "exit code 2 (runtime: out of memory)",
		"echo '{'":  "unexpected end",
		"echo '{}'": "there is no answer",
	} {
		if _, err := thinker(t, script).ask(t.Context(), errand); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", script, err)
		}
	}
}

// Who goes away takes the thinking with him; who comes meanwhile waits, and no longer
// than for an answer.
func TestForeseeOneAtATime(t *testing.T) {
	f := thinker(t, "echo $$ >$0.pid; exec sleep 1000")
	ctx, goes := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := f.ask(ctx, errand)
		ended <- err
	}()
	pid := ""
	for deadline := time.Now().Add(10 * time.Second); pid == ""; {
		if data, err := os.ReadFile(f.program + ".pid"); err == nil {
			pid = strings.TrimSpace(string(data))
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing thinks")
		}
	}
	second, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.ask(second, errand); codeOf(err) != "overload" {
		t.Error(err)
	}
	goes()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := os.Stat("/proc/" + pid); err == nil {
		t.Error("it goes on thinking")
	}
	f.within = 100 * time.Millisecond
	if _, err := f.ask(t.Context(), errand); codeOf(err) != "timed-out" {
		t.Error(err)
	}
}

package exec

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// What the start script left behind is ended, also by a daemon that was started
// anew since, and also what left its session.
func TestForce(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "sleep 60 & echo $! >pid; setsid sleep 60 & echo $! >far", "exit 1")
	n.must(t, n.Start, tk)
	pid, far := n.pid(t, "pid"), n.pid(t, "far")
	if err := n.Stop(t.Context(), tk); err == nil {
		t.Fatal("the stop script failed, and nobody said so")
	}
	later := over(n.dirs)
	later.check(t, tk, true)
	how, err := later.Force(t.Context(), tk)
	if err != nil || !strings.HasPrefix(how, "2 processes (") || !strings.HasSuffix(how, " ended") {
		t.Errorf("%q %v", how, err)
	}
	if alive(pid) || alive(far) {
		t.Errorf("alive: %v %v", alive(pid), alive(far))
	}
	later.check(t, tk, false)
	if how, err := later.Force(t.Context(), tk); err != nil || how != "it was not active" {
		t.Errorf("once more: %q %v", how, err)
	}
}

// Where nothing is found, a script may have given the service to somebody else:
// nobody may conclude that it is inactive.
func TestForceDoesNotGuess(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecSync, "true", "exit 1")
	n.must(t, n.Start, tk)
	if _, err := n.Force(t.Context(), tk); !errors.Is(err, ErrUnknownProcesses) {
		t.Errorf("got %v", err)
	}
	n.check(t, tk, true)
}

// A stop script that hangs has its own processes, which force ends too.
func TestForceAsync(t *testing.T) {
	n := newNode(t)
	tk := n.task(t, config.ExecAsync, "echo $$ >pid; while :; do sleep 0.05; done", "setsid sleep 60 & echo $! >far; exit 1")
	n.must(t, n.Start, tk)
	pid := n.pid(t, "pid")
	if err := n.Stop(t.Context(), tk); err == nil {
		t.Fatal("the stop script failed, and nobody said so")
	}
	far := n.pid(t, "far")
	if _, err := n.Force(t.Context(), tk); err != nil {
		t.Fatal(err)
	}
	if alive(pid) || alive(far) || len(n.failures) > 0 {
		t.Errorf("alive: %v %v, failures: %d", alive(pid), alive(far), len(n.failures))
	}
	n.check(t, tk, false)
}

// A stop that succeeds decides what belongs to the service: what it leaves is
// told of and left alone.
func TestWhatAStopLeavesIsTold(t *testing.T) {
	n := newNode(t)
	told := make(chan resource.Notice, 1)
	n.notice = func(x resource.Notice) { told <- x }
	tk := n.task(t, config.ExecSync, "sleep 60 & echo $! >pid; setsid sleep 60 & echo $! >far", "kill $(cat pid)")
	n.must(t, n.Start, tk)
	far := n.pid(t, "far")
	n.must(t, n.Stop, tk)
	if !alive(far) {
		t.Error("it was ended though the stop succeeded")
	}
	select {
	case x := <-told:
		if x.Code != "resource-left-processes" || !strings.Contains(x.Text, "1 process ("+strconv.Itoa(far)) {
			t.Errorf("told: %+v", x)
		}
	case <-time.After(leftAfter + 5*time.Second):
		t.Error("nobody was told")
	}
	n.check(t, tk, false)
}

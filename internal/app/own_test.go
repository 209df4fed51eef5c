package app

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
)

func shell(ctx context.Context, k *asker, script string) (string, error) {
	out, err := k.ask(ctx, []byte("asked"), "-c", script)
	return string(out), err
}

func TestAskOwnProgram(t *testing.T) {
	k := newAsker()
	k.program = "/bin/sh"
	for script, want := range map[string]string{
		"cat": "asked", "echo no; echo why >&2; exit 1": "no\n",
		"sleep 0.2; nice; cat /proc/self/oom_score_adj; echo $GOMEMLIMIT": "10\n1000\n256MiB\n",
	} {
		if got, err := shell(t.Context(), k, script); err != nil || got != want {
			t.Errorf("%s: %q, %v", script, got, err)
		}
	}
	if _, err := shell(t.Context(), k, "echo why >&2; exit 2"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Error(err)
	}
	if _, err := shell(t.Context(), k, "yes | head -c 17000000"); err == nil {
		t.Error("an answer without bound is taken")
	}
}

// A question ends with its asker, and nobody waits for long behind another one.
func TestAskOneAtATime(t *testing.T) {
	k := newAsker()
	k.program, k.queue = "/bin/sh", time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	began := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		k.turn <- struct{}{}
		close(began)
		<-ctx.Done()
		<-k.turn
		_, err := k.ask(ctx, nil, "-c", "sleep 60")
		ended <- err
	}()
	<-began
	var e *api.Error
	if _, err := shell(t.Context(), k, "true"); !errors.As(err, &e) || e.Code != "overload" || e.Hint == "" {
		t.Error(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got, err := shell(t.Context(), k, "echo on"); err != nil || got != "on\n" {
		t.Error(got, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := shell(ctx, k, "exec sleep 60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

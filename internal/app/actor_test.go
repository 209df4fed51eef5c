package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/plan"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// stuck is a driver whose Stop waits for its context, or for free if it is deaf.
type stuck struct {
	resource.Driver
	deaf bool
	easy atomic.Bool // it does not wait any more
	free chan struct{}
}

func (s *stuck) Stop(ctx context.Context, _ resource.Task) error {
	if s.deaf {
		<-s.free
		return errors.New("too late")
	}
	if s.easy.Load() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *stuck) Force(context.Context, resource.Task) (string, error) { return "1 process ended", nil }
func (s *stuck) Isolate(context.Context, resource.Task) error         { return nil }

// with runs f with an actor over the driver in a bubble of time.
func with(t *testing.T, d *stuck, f func(a *actor, task engine.Task, done chan engine.OpDone)) {
	synctest.Test(t, func(t *testing.T) {
		done := make(chan engine.OpDone, 10)
		d.free = make(chan struct{})
		a := &actor{drivers: map[config.ResourceKind]resource.Driver{config.KindExec: d}, ctx: t.Context(), log: slog.New(slog.DiscardHandler),
			lanes: map[cluster.ResourceName]*lane{}, post: func(ev engine.Event) { done <- *ev.OpDone }}
		g := config.Group{Name: "web", Resources: []config.Resource{{Name: "www", Kind: config.KindExec, StopTimeout: time.Hour}}}
		f(a, engine.Task{Group: g}, done)
		close(d.free)
		a.wg.Wait()
	})
}

var force = plan.Op{Resource: "www", Force: true, Attempt: 1}

// Force does not wait for a stop that only waits for the end of its time.
func TestForceCutsTheStopShort(t *testing.T) {
	with(t, &stuck{}, func(a *actor, task engine.Task, done chan engine.OpDone) {
		a.operate(engine.Operation{Task: task, Op: plan.Op{Resource: "www", Attempt: 1}})
		synctest.Wait()
		a.operate(engine.Operation{Task: task, Op: force})
		first, second := <-done, <-done
		if first.Op.Force { // both end at the same time
			first, second = second, first
		}
		if first.Op.Force || first.Why == "" || second.Op != force || second.Why != "" || second.How != "1 process ended" || second.Took > time.Second {
			t.Errorf("%+v, then %+v", first, second)
		}
	})
}

// A stop that an isolation cuts short is made once more: it has not failed.
func TestStopAfterIsolation(t *testing.T) {
	d := &stuck{}
	with(t, d, func(a *actor, task engine.Task, done chan engine.OpDone) {
		a.operate(engine.Operation{Task: task, Op: plan.Op{Resource: "www", Attempt: 1}})
		synctest.Wait()
		d.easy.Store(true)
		if !a.isolate(task, time.Second) {
			t.Error("it was not isolated")
		}
		if d := <-done; d.Why != "" {
			t.Errorf("%+v", d)
		}
	})
}

// Beside a stop that does not come back nothing is done, force neither: nobody
// knows what the stop still does. Isolating such a resource takes its bound only.
func TestNothingBesideAStepThatDoesNotComeBack(t *testing.T) {
	with(t, &stuck{deaf: true}, func(a *actor, task engine.Task, done chan engine.OpDone) {
		a.operate(engine.Operation{Task: task, Op: plan.Op{Resource: "www", Attempt: 1}})
		synctest.Wait()
		a.operate(engine.Operation{Task: task, Op: force})
		if d := <-done; d.Op != force || !strings.Contains(d.Why, errBusy.Error()) || d.Took != plan.ForceWithin {
			t.Errorf("%+v", d)
		}
		began := time.Now()
		a.isolate(task, 300*time.Millisecond)
		if took := time.Since(began); took != 300*time.Millisecond {
			t.Errorf("isolating took %v", took)
		}
	})
}

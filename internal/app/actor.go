package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// actor carries out what the engine wants done with resources. Each resource
// has one step under way at a time; isolating one cuts its step short.
type actor struct {
	cluster cluster.Name
	node    cluster.NodeName
	drivers map[config.ResourceKind]resource.Driver
	post    func(engine.Event)
	log     *slog.Logger
	ctx     context.Context // ends with the daemon

	mu    sync.Mutex
	lanes map[cluster.ResourceName]*lane
	wg    sync.WaitGroup
}

// lane is the order of steps of one resource.
type lane struct {
	busy   chan struct{}           // capacity 1: full while a step is under way
	cancel context.CancelCauseFunc // of the step under way; guarded by actor.mu
}

// errBusy: a step of the resource does not come back, so no other can be taken.
var errBusy = errors.New("an earlier step of it has not come back")

// Why a step was cut short.
var (
	errIsolated = errors.New("it was cut short because the node was isolated")
	errForced   = errors.New("it was cut short because the resource is stopped by force")
)

func (a *actor) task(t engine.Task, r *config.Resource) resource.Task {
	rt := resource.Task{
		Cluster: a.cluster, Node: a.node, Group: t.Group, Resource: *r, Epoch: t.Epoch,
		Event: t.Event, Factor: t.Factor, Previous: t.Previous, Cause: t.Cause, Ended: t.Ended, Life: t.Life, Down: t.Down, Handed: t.Handed,
	}
	if m, is := t.Mirrors[r.Name]; is {
		rt.Mirror = &m
	}
	return rt
}

func (a *actor) lane(r cluster.ResourceName) *lane {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.lanes[r]
	if l == nil {
		l = &lane{busy: make(chan struct{}, 1)}
		a.lanes[r] = l
	}
	return l
}

// in runs f as the resource's only step, with a context that an isolation
// cancels: then its error is errIsolated too. The limit counts the wait for the step
// before too.
func (a *actor) in(r cluster.ResourceName, limit time.Duration, f func(context.Context) error) error {
	l := a.lane(r)
	ctx, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	if limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, limit)
		defer stop()
	}
	select {
	case l.busy <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errBusy, ctx.Err())
	}
	defer func() { <-l.busy }()
	a.mu.Lock()
	l.cancel = cancel
	a.mu.Unlock()
	err := f(ctx)
	if err != nil && context.Cause(ctx) == errIsolated {
		return fmt.Errorf("%w: %w", errIsolated, err)
	}
	return err
}

// interrupt cancels the step under way, if there is one.
func (a *actor) interrupt(r cluster.ResourceName, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.lanes[r]; l != nil && l.cancel != nil {
		l.cancel(why)
	}
}

func (a *actor) driver(r *config.Resource) (resource.Driver, error) {
	d := a.drivers[r.Kind]
	if d == nil {
		return nil, fmt.Errorf("this build has no resources of kind %s", r.Kind)
	}
	return d, nil
}

// operate starts one step; its outcome comes back as an event.
func (a *actor) operate(op engine.Operation) {
	a.wg.Go(func() {
		done := a.step(op)
		a.post(engine.Event{OpDone: &done})
	})
}

// step carries out one step.
func (a *actor) step(op engine.Operation) engine.OpDone {
	r := op.Group.Resource(op.Op.Resource)
	began := time.Now()
	limit, how := op.Op.Limit(r), ""
	d, err := a.driver(r)
	if op.Op.Force {
		a.interrupt(r.Name, errForced) // a stop that does not come back
	}
	if err == nil {
		if !op.Op.Start {
			a.unblock(op.Task, r)
		}
		do := func(ctx context.Context) (err error) {
			switch {
			case op.Op.Start:
				return d.Start(ctx, a.task(op.Task, r))
			case op.Op.Force:
				how, err = d.Force(ctx, a.task(op.Task, r))
				return err
			}
			return d.Stop(ctx, a.task(op.Task, r))
		}
		err = a.in(r.Name, limit, do)
		for errors.Is(err, errIsolated) && !op.Op.Start && !op.Op.Force && time.Since(began) < limit {
			err = a.in(r.Name, limit-time.Since(began), do) // that it was cut short is no failure of its own
		}
	}
	done := engine.OpDone{Group: op.Group.Name, Epoch: op.Epoch, Op: op.Op, How: how, Took: time.Since(began)}
	if err != nil {
		done.Why = err.Error()
		if errors.Is(err, context.DeadlineExceeded) {
			done.Why = fmt.Sprintf("not done within %s: %v", limit, err)
		}
	}
	return done
}

// unblockWithin bounds unblock: of a resource that does not need it, it takes a
// millisecond.
const unblockWithin = 2 * time.Second

// unblock makes what r depends on let go of those that wait in it for what can never
// be done, so that r can be stopped.
func (a *actor) unblock(t engine.Task, r *config.Resource) {
	for _, n := range r.After {
		on := t.Group.Resource(n)
		if on == nil {
			continue
		}
		a.unblock(t, on)
		d, err := a.driver(on)
		if u, can := d.(resource.Unblocker); can {
			err = a.in(n, unblockWithin, func(ctx context.Context) error { return u.Unblock(ctx, a.task(t, on)) })
		}
		if err != nil {
			a.log.Error("a resource may hold what depends on it", "resource", n, "dependent", r.Name, "error", err)
		}
	}
}

// check looks which resources of a group are active, after a start of the
// daemon.
func (a *actor) check(t engine.Task) {
	a.wg.Go(func() {
		c := engine.Checked{Group: t.Group.Name, Epoch: t.Epoch, Inactive: map[cluster.ResourceName]string{}}
		for i := range t.Group.Resources {
			r := &t.Group.Resources[i]
			d, err := a.driver(r)
			active := false
			if err == nil {
				err = a.in(r.Name, 10*time.Second, func(ctx context.Context) (err error) {
					active, err = d.Check(ctx, a.task(t, r))
					return err
				})
			}
			switch {
			case err != nil:
				c.Inactive[r.Name] = err.Error()
			case !active:
				c.Inactive[r.Name] = "it is not active"
			}
		}
		a.post(engine.Event{Checked: &c})
	})
}

// isolate makes a group harmless within the time that the cluster file keeps for
// it, all its resources at once, and waits for it. It says whether that was done.
func (a *actor) isolate(t engine.Task, within time.Duration) bool {
	return a.each(t, within, func(ctx context.Context, d resource.Driver, rt resource.Task) error { return d.Isolate(ctx, rt) }, true, "isolate")
}

// restore undoes isolate.
func (a *actor) restore(t engine.Task, within time.Duration) {
	a.each(t, within, func(ctx context.Context, d resource.Driver, rt resource.Task) error { return d.Restore(ctx, rt) }, false, "restore")
}

// announce tells the network again where a group is.
func (a *actor) announce(t engine.Task) {
	for i := range t.Group.Resources {
		r := &t.Group.Resources[i]
		if d, err := a.driver(r); err == nil {
			if n, can := d.(resource.Announcer); can {
				n.Announce(a.task(t, r))
			}
		}
	}
}

func (a *actor) each(t engine.Task, within time.Duration, do func(context.Context, resource.Driver, resource.Task) error, interrupt bool, what string) bool {
	var wg sync.WaitGroup
	var failed atomic.Bool
	for i := range t.Group.Resources {
		r := &t.Group.Resources[i]
		if interrupt {
			a.interrupt(r.Name, errIsolated)
		}
		wg.Go(func() {
			d, err := a.driver(r)
			if err == nil {
				err = a.in(r.Name, within, func(ctx context.Context) error { return do(ctx, d, a.task(t, r)) })
			}
			if err != nil {
				failed.Store(true)
				a.log.Error("a resource could not be made harmless, or back", "what", what, "resource", r.Name, "error", err)
			}
		})
	}
	wg.Wait()
	return !failed.Load()
}

// failed passes on that a resource failed by itself.
func (a *actor) failed(f resource.Failure) {
	a.post(engine.Event{Failed: &engine.Failed{Group: f.Group, Resource: f.Resource, Epoch: f.Epoch, Why: f.Text}})
}

// notice passes on a line for the operator's log.
func (a *actor) notice(n resource.Notice) {
	a.post(engine.Event{Log: &api.Event{Level: n.Level, Module: "rs", Code: n.Code, Text: n.Text, Cause: n.Cause,
		Fields: map[string]string{"group": string(n.Group), "resource": string(n.Resource)}}})
}

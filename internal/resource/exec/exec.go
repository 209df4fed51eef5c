// Package exec is the resource kind exec: a start script and a stop script of
// the administrator. In mode sync the resource is active when the start script
// has succeeded, and may have left daemons behind; in mode async the start script
// is the service, it is watched, and its end is a failure.
//
// What is active is kept in a file per resource in the directory for running
// state, which is empty after a boot. So a daemon that was restarted takes over
// what runs without touching it.
package exec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/paths"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/script"
)

// trimEvery is how often the logs of daemons left behind are looked at.
const trimEvery = 10 * time.Second

// ErrInterrupted: this program ended while the start script ran, so nobody knows
// whether the resource is active. Stop makes sure that it is not.
var ErrInterrupted = errors.New("its start was interrupted, so nobody knows whether it is active")

// Options is what a Driver needs. Log, Failed and Notice may be nil.
type Options struct {
	Dirs    paths.Dirs
	Product script.Product
	Log     *slog.Logger
	Failed  func(resource.Failure) // called from a goroutine of its own; must not block
	Notice  func(resource.Notice)
}

// Driver is the resource.Driver of scripts.
type Driver struct {
	dirs    paths.Dirs
	product script.Product
	log     *slog.Logger
	failed  func(resource.Failure)
	notice  func(resource.Notice)

	mu      sync.Mutex
	running map[cluster.ResourceName]*running   // mode async
	logs    map[cluster.ResourceName]script.Log // of active resources in mode sync
}

var _ resource.Driver = (*Driver)(nil)

// running is a supervised process.
type running struct {
	*script.Process
	stopping bool // its end is no failure; guarded by Driver.mu
}

func (r *running) ended() bool {
	select {
	case <-r.Done():
		return true
	default:
		return false
	}
}

// New returns a driver that supervises nothing yet.
func New(o Options) *Driver {
	d := &Driver{
		dirs: o.Dirs, product: o.Product, log: o.Log, failed: o.Failed, notice: o.Notice,
		running: map[cluster.ResourceName]*running{}, logs: map[cluster.ResourceName]script.Log{},
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.failed == nil {
		d.failed = func(resource.Failure) {}
	}
	if d.notice == nil {
		d.notice = func(resource.Notice) {}
	}
	return d
}

// Run keeps the logs of daemons that start scripts left behind at their size,
// until ctx ends.
func (d *Driver) Run(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, l := range d.syncLogs() {
			if err := l.Trim(); err != nil {
				d.log.Warn("a log cannot be rotated", "err", err)
			}
		}
	}
}

func (d *Driver) syncLogs() (out []script.Log) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.logs {
		out = append(out, l)
	}
	return out
}

// Start runs the start script: to its end in mode sync, and as the supervised
// process in mode async.
func (d *Driver) Start(ctx context.Context, t resource.Task) error {
	x := t.Resource.Exec
	if x == nil || x.Start == "" {
		return fmt.Errorf("resource %s has no start script", t.Resource.Name)
	}
	rec, err := d.load(t.Resource.Name)
	if err != nil {
		return err
	}
	if active, err := d.active(rec, t); active && err == nil {
		return nil
	}
	if err := d.end(ctx, t.Resource.Name, rec); err != nil {
		return fmt.Errorf("end what is left of an earlier process: %w", err)
	}
	rec = &record{Group: t.Group.Name, Epoch: t.Epoch, State: stateStarting, Boot: script.BootID(), Mark: script.NewMark()}
	if err := d.save(t.Resource.Name, rec); err != nil {
		return err
	}
	if x.Mode == config.ExecAsync {
		return d.startAsync(ctx, t, rec)
	}
	if err := d.runScript(ctx, t, rec, "start", x.Start); err != nil {
		return errors.Join(err, d.save(t.Resource.Name, rec))
	}
	d.keepLog(t)
	rec.State = stateActive
	return d.save(t.Resource.Name, rec)
}

func (d *Driver) startAsync(ctx context.Context, t resource.Task, rec *record) error {
	spec, err := d.spec(t, rec, t.Resource.Exec.Start)
	if err != nil {
		return fmt.Errorf("start script: %w", err)
	}
	p, err := script.Start(ctx, spec)
	if err != nil {
		return fmt.Errorf("start script: %w", err)
	}
	r := &running{Process: p}
	d.mu.Lock()
	d.running[t.Resource.Name] = r
	d.mu.Unlock()
	id, err := p.Identity()
	if err != nil {
		// It has ended already: a failure of the start, which is clearer than
		// one of an active resource.
		select {
		case <-p.Done():
		case <-ctx.Done():
		}
		return fmt.Errorf("start script %s %s at once", spec.Path, outcome(p.Result()))
	}
	rec.State, rec.Process = stateActive, &id
	rec.inCgroup(id.Cgroup)
	if err := d.save(t.Resource.Name, rec); err != nil {
		return errors.Join(err, d.end(ctx, t.Resource.Name, rec))
	}
	go d.supervise(r, t)
	return nil
}

// supervise reports the end of the process, unless it was stopped.
func (d *Driver) supervise(r *running, t resource.Task) {
	<-r.Done()
	d.mu.Lock()
	stopped := r.stopping || d.running[t.Resource.Name] != r
	d.mu.Unlock()
	if stopped {
		return
	}
	d.failed(resource.Failure{
		Group: t.Group.Name, Resource: t.Resource.Name, Epoch: t.Epoch, At: time.Now(),
		Text: fmt.Sprintf("process %d %s", r.PID(), outcome(r.Result())),
	})
}

// outcome says how a program ended, with the last line that it wrote.
func outcome(r script.Result) string {
	text := "ended with exit code 0"
	if err := r.Err(); err != nil {
		text = err.Error()
	}
	if line := r.LastLine(); line != "" {
		text += fmt.Sprintf(" (its last output: %.200q)", line)
	}
	return text
}

// Stop runs the stop script, if there is one, and ends the supervised process
// with everything that it started. What was never started is not stopped: stop
// scripts need not bear that.
func (d *Driver) Stop(ctx context.Context, t resource.Task) error {
	rec, err := d.load(t.Resource.Name)
	if err != nil || rec == nil {
		return err
	}
	d.mu.Lock()
	if r := d.running[t.Resource.Name]; r != nil {
		r.stopping = true
	}
	d.mu.Unlock()
	failed := d.endFrozen(ctx, t, rec)
	if x := t.Resource.Exec; failed == nil && x != nil && x.Stop != "" {
		failed = d.runScript(ctx, t, rec, "stop", x.Stop)
	}
	if failed != nil {
		failed = errors.Join(failed, d.save(t.Resource.Name, rec))
	}
	if err := errors.Join(failed, d.end(ctx, t.Resource.Name, rec)); err != nil {
		return err
	}
	time.AfterFunc(leftAfter, func() { d.tellLeft(t, rec.family()) })
	return d.gone(t.Resource.Name)
}

// leftAfter is how long what a stop script has ended may need to be gone.
const leftAfter = 2 * time.Second

// tellLeft tells of processes that live on though the stop script succeeded. It
// knows what belongs to the service, so they are left alone.
func (d *Driver) tellLeft(t resource.Task, f script.Family) {
	left, err := f.Members()
	if err != nil || len(left) == 0 {
		return
	}
	d.notice(resource.Notice{Level: cluster.LevelWarn, Code: "resource-left-processes", Group: t.Group.Name, Resource: t.Resource.Name, Cause: t.Cause,
		Text: fmt.Sprintf("The stop script of %s has succeeded and left %s that the scripts had started.", t.Resource.Name, script.Count(left))})
}

// gone notes that the resource is surely inactive.
func (d *Driver) gone(name cluster.ResourceName) error {
	d.mu.Lock()
	delete(d.logs, name)
	d.mu.Unlock()
	return d.forget(name)
}

// killAfter is how long Force waits between SIGTERM and SIGKILL.
const killAfter = 3 * time.Second

// ErrUnknownProcesses: nothing that the scripts started can be found, so nobody
// knows what the service consists of.
var ErrUnknownProcesses = errors.New("no process that its scripts started is left here, so whether it still runs, " +
	"for example under another service manager, is not known")

// Force ends every process that the scripts left behind, and looks whether they
// are gone. In mode sync it does not succeed where it finds none: what the
// start script handed to somebody else is out of its reach.
func (d *Driver) Force(ctx context.Context, t resource.Task) (string, error) {
	rec, err := d.load(t.Resource.Name)
	if err != nil {
		return "", err
	}
	if rec == nil {
		return "it was not active", nil
	}
	met, err := rec.family().End(ctx, killAfter)
	if err != nil {
		return "", err
	}
	if rec.Process != nil {
		if err := d.end(ctx, t.Resource.Name, rec); err != nil {
			return "", err
		}
	} else if len(met) == 0 {
		return "", ErrUnknownProcesses
	}
	if len(met) == 0 {
		return "its process had ended", d.gone(t.Resource.Name)
	}
	return script.Count(met) + " ended", d.gone(t.Resource.Name)
}

// end ends the supervised process of the record with all that it started.
func (d *Driver) end(ctx context.Context, name cluster.ResourceName, rec *record) error {
	d.mu.Lock()
	r := d.running[name]
	d.mu.Unlock()
	if r == nil && rec != nil && rec.Process != nil {
		p, err := script.Adopt(*rec.Process, script.Log{})
		if err != nil && !errors.Is(err, script.ErrNotRunning) {
			return err
		}
		r = &running{Process: p}
	}
	if r == nil {
		return nil
	}
	d.mu.Lock()
	r.stopping = true
	d.mu.Unlock()
	if err := r.Process.Stop(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.running, name)
	d.mu.Unlock()
	return nil
}

// Check says whether the resource is active. A process that an earlier life of
// this program started is supervised from now on. ErrInterrupted if that life
// ended while the start script ran.
func (d *Driver) Check(_ context.Context, t resource.Task) (bool, error) {
	rec, err := d.load(t.Resource.Name)
	if err != nil {
		return false, err
	}
	return d.active(rec, t)
}

func (d *Driver) active(rec *record, t resource.Task) (bool, error) {
	switch {
	case rec == nil:
		return false, nil
	case rec.State == stateStarting:
		return false, fmt.Errorf("resource %s: %w", t.Resource.Name, ErrInterrupted)
	case rec.Process == nil:
		d.keepLog(t)
		return true, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.running[t.Resource.Name]; r != nil {
		return !r.ended(), nil
	}
	p, err := script.Adopt(*rec.Process, d.logOf(t))
	if errors.Is(err, script.ErrNotRunning) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r := &running{Process: p}
	d.running[t.Resource.Name] = r
	go d.supervise(r, t)
	return true, nil
}

// Isolate freezes every process that the scripts have started. Where none can be
// found, because another service manager runs the service, it is left to the
// group's floating IP, by which clients reach it; without one the resource can
// only be stopped.
func (d *Driver) Isolate(ctx context.Context, t resource.Task) error {
	rec, err := d.load(t.Resource.Name)
	if err != nil || rec == nil {
		return err
	}
	frozen, err := rec.family().Freeze(ctx)
	if err != nil || len(frozen) > 0 {
		return err
	}
	isFloating := func(r config.Resource) bool { return r.Kind == config.KindFloatingIP }
	if slices.ContainsFunc(t.Group.Resources, isFloating) {
		return nil
	}
	return resource.ErrCannotIsolate
}

// Restore lets the processes go on.
func (d *Driver) Restore(_ context.Context, t resource.Task) error {
	rec, err := d.load(t.Resource.Name)
	if err != nil || rec == nil {
		return err
	}
	return rec.family().Thaw()
}

// endFrozen kills what Isolate froze: its time to write is over, also to end in
// order. The stop script then clears up.
func (d *Driver) endFrozen(ctx context.Context, t resource.Task, rec *record) error {
	n, err := rec.family().EndFrozen(ctx)
	if n > 0 {
		d.notice(resource.Notice{Level: cluster.LevelWarn, Code: "resource-killed", Group: t.Group.Name, Resource: t.Resource.Name, Cause: t.Cause,
			Text: fmt.Sprintf("Resource %s was isolated and has been killed (%d processes), so that it does nothing more without a lease.", t.Resource.Name, n)})
	}
	return err
}

// runScript runs a script to its success, and notes in the record where what it
// leaves behind is found.
func (d *Driver) runScript(ctx context.Context, t resource.Task, rec *record, what, file string) error {
	spec, err := d.spec(t, rec, file)
	if err != nil {
		return fmt.Errorf("%s script: %w", what, err)
	}
	r, err := script.Run(ctx, spec)
	rec.inCgroup(r.Cgroup)
	if r.LogError != nil {
		d.log.Warn("the log of a script cannot be written", "resource", t.Resource.Name, "err", r.LogError)
	}
	if err != nil && !errors.Is(err, script.ErrTimedOut) {
		return fmt.Errorf("%s script: %w", what, err)
	}
	if err != nil || r.Err() != nil {
		return fmt.Errorf("%s script %s %w", what, spec.Path, &exitError{r})
	}
	return nil
}

// exitError is a script that did not succeed.
type exitError struct{ script.Result }

func (e *exitError) Error() string { return outcome(e.Result) }
func (e *exitError) Unwrap() error { return e.Result.Err() }

func (d *Driver) spec(t resource.Task, rec *record, file string) (script.Spec, error) {
	path := d.dirs.ResourceScript(string(t.Group.Name), string(t.Resource.Name), file)
	if err := script.Check(path); err != nil {
		return script.Spec{}, err
	}
	env := append(d.product.EnvForTask(t), script.MarkName+"="+rec.Mark)
	return script.Spec{Path: path, Env: env, Log: d.logOf(t)}, nil
}

func (d *Driver) logOf(t resource.Task) script.Log {
	name, size := "", 0
	if x := t.Resource.Exec; x != nil {
		name, size = x.LogFile, x.LogSizeMB
	}
	if name == "" {
		name = fmt.Sprintf("%s-%s.log", t.Group.Name, t.Resource.Name)
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(d.dirs.Log, name)
	}
	return script.Log{Path: name, MaxSize: int64(size) << 20}
}

func (d *Driver) keepLog(t resource.Task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logs[t.Resource.Name] = d.logOf(t)
}

// Package fence forces nodes off from outside, by the agents of fence-agents or by
// a linked cluster, and tries now and then whether that would work. A node counts
// as off only when a device has said so after it was told to switch it off.
package fence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Power is what a device knows of a node.
type Power int

// The states of power.
const (
	PowerUnknown Power = iota
	PowerOn
	PowerOff
)

// ErrNoStatus is returned by Device.Status where the device can never tell.
var ErrNoStatus = errors.New("the device cannot tell whether a node is off")

// Device switches nodes off. plug is what it calls the node. All calls are bounded
// by their context, whose end is a failure.
type Device interface {
	// Off has the node switched off. nil says that the device took the order;
	// whether the node is off is asked with Status.
	Off(ctx context.Context, plug string) error
	// Status tells whether the node has power. Without an error it is PowerOn or
	// PowerOff.
	Status(ctx context.Context, plug string) (Power, error)
	// Check says whether the device answers and would obey. It switches nothing.
	Check(ctx context.Context) error
}

// AgentDir is where distributions put fence agents.
const AgentDir = "/usr/sbin"

// statusEvery is how long a node that is still on is not asked about again.
const statusEvery = 500 * time.Millisecond

// Options is what a Fencer needs.
type Options struct {
	Self   cluster.NodeName
	File   func() *config.File
	Link   func(config.Fence) Device   // makes the device of a linked cluster; nil: there are none
	Heard  func(cluster.NodeName) bool // the node is surely on, because it is heard; nil: not known
	Report func(api.Event)             // a line for the operator's log
	Log    *slog.Logger
	Dir    string // of the agents; "": AgentDir
}

// Fencer forces the other nodes of a cluster off.
type Fencer struct {
	opt     Options
	known   *agents
	changed chan struct{} // capacity 1
	turn    chan struct{} // capacity 1: held by the check under way

	mu     sync.Mutex
	states map[target]state
	busy   int                // calls of Off under way
	cut    context.CancelFunc // ends the check under way
}

// New returns a Fencer.
func New(o Options) *Fencer {
	if o.Dir == "" {
		o.Dir = AgentDir
	}
	if o.Heard == nil {
		o.Heard = func(cluster.NodeName) bool { return false }
	}
	return &Fencer{
		opt: o, known: &agents{cache: map[string]knownAgent{}}, changed: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		states: map[target]state{},
	}
}

// device returns the device that the file describes.
func (f *Fencer) device(c *config.Fence) (Device, error) {
	switch {
	case c.Agent != "":
		return &agent{path: filepath.Join(f.opt.Dir, c.Agent), options: c.Options, known: f.known}, nil
	case f.opt.Link != nil:
		return f.opt.Link(*c), nil
	}
	return nil, errors.New("this build cannot fence over a link")
}

// Result is what came of forcing a node off.
type Result struct {
	Off   bool
	Why   string // it is not known to be off
	Took  time.Duration
	Steps []Step
}

// Step is one step of a level that was tried.
type Step struct {
	Level  int // from 1
	Device string
	Plug   string
	Took   time.Duration
	Why    string // it failed; "" if the device says that the node is off
}

// Off forces a node off: its levels in order, until all steps of one have
// succeeded. It is bounded by the delays and time limits of the file.
func (f *Fencer) Off(ctx context.Context, n cluster.NodeName) Result {
	began := time.Now()
	file := f.opt.File()
	node := file.Node(n)
	if node == nil || len(node.Fence) == 0 {
		return Result{Why: fmt.Sprintf("no fence is configured for node %s", n)}
	}
	defer f.interrupt()()
	var r Result
	var why []string
	for i, level := range node.Fence {
		r.Off = true
		for _, s := range level {
			step := f.step(ctx, file, s)
			step.Level = i + 1
			r.Steps = append(r.Steps, step)
			f.opt.Log.Info("a step of a fence", "node", n, "level", step.Level, "device", step.Device, "plug", step.Plug, "took", step.Took, "why", step.Why)
			if step.Why != "" {
				r.Off = false
				why = append(why, fmt.Sprintf("level %d, %s: %s", step.Level, step.Device, step.Why))
				break
			}
		}
		if r.Off {
			why = nil
			break
		}
	}
	r.Why, r.Took = strings.Join(why, "; "), time.Since(began)
	return r
}

// interrupt ends a check that is under way and keeps others from beginning until
// the returned function is called: some devices talk to one caller at a time.
func (f *Fencer) interrupt() (over func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy++
	if f.cut != nil {
		f.cut()
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.busy--
	}
}

// step waits for the delay, has the node switched off, and waits until the device
// says that it is.
func (f *Fencer) step(ctx context.Context, file *config.File, s config.FenceStep) Step {
	began := time.Now()
	err := wait(ctx, s.Delay)
	if err == nil {
		c := file.Fence(s.Device)
		within, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		var d Device
		if d, err = f.device(c); err == nil {
			err = off(within, d, s.Plug, c.Verify)
		}
	}
	out := Step{Device: s.Device, Plug: s.Plug, Took: time.Since(began)}
	if err != nil {
		out.Why = err.Error()
	}
	return out
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// off switches a plug off. Unless the device is to be believed, it is nil only
// when the device said, after it took the order and within its time, that the
// plug is off.
func off(ctx context.Context, d Device, plug string, verify bool) error {
	err := d.Off(ctx, plug)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("not done in its time: %w", ctx.Err())
	case !verify:
		return nil
	}
	last := "it was not asked in its time"
	for {
		power, err := d.Status(ctx, plug)
		switch {
		case errors.Is(err, ErrNoStatus):
			return fmt.Errorf("it took the order, but %w; verify: false would believe it", err)
		case ctx.Err() != nil:
			return fmt.Errorf("it took the order, but is not known to be off in its time: %s", last)
		case err == nil && power == PowerOff:
			return nil
		case err == nil:
			last = "its status is still on"
		default:
			last = err.Error()
		}
		if wait(ctx, statusEvery) != nil {
			return fmt.Errorf("it took the order, but is not known to be off in its time: %s", last)
		}
	}
}

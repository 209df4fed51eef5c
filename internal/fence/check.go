package fence

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// checksAtOnce bounds how many devices are checked at the same time.
const checksAtOnce = 4

// target is one plug of one device.
type target struct {
	node   cluster.NodeName
	device string
	plug   string
}

// state is what checks have found out about a target.
type state struct {
	of       config.Fence // what was checked
	verified time.Time    // the latest check that was good; zero: none was
	why      string       // the latest check was bad
}

// Changed lets Run look at the cluster file again.
func (f *Fencer) Changed() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// Run checks the devices of the other nodes when it begins, when they change in
// the file, and as often as the file says, until ctx ends.
func (f *Fencer) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	file := f.opt.File()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.changed:
			now := f.opt.File()
			same := sameFences(file, now)
			file = now
			if same {
				continue
			}
		case <-timer.C:
			file = f.opt.File()
		}
		timer.Stop()
		if file.FenceCheck > 0 {
			f.Check(ctx, "")
			timer.Reset(file.FenceCheck)
		}
	}
}

func sameFences(a, b *config.File) bool {
	if a.FenceCheck != b.FenceCheck || !reflect.DeepEqual(a.Fences, b.Fences) || len(a.Nodes) != len(b.Nodes) {
		return false
	}
	for i := range a.Nodes {
		if a.Nodes[i].Name != b.Nodes[i].Name || !reflect.DeepEqual(a.Nodes[i].Fence, b.Nodes[i].Fence) {
			return false
		}
	}
	return true
}

// Check tries the devices of the node, or of all nodes but this one where none is
// named, without switching anything. It returns when all have answered or their
// time is over; a node that must be forced off meanwhile cuts it short.
func (f *Fencer) Check(ctx context.Context, only cluster.NodeName) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	file := f.opt.File()
	f.mu.Lock()
	if f.busy > 0 {
		f.mu.Unlock()
		return
	}
	f.cut = cancel
	f.forget(file)
	f.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(checksAtOnce)
	for i := range file.Fences {
		c := &file.Fences[i]
		if list := f.targets(file, c.Name, only); len(list) > 0 {
			g.Go(func() error { f.checkDevice(ctx, c, list); return nil })
		}
	}
	_ = g.Wait() // none of them returns an error
}

// targets returns what a device does for the other nodes.
func (f *Fencer) targets(file *config.File, device string, only cluster.NodeName) []target {
	var out []target
	for _, n := range file.Nodes {
		if n.Name == f.opt.Self || only != "" && n.Name != only {
			continue
		}
		for _, level := range n.Fence {
			for _, s := range level {
				if s.Device == device {
					out = append(out, target{n.Name, device, s.Plug})
				}
			}
		}
	}
	return out
}

// forget drops what is known of targets that the file does not have any more.
func (f *Fencer) forget(file *config.File) {
	for t, s := range f.states {
		c := file.Fence(t.device)
		if c == nil || !reflect.DeepEqual(*c, s.of) || file.Node(t.node) == nil {
			delete(f.states, t)
		}
	}
}

// checkDevice checks one device, then each of its plugs.
func (f *Fencer) checkDevice(ctx context.Context, c *config.Fence, list []target) {
	d, err := f.device(c)
	if err == nil {
		within, cancel := context.WithTimeout(ctx, c.Timeout)
		err = d.Check(within)
		cancel()
	}
	for _, t := range list {
		why := err
		if why == nil {
			why = f.checkPlug(ctx, d, c, t)
		}
		if ctx.Err() != nil {
			return // it was cut short, which says nothing
		}
		f.note(t, c, why)
	}
}

func (f *Fencer) checkPlug(ctx context.Context, d Device, c *config.Fence, t target) error {
	within, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	power, err := d.Status(within, t.plug)
	switch {
	case errors.Is(err, ErrNoStatus) && !c.Verify:
		return nil
	case err != nil:
		return err
	case power == PowerOff && f.opt.Heard(t.node):
		return fmt.Errorf("it says that plug %s is off, but %s is heard: this is another machine's plug", t.plug, t.node)
	}
	return nil
}

// note remembers what a check has found, and tells of a change for the worse or
// back.
func (f *Fencer) note(t target, c *config.Fence, err error) {
	f.mu.Lock()
	s := f.states[t]
	was := s.why
	s.of, s.why = *c, ""
	if err != nil {
		s.why = err.Error()
	} else {
		s.verified = time.Now()
	}
	f.states[t] = s
	f.mu.Unlock()
	e := api.Event{Module: "nm", Fields: map[string]string{"node": string(t.node), "fence": t.device}}
	switch {
	case was == "" && err != nil:
		e.Level, e.Code = cluster.LevelWarn, "fence-check-failed"
		e.Text = fmt.Sprintf("%s could not be forced off by fence %s: %s.", t.node, t.device, s.why)
	case was != "" && err == nil:
		e.Level, e.Code = cluster.LevelInfo, "fence-check-good"
		e.Text = fmt.Sprintf("%s can be forced off by fence %s again.", t.node, t.device)
	default:
		return
	}
	f.opt.Report(e)
}

// States returns the fence of a node, step by step, as this node has checked it.
// Of itself a node checks nothing.
func (f *Fencer) States(n cluster.NodeName) []api.FenceState {
	file := f.opt.File()
	node := file.Node(n)
	if node == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []api.FenceState
	for i, level := range node.Fence {
		for _, step := range level {
			c := file.Fence(step.Device)
			s := f.states[target{n, step.Device, step.Plug}]
			if !reflect.DeepEqual(s.of, *c) {
				s = state{}
			}
			by := c.Agent
			if by == "" {
				by = "link " + string(c.Link)
			}
			out = append(out, api.FenceState{Level: i + 1, Device: step.Device, Plug: step.Plug, By: by, Verified: s.verified, Why: s.why})
		}
	}
	return out
}

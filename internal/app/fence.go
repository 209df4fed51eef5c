package app

import (
	"context"
	"fmt"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/fence"
)

func (d *Daemon) newFencer() *fence.Fencer {
	return fence.New(fence.Options{
		Self: d.node, File: d.file, Heard: d.heard, Log: d.log,
		Report: func(e api.Event) { d.post(engine.Event{Log: &e}) },
	})
}

// forceOff has a node forced off and tells the engine what came of it. Its time
// is bounded by the cluster file.
func (d *Daemon) forceOff(run engine.FenceRun) {
	r := d.fences.Off(d.ctx, run.Node)
	d.post(engine.Event{Fenced: &engine.Fenced{Node: run.Node, Run: run.Run, Off: r.Off, Why: r.Why, Took: r.Took}})
}

// heard says whether the node is up.
func (d *Daemon) heard(n cluster.NodeName) (up bool) {
	_ = d.inspect(d.ctx, func(m *engine.Machine) { // a machine that has ended hears nobody
		for _, is := range m.Status().Nodes {
			up = up || is.Name == n && is.State == cluster.NodeUp
		}
	})
	return up
}

// CheckFences tries the fence devices of a node, or of all others where none is
// named, and says what came of it.
func (d *Daemon) CheckFences(ctx context.Context, n cluster.NodeName) ([]api.NodeFence, error) {
	f := d.file()
	switch {
	case n == d.node:
		return nil, &api.Error{Code: "other-node", Message: fmt.Sprintf("%s is this node, which cannot force itself off", n), Hint: "check it on another node"}
	case n != "" && f.Node(n) == nil:
		return nil, &api.Error{Code: "no-such-node", Message: fmt.Sprintf("there is no node %q", n), Hint: "tasuki node list"}
	}
	d.fences.Check(ctx, n)
	out := []api.NodeFence{}
	for _, is := range f.Nodes {
		if is.Name != d.node && (n == "" || n == is.Name) {
			out = append(out, api.NodeFence{Node: is.Name, Fence: d.fences.States(is.Name)})
		}
	}
	return out, nil
}

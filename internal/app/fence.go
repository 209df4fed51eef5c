package app

import (
	"context"
	"fmt"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/fence"
)

func (d *Daemon) newFencer() *fence.Fencer {
	return fence.New(fence.Options{
		Self: d.node, File: d.file, Heard: d.heard, Log: d.log, Link: func(c config.Fence) fence.Device { return hostFence{d, c.Link} },
		Report: func(e api.Event) { d.post(engine.Event{Log: &e}) },
	})
}

// causeKey is the key of the event that led to a fence, in its context.
type causeKey struct{}

// hostFence is a linked host as the fence device of its guests.
type hostFence struct {
	d    *Daemon
	link cluster.LinkName
}

// Off has the host power a guest off; the host's log gets what led to it.
func (h hostFence) Off(ctx context.Context, plug string) error {
	cause, _ := ctx.Value(causeKey{}).(cluster.EventID)
	fields := map[string]string{"verb": string(cluster.VerbFence), "guest": plug}
	cause, chain := h.d.sending(ctx, cause, fields, fmt.Sprintf("Request %s is being sent to %s: power guest %s off.", cluster.VerbFence, h.link, plug))
	err := h.d.sender.Host(h.link).Off(ctx, cluster.GuestName(plug), cause, chain)
	h.d.metrics.Asked(h.link, cluster.VerbFence, refusalOf(err))
	return err
}

// Status asks the host.
func (h hostFence) Status(ctx context.Context, plug string) (fence.Power, error) {
	switch p, err := h.d.sender.Host(h.link).Status(ctx, cluster.GuestName(plug)); {
	case err != nil:
		return fence.PowerUnknown, err
	case p == cluster.Off:
		return fence.PowerOff, nil
	}
	return fence.PowerOn, nil
}

// Check asks the host for all guests that it would power off for this cluster.
func (h hostFence) Check(ctx context.Context) error { return h.d.sender.Host(h.link).Check(ctx) }

// forceOff has a node forced off and tells the engine what came of it. Its time
// is bounded by the cluster file.
func (d *Daemon) forceOff(run engine.FenceRun) {
	r := d.fences.Off(context.WithValue(d.ctx, causeKey{}, run.Cause), run.Node)
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
	case d.opt.Witness:
		return nil, &api.Error{Code: "witness", Message: "a witness forces nobody off", Hint: "check the devices on a node that runs groups"}
	case n == d.node:
		return nil, &api.Error{Code: "other-node", Message: fmt.Sprintf("%s is this node, which cannot force itself off", n), Hint: "check it on another node"}
	case n != "" && f.Node(n) == nil:
		return nil, &api.Error{Code: "no-such-node", Message: fmt.Sprintf("there is no node %q", n), Hint: "tasuki node list"}
	}
	d.fences.Check(ctx, n)
	out := []api.NodeFence{}
	for _, is := range f.Nodes {
		needless := is.Witness && len(is.Fence) == 0 // nothing starts elsewhere because of it
		if is.Name != d.node && (n == "" && !needless || n == is.Name) {
			out = append(out, api.NodeFence{Node: is.Name, Fence: d.fences.States(is.Name)})
		}
	}
	return out, nil
}

package app

import (
	"context"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
)

// startAlone follows an operator's order that this node goes on without the
// others.
func (d *Daemon) startAlone(ctx context.Context, n cluster.NodeName, op api.NodeOp) (api.Begun, error) {
	if n != d.node {
		return api.Begun{}, &api.Error{Code: "other-node", Message: fmt.Sprintf("this is %s: only the node itself can be told to start alone", d.node), Hint: fmt.Sprintf("on %s: tasuki node start-alone", n)}
	}
	if op.Reason == "" {
		return api.Begun{}, noReason
	}
	var no *api.Error
	if err := d.inspect(ctx, func(m *engine.Machine) { no = m.CanStartAlone() }); err != nil || no != nil {
		return api.Begun{}, firstOf(orNil(no), err)
	}
	if _, err := d.loop.Step(ctx, engine.Event{Alone: &engine.Alone{Author: "an administrator on " + string(d.node), Reason: op.Reason}}); err != nil {
		return api.Begun{}, err
	}
	return api.Begun{Text: fmt.Sprintf("%s goes on alone; its groups start now", d.node)}, nil
}

var noReason = &api.Error{Code: "bad-request", Message: "there is no reason", Hint: "say for the log why you are sure: --reason TEXT"}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// fenceNode has another node forced off and waits for what comes of it.
func (d *Daemon) fenceNode(ctx context.Context, n cluster.NodeName, op api.NodeOp) (api.Begun, error) {
	is := d.file().Node(n)
	switch {
	case op.Reason == "":
		return api.Begun{}, noReason
	case d.opt.Witness:
		return api.Begun{}, &api.Error{Code: "witness", Message: "a witness forces nobody off", Hint: "ask a node that runs groups"}
	case is == nil:
		return api.Begun{}, &api.Error{Code: "no-such-node", Message: fmt.Sprintf("there is no node %q", n), Hint: "tasuki node list"}
	case n == d.node:
		return api.Begun{}, &api.Error{Code: "other-node", Message: fmt.Sprintf("%s is this node, which cannot force itself off", n), Hint: "ask another node"}
	case len(is.Fence) == 0:
		return api.Begun{}, &api.Error{Code: "no-fence", Message: fmt.Sprintf("the cluster file has no fence for %s", n), Hint: "docs/fencing.md says how to add one"}
	}
	if _, err := d.loop.Step(ctx, engine.Event{Fence: &engine.Fence{Node: n, Why: "an administrator on " + string(d.node) + " ordered it: " + op.Reason, Cause: op.Cause}}); err != nil {
		return api.Begun{}, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var off, busy bool
		var why string
		if err := d.inspect(ctx, func(m *engine.Machine) { off, busy, why = m.FenceOf(n) }); err != nil {
			return api.Begun{}, err
		}
		switch {
		case off:
			return api.Begun{Text: fmt.Sprintf("%s has been forced off, which was confirmed", n)}, nil
		case !busy:
			return api.Begun{}, &api.Error{Code: "fence-failed", Message: fmt.Sprintf("%s could not be forced off: %s", n, why), Hint: "tasuki fence check " + string(n)}
		}
		select {
		case <-ctx.Done():
			return api.Begun{}, &api.Error{Code: "timed-out", Message: fmt.Sprintf("it is not known yet whether %s is off", n), Hint: "tasuki event shows what came of it"}
		case <-tick.C:
		}
	}
}

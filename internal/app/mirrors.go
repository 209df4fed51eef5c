package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/client"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/resource/mirrordisk"
)

// leaveMirrors is how long the processes of mirror disks have to end when the daemon
// leaves by plan.
const leaveMirrors = 3 * time.Second

// newMirrorDisks makes the driver of mirror disks. Their processes outlive a daemon
// that cannot go on, and end with one that leaves.
func (d *Daemon) newMirrorDisks(closers *closeStack) *mirrordisk.Driver {
	m := mirrordisk.New(mirrordisk.Options{
		Node: d.node, Run: d.dirs.Run, State: d.dirs.State, Logs: d.dirs.Log, Identity: filepath.Join(d.dirs.Etc, dirIdentity), Lab: d.opt.OnlyInNamespace, Log: d.log,
		Keeper: func(dir string) *osexec.Cmd { return osexec.Command("/proc/self/exe", "mirror", "keep", dir) },
		Tool:   func(args ...string) *osexec.Cmd { return osexec.Command("/proc/self/exe", args...) },
		Ask:    d.askMirror, Status: d.mirrorStatus, Failed: d.actor.failed, Notice: d.actor.notice,
	})
	closers.push("mirror disks", func() error {
		if d.gaveUp {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), leaveMirrors)
		defer cancel()
		return m.Leave(ctx)
	})
	return m
}

// askMirror brings what the active copy on this node asks for to the engine.
func (d *Daemon) askMirror(a resource.MirrorAsk) {
	d.post(engine.Event{Mirror: &engine.MirrorAsk{Resource: a.Resource, Epoch: a.Epoch, Base: a.Base, InSync: a.InSync, Why: a.Why, Cause: a.Cause}})
}

// mirrorStatus passes on what a copy says of itself.
func (d *Daemon) mirrorStatus(s resource.MirrorStatus) {
	d.post(engine.Event{MirrorStatus: &engine.MirrorStatus{Resource: s.Resource, Copy: s.Copy}})
}

// tellMirrors hands what is agreed on about mirror disks to their driver, in
// order, before any step that follows from it.
func (d *Daemon) tellMirrors(eff engine.Effects) {
	m, is := d.actor.drivers[config.KindMirrorDisk].(resource.Mirrorer)
	if !is {
		return
	}
	for _, t := range eff.Mirrors {
		m.Told(t.Resource, t.Mirror, t.Life)
	}
	for _, t := range eff.Refused {
		m.Refused(t.Resource, t.Why)
	}
}

// followDrivers lets drivers that work on standby nodes too follow the cluster
// file.
func (d *Daemon) followDrivers(f *config.File) {
	for _, kind := range slices.Sorted(maps.Keys(d.actor.drivers)) {
		if fo, is := d.actor.drivers[kind].(resource.Follower); is {
			fo.Follow(d.ctx, f)
		}
	}
}

var mirrorKinds = map[string]admission.Kind{
	"break": admission.MirrorBreak, "resume": admission.MirrorResume, "copy": admission.MirrorCopy, "verify": admission.MirrorVerify, "grow": admission.MirrorGrow,
	"invalidate": admission.MirrorInvalidate, "force": admission.MirrorForce, "acknowledge": admission.MirrorAcknowledge, "resolve": admission.MirrorResolve,
}

// Mirror does what an operator wants of a mirror disk. Where a copy must be named
// and none is, it is that on this node; whose writes are given up must be named.
func (d *Daemon) Mirror(ctx context.Context, author string, r cluster.ResourceName, verb string, op api.MirrorOp) (api.Begun, error) {
	switch verb {
	case verbLook, verbKeep:
		return d.atCopy(ctx, r, verb, op)
	}
	kind, known := mirrorKinds[verb]
	if !known {
		return api.Begun{}, &api.Error{Code: "unknown-verb", Message: fmt.Sprintf("a mirror disk cannot be asked to %s", verb), Hint: "break, resume, copy, verify, grow, invalidate, force, acknowledge, resolve, look, keep"}
	}
	a, err := d.newAsk(kind, op.ID, op.Cause)
	if err != nil {
		return api.Begun{}, err
	}
	a.Resource, a.Node, a.Author, a.Why, a.Confirm, a.Thorough = r, op.Node, author, op.Reason, op.Confirm, op.Thorough
	if kind == admission.MirrorForce || kind == admission.MirrorInvalidate {
		a.Node = cmp.Or(op.Node, d.node)
	}
	kept := ""
	if kind == admission.MirrorResolve && !op.NoSnapshot && d.admitted(ctx, a) {
		if kept, err = d.keepCopy(ctx, r, op.Node); err != nil {
			return api.Begun{}, err
		}
	}
	ans, no := d.ask(ctx, a)
	return api.Begun{Text: kept + ans.Text}, orNil(no)
}

// What is asked of the copy of one node, and is no matter of the cluster.
const (
	verbLook = "look" // which files of it have changed since it went on alone
	verbKeep = "keep" // what is on it is kept aside
)

// atCopy does something with the copy of a node: of this one, if none is named, or of
// another one, which is asked.
func (d *Daemon) atCopy(ctx context.Context, r cluster.ResourceName, verb string, op api.MirrorOp) (b api.Begun, err error) {
	op.Node = cmp.Or(op.Node, d.node)
	if op.Node != d.node {
		err = d.onNode(ctx, op.Node, func(c *client.Client) error {
			b, err = c.Mirror(ctx, r, verb, op)
			return err
		})
		return b, err
	}
	var m *mirrordisk.Driver
	if d.actor != nil { // a witness has none
		m, _ = d.actor.drivers[config.KindMirrorDisk].(*mirrordisk.Driver)
	}
	err = mirrordisk.ErrNoCopy
	switch {
	case m == nil:
	case verb == verbKeep:
		b.Text, err = m.Keep(ctx, r)
	default:
		var f api.MirrorFiles
		f, err = m.Look(ctx, r)
		b = api.Begun{Text: "looked at", Files: &f}
	}
	if errors.Is(err, mirrordisk.ErrNoCopy) {
		err = &api.Error{Code: "no-such-copy", Message: fmt.Sprintf("mirror disk %s has no copy on %s", r, d.node), Hint: "tasuki mirror status shows where its copies are"}
	}
	return b, err
}

// admitted says whether what is asked would be done, as far as this node knows.
func (d *Daemon) admitted(ctx context.Context, a admission.Ask) (yes bool) {
	_ = d.inspect(ctx, func(m *engine.Machine) { // of one that has ended nothing is known
		_, no := admission.Admit(m.State(), a)
		yes = no == nil
	})
	return yes
}

// keepCopy has what is on the copy of a node kept before it is given up.
func (d *Daemon) keepCopy(ctx context.Context, r cluster.ResourceName, n cluster.NodeName) (text string, err error) {
	b, err := d.atCopy(ctx, r, verbKeep, api.MirrorOp{Node: n})
	if err != nil {
		return "", &api.Error{Code: "not-kept", Message: fmt.Sprintf("the copy of %s on %s cannot be kept before it is overwritten, so nothing was done: %v", r, n, err),
			Hint: "mend that, or go on without: --no-snapshot"}
	}
	return b.Text + "; ", nil
}

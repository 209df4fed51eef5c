package app

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/script"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// keepAnswers is how many answered requests a node remembers beside the
// replicated ones: those for scripts, which every host answers for itself.
const keepAnswers = 256

// answered gives the same answer to a request that arrives again, also while
// the first is still being answered.
type answered struct {
	mu    sync.Mutex
	byID  map[cluster.RequestID]*answer
	order []cluster.RequestID
}

type answer struct {
	done chan struct{}
	ans  api.Answer
	err  *api.Error
}

// once runs f for the first request of that id and returns its outcome to all.
// A refusal is not kept: the same request may be made again later.
func (a *answered) once(ctx context.Context, id cluster.RequestID, f func() (api.Answer, *api.Error)) (api.Answer, *api.Error) {
	a.mu.Lock()
	w := a.byID[id]
	first := w == nil
	if first {
		w = &answer{done: make(chan struct{})}
		a.byID[id] = w
		a.order = append(a.order, id)
		if len(a.order) > keepAnswers {
			delete(a.byID, a.order[0])
			a.order = a.order[1:]
		}
	}
	a.mu.Unlock()
	if first {
		w.ans, w.err = f()
		if w.err != nil {
			a.mu.Lock()
			delete(a.byID, id)
			a.order = slices.DeleteFunc(a.order, func(o cluster.RequestID) bool { return o == id })
			a.mu.Unlock()
		}
		close(w.done)
	}
	select {
	case <-w.done:
		return w.ans, w.err
	case <-ctx.Done():
		return api.Answer{}, &api.Error{Code: "timed-out", Message: "the request is still being carried out", Hint: "send it again with the same id to learn what came of it"}
	}
}

// mapped is how the log names a sender: its address in the form of a socket that
// takes both families.
func mapped(a netip.Addr) string {
	if a.Is4() {
		return "::ffff:" + a.String()
	}
	return a.String()
}

// Request carries out what a linked cluster asks, if it may ask that.
func (d *Daemon) Request(ctx context.Context, c httpapi.Caller, r api.Request) (api.Answer, error) {
	a, no := d.request(ctx, c, r)
	d.metrics.WasAsked(c.Link, r.Verb, no)
	return a, orNil(no)
}

func (d *Daemon) request(ctx context.Context, c httpapi.Caller, r api.Request) (api.Answer, *api.Error) {
	if r.ID == "" || len(r.ID) > 128 {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "bad-request", "", "the request has no id")
	}
	if r.Verb == cluster.VerbFence && r.Action != cluster.PowerOff {
		return d.carryOut(ctx, c, r) // how things are is looked at each time
	}
	return d.answered.once(ctx, ownID(c, r), func() (api.Answer, *api.Error) { return d.carryOut(ctx, c, r) })
}

// carryOut does what is asked, if the link allows it.
func (d *Daemon) carryOut(ctx context.Context, c httpapi.Caller, r api.Request) (api.Answer, *api.Error) {
	var link *state.Link
	var known state.Answer
	var dup bool
	group := r.Group
	err := d.loop.Inspect(ctx, func(m *engine.Machine) {
		if l := m.State().Links[c.Link]; l != nil {
			copied := *l
			link = &copied
		}
		known, dup = m.State().Answered(ownID(c, r))
		if g := m.File().GroupOf(r.Resource); group == "" && g != nil {
			group = g.Name
		}
	})
	if err != nil {
		return api.Answer{}, &api.Error{Code: "stopping", Message: "this node is stopping", Hint: "ask another node"}
	}
	if link == nil || !link.Asks || !slices.Contains(link.Verbs, r.Verb) {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "verb-not-allowed", "on that cluster: tasuki link list shows what is allowed",
			"%s may not ask for %s", c.Link, r.Verb)
	}
	d.keepChain(c, r)
	switch {
	case r.Verb == cluster.VerbFence:
		return d.fence(ctx, c, link, r)
	case r.Verb == cluster.VerbExecScript:
		return d.execScript(ctx, c, link, r)
	case dup:
		return answerOf(r.ID, known), known.Err
	}
	return d.groupFailover(ctx, c, link, r, group)
}

// ownID is the id of a request among those of all links: no cluster can take
// the answer of another one's, nor its place.
func ownID(c httpapi.Caller, r api.Request) cluster.RequestID {
	return cluster.RequestID(string(c.Link) + "/" + string(r.ID))
}

// keepChain keeps the asker's events that led to the request, so that explain
// shows the story from its beginning.
func (d *Daemon) keepChain(c httpapi.Caller, r api.Request) {
	if len(r.Chain) == 0 || len(r.Chain) > 16 {
		return
	}
	kept, err := d.journal.MergeForeign(cluster.Name(c.Link), r.Chain)
	if err != nil {
		d.log.Warn("the events of a request could not be kept", "link", c.Link, "error", err)
	}
	d.gossip.spread(kept)
}

func answerOf(id cluster.RequestID, a state.Answer) api.Answer {
	return api.Answer{ID: id, Text: a.Text, Plan: a.Plan}
}

// refuseRequest logs a refusal and returns it.
func (d *Daemon) refuseRequest(ctx context.Context, c httpapi.Caller, r api.Request, code, hint, format string, args ...any) *api.Error {
	no := &api.Error{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
	d.record(ctx, api.Event{Level: cluster.LevelWarn, Module: "apisv", Code: "request-refused", Cause: r.Cause, Fields: requestFields(c, r),
		Text: fmt.Sprintf("A request (%s) from %s (IP=%s) was refused: %s.", r.Verb, c.Link, mapped(c.Addr), strings.TrimSuffix(no.Message, "."))})
	return no
}

func requestFields(c httpapi.Caller, r api.Request) map[string]string {
	f := map[string]string{"link": string(c.Link), "request": string(r.ID), "verb": string(r.Verb)}
	if r.Cause != "" {
		f["cause_cluster"] = string(c.Link)
	}
	return f
}

func (d *Daemon) groupFailover(ctx context.Context, c httpapi.Caller, link *state.Link, r api.Request, group cluster.GroupName) (api.Answer, *api.Error) {
	if group == "" {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "no-such-resource", "name a group, or a resource of one", "no group has a resource %q", r.Resource)
	}
	if len(link.Groups) > 0 && !slices.Contains(link.Groups, group) {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "group-not-allowed", "", "%s may not ask for group %s", c.Link, group)
	}
	fields := requestFields(c, r)
	fields["group"] = string(group)
	cause := d.record(ctx, api.Event{Level: cluster.LevelInfo, Module: "apisv", Code: "request-move", Cause: r.Cause, Fields: fields,
		Text: fmt.Sprintf("There was a request to move group(%s) from the clpgrp command(IP=%s).", group, mapped(c.Addr))})
	ans, no := d.ask(ctx, admission.Ask{ID: ownID(c, r), Kind: admission.GroupMove, Group: group, Cause: cause, Wall: time.Now(),
		Why: fmt.Sprintf("asked for by cluster %s", c.Link)})
	if no != nil {
		r.Cause = cause
		return api.Answer{}, d.refuseRequest(ctx, c, r, no.Code, no.Hint, "%s", no.Message)
	}
	a := answerOf(r.ID, ans)
	a.Event = cause
	return a, nil
}

// scriptName says why the name cannot be that of a script of the directory.
func scriptName(name string) string {
	switch {
	case name == "":
		return "no script was named"
	case strings.ContainsAny(name, "/\\\x00") || strings.HasPrefix(name, "."):
		return fmt.Sprintf("%q is not a bare file name", name)
	}
	return ""
}

func (d *Daemon) execScript(ctx context.Context, c httpapi.Caller, link *state.Link, r api.Request) (api.Answer, *api.Error) {
	f := d.file()
	if d.opt.Witness {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "witness", "ask a node that runs groups", "a witness runs no scripts")
	}
	dir := f.Requests.ScriptDirectory
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(d.dirs.Etc, dir)
	}
	path := filepath.Join(dir, r.Script)
	if why := scriptName(r.Script); why != "" {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "bad-script-name", "give the name of a file in the directory that the receiver configured", "%s", why)
	}
	if len(link.Scripts) > 0 && !slices.Contains(link.Scripts, r.Script) {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "script-not-allowed", "", "%s may not ask for script %s", c.Link, r.Script)
	}
	if err := script.Check(path); err != nil {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "script-refused", "on the receiving node: owned by root, executable, not writable by others", "%v", err)
	}
	cause := d.record(ctx, api.Event{Level: cluster.LevelInfo, Module: "apisv", Code: "request-script", Cause: r.Cause, Fields: requestFields(c, r),
		Text: fmt.Sprintf("There was a request to run script(%s) from %s (IP=%s).", r.Script, c.Link, mapped(c.Addr))})
	// The script goes on if the asker goes away: it acts once, whoever still listens.
	res, err := script.Run(d.ctx, script.Spec{
		Path: path, Timeout: f.Requests.ScriptTimeout,
		Log: script.Log{Path: filepath.Join(d.dirs.Log, "request-"+r.Script+".log")},
		Env: d.product.EnvForRequest(f.Cluster, d.node, cause),
	})
	if err == nil && res.ExitCode != 0 {
		err = res.Err()
	}
	a := api.Answer{ID: r.ID, ExitCode: res.ExitCode, Event: cause, Text: fmt.Sprintf("script %s ended with exit code %d", r.Script, res.ExitCode)}
	if err != nil {
		d.record(ctx, api.Event{Level: cluster.LevelError, Module: "apisv", Code: "request-script-failed", Cause: cause, Fields: requestFields(c, r),
			Text: fmt.Sprintf("Script %s failed: %v.", r.Script, err)})
		if res.ExitCode <= 0 {
			return a, &api.Error{Code: "script-failed", Message: fmt.Sprintf("script %s: %v", r.Script, err), Hint: "its output is in the log directory of the receiver"}
		}
	}
	return a, nil
}

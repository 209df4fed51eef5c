// Package httpapitest has a daemon of values, for tests of those who call the
// API.
package httpapitest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
)

// Backend is a httpapi.Backend that answers with its fields and remembers what
// it was asked. The fields are set before it is used.
type Backend struct {
	State    api.Status
	Versions []api.ConfigText // the latest last
	Changes  []string         // what a change of the cluster file would change
	Result   api.PlanResult   // of every plan
	Answers  []api.HostAnswer
	// Snap is what questions begin with.
	Snap api.Snapshot
	// Foreseen is the answer to all of them.
	Foreseen api.Simulation
	// FileList is what a look at the copies of mirror disks finds, by node.
	FileList map[cluster.NodeName]api.MirrorFiles
	// GuestList are the guests of the host.
	GuestList []api.Guest
	// UserList are the users, Passwords those with which they sign in.
	UserList   []api.User
	Passwords  map[cluster.UserName]string
	AccessList []api.Access
	Refusal    *api.Error // what every operation that changes something answers, if not nil
	Begins     func()     // called when something is set in motion, if not nil

	MostEvents int // how many events Events gives at most; 0: all

	mu      sync.Mutex
	log     []api.Event
	calls   []string
	records []api.Event
	follow  []chan api.Event
	changed chan struct{} // closed by Change
}

var _ httpapi.Backend = (*Backend)(nil)

// Calls returns what was asked so far, one text a call.
func (b *Backend) Calls() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

// Happen adds an event to the log.
func (b *Backend) Happen(e api.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, e)
	for _, ch := range b.follow {
		select {
		case ch <- e:
		default:
		}
	}
}

func (b *Backend) called(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, fmt.Sprintf(format, args...))
}

// change notes a call that changes something.
func (b *Backend) change(format string, args ...any) error {
	b.called(format, args...)
	if b.Refusal != nil {
		return b.Refusal
	}
	if b.Begins != nil {
		b.Begins()
	}
	return nil
}

// Status returns State.
func (b *Backend) Status(context.Context) (api.Status, error) {
	b.called("status")
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.State, nil
}

// Change sets State, of which the API is told.
func (b *Backend) Change(s api.Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.State = s
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// Changed returns a channel that the next Change closes.
func (b *Backend) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

// Events returns what Happen added, as the filter says.
func (b *Backend) Events(_ context.Context, f api.EventFilter) ([]api.Event, error) {
	b.called("events limit=%d newest=%v after=%s", f.Limit, f.Newest, f.After)
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []api.Event{}
	past := f.After == ""
	for _, e := range b.log {
		if past && !e.Time.Before(f.Since) && (f.Node == "" || f.Node == e.Node) && (f.Group == "" || e.Fields["group"] == string(f.Group)) {
			out = append(out, e)
		}
		past = past || e.ID == f.After
	}
	if b.MostEvents > 0 && (f.Limit == 0 || f.Limit > b.MostEvents) {
		f.Limit = b.MostEvents
	}
	if f.Limit > 0 && len(out) > f.Limit {
		if f.Newest {
			return out[len(out)-f.Limit:], nil
		}
		return out[:f.Limit], nil
	}
	return out, nil
}

// Follow returns what Happen adds from now on.
func (b *Backend) Follow(ctx context.Context) <-chan api.Event {
	b.called("follow")
	in, out := make(chan api.Event, 1024), make(chan api.Event)
	b.mu.Lock()
	b.follow = append(b.follow, in)
	b.mu.Unlock()
	go func() {
		defer close(out)
		for {
			select {
			case e := <-in:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Explain returns the whole log.
func (b *Backend) Explain(_ context.Context, id cluster.EventID) ([]api.Event, error) {
	b.called("explain %s", id)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.log) == 0 {
		return nil, &api.Error{Code: "no-incident", Message: "nothing has happened yet", Hint: "wait"}
	}
	return slices.Clone(b.log), nil
}

// Group begins the plan p1.
func (b *Backend) Group(_ context.Context, g cluster.GroupName, verb string, op api.GroupOp) (api.Begun, error) {
	return api.Begun{Text: "begun", Plan: "p1"}, b.change("group %s %s to=%s", verb, g, op.To)
}

// Mirror does something with a mirror disk, or finds FileList.
func (b *Backend) Mirror(_ context.Context, author string, r cluster.ResourceName, verb string, op api.MirrorOp) (api.Begun, error) {
	if f, is := b.FileList[op.Node]; is && verb == "look" {
		b.called("mirror look %s node=%s", r, op.Node)
		return api.Begun{Text: "looked at", Files: &f}, nil
	}
	return api.Begun{Text: verb + " done"}, b.change("mirror %s %s by=%s node=%s reason=%q confirm=%s thorough=%v no-snapshot=%v", verb, r, author, op.Node, op.Reason, op.Confirm, op.Thorough, op.NoSnapshot)
}

// Plan returns Result.
func (b *Backend) Plan(_ context.Context, id string, _ time.Duration) (api.PlanResult, error) {
	b.called("plan %s", id)
	return b.Result, nil
}

// Monitor does nothing.
func (b *Backend) Monitor(_ context.Context, m cluster.MonitorName, verb string, op api.MonitorOp) error {
	return b.change("monitor %s %s node=%s", verb, m, op.Node)
}

// Node does nothing.
func (b *Backend) Node(_ context.Context, n cluster.NodeName, verb string, _ api.NodeOp) (api.Begun, error) {
	return api.Begun{Text: fmt.Sprintf("%s: %s begun", n, verb)}, b.change("node %s %s", verb, n)
}

// Maintenance does nothing.
func (b *Backend) Maintenance(_ context.Context, owner, verb string, op api.MaintenanceOp) (api.Begun, error) {
	return api.Begun{Text: verb + " done"}, b.change("maintenance %s node=%s group=%s cluster=%v reason=%q for=%s drain=%v", verb, op.Node, op.Group, op.Cluster, op.Reason, op.For, op.Drain)
}

// Record notes an event, which is not in the log.
func (b *Backend) Record(_ context.Context, e api.Event) cluster.EventID {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = append(b.records, e)
	return cluster.EventID(fmt.Sprint("n1/r", len(b.records)))
}

// Records returns what the API has recorded.
func (b *Backend) Records() []api.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.records)
}

// Log does nothing.
func (b *Backend) Log(_ context.Context, l api.LogLine) (api.Logged, error) {
	return api.Logged{ID: "n1/1"}, b.change("log %s %s", l.Level, l.Text)
}

// Config returns one of Versions.
func (b *Backend) Config(_ context.Context, version uint64) (api.ConfigText, error) {
	b.called("config %d", version)
	for _, v := range slices.Backward(b.Versions) {
		if version == 0 || v.Version == version {
			return v, nil
		}
	}
	return api.ConfigText{}, &api.Error{Code: "no-such-version", Message: fmt.Sprintf("version %d is not kept", version), Hint: "tasuki config history"}
}

// History returns Versions.
func (b *Backend) History(context.Context) ([]api.ConfigVersion, error) {
	b.called("history")
	var out []api.ConfigVersion
	for _, v := range b.Versions {
		out = append(out, v.ConfigVersion)
	}
	return out, nil
}

// PlanConfig returns Changes, and Refusal if there is one.
func (b *Backend) PlanConfig(_ context.Context, c api.ConfigChange) (api.ConfigPlan, error) {
	b.called("plan-config %d bytes", len(c.Text))
	return api.ConfigPlan{Base: uint64(len(b.Versions)), Changes: b.Changes, Refused: b.Refusal}, nil
}

// ApplyConfig does nothing.
func (b *Backend) ApplyConfig(_ context.Context, author string, c api.ConfigChange) (api.Begun, error) {
	return api.Begun{Text: "in force"}, b.change("apply-config by %s on %d: %s", author, c.Base, c.Note)
}

// NewToken returns a text that is no token.
func (b *Backend) NewToken(_ context.Context, r api.TokenRequest) (api.TokenText, error) {
	return api.TokenText{Token: "token-for-" + r.Subject}, b.change("token %s %s %v %v %v", r.Purpose, r.Subject, r.Verbs, r.Groups, r.Scripts)
}

// Join does nothing.
func (b *Backend) Join(_ context.Context, r api.JoinRequest) (api.JoinReply, error) {
	return api.JoinReply{}, b.change("join %s", r.Node)
}

// RedeemLink does nothing.
func (b *Backend) RedeemLink(_ context.Context, r api.LinkRequest) (api.LinkReply, error) {
	return api.LinkReply{}, b.change("redeem %s", r.Cluster)
}

// CheckFences returns the fences of State.
func (b *Backend) CheckFences(_ context.Context, n cluster.NodeName) ([]api.NodeFence, error) {
	out := []api.NodeFence{}
	for _, is := range b.State.Nodes {
		if !is.Self && (n == "" || n == is.Name) {
			out = append(out, api.NodeFence{Node: is.Name, Fence: is.Fence})
		}
	}
	return out, b.change("check-fences %s", n)
}

// AddLink does nothing.
func (b *Backend) AddLink(_ context.Context, r api.LinkToken) (api.Begun, error) {
	return api.Begun{Text: "linked"}, b.change("link-add %s", r.Token)
}

// RemoveLink does nothing.
func (b *Backend) RemoveLink(_ context.Context, name cluster.LinkName) error {
	return b.change("link-remove %s", name)
}

// Request does nothing.
func (b *Backend) Request(_ context.Context, c httpapi.Caller, r api.Request) (api.Answer, error) {
	return api.Answer{ID: r.ID, Text: "done"}, b.change("request %s from %s", r.Verb, c.Link)
}

// Send returns Answers.
func (b *Backend) Send(_ context.Context, r api.SendRequest) ([]api.HostAnswer, error) {
	if r.Verb == cluster.VerbFence {
		return b.Answers, b.change("send %s %v guest=%s action=%s", r.Verb, r.Hosts, r.Guest, r.Action)
	}
	return b.Answers, b.change("send %s %v group=%s resource=%s script=%s id=%s", r.Verb, r.Hosts, r.Group, r.Resource, r.Script, r.ID)
}

// Guests returns GuestList.
func (b *Backend) Guests(context.Context) ([]api.Guest, error) {
	b.called("guests")
	return b.GuestList, nil
}

// Guest returns the guest of that name in GuestList, switched as asked.
func (b *Backend) Guest(_ context.Context, g cluster.GuestName, action string, _ api.GuestOp) (api.Guest, error) {
	out := api.Guest{Name: g, By: "libvirt " + string(g), Power: cluster.Power(action)}
	for _, known := range b.GuestList {
		if known.Name == g && action == string(cluster.PowerStatus) {
			out = known
		}
	}
	return out, b.change("guest %s %s", g, action)
}

package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/journal"
	"github.com/tasuki-ha/tasuki/internal/request"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// inspect reads from the machine; what f keeps must be copies.
func (d *Daemon) inspect(ctx context.Context, f func(*engine.Machine)) error {
	if err := d.loop.Inspect(ctx, f); err != nil {
		return &api.Error{Code: "stopping", Message: "this node is stopping or does not answer", Hint: "ask another node"}
	}
	return nil
}

// Status returns the cluster as this node sees it.
func (d *Daemon) Status(ctx context.Context) (s api.Status, err error) {
	defer func() { s.Time = d.stalls.report(time.Now(), d.file().Timing) }()
	err = d.inspect(ctx, func(m *engine.Machine) { s = m.Status() })
	for i := range s.Nodes {
		s.Nodes[i].Fence = d.fences.States(s.Nodes[i].Name)
	}
	s.Outlets = d.outletStates()
	reach := d.sender.Reachable()
	for i := range s.Links {
		for k := range s.Links[i].Nodes {
			n := &s.Links[i].Nodes[k]
			n.Reachable = slices.ContainsFunc(reach, func(r request.NodeStatus) bool {
				return r.Link == s.Links[i].Name && r.Node == n.Name && r.Reachable
			})
		}
	}
	return s, err
}

// Events returns what the log holds.
func (d *Daemon) Events(_ context.Context, f api.EventFilter) ([]api.Event, error) {
	if f.Limit <= 0 || f.Limit > 10_000 {
		f.Limit = 10_000
	}
	return d.journal.Query(journal.Filter{
		After: f.After, Since: f.Since, Node: f.Node, Group: f.Group, Newest: f.Newest, Limit: f.Limit,
	}), nil
}

// Follow returns every new event until ctx ends. A receiver that is too slow
// misses some, instead of which it gets an event without an id.
func (d *Daemon) Follow(ctx context.Context) <-chan api.Event {
	out := make(chan api.Event, 64)
	in := d.journal.Subscribe(ctx)
	go func() {
		defer close(out)
		for u := range in {
			select {
			case out <- u.Event:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// explainable bounds how many incidents are looked through for one that acted.
const explainable = 64

// Explain returns the events from the first cause of the given one to the last
// effect; "" means the latest incident: one with a plan or an error, else any.
func (d *Daemon) Explain(_ context.Context, id cluster.EventID) ([]api.Event, error) {
	if id == "" {
		latest := d.journal.Incidents(explainable)
		if len(latest) == 0 {
			return nil, &api.Error{Code: "no-incident", Message: "nothing has happened yet that needs an explanation", Hint: "tasuki event shows the log"}
		}
		acted := slices.IndexFunc(latest, func(i journal.Incident) bool { return i.Plan || i.Level == cluster.LevelError })
		id = latest[max(acted, 0)].Root.ID
	}
	chain := d.journal.Chain(id)
	if len(chain) == 0 {
		return nil, &api.Error{Code: "no-such-event", Message: fmt.Sprintf("there is no event %s", id), Hint: "tasuki event --json shows ids"}
	}
	return chain, nil
}

func (d *Daemon) newAsk(kind admission.Kind, id cluster.RequestID, cause cluster.EventID) (admission.Ask, error) {
	if id == "" {
		s, err := newID()
		if err != nil {
			return admission.Ask{}, err
		}
		id = cluster.RequestID(s)
	}
	return admission.Ask{ID: id, Kind: kind, Cause: cause, Wall: time.Now()}, nil
}

func orNil(e *api.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// command puts a ready command to the cluster.
func (d *Daemon) command(ctx context.Context, cmds ...state.Command) error {
	a, err := d.newAsk(admission.Commands, "", "")
	if err != nil {
		return err
	}
	a.Commands = cmds
	_, no := d.ask(ctx, a)
	return orNil(no)
}

var groupKinds = map[string]admission.Kind{
	"start": admission.GroupStart, "stop": admission.GroupStop, "move": admission.GroupMove,
	"failover": admission.GroupFailover, "restart": admission.GroupRestart, "clear": admission.GroupClear,
	"release": admission.GroupRelease,
}

// Group starts, stops, moves, fails over, restarts, clears or releases a group.
func (d *Daemon) Group(ctx context.Context, g cluster.GroupName, verb string, op api.GroupOp) (api.Begun, error) {
	kind, known := groupKinds[verb]
	if !known {
		return api.Begun{}, &api.Error{Code: "unknown-verb", Message: fmt.Sprintf("a group cannot be asked to %s", verb), Hint: "start, stop, move, failover, restart, clear, release"}
	}
	a, err := d.newAsk(kind, op.ID, op.Cause)
	if err != nil {
		return api.Begun{}, err
	}
	a.Group, a.To = g, op.To
	ans, no := d.ask(ctx, a)
	return api.Begun{Text: ans.Text, Plan: ans.Plan}, orNil(no)
}

// planPoll is how often a plan that is waited for is looked at: the wait is for
// people, and the state is in memory.
const planPoll = 10 * time.Millisecond

// Plan returns how a plan ended; it waits for that at most so long.
func (d *Daemon) Plan(ctx context.Context, id string, wait time.Duration) (api.PlanResult, error) {
	deadline := time.Now().Add(wait)
	for {
		r := api.PlanResult{ID: id}
		found := false
		if err := d.inspect(ctx, func(m *engine.Machine) {
			s := m.State()
			if p, ended := s.Ended(id); ended {
				found, r.Group, r.Ended, r.OK, r.Text = true, p.Group, true, p.OK, p.Text
				return
			}
			for name, g := range s.Groups {
				if g.Plan != nil && g.Plan.ID == id {
					found, r.Group, r.Text = true, name, g.Plan.Why
				}
			}
		}); err != nil {
			return r, err
		}
		if !found && time.Now().After(deadline) {
			return r, &api.Error{Code: "no-such-plan", Message: fmt.Sprintf("there is no plan %s", id), Hint: "ended plans are kept for a while only"}
		}
		if r.Ended || time.Now().After(deadline) {
			return r, nil
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(planPoll):
		}
	}
}

// Monitor suspends, resumes or rehearses a monitor.
func (d *Daemon) Monitor(ctx context.Context, name cluster.MonitorName, verb string, op api.MonitorOp) error {
	m := d.file().Monitor(name)
	if m == nil {
		return &api.Error{Code: "no-such-monitor", Message: fmt.Sprintf("there is no monitor %q", name), Hint: "tasuki monitor list"}
	}
	if op.Node != "" && !slices.Contains(m.Nodes, op.Node) {
		return &api.Error{Code: "no-such-node", Message: fmt.Sprintf("monitor %s does not watch on %q", name, op.Node), Hint: "tasuki monitor list"}
	}
	switch verb {
	case "suspend", "resume":
		var cmds []state.Command
		for _, n := range m.Nodes {
			if op.Node == "" || op.Node == n {
				cmds = append(cmds, state.Command{Suspend: &state.Suspend{Monitor: name, Node: n, On: verb == "suspend"}})
			}
		}
		return d.command(ctx, cmds...)
	case "rehearse":
		if op.Node != "" && op.Node != d.node || !slices.Contains(m.Nodes, d.node) {
			return &api.Error{Code: "other-node", Message: "a rehearsal is begun on the node that watches", Hint: fmt.Sprintf("on %s: tasuki monitor rehearse %s", cmp.Or(op.Node, m.Nodes[0]), name)}
		}
		_, err := d.loop.Step(ctx, engine.Event{Rehearse: &engine.Rehearse{Monitor: name, Cause: op.Cause}})
		return err
	}
	return &api.Error{Code: "unknown-verb", Message: fmt.Sprintf("a monitor cannot be asked to %s", verb), Hint: "suspend, resume, rehearse"}
}

// Node lets a node leave by plan, return, or out of its quarantine, this one start
// without the others, or another be forced off.
func (d *Daemon) Node(ctx context.Context, n cluster.NodeName, verb string, op api.NodeOp) (api.Begun, error) {
	switch verb {
	case "start-alone":
		return d.startAlone(ctx, n, op)
	case "fence":
		return d.fenceNode(ctx, n, op)
	}
	kinds := map[string]admission.Kind{"leave": admission.NodeLeave, "return": admission.NodeReturn, "release": admission.NodeRelease}
	kind, known := kinds[verb]
	if !known {
		return api.Begun{}, &api.Error{Code: "unknown-verb", Message: fmt.Sprintf("a node cannot be asked to %s", verb), Hint: "leave, return, release, start-alone, fence"}
	}
	a, err := d.newAsk(kind, op.ID, op.Cause)
	if err != nil {
		return api.Begun{}, err
	}
	a.Node, a.Why = n, "asked for"
	ans, no := d.ask(ctx, a)
	return api.Begun{Text: ans.Text}, orNil(no)
}

// Maintenance begins or ends the maintenance of a node, a group or the cluster.
func (d *Daemon) Maintenance(ctx context.Context, owner, verb string, op api.MaintenanceOp) (api.Begun, error) {
	kinds := map[string]admission.Kind{"on": admission.MaintainOn, "off": admission.MaintainOff}
	kind, known := kinds[verb]
	if !known {
		return api.Begun{}, &api.Error{Code: "unknown-verb", Message: fmt.Sprintf("a maintenance cannot be asked to %s", verb), Hint: "on, off"}
	}
	if op.Cluster == (op.Node != "" || op.Group != "") {
		return api.Begun{}, &api.Error{Code: "bad-request", Message: "a maintenance is of a node, of a group or of the cluster: name one of them", Hint: "--node NODE, --group GROUP or --cluster"}
	}
	a, err := d.newAsk(kind, op.ID, op.Cause)
	if err != nil {
		return api.Begun{}, err
	}
	a.Node, a.Group, a.Author, a.Why, a.For, a.Drain = op.Node, op.Group, owner, op.Reason, op.For, op.Drain
	ans, no := d.ask(ctx, a)
	return api.Begun{Text: ans.Text}, orNil(no)
}

// Record writes a line of the operator's log.
func (d *Daemon) Record(ctx context.Context, e api.Event) cluster.EventID { return d.record(ctx, e) }

// Log writes a line of the operator's log.
func (d *Daemon) Log(ctx context.Context, l api.LogLine) (api.Logged, error) {
	if l.Module == "" {
		l.Module = "logcmd"
	}
	e := api.Event{Level: l.Level, Module: l.Module, Code: "log", Text: l.Text, Cause: l.Cause}
	if l.Number != 0 {
		e.Fields = map[string]string{"number": fmt.Sprint(l.Number)}
	}
	id := d.record(ctx, e)
	if id == "" {
		return api.Logged{}, &api.Error{Code: "stopping", Message: "the line could not be written: this node is stopping", Hint: "write it on another node"}
	}
	return api.Logged{ID: id}, nil
}

// texts returns the file in force and the older ones, the oldest first.
func (d *Daemon) texts(ctx context.Context) ([]api.ConfigText, error) {
	var out []api.ConfigText
	err := d.inspect(ctx, func(m *engine.Machine) {
		s := m.State()
		for _, t := range append(slices.Clone(s.History), s.Config) {
			out = append(out, api.ConfigText{ConfigVersion: t.ConfigVersion, Text: t.Text})
		}
	})
	return out, err
}

// Config returns the cluster file of that version; 0 is the one in force.
func (d *Daemon) Config(ctx context.Context, version uint64) (api.ConfigText, error) {
	texts, err := d.texts(ctx)
	if err != nil {
		return api.ConfigText{}, err
	}
	for _, t := range slices.Backward(texts) {
		if version == 0 || t.Version == version {
			return t, nil
		}
	}
	return api.ConfigText{}, &api.Error{Code: "no-such-version", Message: fmt.Sprintf("version %d of the cluster file is not kept", version), Hint: "tasuki config history"}
}

// History returns the versions that are kept, the oldest first.
func (d *Daemon) History(ctx context.Context) ([]api.ConfigVersion, error) {
	texts, err := d.texts(ctx)
	var out []api.ConfigVersion
	for _, t := range texts {
		out = append(out, t.ConfigVersion)
	}
	return out, err
}

// PlanConfig says what a change of the cluster file would do, and does nothing.
func (d *Daemon) PlanConfig(ctx context.Context, c api.ConfigChange) (api.ConfigPlan, error) {
	f, errs := config.Parse("cluster file", []byte(c.Text))
	if len(errs) > 0 {
		return api.ConfigPlan{}, &api.Error{Code: "config-invalid", Message: errs.Error(), Hint: "tasuki config check FILE shows the same"}
	}
	var p api.ConfigPlan
	err := d.inspect(ctx, func(m *engine.Machine) {
		p.Base = m.State().Config.Version
		for _, ch := range config.Diff(m.File(), f) {
			p.Changes = append(p.Changes, ch.String())
		}
		p.Refused = admission.CheckChange(m.State(), f)
	})
	if p.Refused == nil {
		p.Refused = d.checkGuests(f)
	}
	for _, w := range f.Warnings() {
		p.Warnings = append(p.Warnings, w.String())
	}
	return p, err
}

// ApplyConfig puts a cluster file in force on all nodes, or on none.
func (d *Daemon) ApplyConfig(ctx context.Context, author string, c api.ConfigChange) (api.Begun, error) {
	if c.Base == 0 {
		now, err := d.Config(ctx, 0)
		if err != nil {
			return api.Begun{}, err
		}
		c.Base = now.Version
	}
	a, err := d.newAsk(admission.ConfigApply, c.ID, "")
	if err != nil {
		return api.Begun{}, err
	}
	if f, errs := config.Parse("cluster file", []byte(c.Text)); len(errs) == 0 { // else the cluster refuses it
		if no := d.checkGuests(f); no != nil {
			return api.Begun{}, no
		}
	}
	a.Config = &state.SetConfig{Base: c.Base, Text: c.Text, Author: author, Note: c.Note, Time: a.Wall}
	ans, no := d.ask(ctx, a)
	return api.Begun{Text: ans.Text}, orNil(no)
}

// NewToken makes a one-time token.
func (d *Daemon) NewToken(ctx context.Context, r api.TokenRequest) (api.TokenText, error) {
	if r.TTL <= 0 {
		r.TTL = time.Hour
	}
	f := d.file()
	if r.Purpose == string(identity.PurposeJoin) && f.Node(cluster.NodeName(r.Subject)) == nil {
		return api.TokenText{}, notInFile(f, cluster.NodeName(r.Subject))
	}
	for _, g := range r.Guests {
		if f.Guest(g) == nil {
			return api.TokenText{}, noSuchGuest(g)
		}
	}
	text, rec, err := identity.NewToken(identity.Purpose(r.Purpose), r.Subject, d.id.CA(), addresses(f, d.node), time.Now(), r.TTL)
	if err != nil {
		return api.TokenText{}, err
	}
	raw, err := json.Marshal(rec)
	if err != nil {
		return api.TokenText{}, fmt.Errorf("write a token: %w", err)
	}
	t := &state.Token{Record: raw, Verbs: r.Verbs, Groups: r.Groups, Scripts: r.Scripts, Guests: r.Guests}
	return api.TokenText{Token: text, Expires: rec.Expires}, d.command(ctx, state.Command{Token: &state.SetToken{ID: rec.ID, Token: t}})
}

// redeem checks a token that somebody shows and takes it out of the state, so
// that it is good once.
func (d *Daemon) redeem(ctx context.Context, p identity.Purpose, id, secretText string) (state.Token, identity.TokenRecord, error) {
	var t state.Token
	var rec identity.TokenRecord
	refused := &api.Error{Code: "token-refused", Message: "the token is not known here", Hint: "make a new one; each can be used once"}
	var known bool
	if err := d.inspect(ctx, func(m *engine.Machine) { t, known = m.State().Tokens[id] }); err != nil {
		return t, rec, err
	}
	var secret identity.Secret
	if !known || json.Unmarshal(t.Record, &rec) != nil || secret.UnmarshalText([]byte(secretText)) != nil {
		return t, rec, refused
	}
	if no := rec.Check(p, secret, time.Now()); no != nil {
		return t, rec, no
	}
	a := admission.Ask{ID: cluster.RequestID("token/" + id), Kind: admission.TokenUse, Token: id, Wall: time.Now()}
	_, no := d.ask(ctx, a)
	return t, rec, orNil(no)
}

// Join makes the caller, who shows a token, a node of this cluster.
func (d *Daemon) Join(ctx context.Context, r api.JoinRequest) (api.JoinReply, error) {
	if !d.id.CanSign() {
		return api.JoinReply{}, &api.Error{Code: "no-ca-key", Message: "this node cannot sign certificates", Hint: "a witness cannot; join at another node"}
	}
	f := d.file()
	n := f.Node(r.Node)
	if n == nil {
		return api.JoinReply{}, notInFile(f, r.Node)
	}
	text, err := d.Config(ctx, 0)
	if err != nil {
		return api.JoinReply{}, err
	}
	_, rec, err := d.redeem(ctx, identity.PurposeJoin, r.TokenID, r.Secret)
	if err != nil {
		return api.JoinReply{}, err
	}
	if rec.Subject != string(r.Node) {
		return api.JoinReply{}, &api.Error{Code: "wrong-node", Message: fmt.Sprintf("the token is for node %s, not %s", rec.Subject, r.Node), Hint: "name the node with --node"}
	}
	cert, err := d.id.Sign([]byte(r.CSR), r.Node)
	if err != nil {
		return api.JoinReply{}, err
	}
	reply := api.JoinReply{Certificate: string(cert), CA: string(d.id.CAPEM()), Config: text.Text}
	if !n.Witness {
		key, err := d.id.CAKeyPEM()
		if err != nil {
			return api.JoinReply{}, err
		}
		reply.CAKey = string(key)
	}
	d.record(ctx, api.Event{Module: "nm", Code: "node-joined", Fields: map[string]string{"node": string(r.Node)},
		Text: fmt.Sprintf("Node %s has joined with a token.", r.Node)})
	return reply, nil
}

// RedeemLink lets the cluster that shows a token ask this one.
func (d *Daemon) RedeemLink(ctx context.Context, r api.LinkRequest) (api.LinkReply, error) {
	if _, err := identity.ParseCertificates([]byte(r.CA)); err != nil {
		return api.LinkReply{}, &api.Error{Code: "bad-request", Message: "the certificate of the asking cluster cannot be read", Hint: "are both of neighbouring versions?"}
	}
	t, rec, err := d.redeem(ctx, identity.PurposeLink, r.TokenID, r.Secret)
	if err != nil {
		return api.LinkReply{}, err
	}
	if rec.Subject != string(r.Cluster) {
		return api.LinkReply{}, &api.Error{Code: "wrong-cluster", Message: fmt.Sprintf("the token is for cluster %s, not %s", rec.Subject, r.Cluster), Hint: "invite it by its own name"}
	}
	link := &state.Link{CA: r.CA, Asks: true, Verbs: t.Verbs, Groups: t.Groups, Scripts: t.Scripts, Guests: t.Guests}
	if err := d.command(ctx, state.Command{Link: &state.SetLink{Name: cluster.LinkName(r.Cluster), Link: link}}); err != nil {
		return api.LinkReply{}, err
	}
	text := fmt.Sprintf("Cluster %s may now ask this one for %v.", r.Cluster, t.Verbs)
	if len(t.Guests) > 0 {
		text = fmt.Sprintf("Cluster %s may now ask this one for %v, of guests %v.", r.Cluster, t.Verbs, t.Guests)
	}
	d.record(ctx, api.Event{Module: "apisv", Code: "link-made", Fields: map[string]string{"link": string(r.Cluster)}, Text: text})
	f := d.file()
	reply := api.LinkReply{Cluster: f.Cluster, CA: string(d.id.CAPEM())}
	for _, n := range f.Nodes {
		if n.Witness {
			continue
		}
		ln := api.LinkNode{Name: n.Name}
		for _, a := range n.Addresses {
			ln.Addresses = append(ln.Addresses, netip.AddrPortFrom(a, f.PortOf(&n)).String())
		}
		reply.Nodes = append(reply.Nodes, ln)
	}
	return reply, nil
}

// AddLink redeems a token of another cluster: this one may then ask it.
func (d *Daemon) AddLink(ctx context.Context, r api.LinkToken) (api.Begun, error) {
	t, err := identity.ParseToken(r.Token)
	if err != nil {
		return api.Begun{}, err
	}
	if t.Purpose != identity.PurposeLink {
		return api.Begun{}, &api.Error{Code: "wrong-token", Message: fmt.Sprintf("this token is for: %s", t.Purpose), Hint: "tasuki join takes tokens of tasuki token join"}
	}
	secret, err := t.Secret.MarshalText()
	if err != nil {
		return api.Begun{}, err
	}
	var reply api.LinkReply
	err = request.Redeem(ctx, t, request.PathLink, api.LinkRequest{TokenID: t.ID, Secret: string(secret), Cluster: d.id.Cluster(), CA: string(d.id.CAPEM())}, &reply)
	if err != nil {
		return api.Begun{}, err
	}
	link := &state.Link{CA: reply.CA, Asked: true}
	for _, n := range reply.Nodes {
		link.Nodes = append(link.Nodes, state.LinkNode{Name: n.Name, Addresses: n.Addresses})
	}
	if err := d.command(ctx, state.Command{Link: &state.SetLink{Name: cluster.LinkName(reply.Cluster), Link: link}}); err != nil {
		return api.Begun{}, err
	}
	return api.Begun{Text: fmt.Sprintf("this cluster may now ask %s", reply.Cluster)}, nil
}

// RemoveLink ends a link, in both directions as far as this cluster goes.
func (d *Daemon) RemoveLink(ctx context.Context, name cluster.LinkName) error {
	if _, known := d.links()[name]; !known {
		return &api.Error{Code: "no-such-link", Message: fmt.Sprintf("there is no link to %q", name), Hint: "tasuki link list"}
	}
	return d.command(ctx, state.Command{Link: &state.SetLink{Name: name}})
}

// links returns the links, copied.
func (d *Daemon) links() map[cluster.LinkName]state.Link {
	out := map[cluster.LinkName]state.Link{}
	if err := d.inspect(d.ctx, func(m *engine.Machine) {
		for n, l := range m.State().Links {
			out[n] = *l
		}
	}); err != nil {
		return nil
	}
	return out
}

// askable returns the links that this cluster may ask, for the sender.
func (d *Daemon) askable() []request.Link {
	links := d.links()
	var out []request.Link
	for _, name := range slices.Sorted(maps.Keys(links)) {
		l := links[name]
		if !l.Asked {
			continue
		}
		rl := request.Link{Name: name, CA: l.CA}
		for _, n := range l.Nodes {
			rn := request.Node{Name: n.Name}
			for _, text := range n.Addresses {
				if a, err := netip.ParseAddrPort(text); err == nil {
					rn.Addresses = append(rn.Addresses, a)
				}
			}
			rl.Nodes = append(rl.Nodes, rn)
		}
		out = append(out, rl)
	}
	return out
}

// sending tells that a request is sent, and returns that event with those that
// led to it.
func (d *Daemon) sending(ctx context.Context, cause cluster.EventID, fields map[string]string, text string) (cluster.EventID, []api.Event) {
	id := d.record(ctx, api.Event{Module: "req", Code: "request-sent", Cause: cause, Fields: fields, Text: text})
	chain := d.journal.Chain(id)
	i := slices.IndexFunc(chain, func(e api.Event) bool { return e.ID == id })
	return id, chain[max(0, i-15) : i+1]
}

// Send asks other clusters, with the events that led to it.
func (d *Daemon) Send(ctx context.Context, r api.SendRequest) ([]api.HostAnswer, error) {
	if r.ID == "" {
		id, err := newID()
		if err != nil {
			return nil, err
		}
		r.ID = cluster.RequestID(fmt.Sprintf("%s/%s/%s", d.id.Cluster(), d.node, id))
	}
	fields := map[string]string{"request": string(r.ID), "verb": string(r.Verb)}
	if cause, chain := d.sending(ctx, r.Cause, fields, fmt.Sprintf("Request %s is being sent to %v.", r.Verb, r.Hosts)); cause != "" {
		r.Cause, r.Chain = cause, chain
	}
	answers := d.sender.Send(ctx, r)
	for _, a := range answers {
		d.metrics.Asked(d.sender.LinkOf(a.Host), r.Verb, a.Error)
		if a.Error != nil {
			d.record(ctx, api.Event{Level: cluster.LevelError, Module: "req", Code: "request-failed", Cause: r.Cause, Fields: fields,
				Text: fmt.Sprintf("Request %s to %s: %s.", r.Verb, a.Host, a.Error.Message)})
		}
	}
	return answers, nil
}

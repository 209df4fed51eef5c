// Package admission judges what is asked of the cluster: it turns an ask into
// the entry that carries it out, or refuses it with a reason. It changes
// nothing itself.
package admission

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/placement"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Kind names what is asked.
type Kind string

// The kinds of asks.
const (
	GroupStart    Kind = "group-start"
	GroupStop     Kind = "group-stop"
	GroupMove     Kind = "group-move"     // To, or by the failover policy
	GroupFailover Kind = "group-failover" // as move; counted under Count if set
	GroupRestart  Kind = "group-restart"  // Resource and what depends on it, or all
	GroupClear    Kind = "group-clear"
	GroupRelease  Kind = "group-release" // of a hold
	Commands      Kind = "commands"      // ready commands of the node itself: reports, tokens, links, suspensions
	NodeLeave     Kind = "node-leave"
	NodeReturn    Kind = "node-return"
	NodeRelease   Kind = "node-release"    // from its quarantine
	MaintainOn    Kind = "maintenance-on"  // of Node or Group, or where both are empty of the cluster
	MaintainOff   Kind = "maintenance-off" //
	ConfigApply   Kind = "config-apply"
	TokenUse      Kind = "token-use" // a token is good once
)

// Ask is one thing that is asked of the cluster.
type Ask struct {
	ID       cluster.RequestID    `json:"id"`
	Kind     Kind                 `json:"kind"`
	Group    cluster.GroupName    `json:"group,omitempty"`
	Resource cluster.ResourceName `json:"resource,omitempty"`
	Node     cluster.NodeName     `json:"node,omitempty"` // the node that leaves or returns
	To       cluster.NodeName     `json:"to,omitempty"`
	Count    string               `json:"count,omitempty"` // the monitor that asks, as the counter's name
	Limit    int                  `json:"limit,omitempty"` // refuse if the counter has reached it; 0: no limit
	Why      string               `json:"why,omitempty"`
	Cause    cluster.EventID      `json:"cause,omitempty"`
	Config   *state.SetConfig     `json:"config,omitempty"`
	Token    string               `json:"token,omitempty"` // its id
	Commands []state.Command      `json:"commands,omitempty"`
	Wall     time.Time            `json:"wall"`
	After    string               `json:"after,omitempty"` // a final action that follows a stop
	Auto     bool                 `json:"auto,omitempty"`  // the recovery of a monitor asks, not a person
	Author   string               `json:"author,omitempty"`
	User     cluster.UserName     `json:"user,omitempty"`
	Hash     string               `json:"hash,omitempty"`     // of a user's new password
	Roles    []cluster.Role       `json:"roles,omitempty"`    // that a user, or access token, is to have
	Granted  []cluster.Role       `json:"granted,omitempty"`  // that the asker has
	Access   *state.Access        `json:"access,omitempty"`   // a new one, all but roles and author
	For      time.Duration        `json:"for,omitempty"`      // of a maintenance; 0: DefaultMaintenance
	Drain    bool                 `json:"drain,omitempty"`    // of a node's maintenance: its groups move away
	Confirm  string               `json:"confirm,omitempty"`  // the name of the cluster, typed by a person
	Thorough bool                 `json:"thorough,omitempty"` // of a copy: everything; of a verify: with repair
	Blank    bool                 `json:"blank,omitempty"`    // Node's copy says that it was never made; the leader knows, nobody else is believed
}

func refuse(code, hint, format string, args ...any) *api.Error {
	return &api.Error{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Admit returns the entry that carries the ask out. The entry has the answer in
// it; a refusal is not remembered, so the same ask may be made again later.
func Admit(s *state.State, a Ask) (state.Entry, *api.Error) {
	switch a.Kind {
	case GroupStart, GroupStop, GroupMove, GroupFailover, GroupRestart:
		return admitGroup(s, a)
	case GroupClear:
		if s.Groups[a.Group] == nil {
			return state.Entry{}, noGroup(s, a.Group)
		}
		return done(a, "cleared", state.Command{Clear: &state.Clear{Group: a.Group}}), nil
	case GroupRelease:
		return admitRelease(s, a)
	case Commands:
		return done(a, "done", a.Commands...), nil
	case NodeLeave, NodeReturn, NodeRelease:
		return admitNode(s, a)
	case MaintainOn, MaintainOff:
		return admitMaintenance(s, a)
	case MirrorForce, MirrorAcknowledge, MirrorResolve, MirrorBreak, MirrorResume, MirrorCopy, MirrorVerify, MirrorGrow, MirrorInvalidate:
		return admitMirror(s, a)
	case UserAdd, UserPassword, UserOwn, UserRoles, UserRemove:
		return admitUser(s, a)
	case AccessAdd, AccessRemove:
		return admitAccess(s, a)
	case ConfigApply:
		return admitConfig(s, a)
	case TokenUse:
		if _, known := s.Tokens[a.Token]; !known {
			return state.Entry{}, refuse("token-used", "make a new one; each can be used once", "the token was used already")
		}
		return done(a, "used", state.Command{Token: &state.SetToken{ID: a.Token}}), nil
	}
	return state.Entry{}, refuse("unknown-ask", "are all nodes of the same version?", "%q is not something that can be asked", a.Kind)
}

func done(a Ask, text string, cmds ...state.Command) state.Entry {
	return state.Entry{Answer: &state.Answer{ID: a.ID, Text: text}, Commands: cmds}
}

func noGroup(s *state.State, g cluster.GroupName) *api.Error {
	names := s.GroupNames()
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = string(n)
	}
	hint := "the cluster file has no group"
	if len(texts) > 0 {
		hint = "the groups are: " + strings.Join(texts, ", ")
	}
	return refuse("no-such-group", hint, "there is no group %q", g)
}

func admitGroup(s *state.State, a Ask) (state.Entry, *api.Error) {
	g := s.File().Group(a.Group)
	if g == nil && a.Group == "" && a.Resource != "" {
		if g = s.File().GroupOf(a.Resource); g == nil {
			return state.Entry{}, refuse("no-such-resource", "tasuki status lists the resources", "no group has a resource %q", a.Resource)
		}
	}
	if g == nil {
		return state.Entry{}, noGroup(s, a.Group)
	}
	gs := s.Groups[g.Name]
	if gs.Plan != nil {
		return state.Entry{}, refuse("busy", "wait for it to end, then ask again: tasuki status",
			"group %s is in the middle of a %s: %s", g.Name, gs.Plan.Action, gs.Plan.Why)
	}
	if a.Limit > 0 && gs.Failovers[a.Count] >= a.Limit {
		return state.Entry{}, refuse("counter-used-up", fmt.Sprintf("tasuki group clear %s forgets the counters", g.Name),
			"%s has already moved group %s %d times", a.Count, g.Name, gs.Failovers[a.Count])
	}
	if why := s.Suspended(g.Name); a.Auto && why != "" {
		return state.Entry{}, refuse("in-maintenance", "tasuki maintenance off ends it, tasuki maintenance list shows it", "%s", why)
	}
	if a.Auto && gs.Held != nil && a.Kind != GroupRestart {
		return state.Entry{}, refuse("held", fmt.Sprintf("tasuki group release %s", g.Name), "group %s is held where it is: %s", g.Name, gs.Held.Why)
	}
	var p state.Plan
	var no *api.Error
	switch a.Kind {
	case GroupStart:
		p, no = planStart(s, g, gs, a)
	case GroupStop:
		p, no = planStop(g, gs)
		p.After = a.After
	case GroupRestart:
		p, no = planRestart(s, g, gs, a)
	default:
		p, no = planMove(s, g, gs, a)
	}
	if no != nil {
		return state.Entry{}, no
	}
	p.Cause = a.Cause
	if a.Why != "" {
		p.Why = a.Why
	}
	e := done(a, "", state.Command{Begin: &state.Begin{Group: g.Name, Epoch: gs.Epoch, Plan: p, Count: a.Count, Time: a.Wall}})
	e.Answer.Plan = fmt.Sprintf("p%d", s.PlanSeq+1)
	e.Answer.Text = fmt.Sprintf("%s of group %s begun", p.Action, g.Name)
	return e, nil
}

func admitRelease(s *state.State, a Ask) (state.Entry, *api.Error) {
	gs := s.Groups[a.Group]
	if gs == nil {
		return state.Entry{}, noGroup(s, a.Group)
	}
	if gs.Held == nil {
		return state.Entry{}, refuse("not-held", "nothing is to be done", "group %s is not held", a.Group)
	}
	return done(a, fmt.Sprintf("group %s is released", a.Group), state.Command{Hold: &state.Hold{Group: a.Group, Why: cmp.Or(a.Why, "asked for")}}), nil
}

func planStart(s *state.State, g *config.Group, gs *state.Group, a Ask) (state.Plan, *api.Error) {
	p := state.Plan{Action: state.ActionStart, Factor: cluster.FactorGroupStart, Wanted: true, Why: "asked for"}
	if gs.Owner != "" && gs.Phase != cluster.PhaseFailed {
		return p, refuse("already-active", "tasuki group move brings it elsewhere", "group %s is already active on %s", g.Name, gs.Owner)
	}
	if stopFailed(gs) {
		return p, stillThere(g, gs)
	}
	p.From = gs.Owner // a failed group is stopped first, then started anew
	if p.To = a.To; p.To != "" {
		if why := unfit(s, g, p.To); why != "" {
			return p, refuse("node-unfit", "tasuki status shows the nodes", "group %s cannot start on %s: %s", g.Name, p.To, why)
		}
		return p, nil
	}
	choice := placement.Choose(s, g, "")
	if p.To = cmp.Or(choice.Node, choice.LastResort); p.To == "" {
		return p, refuse("no-node", fmt.Sprintf("tasuki group clear %s forgets failed activations", g.Name),
			"no node can take group %s: %s", g.Name, choice.Why())
	}
	return p, nil
}

func planStop(g *config.Group, gs *state.Group) (state.Plan, *api.Error) {
	p := state.Plan{Action: state.ActionStop, From: gs.Owner, Factor: cluster.FactorGroupStop, Why: "asked for"}
	if gs.Owner == "" {
		return p, refuse("not-active", "nothing is to be stopped", "group %s is not active", g.Name)
	}
	return p, nil
}

func planRestart(s *state.State, g *config.Group, gs *state.Group, a Ask) (state.Plan, *api.Error) {
	p := state.Plan{Action: state.ActionRestart, From: gs.Owner, To: gs.Owner, Resource: a.Resource,
		Factor: cluster.FactorGroupRestart, Wanted: true, Why: "asked for"}
	if a.Resource != "" {
		p.Factor = cluster.FactorResourceRestart
	}
	if a.Resource != "" && g.Resource(a.Resource) == nil {
		return p, refuse("no-such-resource", "tasuki status lists the resources", "group %s has no resource %q", g.Name, a.Resource)
	}
	if gs.Owner == "" {
		return p, refuse("not-active", fmt.Sprintf("tasuki group start %s", g.Name), "group %s is not active", g.Name)
	}
	if stopFailed(gs) {
		return p, stillThere(g, gs)
	}
	if why := placement.Unfit(s, g, gs.Owner); why != "" {
		return p, refuse("node-unfit", "tasuki group move brings it elsewhere", "group %s cannot start again on %s: %s", g.Name, gs.Owner, why)
	}
	return p, nil
}

func planMove(s *state.State, g *config.Group, gs *state.Group, a Ask) (state.Plan, *api.Error) {
	p := state.Plan{Action: state.ActionMove, From: gs.Owner, Factor: cluster.FactorGroupMove, Wanted: true, Why: "asked for"}
	if a.Kind == GroupFailover {
		p.Action, p.Factor = state.ActionFailover, cluster.FactorGroupFailover
	}
	if gs.Owner == "" {
		return p, refuse("not-active", fmt.Sprintf("tasuki group start %s", g.Name), "group %s is not active anywhere", g.Name)
	}
	if stopFailed(gs) {
		return p, stillThere(g, gs)
	}
	if a.To == gs.Owner {
		return p, refuse("already-there", "name another node, or none", "group %s is already on %s", g.Name, gs.Owner)
	}
	if p.To = a.To; p.To != "" {
		if why := unfit(s, g, p.To); why != "" {
			return p, refuse("standby-down", "the group keeps running where it is",
				"group %s cannot move from %s to %s: %s", g.Name, gs.Owner, p.To, why)
		}
		return p, nil
	}
	choice := placement.Choose(s, g, gs.Owner)
	if p.To = choice.Node; p.To == "" {
		return p, refuse("standby-down", "the group keeps running where it is",
			"group %s cannot move away from %s: %s", g.Name, gs.Owner, choice.Why())
	}
	return p, nil
}

func stopFailed(gs *state.Group) bool {
	for _, r := range gs.Resources {
		if r.State == cluster.ResourceStopFailed {
			return true
		}
	}
	return false
}

func stillThere(g *config.Group, gs *state.Group) *api.Error {
	return refuse("stop-failed", fmt.Sprintf("end it by hand on %s, then: tasuki group stop %s", gs.Owner, g.Name),
		"group %s did not stop on %s and may still be active there: %s", g.Name, gs.Owner, gs.Why)
}

func admitNode(s *state.State, a Ask) (state.Entry, *api.Error) {
	n := s.Nodes[a.Node]
	if n == nil {
		return state.Entry{}, refuse("no-such-node", "tasuki status lists the nodes", "there is no node %q", a.Node)
	}
	if a.Kind == NodeRelease {
		if n.Quarantine == nil {
			return state.Entry{}, refuse("not-quarantined", "nothing is to be done", "node %s is not quarantined", a.Node)
		}
		return done(a, fmt.Sprintf("%s may be given groups again", a.Node),
			state.Command{Quarantine: &state.SetQuarantine{Node: a.Node, Until: n.Quarantine.Until, Why: cmp.Or(a.Why, "asked for")}}), nil
	}
	set := state.SetNode{Name: a.Node, State: n.State, Boot: n.Boot, Daemon: n.Daemon, Why: a.Why, Cause: a.Cause, Time: a.Wall}
	if a.Kind == NodeReturn {
		switch {
		case n.State == cluster.NodeLeft: // it is up once the leader hears it
			set.State, set.Boot, set.Daemon, set.Why = cluster.NodeUnknown, "", "", "called back"
		case n.Leaving:
			set.State = cluster.NodeUp
		default:
			return state.Entry{}, refuse("node-not-left", "nothing is to be done", "node %s has not left: it is %s", a.Node, n.State)
		}
		return done(a, fmt.Sprintf("%s may be given groups again", a.Node), state.Command{Node: &set}), nil
	}
	if n.State != cluster.NodeUp {
		return state.Entry{}, refuse("node-not-up", "nothing is to be done", "node %s is %s already", a.Node, n.State)
	}
	for _, g := range s.OwnedBy(a.Node) {
		if stopFailed(s.Groups[g]) {
			return state.Entry{}, stillThere(s.File().Group(g), s.Groups[g])
		}
	}
	set.Leaving = true
	if len(s.OwnedBy(a.Node)) == 0 {
		set.State, set.Leaving = cluster.NodeLeft, false
	}
	return done(a, fmt.Sprintf("%s is leaving", a.Node), state.Command{Node: &set}), nil
}

func admitConfig(s *state.State, a Ask) (state.Entry, *api.Error) {
	if a.Config == nil {
		return state.Entry{}, refuse("bad-ask", "tasuki config apply FILE sends one", "no cluster file was sent")
	}
	if a.Config.Base != s.Config.Version {
		return state.Entry{}, refuse("config-changed", "look at tasuki config diff, then apply again",
			"the cluster file was changed meanwhile: version %d is in force, yours is made from %d", s.Config.Version, a.Config.Base)
	}
	f, errs := config.Parse("cluster file", []byte(a.Config.Text))
	if len(errs) > 0 {
		return state.Entry{}, refuse("config-invalid", "tasuki config check FILE shows the same", "%s", strings.TrimSpace(errs.Error()))
	}
	if no := CheckChange(s, f); no != nil {
		return state.Entry{}, no
	}
	return done(a, fmt.Sprintf("version %d is in force", s.Config.Version+1), state.Command{Config: a.Config}), nil
}

// CheckChange says why the file cannot take the place of the one in force now,
// or nil. What is active must be stopped with the settings it was started with.
func CheckChange(s *state.State, f *config.File) *api.Error {
	old := s.File()
	if old.Cluster != "" && f.Cluster != old.Cluster {
		return refuse("config-cluster", "make a new cluster instead: tasuki init", "the name of a cluster cannot change (%s to %s)", old.Cluster, f.Cluster)
	}
	touched := map[cluster.GroupName]bool{} // groups whose resources change
	for _, c := range config.Diff(old, f) {
		if c.Effect.Kind == config.EffectRestartResource {
			touched[c.Effect.Group] = true
		}
	}
	for _, name := range s.GroupNames() {
		gs := s.Groups[name]
		if gs.Owner == "" {
			continue
		}
		will := f.Group(name)
		hint := fmt.Sprintf("tasuki group stop %s, apply, then start it again", name)
		switch {
		case will == nil:
			return refuse("config-group-active", hint, "group %s is active on %s and cannot be taken out of the file", name, gs.Owner)
		case !slices.Contains(will.Nodes, gs.Owner):
			return refuse("config-group-active", "move the group first", "group %s is active on %s, which the new file takes out of its list", name, gs.Owner)
		case gs.Plan != nil && gs.Plan.To != "" && !slices.Contains(will.Nodes, gs.Plan.To):
			return refuse("config-group-active", "wait until it has ended", "group %s is on its way to %s, which the new file takes out of its list", name, gs.Plan.To)
		case touched[name]:
			return refuse("config-group-active", hint, "group %s is active on %s and its resources cannot change meanwhile", name, gs.Owner)
		}
	}
	if no := keepsCopies(s, f); no != nil {
		return no
	}
	for i := range old.Nodes {
		if n := &old.Nodes[i]; f.Node(n.Name) == nil && s.Nodes[n.Name].State == cluster.NodeUp {
			return refuse("config-node-up", fmt.Sprintf("tasuki node leave %s first", n.Name), "node %s is up and cannot be taken out of the file", n.Name)
		}
	}
	return nil
}

package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

// asking is what a question or a drill is about, as it was typed.
type asking struct {
	kill, pull, leave []string
	move, fail        string
	apply, file       string
	suppose           []string
	drill             bool // kill is an order to force the node off, fail a rehearsal here
}

func (a *asking) flags(c *cobra.Command, p *program) {
	f := c.Flags()
	f.StringArrayVar(&a.kill, "kill", nil, "NODE loses its power")
	f.StringArrayVar(&a.pull, "pull", nil, "NODE:DEVICE, a cable is pulled; or NODE:NUMBER, a network is cut")
	f.StringVar(&a.move, "move", "", "GROUP or GROUP=NODE, a group is moved")
	f.StringVar(&a.fail, "fail", "", "RESOURCE or MONITOR, or one of them @NODE: it fails there")
	_ = c.RegisterFlagCompletionFunc("kill", p.complete(nodeNames))
	_ = c.RegisterFlagCompletionFunc("move", p.complete(groupNames))
	_ = c.RegisterFlagCompletionFunc("fail", p.complete(monitorNames))
}

func (p *program) simulate() *cobra.Command {
	var a asking
	c := p.jsonFlag(&cobra.Command{Use: "simulate", Short: "What would happen if, and touch nothing", Args: args(0, 0, "no arguments; say by a flag what is to happen"),
		Long: `Ask what the cluster would do, from how it stands now, if something happened. The
shipped core itself answers, on a copy of what the nodes agree on, in a world of its
own: nothing is touched, and no node hears of it. It tells what would be done when
and why, what runs where afterwards, what cannot run, and how many more faults could
be survived then.

Starts and stops take as long as they took last and succeed, unless --suppose says
otherwise: RESOURCE:start=fails, RESOURCE:stop=hangs, RESOURCE:start=12s,
NODE:fence=fails, NODE:ping=fails. What a script of a monitor does is not foreseen.
With --file it asks about a cluster that does not exist yet; no daemon is needed.`,
		Example: `  tasuki simulate --kill CLP-1
  tasuki simulate --pull CLP-1:eth0
  tasuki simulate --move failover=CLP-2
  tasuki simulate --fail exec@CLP-1 --suppose exec:start=fails
  tasuki simulate --apply vmcluster.yaml --kill CLP-2
  tasuki simulate --file vmcluster.yaml --kill CLP-1`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			snap, err := p.beginning(cmd.Context(), a)
			if err != nil {
				return err
			}
			r, err := p.foresee(cmd.Context(), a, snap)
			if err != nil {
				return err
			}
			if p.asJSON {
				err = p.json(r)
			} else {
				p.printSimulation(&r)
			}
			if r.Refused != nil {
				return r.Refused
			}
			return err
		}})
	a.flags(c, p)
	c.Flags().StringArrayVar(&a.leave, "leave", nil, "the daemon of NODE is stopped by plan")
	c.Flags().StringVar(&a.apply, "apply", "", "another cluster file is put in force first")
	c.Flags().StringVar(&a.file, "file", "", "ask about a new cluster with this file, not about the one that runs")
	c.Flags().StringArrayVar(&a.suppose, "suppose", nil, "WHO:WHAT=HOW, how a step goes")
	_ = c.RegisterFlagCompletionFunc("leave", p.complete(nodeNames))
	return c
}

// beginning returns what the question begins with.
func (p *program) beginning(ctx context.Context, a asking) (api.Snapshot, error) {
	if a.file == "" {
		return p.client().Snapshot(ctx)
	}
	_, text, err := p.clusterFile(a.file)
	if err != nil {
		return api.Snapshot{}, err
	}
	return whatif.Fresh(text, time.Now())
}

// foresee asks what would happen, from a snapshot of a cluster that runs or of a new
// one.
func (p *program) foresee(ctx context.Context, a asking, snap api.Snapshot) (api.Simulation, error) {
	var log []api.Event
	var err error
	if a.file == "" {
		if log, err = p.client().Events(ctx, api.EventFilter{Newest: true, Limit: eventPage}); err != nil {
			return api.Simulation{}, err
		}
	}
	var text string
	var planned *api.ConfigPlan
	if a.apply != "" {
		if text, planned, err = p.applied(ctx, a); err != nil {
			return api.Simulation{}, err
		}
	}
	r, err := a.ask(snap, log, text)
	r.Config = planned
	if planned != nil && planned.Refused != nil {
		r.Refused = planned.Refused
	}
	return r, err
}

// applied returns the other cluster file that is put in force, and what the daemon
// says to that.
func (p *program) applied(ctx context.Context, a asking) (string, *api.ConfigPlan, error) {
	_, text, err := p.clusterFile(a.apply)
	if err != nil {
		return "", nil, err
	}
	plan := api.ConfigPlan{}
	if a.file == "" {
		if plan, err = p.client().PlanConfig(ctx, api.ConfigChange{Text: text}); err != nil {
			return "", nil, err
		}
	}
	return text, &plan, nil
}

// ask asks the shipped machines. How long steps took last is in the log; a text is
// that of a cluster file which is put in force first.
func (a *asking) ask(snap api.Snapshot, log []api.Event, text string) (api.Simulation, error) {
	q := whatif.Question{Snapshot: snap, Took: whatif.Took(log), Fate: map[whatif.Step]whatif.Suppose{}, Mute: map[cluster.NodeName][]netip.Addr{}}
	f, err := readable(snap)
	if err != nil {
		return api.Simulation{}, err
	}
	if text != "" {
		var errs config.Errors
		if f, errs = config.Parse("cluster file", []byte(text)); len(errs) > 0 {
			return api.Simulation{}, &api.Error{Code: "config-invalid", Message: errs.Error(), Hint: "tasuki config check FILE shows the same"}
		}
		q.Changes = append(q.Changes, whatif.Change{Ask: &admission.Ask{Kind: admission.ConfigApply,
			Config: &state.SetConfig{Base: snap.Status.Config.Version, Text: text, Author: "simulate", Time: snap.Time}}})
	}
	if err := a.changes(&q, f, snap.Status.Node); err != nil {
		return api.Simulation{}, err
	}
	if len(q.Changes) == 0 {
		return api.Simulation{}, usageError{fmt.Errorf("say what is to happen: --kill, --pull, --move, --fail, --leave or --apply")}
	}
	if err := a.fates(&q, f); err != nil {
		return api.Simulation{}, err
	}
	return whatif.Ask(q)
}

// changes adds what was typed to the question.
func (a *asking) changes(q *whatif.Question, f *config.File, here cluster.NodeName) error {
	if a.move != "" {
		g, to, _ := strings.Cut(a.move, "=")
		q.Changes = append(q.Changes, whatif.Change{Ask: &admission.Ask{Kind: admission.GroupMove, Group: cluster.GroupName(g), To: cluster.NodeName(to)}})
	}
	if a.fail != "" {
		fail, err := failing(a.fail, f)
		if err != nil {
			return err
		}
		if fail.Rehearse = a.drill && fail.Monitor != ""; fail.Rehearse && fail.Node == "" {
			fail.Node = here
		}
		q.Changes = append(q.Changes, whatif.Change{Fail: fail})
	}
	for _, text := range a.pull {
		pull, err := pulled(text, f, here)
		if err != nil {
			return err
		}
		q.Changes = append(q.Changes, whatif.Change{Pull: pull})
	}
	for _, n := range a.kill {
		c := whatif.Change{Kill: cluster.NodeName(n)}
		if a.drill {
			c = whatif.Change{Fence: &whatif.Order{Node: c.Kill, By: here}}
		}
		q.Changes = append(q.Changes, c)
	}
	for _, n := range a.leave {
		q.Changes = append(q.Changes, whatif.Change{Leave: cluster.NodeName(n)})
	}
	return nil
}

// failing reads RESOURCE[@NODE] or MONITOR[@NODE].
func failing(text string, f *config.File) (*whatif.Fail, error) {
	name, node, _ := strings.Cut(text, "@")
	fail := &whatif.Fail{Node: cluster.NodeName(node), Text: "it is supposed to fail"}
	switch {
	case f.GroupOf(cluster.ResourceName(name)) != nil:
		fail.Resource = cluster.ResourceName(name)
	case f.Monitor(cluster.MonitorName(name)) != nil:
		fail.Monitor = cluster.MonitorName(name)
	default:
		return nil, &api.Error{Code: "no-such-resource", Message: fmt.Sprintf("there is no resource and no monitor %q", name), Hint: "tasuki status lists both"}
	}
	return fail, nil
}

// fates adds how steps are supposed to go.
func (a *asking) fates(q *whatif.Question, f *config.File) error {
	for _, text := range a.suppose {
		subject, how, _ := strings.Cut(text, "=")
		who, what, _ := strings.Cut(subject, ":")
		at, fate, ok := whatif.Step{Resource: cluster.ResourceName(who), What: what}, whatif.Suppose{}, true
		switch verb, times, _ := strings.Cut(how, ":"); {
		case verb == "fails" && times != "":
			n, err := strconv.Atoi(times)
			fate.Fails, ok = n, err == nil && n > 0
		case verb == "fails":
			fate.Fails = -1
		case how == "hangs":
			fate.Hangs = true
		default:
			d, err := time.ParseDuration(how)
			fate.Takes, ok = d, err == nil && d > 0
		}
		ofResource := f.GroupOf(at.Resource) != nil && slices.Contains([]string{whatif.Start, whatif.Stop, whatif.Force, whatif.Isolate}, what)
		node := f.Node(cluster.NodeName(who))
		switch {
		case ok && ofResource, ok && node != nil && at == whatif.FenceOf(node.Name):
			q.Fate[at] = fate
		case ok && node != nil && what == "ping" && fate.Fails < 0:
			for _, x := range f.Arbitration {
				q.Mute[node.Name] = append(q.Mute[node.Name], x.Targets...)
			}
		default:
			return usageError{fmt.Errorf("%q cannot be supposed: write RESOURCE:start|stop|force|isolate=fails|fails:TIMES|hangs|DURATION, NODE:fence=fails or NODE:ping=fails", text)}
		}
	}
	return nil
}

func (p *program) printSimulation(r *api.Simulation) {
	fmt.Fprintf(p.out, "if %s\n", strings.Join(r.Change, ", and "))
	if r.Config != nil {
		for _, c := range r.Config.Changes {
			fmt.Fprintf(p.out, "  %s\n", c)
		}
		for _, w := range r.Config.Warnings {
			fmt.Fprintf(p.out, "  warning: %s\n", w)
		}
	}
	if r.Refused != nil {
		fmt.Fprintf(p.out, "%s: nothing is done\n", p.paint(false, "refused"))
		return
	}
	fmt.Fprintln(p.out, "\nwhat follows")
	p.printSteps(r.Steps)
	if !r.Complete {
		fmt.Fprintln(p.out, "  and so on: it does not come to rest within what is looked ahead")
	}
	fmt.Fprintln(p.out, "\ngroups then")
	for _, g := range r.Groups {
		p.printSimGroup(&g)
	}
	fmt.Fprintln(p.out, "\nnodes then")
	for _, n := range r.Nodes {
		why := cmp.Or(n.End, n.Why)
		if n.On {
			why = ""
		}
		fmt.Fprintf(p.out, "  %-16s %s%s\n", n.Name, p.paint(n.On && n.State == cluster.NodeUp, string(n.State)), parenthesis(why))
	}
	fmt.Fprintf(p.out, "\ncan survive now:  %s%s\n", faults(r.Before.Survives), parenthesis(r.Before.Why))
	fmt.Fprintf(p.out, "can survive then: %s%s\n", p.paint(r.After.Survives > 0, faults(r.After.Survives)), parenthesis(r.After.Why))
	if slices.ContainsFunc(r.Steps, func(s api.SimStep) bool { return s.Code == "node-silent" }) {
		for _, b := range r.Bounds[:min(2, len(r.Bounds))] { // the rest is about daemons that stand still
			fmt.Fprintf(p.out, "by the cluster file: %s\n", b)
		}
	}
	for _, a := range r.Assumed {
		fmt.Fprintf(p.out, "assumed: %s\n", a)
	}
}

func (p *program) printSteps(steps []api.SimStep) {
	if len(steps) == 0 {
		fmt.Fprintln(p.out, "  nothing")
	}
	said := map[string]bool{}
	for _, s := range steps {
		limit := ""
		switch {
		case s.Limit > 0 && s.Known:
			limit = fmt.Sprintf("  (as last time; at most %s)", s.Limit)
		case s.Limit > 0:
			limit = fmt.Sprintf("  (how long it takes is not known; at most %s)", s.Limit)
		}
		fmt.Fprintf(p.out, "%8.3f s  %-10s %s%s\n", s.After.Seconds(), s.Node, s.Text, limit)
		if s.Why != "" && !said[s.Why] && !strings.Contains(s.Text, s.Why) {
			said[s.Why] = true
			fmt.Fprintf(p.out, "%24swhy: %s\n", "", s.Why)
		}
	}
}

func (p *program) printSimGroup(g *api.SimGroup) {
	where, good := "", g.Served
	switch {
	case len(g.Both) > 0:
		where, good = fmt.Sprintf("active on %v at once", g.Both), false
	case g.Served && g.Before == g.After && g.Outage == 0:
		where = fmt.Sprintf("on %s, untouched", g.After)
	case g.Served && g.Before == g.After:
		where = fmt.Sprintf("on %s again, after %.3f s", g.After, g.Outage.Seconds())
	case g.Served:
		where = fmt.Sprintf("%s -> %s, active nowhere for %.3f s", cmp.Or(g.Before, "nowhere"), g.After, g.Outage.Seconds())
	case !g.Wanted && g.Before == "":
		where, good = "stopped, as it was", true
	case g.After != "":
		where = fmt.Sprintf("%s on %s", g.Phase, g.After)
	default:
		where = "active nowhere"
	}
	fmt.Fprintf(p.out, "  %-16s %s%s\n", g.Name, p.paint(good, where), parenthesis(g.Why))
	if len(g.Spare) > 0 {
		fmt.Fprintf(p.out, "  %-16s could go to %s\n", "", joined(g.Spare))
	}
	for _, why := range g.Others {
		if !strings.Contains(g.Why, why) {
			fmt.Fprintf(p.out, "  %-16s not to another: %s\n", "", why)
		}
	}
}

func joined[T ~string](names []T) string {
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = string(n)
	}
	return strings.Join(texts, ", ")
}

func parenthesis(s string) string {
	if s == "" {
		return ""
	}
	return "  (" + s + ")"
}

func faults(n int) string {
	switch n {
	case 0:
		return "no further fault"
	case 1:
		return "1 more fault"
	}
	return fmt.Sprintf("%d more faults", n)
}

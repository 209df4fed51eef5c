package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

// completing bounds what a completion may wait for.
func completing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 300*time.Millisecond)
}

// complete returns live names for a flag; it gives up soon.
func (p *program) complete(pick func(*api.Status) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := completing(cmd.Context())
		defer cancel()
		s, err := p.client().Status(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return pick(&s), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFirst is complete for the only argument of a command.
func (p *program) completeFirst(pick func(*api.Status) []string) cobra.CompletionFunc {
	names := p.complete(pick)
	return func(cmd *cobra.Command, a []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(a) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(cmd, a, start)
	}
}

func groupNames(s *api.Status) (out []string) {
	for _, g := range s.Groups {
		out = append(out, string(g.Name))
	}
	return out
}

func nodeNames(s *api.Status) (out []string) {
	for _, n := range s.Nodes {
		out = append(out, string(n.Name))
	}
	return out
}

func monitorNames(s *api.Status) (out []string) {
	for _, m := range s.Monitors {
		out = append(out, string(m.Name))
	}
	return out
}

func linkNames(s *api.Status) (out []string) {
	for _, l := range s.Links {
		out = append(out, string(l.Name))
	}
	return out
}

// cause is the event that led to this command, for a script that the daemon
// runs; the operator at his desk has none.
func cause() cluster.EventID { return cluster.EventID(os.Getenv("TASUKI_CAUSE")) }

// verbOf is one command of a command of commands.
type verbOf struct{ verb, short, long, example string }

var groupVerbs = []verbOf{
	{"start", "Start a group", `Start a group that is active nowhere, on the node that its failover policy
prefers or on the one that is named. A group that failed is stopped first, then
started anew. A named node is tried also where an activation had failed.`,
		`  tasuki group start failover
  tasuki group start failover --to CLP-2`},
	{"stop", "Stop a group", `Stop a group in the reverse order of its start. It stays stopped until it is
started. Where a stop has failed, this tries it once more.`,
		`  tasuki group stop failover`},
	{"move", "Move a group to another node, by plan", `Stop a group where it is, then start it on the node that its failover policy
prefers next or on the one that is named. If no node can take it, it keeps
running where it is and the reason is shown.`,
		`  tasuki group move failover
  tasuki group move failover --to CLP-2`},
	{"failover", "Fail a group over to another node: as a move, but its scripts are told", `Move a group as a failure would: its scripts see a failover as the factor, not
a move. The failure itself is not made up; see tasuki monitor rehearse.`,
		`  tasuki group failover failover`},
	{"restart", "Stop a group and start it again where it is", `Stop every resource of a group and start it again on the same node.`,
		`  tasuki group restart failover`},
	{"clear", "Forget a group's counters and failed activations", `Forget how often a group was moved by its resources and monitors, and on which
nodes its activation failed, so that these nodes are tried again.`,
		`  tasuki group clear failover`},
	{"release", "Let a held group fail over again", `A group that its resources or monitors have failed over too often is held: it stays
where it is (hold in the cluster file). Once the reason is mended, release it; its
failovers are counted anew. Its node's death moves it even while it is held.`,
		`  tasuki group release failover`},
}

// waiting is how a command waits for a plan.
type waiting struct {
	no      bool
	timeout time.Duration
}

func (p *program) group() *cobra.Command {
	c := &cobra.Command{Use: "group", Short: "Start, stop and move groups",
		Long: `Change where groups run. Each command shows the lines of the log while it waits
for the end; what cannot be done is refused with the reason and changes nothing.
A group that was stopped stays stopped until it is started.`,
		Example: `  tasuki group move failover
  tasuki group move failover --to CLP-2
  tasuki group stop failover`}
	for _, v := range groupVerbs {
		var to string
		var w waiting
		sub := &cobra.Command{Use: v.verb + " GROUP", Short: v.short, Long: v.long, Example: v.example, Args: args(1, 1, "a group"), ValidArgsFunction: p.completeFirst(groupNames),
			RunE: func(cmd *cobra.Command, a []string) error {
				return p.changeGroup(cmd.Context(), cluster.GroupName(a[0]), v.verb, cluster.NodeName(to), w)
			}}
		if v.verb == "start" || v.verb == "move" || v.verb == "failover" {
			sub.Flags().StringVar(&to, "to", "", "the node to start it on (default: by its failover policy)")
			_ = sub.RegisterFlagCompletionFunc("to", p.complete(nodeNames))
		}
		sub.Flags().BoolVar(&w.no, "no-wait", false, "do not wait until it is done: say that it has begun")
		sub.Flags().DurationVar(&w.timeout, "timeout", time.Hour, "how long to wait; the group goes on after that (exit code 4)")
		c.AddCommand(sub)
	}
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "list", Short: "Show the groups", Long: "Show the groups and their resources, where each group is and why.",
		Example: "  tasuki group list", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(s.Groups)
			}
			for _, g := range s.Groups {
				p.printGroup(&g, nameColumn(&s))
			}
			return nil
		}}))
	return c
}

// settle is how long the lines of other nodes may be behind the end of a plan.
const settle = 50 * time.Millisecond

// changeGroup asks and then shows the log until the plan has ended.
func (p *program) changeGroup(ctx context.Context, g cluster.GroupName, verb string, to cluster.NodeName, w waiting) error {
	cl := p.client()
	var t *teller
	if !w.no {
		t = p.tell(ctx, g)
		defer t.hush()
	}
	b, err := cl.Group(ctx, g, verb, api.GroupOp{To: to, Cause: cause()})
	if err != nil {
		return err
	}
	if t == nil || b.Plan == "" {
		if t != nil {
			t.hush()
		}
		fmt.Fprintln(p.out, b.Text)
		return nil
	}
	for end := time.Now().Add(w.timeout); time.Now().Before(end); {
		r, err := cl.Plan(ctx, b.Plan, min(30*time.Second, time.Until(end)))
		if err != nil {
			return err
		}
		if !r.Ended {
			continue
		}
		t.rest(ctx)
		if !r.OK {
			return &api.Error{Code: "plan-failed", Message: fmt.Sprintf("%s of group %s failed: %s", verb, g, r.Text), Hint: "tasuki explain shows the story"}
		}
		fmt.Fprintf(p.out, "group %s: %s\n", g, r.Text)
		return nil
	}
	return &api.Error{Code: "timed-out", Message: fmt.Sprintf("%s of group %s is still under way", verb, g), Hint: "tasuki status"}
}

// teller shows the lines of the log about a group while something is waited
// for. Nobody else writes until it is hushed.
type teller struct {
	p      *program
	group  cluster.GroupName
	before []api.Event // the newest line before it began, if there was one
	blind  bool        // that is not known
	shown  map[cluster.EventID]bool
	cancel func()
	ended  chan struct{}
}

// tell starts one; from its return on no line is missed.
func (p *program) tell(ctx context.Context, g cluster.GroupName) *teller {
	t := &teller{p: p, group: g, shown: map[cluster.EventID]bool{}, ended: make(chan struct{})}
	ctx, t.cancel = context.WithCancel(ctx)
	before, err := p.client().Events(ctx, api.EventFilter{Newest: true, Limit: 1})
	t.before, t.blind = before, err != nil
	begun := make(chan struct{})
	go func() {
		defer close(t.ended)
		_ = p.client().Follow(ctx, func() { close(begun) }, t.show)
	}()
	select {
	case <-begun:
	case <-t.ended:
	}
	return t
}

func (t *teller) show(e api.Event) {
	if e.Fields["group"] == string(t.group) && !t.shown[e.ID] {
		t.shown[e.ID] = true
		fmt.Fprintln(t.p.out, journal.Line(e, time.Local))
	}
}

func (t *teller) hush() {
	t.cancel()
	<-t.ended
}

// rest waits for the last lines, hushes, and shows those that are there and did
// not come.
func (t *teller) rest(ctx context.Context) {
	select {
	case <-time.After(settle):
	case <-t.ended:
	}
	t.hush()
	if t.blind {
		return
	}
	f := api.EventFilter{Group: t.group, Limit: eventPage}
	for _, e := range t.before {
		f.After = e.ID
	}
	events, err := t.p.client().Events(ctx, f)
	if err != nil {
		return // the outcome is known, and that counts
	}
	for _, e := range events {
		t.show(e)
	}
}

func (p *program) node() *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "Let nodes leave and return, start one alone, force one off",
		Long: `A node that leaves by plan hands its groups over first and is given none until it
returns or its daemon starts anew. Stopping the daemon is such a leave too.`,
		Example: `  tasuki node leave CLP-1
  tasuki node return CLP-1`}
	for _, v := range []verbOf{
		{"leave", "Let a node leave by plan: its groups move away first", `Have the groups of a node move away; it is given none until it returns. This
command ends when the leave has begun: tasuki status shows how far it is.`, "  tasuki node leave CLP-1"},
		{"return", "Let a node that left be given groups again", `Let a node that left be given groups again. None moves there by that alone,
unless its failback is automatic.`, "  tasuki node return CLP-1"},
		{"release", "End the quarantine of a node", `A node that was lost too often, not by a planned leave, is given no groups for a
while after its return (quarantine in the cluster file), unless no other node can
run them. Once the reason is mended, this ends it. No group moves there by that
alone.`, "  tasuki node release CLP-1"},
	} {
		c.AddCommand(&cobra.Command{Use: v.verb + " NODE", Short: v.short, Long: v.long, Example: v.example, Args: args(1, 1, "a node"), ValidArgsFunction: p.completeFirst(nodeNames),
			RunE: func(cmd *cobra.Command, a []string) error {
				b, err := p.client().Node(cmd.Context(), cluster.NodeName(a[0]), v.verb, api.NodeOp{Cause: cause()})
				if err == nil {
					fmt.Fprintln(p.out, b.Text)
				}
				return err
			}})
	}
	c.AddCommand(p.nodeStartAlone(), p.nodeFence())
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "list", Short: "Show the nodes",
		Long: "Show the nodes and their addresses. An address from which no heartbeats arrive,\nthough the node is up, is marked as silent.", Example: "  tasuki node list", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(s.Nodes)
			}
			for _, n := range s.Nodes {
				p.printNode(&n, nameColumn(&s))
			}
			return nil
		}}))
	return c
}

func (p *program) monitor() *cobra.Command {
	c := &cobra.Command{Use: "monitor", Short: "Suspend, resume and rehearse monitors",
		Long: `A monitor that is suspended watches nothing and starts nothing. A rehearsal runs
the recovery that the cluster file gives for a failure, with its scripts and with
what they do: it is the real thing, without the fault.`,
		Example: `  tasuki monitor suspend miiw-eth0 --node CLP-1
  tasuki monitor rehearse miiw-vmnic1`}
	everywhere := "on this node only (default: on all that watch)"
	for _, v := range []struct {
		verbOf
		node string
	}{
		{verbOf{"suspend", "Hold a monitor: what it sees leads to nothing", `Hold a monitor, on one node or on all. It stays suspended until it is resumed,
also when daemons and machines start anew.`, "  tasuki monitor suspend genw\n  tasuki monitor suspend miiw-eth0 --node CLP-1"}, everywhere},
		{verbOf{"resume", "Let a suspended monitor watch again", `Let a suspended monitor watch again, on one node or on all.`, "  tasuki monitor resume genw"}, everywhere},
		{verbOf{"rehearse", "Run a monitor's real recovery as if it had failed", `Run the recovery of a monitor as if it had just turned bad: its scripts run, and
groups restart or move as the cluster file says. It begins on the node where this
command is called, which must be one that watches.`, "  tasuki monitor rehearse miiw-vmnic1"},
			"the node that rehearses: it can only be this one, which is the default"},
	} {
		var node string
		sub := &cobra.Command{Use: v.verb + " MONITOR", Short: v.short, Long: v.long, Example: v.example, Args: args(1, 1, "a monitor"), ValidArgsFunction: p.completeFirst(monitorNames),
			RunE: func(cmd *cobra.Command, a []string) error {
				b, err := p.client().Monitor(cmd.Context(), cluster.MonitorName(a[0]), v.verb, api.MonitorOp{Node: cluster.NodeName(node), Cause: cause()})
				if err == nil {
					fmt.Fprintln(p.out, b.Text)
				}
				return err
			}}
		sub.Flags().StringVar(&node, "node", "", v.node)
		_ = sub.RegisterFlagCompletionFunc("node", p.complete(nodeNames))
		c.AddCommand(sub)
	}
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "list", Short: "Show the monitors",
		Long: "Show the monitors, what is wrong first, with what each node has to say.", Example: "  tasuki monitor list", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(s.Monitors)
			}
			for _, m := range worstFirst(s.Monitors) {
				p.printMonitor(&m, nameColumn(&s))
			}
			return nil
		}}))
	return c
}

func (p *program) request() *cobra.Command {
	c := &cobra.Command{Use: "request", Short: "Ask linked clusters",
		Long: `Ask other clusters, with which this one is linked, for what their link allows.
A host is named by any address or name of one of its nodes; if that address is
cut, the request takes another one that the link knows. A group moves once,
however many hosts are named; a script runs on each.`,
		Example: `  tasuki request failover --resource exec --host 10.2.102.51,10.2.102.52
  tasuki request script --script failover_message.sh --host CLP-1,CLP-2`}
	var group, res, script string
	var hosts []string
	var wait time.Duration
	var id string
	failover := &cobra.Command{Use: "failover --group GROUP|--resource RESOURCE --host HOST,...", Short: "Ask for a group to move",
		Long: `Ask a linked cluster to move a group to its next node. The group is named, or one
of its resources. This ends when the move has begun, not when it is done.`,
		Example: `  tasuki request failover --resource exec --host 10.2.102.51,10.2.102.52
  tasuki request failover --group failover --host CLP-1`, Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (group == "") == (res == "") || len(hosts) == 0 {
				return usageError{fmt.Errorf("name either a group or a resource, and at least one host")}
			}
			return p.send(cmd.Context(), api.SendRequest{Hosts: hosts, Wait: wait, Request: api.Request{ID: cluster.RequestID(id),
				Verb: cluster.VerbGroupFailover, Group: cluster.GroupName(group), Resource: cluster.ResourceName(res)}})
		}}
	failover.Flags().StringVar(&group, "group", "", "the group")
	failover.Flags().StringVar(&res, "resource", "", "a resource of the group")
	run := &cobra.Command{Use: "script --script FILE --host HOST,...", Short: "Ask for a script to run on every host",
		Long: `Ask each host to run a script that lies in its directory for requests. The answer
has the script's exit code; other than 0 is a failure.`,
		Example: `  tasuki request script --script failover_message.sh --host CLP-1,CLP-2`, Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if script == "" || len(hosts) == 0 {
				return usageError{fmt.Errorf("name a script, and at least one host")}
			}
			return p.send(cmd.Context(), api.SendRequest{Hosts: hosts, Wait: wait, Request: api.Request{ID: cluster.RequestID(id), Verb: cluster.VerbExecScript, Script: script}})
		}}
	run.Flags().StringVar(&script, "script", "", "its name in the receiver's directory")
	for _, sub := range []*cobra.Command{failover, run, p.requestFence(&hosts, &wait, &id)} {
		sub.Flags().StringSliceVar(&hosts, "host", nil, "addresses or names of nodes of a linked cluster")
		sub.Flags().DurationVar(&wait, "wait", 10*time.Second, "how long to wait for answers")
		sub.Flags().StringVar(&id, "id", "", "the id of a request that was sent before: it acts once, and answers the same (default: a new one)")
		c.AddCommand(sub)
	}
	return c
}

func (p *program) requestFence(hosts *[]string, wait *time.Duration, id *string) *cobra.Command {
	var guest string
	var off bool
	c := &cobra.Command{Use: "fence --guest GUEST --host HOST [--off]", Short: "Ask a host whether a guest has power, or to power it off",
		Long: `Ask the host under a guest whether the guest has power, or with --off to take the
power from it. The host says only what it has confirmed. The host's link must
allow it for that guest.`,
		Example: `  tasuki request fence --guest CLP-1 --host bay7-esx
  tasuki request fence --guest CLP-1 --host bay7-esx --off`, Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if guest == "" || len(*hosts) == 0 {
				return usageError{fmt.Errorf("name a guest, and the host that it is on")}
			}
			action := cluster.PowerStatus
			if off {
				action = cluster.PowerOff
			}
			return p.send(cmd.Context(), api.SendRequest{Hosts: *hosts, Wait: *wait, Request: api.Request{ID: cluster.RequestID(*id),
				Verb: cluster.VerbFence, Guest: cluster.GuestName(guest), Action: action}})
		}}
	c.Flags().StringVar(&guest, "guest", "", "its name in the cluster file of the host")
	c.Flags().BoolVar(&off, "off", false, "power it off")
	return c
}

func (p *program) send(ctx context.Context, r api.SendRequest) error {
	r.Cause = cause()
	answers, err := p.client().Send(ctx, r)
	if err != nil {
		return err
	}
	failed, hint := 0, ""
	for _, a := range answers {
		text, bad := outcome(a)
		fmt.Fprintln(p.out, text)
		if !bad {
			continue
		}
		failed++
		if a.Error != nil {
			hint = cmp.Or(a.Error.Hint, hint)
		}
	}
	if failed == 0 {
		return nil
	}
	if hint == "" && r.Script != "" {
		hint = fmt.Sprintf("its output is on that host: request-%s.log in the log directory", r.Script)
	}
	return &api.Error{Code: "request-failed", Message: fmt.Sprintf("the request failed on %d of %s", failed, count(len(answers), "host")),
		Hint: cmp.Or(hint, "tasuki event shows what was sent; the same --id may be sent again")}
}

// outcome puts one host's answer into words and says whether it is a failure.
func outcome(a api.HostAnswer) (text string, bad bool) {
	switch {
	case a.Error != nil && a.Host == "":
		return a.Error.Message, true
	case a.Error != nil:
		return fmt.Sprintf("%s: %s", a.Host, a.Error.Message), true
	case a.Answer == nil:
		return fmt.Sprintf("%s: no answer", a.Host), true
	}
	text = fmt.Sprintf("%s (%s): %s", a.Host, a.Via, a.Answer.Text)
	if code := fmt.Sprintf("exit code %d", a.Answer.ExitCode); a.Answer.ExitCode != 0 && !strings.Contains(text, code) {
		text += ", " + code
	}
	return text, a.Answer.ExitCode != 0
}

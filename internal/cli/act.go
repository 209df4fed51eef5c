package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

// complete returns live names for a flag; it gives up soon.
func (p *program) complete(pick func(*api.Status) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), 300*time.Millisecond)
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
	for _, v := range []struct{ verb, short string }{
		{"start", "Start a group"}, {"stop", "Stop a group"}, {"move", "Move a group to another node, by plan"},
		{"failover", "Fail a group over to another node: as a move, but its scripts are told"},
		{"restart", "Stop a group and start it again where it is"}, {"clear", "Forget a group's counters and failed activations"},
	} {
		var to string
		var w waiting
		sub := &cobra.Command{Use: v.verb + " GROUP", Short: v.short, Args: args(1, 1, "a group"), ValidArgsFunction: p.completeFirst(groupNames),
			RunE: func(cmd *cobra.Command, a []string) error {
				return p.changeGroup(cmd.Context(), cluster.GroupName(a[0]), v.verb, cluster.NodeName(to), w)
			}}
		if v.verb == "start" || v.verb == "move" || v.verb == "failover" {
			sub.Flags().StringVar(&to, "to", "", "where to (default: by the order of the file)")
			_ = sub.RegisterFlagCompletionFunc("to", p.complete(nodeNames))
		}
		sub.Flags().BoolVar(&w.no, "no-wait", false, "do not wait until it is done")
		sub.Flags().DurationVar(&w.timeout, "timeout", time.Hour, "how long to wait")
		c.AddCommand(sub)
	}
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "list", Short: "Show the groups", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(s.Groups)
			}
			for _, g := range s.Groups {
				p.printGroup(&g)
			}
			return nil
		}}))
	return c
}

// changeGroup asks and then shows the log until the plan has ended.
func (p *program) changeGroup(ctx context.Context, g cluster.GroupName, verb string, to cluster.NodeName, w waiting) error {
	cl := p.client()
	begun, shown := make(chan struct{}), make(chan struct{})
	watched, cancel := context.WithCancel(ctx)
	hush := func() { // from here on nobody else writes
		cancel()
		<-shown
	}
	defer hush()
	go func() { // the lines come while the plan is waited for
		defer close(shown)
		_ = cl.Follow(watched, func() { close(begun) }, func(e api.Event) {
			if e.Fields["group"] == string(g) && !w.no {
				fmt.Fprintln(p.out, journal.Line(e, time.Local))
			}
		})
	}()
	select {
	case <-begun:
	case <-shown:
	}
	b, err := cl.Group(ctx, g, verb, api.GroupOp{To: to, Cause: cluster.EventID(os.Getenv("TASUKI_CAUSE"))})
	if err != nil {
		return err
	}
	if b.Plan == "" || w.no {
		hush()
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
		select { // let the last lines arrive
		case <-time.After(50 * time.Millisecond):
		case <-shown:
		}
		if !r.OK {
			return &api.Error{Code: "plan-failed", Message: fmt.Sprintf("%s of group %s failed: %s", verb, g, r.Text), Hint: "tasuki explain shows the story"}
		}
		hush()
		fmt.Fprintf(p.out, "group %s: %s\n", g, r.Text)
		return nil
	}
	return &api.Error{Code: "timed-out", Message: fmt.Sprintf("%s of group %s is still under way", verb, g), Hint: "tasuki status"}
}

func (p *program) node() *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "Let nodes leave and return",
		Long: `A node that leaves by plan hands its groups over first and is given none until it
returns or its daemon starts anew. Stopping the daemon is such a leave too.`,
		Example: `  tasuki node leave CLP-1
  tasuki node return CLP-1`}
	for _, v := range []struct{ verb, short string }{{"leave", "Let a node leave by plan: its groups move away first"}, {"return", "Let a node that left be given groups again"}} {
		c.AddCommand(&cobra.Command{Use: v.verb + " NODE", Short: v.short, Args: args(1, 1, "a node"), ValidArgsFunction: p.completeFirst(nodeNames),
			RunE: func(cmd *cobra.Command, a []string) error {
				b, err := p.client().Node(cmd.Context(), cluster.NodeName(a[0]), v.verb, api.NodeOp{})
				if err == nil {
					fmt.Fprintln(p.out, b.Text)
				}
				return err
			}})
	}
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "list", Short: "Show the nodes", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(s.Nodes)
			}
			for _, n := range s.Nodes {
				p.printNode(&n)
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
	for _, v := range []struct{ verb, short string }{
		{"suspend", "Hold a monitor: what it sees leads to nothing"}, {"resume", "Let a suspended monitor watch again"},
		{"rehearse", "Run a monitor's real recovery as if it had failed"},
	} {
		var node string
		sub := &cobra.Command{Use: v.verb + " MONITOR", Short: v.short, Args: args(1, 1, "a monitor"), ValidArgsFunction: p.completeFirst(monitorNames),
			RunE: func(cmd *cobra.Command, a []string) error {
				b, err := p.client().Monitor(cmd.Context(), cluster.MonitorName(a[0]), v.verb, api.MonitorOp{Node: cluster.NodeName(node)})
				if err == nil {
					fmt.Fprintln(p.out, b.Text)
				}
				return err
			}}
		sub.Flags().StringVar(&node, "node", "", "on this node only (default: on all that watch)")
		_ = sub.RegisterFlagCompletionFunc("node", p.complete(nodeNames))
		c.AddCommand(sub)
	}
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "list", Short: "Show the monitors", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(s.Monitors)
			}
			for _, m := range s.Monitors {
				p.printMonitor(&m)
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
	failover := &cobra.Command{Use: "failover --group GROUP|--resource RESOURCE --host HOST,...", Short: "Ask for a group to move", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (group == "") == (res == "") || len(hosts) == 0 {
				return usageError{fmt.Errorf("name either a group or a resource, and at least one host")}
			}
			return p.send(cmd.Context(), api.SendRequest{Hosts: hosts, Wait: wait, Request: api.Request{ID: cluster.RequestID(id),
				Verb: cluster.VerbGroupFailover, Group: cluster.GroupName(group), Resource: cluster.ResourceName(res)}})
		}}
	failover.Flags().StringVar(&group, "group", "", "the group")
	failover.Flags().StringVar(&res, "resource", "", "a resource of the group")
	run := &cobra.Command{Use: "script --script FILE --host HOST,...", Short: "Ask for a script to run on every host", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if script == "" || len(hosts) == 0 {
				return usageError{fmt.Errorf("name a script, and at least one host")}
			}
			return p.send(cmd.Context(), api.SendRequest{Hosts: hosts, Wait: wait, Request: api.Request{ID: cluster.RequestID(id), Verb: cluster.VerbExecScript, Script: script}})
		}}
	run.Flags().StringVar(&script, "script", "", "its name in the receiver's directory")
	for _, sub := range []*cobra.Command{failover, run} {
		sub.Flags().StringSliceVar(&hosts, "host", nil, "addresses or names of nodes of a linked cluster")
		sub.Flags().DurationVar(&wait, "wait", 10*time.Second, "how long to wait for answers")
		sub.Flags().StringVar(&id, "id", "", "the id of a request that was sent before: it acts once, and answers the same (default: a new one)")
		c.AddCommand(sub)
	}
	return c
}

func (p *program) send(ctx context.Context, r api.SendRequest) error {
	r.Cause = cluster.EventID(os.Getenv("TASUKI_CAUSE"))
	answers, err := p.client().Send(ctx, r)
	if err != nil {
		return err
	}
	failed, hint := 0, "tasuki event shows what was sent; the same --id may be sent again"
	for _, a := range answers {
		if a.Error != nil {
			failed++
			fmt.Fprintf(p.out, "%s: %s\n", a.Host, a.Error.Message)
			hint = cmp.Or(a.Error.Hint, hint)
			continue
		}
		fmt.Fprintf(p.out, "%s (%s): %s\n", a.Host, a.Via, a.Answer.Text)
		if a.Answer.ExitCode != 0 {
			failed++
		}
	}
	if failed > 0 {
		return &api.Error{Code: "request-failed", Message: fmt.Sprintf("the request failed on %d of %d hosts", failed, len(answers)), Hint: hint}
	}
	return nil
}

package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func (p *program) maintenance() *cobra.Command {
	c := &cobra.Command{Use: "maintenance", Short: "Work on a node, a group or the cluster without its interfering",
		Long: `Say that somebody works on something, for how long and why. Nothing is stopped.

  node     it is given no group by itself, and keeps those that it has
           (with --drain they move away)
  group    its failures, those of its monitors and those of its node are shown and
           not acted on
  cluster  nothing is done by itself for any group. A node that loses contact still
           gives its groups up, because another one could take them once the
           maintenance ends; they start there again when it is back.

What an operator asks for is done all the same. It ends by itself at its time,
which the log says 10 minutes before; then what has failed is acted on. It outlives
restarts, and tasuki status shows what is unprotected meanwhile.`,
		Example: `  tasuki maintenance on --node CLP-1 --drain --reason "new disks" --for 2h
  tasuki maintenance on --group failover --reason "restoring the database"
  tasuki maintenance off --node CLP-1
  tasuki maintenance list`}
	for _, v := range []verbOf{
		{"on", "Begin a maintenance, or change one that is on", "Begin a maintenance. Of one that is on, this changes reason and end.",
			`  tasuki maintenance on --cluster --reason "switches are replaced" --for 1h`},
		{"off", "End a maintenance", "End a maintenance: what has failed meanwhile is acted on now.", "  tasuki maintenance off --cluster"},
	} {
		c.AddCommand(p.changeMaintenance(v))
	}
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "list", Short: "Show what is in maintenance", Long: "Show what is in maintenance: by whom, why and until when.",
		Example: "  tasuki maintenance list", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(s.Maintenance)
			}
			p.printMaintenance(&s)
			return nil
		}}))
	return c
}

func (p *program) changeMaintenance(v verbOf) *cobra.Command {
	var op api.MaintenanceOp
	c := &cobra.Command{Use: v.verb + " --node NODE|--group GROUP|--cluster", Short: v.short, Long: v.long, Example: v.example, Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			named := 0
			for _, is := range []bool{op.Node != "", op.Group != "", op.Cluster} {
				if is {
					named++
				}
			}
			if named != 1 {
				return usageError{fmt.Errorf("name a node, a group or the cluster: --node NODE, --group GROUP or --cluster")}
			}
			if v.verb == "on" && op.Reason == "" {
				return usageError{fmt.Errorf("say why, for the others who see it: --reason TEXT")}
			}
			op.Cause = cause()
			b, err := p.client().Maintenance(cmd.Context(), v.verb, op)
			if err == nil {
				fmt.Fprintln(p.out, b.Text)
			}
			return err
		}}
	c.Flags().StringVar((*string)(&op.Node), "node", "", "a node")
	c.Flags().StringVar((*string)(&op.Group), "group", "", "a group")
	c.Flags().BoolVar(&op.Cluster, "cluster", false, "the whole cluster")
	if v.verb == "on" {
		c.Flags().StringVar(&op.Reason, "reason", "", "why, in a few words")
		c.Flags().DurationVar(&op.For, "for", 8*time.Hour, "how long at most")
		c.Flags().BoolVar(&op.Drain, "drain", false, "of a node: its groups move away first")
	}
	_ = c.RegisterFlagCompletionFunc("node", p.complete(nodeNames))
	_ = c.RegisterFlagCompletionFunc("group", p.complete(groupNames))
	return c
}

func (p *program) printMaintenance(s *api.Status) {
	for _, m := range s.Maintenance {
		fmt.Fprintf(p.out, "  %s until %s (%s, %s: %s): %s\n", p.paint(false, m.What), m.Until.Local().Format("2006/01/02 15:04:05"),
			m.Owner, cluster.Ago(time.Since(m.Since)), m.Reason, m.Unprotected)
	}
}

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func (p *program) nodeStartAlone() *cobra.Command {
	var off, reason string
	c := &cobra.Command{
		Use: "start-alone", Short: "Start this node's groups without the others, which you know to be off", Args: args(0, 0, "no arguments"),
		Long: `A node that starts waits for the others, because they may be running the groups:
no machine can tell a node that is off from one that is cut off. If you have made
sure that all other nodes are off (looked at them, pulled their plugs), this node
goes on without them. Who comes back later joins it and takes over its state.

If one of them is running all the same, two nodes run the same groups, and what both
write must be sorted out by hand. So the name of the cluster must be typed, and the
reason goes into the log.`,
		Example: `  tasuki node start-alone --others-are-off VMcluster --reason "CLP-1 burned out, unplugged"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if off != string(s.Cluster) {
				return &api.Error{Code: "not-confirmed", Message: "nothing was started: it was not confirmed that the other nodes are off",
					Hint: fmt.Sprintf("if you know that they are: --others-are-off %s", s.Cluster)}
			}
			b, err := p.client().Node(cmd.Context(), s.Node, "start-alone", api.NodeOp{Reason: reason, Cause: cause()})
			if err == nil {
				fmt.Fprintln(p.out, b.Text)
			}
			return err
		},
	}
	c.Flags().StringVar(&off, "others-are-off", "", "the name of the cluster, to confirm that all its other nodes are off")
	c.Flags().StringVar(&reason, "reason", "", "why you are sure, for the log")
	return c
}

func (p *program) nodeFence() *cobra.Command {
	var yes bool
	var reason string
	c := &cobra.Command{
		Use: "fence NODE", Short: "Force another node off by its fence devices", Args: args(1, 1, "a node"), ValidArgsFunction: p.completeFirst(nodeNames),
		Long: `Force another node off, without stopping anything on it first, and wait until that
is confirmed. Its groups start elsewhere. To move them first: tasuki node leave.`,
		Example: `  tasuki node fence CLP-1 --yes --reason "its kernel hangs"`,
		RunE: func(cmd *cobra.Command, a []string) error {
			if !yes {
				return &api.Error{Code: "not-confirmed", Message: fmt.Sprintf("%s was not forced off", a[0]), Hint: "if that is what you want: --yes"}
			}
			b, err := p.client().Fence(cmd.Context(), cluster.NodeName(a[0]), api.NodeOp{Reason: reason, Cause: cause()}, fenceWait)
			if err == nil {
				fmt.Fprintln(p.out, b.Text)
			}
			return err
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	c.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return c
}

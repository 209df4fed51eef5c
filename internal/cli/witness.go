package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/witness"
)

func (p *program) witness() *cobra.Command {
	c := &cobra.Command{Use: "witness", Short: "Be the witness of one or many clusters",
		Long: `A witness votes and runs nothing: no group, monitor or script. One process on any
third machine is the witness of many clusters, also beside the daemon of a
cluster of its own. In the cluster file it is a node with witness: true; where
two of them, or a daemon, share a machine, each has a port of its own.`,
		Example: `  tasuki witness join TOKEN --node gamma
  tasuki witness run
  tasuki witness list
  tasuki witness leave web`}
	c.AddCommand(p.witnessJoin(), p.witnessRun(), p.witnessList(), p.witnessLeave())
	return c
}

func (p *program) witnessJoin() *cobra.Command {
	var node string
	c := &cobra.Command{Use: "join TOKEN", Short: "Make this machine the witness of a cluster",
		Long: `Make this machine the witness of a cluster, in directories of that cluster: below
witness/CLUSTER in /etc/tasuki and /var/lib/tasuki. A running tasuki witness run
serves it within seconds.`,
		Example: "  tasuki witness join TOKEN --node gamma", Args: args(1, 1, "a token; tasuki token join makes one on a node of the cluster"),
		RunE: func(cmd *cobra.Command, a []string) error {
			n, err := thisNode(node)
			if err != nil {
				return err
			}
			f, err := p.hooks.JoinWitness(cmd.Context(), p.dirs, a[0], n)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.out, "%s is the witness of cluster %s, port %d\nnext: systemctl enable --now tasuki-witness\n", n, f.Cluster, f.PortOf(f.Node(n)))
			return nil
		}}
	c.Flags().StringVar(&node, "node", "", "which witness of the cluster this machine is (default: its host name)")
	return c
}

func (p *program) witnessRun() *cobra.Command {
	return &cobra.Command{Use: "run", Short: "Serve all clusters that were joined, in the foreground", Args: args(0, 0, "no arguments"),
		Long: `Serve all clusters that this machine is the witness of, until SIGTERM. One that
cannot be served is tried again, and does not stop the others; one that is joined
later is served too. Normally systemd starts it.`,
		Example: "  systemctl start tasuki-witness\n  tasuki witness run",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.hooks.Witness(cmd.Context(), p.dirs) }}
}

func (p *program) witnessList() *cobra.Command {
	return p.jsonFlag(&cobra.Command{Use: "list", Short: "Show the clusters that this machine is the witness of", Args: args(0, 0, "no arguments"),
		Long: `Show each cluster with its nodes as the witness sees them, the leader, whether the
witness's vote counts, and when another node was heard last.`,
		Example: "  tasuki witness list\n  tasuki witness list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := witness.List(cmd.Context(), p.dirs)
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(list)
			}
			if len(list) == 0 {
				fmt.Fprintln(p.out, "this machine is the witness of no cluster")
			}
			for i := range list {
				p.printWitness(&list[i])
			}
			return nil
		}})
}

func (p *program) printWitness(s *witness.Seen) {
	if s.Status == nil {
		fmt.Fprintf(p.out, "%s: %s\n", s.Cluster, p.paint(false, "does not run"))
		if f := s.Failure; f != nil {
			fmt.Fprintf(p.out, "  %s: %s\n", f.Time.Local().Format(time.DateTime), f.Error.Message)
			if f.Error.Hint != "" {
				fmt.Fprintf(p.out, "  hint: %s\n", f.Error.Hint)
			}
		} else {
			fmt.Fprintln(p.out, "  hint: systemctl start tasuki-witness")
		}
		return
	}
	self := s.Self()
	if self == nil {
		self = &api.Node{}
	}
	vote := p.paint(true, "its vote counts")
	switch {
	case s.Counts():
	case !self.Voter:
		vote = p.paint(false, "it has no vote yet")
	default:
		vote = p.paint(false, "its vote does not count: no majority is in reach")
	}
	last := "never since it started"
	if t := s.LastContact(); !t.IsZero() {
		last = t.Local().Format(time.DateTime)
	}
	fmt.Fprintf(p.out, "%s: witness %s, leader %s, %s\n", s.Cluster, self.Name, cmp.Or(string(s.Status.Leader), "none"), vote)
	fmt.Fprintf(p.out, "  last contact %s\n", last)
	for _, n := range s.Status.Nodes {
		if n.Self {
			continue
		}
		p.printNode(&n, nameColumn(s.Status))
	}
}

func (p *program) witnessLeave() *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "leave CLUSTER", Short: "Leave a cluster by plan and remove its directories", Args: args(1, 1, "a cluster; tasuki witness list shows them"),
		Long: `Leave a cluster by plan: its other nodes count without this vote from then on. Then
its directories are removed. The other clusters go on.`,
		Example: "  tasuki witness leave web",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			names, _ := witness.Joined(p.dirs)
			return strings.Fields(strings.Trim(fmt.Sprint(names), "[]")), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := witness.Leave(cmd.Context(), p.dirs, cluster.Name(a[0]), force); err != nil {
				return err
			}
			fmt.Fprintf(p.out, "this machine is not the witness of cluster %s any more\nnext: take it out of the cluster file, with tasuki config apply on a node\n", a[0])
			return nil
		}}
	c.Flags().BoolVar(&force, "force", false, "also if the cluster cannot be told")
	return c
}

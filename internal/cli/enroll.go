package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// thisNode returns the name that was given, or that of this machine.
func thisNode(name string) (cluster.NodeName, error) {
	if name != "" {
		return cluster.NodeName(name), nil
	}
	h, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find the name of this machine: %w", err)
	}
	return cluster.NodeName(h), nil
}

func (p *program) init() *cobra.Command {
	var node string
	c := &cobra.Command{Use: "init FILE", Short: "Make a new cluster; this machine is its first node", Args: args(1, 1, "the cluster file"),
		Example: "  tasuki init vmcluster.yaml --node CLP-1",
		Long:    "Make a new cluster from a cluster file: its certificate authority, this node's\ncertificate, and the replicated state. The other nodes join with tokens.",
		RunE: func(_ *cobra.Command, a []string) error {
			n, err := thisNode(node)
			if err != nil {
				return err
			}
			f, err := p.hooks.Init(p.dirs, a[0], n)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.out, "cluster %s is made; %s is its first node\n", f.Cluster, n)
			for _, w := range f.Warnings() {
				fmt.Fprintf(p.out, "warning: %s\n", w)
			}
			fmt.Fprintln(p.out, "next: systemctl enable --now tasuki")
			for _, other := range f.Nodes {
				if other.Name != n {
					fmt.Fprintf(p.out, "next: tasuki token join --node %s\n", other.Name)
				}
			}
			return nil
		}}
	c.Flags().StringVar(&node, "node", "", "which node of the file this machine is (default: its host name)")
	return c
}

func (p *program) join() *cobra.Command {
	var node string
	c := &cobra.Command{Use: "join TOKEN", Short: "Make this machine a node of a cluster",
		Long: `Make this machine a node: it gets its certificate, and the cluster's state when
its daemon starts. The token names the nodes to ask and how to know them.`,
		Example: "  tasuki join TOKEN --node CLP-2", Args: args(1, 1, "a token; tasuki token join makes one"),
		RunE: func(cmd *cobra.Command, a []string) error {
			n, err := thisNode(node)
			if err != nil {
				return err
			}
			f, err := p.hooks.Join(cmd.Context(), p.dirs, a[0], n)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.out, "%s is a node of cluster %s\nnext: systemctl enable --now tasuki\n", n, f.Cluster)
			return nil
		}}
	c.Flags().StringVar(&node, "node", "", "which node of the cluster this machine is (default: its host name)")
	return c
}

func (p *program) token() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Make tokens: for a machine that joins, for a script that calls the API",
		Long: `A token of tasuki token join lets one machine join as one node, once, for a limited
time. A token of tasuki token add lets a script call the API until it expires. Hand
either over as you would a password.`,
		Example: "  tasuki token join --node CLP-2\n  tasuki token add backup --roles read"}
	var node string
	var ttl time.Duration
	join := &cobra.Command{Use: "join --node NAME", Short: "Make a token with which a machine joins as that node",
		Long:    "Print a token for a node of the cluster file. On that machine: tasuki join TOKEN.",
		Example: "  tasuki token join --node CLP-2\n  tasuki token join --node CLP-2 --ttl 10m", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if node == "" {
				return usageError{errors.New("which node is it for? --node NAME")}
			}
			t, err := p.client().NewToken(cmd.Context(), api.TokenRequest{Purpose: "join", Subject: node, TTL: ttl})
			if err != nil {
				return err
			}
			fmt.Fprintln(p.out, t.Token)
			return nil
		}}
	join.Flags().StringVar(&node, "node", "", "the node that it is for")
	join.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is valid")
	_ = join.RegisterFlagCompletionFunc("node", p.complete(nodeNames))
	c.AddCommand(join, p.addAccess(), p.listAccesses(), p.removeAccess())
	return c
}

func (p *program) link() *cobra.Command {
	c := &cobra.Command{Use: "link", Short: "Let clusters ask each other",
		Long: `A link lets another cluster ask this one for named things: it is known by its key,
and what is not named is refused. Each side keeps the other's certificate
authority and the addresses of all its nodes.`,
		Example: `  tasuki link invite bay7-esx --verbs GRP_FAILOVER,EXEC_SCRIPT --groups failover
  tasuki link add TOKEN        # on the cluster that will ask
  tasuki link remove bay7-esx`}
	add := &cobra.Command{Use: "add TOKEN", Short: "Redeem such a token: this cluster may then ask", Args: args(1, 1, "a token; tasuki link invite makes one"),
		Long: "Redeem a token that another cluster has made: this cluster may then ask that one.", Example: "  tasuki link add TOKEN",
		RunE: func(cmd *cobra.Command, a []string) error {
			b, err := p.client().AddLink(cmd.Context(), api.LinkToken{Token: a[0]})
			if err == nil {
				fmt.Fprintln(p.out, b.Text)
			}
			return err
		}}
	remove := &cobra.Command{Use: "remove CLUSTER", Short: "End a link", Args: args(1, 1, "the name of the other cluster"),
		Long: `Forget a link: that cluster can no longer ask this one, nor this one that. What
the other cluster knows of the link is forgotten there, by the same command.`,
		Example: "  tasuki link remove bay7-esx", ValidArgsFunction: p.completeFirst(linkNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			return p.client().RemoveLink(cmd.Context(), cluster.LinkName(a[0]))
		}}
	list := &cobra.Command{Use: "list", Short: "Show the links",
		Long: "Show the clusters that may ask this one and for what, and those that this one\nmay ask, with the addresses that are known of them.", Example: "  tasuki link list", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err == nil {
				p.printLinks(&s)
			}
			return err
		}}
	c.AddCommand(p.linkInvite(), add, list, remove)
	return c
}

func (p *program) linkInvite() *cobra.Command {
	var verbs, groups, scripts, guests []string
	var ttl time.Duration
	invite := &cobra.Command{Use: "invite CLUSTER", Short: "Make a token with which that cluster may ask this one", Args: args(1, 1, "the name of the cluster that may ask"),
		Long: `Print a token; the named cluster may ask this one once it has redeemed it with
tasuki link add. What is not named here is refused.`,
		Example: `  tasuki link invite bay7-esx --verbs GRP_FAILOVER,EXEC_SCRIPT --groups failover --scripts failover_message.sh
  tasuki link invite VMcluster --verbs fence --guests CLP-1    # on the host under CLP-1`,
		RunE: func(cmd *cobra.Command, a []string) error {
			r := api.TokenRequest{Purpose: "link", Subject: a[0], Scripts: scripts, TTL: ttl}
			for _, v := range verbs {
				r.Verbs = append(r.Verbs, cluster.Verb(v))
			}
			for _, g := range groups {
				r.Groups = append(r.Groups, cluster.GroupName(g))
			}
			for _, g := range guests {
				r.Guests = append(r.Guests, cluster.GuestName(g))
			}
			if slices.Contains(r.Verbs, cluster.VerbFence) != (len(guests) > 0) {
				return usageError{fmt.Errorf("--verbs %s and --guests go together: without guests nothing could be asked for", cluster.VerbFence)}
			}
			t, err := p.client().NewToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			fmt.Fprintln(p.out, t.Token)
			return nil
		}}
	invite.Flags().StringSliceVar(&verbs, "verbs", []string{string(cluster.VerbGroupFailover)}, "what it may ask for")
	invite.Flags().StringSliceVar(&groups, "groups", nil, "for which groups (default: all)")
	invite.Flags().StringSliceVar(&scripts, "scripts", nil, "which scripts of the request directory (default: all)")
	invite.Flags().StringSliceVar(&guests, "guests", nil, "which guests of this host it may have powered off, with the verb fence (default: none)")
	_ = invite.RegisterFlagCompletionFunc("groups", p.complete(groupNames))
	_ = invite.RegisterFlagCompletionFunc("verbs", cobra.FixedCompletions([]string{string(cluster.VerbGroupFailover), string(cluster.VerbExecScript), string(cluster.VerbFence)}, cobra.ShellCompDirectiveNoFileComp))
	invite.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long the token is valid")
	return invite
}

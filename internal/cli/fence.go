package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// fenceWait is how long a check of fence devices is waited for. Each device has
// its own time limit in the cluster file.
const fenceWait = 30 * time.Minute

func (p *program) fence() *cobra.Command {
	c := &cobra.Command{Use: "fence", Short: "Show and try what can force a node off",
		Long: `A fence makes sure from outside that a node is off: an agent of fence-agents, or a
linked cluster. The cluster file says which devices are for which node. They are
tried now and then by every node for the others, because a device that has failed
is of no use on the day that it is needed.`,
		Example: `  tasuki fence list
  tasuki fence check CLP-2`}
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "list", Short: "Show how each node can be forced off",
		Long: `Show the fence of every node: its levels in order, each with its devices, and when
each was verified from this node last. All devices of a level must succeed; else
the next level is tried. A node does not check its own.`,
		Example: "  tasuki fence list", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			var list []api.NodeFence
			for _, n := range s.Nodes {
				list = append(list, api.NodeFence{Node: n.Name, Fence: n.Fence})
			}
			if p.asJSON {
				return p.json(list)
			}
			for _, n := range list {
				p.printFence(n, n.Node == s.Node)
			}
			return nil
		}}))
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "check [NODE]", Short: "Try the fence devices now, without switching anything",
		Long: `Try the fence devices of a node, or of all other nodes, from this node: the device
must answer, and tell the status of the node's plug. Nothing is switched. The
exit code is 1 if a device fails, or if a node to be checked has none.`,
		Example: "  tasuki fence check\n  tasuki fence check CLP-2", Args: args(0, 1, "at most one node"), ValidArgsFunction: p.completeFirst(nodeNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			node := cluster.NodeName(strings.Join(a, ""))
			list, err := p.client().CheckFences(cmd.Context(), node, fenceWait)
			if err != nil {
				return err
			}
			if p.asJSON {
				err = p.json(list)
			} else {
				for _, n := range list {
					p.printFence(n, false)
				}
			}
			if err != nil {
				return err
			}
			return fenceFailures(list)
		}}))
	return c
}

// fenceFailures is nil if every node has a fence and all of it is verified.
func fenceFailures(list []api.NodeFence) error {
	var bad []string
	for _, n := range list {
		failing := len(n.Fence) == 0
		for _, s := range n.Fence {
			failing = failing || !verified(s)
		}
		if failing {
			bad = append(bad, string(n.Node))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &api.Error{Code: "fence-unverified", Message: "what forces a node off is not verified for " + strings.Join(bad, ", "),
		Hint: "the reason is above; docs/fencing.md says how to test an agent by hand"}
}

func verified(s api.FenceState) bool { return s.Why == "" && !s.Verified.IsZero() }

// printFence prints a line for each step. Own says that it is of the node that
// answers, which does not check it.
func (p *program) printFence(n api.NodeFence, own bool) {
	if len(n.Fence) == 0 {
		fmt.Fprintf(p.out, "%s: no fence\n", n.Node)
	}
	for _, s := range n.Fence {
		what := p.fenceText(s)
		if own {
			what = "not checked by the node itself"
		}
		fmt.Fprintf(p.out, "%s: level %d, %s (%s, plug %s): %s\n", n.Node, s.Level, s.Device, s.By, s.Plug, what)
	}
}

// fenceText says what is known of a step.
func (p *program) fenceText(s api.FenceState) string {
	switch when := ago(time.Since(s.Verified)); {
	case s.Why != "" && s.Verified.IsZero():
		return p.paint(false, "never verified: "+s.Why)
	case s.Why != "":
		return p.paint(false, "fails, was verified "+when+": "+s.Why)
	case s.Verified.IsZero():
		return p.paint(false, "never verified")
	default:
		return "verified " + when
	}
}

// printNodeFence prints how another node can be forced off below its line in the
// status.
func (p *program) printNodeFence(n *api.Node) {
	if n.Self {
		return
	}
	for _, s := range n.Fence {
		fmt.Fprintf(p.out, "    fence: %s %s\n", s.Device, p.fenceText(s))
	}
}

// ago says roughly how long ago something was.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

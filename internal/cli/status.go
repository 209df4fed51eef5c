package cli

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func (p *program) status() *cobra.Command {
	verbose, live := false, false
	c := p.jsonFlag(&cobra.Command{Use: "status", Short: "What runs where, and how many more faults can be survived",
		Long: `Show the cluster as this node sees it: the nodes and their networks, the groups
with the reason why each is where it is, the mirror disks with both copies, the
monitors (what is wrong first), the links, and how many more faults can be survived
without losing the service. What one node sends to another on a network and does
not arrive is listed, in each direction; -v shows all directions, and how late this
node came to what was due.

With -w it stays and follows what changes, with the latest events: arrows choose a
line, e explains it, q quits. Where the output is no terminal, it is written again
after each change. A daemon that goes away is waited for.`,
		Example: `  tasuki status
  tasuki status -v
  tasuki status -w
  tasuki status --json`, Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if live {
				return p.watch(cmd.Context(), verbose)
			}
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(s)
			}
			p.printStatus(&s, verbose)
			return nil
		}})
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show what is well, too: every direction of every network, and how this node keeps time")
	c.Flags().BoolVarP(&live, "watch", "w", false, "stay, and follow what changes")
	return c
}

// isTerminal says whether a person sits at the other end of f.
func isTerminal(f any) bool {
	file, is := f.(*os.File)
	if !is {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// paint colors a word on a terminal only.
func (p *program) paint(good bool, s string) string {
	if os.Getenv("NO_COLOR") != "" || !p.color && !isTerminal(p.out) {
		return s
	}
	color := lipgloss.Color("2")
	if !good {
		color = lipgloss.Color("1")
	}
	return lipgloss.NewStyle().Foreground(color).Render(s)
}

func (p *program) printStatus(s *api.Status, verbose bool) {
	p.printParts(s, verbose, func(string, string) {})
}

// printParts prints a status and calls part after each part of it, with what that
// is about: a node, group, resource or monitor, and its name; or "".
func (p *program) printParts(s *api.Status, verbose bool, part func(kind, name string)) {
	leader := string(s.Leader)
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(p.out, "cluster %s, leader %s, cluster file version %d", s.Cluster, leader, s.Config.Version)
	if s.Solo {
		fmt.Fprintf(p.out, ", one node alone (solo term %d)", s.Generation)
	}
	faults := fmt.Sprintf("%d more faults", s.Survives)
	if s.Survives == 1 {
		faults = "1 more fault"
	}
	if s.Survives == 0 {
		faults = "no further fault"
	}
	fmt.Fprintf(p.out, "\ncan survive: %s (%s)\n", p.paint(s.Survives > 0, faults), s.Why)
	if len(s.Maintenance) > 0 {
		fmt.Fprintln(p.out, "\nin maintenance")
		p.printMaintenance(s)
	}
	w := nameColumn(s)
	title := func(n int, text string) {
		if n > 0 {
			fmt.Fprintln(p.out, "\n"+text)
		}
		part("", "")
	}
	title(len(s.Nodes), "nodes")
	for _, n := range s.Nodes {
		p.printNode(&n, w)
		p.printNodeFence(&n)
		part("node", string(n.Name))
	}
	p.printNetworks(s, w, verbose)
	title(len(s.Groups), "groups")
	for _, g := range s.Groups {
		p.printGroup(&g, w)
		part("group", string(g.Name))
	}
	title(len(s.Mirrors), "mirror disks")
	for _, m := range s.Mirrors {
		p.printMirror(&m, w)
		part("resource", string(m.Name))
	}
	title(len(s.Monitors), "monitors")
	for _, m := range worstFirst(s.Monitors) {
		p.printMonitor(&m, w)
		part("monitor", string(m.Name))
	}
	if len(s.Links) > 0 {
		fmt.Fprintln(p.out, "\nlinks")
		p.printLinks(s)
	}
	p.printOutlets(s, w, verbose)
	if verbose && s.Time != nil {
		p.printTime(s.Time)
	}
	part("", "")
}

// nameColumn is how wide the names of a status stand.
func nameColumn(s *api.Status) int {
	w := 16
	for _, name := range slices.Concat(nodeNames(s), groupNames(s), monitorNames(s), linkNames(s)) {
		w = max(w, len(name))
	}
	for _, g := range s.Groups {
		for _, r := range g.Resources { // they stand two columns further right
			w = max(w, len(r.Name)+2)
		}
	}
	return w
}

// worstFirst orders monitors by their verdict, else as in the file.
func worstFirst(list []api.Monitor) []api.Monitor {
	rank := func(m api.Monitor) int {
		switch m.Verdict {
		case cluster.VerdictBad:
			return 0
		case cluster.VerdictGood:
			return 2
		}
		return 1
	}
	return slices.SortedStableFunc(slices.Values(list), func(a, b api.Monitor) int { return cmp.Compare(rank(a), rank(b)) })
}

func (p *program) printNode(n *api.Node, w int) {
	mark := " "
	if n.Self {
		mark = "*"
	}
	var nets []string
	for _, a := range n.Addresses {
		if a.Up || n.State != cluster.NodeUp {
			nets = append(nets, a.Address)
		} else {
			nets = append(nets, p.paint(false, a.Address+" silent"))
		}
	}
	role := ""
	if n.Witness {
		role = "  witness"
	}
	fmt.Fprintf(p.out, "%s %-*s %s %s%s", mark, w, n.Name, p.paint(n.State == cluster.NodeUp, fmt.Sprintf("%-8s", n.State)), strings.Join(nets, ", "), role)
	if n.Why != "" && n.State != cluster.NodeUp {
		fmt.Fprintf(p.out, "  (%s)", n.Why)
	}
	fmt.Fprintln(p.out)
	if q := n.Quarantine; q != nil && q.Until.IsZero() {
		fmt.Fprintf(p.out, "    %s (%s): given no group at all; when it is sound, end it with tasuki node release %s\n", p.paint(false, "quarantined"), q.Why, n.Name)
	} else if q != nil {
		fmt.Fprintf(p.out, "    %s until %s (%s): given no group that another node can run; end it with tasuki node release %s\n", p.paint(false, "quarantined"),
			q.Until.Local().Format("2006/01/02 15:04:05"), q.Why, n.Name)
	}
}

func (p *program) printGroup(g *api.Group, w int) {
	where := ""
	if g.Owner != "" {
		where = " on " + string(g.Owner)
	}
	fmt.Fprintf(p.out, "  %-*s %s%s", w, g.Name, p.paint(g.Phase == cluster.PhaseOnline, fmt.Sprintf("%-8s", g.Phase)), where)
	if g.Plan != nil {
		fmt.Fprintf(p.out, "  %s under way: %s", g.Plan.Action, g.Plan.Why)
	} else if g.Why != "" {
		fmt.Fprintf(p.out, "  (%s)", g.Why)
	}
	fmt.Fprintln(p.out)
	for _, r := range g.Resources {
		fmt.Fprintf(p.out, "    %-*s %s %s", w-2, r.Name, p.paint(r.State == cluster.ResourceOnline, fmt.Sprintf("%-12s", r.State)), r.Kind)
		if r.Rung != "" {
			fmt.Fprintf(p.out, "  rung: %s", r.Rung)
		}
		if r.Next != "" {
			fmt.Fprintf(p.out, ", next: %s", r.Next)
		}
		if r.Why != "" {
			fmt.Fprintf(p.out, "  %s", r.Why)
		}
		fmt.Fprintln(p.out)
	}
	if g.Held != nil {
		fmt.Fprintf(p.out, "    %s since %s (%s): release it with tasuki group release %s\n", p.paint(false, "held where it is"),
			g.Held.Since.Local().Format("2006/01/02 15:04:05"), g.Held.Why, g.Name)
	}
	if g.Phase == cluster.PhaseFailed && g.Plan == nil && g.Held == nil {
		fmt.Fprintf(p.out, "    %s\n", wayOut(g))
	}
	for _, c := range g.Counters {
		latest := ""
		if !c.Latest.IsZero() {
			latest = ", latest " + cluster.Ago(time.Since(c.Latest))
		}
		fmt.Fprintf(p.out, "    counted: %s %d%s\n", c.Name, c.Count, latest)
	}
	for _, e := range g.Excluded {
		fmt.Fprintf(p.out, "    not tried again on %s\n", e)
	}
}

// wayOut is what an operator does about a group that has failed and stays so.
func wayOut(g *api.Group) string {
	if slices.ContainsFunc(g.Resources, func(r api.Resource) bool { return r.State == cluster.ResourceStopFailed }) {
		return fmt.Sprintf("end what is left of it on %s by hand, then: tasuki group stop %s", g.Owner, g.Name)
	}
	return fmt.Sprintf("begin anew, on a node that can run it: tasuki group start %s", g.Name)
}

func (p *program) printMonitor(m *api.Monitor, w int) {
	fmt.Fprintf(p.out, "  %-*s %s %s", w, m.Name, p.paint(m.Verdict == cluster.VerdictGood, fmt.Sprintf("%-9s", m.Verdict)), m.Kind)
	for _, n := range m.Nodes {
		if n.Text != "" {
			fmt.Fprintf(p.out, "  %s: %s", n.Node, n.Text)
		}
	}
	fmt.Fprintln(p.out)
}

// ofWhat says for what a link may ask its verbs.
func ofWhat(l api.Link) string {
	groups := "all groups"
	if len(l.Groups) > 0 {
		groups = fmt.Sprintf("groups %v", l.Groups)
	}
	guests := fmt.Sprintf("guests %v", l.Guests)
	switch {
	case len(l.Guests) == 0:
		return groups
	case !slices.Contains(l.Verbs, cluster.VerbGroupFailover):
		return guests
	}
	return groups + ", " + guests
}

func (p *program) printLinks(s *api.Status) {
	w := nameColumn(s)
	for _, l := range s.Links {
		if l.Asks {
			fmt.Fprintf(p.out, "  %-*s may ask this cluster for %v (%s)\n", w, l.Name, l.Verbs, ofWhat(l))
		}
		if l.Asked {
			for _, n := range l.Nodes {
				word := "reachable"
				if !n.Reachable {
					word = "not reachable"
				}
				fmt.Fprintf(p.out, "  %-*s asked by this cluster: %s %s, %s\n", w, l.Name, n.Name, p.paint(n.Reachable, word), strings.Join(n.Addresses, ", "))
			}
		}
	}
}

package clp

import (
	"fmt"
	"strings"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

const statUsage = "[-s|-g|-m|-n|-i] [--long] [--rsc RESOURCE] [--mon MONITOR] [--hb HEARTBEAT] [-h HOST]"

// The layout of clpstat: 70 columns, the colon in column 22, or 39 with --long.
const (
	width     = 70
	colon     = 22
	colonLong = 39
	statusPad = 17
	nameMax   = 16
	nestedMax = 14
)

// page writes one clpstat.
type page struct {
	b    strings.Builder
	long bool
}

func (r *run) stat() error {
	f := r.flags()
	f.BoolP("status", "s", false, "")
	groups, mons, beats, details := f.BoolP("group", "g", false, ""), f.BoolP("monitor", "m", false, ""), f.BoolP("heartbeat", "n", false, ""), f.BoolP("info", "i", false, "")
	long, rsc, mon, hb, host := f.Bool("long", false, ""), f.String("rsc", "", ""), f.String("mon", "", ""), f.String("hb", "", ""), f.StringP("host", "h", "", "")
	if err := f.Parse(r.args); err != nil || f.NArg() > 0 {
		return r.misuse(statUsage, "the options cannot be read: %s", strings.Join(r.args, " "))
	}
	s, err := r.client.Status(r.ctx)
	if err != nil {
		return err
	}
	if *host != "" && nodeOf(&s, *host) == nil {
		return &api.Error{Code: "no-such-node", Message: fmt.Sprintf("there is no node %q", *host), Hint: "every node answers for the whole cluster"}
	}
	p := &page{long: *long || *details}
	switch {
	case *groups:
		p.frame("GROUP STATUS", func() { p.groupMap(&s) })
	case *mons || *mon != "":
		p.frame("MONITOR RESOURCE STATUS", func() { p.monitorMap(&s, *mon) })
	case *beats || *hb != "":
		p.frame("HEARTBEAT RESOURCE STATUS", func() { p.beatMap(&s) })
	case *rsc != "":
		p.frame("CLUSTER STATUS", func() { p.oneResource(&s, *rsc) })
	default:
		p.frame("CLUSTER STATUS", func() { p.status(&s) })
	}
	_, err = r.out.Write([]byte(p.b.String()))
	return err
}

// frame writes the first and the last line around body.
func (p *page) frame(title string, body func()) {
	fmt.Fprintf(&p.b, " ========================  %s  %s\n", title, strings.Repeat("=", max(width-29-len(title), 3)))
	body()
	fmt.Fprintf(&p.b, " %s\n", strings.Repeat("=", width-1))
}

// line writes a name, its status and a comment. indent counts blanks before
// the name; dots follow the name of a server or group.
func (p *page) line(indent int, mark, name string, most int, dots bool, status, comment string) {
	col := colon
	if p.long {
		col = colonLong
	} else if len(name) > most {
		name = name[:most]
	}
	left := strings.Repeat(" ", indent) + mark + name
	if dots && len(left) < col-2 {
		left += " " + strings.Repeat(".", col-2-len(left))
	}
	fmt.Fprintf(&p.b, "%-*s: %-*s%s\n", col-1, left, statusPad, status, comment)
}

// word writes a line whose value is no status and so is not padded.
func (p *page) word(name, value string) {
	col := colon
	if p.long {
		col = colonLong
	}
	fmt.Fprintf(&p.b, "%-*s: %s\n", col-1, "      "+name, value)
}

func (p *page) status(s *api.Status) {
	fmt.Fprintf(&p.b, "  Cluster : %s\n", s.Cluster)
	p.b.WriteString("  <server>\n")
	for i, n := range s.Nodes {
		p.server(&n, i)
	}
	p.b.WriteString("  <group>\n")
	for _, g := range s.Groups {
		p.line(4, "", string(g.Name), nameMax, true, groupWord(&g), g.Comment)
		owner := string(g.Owner)
		if owner == "" {
			owner = "None"
		}
		p.word("current", owner)
		for _, r := range g.Resources {
			p.line(6, "", string(r.Name), nestedMax, false, resourceWord(r.State), r.Comment)
		}
	}
	p.b.WriteString("  <monitor>\n")
	for _, m := range s.Monitors {
		p.line(4, "", string(m.Name), nameMax, false, monitorWord(s, &m), m.Comment)
	}
}

func (p *page) server(n *api.Node, order int) {
	mark, which := " ", "Secondary server"
	if n.Self {
		mark = "*"
	}
	if order == 0 {
		which = "Primary server"
	}
	if n.Witness {
		which = "Witness"
	}
	p.line(3, mark, string(n.Name), nameMax, true, nodeWord(n), which)
	for i, a := range n.Addresses {
		word := "Normal"
		if !a.Up {
			word = "Error"
		}
		p.line(6, "", fmt.Sprintf("lankhb%d", i+1), nestedMax, false, word, "LAN Heartbeat "+a.Address)
	}
}

func (p *page) groupMap(s *api.Status) {
	for _, n := range s.Nodes {
		if n.Witness {
			continue
		}
		mark := " "
		if n.Self {
			mark = "*"
		}
		p.line(3, mark, string(n.Name), nameMax, true, nodeWord(&n), "")
		for _, g := range s.Groups {
			word := "-"
			if g.Owner == n.Name {
				word = groupWord(&g)
			}
			p.line(6, "", string(g.Name), nestedMax, false, word, "")
		}
	}
}

func (p *page) monitorMap(s *api.Status, only string) {
	for _, m := range s.Monitors {
		if only != "" && string(m.Name) != only {
			continue
		}
		p.line(4, "", string(m.Name), nameMax, true, monitorWord(s, &m), m.Comment)
		for _, n := range m.Nodes {
			p.line(6, "", string(n.Node), nestedMax, false, verdictWord(n.Verdict), n.Text)
		}
	}
}

func (p *page) beatMap(s *api.Status) {
	for i, n := range s.Nodes {
		p.server(&n, i)
	}
}

func (p *page) oneResource(s *api.Status, name string) {
	for _, g := range s.Groups {
		for _, r := range g.Resources {
			if string(r.Name) == name {
				p.line(4, "", name, nameMax, true, resourceWord(r.State), r.Comment)
				p.line(6, "", "group", nestedMax, false, string(g.Name), "")
				p.line(6, "", "current", nestedMax, false, string(g.Owner), r.Why)
			}
		}
	}
}

func nodeWord(n *api.Node) string {
	switch n.State {
	case cluster.NodeUp:
		if n.Why != "" && strings.Contains(n.Why, "leaving") {
			return "Online Pending"
		}
		return "Online"
	case cluster.NodeDown, cluster.NodeLeft:
		return "Offline"
	}
	return "Unknown"
}

func groupWord(g *api.Group) string {
	switch g.Phase {
	case cluster.PhaseOnline:
		return "Online"
	case cluster.PhaseStarting:
		return "Online Pending"
	case cluster.PhaseStopping:
		return "Offline Pending"
	case cluster.PhaseOffline:
		return "Offline"
	}
	for _, r := range g.Resources {
		if r.State == cluster.ResourceStopFailed {
			return "Offline Failure"
		}
	}
	return "Online Failure"
}

func resourceWord(s cluster.ResourceState) string {
	switch s {
	case cluster.ResourceOnline:
		return "Online"
	case cluster.ResourceStarting:
		return "Online Pending"
	case cluster.ResourceStopping:
		return "Offline Pending"
	case cluster.ResourceStartFailed, cluster.ResourceFailed:
		return "Online Failure"
	case cluster.ResourceStopFailed:
		return "Offline Failure"
	}
	return "Offline"
}

func verdictWord(v cluster.Verdict) string {
	switch v {
	case cluster.VerdictGood:
		return "Normal"
	case cluster.VerdictSuspect:
		return "Caution"
	case cluster.VerdictBad:
		return "Error"
	case cluster.VerdictSuspended:
		return "Suspend"
	}
	return "Unknown"
}

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// mostLost is how many lost directions of one network are listed.
const mostLost = 8

// printNetworks shows which directions of the networks are lost; all of them,
// with the good ones, if asked for.
func (p *program) printNetworks(s *api.Status, w int, all bool) {
	bad := func(d api.Direction) bool { return d.State == api.DirectionLost }
	title := "\nnetworks"
	for _, n := range s.Networks {
		if !all && !slices.ContainsFunc(n.Directions, bad) {
			continue
		}
		if title != "" {
			fmt.Fprintln(p.out, title)
			title = ""
		}
		if all {
			p.networkTable(&n, w)
			continue
		}
		listed, more := 0, 0
		for _, d := range n.Directions {
			if !bad(d) {
				continue
			}
			if listed++; listed > mostLost {
				more++
				continue
			}
			line := fmt.Sprintf("  %-*s %s does not reach %s", w, fmt.Sprintf("network %d", n.Number), d.From, d.To)
			if d.OneWay {
				line += fmt.Sprintf(", one way: %s reaches %s", d.To, d.From)
			}
			if !d.Since.IsZero() {
				line += "  since " + d.Since.Local().Format("2006/01/02 15:04:05")
			}
			fmt.Fprintln(p.out, p.paint(false, line))
		}
		if more > 0 {
			fmt.Fprintf(p.out, "  %-*s %s more; tasuki status -v shows all\n", w, "", count(more, "direction"))
		}
	}
}

// networkTable shows every direction of a network: a line for each sender, a
// column for each receiver.
func (p *program) networkTable(n *api.Network, w int) {
	var names []cluster.NodeName
	cells := map[[2]cluster.NodeName]string{}
	for _, d := range n.Directions {
		if !slices.Contains(names, d.From) {
			names = append(names, d.From)
		}
		cells[[2]cluster.NodeName{d.From, d.To}] = d.State
		if d.OneWay {
			cells[[2]cluster.NodeName{d.From, d.To}] = "one way"
		}
	}
	head := fmt.Sprintf("  %-*s to", w, fmt.Sprintf("network %d", n.Number))
	for _, to := range names {
		head += fmt.Sprintf("  %-*s", column(to), to)
	}
	fmt.Fprintln(p.out, strings.TrimRight(head, " "))
	for _, from := range names {
		line := fmt.Sprintf("  %-*s   ", w, "  from "+string(from))
		for _, to := range names {
			cell, is := cells[[2]cluster.NodeName{from, to}]
			if !is {
				cell = "-"
			}
			line += "  " + p.paint(cell == api.DirectionOK || cell == "-", fmt.Sprintf("%-*s", column(to), cell))
		}
		fmt.Fprintln(p.out, strings.TrimRight(line, " "))
	}
}

// column is how wide the states of what a node receives stand.
func column(n cluster.NodeName) int { return max(len(n), len(api.DirectionUnknown)) }

// printTime shows how late the node that answers came to what was due.
func (p *program) printTime(t *api.Timekeeping) {
	fmt.Fprintf(p.out, "\ntime on this node, since %s\n", t.Since.Local().Format("2006/01/02 15:04:05"))
	at := ""
	if !t.WorstAt.IsZero() {
		at = t.WorstAt.Local().Format(" (15:04:05)")
	}
	fmt.Fprintf(p.out, "  longest stall %d ms%s; acknowledgements of its lease got %d ms old at most\n", t.WorstMS, at, t.OldestAckMS)
	var late []string
	for _, b := range t.Late {
		switch {
		case b.Count == 0:
		case b.UnderMS == 0:
			late = append(late, fmt.Sprintf("more: %d", b.Count))
		default:
			late = append(late, fmt.Sprintf("< %d ms: %d", b.UnderMS, b.Count))
		}
	}
	fmt.Fprintf(p.out, "  late by %s\n", strings.Join(late, ", "))
	bears := "no profile bears twice the longest stall"
	if t.Bears != "" {
		bears = fmt.Sprintf("it bears profile %s", t.Bears)
	}
	fmt.Fprintf(p.out, "  %s; the cluster file says %s\n", p.paint(t.Bears != "", bears), t.Profile)
}

package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Each node knows what it hears, on which network. It tells the others when that
// changes, at most once in tellSoonest, and every tellSeldom anyway; what was
// not told for staleAfter is not known.
const (
	tellSoonest = time.Second
	tellSeldom  = 10 * time.Second
	staleAfter  = 25 * time.Second
)

// maxHearings bounds what another node may tell: 31 others with 8 addresses.
const maxHearings = 31 * 8

// hearing is whether a node hears another on one network.
type hearing struct {
	From  cluster.NodeName `json:"f"`
	Path  int              `json:"p,omitempty"` // index of the address
	Up    bool             `json:"u,omitempty"`
	Since time.Time        `json:"s"`
}

// loss is what the log was told of a path.
type loss int

const (
	lostBoth   loss = 1 + iota // not heard; whether the other hears us there is not known, or it does not
	lostOneWay                 // not heard, but the other hears us there
)

// onAll stands for all paths to a node where one path is expected.
const onAll = -1

// pathSilence is how long a path to the node must be unheard to count as
// silent: two of the rounds in which each gets its turn, and some.
func (m *Machine) pathSilence(n *config.Node) time.Duration {
	return (m.silence() + m.pace()) * time.Duration(max(len(n.Addresses), 1))
}

// hears says whether heartbeats of the node arrive on the path.
func (m *Machine) hears(n *config.Node, p *peer, path int) bool {
	t, ok := p.paths[path]
	return ok && m.now.Sub(t) < m.pathSilence(n)
}

// heardPaths returns the paths on which the node is heard.
func (m *Machine) heardPaths(n *config.Node, p *peer) []int {
	var heard []int
	for path := range n.Addresses {
		if m.hears(n, p, path) {
			heard = append(heard, path)
		}
	}
	return heard
}

// listen notes what is heard, and tells the other nodes.
func (m *Machine) listen() {
	if m.now < m.listenAt {
		return
	}
	m.listenAt = m.now.Add(m.timing().Heartbeat)
	f := m.file()
	self := f.Node(m.self)
	if self == nil {
		return
	}
	var row []hearing
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.Name == m.self {
			continue
		}
		p := m.peer(n.Name)
		for path := range min(len(n.Addresses), len(self.Addresses)) {
			up := m.hears(n, p, path)
			h, known := p.hearing[path]
			if !known || h.Up != up {
				h = hearing{From: n.Name, Path: path, Up: up, Since: m.wall}
				p.hearing[path], m.rowNew = h, true
			}
			row = append(row, h)
		}
	}
	wait := tellSeldom
	if m.rowNew {
		wait = tellSoonest
	}
	if m.rowTold > 0 && m.now.Sub(m.rowTold) < wait {
		return
	}
	m.rowTold, m.rowNew = m.now, false
	for _, n := range sortedKeys(m.peers) {
		if m.alive(n) && len(row) > 0 {
			m.send(n, false, message{Hears: row})
		}
	}
}

func (m *Machine) takeHearings(from cluster.NodeName, row []hearing) {
	if len(row) <= maxHearings {
		p := m.peer(from)
		p.row, p.rowAt = row, m.now
	}
}

// networks returns both directions between all nodes that are up, on every
// network that they share.
func (m *Machine) networks() []api.Network {
	f := m.file()
	var out []api.Network
	for path := 0; ; path++ {
		var nodes []*config.Node
		more := false
		for i := range f.Nodes {
			n := &f.Nodes[i]
			s := m.st.Nodes[n.Name]
			more = more || path < len(n.Addresses)
			if path < len(n.Addresses) && (n.Name == m.self || s != nil && s.State == cluster.NodeUp) {
				nodes = append(nodes, n)
			}
		}
		if !more {
			return out
		}
		net := api.Network{Number: path + 1}
		for _, from := range nodes {
			for _, to := range nodes {
				if from == to {
					continue
				}
				d := m.direction(from, to, path)
				d.OneWay = d.State == api.DirectionLost && m.direction(to, from, path).State == api.DirectionOK
				net.Directions = append(net.Directions, d)
			}
		}
		if len(net.Directions) > 0 {
			out = append(out, net)
		}
	}
}

// direction returns whether what one node sends reaches the other on a path. The
// receiver knows: this node itself, or what the other told of itself.
func (m *Machine) direction(from, to *config.Node, path int) api.Direction {
	d := api.Direction{From: from.Name, To: to.Name, State: api.DirectionUnknown}
	var h hearing
	known := false
	if to.Name == m.self {
		h, known = m.peer(from.Name).hearing[path]
	} else if p := m.peer(to.Name); p.rowAt > 0 && m.now.Sub(p.rowAt) < staleAfter {
		i := slices.IndexFunc(p.row, func(h hearing) bool { return h.From == from.Name && h.Path == path })
		if known = i >= 0; known {
			h = p.row[i]
		}
	}
	if from.Name == m.self && m.heard(to.Name) { // its heartbeats say it sooner
		if up := slices.Contains(m.peer(to.Name).last.Heard, path); !known || up != h.Up {
			h, known = hearing{Up: up}, true
		}
	}
	if !known {
		return d
	}
	d.State, d.Since = api.DirectionLost, h.Since
	if h.Up {
		d.State = api.DirectionOK
	}
	return d
}

// pathHeard notes a heartbeat on a path.
func (m *Machine) pathHeard(n cluster.NodeName, p *peer, path int) {
	p.paths[path] = m.now
	switch p.lost[path] {
	case lostBoth:
		m.pathLine(cluster.LevelInfo, "path-up", n, p, path, fmt.Sprintf("Network %d to %s works again.", path+1, n))
	case lostOneWay:
		m.pathLine(cluster.LevelInfo, "path-up", n, p, path, fmt.Sprintf("%s is heard by %s again on network %d.", n, m.self, path+1))
	}
	delete(p.lost, path)
}

// watchPaths logs what is not heard of a node that is heard on another network,
// and a node that is heard but does not hear this one. Neither moves anything
// while a majority is heard.
func (m *Machine) watchPaths(n cluster.NodeName, p *peer) {
	m.tellFlapping(n, p)
	node := m.file().Node(n)
	if p.heard == 0 || m.now.Sub(p.heard) >= m.silence() {
		return // silent on all of them: that is another matter
	}
	limit := max(m.timing().Lease, m.pathSilence(node))
	m.watchDeaf(n, p, limit)
	self := m.file().Node(m.self)
	if self == nil {
		return
	}
	for path := range min(len(node.Addresses), len(self.Addresses)) {
		quiet := m.now.Sub(max(p.paths[path], p.back, m.started))
		theirs := slices.Contains(p.last.Heard, path)
		switch {
		case quiet < limit || theirs && quiet < 2*limit: // what it says may be older
		case theirs && p.lost[path] != lostOneWay:
			p.lost[path] = lostOneWay
			m.pathLine(cluster.LevelWarn, "path-one-way", n, p, path, fmt.Sprintf(
				"%s is not heard by %s on network %d (%s to %s); the other direction works, and so does another network.",
				n, m.self, path+1, node.Addresses[path], self.Addresses[path]))
		case !theirs && p.lost[path] != lostBoth:
			p.lost[path] = lostBoth
			m.pathLine(cluster.LevelWarn, "path-down", n, p, path, fmt.Sprintf(
				"Network %d to %s (%s) is silent. Another network works.", path+1, n, node.Addresses[path]))
		}
	}
}

// watchDeaf logs that a node that stays up does not hear this one on any
// network, which only this one can tell.
func (m *Machine) watchDeaf(n cluster.NodeName, p *peer, limit time.Duration) {
	s := m.st.Nodes[n]
	switch {
	case p.deaf == 0 && p.lost[onAll] != 0:
		delete(p.lost, onAll)
		m.pathLine(cluster.LevelInfo, "path-up", n, p, onAll, fmt.Sprintf("%s is heard by %s again.", m.self, n))
	case p.deaf > 0 && m.now.Sub(p.deaf) >= limit && p.lost[onAll] == 0 && s != nil && s.State == cluster.NodeUp:
		p.lost[onAll] = lostOneWay
		m.pathLine(cluster.LevelWarn, "path-one-way", n, p, onAll, fmt.Sprintf("%s is not heard by %s on any network; the other direction works.", m.self, n))
	}
}

// A path writes at most flapLines lines in a flapTime. What is beyond is counted
// and told in one line, and as long as that goes on, in no more than one line a
// flapTime.
const (
	flapLines = 4
	flapTime  = time.Minute
)

// flap counts the lines of one path.
type flap struct {
	since cluster.Instant
	lines int
	held  int
	last  string // the latest line that was held back
}

// pathLine writes a line about a path, or counts it.
func (m *Machine) pathLine(level cluster.Level, code string, n cluster.NodeName, p *peer, path int, text string) {
	fl := p.flaps[path]
	if fl == nil {
		fl = &flap{since: m.now}
		p.flaps[path] = fl
	}
	if fl.held == 0 && m.now.Sub(fl.since) >= flapTime {
		*fl = flap{since: m.now}
	}
	if fl.lines >= flapLines {
		fl.held++
		fl.last = text
		return
	}
	fl.lines++
	m.event(level, "nm", code, "", pathFields(n, path), "%s", text)
}

// tellFlapping tells the lines that were held back, as one.
func (m *Machine) tellFlapping(n cluster.NodeName, p *peer) {
	for _, path := range sortedKeys(p.flaps) {
		fl := p.flaps[path]
		if fl.held == 0 || m.now.Sub(fl.since) < flapTime {
			continue
		}
		f := pathFields(n, path)
		f["count"] = fmt.Sprint(fl.held)
		what := "Network " + f["network"]
		if path == onAll {
			what = "All that goes"
		}
		m.event(cluster.LevelWarn, "nm", "path-flapping", "", f, "%s to %s has changed %d more times. The latest: %s", what, n, fl.held, fl.last)
		*fl = flap{since: m.now, lines: flapLines}
	}
}

func pathFields(n cluster.NodeName, path int) map[string]string {
	network := "all"
	if path != onAll {
		network = fmt.Sprint(path + 1)
	}
	return map[string]string{"node": string(n), "network": network}
}

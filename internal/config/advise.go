package config

import (
	"fmt"
	"slices"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// advise warns of what is allowed but risky. It is called for files without
// errors only.
func (b *builder) advise() {
	b.adviseVotes()
	b.adviseNetworks()
	b.adviseFences()
	for i, g := range b.raw.Groups.items {
		b.adviseGroup(g, &b.f.Groups[i])
	}
	for i, e := range b.raw.Monitors.items {
		b.adviseMonitor(e, &b.f.Monitors[i])
	}
	b.adviseMirrors()
	b.adviseStalls()
	b.adviseOutlets()
}

func (b *builder) adviseVotes() {
	nodes, list := len(b.f.Nodes), b.raw.Arbitration.items
	where := b.raw.Nodes.src
	witness := slices.ContainsFunc(b.f.Nodes, func(n Node) bool { return n.Witness })
	switch votes := min(nodes, MaxVoters); {
	case len(list) > 0 && list[0].kind == ArbitrateNone:
		b.warn(list[0].src, "better add a witness: any third machine, with witness: true",
			"arbitration none: when the two nodes lose each other, both go on and both run the groups; clients reach one or the other, and what both wrote must be sorted out by hand")
	case len(list) > 1 && list[1].kind == ArbitrateNone:
		b.warn(list[1].src, "remove it, or add a witness: any third machine, with witness: true",
			"arbitration fence, then none: when the other node can be neither heard nor forced off, this node goes on, and both may run the groups")
	case len(list) == 1 && list[0].kind == ArbitrateFence: // exclusion that was confirmed
	case len(list) > 0:
		b.warn(list[len(list)-1].src, "better add a witness: any third machine, with witness: true",
			"arbitration ping: when the two nodes lose each other but both still reach a ping target, both go on and both run the groups")
	case nodes == 2 && witness:
		b.warn(where, "add a node that can run groups", "the cluster has one node and one witness: when the witness fails, the node stops too")
	case nodes == 2:
		b.warn(where, "add a witness (any third machine, with witness: true), or arbitration",
			"two nodes without a witness and without arbitration: when one fails, the other has no majority and stops too")
	case votes%2 == 0:
		b.warn(where, "add a witness", "%d votes are even: when half of them is cut off from the other half, neither goes on", votes)
	}
	if nodes > MaxVoters && witness {
		b.warn(where, "the witness can go", "%d nodes have only %d votes, a witness may get none", nodes, MaxVoters)
	}
}

// adviseNetworks warns of addresses that no other node can match by place.
func (b *builder) adviseNetworks() {
	most, who := 0, ""
	for _, n := range b.f.Nodes {
		if len(n.Addresses) > most {
			most, who = len(n.Addresses), string(n.Name)
		}
	}
	for _, e := range b.raw.Nodes.items {
		if has := len(e.val.Addresses.items); has < most && !e.val.Witness.val {
			b.warn(e.src, "give all nodes an address in every network, in the same order", "node %s has %d of %d networks (%s has all)", e.name, has, most, who)
		}
	}
	if most == 1 && len(b.f.Nodes) > 1 {
		b.warn(b.raw.Nodes.src, "give the nodes a second address in another network", "the nodes have one network: its failure parts them")
	}
}

func (b *builder) adviseGroup(e *entry[rawGroup], g *Group) {
	if len(g.Resources) == 0 {
		b.warn(e.src, "add resources", "group %s is empty", g.Name)
	}
	for i, r := range e.val.Resources.items {
		if x := g.Resources[i].Exec; x != nil && x.Mode == ExecSync && x.Stop == "" {
			b.warn(r.src, "name a stop script, or write mode: async", "resource %s has no stop script: what its start script leaves running goes on after the group has moved", r.name)
		}
	}
}

func (b *builder) adviseMonitor(e *entry[rawMonitor], m *Monitor) {
	switch s := e.val.spec.(type) {
	case *rawNICLink:
		b.adviseLadder(&s.ladderKeys, m)
	case *rawCustom:
		b.adviseLadder(&s.ladderKeys, m)
	case *rawMirrorWatch:
		b.adviseLadder(s.ladder(), m)
	case *rawUserspace:
		if m.UserSp.Method == MethodNone {
			b.warn(s.Method.src, "choose keepalive", "monitor %s watches nothing: its method is none", m.Name)
		} else if lease := b.f.Timing.Lease; b.f.canTakeOver() && m.UserSp.Timeout > lease {
			b.warn(placeOr(s.Timeout.src, e.src), fmt.Sprintf("write timeout: %s with the method keepalive, or a longer lease", lease),
				"monitor %s resets a stalled node after %s, but another node takes over after %s: both can have the groups for the time between", m.Name, m.UserSp.Timeout, lease)
		}
	}
}

func (b *builder) adviseLadder(l *ladderKeys, m *Monitor) {
	if r := &l.Recovery; r.Script.written() && m.Recovery.Scripts == 0 {
		b.warn(r.Script.src, "write scripts: 1, or remove the script", "the recovery script of monitor %s is never run: scripts is 0", m.Name)
	}
}

// adviseStalls warns of nodes that nothing resets when their daemon stalls.
func (b *builder) adviseStalls() {
	watched := map[cluster.NodeName]bool{}
	for _, m := range b.f.Monitors {
		if m.UserSp != nil {
			for _, n := range m.Nodes {
				watched[n] = true
			}
		}
	}
	for i := range b.f.Groups {
		g := &b.f.Groups[i]
		if len(g.Nodes) < 2 {
			continue
		}
		for _, n := range g.Nodes {
			if !watched[n] {
				b.warn(placeOr(b.raw.Monitors.src, b.raw.Groups.items[i].src), "add a monitor: userw: {kind: userspace, method: keepalive}",
					"no userspace monitor watches node %s: when its daemon stalls, it keeps group %s active although another node takes over", n, g.Name)
				return
			}
		}
	}
}

func placeOr(a, b src) src {
	if a.written() {
		return a
	}
	return b
}

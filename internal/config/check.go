package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// check tells every relation between parts of the file that does not hold.
func (b *builder) check() {
	b.checkNodes()
	b.checkTiming()
	b.checkArbitration()
	b.checkFences()
	b.checkGroups()
	b.checkMirrors()
	b.checkMonitors()
	b.checkResets()
	b.checkGuests()
	b.checkOutlets()
}

// checkGuests tells of guests that are not surely this machine's, or not surely
// one machine: powering off must be beyond doubt.
func (b *builder) checkGuests() {
	guests := b.raw.Guests.items
	if len(guests) > 0 && len(b.raw.Nodes.items) > 1 {
		b.add(b.raw.Guests.src, "make each host a cluster of its own, with its own guests", "guests are those of one machine, but this cluster has %d nodes", len(b.raw.Nodes.items))
	}
	first := map[Guest]string{}
	for i, e := range guests {
		r := &e.val
		var by []rawText
		for _, t := range []rawText{r.Libvirt, r.QMP, r.Lab} {
			if t.written() {
				by = append(by, t)
			}
		}
		if len(by) > 1 {
			b.add(by[1].src, "keep one of them", "guest %s is written down as two machines", e.name)
			continue
		}
		same := b.f.Guests[i]
		same.Name = ""
		if was, twice := first[same]; twice {
			b.add(e.src, "keep one of them", "guests %s and %s are the same machine", was, e.name)
		}
		first[same] = e.name
	}
}

// owners remembers who has an address first.
type owners map[netip.Addr]string

// claim tells if the address is somebody else's already.
func (b *builder) claim(o owners, a rawAddr, who string) {
	if !a.val.IsValid() {
		return
	}
	if was, taken := o[a.val]; taken && was != who {
		b.add(a.src, "give everyone an address of their own", "%s cannot have %s: it is the address of %s", who, a.val, was)
		return
	}
	o[a.val] = who
}

func (b *builder) checkNodes() {
	nodes := b.raw.Nodes.items
	if len(nodes) > 0 && !slices.ContainsFunc(nodes, func(e *entry[rawNode]) bool { return !e.val.Witness.val }) {
		b.add(b.raw.Nodes.src, "at least one node must be able to run groups", "every node is a witness")
	}
	taken := owners{}
	for _, e := range nodes {
		who := "node " + e.name
		seen := map[netip.Addr]bool{}
		for _, a := range e.val.Addresses.items {
			if a.val.IsValid() && seen[a.val] {
				b.add(a.src, "keep one of them", "%s stands here twice", a.val)
			}
			seen[a.val] = true
			b.claim(taken, a, who)
		}
		b.claim(taken, e.val.Public, who)
	}
	for _, e := range b.raw.Groups.items {
		for _, r := range e.val.Resources.items {
			if s, ok := r.val.spec.(*rawFloatingIP); ok {
				b.claim(taken, s.Address, "resource "+r.name)
			}
		}
	}
	b.checkFamilies(nodes)
}

// checkFamilies tells where the addresses of one network are of two families:
// the n-th addresses of all nodes must reach each other.
func (b *builder) checkFamilies(nodes []*entry[rawNode]) {
	for i := range 8 {
		first := ""
		var is4 bool
		for _, e := range nodes {
			if i >= len(e.val.Addresses.items) || !e.val.Addresses.items[i].val.IsValid() {
				continue
			}
			a := e.val.Addresses.items[i]
			switch {
			case first == "":
				first, is4 = fmt.Sprintf("%s of %s", a.val, e.name), a.val.Is4()
			case is4 != a.val.Is4():
				b.add(a.src, "write the addresses of all nodes in the same order of networks", "%s and %s have the same place but are of different families", a.val, first)
			}
		}
	}
}

func (b *builder) checkTiming() {
	r, t := &b.raw.Timing, b.f.Timing
	bad := func(v rawDuration) bool { return v.written() && !v.ok }
	if t.Profile == "" || bad(r.Heartbeat) || bad(r.Lease) || bad(r.Isolate) {
		return
	}
	where := r.src
	for _, v := range []rawDuration{r.Heartbeat, r.Isolate, r.Lease} {
		if v.written() {
			where = v.src
		}
	}
	if t.Isolate >= t.Lease {
		b.add(where, "make isolate about a third of lease", "isolate (%s) must be shorter than lease (%s)", t.Isolate, t.Lease)
		return
	}
	if 3*t.Heartbeat > t.Lease-t.Isolate {
		b.add(where, fmt.Sprintf("make heartbeat %s or less", ((t.Lease-t.Isolate)/3).Truncate(time.Millisecond)),
			"three heartbeats (3 × %s) must fit into lease less isolate (%s), or one lost packet makes a node isolate itself", t.Heartbeat, t.Lease-t.Isolate)
	}
}

func (b *builder) checkArbitration() {
	for i := range b.raw.Arbitration.items {
		a := &b.raw.Arbitration.items[i]
		b.checkPair(a)
		if i > 0 && b.raw.Arbitration.items[i-1].kind != ArbitrateFence {
			b.add(a.src, "remove it", "%s rules in every case, so nothing comes after it", b.raw.Arbitration.items[i-1].kind)
		}
		if i > 0 && a.kind == ArbitrateFence {
			b.add(a.src, "keep one of them", "fence stands here twice")
		}
		if n := len(a.ping.Targets.items); a.kind == ArbitratePing && n > 0 && int(a.ping.Need.val) > n {
			b.add(a.ping.Need.src, fmt.Sprintf("write 1 to %d", n), "%d ping targets must answer, but there are %d", a.ping.Need.val, n)
		}
		seen := map[netip.Addr]bool{}
		for _, t := range a.ping.Targets.items {
			if !t.val.IsValid() {
				continue
			}
			if seen[t.val] {
				b.add(t.src, "keep one of them", "%s stands here twice", t.val)
			}
			seen[t.val] = true
			if who := b.hasAddress(t.val); who != "" {
				b.add(t.src, "name a router or a switch", "the ping target %s is %s, whose answer says nothing about the network", t.val, who)
			}
		}
	}
}

// checkPair tells where arbitration has nothing to decide.
func (b *builder) checkPair(a *rawArbitrator) {
	nodes, witness := len(b.raw.Nodes.items), ""
	for _, e := range b.raw.Nodes.items {
		if e.val.Witness.val {
			witness = e.name
		}
	}
	const hint = "remove arbitration"
	switch {
	case nodes == 1:
		b.add(a.src, hint, "arbitration is for two nodes, and this cluster has one")
	case witness != "":
		b.add(a.src, hint+", or the witness", "arbitration is for two nodes alone: with the witness %s the majority of votes decides", witness)
	case nodes > 2:
		b.add(a.src, hint, "arbitration is for two nodes alone: with %d nodes the majority of votes decides", nodes)
	}
}

// hasAddress says who of the cluster has the address, or "".
func (b *builder) hasAddress(a netip.Addr) string {
	for _, n := range b.f.Nodes {
		if n.Public == a || slices.Contains(n.Addresses, a) {
			return "node " + string(n.Name)
		}
	}
	for _, g := range b.f.Groups {
		for _, r := range g.Resources {
			if r.FloatingIP != nil && r.FloatingIP.Address == a {
				return "resource " + string(r.Name)
			}
		}
	}
	return ""
}

// checkNodeList tells names that are no nodes or stand there twice.
func (b *builder) checkNodeList(l *rawList[rawText], mayWitness bool) {
	seen := map[string]bool{}
	for _, n := range l.items {
		if n.val == "" {
			continue
		}
		is := b.f.Node(cluster.NodeName(n.val))
		switch {
		case is == nil:
			b.add(n.src, b.hint(n.val, names(b.raw.Nodes.items)), "there is no node %q", n.val)
		case is.Witness && !mayWitness:
			b.add(n.src, "a witness has a vote and nothing else", "%s is a witness and cannot run groups", n.val)
		case seen[n.val]:
			b.add(n.src, "keep one of them", "%s stands here twice", n.val)
		}
		seen[n.val] = true
	}
}

func names[T any](items []*entry[T]) []string {
	out := make([]string, len(items))
	for i, e := range items {
		out[i] = e.name
	}
	return out
}

func (b *builder) checkGroups() {
	type home struct {
		group string
		line  int
	}
	homes := map[string]home{}
	for _, g := range b.raw.Groups.items {
		b.checkNodeList(&g.val.Nodes, false)
		for _, r := range g.val.Resources.items {
			if was, taken := homes[r.name]; taken {
				b.add(r.src, "name it differently: a request can name a group by one of its resources", "resource %s is in group %s already (line %d)", r.name, was.group, was.line)
			} else {
				homes[r.name] = home{g.name, r.line}
			}
			if s, ok := r.val.spec.(*rawFloatingIP); ok && s.Address.val.Is4() && s.Prefix.val > 32 {
				b.add(s.Prefix.src, "an IPv4 prefix length is 1 to 32", "%q is out of range: %d", "prefix", s.Prefix.val)
			}
		}
		b.checkAfter(g)
	}
}

func keysOf(r *rawResource) *resourceKeys {
	switch s := r.spec.(type) {
	case *rawFloatingIP:
		return &s.resourceKeys
	case *rawExec:
		return &s.resourceKeys
	case *rawMirrorDisk:
		return &s.resourceKeys
	}
	return &resourceKeys{}
}

// checkAfter tells references that lead nowhere, then every cycle once.
func (b *builder) checkAfter(g *entry[rawGroup]) {
	items := g.val.Resources.items
	index := map[string]int{}
	for i, r := range items {
		index[r.name] = i
	}
	for _, r := range items {
		seen := map[string]bool{}
		for _, a := range keysOf(&r.val).After.items {
			_, known := index[a.val]
			switch {
			case a.val == "":
			case !known:
				b.add(a.src, b.afterHint(g, a.val), "there is no resource %q in group %s", a.val, g.name)
			case seen[a.val]:
				b.add(a.src, "keep one of them", "%s stands here twice", a.val)
			}
			seen[a.val] = true
		}
	}
	const unseen, open, done = 0, 1, 2
	state := make([]int, len(items))
	var path []string
	var visit func(i int)
	visit = func(i int) {
		state[i] = open
		path = append(path, items[i].name)
		for _, a := range keysOf(&items[i].val).After.items {
			j, known := index[a.val]
			switch {
			case !known:
			case state[j] == unseen:
				visit(j)
			case state[j] == open:
				loop := append(slices.Clone(path[slices.Index(path, a.val):]), a.val)
				b.add(a.src, "take one of them out of after", "resources wait for each other in a circle: %s", strings.Join(loop, " after "))
			}
		}
		path = path[:len(path)-1]
		state[i] = done
	}
	for i := range items {
		if state[i] == unseen {
			visit(i)
		}
	}
}

func (b *builder) afterHint(g *entry[rawGroup], name string) string {
	for _, other := range b.raw.Groups.items {
		if other != g && slices.Contains(names(other.val.Resources.items), name) {
			return fmt.Sprintf("it is in group %s; after names resources of the same group", other.name)
		}
	}
	return b.hint(name, names(g.val.Resources.items))
}

func (b *builder) checkMonitors() {
	users := map[cluster.NodeName]string{}
	for i, e := range b.raw.Monitors.items {
		m := &b.f.Monitors[i]
		switch s := e.val.spec.(type) {
		case *rawNICLink:
			b.checkNodeList(&s.monitorKeys.Nodes, true)
			b.checkLadder(&s.ladderKeys, m)
			b.checkDevices(e, s, m)
		case *rawCustom:
			b.checkNodeList(&s.monitorKeys.Nodes, true)
			b.checkLadder(&s.ladderKeys, m)
			if s.Mode.val == ExecAsync && s.Normal.written() {
				b.add(s.Normal.src, "remove normal, or write mode: sync", "an async script is watched while it lives, it has no normal exit codes")
			}
		case *rawMirrorWatch:
			b.checkMirrorWatch(s, m)
		case *rawUserspace:
			b.checkNodeList(&s.monitorKeys.Nodes, true)
			b.checkUserspace(s, m)
			for _, n := range m.Nodes {
				if was, twice := users[n]; twice {
					b.add(e.src, "keep one of them, or give them different nodes", "node %s has the userspace monitor %s already", n, was)
					break
				}
				users[n] = e.name
			}
		}
	}
}

func (b *builder) checkLadder(l *ladderKeys, m *Monitor) {
	t := &l.Target
	if g := t.group; g.val != "" && b.f.Group(m.Target.Group) == nil {
		b.add(g.src, b.hint(g.val, names(b.raw.Groups.items)), "there is no group %q", g.val)
	}
	if r := t.resource; r.val != "" && b.f.GroupOf(m.Target.Resource) == nil {
		b.add(r.src, b.hint(r.val, b.resourceNames()), "there is no resource %q", r.val)
	}
	if m.When == WhenActive && m.Target.Cluster {
		b.add(l.When.src, "name a group or a resource as target, or write when: always", "%q is of no use: a cluster is always active", "when: active")
	}
	if m.Recovery.FinalAction == cluster.ActionStopResource && (m.Target.Cluster || t.group.val != "") {
		b.add(l.Recovery.FinalAction.src, "name a resource as target, or choose stop-group", "the final action stop-resource needs a resource as target")
	}
	if m.Recovery.Scripts > 0 && !l.Recovery.Script.written() {
		b.add(l.Recovery.Scripts.src, "name the script, or write scripts: 0", "%d runs of the recovery script are wanted, but no script is named", m.Recovery.Scripts)
	}
}

func (b *builder) resourceNames() []string {
	var out []string
	for _, g := range b.raw.Groups.items {
		out = append(out, names(g.val.Resources.items)...)
	}
	return out
}

// checkDevices tells nodes that watch but have no interface named, and
// interfaces named for nodes that do not watch.
func (b *builder) checkDevices(e *entry[rawMonitor], s *rawNICLink, m *Monitor) {
	for _, p := range s.PerNode.items {
		switch n := cluster.NodeName(p.name); {
		case b.f.Node(n) == nil:
			b.add(p.src, b.hint(p.name, names(b.raw.Nodes.items)), "there is no node %q", p.name)
		case !slices.Contains(m.Nodes, n):
			b.add(p.src, "add it to nodes, or remove it here", "node %s does not watch with monitor %s", n, e.name)
		}
	}
	if s.Device.written() {
		return
	}
	for _, n := range m.Nodes {
		if _, named := m.NICLink.PerNode[n]; !named && b.f.Node(n) != nil {
			b.add(e.src, "write device, or name one for every node in per_node", "monitor %s has no interface to watch on node %s", e.name, n)
		}
	}
}

func (b *builder) checkUserspace(s *rawUserspace, m *Monitor) {
	method := m.UserSp.Method
	if s.Device.written() && !usesDevice(method) && method != "" {
		b.add(s.Device.src, "remove it", "the method %s uses no device", method)
	}
	if s.Timeout.ok && s.Timeout.written() && usesDevice(method) && s.Timeout.val%time.Second != 0 {
		b.add(s.Timeout.src, "write whole seconds, or use the method keepalive", "a watchdog of the kernel counts seconds, it cannot wait %s", s.Timeout.val)
	}
}

// checkResets tells every final action watchdog-reset that could not be done
// because no watchdog runs on a node.
func (b *builder) checkResets() {
	armed := map[cluster.NodeName]bool{}
	for _, m := range b.f.Monitors {
		if m.UserSp != nil && m.UserSp.Method != MethodNone {
			for _, n := range m.Nodes {
				armed[n] = true
			}
		}
	}
	need := func(a rawAction, meant cluster.FinalAction, nodes []cluster.NodeName) {
		for _, n := range nodes {
			if meant == cluster.ActionWatchdogReset && !armed[n] && b.f.Node(n) != nil {
				b.add(a.src, "add a userspace monitor there, or choose reboot or panic", "the final action watchdog-reset needs a watchdog, and node %s has no userspace monitor", n)
				return
			}
		}
	}
	for i, g := range b.raw.Groups.items {
		for j, r := range g.val.Resources.items {
			is, k := &b.f.Groups[i].Resources[j], keysOf(&r.val)
			need(k.Activation.FinalAction, is.Activation.FinalAction, b.f.Groups[i].Nodes)
			need(k.Deactivation.FinalAction, is.Deactivation.FinalAction, b.f.Groups[i].Nodes)
		}
	}
	for i, e := range b.raw.Monitors.items {
		m := &b.f.Monitors[i]
		switch s := e.val.spec.(type) {
		case *rawNICLink:
			need(s.Recovery.FinalAction, m.Recovery.FinalAction, m.Nodes)
		case *rawCustom:
			need(s.Recovery.FinalAction, m.Recovery.FinalAction, m.Nodes)
		case *rawMirrorWatch:
			need(s.Recovery.FinalAction, m.Recovery.FinalAction, m.Nodes)
		}
	}
}

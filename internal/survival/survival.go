// Package survival tells which faults a set-up survives. It asks the shipped
// machines (whatif) what they would do, and the lease rule how long that takes at
// most: there is no second model here either.
package survival

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/config/draft"
	"github.com/tasuki-ha/tasuki/internal/lease"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

// mostNodes is up to how many nodes all third things are compared; of a bigger
// cluster only the one that was chosen is asked about.
const mostNodes = 7

// Draft returns the cluster file that answers come to, and which faults it
// survives, beside what it would survive with the other third things. That can be
// told before all answers are good: it depends on how many nodes and networks
// there are, not on their names.
func Draft(a api.Answers, at time.Time) (api.Draft, error) {
	var d api.Draft
	var f *config.File
	d.Text, f, d.Refused = draft.Make(a)
	if f != nil {
		for _, w := range f.Warnings() {
			d.Warnings = append(d.Warnings, w.String())
		}
		for i := range f.Nodes[1:] {
			d.Join = append(d.Join, f.Nodes[1+i].Name)
		}
	}
	chosen := a.Third.Kind
	if chosen == "" && len(a.Nodes) != 2 {
		chosen = api.ThirdNone
	}
	for _, kind := range draft.Kinds(len(a.Nodes)) {
		if len(a.Nodes) == 0 || len(a.Nodes) > mostNodes && kind != chosen {
			continue
		}
		text, f := supposed(a, kind)
		if f == nil {
			continue
		}
		s, err := ask(text, f, kind, at)
		if err != nil {
			return d, err
		}
		s.Chosen = kind == chosen
		d.Setups = append(d.Setups, s)
	}
	return d, nil
}

// supposed returns the file with a third thing, which is made up where it is not
// the one that was answered, as everything is that was not answered well.
func supposed(a api.Answers, kind api.Third) (string, *config.File) {
	b := a
	if a.Third.Kind != kind {
		b.Third = made(kind, a.Nodes)
	}
	if b.Group == nil {
		b.Group = madeGroup(false)
	}
	if text, f, refused := draft.Make(b); refused == nil {
		return text, f
	}
	b = api.Answers{Cluster: "cluster", Group: madeGroup(b.Group.Mirror != nil && len(a.Nodes) > 1)}
	for i, n := range a.Nodes {
		b.Nodes = append(b.Nodes, madeNode(fmt.Sprintf("n%d", i+1), i+1, max(len(n.Addresses), 1), nil))
	}
	b.Third = made(kind, b.Nodes)
	text, f, _ := draft.Make(b)
	return text, f
}

// What is made up has addresses that are for documentation only.
var (
	made4 = netip.MustParseAddr("192.0.2.0")
	made6 = netip.MustParseAddr("2001:db8::")
)

// address returns the n-th address that is made up, of the family of another.
func address(n int, like string) string {
	if x, err := netip.ParseAddr(like); err == nil && x.Is6() {
		b := made6.As16()
		b[15] = byte(n)
		return netip.AddrFrom16(b).String()
	}
	b := made4.As4()
	b[3] = byte(n)
	return netip.AddrFrom4(b).String()
}

func madeNode(name string, n, networks int, like []string) api.NodeAnswer {
	out := api.NodeAnswer{Name: name}
	for i := range networks {
		family := ""
		if i < len(like) {
			family = like[i]
		}
		out.Addresses = append(out.Addresses, address(8*n+i, family)) // at most 8 networks
	}
	return out
}

const madePing, madeFloating = 250, 251

func made(kind api.Third, nodes []api.NodeAnswer) api.ThirdAnswer {
	t := api.ThirdAnswer{Kind: kind}
	switch kind {
	case api.ThirdPing:
		t.Targets = []string{address(madePing, "")}
	case api.ThirdFence:
		for _, n := range nodes {
			t.Fences = append(t.Fences, api.FenceAnswer{Node: n.Name, Agent: "fence_agent"})
		}
	case api.ThirdWitness, api.ThirdNode:
		var like []string
		for _, n := range nodes {
			if len(n.Addresses) > len(like) {
				like = n.Addresses
			}
		}
		name := "third"
		for slices.ContainsFunc(nodes, func(n api.NodeAnswer) bool { return n.Name == name }) {
			name += "-"
		}
		n := madeNode(name, len(nodes)%20+10, max(len(like), 1), like)
		t.Node = &n
	}
	return t
}

func madeGroup(mirror bool) *api.GroupAnswer {
	g := &api.GroupAnswer{Name: "group", Address: &api.AddressAnswer{Address: address(madeFloating, "")}}
	if mirror {
		g.Mirror = &api.MirrorAnswer{Data: "/dev/data", Meta: "/dev/meta", Mount: "/data"}
	}
	return g
}

// ask asks what becomes of the first group of a cluster in each fault.
func ask(text string, f *config.File, kind api.Third, at time.Time) (api.Setup, error) {
	w := lease.Worst(f)
	s := api.Setup{Third: kind, Bounds: w.Sentences()}
	snap, err := whatif.Fresh(text, at)
	if err != nil {
		return s, err
	}
	for _, q := range scenes(f, kind) {
		q.ask.Snapshot = snap
		r, err := whatif.Ask(q.ask)
		if err != nil {
			return s, err
		}
		s.Survives, s.Why = r.Before.Survives, r.Before.Why
		s.Faults = append(s.Faults, outcome(q.fault, &r, w))
	}
	s.Faults = append(s.Faults, paused(w))
	return s, nil
}

// outcome tells what became of the group. A time is the worst case of the file,
// not the one of the simulation, in which nothing happens by chance.
func outcome(fault api.Fault, r *api.Simulation, w lease.WorstCase) api.Outcome {
	g, o := &r.Groups[0], api.Outcome{Fault: fault}
	switch {
	case len(g.Both) > 0:
		o.Is = api.OutcomeBoth
	case !g.Served:
		o.Is = api.OutcomeStops
	case g.Before == g.After && g.Outage == 0:
		o.Is = api.OutcomeUntouched
	case g.Before == g.After:
		o.Is, o.Within = api.OutcomePause, takes(w)
	default:
		o.Is, o.Within = api.OutcomeTakeover, takes(w)
	}
	return o
}

// takes is when a takeover begins at the latest, once its node is unheard.
func takes(w lease.WorstCase) time.Duration { return w.Latest + w.Fencing }

// paused is the one fault that cannot be simulated, because a machine that stands
// still has no say: the lease rule says what it comes to.
func paused(w lease.WorstCase) api.Outcome {
	o := api.Outcome{Fault: api.FaultPaused, Is: api.OutcomeRisk, Within: takes(w)}
	switch {
	case w.Earliest == 0:
		o.Is = api.OutcomeStops
	case w.Confirmed:
		o.Is = api.OutcomeTakeover
	}
	return o
}

// scene is a fault, as a question.
type scene struct {
	fault api.Fault
	ask   whatif.Question
}

// scenes returns the faults that a cluster can have.
func scenes(f *config.File, kind api.Third) []scene {
	group := &f.Groups[0]
	owner := group.Nodes[0]
	var others []cluster.NodeName // that can run groups, but for a third one
	all := make([]cluster.NodeName, len(f.Nodes))
	third := cluster.NodeName("")
	for i := range f.Nodes {
		n := f.Nodes[i].Name
		all[i] = n
		switch last := i == len(f.Nodes)-1; {
		case last && (kind == api.ThirdWitness || kind == api.ThirdNode):
			third = n
		case n != owner:
			others = append(others, n)
		}
	}
	out := []scene{{api.FaultOwner, whatif.Question{Changes: []whatif.Change{{Kill: owner}}}}}
	if len(all) == 1 {
		return out
	}
	add := func(fault api.Fault, q whatif.Question, changes ...whatif.Change) {
		q.Changes = changes
		out = append(out, scene{fault, q})
	}
	broken := whatif.Question{Mute: mute(f, all), Fate: unforced(all)}
	add(api.FaultOther, whatif.Question{}, whatif.Change{Kill: others[0]})
	network := whatif.Question{}
	if len(f.Node(owner).Addresses) == 1 {
		network = broken // all hangs on the only switch
	}
	add(api.FaultNetwork, network, apart(all, all, 0)...)
	link := apart([]cluster.NodeName{owner}, others, whatif.AllPaths)
	add(api.FaultLink, whatif.Question{}, link...)
	alone := whatif.Question{Mute: mute(f, []cluster.NodeName{owner}), Fate: unforced(others)}
	add(api.FaultCutOff, alone, apart([]cluster.NodeName{owner}, all, whatif.AllPaths)...)
	switch {
	case third != "":
		add(api.FaultThird, whatif.Question{}, whatif.Change{Kill: third})
		add(api.FaultThirdLink, whatif.Question{}, append(link, whatif.Change{Kill: third})...)
	case kind == api.ThirdPing, kind == api.ThirdFence:
		add(api.FaultThird, broken)
		add(api.FaultThirdLink, broken, link...)
	}
	return out
}

// unforced is that no device forces these nodes off.
func unforced(nodes []cluster.NodeName) map[whatif.Step]whatif.Suppose {
	out := map[whatif.Step]whatif.Suppose{}
	for _, n := range nodes {
		out[whatif.FenceOf(n)] = whatif.Suppose{Fails: -1}
	}
	return out
}

// mute is that no ping target answers on these nodes.
func mute(f *config.File, nodes []cluster.NodeName) map[cluster.NodeName][]netip.Addr {
	out := map[cluster.NodeName][]netip.Addr{}
	for _, x := range f.Arbitration {
		for _, n := range nodes {
			out[n] = append(out[n], x.Targets...)
		}
	}
	return out
}

// apart cuts nodes from others in both directions.
func apart(nodes, others []cluster.NodeName, path int) []whatif.Change {
	var out []whatif.Change
	for _, a := range nodes {
		for _, b := range others {
			if a == b {
				continue
			}
			out = append(out, whatif.Change{Cut: &whatif.Cut{From: a, To: b, Path: path}})
			if !slices.Contains(nodes, b) {
				out = append(out, whatif.Change{Cut: &whatif.Cut{From: b, To: a, Path: path}})
			}
		}
	}
	return out
}

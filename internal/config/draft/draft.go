package draft

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Name is what a draft is called where its places are told.
const Name = "cluster file"

// Make returns the cluster file that answers come to, as text and as it is
// understood; or what is wrong with the answers, all of it at once.
func Make(a api.Answers) (string, *config.File, []api.AnswerProblem) {
	m := &maker{w: newWriter(), a: a, devices: map[string]string{}}
	m.ask()
	m.file()
	text := m.w.text.String()
	f, errs := config.Parse(Name, []byte(text))
	for _, e := range errs {
		m.refuse(m.w.at(e.Line, e.Column), e.What, e.Hint)
	}
	if len(m.refused) > 0 {
		return "", nil, m.refused
	}
	return text, f, nil
}

// maker makes one draft.
type maker struct {
	w       *writer
	a       api.Answers
	refused []api.AnswerProblem
	devices map[string]string // fence devices by what they are
	order   []device
}

// device is a fence device of the file.
type device struct {
	name, field string
	is          api.FenceAnswer
}

func (m *maker) refuse(field, what, hint string) {
	p := api.AnswerProblem{Field: field, What: what, Hint: hint}
	if !slices.Contains(m.refused, p) {
		m.refused = append(m.refused, p)
	}
}

// Kinds returns the third things that make sense for so many nodes.
func Kinds(nodes int) []api.Third {
	switch {
	case nodes < 2:
		return []api.Third{api.ThirdNone}
	case nodes == 2:
		return []api.Third{api.ThirdNone, api.ThirdPing, api.ThirdFence, api.ThirdWitness, api.ThirdNode}
	}
	return []api.Third{api.ThirdNone, api.ThirdFence, api.ThirdWitness, api.ThirdNode}
}

// ask refuses answers from which no file can be made that the parser would
// understand as it was meant.
func (m *maker) ask() {
	n, third := len(m.a.Nodes), &m.a.Third
	if n == 0 {
		m.refuse("nodes", "no node is named", "name the machines that are to run groups, with their addresses")
	}
	for i, x := range m.a.Nodes {
		if len(x.Addresses) == 0 {
			m.refuse(fmt.Sprintf("nodes[%d].addresses", i), fmt.Sprintf("node %s has no address", x.Name), "write one address for each network, the interconnect first")
		}
	}
	if third.Kind == "" && n > 2 {
		third.Kind = api.ThirdNone // a majority decides
	}
	switch offered := Kinds(n); {
	case n == 0 || n == 1 && third.Kind == "":
	case third.Kind == "":
		m.refuse("third.kind", "two nodes alone cannot tell which of them is cut off", "choose a witness, a third node, a fence, ping targets, or none")
	case !slices.Contains(offered, third.Kind):
		m.refuse("third.kind", fmt.Sprintf("%q is no third thing for %s", third.Kind, nodes(n)), "offered: "+joined(offered))
		third.Kind = ""
	}
	switch third.Kind {
	case api.ThirdWitness, api.ThirdNode:
		if third.Node == nil {
			m.refuse("third.node", "the third machine has no name and no address", "name any machine that the nodes reach over their networks")
			third.Kind = ""
		}
	case api.ThirdPing:
		if len(third.Targets) == 0 {
			m.refuse("third.targets", "no address is named that is to answer", "name a router or a switch that both nodes reach")
		}
	case api.ThirdFence:
		m.askFences()
	}
	m.askGroup()
}

func (m *maker) askFences() {
	for _, n := range m.a.Nodes {
		if !slices.ContainsFunc(m.a.Third.Fences, func(f api.FenceAnswer) bool { return f.Node == n.Name }) {
			m.refuse("third.fences", fmt.Sprintf("nothing can force node %s off", n.Name), "name an agent for each node, for example fence_ipmilan")
		}
	}
	for i, f := range m.a.Third.Fences {
		if !slices.ContainsFunc(m.a.Nodes, func(n api.NodeAnswer) bool { return f.Node == n.Name }) {
			m.refuse(fmt.Sprintf("third.fences[%d].node", i), fmt.Sprintf("there is no node %q", f.Node), "name one of the nodes")
		}
	}
}

func (m *maker) askGroup() {
	g := m.a.Group
	if g == nil {
		return
	}
	if g.Address == nil && g.Mirror == nil && g.Program == nil {
		m.refuse("group", "the group is empty", "give it a floating IP, a mirror disk or a program")
	}
	if g.Mirror != nil && len(m.a.Nodes) < 2 {
		m.refuse("group.mirror", "a mirror disk has a copy on each of two nodes", "name a second node")
	}
	if g.Address != nil && g.Address.Prefix < 0 {
		m.refuse("group.address.prefix", "a prefix length is 1 to 128", "leave it out: then it is that of the interface whose subnet holds the address")
	}
}

// nodes is a number of nodes as people say it.
func nodes(n int) string {
	words := []string{"no node", "one node", "two nodes", "three nodes"}
	if n < len(words) {
		return words[n]
	}
	return strconv.Itoa(n) + " nodes"
}

func joined(list []api.Third) string {
	texts := make([]string, len(list))
	for i, t := range list {
		texts[i] = string(t)
	}
	return strings.Join(texts, ", ")
}

// file writes the whole file.
func (m *maker) file() {
	n := len(m.a.Nodes)
	about := map[api.Third]string{
		api.ThirdPing: ", and a ping target that decides between them", api.ThirdFence: ", of which each can force the others off",
		api.ThirdWitness: " and a witness", api.ThirdNode: " and one more",
	}[m.a.Third.Kind]
	m.w.raw(fmt.Sprintf("# %s%s. Every key is in docs/cluster-file.md;\n# tasuki config check FILE says what this file comes to.\n", capital(nodes(n)), about))
	m.w.pair("", "cluster", "cluster", m.a.Cluster)
	m.nodes()
	m.third()
	if m.a.Group != nil {
		m.group(m.a.Group)
	}
	m.monitors()
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (m *maker) nodes() {
	m.w.raw("\n# In the order of preference. The first addresses of all nodes are one network, the\n# second ones another; heartbeats go over all of them.\nnodes:\n")
	for i, n := range m.a.Nodes {
		m.node(fmt.Sprintf("nodes[%d]", i), n, "")
	}
	if t := m.a.Third; t.Kind == api.ThirdNode {
		m.node("third.node", *t.Node, "")
	} else if t.Kind == api.ThirdWitness {
		m.node("third.node", *t.Node, ", witness: true")
	}
}

func (m *maker) node(field string, n api.NodeAnswer, more string) {
	m.w.raw("  ")
	m.w.answer(field+".name", n.Name)
	m.w.raw(": {addresses: ")
	m.w.list(func(i int) string { return fmt.Sprintf("%s.addresses[%d]", field, i) }, n.Addresses)
	m.w.raw(more)
	if m.a.Third.Kind == api.ThirdFence {
		m.levels(n.Name)
	}
	m.w.raw("}")
	if more != "" {
		m.w.raw(" # a vote, and never a group")
	}
	m.w.raw("\n")
}

// levels writes how a node is forced off: each answer about it is a level. The
// node that is preferred wins where both of two try at the same moment.
func (m *maker) levels(node string) {
	first := true
	for i, f := range m.a.Third.Fences {
		if f.Node != node {
			continue
		}
		if first {
			m.w.raw(", fence: [")
		} else {
			m.w.raw(", ")
		}
		m.w.raw("[{device: ")
		m.w.answer(fmt.Sprintf("third.fences[%d].agent", i), m.device(i, f))
		if f.Plug != "" {
			m.w.raw(", plug: ")
			m.w.answer(fmt.Sprintf("third.fences[%d].plug", i), f.Plug)
		}
		if first && len(m.a.Nodes) == 2 && node == m.a.Nodes[0].Name {
			m.w.raw(", delay: 5s")
		}
		m.w.raw("}]")
		first = false
	}
	if !first {
		m.w.raw("]")
	}
}

// device returns the name of a fence device, which is one for all nodes that it
// is the same for.
func (m *maker) device(i int, f api.FenceAnswer) string {
	is := f.Agent
	for _, o := range slices.Sorted(maps.Keys(f.Options)) {
		is += "\n" + o + "=" + f.Options[o]
	}
	name, known := m.devices[is]
	if !known {
		name = "fence-" + f.Node
		if slices.ContainsFunc(m.order, func(d device) bool { return d.name == name }) {
			name = fmt.Sprintf("fence-%s-%d", f.Node, len(m.order)+1)
		}
		m.devices[is] = name
		m.order = append(m.order, device{name, fmt.Sprintf("third.fences[%d]", i), f})
	}
	return name
}

func (m *maker) third() {
	switch t := m.a.Third; {
	case t.Kind == api.ThirdNone && len(m.a.Nodes) == 2:
		m.w.raw("\n# Two nodes and nothing else: when they lose each other, both go on.\n")
		m.w.raw("arbitration: [")
		m.w.answer("third.kind", "none")
		m.w.raw("]\n")
	case t.Kind == api.ThirdPing:
		m.w.raw("\n# When the nodes lose each other, who reaches a target goes on, who reaches none stops.\n")
		m.w.raw("arbitration: [{ping: {targets: ")
		m.w.list(func(i int) string { return fmt.Sprintf("third.targets[%d]", i) }, t.Targets)
		m.w.raw("}}]\n")
	case t.Kind == api.ThirdFence:
		m.fences()
	}
}

func (m *maker) fences() {
	if len(m.a.Nodes) == 2 {
		m.w.raw("\n# When the nodes lose each other, who has forced the other off goes on. The node with\n# the delay survives when both try at the same moment.\narbitration: [")
		m.w.answer("third.kind", "fence")
		m.w.raw("]\n")
	} else {
		m.w.raw("\n# The groups of a silent node start elsewhere only when it was forced off.\ntakeover: ")
		m.w.answer("third.kind", "fence")
		m.w.raw("\n")
	}
	if len(m.order) == 0 {
		return
	}
	m.w.raw("fences: # try them: tasuki fence check\n")
	for _, d := range m.order {
		m.w.raw("  ")
		m.w.answer(d.field+".node", d.name)
		m.w.raw(": {agent: ")
		m.w.answer(d.field+".agent", d.is.Agent)
		for i, o := range slices.Sorted(maps.Keys(d.is.Options)) {
			if i == 0 {
				m.w.raw(", options: {")
			} else {
				m.w.raw(", ")
			}
			field := d.field + ".options." + o
			m.w.answer(field, o)
			m.w.raw(": ")
			m.w.answer(field, d.is.Options[o])
		}
		if len(d.is.Options) > 0 {
			m.w.raw("}")
		}
		m.w.raw("}\n")
	}
}

func (m *maker) group(g *api.GroupAnswer) {
	m.w.raw("\n# What fails over as one. Resources start in the order of after, and stop in reverse.\ngroups:\n  ")
	m.w.answer("group.name", g.Name)
	m.w.raw(":\n")
	if workers := m.workers(); g.Mirror != nil && len(workers) > 2 {
		m.w.raw("    nodes: ") // a mirror disk has two copies
		m.w.list(func(i int) string { return fmt.Sprintf("nodes[%d].name", i) }, workers[:2])
		m.w.raw("\n")
	}
	if g.Address == nil && g.Mirror == nil && g.Program == nil {
		m.w.raw("    resources: {}\n")
		return
	}
	m.w.raw("    resources:\n")
	var after []string
	resource := func(suffix, kind string) {
		m.w.raw("      ")
		m.w.answer("group.name", g.Name+suffix)
		m.w.raw(":\n        kind: " + kind + "\n")
	}
	if x := g.Address; x != nil {
		resource("-ip", "floating-ip")
		after = append(after, g.Name+"-ip")
		m.address(x)
	}
	if x := g.Mirror; x != nil {
		resource("-disk", "mirror-disk")
		after = append(after, g.Name+"-disk")
		m.mirror(x)
	}
	if x := g.Program; x != nil {
		resource("-app", "exec")
		m.program(x, after)
	}
}

// workers are the names of all nodes that can run groups.
func (m *maker) workers() []string {
	var out []string
	for _, n := range m.a.Nodes {
		out = append(out, n.Name)
	}
	if m.a.Third.Kind == api.ThirdNode {
		out = append(out, m.a.Third.Node.Name)
	}
	return out
}

const inResource = "        "

func (m *maker) address(x *api.AddressAnswer) {
	m.w.pair(inResource, "address", "group.address.address", x.Address)
	if x.Prefix > 0 {
		m.w.pair(inResource, "prefix", "group.address.prefix", strconv.Itoa(x.Prefix))
	}
	if x.Device != "" {
		m.w.pair(inResource, "device", "group.address.device", x.Device)
	}
}

func (m *maker) mirror(x *api.MirrorAnswer) {
	m.w.pair(inResource, "data", "group.mirror.data", x.Data)
	m.w.pair(inResource, "meta", "group.mirror.meta", x.Meta)
	m.w.pair(inResource, "mount", "group.mirror.mount", x.Mount)
	m.w.pair(inResource, "fs", "group.mirror.fs", cmp.Or(x.FS, "ext4"))
	m.w.raw(inResource + "mkfs: true # at the first start, and only where there is no file system\n")
}

func (m *maker) program(x *api.ProgramAnswer, after []string) {
	if len(after) > 0 {
		m.w.raw(inResource + "after: ")
		m.w.list(func(int) string { return "group.name" }, after)
		m.w.raw("\n")
	}
	if x.Stop == "" {
		m.w.raw(inResource + "mode: async # active while the program lives\n")
	}
	m.w.pair(inResource, "start", "group.program.start", x.Start)
	if x.Stop != "" {
		m.w.pair(inResource, "stop", "group.program.stop", x.Stop)
	}
}

func (m *maker) monitors() {
	m.w.raw("\nmonitors:\n  userw: {kind: userspace, method: keepalive} # resets a node whose daemon stands still\n")
	g := m.a.Group
	if g == nil {
		return
	}
	if x := g.Address; x != nil && x.Device != "" {
		m.w.raw("  linkw: # the group leaves a node whose cable is pulled\n    kind: nic-link\n")
		m.w.pair("    ", "device", "group.address.device", x.Device)
		m.w.raw("    when: active\n    target: {group: ")
		m.w.answer("group.name", g.Name)
		m.w.raw("}\n    recovery: {restarts: 0, failovers: 1, final_action: none}\n")
	}
	if g.Mirror != nil {
		for _, of := range [][3]string{{"mdw", "mirror", "the copy on each node"}, {"mdnw", "mirror-connect", "the connection between them"}} {
			m.w.raw("  " + of[0] + ": {kind: " + of[1] + ", resource: ")
			m.w.answer("group.name", g.Name+"-disk")
			m.w.raw("} # " + of[2] + "\n")
		}
	}
}

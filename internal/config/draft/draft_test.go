package draft_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/config/draft"
)

func nodes(n, networks int) []api.NodeAnswer {
	var out []api.NodeAnswer
	for i := range n {
		x := api.NodeAnswer{Name: fmt.Sprintf("n%d", i+1)}
		for k := range networks {
			x.Addresses = append(x.Addresses, []string{fmt.Sprintf("192.168.10.%d", i+1), fmt.Sprintf("fd00::%d", i+1), fmt.Sprintf("10.0.0.%d", i+1)}[k])
		}
		out = append(out, x)
	}
	return out
}

// thirds are answers about the third thing, by kind, for so many nodes.
func thirds(n, networks int) []api.ThirdAnswer {
	third := nodes(n+1, networks)[n]
	var fences []api.FenceAnswer
	for i := range n {
		fences = append(fences, api.FenceAnswer{Node: fmt.Sprintf("n%d", i+1), Agent: "fence_ipmilan",
			Options: map[string]string{"ip": fmt.Sprintf("10.1.0.%d", i+1), "username": "tasuki", "password_script": "/etc/tasuki/bmc password"}})
	}
	pdu := []api.FenceAnswer{}
	for i, f := range fences {
		pdu = append(pdu, f, api.FenceAnswer{Node: f.Node, Agent: "fence_apc_snmp", Plug: fmt.Sprint(i + 3), Options: map[string]string{"ip": "10.1.0.99"}})
	}
	return []api.ThirdAnswer{
		{Kind: api.ThirdNone},
		{Kind: api.ThirdPing, Targets: []string{"10.0.0.254", "fd00::fe"}},
		{Kind: api.ThirdFence, Fences: fences},
		{Kind: api.ThirdFence, Fences: pdu},
		{Kind: api.ThirdWitness, Node: &third},
		{Kind: api.ThirdNode, Node: &third},
	}
}

func groups() []*api.GroupAnswer {
	address := &api.AddressAnswer{Address: "10.0.0.100"}
	exact := &api.AddressAnswer{Address: "fd00::100", Prefix: 64, Device: "eth1"}
	mirror := &api.MirrorAnswer{Data: "/dev/sda4", Meta: "/dev/sda3", Mount: "/data"}
	return []*api.GroupAnswer{
		nil,
		{Name: "web", Address: address},
		{Name: "web", Address: exact, Program: &api.ProgramAnswer{Start: "/usr/local/sbin/web"}},
		{Name: "web", Mirror: mirror},
		{Name: "web", Address: exact, Mirror: mirror, Program: &api.ProgramAnswer{Start: "start.sh", Stop: "stop.sh"}},
	}
}

// Whatever good answers are put together: the parser takes the file, nothing in it
// is risky beyond what was chosen, and the file gives the answers back.
func TestGoodAnswersMakeAGoodFile(t *testing.T) {
	for n := 1; n <= 4; n++ {
		for networks := 1; networks <= 3; networks++ {
			for _, third := range thirds(n, networks) {
				if !slices.Contains(draft.Kinds(n), third.Kind) {
					continue
				}
				for _, g := range groups() {
					if n < 2 && g != nil && g.Mirror != nil {
						continue
					}
					a := api.Answers{Cluster: "web", Nodes: nodes(n, networks), Third: third, Group: g}
					makesGoodFile(t, a)
				}
			}
		}
	}
}

func makesGoodFile(t *testing.T, a api.Answers) {
	t.Helper()
	text, f, refused := draft.Make(a)
	if refused != nil {
		t.Errorf("%+v: %v", a, refused)
		return
	}
	if _, errs := config.Parse("f", []byte(text)); errs != nil {
		t.Errorf("%v in\n%s", errs, text)
	}
	for _, w := range f.Warnings() {
		if !expected(a, w.What) {
			t.Errorf("%s in\n%s", w, text)
		}
	}
	if strings.Contains(text, "\t") || !strings.HasPrefix(text, "# ") {
		t.Error(text)
	}
	back := draft.Of(f)
	if a.Third.Kind == api.ThirdFence && !reflect.DeepEqual(back.Third.Fences, a.Third.Fences) {
		t.Errorf("fences %v from\n%s", back.Third.Fences, text)
	}
	again, _, refused := draft.Make(back)
	if refused != nil {
		t.Errorf("%v from\n%s", refused, text)
	}
	g, _ := config.Parse("f", []byte(again))
	if d := config.Diff(f, g); len(d) > 0 {
		t.Errorf("%v between\n%s\nand\n%s", d, text, again)
	}
}

// expected says whether a set-up is warned of as it was chosen.
func expected(a api.Answers, what string) bool {
	for _, w := range []struct {
		is   bool
		text string
	}{
		{len(a.Nodes[0].Addresses) == 1, "the nodes have one network"},
		{a.Third.Kind == api.ThirdNone, "arbitration none"},
		{a.Third.Kind == api.ThirdPing, "arbitration ping"},
		{a.Third.Kind != api.ThirdWitness && a.Third.Kind != api.ThirdNode && len(a.Nodes) == 4, "votes are even"},
		{len(a.Nodes) == 3, "votes are even"},
	} {
		if w.is && strings.Contains(what, w.text) {
			return true
		}
	}
	return false
}

// A word that YAML has another meaning for is a name like any other.
func TestWordsOfYAML(t *testing.T) {
	for _, word := range []string{"null", "Null", "true", "no", "10", "1e3", "0x10", "2001-01-01", ".inf"} {
		a := good()
		a.Nodes[0].Name = strings.TrimPrefix(word, ".")
		a.Third = api.ThirdAnswer{Kind: api.ThirdFence, Fences: []api.FenceAnswer{
			{Node: a.Nodes[0].Name, Agent: "fence_a", Options: map[string]string{"ip": word}}, {Node: "n2", Agent: "fence_a"}}}
		text, f, refused := draft.Make(a)
		if refused != nil {
			t.Errorf("%s: %v", word, refused)
		} else if got := draft.Of(f); got.Nodes[0].Name != a.Nodes[0].Name || got.Third.Fences[0].Options["ip"] != word {
			t.Errorf("%s: %+v from\n%s", word, got, text)
		}
	}
}

// The answers of examples/minimal.yaml make a file as people write it.
func TestText(t *testing.T) {
	a := api.Answers{
		Cluster: "web", Nodes: []api.NodeAnswer{{Name: "alpha", Addresses: []string{"192.168.10.1", "10.0.0.1"}}, {Name: "beta", Addresses: []string{"192.168.10.2", "10.0.0.2"}}},
		Third: api.ThirdAnswer{Kind: api.ThirdWitness, Node: &api.NodeAnswer{Name: "gamma", Addresses: []string{"192.168.10.3", "10.0.0.3"}}},
		Group: &api.GroupAnswer{Name: "web", Address: &api.AddressAnswer{Address: "10.0.0.10", Prefix: 24, Device: "eth1"},
			Program: &api.ProgramAnswer{Start: "/usr/local/sbin/web-server"}},
	}
	const want = `# Two nodes and a witness. Every key is in docs/cluster-file.md;
# tasuki config check FILE says what this file comes to.
cluster: web

# In the order of preference. The first addresses of all nodes are one network, the
# second ones another; heartbeats go over all of them.
nodes:
  alpha: {addresses: [192.168.10.1, 10.0.0.1]}
  beta: {addresses: [192.168.10.2, 10.0.0.2]}
  gamma: {addresses: [192.168.10.3, 10.0.0.3], witness: true} # a vote, and never a group

# What fails over as one. Resources start in the order of after, and stop in reverse.
groups:
  web:
    resources:
      web-ip:
        kind: floating-ip
        address: 10.0.0.10
        prefix: 24
        device: eth1
      web-app:
        kind: exec
        after: [web-ip]
        mode: async # active while the program lives
        start: /usr/local/sbin/web-server

monitors:
  userw: {kind: userspace, method: keepalive} # resets a node whose daemon stands still
  linkw: # the group leaves a node whose cable is pulled
    kind: nic-link
    device: eth1
    when: active
    target: {group: web}
    recovery: {restarts: 0, failovers: 1, final_action: none}
`
	if text, _, refused := draft.Make(a); text != want {
		t.Errorf("%v\n%s", refused, text)
	}
}

// Each answer that is refused is named, with what to do instead.
func TestRefusedAnswersAreNamed(t *testing.T) {
	for _, tt := range defects() {
		a := good()
		tt.change(&a)
		before := fmt.Sprintf("%+v", a)
		text, f, refused := draft.Make(a)
		at := slices.IndexFunc(refused, func(p api.AnswerProblem) bool { return p.Field == tt.field && strings.Contains(p.What, tt.what) })
		if at < 0 || text != "" || f != nil {
			t.Errorf("%s (%s): %+v", tt.field, tt.what, refused)
		} else if refused[at].Hint == "" {
			t.Errorf("%s: no hint: %s", tt.field, refused[at].What)
		}
		if after := fmt.Sprintf("%+v", a); after != before {
			t.Errorf("the answers were changed from %s to %s", before, after)
		}
	}
}

// good are answers of which nothing is refused.
func good() api.Answers {
	witness := api.ThirdAnswer{Kind: api.ThirdWitness, Node: &api.NodeAnswer{Name: "w", Addresses: []string{"10.9.0.9"}}}
	return api.Answers{Cluster: "web", Nodes: nodes(2, 1), Third: witness, Group: &api.GroupAnswer{Name: "web", Address: &api.AddressAnswer{Address: "10.0.0.100"}}}
}

// defect is one thing that is wrong with the answers, and where that is told.
type defect struct {
	field, what string
	change      func(*api.Answers)
}

func defects() []defect {
	return []defect{
		{"cluster", `"" is no name`, func(a *api.Answers) { a.Cluster = "" }},
		{"cluster", "is no name", func(a *api.Answers) { a.Cluster = "web\ntakeover: fence" }},
		{"nodes", "no node is named", func(a *api.Answers) { a.Nodes, a.Third, a.Group = nil, api.ThirdAnswer{}, nil }},
		{"nodes[1].name", `"b c" is no name`, func(a *api.Answers) { a.Nodes[1].Name = "b c" }},
		{"nodes[1].name", `"n1"`, func(a *api.Answers) { a.Nodes[1].Name = "n1" }},
		{"nodes[0].addresses", "no address", func(a *api.Answers) { a.Nodes[0].Addresses = nil }},
		{"nodes[1].addresses[0]", "10.0.0.256", func(a *api.Answers) { a.Nodes[1].Addresses[0] = "10.0.0.256" }},
		{"nodes[1].addresses[0]", "it is the address of node n1", func(a *api.Answers) { a.Nodes[1].Addresses[0] = "192.168.10.1" }},
		{"nodes[1].addresses[0]", `"x"`, func(a *api.Answers) { a.Nodes[1] = api.NodeAnswer{Name: "bééé", Addresses: []string{"x"}} }},
		{"nodes[1].addresses[0]", "different families", func(a *api.Answers) { a.Nodes[1].Addresses[0] = "fd00::2" }},
		{"third.kind", "two nodes alone", func(a *api.Answers) { a.Third = api.ThirdAnswer{} }},
		{"third.kind", `"quorum" is no third thing`, func(a *api.Answers) { a.Third.Kind = "quorum" }},
		{"third.kind", `"ping" is no third thing for three nodes`, func(a *api.Answers) {
			a.Nodes = nodes(3, 1)
			a.Third = api.ThirdAnswer{Kind: api.ThirdPing, Targets: []string{"10.0.0.254"}}
		}},
		{"third.node", "no name", func(a *api.Answers) { a.Third.Node = nil }},
		{"third.node.addresses[0]", "it is the address of node n1", func(a *api.Answers) { a.Third.Node = &api.NodeAnswer{Name: "w", Addresses: []string{"192.168.10.1"}} }},
		{"third.targets", "no address", func(a *api.Answers) { a.Third = api.ThirdAnswer{Kind: api.ThirdPing} }},
		{"third.targets[1]", "router", func(a *api.Answers) {
			a.Third = api.ThirdAnswer{Kind: api.ThirdPing, Targets: []string{"10.0.0.254", "router"}}
		}},
		{"third.targets[0]", "is node n2", func(a *api.Answers) {
			a.Third = api.ThirdAnswer{Kind: api.ThirdPing, Targets: []string{"192.168.10.2"}}
		}},
		{"third.fences", "nothing can force node n2 off", func(a *api.Answers) {
			a.Third = api.ThirdAnswer{Kind: api.ThirdFence, Fences: []api.FenceAnswer{{Node: "n1", Agent: "fence_ipmilan"}}}
		}},
		{"third.fences[1].agent", "/usr/sbin/fence_ipmilan", func(a *api.Answers) {
			a.Third = api.ThirdAnswer{Kind: api.ThirdFence, Fences: []api.FenceAnswer{{Node: "n1", Agent: "fence_ipmilan"}, {Node: "n2", Agent: "/usr/sbin/fence_ipmilan"}}}
		}},
		{"third.fences[0].options.action", "is not written here", func(a *api.Answers) {
			a.Third = api.ThirdAnswer{Kind: api.ThirdFence, Fences: []api.FenceAnswer{{Node: "n1", Agent: "fence_ipmilan", Options: map[string]string{"action": "on"}}, {Node: "n2", Agent: "fence_ipmilan"}}}
		}},
		{"third.fences[2].node", `no node "n3"`, func(a *api.Answers) {
			a.Third = api.ThirdAnswer{Kind: api.ThirdFence, Fences: []api.FenceAnswer{{Node: "n1", Agent: "fence_a"}, {Node: "n2", Agent: "fence_a"}, {Node: "n3", Agent: "fence_a"}}}
		}},
		{"group", "the group is empty", func(a *api.Answers) { a.Group = &api.GroupAnswer{Name: "web"} }},
		{"group.name", `"" is no name`, func(a *api.Answers) { a.Group.Name = "" }},
		{"group.address.address", "is the address of node n1", func(a *api.Answers) { a.Group.Address.Address = "192.168.10.1" }},
		{"group.address.prefix", "33", func(a *api.Answers) { a.Group.Address.Prefix = 33 }},
		{"group.address.device", "eth0 extra", func(a *api.Answers) { a.Group.Address.Device = "eth0 extra" }},
		{"group.mirror", "two nodes", func(a *api.Answers) {
			a.Nodes, a.Third = nodes(1, 1), api.ThirdAnswer{}
			a.Group.Mirror = &api.MirrorAnswer{Data: "/dev/a", Meta: "/dev/b", Mount: "/data"}
		}},
		{"group.mirror.data", `"sda4"`, func(a *api.Answers) { a.Group.Mirror = &api.MirrorAnswer{Data: "sda4", Meta: "/dev/b", Mount: "/data"} }},
		{"group.mirror.fs", `"btrfs"`, func(a *api.Answers) {
			a.Group.Mirror = &api.MirrorAnswer{Data: "/dev/a", Meta: "/dev/b", Mount: "/data", FS: "btrfs"}
		}},
		{"group.mirror.mount", "/usr is the system's", func(a *api.Answers) {
			a.Group.Mirror = &api.MirrorAnswer{Data: "/dev/a", Meta: "/dev/b", Mount: "/usr"}
		}},
		{"group.program.start", `"" is no path`, func(a *api.Answers) { a.Group.Program = &api.ProgramAnswer{} }},
	}
}

// Whatever is typed, it stays one value: nothing of it becomes another key.
func FuzzNothingEscapes(f *testing.F) {
	f.Add("web", "n1", "10.0.0.1", "eth0")
	f.Add("a: b", "{}", "\n", "null")
	f.Add("\"", "\\", "#", "\x00\x7f\u2028")
	f.Fuzz(func(t *testing.T, cluster, node, address, option string) {
		option = strings.ToValidUTF8(option, "?") // as JSON has it
		a := api.Answers{Cluster: cluster, Nodes: []api.NodeAnswer{{Name: node, Addresses: []string{address}}, {Name: "n2", Addresses: []string{"10.0.0.2"}}},
			Third: api.ThirdAnswer{Kind: api.ThirdFence, Fences: []api.FenceAnswer{
				{Node: node, Agent: "fence_a", Plug: option, Options: map[string]string{"ip": option}}, {Node: "n2", Agent: "fence_a"}}}}
		text, file, refused := draft.Make(a)
		for _, p := range refused {
			if p.Field == "" || strings.Contains(p.What, "YAML") {
				t.Errorf("%+v: %+v", a, p)
			}
		}
		if file == nil {
			return
		}
		got := draft.Of(file)
		if got.Cluster != cluster || got.Nodes[0].Name != node || option != "" && !reflect.DeepEqual(got.Third.Fences[0].Options, a.Third.Fences[0].Options) {
			t.Errorf("%+v came back as %+v from\n%s", a, got, text)
		}
	})
}

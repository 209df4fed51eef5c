package whatif_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

const three = `cluster: c
nodes:
  n1: {addresses: [10.0.1.1, 10.0.2.1]}
  n2: {addresses: [10.0.1.2, 10.0.2.2]}
  n3: {addresses: [10.0.1.3, 10.0.2.3]}
groups:
  web:
    nodes: [n1, n2]
    resources:
      vip: {kind: floating-ip, address: 10.0.2.50}
      www: {kind: exec, after: [vip], start: start.sh, stop: stop.sh, stop_timeout: 20s, activation: {retries: 0, failovers: 1, final_action: none}}
monitors:
  link: {kind: nic-link, device: eth1, nodes: [n1, n2], debounce: 20ms, target: {group: web}, recovery: {restarts: 0, failovers: 1, final_action: none}}
`

// of asks about a new cluster.
func of(t *testing.T, file string, q whatif.Question) api.Simulation {
	t.Helper()
	var err error
	if q.Snapshot, err = whatif.Fresh(file, time.Unix(1_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	r, err := whatif.Ask(q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func kill(n cluster.NodeName) whatif.Change { return whatif.Change{Kill: n} }

func move(g cluster.GroupName, to cluster.NodeName) whatif.Change {
	return whatif.Change{Ask: &admission.Ask{Kind: admission.GroupMove, Group: g, To: to}}
}

func codes(r api.Simulation) (out []string) {
	for _, s := range r.Steps {
		out = append(out, s.Code)
	}
	return out
}

// step returns the first line of that code.
func step(t *testing.T, r api.Simulation, code string) api.SimStep {
	t.Helper()
	i := slices.Index(codes(r), code)
	if i < 0 {
		t.Fatalf("there is no %s in %v", code, codes(r))
	}
	return r.Steps[i]
}

func TestKill(t *testing.T) {
	r := of(t, three, whatif.Question{Changes: []whatif.Change{kill("n1")}})
	g := r.Group("web")
	if !r.Complete || r.Outage() || !g.Served || g.Before != "n1" || g.After != "n2" || len(g.Spare) != 0 {
		t.Errorf("%+v", r)
	}
	if g.Outage < 700*time.Millisecond || g.Outage > 1300*time.Millisecond {
		t.Errorf("active nowhere for %s", g.Outage)
	}
	if r.Before.Survives != 1 || r.After.Survives != 0 || r.After.Why == "" {
		t.Errorf("survives %+v, then %+v", r.Before, r.After)
	}
	if n := r.Nodes[0]; n.On || n.State != cluster.NodeDown || n.End == "" {
		t.Errorf("%+v", n)
	}
	if why := step(t, r, "group-failover-begun").Why; !strings.Contains(why, "n1 is down") {
		t.Errorf("why: %q", why)
	}
}

// Two at once leave no majority: nothing runs, and it says why.
func TestKillTwo(t *testing.T) {
	r := of(t, three, whatif.Question{Changes: []whatif.Change{kill("n1"), kill("n2")}})
	g := r.Group("web")
	if !r.Outage() || g.Served || !strings.Contains(g.Why, "no majority") {
		t.Errorf("%+v", g)
	}
	all := of(t, three, whatif.Question{Changes: []whatif.Change{kill("n1"), kill("n2"), kill("n3")}})
	if !all.Outage() || all.After.Why != "no node is on" {
		t.Errorf("%+v", all)
	}
}

func TestMove(t *testing.T) {
	r := of(t, three, whatif.Question{
		Changes: []whatif.Change{move("web", "")},
		Took:    map[whatif.Step]time.Duration{{Resource: "www", What: whatif.Stop}: 3 * time.Second, {Resource: "vip", What: whatif.Start}: time.Second},
	})
	var order []string
	for _, s := range r.Steps {
		if s.Resource != "" {
			order = append(order, string(s.Node)+" "+s.Code+" "+string(s.Resource))
		}
	}
	want := []string{"n1 resource-stopped www", "n1 resource-stopped vip", "n2 resource-started vip", "n2 resource-started www"}
	if !slices.Equal(order, want) {
		t.Errorf("%q", order)
	}
	g := r.Group("web")
	if g.After != "n2" || g.Outage < time.Second || g.Outage > 4500*time.Millisecond || !slices.Equal(g.Spare, []cluster.NodeName{"n1"}) {
		t.Errorf("%+v", g)
	}
	if s := step(t, r, "resource-stopped"); !s.Known || s.Limit != 20*time.Second {
		t.Errorf("%+v", s)
	}
}

func TestRefusal(t *testing.T) {
	r := of(t, three, whatif.Question{Changes: []whatif.Change{move("web", "n3")}})
	if r.Refused == nil || r.Refused.Code != "standby-down" || len(r.Steps) > 0 || r.Group("web").After != "n1" {
		t.Errorf("%+v", r)
	}
	snap, err := whatif.Fresh(three, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []whatif.Change{
		kill("n9"), {Leave: "n9"}, {Cut: &whatif.Cut{From: "n1", To: "n9"}}, {Pull: &whatif.Pull{Node: "n9"}},
		{Fail: &whatif.Fail{Node: "n1", Resource: "no"}}, {Fail: &whatif.Fail{Node: "n1", Monitor: "no"}}, {Fail: &whatif.Fail{Node: "n3", Monitor: "link"}},
	} {
		if _, err := whatif.Ask(whatif.Question{Snapshot: snap, Changes: []whatif.Change{c}}); err == nil {
			t.Errorf("%s is asked about", c)
		}
	}
	snap.Generation = 0
	if _, err := whatif.Ask(whatif.Question{Snapshot: snap}); err == nil {
		t.Error("a node without state is asked")
	}
}

// A pulled cable moves the group by its monitor, and by nothing else: the other
// network goes on. When that goes too, the lease ends.
func TestPull(t *testing.T) {
	q := whatif.Question{Changes: []whatif.Change{{Pull: &whatif.Pull{Node: "n1", Device: "eth1", Paths: []int{1}}}}}
	r := of(t, three, q)
	if g := r.Group("web"); g.After != "n2" || g.Outage > 100*time.Millisecond || r.Nodes[0].State != cluster.NodeUp {
		t.Errorf("%+v", r)
	}
	q.Changes = append(q.Changes, whatif.Change{Pull: &whatif.Pull{Node: "n1", Device: "eth0", Paths: []int{0}}})
	r = of(t, three, q)
	if g := r.Group("web"); g.After != "n2" || r.Nodes[0].State != cluster.NodeDown || len(g.Both) > 0 {
		t.Errorf("%+v", r)
	}
	step(t, r, "isolated")
}

func TestFail(t *testing.T) {
	fail := whatif.Change{Fail: &whatif.Fail{Node: "n1", Resource: "www", Text: "it ended"}}
	r := of(t, three, whatif.Question{Changes: []whatif.Change{fail}})
	if g := r.Group("web"); g.After != "n2" || g.Outage == 0 {
		t.Errorf("%+v", r)
	}
	r = of(t, three, whatif.Question{Changes: []whatif.Change{fail}, Fate: map[whatif.Step]whatif.Suppose{{Resource: "www", What: whatif.Start}: {Fails: -1}}})
	if g := r.Group("web"); !r.Outage() || g.Why == "" {
		t.Errorf("%+v", g)
	}
	if len(r.Assumed) != 1 || !strings.Contains(r.Assumed[0], "start of www fails") {
		t.Errorf("%q", r.Assumed)
	}
	r = of(t, three, whatif.Question{Changes: []whatif.Change{{Fail: &whatif.Fail{Node: "n1", Monitor: "link", Text: "bad"}}}})
	if r.Group("web").After != "n2" {
		t.Errorf("%+v", r)
	}
}

const pair = `cluster: c
nodes:
  n1: {addresses: [10.0.1.1, 10.0.2.1]}
  n2: {addresses: [10.0.1.2, 10.0.2.2]}
arbitration: [{ping: {targets: [10.0.2.254]}}]
groups:
  web:
    resources:
      md: {kind: mirror-disk, data: /dev/sda4, meta: /dev/sda3, fs: none}
      www: {kind: exec, after: [md], start: start.sh, stop: stop.sh}
`

// Who loses the ping targets with the other node gives up; the copy that goes on
// alone counts alone.
func TestArbitration(t *testing.T) {
	cut := &whatif.Pull{Node: "n1", Paths: []int{0, 1}, Targets: []netip.Addr{netip.MustParseAddr("10.0.2.254")}}
	r := of(t, pair, whatif.Question{Changes: []whatif.Change{{Pull: cut}}})
	g := r.Group("web")
	if g.Before != "n1" || !g.Served || len(g.Both) > 0 || !slices.Contains(codes(r), "mirror-out") {
		t.Errorf("%+v %v", g, codes(r))
	}
	if step(t, r, "solo").Node != "n2" {
		t.Errorf("%+v", step(t, r, "solo"))
	}
}

const fenced = `cluster: c
nodes:
  n1: {addresses: [10.0.1.1], fence: [[{device: power, delay: 2s}]]}
  n2: {addresses: [10.0.1.2], fence: [[{device: power}]]}
arbitration: [fence]
fences: {power: {agent: fence_ipmilan, options: {ip: 10.0.2.9}}}
groups:
  web: {resources: {www: {kind: exec, start: start.sh, stop: stop.sh}}}
`

// An order to force a node off is carried out by the node that was given it. A
// fence that fails leaves the group nowhere.
func TestFence(t *testing.T) {
	order := whatif.Change{Fence: &whatif.Order{Node: "n1", By: "n2"}}
	r := of(t, fenced, whatif.Question{Changes: []whatif.Change{order}})
	if g := r.Group("web"); g.After != "n2" || r.Nodes[0].On || step(t, r, "fence-done").After != 2500*time.Millisecond {
		t.Errorf("%+v %+v", g, r.Steps)
	}
	r = of(t, fenced, whatif.Question{Changes: []whatif.Change{kill("n1")}, Fate: map[whatif.Step]whatif.Suppose{whatif.FenceOf("n1"): {Fails: -1}}})
	if !r.Outage() {
		t.Errorf("%+v", r.Group("web"))
	}
}

func TestApply(t *testing.T) {
	apply := func(text string) whatif.Change {
		return whatif.Change{Ask: &admission.Ask{Kind: admission.ConfigApply, Config: &state.SetConfig{Base: 1, Text: text}}}
	}
	witness := strings.Replace(three, "nodes: [n1, n2]\n", "nodes: [n1, n2, n3]\n", 1)
	r := of(t, three, whatif.Question{Changes: []whatif.Change{apply(witness), kill("n1"), kill("n2")}})
	if r.Refused != nil || len(r.Change) != 3 {
		t.Errorf("%+v", r)
	}
	one := of(t, three, whatif.Question{Changes: []whatif.Change{apply(witness)}})
	if g := one.Group("web"); g.After != "n1" || g.Outage != 0 || !slices.Equal(g.Spare, []cluster.NodeName{"n2", "n3"}) {
		t.Errorf("%+v", g)
	}
	if r := of(t, three, whatif.Question{Changes: []whatif.Change{apply(strings.ReplaceAll(three, "n1", "n9"))}}); r.Refused == nil {
		t.Errorf("%+v", r)
	}
	four := strings.Replace(three, "  n3:", "  n4: {addresses: [10.0.1.4, 10.0.2.4]}\n  n3:", 1)
	if r := of(t, three, whatif.Question{Changes: []whatif.Change{apply(four)}}); r.Refused != nil || !r.Complete {
		t.Errorf("%+v", r)
	}
}

// The same question has the same answer.
func TestSameAnswer(t *testing.T) {
	q := whatif.Question{Changes: []whatif.Change{kill("n1")}}
	a, b := of(t, three, q), of(t, three, q)
	if len(a.Steps) == 0 || !slices.Equal(a.Steps, b.Steps) {
		t.Errorf("%v\n%v", a.Steps, b.Steps)
	}
}

// BenchmarkLarge is the largest cluster, all of it on one node, which dies.
func BenchmarkLarge(b *testing.B) {
	var file strings.Builder
	file.WriteString("cluster: c\nnodes:\n")
	for i := range 32 {
		fmt.Fprintf(&file, "  n%d: {addresses: [10.0.1.%d]}\n", i, i+1)
	}
	file.WriteString("groups:\n")
	for i := range 500 {
		fmt.Fprintf(&file, "  g%d: {resources: {r%d: {kind: exec, start: start.sh}}}\n", i, i)
	}
	snap, err := whatif.Fresh(file.String(), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r, err := whatif.Ask(whatif.Question{Snapshot: snap, Changes: []whatif.Change{kill("n0")}})
		if err != nil || r.Outage() {
			b.Fatalf("%v %+v", err, r.After)
		}
	}
}

package lab_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// What is foreseen is what comes: a move and a pulled cable as drills, which
// compare themselves, then a node that loses its power for real.
func TestForeseen(t *testing.T) {
	s := built(t, "witness", witnessFile+`monitors:
  link: {kind: nic-link, device: eth0, nodes: [n1, n2], target: {group: g}, recovery: {restarts: 0, failovers: 1, final_action: none}}
`, "n1", "n2", "w")
	first := s.Active(t.Context(), "n1")
	other := map[cluster.NodeName]cluster.NodeName{"n1": "n2", "n2": "n1"}[first]
	must(t, s.Until(t.Context(), "the links are watched", func() (bool, error) {
		st, err := s.Status(t.Context(), string(first))
		return err == nil && st.Survives == 1 && len(st.Monitors) == 1 && !slices.ContainsFunc(st.Monitors[0].Nodes, func(n api.MonitorOnNode) bool { return n.Verdict != cluster.VerdictGood }), nil
	}))

	moved := drill(t, s, other, "--move", "g="+string(other))
	if g := moved.Groups[0]; g.Came != other {
		t.Errorf("%+v", g)
	}
	pulled := drill(t, s, other, "--pull", string(other)+":eth0", "--for", "1s")
	if g := pulled.Groups[0]; g.Came != first || len(pulled.Did) != 2 {
		t.Errorf("%+v %q", g, pulled.Did)
	}
	do(t, s, string(other), "ping", "-c1", "-W2", "10.20.1.200") // its cable is in again

	var will api.Simulation
	must(t, json.Unmarshal([]byte(do(t, s, string(other), "tasuki", "simulate", "--kill", string(first), "--json")), &will))
	before, err := s.Events(t.Context(), string(other))
	must(t, err)
	killed := time.Now()
	must(t, s.Lab.Kill(t.Context(), string(first)))
	activeOn(t, s, string(other))
	took := time.Since(killed)
	events, err := s.Events(t.Context(), string(other))
	must(t, err)
	var foreseen, came []string
	for _, x := range will.Steps {
		if strings.HasPrefix(x.Code, "group-") || x.Resource != "" || x.Code == "node-down" {
			foreseen = append(foreseen, string(x.Node)+" "+x.Code+" "+string(x.Resource))
		}
	}
	for _, e := range events[len(before):] {
		if strings.HasPrefix(e.Code, "group-") || e.Fields["resource"] != "" || e.Code == "node-down" {
			came = append(came, string(e.Node)+" "+e.Code+" "+e.Fields["resource"])
		}
	}
	if g := will.Group("g"); g.After != other || !slices.Equal(slices.Sorted(slices.Values(foreseen)), slices.Sorted(slices.Values(came))) {
		t.Errorf("foreseen on %s:\n  %s\ncame:\n  %s", g.After, strings.Join(foreseen, "\n  "), strings.Join(came, "\n  "))
	}
	t.Logf("active elsewhere after %s, foreseen %s", took, will.Group("g").Outage)
}

// drill runs a drill on a node, which must come as it was foreseen.
func drill(t *testing.T, s *demo.Stage, node cluster.NodeName, args ...string) (r api.Drill) {
	t.Helper()
	argv := append([]string{"tasuki", "drill", "--yes", "two-and-a-witness", "--json", "--timeout", "30s"}, args...)
	out, err := s.Lab.Exec(t.Context(), string(node), argv...)
	must(t, err)
	if err := json.Unmarshal([]byte(out.Stdout), &r); err != nil || out.Code != 0 {
		t.Fatalf("%v: %d %v\n%s\n%s", args, out.Code, err, out.Stderr, out.Stdout)
	}
	for _, p := range r.Phases {
		if p.Came != nil {
			t.Logf("%v: %s after %s", args, p.Name, *p.Came)
		}
	}
	return r
}

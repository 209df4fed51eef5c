package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cli"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

const drilled = `cluster: c
nodes:
  n1: {addresses: [10.0.1.1, 10.0.2.1], fence: [[{device: power}]]}
  n2: {addresses: [10.0.1.2, 10.0.2.2]}
  n3: {addresses: [10.0.1.3, 10.0.2.3], fence: [[{device: power}]]}
fences: {power: {agent: fence_ipmilan, options: {ip: 10.0.2.9}}}
groups:
  web:
    resources:
      vip: {kind: floating-ip, address: 10.0.2.50}
      www: {kind: exec, after: [vip], start: start.sh, stop: stop.sh}
monitors:
  check: {kind: custom, script: check.sh, target: {group: web}}
`

// drillOn returns a daemon of values, as n1, where web runs; moves are carried
// out, on the node that is named as the other one.
func drillOn(t *testing.T, to cluster.NodeName) *httpapitest.Backend {
	t.Helper()
	snap, err := whatif.Fresh(drilled, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b := &httpapitest.Backend{Snap: snap, State: snap.Status, Result: api.PlanResult{Ended: true, OK: true}}
	b.State.Groups = []api.Group{{Name: "web", Phase: cluster.PhaseOnline, Owner: "n1"}}
	n := 0
	say := func(node cluster.NodeName, code, resource string) {
		n++
		b.Happen(api.Event{ID: cluster.EventID(fmt.Sprintf("n1/%d", n)), Node: node, Code: code, Time: time.Now(), Text: code + ".",
			Fields: map[string]string{"group": "web", "resource": resource, "took_ms": "7"}})
	}
	say("n1", "before", "")
	b.Begins = func() {
		if calls := b.Calls(); !strings.HasPrefix(calls[len(calls)-1], "group move web") {
			return
		}
		say("n1", "group-stop-begun", "")
		say("n1", "resource-stopped", "www")
		say("n1", "resource-stopped", "vip")
		say(to, "resource-started", "vip")
		say(to, "resource-started", "www")
		say(to, "group-move-done", "")
		s := b.State
		s.Groups = []api.Group{{Name: "web", Phase: cluster.PhaseOnline, Owner: to}}
		b.Change(s)
	}
	daemon(t, b)
	return b
}

func drill(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = cli.Main(t.Context(), append([]string{"drill"}, args...), strings.NewReader(""), &o, &e, cli.Hooks{})
	return code, o.String(), e.String()
}

func TestDrillMove(t *testing.T) {
	b := drillOn(t, "n2")
	report := filepath.Join(t.TempDir(), "report")
	code, out, errs := drill(t, "--move", "web", "--yes", "c", "--reason", "a test", "--json", "--report", report)
	if code != cli.ExitOK {
		t.Fatal(code, errs, out)
	}
	var r api.Drill
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if !r.Agrees || len(r.Groups) != 1 || r.Groups[0].Came != "n2" || len(r.Came) != 6 || r.Foreseen.Group("web").After != "n2" {
		t.Errorf("%+v", r)
	}
	if len(r.Back) != 1 || r.Back[0] != "tasuki group move web --to n1" {
		t.Errorf("%q", r.Back)
	}
	for _, p := range r.Phases {
		step := strings.HasPrefix(p.Name, "st") // which never took any time before
		if step != (p.Foreseen == nil) || p.Came == nil || step && *p.Came != 7*time.Millisecond {
			t.Errorf("%+v", p)
		}
	}
	text, err := os.ReadFile(report)
	if err != nil || !strings.Contains(string(text), "what came is what was foreseen") || !strings.Contains(string(text), "reason: a test") {
		t.Errorf("%v\n%s", err, text)
	}
	if calls := strings.Join(b.Calls(), "\n"); !strings.Contains(calls, "A drill begins (a test): group web is moved.") {
		t.Errorf("the log was not told: %s", calls)
	}
}

// A group that comes elsewhere than was foreseen is told.
func TestDrillDiffers(t *testing.T) {
	drillOn(t, "n3")
	code, out, errs := drill(t, "--move", "web", "--yes", "c", "--timeout", "300ms")
	if code != cli.ExitFailed || !strings.Contains(errs, "what came is not what was foreseen") || !strings.Contains(out, "foreseen on n2") {
		t.Error(code, errs, out)
	}
}

// Nothing is done without consent, where it would be an outage, or where it
// cannot be done.
func TestDrillRefused(t *testing.T) {
	b := drillOn(t, "n2")
	for _, x := range []struct {
		why  string
		code int
		args []string
	}{
		{"not confirmed by the name of the cluster", cli.ExitFailed, []string{"--move", "web"}},
		{"not confirmed by the name of the cluster", cli.ExitFailed, []string{"--move", "web", "--yes", "other"}},
		{"nothing redundant would be left", cli.ExitFailed, []string{"--kill", "n3", "--yes", "c"}},
		{"is this node", cli.ExitFailed, []string{"--kill", "n1", "--yes", "c", "--force", "--reason", "x"}},
		{"has no fence for n2", cli.ExitFailed, []string{"--kill", "n2", "--yes", "c", "--force", "--reason", "x"}},
		{"a device is taken down on its own node", cli.ExitFailed, []string{"--pull", "n2:1", "--yes", "c"}},
		{"not a network by its number", cli.ExitFailed, []string{"--pull", "n1:1", "--yes", "c"}},
		{"already on n1", cli.ExitFailed, []string{"--move", "web=n1", "--yes", "c"}},
		{"only the failure of a monitor", cli.ExitFailed, []string{"--fail", "www", "--yes", "c"}},
		{"say why", cli.ExitUsage, []string{"--move", "web", "--force"}},
		{"say one thing", cli.ExitUsage, []string{"--move", "web", "--kill", "n2"}},
		{"say one thing", cli.ExitUsage, nil},
		{"nothing was seen to happen", cli.ExitFailed, []string{"--kill", "n2", "--yes", "c", "--force", "--reason", "x", "--by-hand", "--timeout", "200ms"}},
	} {
		code, _, errs := drill(t, x.args...)
		if code != x.code && !(x.code == cli.ExitFailed && code == cli.ExitTimedOut) || !strings.Contains(errs, x.why) {
			t.Errorf("%v: %d %s", x.args, code, errs)
		}
	}
	for _, c := range b.Calls() {
		if strings.HasPrefix(c, "group ") || strings.HasPrefix(c, "node ") {
			t.Errorf("it was asked: %s", c)
		}
	}
}

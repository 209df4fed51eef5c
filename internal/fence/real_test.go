package fence

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// installed says where the agents of the distribution are.
func installed(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the package fence-agents, and takes seconds")
	}
	if _, err := os.Stat(filepath.Join(AgentDir, "fence_dummy")); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("needs the package fence-agents: ", err)
		}
		t.Skip("needs the package fence-agents: ", err)
	}
	return AgentDir
}

// dummy is a cluster file with fence_dummy, which keeps its power in a file.
func dummy(t *testing.T, power, options, timeout string) (text, status string) {
	t.Helper()
	status = filepath.Join(t.TempDir(), "power")
	if err := os.WriteFile(status, []byte(power), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`nodes:
  alpha: {addresses: [10.0.0.1]}
  beta: {addresses: [10.0.0.2], fence: [[{device: dummy}]]}
fences:
  dummy: {agent: fence_dummy, options: {status_file: %q%s}, timeout: %s}
`, status, options, timeout), status
}

func TestRealDummy(t *testing.T) {
	dir := installed(t)
	text, status := dummy(t, "on", "", "30s")
	f, events := fencer(t, parse(t, text), dir, nil)
	f.Check(t.Context(), "beta")
	if s := f.States("beta"); s[0].Verified.IsZero() || s[0].Why != "" || len(events()) != 0 {
		t.Errorf("checked: %+v, %v", s, events())
	}
	if b, _ := os.ReadFile(status); string(b) != "on" {
		t.Errorf("a check has switched it to %q", b)
	}
	if r := f.Off(t.Context(), "beta"); !r.Off {
		t.Errorf("got %+v", r)
	}
	if b, _ := os.ReadFile(status); string(b) != "off" {
		t.Errorf("it is %q", b)
	}
}

func TestRealDummyFails(t *testing.T) {
	dir := installed(t)
	for name, c := range map[string]struct{ options, timeout, why string }{
		"fails":        {`, type: fail, power_timeout: "1"`, "30s", "fence_dummy: ended with exit code 1"},
		"takes longer": {`, random_sleep_range: "1000"`, "1s", "did not end in its time"}, // it sleeps one second at least
		"waits before": {`, delay: "60"`, "1s", "did not end in its time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, _ := dummy(t, "on", c.options, c.timeout)
			f, _ := fencer(t, parse(t, text), dir, nil)
			if r := f.Off(t.Context(), "beta"); r.Off || !strings.Contains(r.Why, c.why) {
				t.Errorf("got off %v: %s", r.Off, r.Why)
			}
		})
	}
}

// The meta-data of agents that differ in what matters here.
func TestRealMetadata(t *testing.T) {
	dir := installed(t)
	for name, want := range map[string]string{
		"fence_dummy":    `plug "", status true, monitor true, <nil>`,
		"fence_ipmilan":  `plug "plug", status true, monitor true, <nil>`,
		"fence_apc_snmp": `plug "plug", status true, monitor true, <nil>`,
		"fence_kdump":    `plug "nodename", status false, monitor true, <nil>`,
		"fence_scsi":     `plug "plug", status true, monitor true, fence_scsi: the agent cuts a node off from its storage and leaves it running, so the node could still answer on its addresses`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			known := &agents{cache: map[string]knownAgent{}}
			m, err := known.metadata(t.Context(), &agent{path: filepath.Join(dir, name), known: known})
			if err != nil {
				m = metadata{plug: "plug", status: true, monitor: true} // not returned with an error
			}
			if got := fmt.Sprintf("plug %q, status %v, monitor %v, %v", m.plug, m.status, m.monitor, err); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/config"
)

const before = pair + `
comment: first
groups:
  web:
    nodes: [alpha, beta]
    resources:
      ip: {kind: floating-ip, address: 10.0.0.10}
      app: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}
  db:
    resources:
      dbms: {kind: exec, start: start.sh, stop: stop.sh}
monitors:
  nic: {kind: nic-link, device: eth0}
`

// A mirror disk that is taken out and put back would be constructed anew.
func TestDiffWithoutAMirrorDisk(t *testing.T) {
	const md = "      md: {kind: mirror-disk, data: /d, meta: /m, mount: /data, fs: ext4}\n"
	parse := func(text string) *config.File {
		f, errs := config.Parse("f", []byte(text))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		return f
	}
	with := parse(strings.Replace(before, "  db:\n", md+"  db:\n", 1))
	got := config.Diff(with, parse(before))
	if len(got) != 1 || got[0].Effect.Kind != config.EffectRestartResource || !strings.Contains(got[0].Effect.Text, "forgotten") {
		t.Errorf("%v", got)
	}
	if got := config.Diff(parse(before), with); len(got) != 1 || strings.Contains(got[0].Effect.Text, "forgotten") {
		t.Errorf("%v", got)
	}
}

func TestDiff(t *testing.T) {
	for name, c := range map[string]struct {
		replace, with string
		want          []string
	}{
		"nothing": {"first", "first", nil},
		"comment": {"first", "second", []string{"none comment: first -> second"}},
		"name":    {"cluster: web", "cluster: web2", []string{"refused cluster: web -> web2"}},
		"timing":  {"comment:", "timing: {lease: 2s}\ncomment:", []string{"none timing.lease: 1s -> 2s"}},
		"timing profile": {"comment:", "timing: {profile: fast}\ncomment:", []string{
			"none timing.profile: default -> fast",
			"none timing.heartbeat: 100ms -> 25ms", "none timing.lease: 1s -> 250ms", "none timing.isolate: 300ms -> 80ms",
		}},
		"resource changed": {"address: 10.0.0.10", "address: 10.0.0.11, device: eth0", []string{
			"restart-resource groups.web.resources.ip.address: 10.0.0.10 -> 10.0.0.11", "restart-resource groups.web.resources.ip.device: nothing -> eth0",
		}},
		"resource kind": {"ip: {kind: floating-ip, address: 10.0.0.10}", "ip: {kind: exec, start: a, stop: b, start_timeout: 30s, stop_timeout: 30s}", []string{
			"restart-resource groups.web.resources.ip.kind: floating-ip -> exec",
			"restart-resource groups.web.resources.ip.address: 10.0.0.10 -> nothing",
			"restart-resource groups.web.resources.ip.duplicate_check: 30ms -> nothing",
			"restart-resource groups.web.resources.ip.announce_count: 5 -> nothing",
			"restart-resource groups.web.resources.ip.announce_every: 1m0s -> nothing",
			"restart-resource groups.web.resources.ip.takeover_wait: 10s -> nothing",
			"restart-resource groups.web.resources.ip.on_conflict: claim -> nothing",
			"restart-resource groups.web.resources.ip.start: nothing -> a",
			"restart-resource groups.web.resources.ip.stop: nothing -> b",
			"restart-resource groups.web.resources.ip.mode: nothing -> sync",
			"restart-resource groups.web.resources.ip.log_size_mb: nothing -> 10",
		}},
		"resource new":  {"  db:\n", "      more: {kind: exec, start: a, mode: async}\n  db:\n", []string{"restart-resource groups.web.resources.more: nothing -> exec"}},
		"resource gone": {"      app: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}\n", "", []string{"restart-resource groups.web.resources.app: exec -> nothing"}},
		"group gone":    {"  db:\n    resources:\n      dbms: {kind: exec, start: start.sh, stop: stop.sh}\n", "", []string{"stop-group groups.db: group of dbms -> nothing"}},
		"group new":     {"  db:\n", "  more: {nodes: [beta]}\n  db:\n", []string{"none groups.more: nothing -> group of"}},
		"group order":   {"[alpha, beta]", "[beta, alpha]", []string{"none groups.web.nodes: alpha beta -> beta alpha"}},
		"group leaves":  {"[alpha, beta]", "[beta]", []string{"stop-group groups.web.nodes: alpha beta -> beta"}},
		"monitor":       {"device: eth0", "device: eth1", []string{"restart-monitor monitors.nic.device: eth0 -> eth1"}},
		"monitor gone":  {"monitors:\n  nic: {kind: nic-link, device: eth0}\n", "", []string{"restart-monitor monitors.nic: nic-link -> nothing"}},
		"node new": {"  gamma:", "  delta: {addresses: [192.168.10.4, 10.0.0.4]}\n  gamma:", []string{
			"none nodes: alpha beta gamma -> alpha beta delta gamma", "none groups.db.nodes: alpha beta -> alpha beta delta",
			"restart-monitor monitors.nic.nodes: alpha beta -> alpha beta delta", "none nodes.delta: nothing -> 192.168.10.4 10.0.0.4",
		}},
		"node port": {"witness: true", "port: 29012, witness: true", []string{"none nodes.gamma.port: nothing -> 29012"}},
		"node gone": {"  gamma: {addresses: [192.168.10.3, 10.0.0.3], witness: true}\n", "", []string{
			"stop-group nodes.gamma: 192.168.10.3 10.0.0.3 -> nothing", "none nodes: alpha beta gamma -> alpha beta",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(before, c.replace) {
				t.Fatalf("%q is not in the file", c.replace)
			}
			var got []string
			for _, d := range config.Diff(parse(t, before), parse(t, strings.Replace(before, c.replace, c.with, 1))) {
				line, _, _ := strings.Cut(d.String(), " (")
				got = append(got, string(d.Effect.Kind)+" "+line)
				if d.Effect.Text == "" {
					t.Errorf("%s: without words", d.Path)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

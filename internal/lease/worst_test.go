package lease_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/lease"
)

const ms = time.Millisecond

const setUp = `cluster: c
nodes:
  a: {addresses: [10.0.0.1]FENCE}
  b: {addresses: [10.0.0.2]FENCE}
THIRD
timing: {profile: PROFILE}
ARBITRATION
monitors: {userw: {kind: userspace, method: METHOD, nodes: [a, b]}}
groups: {g: {resources: {ip: {kind: floating-ip, address: 10.0.0.9}}}}
`

func parse(t *testing.T, profile, method, third, arbitration string) *config.File {
	t.Helper()
	fence := ""
	if strings.Contains(arbitration, "fence") {
		fence = ", fence: [[{device: d, delay: 2s}], [{device: d}, {device: e}]]"
		arbitration += "\nfences: {d: {agent: fence_ipmilan, options: {ip: 10.0.0.7}, timeout: 5s}, e: {agent: fence_ipmilan, options: {ip: 10.0.0.8}, timeout: 7s}}"
	}
	text := strings.NewReplacer("PROFILE", profile, "METHOD", method, "THIRD", third, "ARBITRATION", arbitration, "FENCE", fence).Replace(setUp)
	f, errs := config.Parse("c.yaml", []byte(text))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return f
}

func TestWorst(t *testing.T) {
	const witness, three = "  w: {addresses: [10.0.0.3], witness: true}", "  c: {addresses: [10.0.0.3]}"
	tests := map[string]struct {
		profile, method, third, arbitration string
		want                                lease.WorstCase
	}{
		"witness": {"default", "keepalive", witness, "", lease.WorstCase{Isolates: 700 * ms, Harmless: 1000 * ms,
			Earliest: 1050 * ms, Latest: 1200 * ms, Deaf: 2000 * ms, Stalled: 1000 * ms}},
		"witness, fast": {"fast", "keepalive", witness, "", lease.WorstCase{Isolates: 170 * ms, Harmless: 250 * ms,
			Earliest: 262*ms + ms/2, Latest: 300 * ms, Deaf: 500 * ms, Stalled: 250 * ms}},
		"witness, steady": {"steady", "keepalive", witness, "", lease.WorstCase{Isolates: 2100 * ms, Harmless: 3000 * ms,
			Earliest: 3150 * ms, Latest: 3600 * ms, Deaf: 6000 * ms, Stalled: 3000 * ms}},
		"three, one of them unguarded": {"default", "keepalive", three, "", lease.WorstCase{Isolates: 700 * ms, Harmless: 1000 * ms,
			Earliest: 1050 * ms, Latest: 1200 * ms, Deaf: 2000 * ms, Stalled: 1000 * ms, Blind: true}},
		"a pair alone": {"default", "keepalive", "", "", lease.WorstCase{Isolates: 700 * ms, Harmless: 1000 * ms}},
		"a pair with none, a dog of whole seconds": {"fast", "softdog", "", "arbitration: [none]", lease.WorstCase{Isolates: 170 * ms, Harmless: 250 * ms,
			Rules: "none", Earliest: 262*ms + ms/2, Latest: 300 * ms, Stalled: 1000 * ms, Overlap: 907*ms + ms/2}},
		"a pair with ping, no dog": {"default", "none", "", "arbitration: [{ping: {targets: [10.0.0.254]}}]", lease.WorstCase{Isolates: 700 * ms, Harmless: 1000 * ms,
			Rules: "ping", Earliest: 1050 * ms, Latest: 1200 * ms, Deaf: 2000 * ms, Blind: true}},
		"a pair with a fence": {"default", "keepalive", "", "arbitration: [fence]", lease.WorstCase{Isolates: 700 * ms, Harmless: 1000 * ms,
			Rules: "fence", Earliest: 1050 * ms, Latest: 1200 * ms, Deaf: 2000 * ms, Fencing: 19 * time.Second, Confirmed: true}},
		"a witness and a fence": {"default", "keepalive", witness, "takeover: fence", lease.WorstCase{Isolates: 700 * ms, Harmless: 1000 * ms,
			Earliest: 1050 * ms, Latest: 1200 * ms, Deaf: 2000 * ms, Fencing: 19 * time.Second, Confirmed: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := lease.Worst(parse(t, tt.profile, tt.method, tt.third, tt.arbitration))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	f, errs := config.Parse("c.yaml", []byte("cluster: one\nnodes: {a: {addresses: [10.0.0.1]}}\n"))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if w := lease.Worst(f); w != (lease.WorstCase{}) {
		t.Errorf("one node: %+v", w)
	}
}

func TestSentences(t *testing.T) {
	const witness = "  w: {addresses: [10.0.0.3], witness: true}"
	const hypervisor = "a hypervisor that pauses a whole node also pauses its watchdog: no figure bounds that, only forcing it off first does: arbitration fence for two nodes, takeover: fence for more"
	tests := map[string]struct {
		f    *config.File
		want []string
	}{
		"default": {parse(t, "default", "keepalive", witness, ""), []string{
			"a node that loses contact isolates its groups after 0.7 s and is harmless after 1 s",
			"takeover 1.05–1.2 s after a node was last heard, at most 2 s after it hears nothing if it is still heard",
			"a node whose daemon stands still is reset within 1 s, before another takes over", hypervisor}},
		"fast": {parse(t, "fast", "none", witness, ""), []string{
			"a node that loses contact isolates its groups after 0.17 s and is harmless after 0.25 s",
			"takeover 0.26–0.3 s after a node was last heard, at most 0.5 s after it hears nothing if it is still heard",
			"a node whose daemon stands still keeps its groups although another takes over: not every node has a userspace monitor that resets it", hypervisor}},
		"fence": {parse(t, "default", "keepalive", "", "arbitration: [fence]"), []string{
			"a node that loses contact isolates its groups after 0.7 s and is harmless after 1 s, and goes on when the other is confirmed to be off",
			"takeover when the other is confirmed to be off: forcing it off begins 1.05–1.2 s after it was last heard and takes at most 19 s",
			"a node that stands still, also one that its hypervisor pauses, is off before another takes over"}},
		"none": {parse(t, "default", "keepalive", "", "arbitration: [none]"), []string{
			"a node that loses contact goes on, and so does the other: both have the groups until they see each other",
			"takeover 1.05–1.2 s after a node was last heard",
			"a node whose daemon stands still is reset within 1 s, before another takes over", hypervisor}},
		"a pair alone": {parse(t, "default", "keepalive", "", ""), []string{
			"a node that loses contact isolates its groups after 0.7 s and is harmless after 1 s",
			"nothing takes over: without the other node no majority is left, or no node is left that could"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, lease.Worst(tt.f).Sentences()); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := (lease.WorstCase{}).Sentences(); len(got) != 1 {
		t.Errorf("one node: %q", got)
	}
}

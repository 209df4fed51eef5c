package sim

import (
	"os"
	"runtime/debug"
	"strconv"
	"testing"
	"time"
)

const trio = `cluster: trio
nodes:
  n1: {addresses: [192.168.10.1, 10.2.102.51]}
  n2: {addresses: [192.168.10.2, 10.2.102.52]}
  n3: {addresses: [192.168.10.3, 10.2.102.53]}
timing: {start_wait: 5s}
groups:
  web:
    resources:
      vip: {kind: floating-ip, address: 10.2.102.50}
      www: {kind: exec, after: [vip], start: start.sh, stop: stop.sh}
  db:
    nodes: [n2, n3, n1]
    resources:
      vip2: {kind: floating-ip, address: 10.2.102.60}
`

const pairAndWitness = `cluster: duo
nodes:
  n1: {addresses: [192.168.10.1, 10.2.102.51]}
  n2: {addresses: [192.168.10.2, 10.2.102.52]}
  n3: {addresses: [192.168.10.3, 10.2.102.53], witness: true}
timing: {start_wait: 5s}
groups:
  web:
    nodes: [n1, n2]
    resources:
      vip: {kind: floating-ip, address: 10.2.102.50}
      www: {kind: exec, after: [vip], start: start.sh, stop: stop.sh}
`

// TestHunt lets two minutes of random faults happen in each of some worlds.
// SEED replays one story and prints its log.
func TestHunt(t *testing.T) {
	for name, text := range map[string]string{"trio": trio, "witness": pairAndWitness} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if s := os.Getenv("SEED"); s != "" {
				seed, err := strconv.ParseUint(s, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				hunt(t, text, seed)
				return
			}
			for seed := range uint64(40) {
				hunt(t, text, seed+1)
			}
		})
	}
}

func hunt(t *testing.T, text string, seed uint64) {
	t.Helper()
	why, w := Hunt(text, seed, 2*time.Minute)
	if why == "" {
		return
	}
	t.Errorf("seed %d: %s", seed, why)
	if os.Getenv("SEED") != "" {
		for _, e := range w.Log {
			t.Log(e.Time.Sub(epoch), e.Node, e.Module, e.Text)
		}
	}
}

// The worlds make much that lives shortly: collect it seldom.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

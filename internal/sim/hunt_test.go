package sim

import (
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// The worlds make much that lives shortly: collect it seldom.
func TestMain(m *testing.M) {
	debug.SetGCPercent(2000)
	os.Exit(m.Run())
}

const trio = `cluster: trio
nodes:
  n1: {addresses: [192.168.10.1, 10.2.102.51]}
  n2: {addresses: [192.168.10.2, 10.2.102.52]}
  n3: {addresses: [192.168.10.3, 10.2.102.53]}
timing: {start_wait: 5s, profile: PROFILE}
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

const five = `cluster: five
nodes:
  n1: {addresses: [192.168.10.1, 10.2.102.51]}
  n2: {addresses: [192.168.10.2, 10.2.102.52]}
  n3: {addresses: [192.168.10.3, 10.2.102.53]}
  n4: {addresses: [192.168.10.4, 10.2.102.54]}
  n5: {addresses: [192.168.10.5, 10.2.102.55]}
timing: {start_wait: 5s, profile: steady}
groups:
  web:
    resources:
      vip: {kind: floating-ip, address: 10.2.102.50}
      www: {kind: exec, after: [vip], start: start.sh, stop: stop.sh}
  db:
    nodes: [n4, n5]
    resources:
      vip2: {kind: floating-ip, address: 10.2.102.60}
`

const pair = `cluster: pair
nodes:
  n1: {addresses: [192.168.10.1, 10.2.102.51]}
  n2: {addresses: [192.168.10.2, 10.2.102.52]}
arbitration: [ARBITER]
timing: {start_wait: 5s, profile: PROFILE}
groups:
  web:
    resources:
      vip: {kind: floating-ip, address: 10.2.102.50}
      www: {kind: exec, after: [vip], start: start.sh, stop: stop.sh}
`

const pairAndFence = `cluster: pair
nodes:
  n1: {addresses: [192.168.10.1, 10.2.102.51], fence: [[{device: power}]]}
  n2: {addresses: [192.168.10.2, 10.2.102.52], fence: [[{device: power}]]}
arbitration: [fence]
fences: {power: {agent: fence_ipmilan, options: {ip: 10.2.102.9}}}
timing: {start_wait: 5s, profile: PROFILE}
groups:
  web:
    resources:
      vip: {kind: floating-ip, address: 10.2.102.50}
      www: {kind: exec, after: [vip], start: start.sh, stop: stop.sh}
`

const pairAndWitness = `cluster: duo
nodes:
  n1: {addresses: [192.168.10.1, 10.2.102.51]}
  n2: {addresses: [192.168.10.2, 10.2.102.52]}
  n3: {addresses: [192.168.10.3, 10.2.102.53], witness: true}
timing: {start_wait: 5s, profile: PROFILE}
groups:
  web:
    nodes: [n1, n2]
    resources:
      vip: {kind: floating-ip, address: 10.2.102.50}
      www: {kind: exec, after: [vip], start: start.sh, stop: stop.sh}
`

// forced has its lost owners forced off before a takeover.
const forced = `cluster: duo
nodes:
  n1: {addresses: [192.168.10.1, 10.2.102.51], fence: [[{device: power}]]}
  n2: {addresses: [192.168.10.2, 10.2.102.52], fence: [[{device: power}]]}
  n3: {addresses: [192.168.10.3, 10.2.102.53], witness: true}
takeover: fence
fences: {power: {agent: fence_ipmilan, options: {ip: 10.2.102.9}}}
timing: {start_wait: 5s, profile: PROFILE}
groups:
  web:
    nodes: [n1, n2]
    resources:
      vip: {kind: floating-ip, address: 10.2.102.50}
      www: {kind: exec, after: [vip], start: start.sh, stop: stop.sh}
`

// stopping has short limits, so that what hangs is given up within a story.
const stopping = `cluster: stopping
nodes:
  n1: {addresses: [192.168.10.1, 10.2.102.51]}
  n2: {addresses: [192.168.10.2, 10.2.102.52]}
  n3: {addresses: [192.168.10.3, 10.2.102.53]}
timing: {start_wait: 5s, profile: PROFILE}
groups:
  web:
    resources:
      vip: {kind: floating-ip, address: 10.2.102.50, stop_timeout: 1s}
      www: {kind: exec, start: start.sh, stop: stop.sh, stop_timeout: 1s, deactivation: {final_action: reboot}}
      log: {kind: exec, after: [www], start: start.sh, stop: stop.sh, stop_timeout: 1s, deactivation: {retries: 1, final_action: shutdown}}
`

// mirrored is two nodes, a witness or an arbitration, and a mirror disk.
const diskCluster = `cluster: VMcluster
nodes:
  n1: {addresses: [192.168.10.1, 10.2.102.51]}
  n2: {addresses: [192.168.10.2, 10.2.102.52]}
THIRD
timing: {start_wait: 5s, profile: PROFILE}
groups:
  failover:
    nodes: [n1, n2]
    resources:
      md: {kind: mirror-disk, data: /dev/sda4, meta: /dev/sda3, mount: /data, fs: ext3, umount_timeout: 2s, umount_retries: 1, stop_timeout: 10s}
      exec: {kind: exec, after: [md], start: start.sh, stop: stop.sh}
`

func disksWith(third string) string { return strings.ReplaceAll(diskCluster, "THIRD", third) }

func pairWith(arbiter string) string { return strings.ReplaceAll(pair, "ARBITER", arbiter) }

// drift is within what the lease rule allows for: its margin is 5 %.
const drift = 0.04

// terrains are the kinds of clusters and how many of a hundred stories each
// gets; a story of five nodes takes as long as five of a pair.
var terrains = map[string]struct {
	Terrain
	share uint64
}{
	"witness":     {Terrain{Text: pairAndWitness, Drift: drift}, 9},
	"forced":      {Terrain{Text: forced, Drift: drift, Fences: true, NoDog: true}, 4},
	"lies":        {Terrain{Text: forced, Drift: drift, Fences: true, Lies: true}, 4},
	"wiped":       {Terrain{Text: pairAndWitness, Drift: drift, Wipes: true}, 4},
	"three":       {Terrain{Text: trio, Drift: drift}, 9},
	"stops":       {Terrain{Text: stopping, Drift: drift, Stops: true}, 8},
	"five":        {Terrain{Text: five, Drift: drift}, 2},
	"ping":        {Terrain{Text: pairWith("{ping: {targets: [10.2.102.1]}}"), Drift: drift, Apart: true}, 14},
	"fence":       {Terrain{Text: pairAndFence, Drift: drift, Fences: true}, 16},
	"mirror":      {Terrain{Text: disksWith("  n3: {addresses: [192.168.10.3, 10.2.102.53], witness: true}"), Drift: drift, Disks: true}, 7},
	"mirror-ping": {Terrain{Text: disksWith("arbitration: [{ping: {targets: [10.2.102.1]}}]"), Drift: drift, Disks: true, Apart: true}, 3},
	"mirror-pair": {Terrain{Text: disksWith("arbitration: [none]"), Drift: drift, Disks: true, Shared: true}, 3},
	"none":        {Terrain{Text: pairWith("none"), Drift: drift, Shared: true}, 17},
}

// env reads a number for a hunt; make sim sets them.
func env[T uint64 | float64](t *testing.T, name string, otherwise T) T {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v <= 0 {
		t.Fatalf("%s=%s is no number above 0", name, s)
	}
	return T(v)
}

// TestHunt tells stories of random faults in every kind of cluster. SEEDS is how
// many in all, HOURS how long each is, NODES picks one kind, SEED replays one
// story and prints its log.
func TestHunt(t *testing.T) {
	long := time.Duration(env(t, "HOURS", 2.0/60) * float64(time.Hour))
	stories := uint64(120)
	if raced {
		stories = 20
	}
	all := env(t, "SEEDS", stories)
	only := os.Getenv("NODES")
	var told tally
	began := time.Now()
	t.Cleanup(func() { told.print(t, time.Since(began)) })
	if _, known := terrains[only]; only != "" && !known {
		t.Fatalf("NODES is one of %v, not %q", slices.Sorted(maps.Keys(terrains)), only)
	}
	for name, kind := range terrains {
		terrain, seeds := kind.Terrain, (all*kind.share+99)/100
		terrain.Long = long
		if only == name {
			seeds = all
		} else if only != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if os.Getenv("SEED") != "" {
				replay(t, name, terrain, env(t, "SEED", uint64(1)))
				return
			}
			var wait sync.WaitGroup
			var next atomic.Uint64
			for range 2 {
				wait.Go(func() {
					for seed := next.Add(1); seed <= seeds && !t.Failed(); seed = next.Add(1) {
						faults, w := hunt(t, name, terrain, seed)
						told.add(name, terrain, faults, w)
					}
				})
			}
			wait.Wait()
		})
	}
}

func hunt(t *testing.T, name string, terrain Terrain, seed uint64) ([]Fault, *World) {
	t.Helper()
	faults := terrain.Faults(nodesOf(terrain), seed)
	why, w := Hunt(terrain, seed, faults)
	if why == "" {
		return faults, w
	}
	t.Errorf("%s: seed %d, %d faults: %s\nreplay: make sim NODES=%s HOURS=%g SEED=%d", name, seed, len(faults), why, name, terrain.Long.Hours(), seed)
	return faults, w
}

// tally counts what a hunt has tried, and what came of it.
type tally struct {
	mu      sync.Mutex
	stories map[string]int
	hours   float64
	faults  map[Kind]int
	told    map[string]int // by code
	acked   int            // writes to mirror disks
}

// outcomes are the lines of the operator's log that say how far a story went.
var outcomes = []string{"isolated", "restored", "node-down", "solo", "yield", "fence-done", "fence-failed", "fence-lied",
	"group-not-isolated", "mirror-constructed", "mirror-out", "mirror-in", "mirror-forced", "mirror-refused", "final-action", "group-held", "node-quarantined", "maintenance-on"}

func (y *tally) add(name string, terrain Terrain, faults []Fault, w *World) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.stories == nil {
		y.stories, y.faults, y.told = map[string]int{}, map[Kind]int{}, map[string]int{}
	}
	if w != nil {
		for i := range w.Log {
			y.told[w.Log[i].Code]++
		}
		for _, d := range w.disks {
			y.acked += d.Acked
		}
	}
	y.stories[name]++
	y.hours += terrain.Long.Hours()
	for _, f := range faults {
		y.faults[f.Kind]++
	}
}

func (y *tally) print(t *testing.T, took time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	sum := 0
	for _, n := range y.faults {
		sum += n
	}
	t.Logf("%.0f hours with %d faults in %s", y.hours, sum, took.Round(time.Second))
	for _, name := range slices.Sorted(maps.Keys(y.stories)) {
		t.Logf("  %-8s %5d stories", name, y.stories[name])
	}
	for _, k := range slices.Sorted(maps.Keys(y.faults)) {
		t.Logf("  %-15s %7d times", k, y.faults[k])
	}
	t.Logf("  %-18s %7d acknowledged", "disk writes", y.acked)
	for _, code := range outcomes {
		t.Logf("  %-18s %7d lines of the log", code, y.told[code])
	}
}

// replay tells one story again, with as few of its faults as break it.
func replay(t *testing.T, name string, terrain Terrain, seed uint64) {
	t.Helper()
	faults := terrain.Faults(nodesOf(terrain), seed)
	why, _ := Hunt(terrain, seed, faults)
	if why == "" {
		return
	}
	if !testing.Short() {
		faults = Minimize(terrain, seed, faults, 300)
	}
	terrain.Talk = true
	why, w := Hunt(terrain, seed, faults)
	t.Errorf("%s: seed %d with %d faults: %s", name, seed, len(faults), why)
	for _, f := range faults {
		t.Log(f)
	}
	if w == nil {
		return
	}
	for _, e := range w.Log {
		t.Log(e.Time.Sub(epoch).Round(time.Millisecond), e.Node, e.Module, e.Text)
	}
	for _, r := range sortedNames(w.disks) {
		t.Log(strings.Join(w.disks[r].log, "\n"))
	}
}

// A minimized story is one: it still breaks, and every fault of it is needed.
func TestMinimize(t *testing.T) {
	terrain := Terrain{Text: trio, Long: 2 * time.Minute, Drift: 1} // clocks that no lease bears
	for seed := uint64(1); ; seed++ {
		faults := terrain.Faults(nodesOf(terrain), seed)
		if why, _ := Hunt(terrain, seed, faults); why == "" {
			if seed == 50 {
				t.Fatal("clocks that run apart by half break nothing")
			}
			continue
		}
		few := Minimize(terrain, seed, faults, 1000)
		if why, _ := Hunt(terrain, seed, few); why == "" || len(few) >= len(faults) {
			t.Fatalf("seed %d: %d of %d faults left: %s", seed, len(few), len(faults), why)
		}
		for i := range few {
			if why, _ := Hunt(terrain, seed, slices.Delete(slices.Clone(few), i, i+1)); why != "" {
				t.Errorf("seed %d breaks without %v too", seed, few[i])
			}
		}
		return
	}
}

func nodesOf(t Terrain) []cluster.NodeName {
	w, err := NewWorld(strings.ReplaceAll(t.Text, "PROFILE", profileOf(1)), 1)
	if err != nil {
		panic(err)
	}
	return w.names
}

// A hundred stories are a hundred.
func TestSharesAddUp(t *testing.T) {
	sum := uint64(0)
	for _, kind := range terrains {
		sum += kind.share
	}
	if sum != 100 {
		t.Errorf("the shares are %d in all", sum)
	}
}

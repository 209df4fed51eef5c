package config_test

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

const examples = "../../examples"

func example(t *testing.T, name string) *config.File {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	f, errs := config.Parse(name, data)
	if len(errs) > 0 {
		t.Fatalf("the example is refused:\n%v", errs)
	}
	return f
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

var sameFile = cmp.Options{cmpopts.IgnoreUnexported(config.File{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}

var quietLadder = config.Recovery{FinalAction: cluster.ActionNone, ScriptTimeout: time.Minute}

func nicLink(name, device string, nodes []cluster.NodeName) config.Monitor {
	return config.Monitor{
		Name: cluster.MonitorName(name), Kind: config.KindNICLink, Nodes: nodes, When: config.WhenAlways,
		Target: config.Target{Cluster: true}, Recovery: quietLadder, NICLink: &config.NICLink{Device: device, Debounce: 20 * time.Millisecond},
	}
}

func userspace(timeout time.Duration, nodes []cluster.NodeName) config.Monitor {
	return config.Monitor{
		Name: "userw", Kind: config.KindUserspace, Nodes: nodes, When: config.WhenAlways, Target: config.Target{Cluster: true},
		Recovery: config.Recovery{FinalAction: cluster.ActionNone}, UserSp: &config.Userspace{Method: config.MethodKeepalive, Timeout: timeout},
	}
}

var defaultTiming = config.Timing{
	Profile: "default", Heartbeat: 100 * time.Millisecond, Lease: time.Second,
	Isolate: 300 * time.Millisecond, StartWait: time.Minute,
}

// The guests' cluster of the reference scenario, value for value.
func TestExampleGuests(t *testing.T) {
	nodes := []cluster.NodeName{"CLP-1", "CLP-2"}
	stopFails := config.Deactivation{FinalAction: cluster.ActionShutdown}
	want := &config.File{
		Cluster: "VMcluster", Comment: "business application on two virtual machines", Port: 29002,
		Nodes: []config.Node{
			{Name: "CLP-1", Addresses: addrs("192.168.10.1", "10.2.102.51"), Public: netip.MustParseAddr("10.2.102.51")},
			{Name: "CLP-2", Addresses: addrs("192.168.10.2", "10.2.102.52"), Public: netip.MustParseAddr("10.2.102.52")},
		},
		Arbitration: []config.Arbitrator{{Kind: config.ArbitrateNone}},
		FenceCheck:  5 * time.Minute,
		Takeover:    config.TakeoverLease,
		Quarantine:  config.Quarantine{Failures: 3, Within: time.Hour, For: 2 * time.Hour},
		Timing:      defaultTiming,
		Groups: []config.Group{{
			Name: "failover", Nodes: nodes, Startup: config.Auto, Failover: config.Auto, Failback: config.Manual,
			Forget: 24 * time.Hour, Hold: config.Hold{Failovers: 3, Within: 10 * time.Minute},
			Resources: []config.Resource{
				{
					Name: "fip", Kind: config.KindFloatingIP,
					Activation: config.Activation{Retries: 5, Failovers: 1, FinalAction: cluster.ActionNone}, Deactivation: stopFails,
					StartTimeout: 30 * time.Second, StopTimeout: 30 * time.Second,
					FloatingIP: &config.FloatingIP{
						Address: netip.MustParseAddr("10.2.102.50"), DuplicateCheck: 30 * time.Millisecond,
						AnnounceEvery: time.Minute, AnnounceCount: 5, TakeoverWait: 10 * time.Second, OnConflict: config.ConflictClaim,
					},
				},
				{
					Name: "md", Kind: config.KindMirrorDisk,
					Activation: config.Activation{Failovers: 1, FinalAction: cluster.ActionNone}, Deactivation: stopFails,
					StartTimeout: 30 * time.Minute, StopTimeout: 15 * time.Minute,
					MirrorDisk: &config.MirrorDisk{
						MirrorDevices: config.MirrorDevices{Data: "/dev/sda4", Meta: "/dev/sda3"}, Mount: "/data", FS: config.FSExt3, Mkfs: true,
						MountTimeout: 3 * time.Minute, MountRetries: 3, UmountTimeout: 2 * time.Minute, UmountRetries: 3, Fsck: config.FsckAuto,
						InitialCopy: true, Mode: config.MirrorSync, Queue: 2 << 20, Port: 29051, Compression: config.CompressionOff,
						FrontEnd: config.FrontEndAuto, SplitBrain: config.SplitBrainNone, PeerTimeout: time.Second, IOTimeout: 30 * time.Second,
					},
				},
				{
					Name: "exec", Kind: config.KindExec, After: []cluster.ResourceName{"fip", "md"},
					Activation: config.Activation{Failovers: 1, FinalAction: cluster.ActionNone}, Deactivation: stopFails,
					StartTimeout: 30 * time.Minute, StopTimeout: 30 * time.Minute,
					Exec: &config.Exec{Start: "start.sh", Stop: "stop.sh", Mode: config.ExecSync, LogSizeMB: 10},
				},
			},
		}},
		Monitors: []config.Monitor{userspace(time.Second, nodes), nicLink("miiw-eth0", "eth0", nodes), nicLink("miiw-eth1", "eth1", nodes),
			watchMirror("mdw1", config.KindMirror, nodes), watchMirror("mdnw1", config.KindMirrorConnect, nodes)},
		Requests: config.Requests{ScriptDirectory: "/opt/nec/clusterpro/work/clptrnreq", ScriptTimeout: time.Minute},
	}
	got := example(t, "vmcluster.yaml")
	if d := cmp.Diff(want, got, sameFile); d != "" {
		t.Errorf("(-scenario +example):\n%s", d)
	}
	if w := got.Warnings(); len(w) != 2 || !strings.Contains(w[0].What, "both go on") || !strings.Contains(w[1].What, "split brain") {
		t.Errorf("want the two warnings of arbitration none, got %v", w)
	}
}

func watchMirror(name cluster.MonitorName, kind config.MonitorKind, nodes []cluster.NodeName) config.Monitor {
	return config.Monitor{
		Name: name, Kind: kind, Nodes: nodes, Interval: 10 * time.Second, Timeout: time.Minute,
		When: config.WhenAlways, Target: config.Target{Cluster: true}, Recovery: quietLadder, Mirror: &config.MirrorWatch{Resource: "md"},
	}
}

// The host of the reference scenario, value for value.
func TestExampleHost(t *testing.T) {
	nodes := []cluster.NodeName{"bay7-esx"}
	asks := func(m config.Monitor) config.Monitor {
		m.Recovery.BeforeFinal = "preaction.sh"
		return m
	}
	genw := func(name string) config.Monitor {
		return config.Monitor{
			Name: cluster.MonitorName(name), Kind: config.KindCustom, Nodes: nodes, Interval: 30 * time.Second, Timeout: time.Minute,
			When: config.WhenAlways, Target: config.Target{Cluster: true}, Recovery: quietLadder,
			Custom: &config.Custom{Script: "genw.sh", Mode: config.ExecSync, Normal: []int{0}, LogSizeMB: 10},
		}
	}
	want := &config.File{
		Cluster: "bay7-esx", Comment: "hypervisor host; the guests are not under its management", Port: 29002,
		Nodes:      []config.Node{{Name: "bay7-esx", Addresses: addrs("10.2.102.17"), Public: netip.MustParseAddr("10.2.102.17")}},
		FenceCheck: 5 * time.Minute,
		Takeover:   config.TakeoverLease,
		Quarantine: config.Quarantine{Failures: 3, Within: time.Hour, For: 2 * time.Hour},
		Timing:     defaultTiming,
		Monitors: []config.Monitor{
			userspace(90*time.Second, nodes),
			asks(nicLink("miiw-vmnic0", "vmnic0", nodes)),
			asks(nicLink("miiw-vmnic1", "vmnic1", nodes)),
			genw("genw-CLP1"), genw("genw-CLP2"),
		},
		Requests: config.Requests{ScriptDirectory: "scripts/requests", ScriptTimeout: time.Minute},
	}
	got := example(t, "bay7-esx.yaml")
	if d := cmp.Diff(want, got, sameFile); d != "" {
		t.Errorf("(-scenario +example):\n%s", d)
	}
	if w := got.Warnings(); len(w) != 0 {
		t.Errorf("unexpected warnings: %v", w)
	}
}

// Every example is accepted, and what stands for a good set-up gives no warning.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range files {
		example(t, filepath.Base(path))
	}
	for _, good := range []string{"minimal.yaml", "mirror.yaml"} {
		if w := example(t, good).Warnings(); len(w) != 0 {
			t.Errorf("%s: unexpected warnings: %v", good, w)
		}
	}
	mirror(t, example(t, "mirror.yaml"))
	data, err := os.ReadFile(filepath.Join(examples, "minimal.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), "\n"); n > 35 {
		t.Errorf("minimal.yaml has %d lines; two nodes and a group must fit into about 30", n)
	}
}

// mirror compares the mirror disk of the reference scenario with the values that
// an administrator of one expects where he writes none.
func mirror(t *testing.T, f *config.File) {
	t.Helper()
	want := &config.MirrorDisk{
		MirrorDevices: config.MirrorDevices{Data: "/dev/sda4", Meta: "/dev/sda3"}, Mount: "/data", FS: config.FSExt3,
		MountTimeout: 180 * time.Second, MountRetries: 3, UmountTimeout: 120 * time.Second, UmountRetries: 3,
		Fsck: config.FsckAuto, InitialCopy: true, Mode: config.MirrorSync, Queue: 2048 << 10, Port: 29051,
		Compression: config.CompressionOff, FrontEnd: config.FrontEndAuto, SplitBrain: config.SplitBrainNone,
		PeerTimeout: time.Second, IOTimeout: 30 * time.Second,
	}
	g := f.Group("failover")
	if d := cmp.Diff(want, g.Resource("md").MirrorDisk); d != "" {
		t.Errorf("(-scenario +example):\n%s", d)
	}
	for _, n := range []cluster.MonitorName{"mdw1", "mdnw1"} {
		m := f.Monitor(n)
		if d := cmp.Diff(quietLadder, m.Recovery); d != "" || !m.Target.Cluster || m.Mirror.Resource != "md" || !slices.Equal(m.Nodes, g.Nodes) || m.Interval == 0 {
			t.Errorf("%+v\n%s", m, d)
		}
	}
}

// The devices of a node are its own where it names them.
func TestMirrorDevicesOfANode(t *testing.T) {
	m := config.MirrorDisk{MirrorDevices: config.MirrorDevices{Data: "/d", Meta: "/m"}, PerNode: map[cluster.NodeName]config.MirrorDevices{"b": {Data: "/other"}}}
	if a, b := m.On("a"), m.On("b"); a != (config.MirrorDevices{Data: "/d", Meta: "/m"}) || b != (config.MirrorDevices{Data: "/other", Meta: "/m"}) {
		t.Errorf("%+v %+v", a, b)
	}
}

// The scripts of the scenario call the commands exactly as administrators'
// scripts do; they are complete as shells read them, and can be executed.
func TestExampleScripts(t *testing.T) {
	calls := map[string][]string{
		"clptrnreq/failover_message.sh": {`/usr/sbin/clplogcmd -m "Receive Failover Request from ESX" -l warn`},
	}
	for _, nic := range []string{"vmnic0", "vmnic1"} {
		calls["monitor.s/miiw-"+nic+"/preaction.sh"] = []string{
			"ulimit -s unlimited", `RESOURCE="exec"`, `GUESTS="10.2.102.51,10.2.102.52"`,
			`/usr/sbin/clplogcmd -m "Send Failover Request to CLP-1" -l warn`,
			"/usr/sbin/clptrnreq -t EXEC_SCRIPT -h $GUESTS -s failover_message.sh",
			"/opt/nec/clusterpro/bin/clptrnreq -t GRP_FAILOVER -r $RESOURCE -h $GUESTS", "exit 0",
		}
	}
	for _, file := range []string{"monitor.s/genw-CLP1/genw.sh", "monitor.s/genw-CLP2/genw.sh", "failover/exec/start.sh", "failover/exec/stop.sh"} {
		calls[file] = nil
	}
	for file, lines := range calls {
		path := filepath.Join(examples, "scripts", file)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if info, err := os.Stat(path); err != nil || info.Mode()&0o111 != 0o111 {
			t.Errorf("%s cannot be executed: %v", file, err)
		}
		shell, _, _ := strings.Cut(strings.TrimPrefix(string(data), "#!"), "\n")
		if out, err := exec.Command(shell, "-n", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", file, err, out)
		}
		rest := string(data)
		for _, line := range lines {
			_, after, ok := strings.Cut(rest, "\n"+line+"\n")
			if !ok {
				t.Errorf("%s: this line is missing, or not in its place: %s", file, line)
				continue
			}
			rest = "\n" + after
		}
	}
}

package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// pair is the head of files that test something else.
const pair = `cluster: web
nodes:
  alpha: {addresses: [192.168.10.1, 10.0.0.1]}
  beta: {addresses: [192.168.10.2, 10.0.0.2]}
  gamma: {addresses: [192.168.10.3, 10.0.0.3], witness: true}
`

func parse(t *testing.T, text string) *config.File {
	t.Helper()
	f, errs := config.Parse("cluster.yaml", []byte(text))
	if len(errs) > 0 {
		t.Fatalf("refused:\n%v\n%s", errs, text)
	}
	return f
}

func TestRefusedAsAWhole(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"not utf-8":     {"cluster: web\ncomment: caf\xe9\n", `f:2:13: the file is not UTF-8: byte 0xe9; save it as UTF-8`},
		"utf-16":        {"\xff\xfec\x00l\x00", `f:1:1: the file is not UTF-8: byte 0xff; save it as UTF-8`},
		"control":       {"cluster: web\x00\n", `f:1:13: the file holds a control character: 0x00; remove it`},
		"too large":     {strings.Repeat("#", config.MaxSize+1), fmt.Sprintf("f:1:1: the file has %d bytes, more than %d; a cluster file has some dozens of lines", config.MaxSize+1, config.MaxSize)},
		"nested deeply": {"a: " + strings.Repeat("[", 60) + strings.Repeat("]", 60), `f:1:36: the file is nested more than 32 levels deep`},
		"nothing":       {"", `f:1:1: the file is empty; a cluster file needs at least cluster: and nodes:`},
		"blanks":        {"\n  \n", `f:1:1: the file is empty; a cluster file needs at least cluster: and nodes:`},
		"tab in a list": {"cluster: web\nnodes:\n  alpha:\n    addresses:\n\t- 10.0.0.1\n", `f:5:1: a tab stands in the indentation; use spaces`},
		"quote":         {"cluster: \"web\nnodes: {}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, errs := config.Parse("f", []byte(c.data))
			if f != nil || len(errs) != 1 {
				t.Fatalf("want one error, got %d: %v", len(errs), errs)
			}
			if c.want != "" && errs.Error() != c.want {
				t.Errorf("want %s\n got %s", c.want, errs.Error())
			}
		})
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var text strings.Builder
	for i := range 5_000 {
		fmt.Fprintf(&text, "quantum%d: 1\n", i)
	}
	_, errs := config.Parse("f", []byte(text.String()))
	if len(errs) != config.MaxProblems {
		t.Fatalf("want %d problems, got %d", config.MaxProblems, len(errs))
	}
	last := errs[len(errs)-1]
	if !strings.Contains(last.What, "more problems") {
		t.Errorf("the last one must say how many are left out: %v", last)
	}
}

// Words that YAML 1.1 takes for something else are names here.
func TestWordsStayWords(t *testing.T) {
	f := parse(t, "cluster: 2010\nnodes:\n  no: {addresses: [10.0.0.1]}\n  1.5: {addresses: [10.0.0.2]}\n  0x10: {addresses: [10.0.0.3]}\n")
	if f.Cluster != "2010" || f.Nodes[0].Name != "no" || f.Nodes[1].Name != "1.5" || f.Nodes[2].Name != "0x10" {
		t.Errorf("got %v %v", f.Cluster, f.Nodes)
	}
}

func TestByteOrderMarkAndLineEnds(t *testing.T) {
	f := parse(t, "\ufeff"+strings.ReplaceAll(pair, "\n", "\r\n"))
	if f.Cluster != "web" || len(f.Nodes) != 3 {
		t.Errorf("got %+v", f)
	}
}

func TestOrderIsKept(t *testing.T) {
	var text strings.Builder
	text.WriteString(pair + "groups:\n")
	for i := range 20 {
		fmt.Fprintf(&text, "  g%d:\n    resources:\n", (i*7)%20)
		for j := range 10 {
			fmt.Fprintf(&text, "      r%d-%d: {kind: exec, start: a, stop: b}\n", i, (j*3)%10)
		}
	}
	f := parse(t, text.String())
	for i, g := range f.Groups {
		if want := fmt.Sprintf("g%d", (i*7)%20); string(g.Name) != want {
			t.Fatalf("group %d: want %s, got %s", i, want, g.Name)
		}
		for j, r := range g.Resources {
			if want := fmt.Sprintf("r%d-%d", i, (j*3)%10); string(r.Name) != want {
				t.Fatalf("resource %d: want %s, got %s", j, want, r.Name)
			}
		}
	}
}

func TestProfiles(t *testing.T) {
	ms := time.Millisecond
	for text, want := range map[string]config.Timing{
		"":                              {Profile: "default", Heartbeat: 100 * ms, Lease: time.Second, Isolate: 300 * ms, StartWait: time.Minute},
		"timing: {profile: steady}":     {Profile: "steady", Heartbeat: 300 * ms, Lease: 3 * time.Second, Isolate: 900 * ms, StartWait: time.Minute},
		"timing: {profile: fast}":       {Profile: "fast", Heartbeat: 25 * ms, Lease: 250 * ms, Isolate: 80 * ms, StartWait: time.Minute},
		"timing: {lease: 2s}":           {Profile: "default", Heartbeat: 100 * ms, Lease: 2 * time.Second, Isolate: 300 * ms, StartWait: time.Minute},
		"timing: {start_wait: 0}":       {Profile: "default", Heartbeat: 100 * ms, Lease: time.Second, Isolate: 300 * ms},
		"timing: {start_wait: 1m30.5s}": {Profile: "default", Heartbeat: 100 * ms, Lease: time.Second, Isolate: 300 * ms, StartWait: 90*time.Second + 500*ms},
	} {
		if d := cmp.Diff(want, parse(t, pair+text+"\n").Timing); d != "" {
			t.Errorf("%q (-want +got):\n%s", text, d)
		}
	}
}

// The numbers of CLUSTERPRO, and what each means for whom.
func TestFinalActionNumbers(t *testing.T) {
	all := map[int]cluster.FinalAction{
		1: cluster.ActionNone, 2: cluster.ActionStopGroup, 3: cluster.ActionStopDaemon, 4: cluster.ActionShutdown,
		5: cluster.ActionReboot, 8: cluster.ActionPanic, 9: cluster.ActionWatchdogReset,
	}
	for n := range 20 {
		activation := fmt.Sprintf("%sgroups:\n  g: {resources: {r: {kind: exec, start: a, stop: b, activation: {final_action: %d}}}}\nmonitors: {u: {kind: userspace, method: keepalive}}\n", pair, n)
		want := all[n]
		if n == 0 {
			want = cluster.ActionContinue
		}
		if f, errs := config.Parse("f", []byte(activation)); (want == "") != (len(errs) > 0) {
			t.Errorf("activation %d: %v", n, errs)
		} else if want != "" && f.Groups[0].Resources[0].Activation.FinalAction != want {
			t.Errorf("activation %d: want %s, got %s", n, want, f.Groups[0].Resources[0].Activation.FinalAction)
		}
		monitor := fmt.Sprintf("%sgroups:\n  g: {resources: {r: {kind: exec, start: a, stop: b}}}\nmonitors:\n  m: {kind: custom, script: c, target: {resource: r}, recovery: {final_action: %d}}\n  u: {kind: userspace, method: keepalive}\n", pair, n)
		want = all[n]
		switch n {
		case 0:
			want = cluster.ActionNone
		case 16:
			want = cluster.ActionStopResource
		}
		if f, errs := config.Parse("f", []byte(monitor)); (want == "") != (len(errs) > 0) {
			t.Errorf("monitor %d: %v", n, errs)
		} else if want != "" && f.Monitors[0].Recovery.FinalAction != want {
			t.Errorf("monitor %d: want %s, got %s", n, want, f.Monitors[0].Recovery.FinalAction)
		}
	}
}

func TestDefaultsThatDepend(t *testing.T) {
	f := parse(t, pair+`
timing: {profile: steady, lease: 3500ms}
groups:
  web:
    resources:
      app: {kind: exec, start: a, mode: async, activation: {failovers: nodes}}
monitors:
  a: {kind: userspace, method: softdog, nodes: [alpha]}
  b: {kind: userspace, method: keepalive, nodes: [beta]}
  c: {kind: custom, script: c, recovery: {script: repair.sh}}
  d: {kind: nic-link, per_node: {alpha: eth0, beta: ens3}}
`)
	if got := f.Groups[0].Nodes; len(got) != 2 {
		t.Errorf("a group without nodes runs on all but witnesses, got %v", got)
	}
	if got := f.Groups[0].Resources[0].Activation.Failovers; got != config.AsManyAsNodes {
		t.Errorf("failovers: nodes: got %d", got)
	}
	if u := f.Monitor("a").UserSp; u.Timeout != 4*time.Second || u.Device != "/dev/watchdog" {
		t.Errorf("softdog: %+v", u)
	}
	if u := f.Monitor("b").UserSp; u.Timeout != 3500*time.Millisecond || u.Device != "" {
		t.Errorf("keepalive: %+v", u)
	}
	if r := f.Monitor("c").Recovery; r.Scripts != 1 || r.Restarts != 3 || r.Failovers != 1 {
		t.Errorf("recovery: %+v", r)
	}
	if d := cmp.Diff(map[cluster.NodeName]string{"alpha": "eth0", "beta": "ens3"}, f.Monitor("d").NICLink.PerNode); d != "" {
		t.Error(d)
	}
	if got := f.Node("alpha").Public.String(); got != "10.0.0.1" {
		t.Errorf("public: %s", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(pair))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? {a: b}\n: c\n"))
	for _, name := range seeds(f) {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, errs := config.Parse("f", data)
		if (file == nil) != (len(errs) > 0) {
			t.Fatalf("a file or errors, not both or none: %v", errs)
		}
		if file == nil {
			for _, e := range errs {
				if e.Line < 1 || e.Column < 1 || e.What == "" {
					t.Fatalf("without position or text: %+v", e)
				}
			}
			return
		}
		if d := config.Diff(file, file); len(d) > 0 {
			t.Fatalf("a file differs from itself: %v", d)
		}
		if again, errs := config.Parse("f", data); len(errs) > 0 || len(config.Diff(file, again)) > 0 {
			t.Fatal("the same bytes gave another file")
		}
	})
}

package lab_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// play pulls a cable and checks what the issue of the scenario is: every line
// of the original log, the group on the other guest, and nothing else moved.
func play(t *testing.T, s *demo.Stage, run demo.Run, from, to string) {
	t.Helper()
	r, err := s.Play(t.Context(), run)
	must(t, err)
	if r.Before != from || r.After != to {
		t.Errorf("the service went from %s to %s", r.Before, r.After)
	}
	if r.OwnMS <= 0 || r.OwnMS > r.OutageMS || r.Others != 0 {
		t.Errorf("own %v ms of %v ms, %d other outages", r.OwnMS, r.OutageMS, r.Others)
	}
	for _, l := range r.Lines {
		if l.Missing() {
			t.Errorf("this line of the original is missing: %s %s %s", l.Node, l.Module, l.Text)
		}
	}
	if w := r.Writes; w == nil || w.Acknowledged < 100 || w.Lost != 0 {
		t.Errorf("writes to the mirror disk: %+v", w)
	}
	for _, g := range s.Guests {
		must(t, s.Until(t.Context(), g+" knows the new owner", func() (bool, error) {
			return string(s.Active(t.Context(), g)) == to, nil
		}))
	}
	t.Logf("outage %.0f ms, own %.0f ms; %+v", r.OutageMS, r.OwnMS, *r.Writes)
}

func TestReference(t *testing.T) {
	s := reference(t, "CLP-1")
	play(t, s, demo.Run{NIC: "vmnic1", Start: "CLP-1"}, "CLP-1", "CLP-2")
	story := do(t, s, "CLP-2", "tasuki", "explain")
	last := -1
	for _, part := range []string{"NIC vmnic1 link was down", "Send Failover Request", "There was a request to move group(failover)", "Stopping group failover has started", "Moving group failover has completed"} {
		at := strings.Index(story, part)
		if at <= last {
			t.Errorf("explain does not tell %q, or not in its place:\n%s", part, story)
		}
		last = at
	}
	// The other cable, when all is well again.
	must(t, s.Reset(t.Context(), "vmnic1"))
	play(t, s, demo.Run{NIC: "vmnic0", Start: "CLP-1"}, "CLP-1", "CLP-2")
}

func TestGroupOnTheOtherGuest(t *testing.T) {
	play(t, reference(t, "CLP-2"), demo.Run{NIC: "vmnic1", Start: "CLP-2"}, "CLP-2", "CLP-1")
}

// otherNames says what replaces what in the examples for the layout "other",
// which shares no name and no address with the reference.
var otherNames = []string{
	"bay7-esx", "oslo", "VMcluster", "shopping", "CLP-1", "shop-a", "CLP-2", "shop-b", "genw-CLP1", "guest-a", "genw-CLP2", "guest-b",
	"miiw-vmnic0", "bone-cable", "miiw-vmnic1", "office-cable", "vmnic0", "ens2", "vmnic1", "ens1", "eth0", "net0", "eth1", "net1",
	"192.168.10.1,", "100.64.9.21,", "192.168.10.2,", "100.64.9.22,", "10.2.102.51", "172.30.7.21", "10.2.102.52", "172.30.7.22",
	"10.2.102.17", "172.30.7.11", "10.2.102.50", "172.30.7.50", "failover:\n    nodes", "shop:\n    nodes", "      fip:", "      ip:", "[fip,", "[ip,", "/dev/sda4", "/dev/vdc2", "/dev/sda3", "/dev/vdc1",
	"      exec: #", "      web: #", `RESOURCE="exec"`, `RESOURCE="web"`,
}

func TestOtherNames(t *testing.T) {
	s := &demo.Stage{
		Lab: up(t, "other"), Host: "oslo", Guests: []string{"shop-a", "shop-b"}, Client: "desk", URL: "http://172.30.7.50/",
		Names: otherNames, Group: "shop", Resource: "web",
	}
	must(t, s.Build(t.Context(), quiet))
	play(t, s, demo.Run{NIC: "ens1"}, "shop-a", "shop-b")
}

// A cable that is out for less than the monitor's debounce moves nothing; one
// that is out for longer does.
func TestFlap(t *testing.T) {
	s := plain(t, "CLP-1")
	file := "bay7-esx.yaml"
	before := do(t, s, s.Host, "tasuki", "config", "show")
	with := strings.Replace(before, "    device: vmnic1\n", "    device: vmnic1\n    debounce: 2s\n", 1)
	must(t, s.Lab.WriteFile(t.Context(), s.Host, "/root/"+file, 0o644, []byte(with)))
	do(t, s, s.Host, "tasuki", "config", "apply", "--yes", "/root/"+file)
	for range 5 {
		must(t, s.Lab.Pull(t.Context(), s.Host, "vmnic1"))
		<-time.After(200 * time.Millisecond)
		must(t, s.Lab.Plug(t.Context(), s.Host, "vmnic1"))
		<-time.After(100 * time.Millisecond)
	}
	stays(t, s, "CLP-1", 2500*time.Millisecond)
	for _, m := range []string{s.Host, "CLP-1"} {
		if n := count(t, s, m, "monitor-bad") + count(t, s, m, "request-sent") + count(t, s, m, "request-move"); n != 0 {
			t.Errorf("%s took a flap for a fault %d times", m, n)
		}
	}
	must(t, s.Lab.Pull(t.Context(), s.Host, "vmnic1"))
	activeOn(t, s, "CLP-2")
}

// The first address of a host that is asked may be dead: the request arrives
// by another one that the link knows.
func TestAnotherPath(t *testing.T) {
	s := plain(t, "CLP-1")
	public := netip.MustParsePrefix("10.2.102.0/24")
	for _, g := range s.Guests {
		must(t, s.Lab.Cut(t.Context(), s.Host, g, lab.On(public)))
	}
	out := do(t, s, s.Host, "/usr/sbin/clptrnreq", "-t", "GRP_FAILOVER", "-r", "exec", "-h", "10.2.102.52,10.2.102.51")
	t.Log(out)
	activeOn(t, s, "CLP-2")
	e := told(t, s, "CLP-2", "request-move", "There was a request to move group(failover)")
	if !strings.Contains(e.Text, "192.168.10.101") {
		t.Errorf("it did not come over the interconnect: %s", e.Text)
	}
}

// The same request, sent again with its id, acts once and is answered the same.
func TestTwiceIsOnce(t *testing.T) {
	s := plain(t, "CLP-1")
	first := do(t, s, s.Host, "tasuki", "request", "failover", "--group", "failover", "--host", "CLP-1,CLP-2", "--id", "order-66")
	activeOn(t, s, "CLP-2")
	again := do(t, s, s.Host, "tasuki", "request", "failover", "--group", "failover", "--host", "CLP-2,CLP-1", "--id", "order-66")
	stays(t, s, "CLP-2", time.Second)
	if n := count(t, s, "CLP-2", "group-move-begun"); n != 1 {
		t.Errorf("moved %d times", n)
	}
	t.Logf("%s\n%s", first, again)
}

// Moves by plan, there and back, with nothing missing in any log.
func TestAHundredMoves(t *testing.T) {
	const moves = 100
	s := plain(t, "CLP-1")
	before, err := s.Events(t.Context(), "CLP-1")
	must(t, err)
	began := time.Now()
	for i := range moves {
		to := s.Guests[(i+1)%2]
		do(t, s, s.Guests[i/2%2], "tasuki", "group", "move", "failover", "--to", to)
	}
	t.Logf("%d moves in %v", moves, time.Since(began))
	want := map[string]int{
		"group-move-begun": moves, "group-stop-begun": moves, "group-stop-done": moves, "group-start-begun": moves,
		"group-start-done": moves, "group-move-done": moves, "resource-started": 2 * moves, "resource-stopped": 2 * moves,
	}
	var logs [2][]string
	for i, g := range s.Guests {
		must(t, s.Until(t.Context(), g+" holds every event", func() (bool, error) {
			events, err := s.Events(t.Context(), g)
			if err != nil {
				return false, err
			}
			got := map[string]int{}
			logs[i] = nil
			for _, e := range events[len(before):] {
				got[e.Code]++
				logs[i] = append(logs[i], fmt.Sprintf("%s %s", e.ID, e.Text))
			}
			for code, n := range want {
				if got[code] > n {
					return false, fmt.Errorf("%s: %d of %s", g, got[code], code)
				}
				if got[code] < n {
					return false, nil
				}
			}
			return true, nil
		}))
		slices.Sort(logs[i])
		if dup := len(logs[i]) - len(slices.Compact(slices.Clone(logs[i]))); dup != 0 {
			t.Errorf("%s holds %d events twice", g, dup)
		}
	}
	if !slices.Equal(logs[0], logs[1]) {
		t.Error("the two logs differ")
	}
	// Every node numbers its events without a gap.
	for _, g := range s.Guests {
		events, err := s.Events(t.Context(), g)
		must(t, err)
		next := map[cluster.NodeName]uint64{}
		for _, e := range events {
			var seq uint64
			_, after, _ := strings.Cut(string(e.ID), "/")
			if _, err := fmt.Sscan(after, &seq); err != nil {
				t.Fatal(e.ID, err)
			}
			if last, seen := next[e.Node]; seen && seq != last+1 && e.Node != cluster.NodeName(s.Host) {
				t.Errorf("%s: %s follows %d", g, e.ID, last)
			}
			next[e.Node] = seq
		}
	}
}

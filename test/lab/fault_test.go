package lab_test

import (
	"flag"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

const service = "http://10.2.102.50/"

// oneAtATime fails the test if, once a node has answered, another one that
// answered before it answers again.
func oneAtATime(t *testing.T, samples []demo.Sample, order ...string) {
	t.Helper()
	at := 0
	slices.SortStableFunc(samples, func(a, b demo.Sample) int { return a.Sent.Compare(b.Sent) })
	for _, x := range samples {
		if !x.OK() || x.Node == order[at] {
			continue
		}
		if at+1 == len(order) || x.Node != order[at+1] {
			t.Fatalf("%s answered at %v after %v", x.Node, x.Sent, order[:at+1])
		}
		at++
	}
	if at+1 != len(order) {
		t.Errorf("only %v answered", order[:at+1])
	}
}

// A crash of the active guest: the power goes, and with it its links.
func TestCrashAndReturn(t *testing.T) {
	s := plain(t, "CLP-1")
	client := ask(t, s, service)
	must(t, s.Lab.Kill(t.Context(), "CLP-1"))
	crashed := time.Now()
	activeOn(t, s, "CLP-2")
	t.Logf("active on the other node %v after the crash", time.Since(crashed))
	must(t, s.Lab.Boot(t.Context(), "CLP-1"))
	must(t, s.Until(t.Context(), "CLP-1 is standby again", func() (bool, error) {
		st, err := s.Status(t.Context(), "CLP-1")
		return err == nil && owner(st, "failover") == "CLP-2" && everyNode(st, isUp), nil
	}))
	stays(t, s, "CLP-2", time.Second) // no failback by itself
	do(t, s, "CLP-1", "tasuki", "group", "move", "failover", "--to", "CLP-1")
	if _, err := client.Await(t.Context(), 20); err != nil {
		t.Error(err)
	}
	oneAtATime(t, client.stop(), "CLP-1", "CLP-2", "CLP-1")
}

// The daemon is killed and started again: what it runs goes on, untouched.
func TestDaemonKilled(t *testing.T) {
	s := plain(t, "CLP-1")
	apache := do(t, s, "CLP-1", "sh", "-c", "cat /run/tasuki-apache/*/apache2.pid")
	client := ask(t, s, service)
	for range 10 {
		svc, err := s.Lab.Service(t.Context(), "CLP-1", "status")
		must(t, err)
		do(t, s, "CLP-1", "kill", "-KILL", strconv.Itoa(svc.PID))
		must(t, s.Until(t.Context(), "another daemon answers", func() (bool, error) {
			now, err := s.Lab.Service(t.Context(), "CLP-1", "status")
			if err != nil {
				return false, err
			}
			_, answers := s.Status(t.Context(), "CLP-1")
			return now.PID != 0 && now.PID != svc.PID && answers == nil, nil
		}))
		activeOn(t, s, "CLP-1")
	}
	stays(t, s, "CLP-1", 2*time.Second)
	if now := do(t, s, "CLP-1", "sh", "-c", "cat /run/tasuki-apache/*/apache2.pid"); now != apache {
		t.Errorf("the application was restarted: %s, then %s", apache, now)
	}
	samples := client.stop()
	oneAtATime(t, samples, "CLP-1")
	for _, x := range samples {
		if !x.OK() {
			t.Fatalf("the service was not there at %v: %s", x.Sent, x.Why)
		}
	}
	if n := count(t, s, "CLP-2", "group-start-begun"); n != 1 {
		t.Errorf("the group was started %d times", n)
	}
}

// A guest that stands still for longer than its lease finds another owner when
// it goes on, and gives up before a client can reach it.
func TestStandstill(t *testing.T) {
	s := built(t, "witness", witnessFile, "n1", "n2", "w")
	first := string(s.Active(t.Context(), "n1"))
	other := map[string]string{"n1": "n2", "n2": "n1"}[first]
	client := ask(t, s, "http://10.20.1.50/")
	must(t, s.Lab.Pause(t.Context(), first))
	activeOn(t, s, other)
	if _, err := client.Await(t.Context(), 50); err != nil {
		t.Error(err)
	}
	must(t, s.Lab.Resume(t.Context(), first))
	must(t, s.Until(t.Context(), first+" is standby", func() (bool, error) {
		st, err := s.Status(t.Context(), first)
		return err == nil && string(owner(st, "g")) == other && everyNode(st, isUp), nil
	}))
	told(t, s, first, "stalled", "was paused")
	stays(t, s, other, time.Second)
	oneAtATime(t, client.stop(), first, other)
}

// frozenFor is how long the daemon of TestFrozenDaemon stands still; go test ./test/lab -args -frozen 60s.
var frozenFor = flag.Duration("frozen", 10*time.Second, "how long a daemon stands still")

// A daemon that stands still for half a second loses nothing;
// one that stands still for long is replaced by the other node, and
// holds nothing when it goes on.
func TestFrozenDaemon(t *testing.T) {
	s := built(t, "witness", witnessFile, "n1", "n2", "w")
	first := string(s.Active(t.Context(), "n1"))
	other := map[string]string{"n1": "n2", "n2": "n1"}[first]
	freeze := func(d time.Duration, during func()) {
		svc, err := s.Lab.Service(t.Context(), first, "status")
		must(t, err)
		do(t, s, first, "kill", "-STOP", strconv.Itoa(svc.PID))
		end := time.After(d)
		during()
		<-end
		do(t, s, first, "kill", "-CONT", strconv.Itoa(svc.PID))
	}
	starts := count(t, s, "w", "group-start-begun")
	for range 3 {
		freeze(500*time.Millisecond, func() {})
		stays(t, s, first, time.Second)
	}
	if n := count(t, s, "w", "group-start-begun"); n != starts {
		t.Errorf("a short standstill started the group %d times", n-starts)
	}
	freeze(*frozenFor, func() { activeOn(t, s, other) })
	must(t, s.Until(t.Context(), first+" holds nothing", func() (bool, error) {
		r, err := s.Lab.Exec(t.Context(), first, "sh", "-c", "ip -o address | grep -F 10.20.1.50/; pgrep -x apache2")
		return err == nil && len(r.Stdout) == 0, err
	}))
	must(t, s.Until(t.Context(), first+" is standby", func() (bool, error) {
		st, err := s.Status(t.Context(), first)
		return err == nil && string(owner(st, "g")) == other && everyNode(st, isUp), nil
	}))
	stays(t, s, other, time.Second)
}

// A daemon that makes no progress, without being dead, is ended by the
// watchdog, with its node. A third of a second is not so long.
func TestKeepalive(t *testing.T) {
	s := plain(t, "CLP-1")
	svc, err := s.Lab.Service(t.Context(), "CLP-1", "status")
	must(t, err)
	// It is borne whenever it comes: what was acknowledged last may be 300 ms old, and 700 ms are.
	do(t, s, "CLP-1", "sh", "-c", "kill -STOP $0; sleep 0.35; kill -CONT $0", strconv.Itoa(svc.PID))
	stays(t, s, "CLP-1", time.Second)
	selfReset(t, s, "CLP-1", "CLP-2")
	do(t, s, "CLP-2", "tasuki", "group", "move", "failover") // once is not too often
	activeOn(t, s, "CLP-1")
	selfReset(t, s, "CLP-1", "CLP-2")
	told(t, s, "CLP-2", "node-quarantined", "its own watchdog has reset it 2 times in a row")
	r, err := s.Lab.Exec(t.Context(), "CLP-2", "tasuki", "group", "move", "failover")
	if err != nil || r.Code == 0 || !strings.Contains(r.Stderr, "quarantined until it is released") {
		t.Errorf("a move to it: %+v, %v", r, err)
	}
	do(t, s, "CLP-1", "tasuki", "node", "release", "CLP-1")
	do(t, s, "CLP-1", "tasuki", "group", "move", "failover")
	activeOn(t, s, "CLP-1")
}

// selfReset stops the daemon of an active node, and waits until the node is back
// as the standby of the other one.
func selfReset(t *testing.T, s *demo.Stage, node, other string) {
	t.Helper()
	before, err := s.Lab.Machine(t.Context(), node)
	must(t, err)
	svc, err := s.Lab.Service(t.Context(), node, "status")
	must(t, err)
	do(t, s, node, "kill", "-STOP", strconv.Itoa(svc.PID))
	stopped := time.Now()
	must(t, s.Until(t.Context(), "the node was reset", func() (bool, error) {
		m, err := s.Lab.Machine(t.Context(), node)
		return err == nil && m.Boots > before.Boots, nil
	}))
	t.Logf("reset %v after its daemon stood still", time.Since(stopped))
	activeOn(t, s, other)
	must(t, s.Until(t.Context(), node+" is standby again", func() (bool, error) {
		st, err := s.Status(t.Context(), node)
		return err == nil && string(owner(st, "failover")) == other && everyNode(st, isUp), nil
	}))
}

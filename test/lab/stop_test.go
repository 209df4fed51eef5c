package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// stopFile is two nodes and a witness with a script resource of its own, whose
// stop has two seconds. No monitor resets a node.
const stopFile = `cluster: stops
nodes:
  n1: {addresses: [10.20.2.1, 10.20.1.1]}
  n2: {addresses: [10.20.2.2, 10.20.1.2]}
  w: {addresses: [10.20.2.3, 10.20.1.3], witness: true}
groups:
  g:
    nodes: [n1, n2]
    resources:
      ip: {kind: floating-ip, address: 10.20.1.50}
      job: {kind: exec, after: [ip], start: start.sh, stop: stop.sh, stop_timeout: 2s, deactivation: {final_action: reboot}}
`

// children leaves a process in its session and one that left it; both do what a
// service does: they hold a lock, which on another node would be data.
const children = `#!/bin/sh
sleep 1000 &
echo $! >/run/job.pid
setsid sleep 1001 &
`

// stops builds the cluster with these scripts of resource job.
func stops(t *testing.T, start, stop string) *demo.Stage {
	t.Helper()
	s := &demo.Stage{Lab: up(t, "witness"), Guests: []string{"n1", "n2", "w"}, Client: "client", Group: "g", Resource: "job"}
	for _, m := range s.Guests {
		for name, text := range map[string]string{"start.sh": start, "stop.sh": stop} {
			must(t, s.Lab.WriteFile(t.Context(), m, "/etc/tasuki/scripts/g/job/"+name, 0o755, []byte(text)))
		}
	}
	must(t, s.Cluster(t.Context(), []byte(stopFile), quiet, s.Guests...))
	must(t, s.Until(t.Context(), "the group is active and all nodes are up", func() (bool, error) {
		st, err := s.Status(t.Context(), "n1")
		return err == nil && owner(st, "g") != "" && everyNode(st, isUp), nil
	}))
	if st := s.Active(t.Context(), "n1"); st != "n1" {
		do(t, s, "n1", "tasuki", "group", "move", "g", "--to", "n1")
	}
	return s
}

// sleepers counts what the start script left behind on a machine.
func sleepers(t *testing.T, s *demo.Stage, machine string) int {
	t.Helper()
	out := do(t, s, machine, "sh", "-c", `cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' '`)
	return strings.Count(out, "sleep 1000") + strings.Count(out, "sleep 1001")
}

// A stop script that fails, or hangs, and children that left their session
// (F85, F88): force ends them, no node is lost, and the group goes on.
func TestStopByForce(t *testing.T) {
	for name, stop := range map[string]string{"fails": "#!/bin/sh\nexit 1\n", "hangs": "#!/bin/sh\nsleep 1000\n"} {
		t.Run(name, func(t *testing.T) {
			s := stops(t, children, stop)
			if n := sleepers(t, s, "n1"); n != 2 {
				t.Fatalf("%d processes of the job", n)
			}
			began := time.Now()
			do(t, s, "n1", "tasuki", "group", "move", "g", "--to", "n2")
			activeOn(t, s, "n2")
			t.Logf("moved %v after it was asked for", time.Since(began))
			if n := sleepers(t, s, "n1"); n != 0 {
				t.Errorf("%d processes of the job are left", n)
			}
			forced := told(t, s, "n1", "resource-forced", "job")
			if !strings.Contains(forced.Text, "sleep") {
				t.Errorf("it is not told what was ended: %s", forced.Text)
			}
			if cause := told(t, s, "n1", "resource-stop-force", "job"); forced.Cause != cause.ID || cause.Cause == "" {
				t.Errorf("the chain is broken: %s because of %s because of %q", forced.ID, forced.Cause, cause.Cause)
			}
			if n := count(t, s, "n1", "final-action"); n != 0 {
				t.Error("the node was given up")
			}
		})
	}
}

// The start script gave the service to somebody who is not its child, so force
// finds nothing and guesses nothing: the group is isolated, the node takes its
// final action, and only then the group starts elsewhere (F85).
func TestStopThatForceCannotHelp(t *testing.T) {
	s := stops(t, "#!/bin/sh\nexit 0\n", "#!/bin/sh\nexit 1\n")
	before, err := s.Lab.Machine(t.Context(), "n1")
	must(t, err)
	_, err = s.Lab.Exec(t.Context(), "n2", "tasuki", "group", "move", "g", "--to", "n2") // it fails, or loses its node
	must(t, err)
	must(t, s.Until(t.Context(), "n1 was rebooted", func() (bool, error) {
		m, err := s.Lab.Machine(t.Context(), "n1")
		return err == nil && m.Boots > before.Boots, nil
	}))
	activeOn(t, s, "n2")
	for _, code := range []string{"resource-stop-force", "resource-not-forced", "group-isolated", "final-action"} {
		told(t, s, "n2", code, "")
	}
}

// A daemon is to be stopped, as at a shutdown, while the stop of a resource
// hangs (F15): that takes the time limit and force, not longer.
func TestShutdownHangs(t *testing.T) {
	s := stops(t, children, "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n")
	began := time.Now()
	_, err := s.Lab.Service(t.Context(), "n1", "stop")
	must(t, err)
	activeOn(t, s, "n2")
	took := time.Since(began)
	t.Logf("the group was active elsewhere %v after the stop of the daemon was asked for", took)
	if took > 2*time.Second+10*time.Second+5*time.Second {
		t.Errorf("it took %v", took)
	}
	if n := sleepers(t, s, "n1"); n != 0 {
		t.Errorf("%d processes of the job are left", n)
	}
}

// Every process of the active node stands still, but its kernel lives and goes
// on answering for the address: the service comes back on the other node, and
// the first one gives the address up when it goes on.
func TestStalledNodeStillAnswers(t *testing.T) {
	s := built(t, "witness", witnessFile, "n1", "n2", "w")
	first := string(s.Active(t.Context(), "n1"))
	other := map[string]string{"n1": "n2", "n2": "n1"}[first]
	client := ask(t, s, "http://10.20.1.50/")
	do(t, s, first, "sh", "-c", "kill -STOP -1") // all of this machine's namespace but the caller
	stalled := time.Now()
	activeOn(t, s, other)
	t.Logf("active on %s %v after %s stood still", other, time.Since(stalled), first)
	claimed := told(t, s, other, "address-claimed", "10.20.1.50")
	if !strings.Contains(claimed.Text, fmt.Sprintf("(node %s)", first)) {
		t.Errorf("it is not told who answered: %s", claimed.Text)
	}
	must(t, s.Until(t.Context(), "the other node serves", func() (bool, error) {
		_, err := client.Await(t.Context(), 1)
		return err == nil, nil
	}))
	do(t, s, first, "sh", "-c", "kill -CONT -1")
	must(t, s.Until(t.Context(), first+" is standby", func() (bool, error) {
		st, err := s.Status(t.Context(), first)
		return err == nil && owner(st, "g") == cluster.NodeName(other) && everyNode(st, isUp), nil
	}))
	told(t, s, other, "address-conflict-over", "10.20.1.50")
	if out := do(t, s, first, "ip", "-o", "address"); strings.Contains(out, "10.20.1.50") {
		t.Errorf("%s has the address still:\n%s", first, out)
	}
	client.stop()
}

package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
	"github.com/tasuki-ha/tasuki/internal/witness"
)

// sharedFile is cluster a or b, whose witness listens on a port of its own.
func sharedFile(name string, first, port int) string {
	return fmt.Sprintf(`cluster: %[1]s
nodes:
  %[1]s1: {addresses: [10.40.2.%[2]d, 10.40.1.%[2]d]}
  %[1]s2: {addresses: [10.40.2.%[3]d, 10.40.1.%[3]d]}
  w: {addresses: [10.40.2.3, 10.40.1.3], witness: true, port: %[4]d}
groups:
  g:
    nodes: [%[1]s1, %[1]s2]
    resources:
      ip: {kind: floating-ip, address: 10.40.1.%[5]d}
      web: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}
`, name, first, first+1, port, first+50)
}

// witnessed makes both clusters and has w join them; they are on one stage each.
func witnessed(t *testing.T) (a, b *demo.Stage) {
	t.Helper()
	l := up(t, "witnesses")
	for i, name := range []string{"a", "b"} {
		s := &demo.Stage{Lab: l, Guests: []string{name + "1", name + "2"}, Client: "client", Group: "g", Resource: "web"}
		for _, m := range s.Guests {
			must(t, s.Scripts(t.Context(), m))
		}
		must(t, s.Cluster(t.Context(), []byte(sharedFile(name, 1+10*i, 29012+10*i)), quiet, s.Guests...))
		if i == 0 {
			a = s
		} else {
			b = s
		}
	}
	joinWitness(t, a)
	_, err := l.Service(t.Context(), "w", "start")
	must(t, err)
	allUp(t, a)
	joinWitness(t, b) // while the process runs
	allUp(t, b)
	return a, b
}

func joinWitness(t *testing.T, s *demo.Stage) {
	t.Helper()
	token := strings.TrimSpace(do(t, s, s.Guests[0], "tasuki", "token", "join", "--node", "w"))
	do(t, s, "w", "tasuki", "witness", "join", token, "--node", "w")
}

func allUp(t *testing.T, s *demo.Stage) {
	t.Helper()
	must(t, s.Until(t.Context(), "the group is active and all have a vote", func() (bool, error) {
		st, err := s.Status(t.Context(), s.Guests[0])
		return err == nil && owner(st, "g") != "" && everyNode(st, isUp) && st.Survives == 1, nil
	}))
}

// seen is what the witness machine shows of all its clusters.
func seen(t *testing.T, s *demo.Stage) (list []witness.Seen) {
	t.Helper()
	must(t, json.Unmarshal([]byte(do(t, s, "w", "tasuki", "witness", "list", "--json")), &list))
	return list
}

// missing waits until a node says that the witness is silent, and that nothing
// more can be survived.
func missing(t *testing.T, s *demo.Stage, node string) {
	t.Helper()
	told(t, s, node, "node-down", "w")
	var st api.Status
	must(t, s.Until(t.Context(), "the status shows that the witness is lost", func() (ok bool, err error) {
		st, err = s.Status(t.Context(), node)
		return err == nil && st.Quorum && st.Survives == 0 && strings.Contains(st.Why, "witness w is silent"), nil
	}))
}

// One process is the witness of two clusters: with it each survives the crash of
// its active node; without it nothing stops; it comes back with its state, or
// with none.
func TestOneWitnessOfTwoClusters(t *testing.T) {
	a, b := witnessed(t)
	list := seen(t, a)
	if len(list) != 2 || !list[0].Counts() || !list[1].Counts() || list[0].LastContact().IsZero() {
		t.Fatalf("tasuki witness list shows %+v", list)
	}
	t.Logf("%s", do(t, a, "w", "tasuki", "witness", "list"))

	killWitness(t, a)
	for _, s := range []*demo.Stage{a, b} {
		allUp(t, s)
		if n := count(t, s, s.Guests[0], "state-received"); n != 2 {
			t.Errorf("a witness that was killed should come back with its state: the state was sent %d times, to begin with to two", n)
		}
	}

	// One cluster's state is damaged: the other one's witness does not notice.
	_, err := a.Lab.Service(t.Context(), "w", "stop")
	must(t, err)
	missing(t, a, "a1")
	do(t, a, "w", "sh", "-c", "cp /var/lib/tasuki/witness/a/raft.db /root/; head -c 4096 /dev/urandom > /var/lib/tasuki/witness/a/raft.db")
	_, err = a.Lab.Service(t.Context(), "w", "start")
	must(t, err)
	allUp(t, b)
	must(t, a.Until(t.Context(), "the damage is told of", func() (bool, error) {
		list := seen(t, a)
		return list[0].Failure != nil && list[0].Status == nil && list[1].Counts(), nil
	}))
	t.Logf("%s", do(t, a, "w", "tasuki", "witness", "list"))

	// Wiped and joined anew, it votes again: a crash is survived.
	do(t, a, "w", "tasuki", "witness", "leave", "a", "--force")
	do(t, a, "w", "sh", "-c", "! ls -d /etc/tasuki/witness/a /var/lib/tasuki/witness/a /run/tasuki/witness/a")
	joinWitness(t, a)
	allUp(t, a)
	for _, s := range []*demo.Stage{a, b} {
		active := string(s.Active(t.Context(), s.Guests[0]))
		other := map[string]string{s.Guests[0]: s.Guests[1], s.Guests[1]: s.Guests[0]}[active]
		must(t, s.Lab.Kill(t.Context(), active))
		activeOn(t, s, other)
		must(t, s.Lab.Boot(t.Context(), active))
		allUp(t, s)
	}

	do(t, b, "w", "tasuki", "witness", "leave", "b")
	st, err := b.Status(t.Context(), "b1")
	must(t, err)
	if n := st.Nodes[2]; n.Voter || n.State != cluster.NodeLeft {
		t.Errorf("a witness that left by plan is %+v", n)
	}
	if list := seen(t, a); len(list) != 1 || !list[0].Counts() {
		t.Errorf("after leaving b: %+v", list)
	}
}

// killWitness kills the witness process: no group stops and the status shows it,
// until the process is back.
func killWitness(t *testing.T, s *demo.Stage) {
	t.Helper()
	svc, err := s.Lab.Service(t.Context(), "w", "status")
	must(t, err)
	// It is kept from coming back at once, so that its loss is noticed.
	do(t, s, "w", "sh", "-c", "mv /etc/tasuki/witness /etc/tasuki/away; kill -KILL "+strconv.Itoa(svc.PID))
	missing(t, s, "a1")
	stays(t, s, string(s.Active(t.Context(), "a1")), 2*time.Second)
	do(t, s, "w", "mv", "/etc/tasuki/away", "/etc/tasuki/witness")
}

const besideFile = `cluster: host
nodes:
  w: {addresses: [10.20.1.3]}
groups:
  own: {resources: {app: {kind: exec, start: /usr/bin/true}}}
`

// A machine with a daemon of its own, a cluster of one, is the witness of
// another cluster beside it.
func TestWitnessBesideADaemon(t *testing.T) {
	file := strings.Replace(witnessFile, "witness: true", "witness: true, port: 29012", 1)
	s := &demo.Stage{Lab: up(t, "witness"), Guests: []string{"n1", "n2"}, Client: "client", Group: "g", Resource: "web"}
	for _, m := range s.Guests {
		must(t, s.Scripts(t.Context(), m))
	}
	must(t, s.Cluster(t.Context(), []byte(file), quiet, s.Guests...))
	must(t, s.Cluster(t.Context(), []byte(besideFile), quiet, "w"))
	joinWitness(t, s)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	p, err := s.Lab.Run(ctx, lab.Cmd{Machine: "w", Argv: []string{"tasuki", "witness", "run"}})
	must(t, err)
	defer p.Wait() //nolint:errcheck // it ends with ctx
	defer stop()
	allUp(t, s)
	active := string(s.Active(t.Context(), "n1"))
	other := map[string]string{"n1": "n2", "n2": "n1"}[active]
	must(t, s.Lab.Kill(t.Context(), active))
	activeOn(t, s, other)
	st, err := s.Status(t.Context(), "w")
	must(t, err)
	if st.Cluster != "host" || len(st.Nodes) != 1 || owner(st, "own") != "w" {
		t.Errorf("the daemon of the witness's machine says %+v", st)
	}
}

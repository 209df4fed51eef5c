package lab_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

const witnessFile = `cluster: two-and-a-witness
nodes:
  n1: {addresses: [10.20.2.1, 10.20.1.1]}
  n2: {addresses: [10.20.2.2, 10.20.1.2]}
  w: {addresses: [10.20.2.3, 10.20.1.3], witness: true}
groups:
  g:
    nodes: [n1, n2]
    resources:
      ip: {kind: floating-ip, address: 10.20.1.50}
      web: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}
`

const threeFile = `cluster: three
nodes:
  n1: {addresses: [10.10.2.1, 10.10.1.1]}
  n2: {addresses: [10.10.2.2, 10.10.1.2]}
  n3: {addresses: [10.10.2.3, 10.10.1.3]}
groups:
  g:
    nodes: [n1, n2, n3]
    resources:
      ip: {kind: floating-ip, address: 10.10.1.50}
      web: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}
`

const singleFile = `cluster: single
nodes:
  n1: {addresses: [10.30.1.1]}
groups:
  g:
    nodes: [n1]
    resources:
      ip: {kind: floating-ip, address: 10.30.1.50}
      web: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}
`

// A node that is cut off from everybody gives up before the others take over;
// the witness votes and runs nothing.
func TestTwoAndAWitness(t *testing.T) {
	s := built(t, "witness", witnessFile, "n1", "n2", "w")
	client := ask(t, s, "http://10.20.1.50/")
	must(t, s.Lab.Cut(t.Context(), "n1", "n2"))
	must(t, s.Lab.Cut(t.Context(), "n1", "w"))
	cut := time.Now()
	activeOn(t, s, "n2")
	t.Logf("taken over %v after the cut", time.Since(cut))
	// The client still sees both: only one may answer.
	if _, err := client.Await(t.Context(), 100); err != nil {
		t.Error(err)
	}
	must(t, s.Lab.HealAll(t.Context()))
	must(t, s.Until(t.Context(), "n1 is standby", func() (bool, error) {
		st, err := s.Status(t.Context(), "n1")
		return err == nil && owner(st, "g") == "n2" && everyNode(st, isUp), nil
	}))
	oneAtATime(t, client.stop(), "n1", "n2")
	// Without the witness nothing stops, and the status says what that costs.
	must(t, s.Lab.Kill(t.Context(), "w"))
	told(t, s, "n2", "node-down", "w")
	stays(t, s, "n2", 2*time.Second)
	st, err := s.Status(t.Context(), "n2")
	must(t, err)
	if st.Survives != 0 || !st.Quorum {
		t.Errorf("survives %d (%s), quorum %v", st.Survives, st.Why, st.Quorum)
	}
}

// Three nodes: the active one crashes, then the next; the last one alone is no
// majority and must not run anything. It still says how things are. What each node
// wrote reaches its outlet, also over a crash.
func TestThreeNodes(t *testing.T) {
	s := built(t, "three", threeFile+outletTold, "n1", "n2", "n3")
	tell(t, s, "n1", "n2", "n3")
	tells(t, scraped(t, s, "n2"), `tasuki_leader_known{cluster="three"} 1`, `tasuki_group_owner{cluster="three",group="g",node="n1"} 1`,
		`tasuki_direction_up{cluster="three",from="n1",network="1",to="n2"} 1`, `tasuki_heartbeat_delay_seconds_count{cluster="three",from="n1",network="1",to="n2"} `)
	must(t, s.Lab.Kill(t.Context(), "n1"))
	activeOn(t, s, "n2")
	must(t, s.Lab.Kill(t.Context(), "n2"))
	must(t, s.Until(t.Context(), "n3 has no majority", func() (bool, error) {
		st, err := s.Status(t.Context(), "n3")
		return err == nil && !st.Quorum, nil
	}))
	tells(t, scraped(t, s, "n3"), `tasuki_engine_answers{cluster="three"} 1`, `tasuki_leader_known{cluster="three"} 0`, `tasuki_votes{cluster="three"} 3`)
	for end := time.After(3 * time.Second); ; {
		if got := s.Active(t.Context(), "n3"); got != "" && got != "n2" {
			t.Fatalf("a minority runs the group on %s", got)
		}
		if out, _ := s.Do(t.Context(), "n3", "ip", "address"); strings.Contains(out, "10.10.1.50") {
			t.Fatal("a minority has the floating address")
		}
		select {
		case <-time.After(100 * time.Millisecond):
			continue
		case <-end:
		}
		break
	}
	must(t, s.Lab.Boot(t.Context(), "n2"))
	must(t, s.Until(t.Context(), "the group runs with two of three", func() (bool, error) {
		st, err := s.Status(t.Context(), "n3")
		return err == nil && owner(st, "g") != "", nil
	}))
	must(t, s.Lab.Boot(t.Context(), "n1"))
	must(t, s.Until(t.Context(), "all are back", func() (bool, error) {
		st, err := s.Status(t.Context(), "n1")
		return err == nil && everyNode(st, isUp), nil
	}))
	for _, n := range []string{"n1", "n2", "n3"} {
		hasTold(t, s, n)
	}
}

func TestOneNode(t *testing.T) {
	s := built(t, "single", singleFile, "n1")
	client := ask(t, s, "http://10.30.1.50/")
	do(t, s, "n1", "tasuki", "group", "stop", "g")
	do(t, s, "n1", "tasuki", "group", "start", "g")
	if _, err := client.Await(t.Context(), 20); err != nil {
		t.Error(err)
	}
	oneAtATime(t, client.stop(), "n1")
	// It comes back by itself after the power was gone.
	must(t, s.Lab.Kill(t.Context(), "n1"))
	must(t, s.Lab.Boot(t.Context(), "n1"))
	activeOn(t, s, "n1")
}

// A node that leaves by plan hands its groups over first and gets none until it
// returns.
func TestLeaveAndReturn(t *testing.T) {
	s := plain(t, "CLP-1")
	do(t, s, "CLP-1", "tasuki", "node", "leave", "CLP-1")
	activeOn(t, s, "CLP-2")
	if code, said := fails(t, s, "CLP-2", "tasuki", "group", "move", "failover", "--to", "CLP-1"); code == 2 || !strings.Contains(said, "CLP-1") {
		t.Errorf("a node that left was given a group: %d %s", code, said)
	}
	do(t, s, "CLP-2", "tasuki", "node", "return", "CLP-1")
	must(t, s.Until(t.Context(), "CLP-1 is back", func() (bool, error) {
		st, err := s.Status(t.Context(), "CLP-2")
		return err == nil && everyNode(st, isUp), nil
	}))
	do(t, s, "CLP-2", "tasuki", "group", "move", "failover", "--to", "CLP-1")
	if got := s.Active(t.Context(), "CLP-1"); got != cluster.NodeName("CLP-1") {
		t.Errorf("active on %q", got)
	}
}

const pingFile = `cluster: pair
nodes:
  n1: {addresses: [10.20.2.1, 10.20.1.1]}
  n2: {addresses: [10.20.2.2, 10.20.1.2]}
arbitration: [{ping: {targets: [10.20.1.3]}}]
groups:
  g:
    nodes: [n1, n2]
    resources:
      ip: {kind: floating-ip, address: 10.20.1.50}
      web: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}
`

// Two nodes that ask a third machine, which knows nothing of them, who of them
// is cut off.
func TestPairWithPing(t *testing.T) {
	s := built(t, "witness", pingFile, "n1", "n2")
	client := ask(t, s, "http://10.20.1.50/")
	must(t, s.Lab.Cut(t.Context(), "n1", "n2"))
	must(t, s.Lab.Cut(t.Context(), "n1", "w"))
	activeOn(t, s, "n2")
	if _, err := client.Await(t.Context(), 100); err != nil {
		t.Error(err)
	}
	must(t, s.Lab.HealAll(t.Context()))
	must(t, s.Until(t.Context(), "n1 is standby", func() (bool, error) {
		st, err := s.Status(t.Context(), "n1")
		return err == nil && owner(st, "g") == "n2" && everyNode(st, isUp) && !st.Solo, nil
	}))
	oneAtATime(t, client.stop(), "n1", "n2")
	// A death of the active node is a takeover too: the target still answers.
	must(t, s.Lab.Kill(t.Context(), "n2"))
	activeOn(t, s, "n1")
}

const sixFile = `cluster: six
nodes:
  shop-a: {addresses: ["fd5a:9::21", "fd5a:7::21"]}
  shop-b: {addresses: ["fd5a:9::22", "fd5a:7::22"]}
arbitration: [none]
groups:
  g:
    nodes: [shop-a, shop-b]
    resources:
      ip: {kind: floating-ip, address: "fd5a:7::50"}
      web: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}
`

// Everything by IPv6, and neighbors learn of a move at once.
func TestIPv6(t *testing.T) {
	s := built(t, "other", sixFile, "shop-a", "shop-b")
	s.Client = "desk"
	client := ask(t, s, "http://[fd5a:7::50]/")
	do(t, s, "shop-b", "tasuki", "group", "move", "g", "--to", "shop-b")
	if node, err := client.Await(t.Context(), 20); err != nil || node != "shop-b" {
		t.Error(node, err)
	}
	oneAtATime(t, client.stop(), "shop-a", "shop-b")
}

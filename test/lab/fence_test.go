package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

const fenceFile = `cluster: pair-and-fence
nodes:
  n1: {addresses: [10.20.2.1, 10.20.1.1], fence: [[{device: power, delay: 1s}]]}
  n2: {addresses: [10.20.2.2, 10.20.1.2], fence: [[{device: power}]]}
arbitration: [fence]
fence_check: 2s
fences:
  power: {agent: fence_lab, options: {ip: 10.20.1.200}, timeout: 10s}
groups:
  g:
    nodes: [n1, n2]
    resources:
      ip: {kind: floating-ip, address: 10.20.1.50}
      web: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}
`

// fenceLab is an agent that speaks with the power switch of the lab.
const fenceLab = `#!/bin/bash
while IFS='=' read -r k v; do declare "opt_$k=$v"; done
if [ "$opt_action" = metadata ]; then cat <<'EOF'
<?xml version="1.0" ?>
<resource-agent name="fence_lab">
<parameters><parameter name="action"/><parameter name="ip"/><parameter name="plug"/></parameters>
<actions><action name="on" automatic="0"/><action name="off"/><action name="status"/><action name="monitor"/><action name="metadata"/></actions>
</resource-agent>
EOF
exit 0; fi
exec 3<>"/dev/tcp/$opt_ip/623" || exit 1
echo "$opt_action $opt_plug" >&3
read -r code why <&3
echo "$why" >&2
exit "${code:-1}"
`

// powerSwitch has the machines' power plugs; it stands in the public network.
type powerSwitch struct {
	lab *lab.Lab

	mu     sync.Mutex
	broken bool     // it answers, and switches nothing
	asked  []string // off of which plug
}

func (p *powerSwitch) set(broken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = broken
}

func (p *powerSwitch) serve(t *testing.T) {
	var l net.Listener
	must(t, p.lab.Do(t.Context(), "client", func() (err error) {
		l, err = net.Listen("tcp", "10.20.1.200:623")
		return err
	}))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			action, plug, _ := strings.Cut(strings.TrimSpace(line), " ")
			code, why := p.do(context.WithoutCancel(t.Context()), action, plug)
			fmt.Fprintf(c, "%d %s\n", code, why)
			c.Close()
		}
	}()
}

// do returns the exit code of an agent.
func (p *powerSwitch) do(ctx context.Context, action, plug string) (code int, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case action == "monitor":
		return 0, ""
	case p.broken:
		return 1, "the switch is broken"
	}
	m, err := p.lab.Machine(ctx, plug)
	if err != nil {
		return 1, err.Error()
	}
	if action == "off" {
		p.asked = append(p.asked, plug)
		if m.State == lab.Up {
			if err := p.lab.Kill(ctx, plug); err != nil {
				return 1, err.Error()
			}
		}
		return 0, ""
	}
	if m.State != lab.Up {
		return 2, ""
	}
	return 0, ""
}

// fencedPair is two nodes that a switch can turn off, with the group on n1.
func fencedPair(t *testing.T) (*demo.Stage, *powerSwitch) {
	t.Helper()
	s := &demo.Stage{Lab: up(t, "witness"), Guests: []string{"n1", "n2"}, Client: "client", Group: "g", Resource: "web"}
	for _, m := range s.Guests {
		must(t, s.Scripts(t.Context(), m))
		must(t, s.Lab.WriteFile(t.Context(), m, "/usr/sbin/fence_lab", 0o755, []byte(fenceLab)))
	}
	p := &powerSwitch{lab: s.Lab}
	p.serve(t)
	must(t, s.Cluster(t.Context(), []byte(fenceFile), quiet, s.Guests...))
	must(t, s.Until(t.Context(), "the group is active and all nodes are up", func() (bool, error) {
		st, err := s.Status(t.Context(), "n1")
		return err == nil && owner(st, "g") != "" && everyNode(st, isUp), nil
	}))
	if s.Active(t.Context(), "n1") != "n1" {
		do(t, s, "n1", "tasuki", "group", "move", "g", "--to", "n1")
	}
	return s, p
}

// A pair that is cut apart: the node that runs the group forces the other off and
// goes on; the other one, which waits longer, never gets to it.
func TestFenceAfterACut(t *testing.T) {
	s, p := fencedPair(t)
	if out := do(t, s, "n1", "tasuki", "fence", "check"); !strings.Contains(out, "n2: level 1, power (fence_lab, plug n2): verified just now") {
		t.Errorf("the check says: %s", out)
	}
	client := ask(t, s, "http://10.20.1.50/")
	began := time.Now()
	must(t, s.Lab.Cut(t.Context(), "n1", "n2"))
	told(t, s, "n1", "fence-done", "n2 has been forced off")
	t.Logf("forced off %v after the cut", time.Since(began))
	activeOn(t, s, "n1")
	if _, err := client.Await(t.Context(), 100); err != nil {
		t.Error(err)
	}
	oneAtATime(t, client.stop(), "n1")
	if m, err := s.Lab.Machine(t.Context(), "n2"); err != nil || m.State == lab.Up {
		t.Errorf("n2 is %s, %v", m.State, err)
	}
	must(t, s.Lab.HealAll(t.Context()))
	must(t, s.Lab.Boot(t.Context(), "n2"))
	must(t, s.Until(t.Context(), "n2 is standby", func() (bool, error) {
		st, err := s.Status(t.Context(), "n2")
		return err == nil && owner(st, "g") == "n1" && everyNode(st, isUp) && !st.Solo, nil
	}))
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.Join(p.asked, " ") != "n2" {
		t.Errorf("switched off: %v", p.asked)
	}
}

// A node that dies is replaced when the switch has confirmed that it is off, and
// not before: while the switch is broken, nothing starts.
func TestFenceThatFails(t *testing.T) {
	s, p := fencedPair(t)
	p.set(true)
	told(t, s, "n2", "fence-check-failed", "n1 could not be forced off by fence power: fence_lab: ended with exit code 1 (the switch is broken)")
	if out := do(t, s, "n2", "tasuki", "status"); !strings.Contains(out, "fence: power fails, was verified") {
		t.Errorf("the status says: %s", out)
	}
	must(t, s.Lab.Kill(t.Context(), "n1"))
	told(t, s, "n2", "fence-failed", "the switch is broken")
	if on := s.Active(t.Context(), "n2"); on == "n2" {
		t.Error("the group is active on n2 although n1 is not known to be off")
	}
	p.set(false)
	began := time.Now()
	activeOn(t, s, "n2")
	t.Logf("taken over %v after the switch works again", time.Since(began))
	told(t, s, "n2", "fence-done", "n1 has been forced off")
}

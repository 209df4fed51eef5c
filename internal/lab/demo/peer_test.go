package demo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab"
)

// peerFile is keepalived's side of the comparison: it has both networks too, and
// tells the other node itself when its public cable is pulled. It asks nobody
// whether the address is free, and two nodes that do not hear each other both
// take it.
const peerFile = `global_defs {
    router_id %[1]s
}
vrrp_instance g {
    version 3
    state BACKUP
    nopreempt
    interface eth1
    track_interface {
        eth0
    }
    virtual_router_id 51
    priority 100
    advert_int %[2]s
    virtual_ipaddress {
        10.20.1.50/24 dev eth0
    }
}
`

// peer makes the pair with keepalived.
func (t *bench) peer(advert string) {
	t.b.Helper()
	program, err := exec.LookPath("keepalived")
	if err != nil {
		t.b.Skip("needs keepalived: make bench-failover PEER=1 installs it")
	}
	has := func(n string) bool {
		out, err := t.Do(t.b.Context(), n, "ip", "-o", "address", "show", "to", "10.20.1.50")
		return err == nil && strings.TrimSpace(out) != ""
	}
	t.active = func() string {
		for _, n := range t.Guests {
			if has(n) {
				return n
			}
		}
		return ""
	}
	logs := t.b.TempDir()
	t.join = func(n string) {
		t.b.Helper()
		ctx := t.b.Context()
		check(t.b, t.Lab.WriteFile(ctx, n, "/etc/bench-keepalived.conf", 0o600, fmt.Appendf(nil, peerFile, n, advert)))
		out, err := os.Create(filepath.Join(logs, n))
		check(t.b, err)
		defer out.Close()
		_, err = t.Lab.Run(ctx, lab.Cmd{Machine: n, Argv: []string{program, "--vrrp", "--dont-fork", "--log-console", "--no-syslog", "--use-file", "/etc/bench-keepalived.conf"}, Stdout: out, Stderr: out})
		check(t.b, err)
		check(t.b, t.Until(ctx, n+" has taken its part", func() (bool, error) {
			said, err := os.ReadFile(out.Name())
			return strings.Contains(string(said), "Entering BACKUP STATE"), err
		}))
	}
	t.whole = func() {
		t.b.Helper()
		check(t.b, t.Until(t.b.Context(), "one node has the address", func() (bool, error) {
			return t.active() != "" && t.served(), nil
		}))
		<-time.After(peerSettles)
	}
	for _, n := range t.Guests {
		t.join(n)
	}
	t.whole()
}

// peerSettles is how long the other node is given to hear who has the address,
// of which it says nothing: a few advertisements.
const peerSettles = 3 * time.Second

// benchPeer measures the same faults with keepalived, by PEER=1.
func benchPeer(b *testing.B) {
	if os.Getenv("PEER") == "" {
		return
	}
	for _, advert := range []string{"1", "0.1"} {
		for what, f := range map[string]func(*bench) []time.Duration{"crash": (*bench).crashes, "pull": (*bench).pulls} {
			b.Run("peer/"+what+"/"+advert+"s", func(b *testing.B) {
				t := startBench(b, "peer-"+what+strings.ReplaceAll(advert, ".", ""))
				t.peer(advert)
				report(b, "keepalived_"+what+"_"+advert+"s", f(t))
			})
		}
	}
}

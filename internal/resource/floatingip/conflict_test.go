package floatingip

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

var (
	nodeMAC     = net.HardwareAddr{2, 0, 0, 0, 0, 0x52}
	strangerMAC = net.HardwareAddr{2, 0, 0, 0, 9, 9}
)

// inCluster is inBubble with a second node, CLP-2, whose kernel answers for its
// own address.
func inCluster(t *testing.T, f func(t *testing.T, n *node, told *[]string)) {
	t.Helper()
	inBubble(t, func(t *testing.T, n *node) {
		other := netip.MustParseAddr("10.2.102.52")
		n.net.Conflict(other, nodeMAC)
		n.nodes = func() []config.Node {
			return []config.Node{{Name: "CLP-2", Addresses: []netip.Addr{netip.MustParseAddr("192.168.99.2"), other}}}
		}
		var told []string
		n.tell = func(x resource.Notice) { told = append(told, x.Code+": "+x.Text) }
		f(t, n, &told)
	})
}

// failover is a start after a failure, when those nodes are declared down.
func failover(ended ...cluster.NodeName) resource.Task {
	tk := task(func(f *config.FloatingIP) { f.TakeoverWait, f.OnConflict = 10*time.Second, config.ConflictClaim })
	tk.Event, tk.Ended = "FAILOVER", ended
	return tk
}

func codeOf(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// The kernel of a node whose right has ended goes on answering: the address is
// taken at once, and defended until nobody answers any more.
func TestClaimFromANodeThatIsDown(t *testing.T) {
	inCluster(t, func(t *testing.T, n *node, told *[]string) {
		n.net.Conflict(fip, nodeMAC)
		begin := time.Now()
		n.start(t, failover("CLP-2"))
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %v", took)
		}
		pass(4500 * time.Millisecond)
		before := len(n.net.Announcements())
		if before < 5+4 {
			t.Errorf("%d announcements: the burst and one a second", before)
		}
		n.net.Conflict(fip, nil)
		pass(5 * time.Second)
		if after := len(n.net.Announcements()); after != before+5 {
			t.Errorf("%d announcements after the end, want a burst of 5", after-before)
		}
		if len(*told) != 2 || !strings.Contains((*told)[0], "address-claimed") || !strings.Contains((*told)[0], "node CLP-2") ||
			!strings.HasPrefix((*told)[1], "address-conflict-over") {
			t.Errorf("told: %q", *told)
		}
	})
}

// Who else may have the address is waited for, and then refused.
func TestStartAfterAFailureWaits(t *testing.T) {
	fails := func(f *config.FloatingIP) { f.OnConflict = config.ConflictFail }
	for name, tc := range map[string]struct {
		mac    net.HardwareAddr
		ended  cluster.NodeName
		change func(*config.FloatingIP)
		text   string
	}{
		"a stranger":           {strangerMAC, "CLP-2", nil, "no known node"},
		"a node that is up":    {nodeMAC, "CLP-3", nil, "node CLP-2"},
		"the file says: fail":  {nodeMAC, "CLP-2", fails, "node CLP-2"},
		"nothing is proven":    {nodeMAC, "", nil, "node CLP-2"},
		"the wait is no limit": {strangerMAC, "", func(f *config.FloatingIP) { f.TakeoverWait = 0 }, "no known node"},
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, n *node, told *[]string) {
				n.net.Conflict(fip, tc.mac)
				tk := failover(tc.ended)
				if tc.change != nil {
					tc.change(tk.Resource.FloatingIP)
				}
				begin := time.Now()
				err := n.Start(t.Context(), tk)
				if codeOf(err) != "address-in-use" || !strings.Contains(err.Error(), tc.text) {
					t.Errorf("got %v", err)
				}
				wait := tk.Resource.FloatingIP.TakeoverWait
				if took := time.Since(begin); took < wait || took > wait+time.Second {
					t.Errorf("took %v", took)
				}
				if _, here := n.has(t, fip); here {
					t.Error("it was taken all the same")
				}
				if wait > 0 && (len(*told) != 1 || !strings.HasPrefix((*told)[0], "address-wait")) {
					t.Errorf("told: %q", *told)
				}
			})
		})
	}
}

func TestWaitEndsWhenItIsFree(t *testing.T) {
	inCluster(t, func(t *testing.T, n *node, _ *[]string) {
		n.net.Conflict(fip, strangerMAC)
		begin := time.Now()
		time.AfterFunc(3*time.Second, func() { n.net.Conflict(fip, nil) })
		n.start(t, failover())
		if took := time.Since(begin); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// A start that somebody asked for is refused at once (F49), also if a failure
// of something else was before it.
func TestAskedForStartDoesNotWait(t *testing.T) {
	inCluster(t, func(t *testing.T, n *node, told *[]string) {
		n.net.Conflict(fip, strangerMAC)
		tk := failover("CLP-2")
		tk.Event = "START"
		begin := time.Now()
		if err := n.Start(t.Context(), tk); codeOf(err) != "address-in-use" || time.Since(begin) > time.Second || len(*told) > 0 {
			t.Errorf("%v after %v, told: %q", err, time.Since(begin), *told)
		}
	})
}

// An address that the previous owner has just taken off is there at once; who
// answers for it all the same is told of while it is active.
func TestHandedOverIsAskedForAfterwards(t *testing.T) {
	for name, mac := range map[string]net.HardwareAddr{"free": nil, "in use": strangerMAC} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, n *node, told *[]string) {
				n.net.Conflict(fip, mac)
				tk := task()
				tk.Handed = true
				begin := time.Now()
				n.start(t, tk)
				if _, here := n.has(t, fip); !here || time.Since(begin) > 0 {
					t.Errorf("here: %v, after %v", here, time.Since(begin))
				}
				pass(time.Second)
				if len(n.net.Probes()) == 0 {
					t.Error("nobody asked for others")
				}
				if conflict := len(*told) == 1 && strings.HasPrefix((*told)[0], "address-conflict:"); conflict != (mac != nil) || len(*told) > 1 {
					t.Errorf("told: %q", *told)
				}
			})
		})
	}
}

// Somebody claims the address while it is active here: that is told once, the
// address is announced at least once a second, and its end is told too.
func TestConflictWhileActive(t *testing.T) {
	inCluster(t, func(t *testing.T, n *node, told *[]string) {
		tk := task(func(f *config.FloatingIP) { f.AnnounceEvery = 0 })
		n.start(t, tk)
		pass(5 * time.Second)
		links, _ := n.net.Links()
		n.net.Claim(fip, links[1].MAC) // our own other interface
		pass(5 * time.Second)
		if len(*told) > 0 || len(n.net.Announcements()) != 5 {
			t.Fatalf("told: %q, %d announcements", *told, len(n.net.Announcements()))
		}
		for range 3 {
			n.net.Claim(fip, strangerMAC)
			pass(100 * time.Millisecond)
		}
		if got := len(n.net.Announcements()); got != 6 {
			t.Errorf("%d announcements, want one more", got-5)
		}
		n.net.Conflict(fip, strangerMAC)
		pass(10 * time.Second)
		if len(*told) != 1 || !strings.HasPrefix((*told)[0], "address-conflict:") || !strings.Contains((*told)[0], strangerMAC.String()) {
			t.Errorf("told: %q", *told)
		}
		if got := len(n.net.Announcements()); got < 14 || got > 17 {
			t.Errorf("%d announcements in ten seconds", got-6)
		}
		n.net.Conflict(fip, nil)
		pass(10 * time.Second)
		if len(*told) != 2 || !strings.HasPrefix((*told)[1], "address-conflict-over") {
			t.Errorf("told: %q", *told)
		}
		rest := len(n.net.Announcements())
		n.net.Claim(fip, strangerMAC) // again: another conflict
		pass(100 * time.Millisecond)
		if len(*told) != 3 {
			t.Errorf("told: %q", *told)
		}
		if err := n.Stop(t.Context(), tk); err != nil {
			t.Fatal(err)
		}
		n.net.Claim(fip, strangerMAC)
		pass(10 * time.Second)
		if got := len(n.net.Announcements()); len(*told) != 3 || got != rest+1 {
			t.Errorf("after Stop: told %q, %d announcements", *told, got-rest)
		}
	})
}

func TestManyRivalsAreNotAllTold(t *testing.T) {
	inCluster(t, func(t *testing.T, n *node, told *[]string) {
		n.start(t, task())
		for i := range byte(20) {
			n.net.Claim(fip, net.HardwareAddr{2, 0, 0, 1, 0, i})
			pass(200 * time.Millisecond)
		}
		if len(*told) != mostRivals {
			t.Errorf("%d were told of, want %d", len(*told), mostRivals)
		}
	})
}

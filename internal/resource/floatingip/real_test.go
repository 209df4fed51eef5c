package floatingip

import (
	"context"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/host"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// realNode is a driver in a network namespace of its own.
type realNode struct {
	*Driver
	net      *host.Linux
	failures chan resource.Failure
}

// pair makes two nodes with a cable between them.
func pair(t *testing.T) (a, b *realNode) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: network namespaces")
		}
		t.Skip("needs root: network namespaces")
	}
	nsA, nsB := namespace(t), namespace(t)
	h, err := netlink.NewHandleAt(nsA)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(nsB)}
	if err := h.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	return openNode(t, nsA, "1"), openNode(t, nsB, "2")
}

func namespace(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = home.Close() }()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

func openNode(t *testing.T, ns netns.NsHandle, number string) *realNode {
	t.Helper()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	n := &realNode{failures: make(chan resource.Failure, 10)}
	if n.net, err = host.NewLinuxAt(int(ns)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"10.7.0." + number + "/24", "fd07::" + number + "/64"} {
		if err := n.net.AddAddress("eth0", netip.MustParsePrefix(p)); err != nil {
			t.Fatal(err)
		}
	}
	n.Driver = New(Options{Network: n.net, Failed: func(f resource.Failure) { n.failures <- f }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		n.net.Close()
	})
	return n
}

func realTask(a string, check time.Duration) resource.Task {
	return task(func(f *config.FloatingIP) { f.Address, f.DuplicateCheck = netip.MustParseAddr(a), check })
}

// carry waits until a link that just came up carries frames: until then the
// kernel drops what is sent, also the probes.
func carry(t *testing.T, from *realNode, to string) {
	t.Helper()
	for limit := time.Now().Add(8 * time.Second); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := from.net.Ping(ctx, netip.MustParseAddr(to))
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
}

func TestRealMove(t *testing.T) {
	a, b := pair(t)
	carry(t, a, "10.7.0.2")
	for _, addr := range []string{"10.7.0.50", "fd07::50"} {
		const check = 40 * time.Millisecond
		tk, ip := realTask(addr, check), netip.MustParseAddr(addr)
		begin := time.Now()
		if err := a.Start(t.Context(), tk); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: start took %v beyond the duplicate check", addr, time.Since(begin)-check)
		if err := b.Start(t.Context(), tk); err == nil {
			t.Fatalf("%s: both nodes have it", addr)
		} else {
			t.Log(err)
		}
		if _, err := b.net.Ping(t.Context(), ip); err != nil {
			t.Fatal(err)
		}

		begin = time.Now()
		if err := a.Isolate(t.Context(), tk); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: isolate took %v", addr, time.Since(begin))
		begin = time.Now()
		if err := b.Start(t.Context(), realTask(addr, 0)); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: start without a check took %v", addr, time.Since(begin))
		if _, err := a.net.Ping(t.Context(), ip); err != nil {
			t.Errorf("%s does not answer at its new place: %v", addr, err)
		}
		if err := a.Stop(t.Context(), tk); err != nil {
			t.Error(err)
		}

		at, here, err := b.net.HasAddress(ip)
		if err != nil || !here {
			t.Fatal(here, err)
		}
		if err := b.net.RemoveAddress(at.Device, at.Prefix); err != nil {
			t.Fatal(err)
		}
		select {
		case f := <-b.failures:
			t.Log(f.Text)
		case <-time.After(5 * time.Second):
			t.Errorf("%s was taken away unseen", addr)
		}
	}
	if len(a.failures) > 0 {
		t.Errorf("isolating was a failure: %+v", <-a.failures)
	}
}

// The kernel of a node that is declared down goes on answering for the address;
// later a machine that nobody knows claims it.
func TestRealConflict(t *testing.T) {
	a, b := pair(t)
	carry(t, a, "10.7.0.2")
	told := make(chan resource.Notice, 10)
	a.tell = func(n resource.Notice) { told <- n }
	a.nodes = func() []config.Node {
		return []config.Node{{Name: "b", Addresses: []netip.Addr{netip.MustParseAddr("10.7.0.2")}}}
	}
	await := func(code string) {
		t.Helper()
		select {
		case n := <-told:
			t.Log(n.Text)
			if n.Code != code {
				t.Errorf("told %s, want %s", n.Code, code)
			}
		case <-time.After(8 * time.Second):
			t.Fatalf("%s was not told", code)
		}
	}
	for _, p := range []string{"10.7.0.50/24", "fd07::50/64"} {
		prefix := netip.MustParsePrefix(p)
		if err := b.net.AddAddress("eth0", prefix); err != nil {
			t.Fatal(err)
		}
		tk := realTask(prefix.Addr().String(), 300*time.Millisecond)
		tk.Event, tk.Ended, tk.Resource.FloatingIP.OnConflict = "FAILOVER", []cluster.NodeName{"b"}, config.ConflictClaim
		if err := a.Start(t.Context(), tk); err != nil {
			t.Fatal(err)
		}
		await("address-claimed")
		if err := b.net.RemoveAddress("eth0", prefix); err != nil {
			t.Fatal(err)
		}
		await("address-conflict-over")
		if err := b.net.Announce("eth0", prefix.Addr()); err != nil {
			t.Fatal(err)
		}
		await("address-conflict")
		if err := a.Stop(t.Context(), tk); err != nil {
			t.Fatal(err)
		}
	}
}

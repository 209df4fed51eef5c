package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// side is one end of a cable: a namespace of its own with one interface.
type side struct {
	*Linux
	dev string
	mac net.HardwareAddr
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root: network namespaces")
	}
	t.Skip("needs root: network namespaces")
}

// newNamespace makes a network namespace without changing the test's own.
func newNamespace(t *testing.T) netns.NsHandle {
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

// cable connects two namespaces by a veth pair, both ends up, with
// 10.7.0.1/24 and fd07::1/64 on side a, and .2 and ::2 on side b.
func cable(t *testing.T) (a, b side) {
	t.Helper()
	needRoot(t)
	nsA, nsB := newNamespace(t), newNamespace(t)
	a, b = openSide(t, nsA, "left"), openSide(t, nsB, "right")
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: a.dev}, PeerName: b.dev, PeerNamespace: netlink.NsFd(nsB),
	}
	if err := a.handle.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	for i, s := range []*side{&a, &b} {
		s.up(t, true)
		k, err := s.link(s.dev)
		if err != nil {
			t.Fatal(err)
		}
		s.mac = k.MAC
		for _, p := range []string{"10.7.0.1/24", "fd07::1/64"} {
			p := netip.MustParsePrefix(p)
			if i == 1 {
				p = netip.PrefixFrom(p.Addr().Next(), p.Bits())
			}
			if err := s.AddAddress(s.dev, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	return a, b
}

func openSide(t *testing.T, ns netns.NsHandle, dev string) side {
	t.Helper()
	l, err := NewLinuxAt(int(ns))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return side{Linux: l, dev: dev}
}

func (s side) up(t *testing.T, up bool) {
	t.Helper()
	k, err := s.handle.LinkByName(s.dev)
	if err != nil {
		t.Fatal(err)
	}
	set := s.handle.LinkSetDown
	if up {
		set = s.handle.LinkSetUp
	}
	if err := set(k); err != nil {
		t.Fatal(err)
	}
}

// during runs f until the test ends, and waits for its end.
func during(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the watch did not end with its context")
		}
	})
}

func await[T any](t *testing.T, what string, ch <-chan T, want func(T) bool) T {
	t.Helper()
	limit := time.After(5 * time.Second)
	for {
		select {
		case v := <-ch:
			if want(v) {
				return v
			}
		case <-limit:
			t.Fatalf("not seen: %s", what)
		}
	}
}

func TestWatchLinksSeesCarrierLoss(t *testing.T) {
	a, b := cable(t)
	events := make(chan LinkEvent, 100)
	during(t, func(ctx context.Context) error { return a.WatchLinks(ctx, func(e LinkEvent) { events <- e }) })
	mine := func(up, carrier bool) func(LinkEvent) bool {
		return func(e LinkEvent) bool {
			return !e.Gone && e.Link.Name == a.dev && e.Link.Up == up && e.Link.Carrier == carrier
		}
	}
	await(t, "the link as it is at the start", events, mine(true, true))

	start := time.Now()
	b.up(t, false)
	await(t, "the loss of the carrier", events, mine(true, false))
	// The carrier came less than a second ago: the kernel's own message is late.
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("carrier loss seen after %v", took)
	} else {
		t.Logf("carrier loss seen after %v", took)
	}
	b.up(t, true)
	await(t, "the return of the carrier", events, mine(true, true))
	a.up(t, false)
	await(t, "the own interface being switched off", events, mine(false, false))

	k, err := a.handle.LinkByName(a.dev)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.handle.LinkDel(k); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of the interface", events, func(e LinkEvent) bool { return e.Gone && e.Link.Name == a.dev })
	if _, err := a.link(a.dev); !errors.Is(err, ErrNoDevice) {
		t.Errorf("looking it up: %v, want ErrNoDevice", err)
	}
}

// A port that leaves its bridge is not an interface that is gone.
func TestWatchLinksIgnoresBridgeMessages(t *testing.T) {
	a, _ := cable(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}
	if err := a.handle.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	port, err := a.handle.LinkByName(a.dev)
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan LinkEvent, 100)
	during(t, func(ctx context.Context) error { return a.WatchLinks(ctx, func(e LinkEvent) { events <- e }) })
	await(t, "the bridge", events, func(e LinkEvent) bool { return e.Link.Name == "br" })
	for _, step := range []func() error{
		func() error { return a.handle.LinkSetMaster(port, bridge) },
		func() error { return a.handle.LinkSetNoMaster(port) },
		func() error { return a.handle.LinkDel(bridge) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the end of the bridge", events, func(e LinkEvent) bool {
		if e.Gone && e.Link.Name == a.dev {
			t.Error("the port that left the bridge was reported gone")
		}
		return e.Gone && e.Link.Name == "br"
	})
}

// More changes than the socket can hold, while report is busy: the last state
// is seen all the same.
func TestWatchLinksSurvivesAnOverrun(t *testing.T) {
	a, b := cable(t)
	a.rcvbuf = 1 // the kernel makes that its minimum, some 2 KiB
	events, held := make(chan LinkEvent, 1000), make(chan struct{})
	during(t, func(ctx context.Context) error {
		return a.WatchLinks(ctx, func(e LinkEvent) {
			events <- e
			<-held
		})
	})
	await(t, "the first report", events, func(LinkEvent) bool { return true })
	for i := range 40 {
		a.up(t, i%2 == 1)
	}
	b.up(t, false)
	close(held)
	await(t, "the carrier lost in the noise", events, func(e LinkEvent) bool {
		return e.Link.Name == a.dev && e.Link.Up && !e.Link.Carrier
	})
	b.up(t, true)
	await(t, "the carrier afterwards", events, func(e LinkEvent) bool { return e.Link.Name == a.dev && e.Link.Carrier })
}

func TestAddresses(t *testing.T) {
	a, _ := cable(t)
	events := make(chan AddressEvent, 100)
	during(t, func(ctx context.Context) error { return a.WatchAddresses(ctx, func(e AddressEvent) { events <- e }) })
	for _, s := range []string{"10.7.0.50/24", "fd07::50/64"} {
		p := netip.MustParsePrefix(s)
		dev, bits, err := a.InterfaceFor(p.Addr())
		if err != nil || dev != a.dev || bits != p.Bits() {
			t.Fatalf("InterfaceFor(%v) = %s/%d %v", p.Addr(), dev, bits, err)
		}
		for range 2 { // the second time it is there already
			if err := a.AddAddress(a.dev, p); err != nil {
				t.Fatal(err)
			}
		}
		at, ok, err := a.HasAddress(p.Addr())
		if want := (Address{a.dev, p}); err != nil || !ok || at != want {
			t.Fatalf("HasAddress = %v %v %v, want %v", at, ok, err, want)
		}
		await(t, s+" added", events, func(e AddressEvent) bool { return e == AddressEvent{Address: at} })
		// Usable at once: not tentative.
		if err := a.within(func() error { return listenOn(p.Addr()) }); err != nil {
			t.Errorf("cannot use %v at once: %v", p.Addr(), err)
		}
		list, err := a.Addresses()
		if err != nil || !slices.Contains(list, at) {
			t.Errorf("Addresses = %v %v", list, err)
		}
		for range 2 {
			if err := a.RemoveAddress(a.dev, p); err != nil {
				t.Fatal(err)
			}
		}
		await(t, s+" removed", events, func(e AddressEvent) bool { return e == AddressEvent{Address: at, Gone: true} })
		if _, ok, _ := a.HasAddress(p.Addr()); ok {
			t.Errorf("%v is still there", p)
		}
	}
	if _, _, err := a.InterfaceFor(netip.MustParseAddr("192.0.2.1")); !errors.Is(err, ErrNoInterface) {
		t.Errorf("foreign address: %v, want ErrNoInterface", err)
	}
	if err := a.AddAddress("none0", netip.MustParsePrefix("10.7.0.9/24")); !errors.Is(err, ErrNoDevice) {
		t.Errorf("no device: %v, want ErrNoDevice", err)
	}
	if err := a.RemoveAddress("none0", netip.MustParsePrefix("10.7.0.9/24")); err != nil {
		t.Errorf("removing from a device that is gone: %v", err)
	}
}

func listenOn(a netip.Addr) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		return err
	}
	return c.Close()
}

// An IPv6 address that floats is not what this node speaks from.
func TestFloatingIPv6IsNoSource(t *testing.T) {
	a, _ := cable(t)
	own := netip.MustParseAddr("fd07::a")
	k, err := a.link(a.dev)
	if err != nil {
		t.Fatal(err)
	}
	static := addressOf(k.Index, netip.PrefixFrom(own, 64))
	static.Flags = 0x02 // IFA_F_NODAD
	if err := a.handle.AddrAdd(nil, static); err != nil {
		t.Fatal(err)
	}
	var from netip.AddrPort
	err = a.within(func() error {
		c, err := net.Dial("udp", "[fd07::2]:9")
		if err != nil {
			return err
		}
		from = c.LocalAddr().(*net.UDPAddr).AddrPort()
		return c.Close()
	})
	if err != nil || from.Addr() != own {
		t.Errorf("speaks from %v, want %v (%v)", from.Addr(), own, err)
	}
}

func TestProbe(t *testing.T) {
	a, b := cable(t)
	for _, tc := range []struct{ taken, free string }{{"10.7.0.2", "10.7.0.77"}, {"fd07::2", "fd07::77"}} {
		start := time.Now()
		mac, err := a.Probe(t.Context(), a.dev, netip.MustParseAddr(tc.taken), 3*time.Second, 3)
		if err != nil || mac.String() != b.mac.String() {
			t.Errorf("%s: %v %v, want %v", tc.taken, mac, err, b.mac)
		}
		t.Logf("conflict over %s seen after %v", tc.taken, time.Since(start))

		const wait = 60 * time.Millisecond
		start = time.Now()
		mac, err = a.Probe(t.Context(), a.dev, netip.MustParseAddr(tc.free), wait, 3)
		took := time.Since(start)
		if err != nil || mac != nil || took < wait || took > 10*wait {
			t.Errorf("%s: %v %v after %v, want nobody after %v", tc.free, mac, err, took, wait)
		}
		t.Logf("no conflict over %s: %v beyond the wait", tc.free, took-wait)
	}
	if _, err := a.Probe(t.Context(), "none0", netip.MustParseAddr("10.7.0.2"), time.Second, 3); !errors.Is(err, ErrNoDevice) {
		t.Errorf("no device: %v", err)
	}
	if mac, err := a.Probe(t.Context(), "lo", netip.MustParseAddr("127.0.0.9"), time.Minute, 3); mac != nil || err != nil {
		t.Errorf("loopback: %v %v, want nobody at once", mac, err)
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	a, _ := cable(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.Probe(ctx, a.dev, netip.MustParseAddr("10.7.0.77"), time.Minute, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

// Two that probe for one address at the same time: we learn of the other.
func TestProbesMeet(t *testing.T) {
	a, b := cable(t)
	peer, err := b.link(b.dev)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"10.7.0.78", "fd07::78"} {
		addr := netip.MustParseAddr(s)
		frame, err := probeFrame(b.mac, addr)
		if err != nil {
			t.Fatal(err)
		}
		during(t, func(ctx context.Context) error {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				if err := b.send(peer, frame); err != nil {
					return err
				}
				<-tick.C
			}
			return nil
		})
		mac, err := a.Probe(t.Context(), a.dev, addr, 3*time.Second, 3)
		if err != nil || mac.String() != b.mac.String() {
			t.Errorf("%s: %v %v, want %v", s, mac, err, b.mac)
		}
	}
}

// The neighbor table of the other side follows an announcement.
// Claims of others are heard, mere probes and our own announcements are not.
func TestWatchClaims(t *testing.T) {
	a, b := cable(t)
	peer, err := b.link(b.dev)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"10.7.0.79", "fd07::79"} {
		addr := netip.MustParseAddr(s)
		frame, err := probeFrame(b.mac, addr)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		heard, ended := make(chan net.HardwareAddr, 100), make(chan error, 1)
		go func() { ended <- a.WatchClaims(ctx, a.dev, addr, func(m net.HardwareAddr) { heard <- m }) }()
		other := netip.MustParseAddr("10.7.0.80")
		tick := time.NewTicker(10 * time.Millisecond)
		for range 10 { // it may not listen yet
			if err := errors.Join(b.send(peer, frame), a.Announce(a.dev, addr), b.Announce(b.dev, other)); err != nil {
				t.Fatal(err)
			}
			<-tick.C
		}
		if len(heard) > 0 {
			t.Errorf("%s: %v claimed it", s, <-heard)
		}
		for found := false; !found; {
			if err := b.Announce(b.dev, addr); err != nil {
				t.Fatal(err)
			}
			select {
			case m := <-heard:
				found = true
				if m.String() != b.mac.String() {
					t.Errorf("%s: %v claimed it, want %v", s, m, b.mac)
				}
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatal("the claim was not heard")
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestAnnounce(t *testing.T) {
	a, b := cable(t)
	peer, err := b.link(b.dev)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"10.7.0.50", "fd07::50"} {
		addr := netip.MustParseAddr(s)
		old := &netlink.Neigh{
			LinkIndex: peer.Index, State: netlink.NUD_STALE, IP: addr.AsSlice(),
			HardwareAddr: net.HardwareAddr{2, 9, 9, 9, 9, 9},
		}
		if err := b.handle.NeighAdd(old); err != nil {
			t.Fatal(err)
		}
		updates, done := make(chan netlink.NeighUpdate, 100), make(chan struct{})
		if err := netlink.NeighSubscribeAt(b.ns, updates, done); err != nil {
			t.Fatal(err)
		}
		if err := a.Announce(a.dev, addr); err != nil {
			t.Fatal(err)
		}
		await(t, s+" at its new place", updates, func(u netlink.NeighUpdate) bool {
			return u.IP.Equal(addr.AsSlice()) && u.HardwareAddr.String() == a.mac.String()
		})
		close(done)
	}
	if err := a.Announce("lo", netip.MustParseAddr("127.0.0.9")); err != nil {
		t.Errorf("loopback: %v, want nothing to do", err)
	}
}

func TestPing(t *testing.T) {
	a, _ := cable(t)
	for _, s := range []string{"10.7.0.2", "fd07::2"} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		rtt, err := a.Ping(ctx, netip.MustParseAddr(s))
		cancel()
		if err != nil || rtt <= 0 { // a link that just came up may lose the first frame
			t.Errorf("%s: %v %v", s, rtt, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := a.Ping(ctx, netip.MustParseAddr("10.7.0.99")); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("nobody there: %v, want ErrNoAnswer", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v beyond its context", took)
	}
}

func TestChoosePrefersTheNarrowestSubnet(t *testing.T) {
	list := []Address{
		{"wide", netip.MustParsePrefix("10.0.0.1/8")},
		{"narrow", netip.MustParsePrefix("10.2.102.51/24")},
		{"alone", netip.MustParsePrefix("10.2.102.50/32")},
		{"six", netip.MustParsePrefix("fe80::1/64")},
	}
	if dev, bits, err := Choose(list, ip4); dev != "narrow" || bits != 24 || err != nil {
		t.Errorf("got %s/%d %v", dev, bits, err)
	}
	if _, _, err := Choose(list, netip.MustParseAddr("fe80::50")); !errors.Is(err, ErrNoInterface) {
		t.Errorf("link-local: %v, want ErrNoInterface: every interface has that subnet", err)
	}
}

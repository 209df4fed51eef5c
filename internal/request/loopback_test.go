package request

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
)

// loopback is a node on real sockets: 127.0.0.2 and [::1], if there is one.
type loopback struct {
	sender *Sender
	guest  *guest
	links  shared[[]Link]
	stop   func()
}

// newLoopback starts a node with working addresses behind the ones given.
func newLoopback(t *testing.T, before ...netip.AddrPort) *loopback {
	t.Helper()
	host := initIdentity(t, "bay7-esx", "bay7-esx")
	w := &loopback{guest: newGuest(t, host)}
	addresses := before
	var servers []*http.Server
	for _, a := range []string{"127.0.0.2:0", "[::1]:0"} {
		l, err := net.Listen("tcp", a)
		if err != nil {
			if a == "[::1]:0" {
				continue // no IPv6 here
			}
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort(l.Addr().String())
		addresses = append(addresses, at)
		srv := w.guest.server("CLP-1", at.String())
		servers = append(servers, srv)
		go srv.ServeTLS(l, "", "")
	}
	link := w.guest.link()
	w.links.set([]Link{{Name: link.Name, CA: link.CA, Nodes: []Node{{Name: "CLP-1", Addresses: addresses}}}})
	w.sender = New(Options{Identity: host, Logger: slog.New(slog.DiscardHandler), Links: w.links.get})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.sender.Run(ctx) })
	w.stop = func() {
		cancel()
		running.Wait()
		for _, s := range servers {
			s.Close()
		}
	}
	return w
}

// awaitUp returns when n addresses are up.
func awaitUp(t *testing.T, s *Sender, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		up := 0
		for _, p := range s.Reachable()[0].Paths {
			if p.Up {
				up++
			}
		}
		if up >= n {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d addresses are up, want %d: %+v", up, n, s.Reachable())
		}
	}
}

// A listener that accepts and never says a word is the first address.
func TestLoopbackSilentListener(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w := newLoopback(t, netip.MustParseAddrPort(silent.Addr().String()))
	defer w.stop()
	awaitUp(t, w.sender, 1)
	begun := time.Now()
	answers := w.sender.Send(t.Context(), api.SendRequest{Request: api.Request{ID: "r1", Verb: failover, Resource: "exec"}, Hosts: []string{"127.0.0.2"}})
	took := time.Since(begun)
	if got := summary(answers); answers[0].Error != nil || answers[0].Via == silent.Addr().String() {
		t.Fatalf("got\n%s", got)
	}
	if took > 500*time.Millisecond { // about 1 ms; the machine may be busy
		t.Fatalf("took %v", took)
	}
	t.Logf("with a silent first address: %v", took)
}

// Each address of each family carries a request.
func TestLoopbackFamilies(t *testing.T) {
	w := newLoopback(t)
	defer w.stop()
	all := w.links.get()[0].Nodes[0].Addresses
	awaitUp(t, w.sender, len(all))
	for _, a := range all {
		w.links.set([]Link{{Name: "VMcluster", CA: w.links.get()[0].CA, Nodes: []Node{{Name: "CLP-1", Addresses: []netip.AddrPort{a}}}}})
		answers := w.sender.Send(t.Context(), api.SendRequest{Request: api.Request{Verb: script, Script: "x"}, Hosts: []string{a.Addr().String()}})
		if answers[0].Error != nil || answers[0].Via != a.String() {
			t.Errorf("%s: %v", a, answers[0].Error)
		}
	}
}

// No part of a request, or of its answer, can be read on the wire.
func TestNothingInClear(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	host := initIdentity(t, "bay7-esx", "bay7-esx")
	g := newGuest(t, host)
	srv := g.server("CLP-1", "x")
	go srv.ServeTLS(l, "", "")
	defer srv.Close()
	var mu sync.Mutex
	var wire []byte
	tap := func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		wire = append(wire, b...)
	}
	link := Link{Name: "VMcluster", CA: g.link().CA, Nodes: []Node{{Name: "CLP-1", Addresses: []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())}}}}
	s := New(Options{Identity: host, Logger: slog.New(slog.DiscardHandler), Links: func() []Link { return []Link{link} },
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			return tapped{c, tap}, err
		}})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	defer running.Wait()
	defer cancel()
	awaitUp(t, s, 1)
	answers := s.Send(t.Context(), api.SendRequest{Request: api.Request{ID: "very-secret-id", Verb: script, Script: "failover_message.sh"}, Hosts: []string{"CLP-1"}})
	if answers[0].Error != nil {
		t.Fatal(answers[0].Error)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(wire) < 1000 {
		t.Fatalf("only %d bytes were seen", len(wire))
	}
	for _, word := range []string{"very-secret-id", "failover_message", "EXEC_SCRIPT", "/v1/requests", "VMcluster", "CLP-1", "bay7-esx"} {
		if bytes.Contains(wire, []byte(word)) {
			t.Errorf("%q is on the wire", word)
		}
	}
}

type tapped struct {
	net.Conn
	tap func([]byte)
}

func (c tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tap(b[:n])
	return n, err
}

func (c tapped) Write(b []byte) (int, error) {
	c.tap(b)
	return c.Conn.Write(b)
}

// cpu is what this process has used.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Both ends of the idle connections together; the bound is generous because the
// machine may be busy. The log has the number.
func TestIdleCost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	w := newLoopback(t)
	defer w.stop()
	n := len(w.links.get()[0].Nodes[0].Addresses)
	awaitUp(t, w.sender, n)
	const window = 4 * time.Second
	before := cpu(t)
	<-time.After(window)
	used := float64(cpu(t)-before) / float64(window) * 100
	t.Logf("%d idle connections, both ends: %.3f %% of a core", n, used)
	if used > 2 {
		t.Errorf("%.2f %% of a core for %d idle connections", used, n)
	}
}

// The answer of a warm connection on loopback.
func TestLoopbackLatency(t *testing.T) {
	w := newLoopback(t)
	defer w.stop()
	awaitUp(t, w.sender, len(w.links.get()[0].Nodes[0].Addresses))
	best := time.Hour
	for range 50 {
		begun := time.Now()
		answers := w.sender.Send(t.Context(), api.SendRequest{Request: api.Request{Verb: failover, Resource: "exec"}, Hosts: []string{"CLP-1"}})
		if answers[0].Error != nil {
			t.Fatal(answers[0].Error)
		}
		best = min(best, time.Since(begun))
	}
	t.Logf("best of 50: %v", best)
	if best > 15*time.Millisecond {
		t.Errorf("a warm request takes %v", best)
	}
}

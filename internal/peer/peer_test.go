package peer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/heartbeat"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

// node is one end: both transports on two addresses of its own.
type node struct {
	name  cluster.NodeName
	id    *identity.Identity
	addrs []netip.Addr
	port  uint16
	peers *Transport
	beats *heartbeat.Transport
	msgs  chan string
	heard chan int
}

func start(t *testing.T) (a, b *node) {
	t.Helper()
	dir := t.TempDir()
	first, err := identity.Init(filepath.Join(dir, "a"), "trial", "a")
	if err != nil {
		t.Fatal(err)
	}
	key, csr, err := identity.NewCSR("b")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := first.Sign(csr, "b")
	if err != nil {
		t.Fatal(err)
	}
	second, err := identity.Adopt(filepath.Join(dir, "b"), key, cert, first.CAPEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	a = &node{name: "a", id: first, port: 42902, addrs: []netip.Addr{netip.MustParseAddr("127.0.71.1"), netip.MustParseAddr("127.0.72.1")}}
	b = &node{name: "b", id: second, port: 42912, addrs: []netip.Addr{netip.MustParseAddr("127.0.71.2"), netip.MustParseAddr("127.0.72.2")}}
	for _, p := range [][2]*node{{a, b}, {b, a}} {
		p[0].run(t, p[1])
	}
	return a, b
}

func (n *node) run(t *testing.T, other *node) {
	log := slog.New(slog.DiscardHandler)
	n.msgs, n.heard = make(chan string, 10_000), make(chan int, 10_000)
	n.beats = heartbeat.New(heartbeat.Options{Port: n.port, Log: log, Receive: func(_ cluster.NodeName, path int, _ []byte) { n.heard <- path }})
	n.peers = New(Options{
		Self: n.name, Boot: string(n.name) + "1", Log: log, TLS: n.id.PeerTLS,
		Receive: func(_ cluster.NodeName, _ Class, msg []byte) { n.msgs <- string(msg) },
		Key: func(p cluster.NodeName, secret []byte, dialer bool) {
			if err := n.beats.AddKey(p, heartbeat.Key{Secret: secret, Dialer: dialer}); err != nil {
				t.Error(err)
			}
		},
	})
	n.beats.SetPeers([]heartbeat.Peer{{Name: other.name, Addresses: other.addrs, Port: other.port}}, n.addrs)
	n.peers.SetPeers([]Peer{{Name: other.name, Addresses: other.addrs, Port: other.port}}, n.addrs)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, a := range n.addrs {
		l, err := tls.Listen("tcp", netip.AddrPortFrom(a, n.port).String(), n.id.ServerTLS(nil))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { n.accept(l, other.name) })
		context.AfterFunc(ctx, func() { _ = l.Close() })
	}
	wg.Go(func() { _ = n.peers.Run(ctx) })
	wg.Go(func() { _ = n.beats.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func (n *node) accept(l net.Listener, from cluster.NodeName) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			tc := c.(*tls.Conn)
			if tc.Handshake() != nil {
				_ = c.Close()
				return
			}
			n.peers.Serve(tc, from)
		})
	}
}

// until runs f every few milliseconds until it says true.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(10 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func (t *Transport) paths(n cluster.NodeName) int {
	t.mu.Lock()
	r := t.peers[n]
	t.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

func TestEachMessageOnceAndBeatsOnEveryPath(t *testing.T) {
	a, b := start(t)
	until(t, "both paths", func() bool { return a.peers.paths("b") == 2 && b.peers.paths("a") == 2 })
	const count = 200
	for i := range count {
		a.peers.Send("b", Normal, fmt.Append(nil, i))
		b.peers.Send("a", Normal, fmt.Append(nil, i))
	}
	for _, n := range []*node{a, b} {
		for i := range count {
			if got := <-n.msgs; got != fmt.Sprint(i) {
				t.Fatalf("%s got %s, want %d", n.name, got, i)
			}
		}
	}
	for path := range 2 {
		until(t, "a beat from a", func() bool {
			a.beats.Send("b", path, []byte("beat"))
			select {
			case p := <-b.heard:
				return p == path
			default:
				return false
			}
		})
		until(t, "a beat from b", func() bool {
			b.beats.Send("a", path, []byte("beat"))
			select {
			case p := <-a.heard:
				return p == path
			default:
				return false
			}
		})
	}
	select {
	case m := <-b.msgs:
		t.Fatalf("delivered twice: %s", m)
	default:
	}
}

func TestALostPathLosesNothing(t *testing.T) {
	a, b := start(t)
	until(t, "both paths", func() bool { return a.peers.paths("b") == 2 && b.peers.paths("a") == 2 })
	for i := range 300 {
		if i == 100 {
			a.peers.mu.Lock()
			r := a.peers.peers["b"]
			a.peers.mu.Unlock()
			r.mu.Lock()
			r.conns[0].close()
			r.mu.Unlock()
		}
		a.peers.Send("b", Normal, fmt.Append(nil, i))
	}
	for i := range 300 {
		if got := <-b.msgs; got != fmt.Sprint(i) {
			t.Fatalf("got %s, want %d", got, i)
		}
	}
	until(t, "the path is back", func() bool { return a.peers.paths("b") == 2 })
}

func TestBulk(t *testing.T) {
	a, b := start(t)
	until(t, "a path", func() bool { return a.peers.paths("b") > 0 })
	big := strings.Repeat("x", 5<<20)
	a.peers.Send("b", Bulk, []byte(big))
	if got := <-b.msgs; got != big {
		t.Fatalf("got %d bytes", len(got))
	}
}

func TestWindow(t *testing.T) {
	var w window
	for _, c := range []struct {
		n     uint64
		fresh bool
	}{{1, true}, {1, false}, {5, true}, {3, true}, {3, false}, {10_000, true}, {5, false}, {9_999, true}, {9_999, false}, {5_905, true}, {5_904, false}} {
		if got := w.add(c.n); got != c.fresh {
			t.Errorf("%d: fresh %v", c.n, got)
		}
	}
}

func TestHugeFrameIsRefusedBeforeItIsRead(t *testing.T) {
	f := frame{class: Normal, data: []byte("x")}.append(nil)
	f[12] = 0xff
	if _, err := readFrame(bufio.NewReader(bytes.NewReader(f))); !errors.Is(err, errFrame) {
		t.Fatal(err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(frame{class: Normal, seq: 7, data: []byte("hello")}.append(nil))
	f.Add([]byte("TK"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readFrame(bufio.NewReader(bytes.NewReader(b)))
		if err == nil && !bytes.HasPrefix(b, got.append(nil)) {
			t.Errorf("%v is not what was read", got)
		}
	})
}

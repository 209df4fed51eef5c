package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/mirror/link/linktest"
)

var loopback = []netip.Addr{netip.MustParseAddr("127.0.0.1")}

func background() context.Context { return context.Background() }

// head is a header whose first bytes are the length of the payload.
func head(n int) (h Header) {
	binary.LittleEndian.PutUint32(h[:], uint32(n))
	return h
}

func size(h *Header) int { return int(binary.LittleEndian.Uint32(h[:])) }

// identities makes the two nodes of a cluster, a and b, and the folder of b's.
func identities(t testing.TB) (a, b *identity.Identity, dir string) {
	t.Helper()
	a, err := identity.Init(filepath.Join(t.TempDir(), "a"), "trial", "a")
	if err != nil {
		t.Fatal(err)
	}
	b, dir = join(t, a, "b")
	return a, b, dir
}

// join makes another node of a's cluster.
func join(t testing.TB, a *identity.Identity, name cluster.NodeName) (*identity.Identity, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), string(name))
	key, csr, err := identity.NewCSR(name)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Sign(csr, name)
	if err != nil {
		t.Fatal(err)
	}
	caKey, err := a.CAKeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	b, err := identity.Adopt(dir, key, cert, a.CAPEM(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return b, dir
}

// listen lets b wait for a.
func listen(t testing.TB, b *identity.Identity, addrs []netip.Addr, from ...netip.Addr) *Listener {
	t.Helper()
	l, err := Listen(t.Context(), ListenOptions{Addresses: addrs, Identity: b, Peer: "a", From: from, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func dialer(a *identity.Identity, port uint16, addrs ...netip.Addr) *Dialer {
	return NewDialer(DialOptions{Addresses: addrs, Port: port, Identity: a, Peer: "b"})
}

// meet connects once.
func meet(t testing.TB, d *Dialer, l *Listener) (near, far *Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	near, err := d.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	if far, err = l.Accept(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	return near, far
}

// pair is one connection.
func pair(t testing.TB) (near, far *Conn) {
	t.Helper()
	a, b, _ := identities(t)
	l := listen(t, b, loopback)
	return meet(t, dialer(a, l.Port(), loopback...), l)
}

// wired is one connection with a wire that can be spoiled.
func wired(t testing.TB) (near, far *Conn, w *linktest.Wire) {
	t.Helper()
	a, b, _ := identities(t)
	l := listen(t, b, loopback)
	w = linktest.New(t, netip.AddrPortFrom(loopback[0], l.Port()))
	near, far = meet(t, dialer(a, w.Addr().Port(), loopback...), l)
	return near, far, w
}

// until waits for what another goroutine does.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(20 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// sizes are where frames change how they are cut into pieces and system calls.
var sizes = []int{0, 1, 512, 4096, piece - 1, piece, piece + 1, 2 * piece, 100_000, writeBuffer - 3*Overhead, writeBuffer, 1 << 20}

// frames sends count frames of random sizes and contents.
func frames(c *Conn, seed uint64, count int) error {
	rng := rand.New(rand.NewChaCha8([32]byte{byte(seed)}))
	content := rand.NewChaCha8([32]byte{byte(seed)})
	for i := range count {
		h := head(sizes[rng.IntN(len(sizes))])
		binary.LittleEndian.PutUint64(h[8:], uint64(i))
		p := make([]byte, size(&h))
		_, _ = content.Read(p)
		send := c.Send
		if i%3 == 1 && i < count-1 {
			send = c.SendMore
		}
		if err := send(&h, p); err != nil {
			return err
		}
	}
	return nil
}

// check receives what frames sends.
func check(c *Conn, seed uint64, count int) error {
	rng := rand.New(rand.NewChaCha8([32]byte{byte(seed)}))
	content := rand.NewChaCha8([32]byte{byte(seed)})
	for i := range count {
		var h Header
		if err := c.Receive(&h); err != nil {
			return err
		}
		want := make([]byte, sizes[rng.IntN(len(sizes))])
		_, _ = content.Read(want)
		if size(&h) != len(want) || binary.LittleEndian.Uint64(h[8:]) != uint64(i) {
			return fmt.Errorf("frame %d has the header %x", i, h)
		}
		got := make([]byte, len(want))
		if i%2 == 0 { // it may have room behind it
			got = make([]byte, len(want), len(want)+Overhead)
		}
		if err := c.ReadPayload(got); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("frame %d has another payload", i)
		}
	}
	return nil
}

// TestBothWays: eight connections, frames of all sizes in both directions at
// once.
func TestBothWays(t *testing.T) {
	const conns, count = 8, 25
	a, b, _ := identities(t)
	l := listen(t, b, loopback)
	d := dialer(a, l.Port(), loopback...)
	var ends [conns][2]*Conn
	for i := range ends {
		ends[i][0], ends[i][1] = meet(t, d, l)
	}
	var wg sync.WaitGroup
	for i := range conns {
		near, far := ends[i][0], ends[i][1]
		for n, f := range []func() error{
			func() error { return frames(near, uint64(i), count) },
			func() error { return check(far, uint64(i), count) },
			func() error { return frames(far, uint64(i+conns), count) },
			func() error { return check(near, uint64(i+conns), count) },
		} {
			wg.Go(func() {
				if err := f(); err != nil {
					t.Errorf("connection %d, part %d: %v", i, n, err)
					_, _ = near.Close(), far.Close()
				}
			})
		}
	}
	wg.Wait()
}

// TestManySenders: frames of goroutines that share a connection arrive whole,
// and those of one goroutine in their order.
func TestManySenders(t *testing.T) {
	const senders, count = 8, 200
	near, far := pair(t)
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for n := range count {
				h := head(i * 100)
				h[8], h[9] = byte(i), byte(n)
				err := near.SendMore(&h, bytes.Repeat([]byte{byte(n)}, i*100))
				if n%2 == 1 {
					err = errors.Join(err, near.Flush())
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var next [senders]int
	for range senders * count {
		var h Header
		if err := far.Receive(&h); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, size(&h))
		if err := far.ReadPayload(p); err != nil {
			t.Fatal(err)
		}
		i := int(h[8])
		if int(h[9]) != next[i] || len(p) != i*100 || !bytes.Equal(p, bytes.Repeat(h[9:10], len(p))) {
			t.Fatalf("sender %d: frame %d where %d should be", i, h[9], next[i])
		}
		next[i]++
	}
	wg.Wait()
	sent, _ := near.Bytes()
	if _, received := far.Bytes(); sent != received || sent != senders*count*int64(len(Header{}))+(0+7)*8/2*100*count {
		t.Errorf("%d bytes sent, %d received", sent, received)
	}
}

func TestCutInTheMiddleOfAFrame(t *testing.T) {
	near, far, w := wired(t)
	w.CutAfter(linktest.Up, 300_000)
	h := head(1 << 20)
	sent := make(chan error, 1)
	go func() {
		p := make([]byte, 1<<20)
		for {
			if err := near.Send(&h, p); err != nil {
				sent <- err
				return
			}
		}
	}()
	var got Header
	if err := far.Receive(&got); err != nil || got != h {
		t.Fatal(err)
	}
	if err := far.ReadPayload(make([]byte, 1<<20)); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("half a frame: %v", err)
	}
	if err := <-sent; err == nil {
		t.Error("sent into nothing")
	}
	if err := near.Receive(&got); err == nil {
		t.Error("received from nothing")
	}
	if err := near.Send(&h, nil); err == nil {
		t.Error("sent after a failure")
	}
}

func TestSpoiledBytes(t *testing.T) {
	for _, at := range []int64{10, 2000} { // in the header, in the payload
		near, far, w := wired(t)
		w.Corrupt(linktest.Up, at)
		h, p := head(4096), make([]byte, 4096)
		if err := errors.Join(near.Send(&h, p), near.Send(&h, p)); err != nil {
			t.Fatal(err)
		}
		var got Header
		err := far.Receive(&got)
		if at > 10 && err == nil {
			err = far.ReadPayload(p)
		}
		if err == nil {
			t.Errorf("a frame with byte %d spoiled was taken: %x", at, got)
		}
		if err := far.Receive(&got); err == nil {
			t.Error("what came after a spoiled frame was taken")
		}
	}
}

// TestSlowReader: a sender waits for the other side, and little is held for it.
func TestSlowReader(t *testing.T) {
	near, far := pair(t)
	const count = 64
	var sent atomic.Int32
	done := make(chan error, 1)
	go func() {
		h, p := head(1<<20), make([]byte, 1<<20)
		for range count {
			if err := near.Send(&h, p); err != nil {
				done <- err
				return
			}
			sent.Add(1)
		}
		done <- nil
	}()
	// It stands still when it has not moved for a while.
	last, since := int32(-1), time.Now()
	until(t, "the sender waits", func() bool {
		if n := sent.Load(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
	if last > 20 {
		t.Errorf("%d MiB are under way", last)
	}
	var h Header
	p := make([]byte, 1<<20)
	for range count {
		if err := errors.Join(far.Receive(&h), far.ReadPayload(p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestClose: what waits ends when its own side closes, and when the other does.
func TestClose(t *testing.T) {
	near, far := pair(t)
	ends := make(chan error, 3)
	go func() { var h Header; ends <- near.Receive(&h) }()
	for range 2 { // both wait: one in the kernel, one for the other
		go func() {
			h, p := head(1<<20), make([]byte, 1<<20)
			for {
				if err := near.Send(&h, p); err != nil {
					ends <- err
					return
				}
			}
		}()
	}
	until(t, "some is sent", func() bool { sent, _ := near.Bytes(); return sent > 4<<20 })
	if err := near.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := <-ends; err == nil {
			t.Error("no error after Close")
		}
	}
	if err := near.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	var h Header
	p := make([]byte, 1<<20)
	for {
		err := errors.Join(far.Receive(&h), far.ReadPayload(p))
		if err == nil {
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			t.Errorf("closed by the other side: %v", err)
		}
		break
	}

	near, far = pair(t)
	go func() { var h Header; ends <- near.Receive(&h) }()
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ends; !errors.Is(err, io.EOF) {
		t.Errorf("between frames: %v", err)
	}
	if err := far.Receive(&h); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestWornConnection(t *testing.T) {
	near, far := pair(t)
	if near.Worn() || far.Worn() {
		t.Fatal("a new one is worn")
	}
	far.received.Store(wornAfter)
	if far.Worn() {
		t.Error("too early")
	}
	h := head(0)
	if err := errors.Join(near.Send(&h, nil), far.Receive(&h)); err != nil {
		t.Fatal(err)
	}
	if !far.Worn() {
		t.Error("not worn")
	}
}

// renew gives an identity a new key and a certificate that is valid for so long
// from now on, or has expired so long ago.
func renew(t *testing.T, id *identity.Identity, valid time.Duration) {
	t.Helper()
	key, csr, err := identity.NewCSR(id.Node())
	if err != nil {
		t.Fatal(err)
	}
	text, err := id.Sign(csr, id.Node())
	if err != nil {
		t.Fatal(err)
	}
	certs, err := identity.ParseCertificates(text)
	if err != nil {
		t.Fatal(err)
	}
	text, err = id.CAKeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	ca, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	certs[0].NotAfter = time.Now().Add(valid)
	der, err := x509.CreateCertificate(nil, certs[0], id.CA(), certs[0].PublicKey, ca)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Install(key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		t.Fatal(err)
	}
}

// TestRefused: nobody but the peer gets in, or is taken for the peer.
func TestRefused(t *testing.T) {
	a, b, _ := identities(t)
	c, _ := join(t, a, "c")
	foreignA, foreignB, _ := identities(t) // the same names, another CA
	revoked, _ := join(t, a, "a")
	serial := revoked.Certificate().SerialNumber
	b.SetRevoked(func(x *x509.Certificate) bool { return x.SerialNumber.Cmp(serial) == 0 })
	for name, c := range map[string]struct {
		near, far *identity.Identity
		untrusted bool // it is the dialer who refuses
	}{
		"another node dials":        {c, b, false},
		"a foreign node dials":      {foreignA, b, true},
		"a revoked node dials":      {revoked, b, false},
		"another node listens":      {a, c, true},
		"a foreign node listens":    {a, foreignB, true},
		"the dialer itself listens": {a, a, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, c.far, loopback)
			conn, err := dialer(c.near, l.Port(), loopback...).Dial(t.Context())
			if err == nil {
				_ = conn.Close()
				t.Fatal("let in")
			}
			if errors.Is(err, identity.ErrNotTrusted) != c.untrusted {
				t.Errorf("%v", err)
			}
			nobody(t, l)
		})
	}
}

// TestExpired: a certificate that has expired is told of elsewhere, and lets in.
func TestExpired(t *testing.T) {
	a, b, _ := identities(t)
	late, _ := join(t, a, "a")
	renew(t, late, -time.Hour)
	for _, id := range []*identity.Identity{a, late} {
		l := listen(t, b, loopback)
		conn, err := dialer(id, l.Port(), loopback...).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
}

// nobody fails if somebody was accepted.
func nobody(t *testing.T, l *Listener) {
	t.Helper()
	until(t, "the handshakes are over", func() bool { return len(l.slots) == 0 })
	select {
	case <-l.ready:
		t.Fatal("accepted")
	default:
	}
}

// TestRefusedBefore: what is not our TLS does not get far either.
func TestRefusedBefore(t *testing.T) {
	a, b, _ := identities(t)
	l := listen(t, b, loopback)
	addr := netip.AddrPortFrom(loopback[0], l.Port()).String()
	bare := judge(a.PeerTLS("b"), a, "b")
	bare.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	foreign, _, _ := identities(t)
	liar := judge(foreign.PeerTLS("b"), foreign, "b")
	liar.VerifyConnection = nil // it takes anybody
	old := judge(a.PeerTLS("b"), a, "b")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, config := range map[string]*tls.Config{
		"no certificate": bare, "a foreign certificate": liar, "an old TLS": old, "another protocol": a.PeerTLS("b"), "no TLS": nil,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if config != nil {
				c = tls.Client(c, config)
			}
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			// An alert and the end may come, the greeting must not.
			b, err := io.ReadAll(c)
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				t.Error("the listener waits on")
			}
			if config != nil && len(b) != 0 {
				t.Errorf("it was greeted: %q", b)
			}
			nobody(t, l)
		})
	}
	meet(t, dialer(a, l.Port(), loopback...), l)
}

// TestStrangers: who says nothing can keep few places, and not the peer's.
func TestStrangers(t *testing.T) {
	a, b, _ := identities(t)
	l := listen(t, b, loopback)
	addr := netip.AddrPortFrom(loopback[0], l.Port()).String()
	var conns []net.Conn
	for range strangers {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	until(t, "all places are taken", func() bool { return len(l.slots) == strangers })
	one, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if _, err := one.Read(make([]byte, 1)); err == nil {
		t.Fatal("one more was served")
	}
	_ = conns[0].Close()
	until(t, "a place is free", func() bool { return len(l.slots) < strangers })
	meet(t, dialer(a, l.Port(), loopback...), l)

	l = listen(t, b, loopback, netip.MustParseAddr("127.0.0.9"))
	if one, err = net.Dial("tcp", netip.AddrPortFrom(loopback[0], l.Port()).String()); err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if _, err := one.Read(make([]byte, 1)); err == nil {
		t.Fatal("served from another address")
	}
	d := NewDialer(DialOptions{Addresses: loopback, Local: []netip.Addr{netip.MustParseAddr("127.0.0.9")}, Port: l.Port(), Identity: a, Peer: "b"})
	if _, far := meet(t, d, l); far.Remote().Addr() != netip.MustParseAddr("127.0.0.9") {
		t.Errorf("from %s", far.Remote())
	}
}

// TestRenewal: certificates are read at each handshake.
func TestRenewal(t *testing.T) {
	a, b, _ := identities(t)
	l := listen(t, b, loopback)
	d := dialer(a, l.Port(), loopback...)
	for _, id := range []*identity.Identity{a, b} {
		near, far := meet(t, d, l)
		renew(t, id, time.Hour)
		next, nextFar := meet(t, d, l)
		for conn, want := range map[*Conn]*identity.Identity{next: b, nextFar: a} {
			if got := conn.shown; !got.Equal(want.Certificate()) {
				t.Errorf("%s has shown an earlier certificate", want.Node())
			}
		}
		if err := frames(near, 1, 1); err != nil { // what stands, stands
			t.Error(err)
		}
		if err := check(far, 1, 1); err != nil {
			t.Error(err)
		}
	}
}

// TestAddresses: an address that does not answer costs a moment, once.
func TestAddresses(t *testing.T) {
	a, b, _ := identities(t)
	l := listen(t, b, loopback)
	silent := netip.MustParseAddr("127.0.0.2") // takes connections and says nothing
	dead, err := net.Listen("tcp", netip.AddrPortFrom(silent, l.Port()).String())
	if err != nil {
		t.Skipf("the port is in use on another address: %v", err)
	}
	defer dead.Close()
	var tried atomic.Int32
	go func() {
		for {
			c, err := dead.Accept()
			if err != nil {
				return
			}
			tried.Add(1)
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	d := dialer(a, l.Port(), silent, netip.MustParseAddr("127.0.0.3"), loopback[0])
	if near, _ := meet(t, d, l); near.Remote().Addr() != loopback[0] {
		t.Errorf("connected to %s", near.Remote())
	}
	until(t, "the first address was tried", func() bool { return tried.Load() == 1 })
	if o := d.order(); !slices.Equal(o, []int{2, 0, 1}) {
		t.Errorf("tried next in the order %v", o)
	}
	d.at = d.at.Add(-2 * rememberFor)
	if o := d.order(); !slices.Equal(o, []int{0, 1, 2}) {
		t.Errorf("tried much later in the order %v", o)
	}

	ctx, cancel := context.WithCancel(t.Context())
	d = dialer(a, l.Port(), silent)
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := d.Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := dialer(a, 1, loopback...).Dial(t.Context()); err == nil {
		t.Error("connected to nothing")
	}
	if _, err := dialer(a, 1).Dial(t.Context()); err == nil {
		t.Error("connected to no address")
	}
}

func TestIPv6(t *testing.T) {
	a, b, _ := identities(t)
	six := netip.IPv6Loopback()
	l := listen(t, b, []netip.Addr{six})
	near, far := meet(t, dialer(a, l.Port(), six), l)
	if near.Remote() != far.Local() || near.Local() != far.Remote() || far.Local().Addr() != six {
		t.Errorf("%s to %s, %s to %s", near.Local(), near.Remote(), far.Remote(), far.Local())
	}
	if err := frames(near, 2, 3); err != nil {
		t.Fatal(err)
	}
	if err := check(far, 2, 3); err != nil {
		t.Fatal(err)
	}
}

// TestSocketOptions: what is set before connect and listen holds for the
// connections, on both sides.
func TestSocketOptions(t *testing.T) {
	near, far := pair(t)
	for name, c := range map[string]*Conn{"dialer": near, "listener": far} {
		for option, o := range map[string]struct{ level, name, least int }{
			"TCP_NODELAY":      {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedFor.Milliseconds())},
			"SO_SNDBUF":        {unix.SOL_SOCKET, unix.SO_SNDBUF, 256 << 10},
			"SO_RCVBUF":        {unix.SOL_SOCKET, unix.SO_RCVBUF, 256 << 10},
		} {
			if v, err := unix.GetsockoptInt(c.sock.fd, o.level, o.name); err != nil || v < o.least {
				t.Errorf("%s: %s is %d, %v, want %d", name, option, v, err, o.least)
			}
		}
	}
}

func TestListenerEnds(t *testing.T) {
	_, b, _ := identities(t)
	l := listen(t, b, loopback)
	done := make(chan error, 1)
	go func() { _, err := l.Accept(t.Context()); done <- err }()
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	again, err := Listen(t.Context(), ListenOptions{Addresses: loopback, Port: l.Port(), Identity: b, Peer: "a", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("the port is not free again: %v", err)
	}
	if _, err := Listen(t.Context(), ListenOptions{Addresses: loopback, Port: l.Port(), Identity: b, Peer: "a"}); err == nil {
		t.Error("one port twice")
	}
	again.Close()
	if _, err := Listen(t.Context(), ListenOptions{Identity: b, Peer: "a"}); err == nil {
		t.Error("listens on no address")
	}
}

func TestWire(t *testing.T) {
	near, far, w := wired(t)
	w.Hold(linktest.Up)
	h := head(0)
	if err := near.Send(&h, nil); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() { var h Header; got <- far.Receive(&h) }()
	if err := errors.Join(far.Send(&h, nil), near.Receive(&h)); err != nil { // the other direction works
		t.Fatal(err)
	}
	select {
	case err := <-got:
		t.Fatalf("passed a wire that is held: %v", err)
	default:
	}
	w.Release(linktest.Up)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	w.Delay(linktest.Down, 30*time.Millisecond)
	began := time.Now()
	if err := errors.Join(far.Send(&h, nil), near.Receive(&h)); err != nil || time.Since(began) < 30*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	w.Refuse(true)
	w.Cut()
	if err := far.Receive(&h); err == nil {
		t.Error("the wire was cut")
	}
}

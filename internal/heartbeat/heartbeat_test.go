package heartbeat

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

const port = 42903

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// got is one delivery.
type got struct {
	from    cluster.NodeName
	path    int
	payload string
}

// sink keeps what is delivered.
type sink struct {
	mu  sync.Mutex
	all []got
}

func (s *sink) keep(from cluster.NodeName, path int, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, got{from, path, string(payload)})
}

func (s *sink) count(g got) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, have := range s.all {
		if have == g {
			n++
		}
	}
	return n
}

func (s *sink) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// until asks f every few milliseconds until it says true.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(5 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func addresses(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// pair makes two transports that have one key and no socket.
func pair(t testing.TB) (a, b *Transport, atA, atB *sink) {
	t.Helper()
	atA, atB = &sink{}, &sink{}
	a = New(Options{Port: port, Receive: atA.keep})
	b = New(Options{Port: port, Receive: atB.keep})
	a.SetPeers([]Peer{{Name: "b"}}, nil)
	b.SetPeers([]Peer{{Name: "a"}}, nil)
	rekey(t, a, b, 1)
	return a, b, atA, atB
}

func secret(n int) []byte { return bytes.Repeat([]byte{byte(n)}, SecretSize) }

func rekey(t testing.TB, a, b *Transport, n int) {
	t.Helper()
	if err := b.AddKey("a", Key{Secret: secret(n)}); err != nil {
		t.Fatal(err)
	}
	if err := a.AddKey("b", Key{Secret: secret(n), Dialer: true}); err != nil {
		t.Fatal(err)
	}
}

// packet is what a would send to b.
func packet(a *Transport, to cluster.NodeName, payload string) []byte {
	return a.peers[to].sending.sealTo(nil, []byte(payload))
}

func TestADatagramIsDeliveredOnce(t *testing.T) {
	a, b, atA, atB := pair(t)
	p := packet(a, "b", "beat")
	b.take(1, bytes.Clone(p))
	if n := atB.count(got{"a", 1, "beat"}); n != 1 {
		t.Fatalf("delivered %d times", n)
	}
	b.take(1, bytes.Clone(p))
	b.take(0, bytes.Clone(p))
	if s := b.Stats(); atB.len() != 1 || s.Replayed != 2 || s.Received != 1 {
		t.Fatalf("a replay was delivered: %+v", s)
	}
	a.take(1, bytes.Clone(p))
	if s := a.Stats(); atA.len() != 0 || s.BadTag != 1 {
		t.Fatalf("the sender accepts its own: %+v", s)
	}
}

func TestAChangedDatagramIsRefused(t *testing.T) {
	a, b, _, atB := pair(t)
	size := len(packet(a, "b", "beat"))
	for bit := range size * 8 {
		p := packet(a, "b", "beat")
		p[bit/8] ^= 1 << (bit % 8)
		b.take(0, p)
		if atB.len() != 0 {
			t.Fatalf("bit %d changed, and delivered", bit)
		}
	}
	s := b.Stats()
	if s.Malformed != 32 || s.UnknownKey != 64 || s.BadTag != uint64(size-12)*8 {
		t.Fatalf("counted wrongly: %+v", s)
	}
	for n := range size {
		b.take(0, packet(a, "b", "beat")[:n])
	}
	b.take(0, append(packet(a, "b", "beat"), 0))
	b.take(0, make([]byte, maxPacket+1))
	if atB.len() != 0 {
		t.Fatal("a datagram of a wrong size was delivered")
	}
	// What was refused must not have used up the counters.
	b.take(0, packet(a, "b", "beat"))
	if atB.len() != 1 {
		t.Fatal("a good datagram is refused after bad ones")
	}
}

func TestOtherKeysOpenNothing(t *testing.T) {
	a, b, _, atB := pair(t)
	c := New(Options{Receive: func(cluster.NodeName, int, []byte) {}})
	if err := c.AddKey("b", Key{Secret: secret(9), Dialer: true}); err != nil {
		t.Fatal(err)
	}
	b.take(0, packet(c, "b", "beat"))
	if s := b.Stats(); s.UnknownKey != 1 || atB.len() != 0 {
		t.Fatalf("a stranger was heard: %+v", s)
	}
	// A node that is no peer any more is a stranger too, and so it stays until
	// there is a new key.
	b.SetPeers(nil, nil)
	b.SetPeers([]Peer{{Name: "a"}}, nil)
	b.take(0, packet(a, "b", "beat"))
	if s := b.Stats(); s.UnknownKey != 2 || atB.len() != 0 {
		t.Fatalf("a removed node was heard: %+v", s)
	}
}

func TestAKeyMayComeBeforeItsPeer(t *testing.T) {
	a, _, _, _ := pair(t)
	at := &sink{}
	b := New(Options{Receive: at.keep})
	if err := b.AddKey("a", Key{Secret: secret(1)}); err != nil {
		t.Fatal(err)
	}
	b.take(0, packet(a, "b", "early"))
	b.SetPeers([]Peer{{Name: "a"}}, nil)
	b.take(0, packet(a, "b", "beat"))
	if at.len() != 1 || at.count(got{"a", 0, "beat"}) != 1 {
		t.Fatalf("got %v", at.all)
	}
}

func TestKeysAreBounded(t *testing.T) {
	a, b, _, atB := pair(t)
	old := packet(a, "b", "old")
	for n := 2; n < 60; n++ {
		rekey(t, a, b, n)
		b.take(0, packet(a, "b", fmt.Sprint(n)))
		if atB.count(got{"a", 0, fmt.Sprint(n)}) != 1 {
			t.Fatalf("key %d does not work", n)
		}
	}
	if len(b.boxes) != keysPerPeer || len(b.peers["a"].boxes) != keysPerPeer {
		t.Fatalf("%d keys are kept", len(b.boxes))
	}
	b.take(0, old)
	if atB.count(got{"a", 0, "old"}) != 0 {
		t.Fatal("a forgotten key still opens")
	}
	for n := range maxPeers + 10 {
		err := b.AddKey(cluster.NodeName(fmt.Sprint("n", n)), Key{Secret: secret(100 + n)})
		if wrong := (err != nil) != (n >= maxPeers-1); wrong {
			t.Fatalf("node %d: %v", n, err)
		}
	}
	for _, bad := range [][]byte{nil, secret(1)[1:], append(secret(1), 0)} {
		if b.AddKey("a", Key{Secret: bad}) == nil {
			t.Fatalf("a secret of %d bytes is accepted", len(bad))
		}
	}
}

func TestAKeyThatWorksIsKept(t *testing.T) {
	a, b, _, atB := pair(t)
	// Connections that come to nothing: only b thinks that they were made.
	for n := 2; n < 60; n++ {
		if err := b.AddKey("a", Key{Secret: secret(n)}); err != nil {
			t.Fatal(err)
		}
		b.take(0, packet(a, "b", fmt.Sprint(n)))
		if atB.count(got{"a", 0, fmt.Sprint(n)}) != 1 {
			t.Fatalf("refused after %d failed connections", n-1)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	k := Key{Secret: []byte(strings.Repeat("s", SecretSize)), Dialer: true}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "key", k)
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s", k, k, k, k), log.String()} {
		if strings.Contains(text, "sss") || strings.Contains(text, "115") || strings.Contains(text, "0x73") {
			t.Errorf("shows the secret: %s", text)
		}
	}
}

func TestWindow(t *testing.T) {
	const size = 1024
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		w, seen, top := NewWindow(size), map[uint64]bool{0: true}, uint64(0)
		for range 20_000 {
			n := top + uint64(r.IntN(size)) - uint64(r.IntN(size+200))
			switch r.IntN(400) {
			case 0:
				n = top + uint64(r.IntN(5*size))
			case 1:
				n = 0
			}
			if n > top+1<<40 { // below 0
				n = 1
			}
			want := !seen[n] && n+size > top
			if w.Accept(n) != want {
				t.Fatalf("seed %d: %d with %d as the highest: want %v", seed, n, top, want)
			}
			seen[n], top = true, max(top, n)
		}
	}
	w := NewWindow(size)
	for _, n := range []uint64{1, 1 << 63, 1<<64 - 1, 1<<64 - size} {
		if !w.Accept(n) || w.Accept(n) {
			t.Errorf("%d is not accepted once", n)
		}
	}
	if w.Accept(1<<64 - size - 1) {
		t.Error("older than the window, and accepted")
	}
}

// end is a running transport.
type end struct {
	*Transport
	sink
	stop func()
}

func start(t testing.TB, self []netip.Addr, peers ...Peer) *end {
	t.Helper()
	e := &end{}
	e.Transport = New(Options{Port: port, Receive: e.keep})
	e.SetPeers(peers, self)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Run(ctx)
	}()
	e.stop = func() { cancel(); <-done }
	t.Cleanup(e.stop)
	return e
}

// beat sends until it arrives.
func beat(t testing.TB, from, to *end, name, sender cluster.NodeName, path int, text string) {
	t.Helper()
	until(t, fmt.Sprintf("%s from %s on path %d", text, sender, path), func() bool {
		from.Send(name, path, []byte(text))
		return to.count(got{sender, path, text}) > 0
	})
}

func TestOnEveryPath(t *testing.T) {
	atA, atB := addresses("127.0.73.1", "127.0.74.1", "::1"), addresses("127.0.73.2", "127.0.74.2", "::1")
	a := start(t, atA[:2], Peer{"b", atB, port})
	b := start(t, atB, Peer{"a", atA[:2], port})
	a.Send("b", 0, []byte("no key yet"))
	b.Send("a", 0, []byte("no key yet"))
	rekey(t, a.Transport, b.Transport, 1)
	for path := range 2 {
		beat(t, a, b, "b", "a", path, "to b")
		beat(t, b, a, "a", "b", path, "to a")
	}
	for _, bad := range []int{-1, 2, 3} {
		a.Send("b", bad, nil)
	}
	a.Send("c", 0, nil)
	a.Send("b", 0, make([]byte, MaxPayload+1))
	if s := a.Stats(); s.NoKey != 1 || s.NoPath != 5 || s.Sent == 0 {
		t.Errorf("%+v", s)
	}
	beat(t, a, b, "b", "a", 0, strings.Repeat("x", MaxPayload))
}

func TestIPv6(t *testing.T) {
	c, err := net.Dial("udp6", fmt.Sprintf("[::1]:%d", port))
	if err != nil {
		t.Skip("no IPv6 on this machine")
	}
	defer func() { _ = c.Close() }()
	// There is one loopback address, so the node sends to itself, and the test
	// plays the other one.
	at := addresses("::1")
	b := start(t, at, Peer{"a", at, port})
	a := New(Options{})
	rekey(t, a, b.Transport, 1)
	until(t, "over IPv6", func() bool {
		_, _ = c.Write(packet(a, "b", "six"))
		return b.count(got{"a", 0, "six"}) > 0
	})
	b.Send("a", 0, []byte("back to the sender"))
	until(t, "what it sent", func() bool { return b.Stats().BadTag == 1 })
}

func TestAcceptorSendsUnderBothKeys(t *testing.T) {
	atA, atB := addresses("127.0.73.1"), addresses("127.0.73.2")
	a, b := start(t, atA, Peer{"b", atB, port}), start(t, atB, Peer{"a", atA, port})
	// The dialer's datagrams do not arrive; the acceptor's must all the same.
	rekey(t, a.Transport, b.Transport, 1)
	beat(t, b, a, "a", "b", 0, "first key")
	rekey(t, a.Transport, b.Transport, 2)
	beat(t, b, a, "a", "b", 0, "second key")
	// The dialer lost its keys, and knows only the latest.
	a.SetPeers(nil, atA)
	a.SetPeers([]Peer{{"b", atB, port}}, atA)
	rekey(t, a.Transport, b.Transport, 3)
	beat(t, b, a, "a", "b", 0, "third key")
	// One datagram of the dialer ends the trial.
	beat(t, a, b, "b", "a", 0, "here")
	was := b.Stats().Sent
	b.Send("a", 0, nil)
	if n := b.Stats().Sent - was; n != 1 {
		t.Errorf("sent %d times", n)
	}
}

func TestKeysRollOverWithoutALoss(t *testing.T) {
	atA, atB := addresses("127.0.73.1"), addresses("127.0.73.2")
	a, b := start(t, atA, Peer{"b", atB, port}), start(t, atB, Peer{"a", atA, port})
	rekey(t, a.Transport, b.Transport, 1)
	beat(t, a, b, "b", "a", 0, "ready")
	beat(t, b, a, "a", "b", 0, "ready")
	for n := range 200 {
		if n%5 == 0 {
			rekey(t, a.Transport, b.Transport, 2+n/5)
		}
		text := fmt.Sprint(n)
		a.Send("b", 0, []byte(text))
		b.Send("a", 0, []byte(text))
		until(t, "beat "+text, func() bool {
			return b.count(got{"a", 0, text}) == 1 && a.count(got{"b", 0, text}) >= 1
		})
	}
	if s := a.Stats(); s.BadTag+s.Replayed+s.UnknownKey+s.Malformed != 0 {
		t.Errorf("refused: %+v", s)
	}
}

func TestSetPeersWhileRunning(t *testing.T) {
	atA, atB := addresses("127.0.73.1", "127.0.74.1"), addresses("127.0.73.2", "127.0.74.2")
	a, b := start(t, atA[:1], Peer{"b", atB[:1], port}), start(t, atB[:1], Peer{"a", atA[:1], port})
	rekey(t, a.Transport, b.Transport, 1)
	beat(t, a, b, "b", "a", 0, "one network")
	a.SetPeers([]Peer{{"b", atB, port}}, atA)
	b.SetPeers([]Peer{{"a", atA, port}}, atB)
	beat(t, a, b, "b", "a", 1, "two networks")
	turn := func(l []netip.Addr) []netip.Addr { return []netip.Addr{l[1], l[0]} }
	a.SetPeers([]Peer{{"b", turn(atB), port}}, turn(atA))
	b.SetPeers([]Peer{{"a", turn(atA), port}}, turn(atB))
	beat(t, a, b, "b", "a", 0, "turned")
	if b.sockets[atB[1]].path.Load() != 0 {
		t.Error("the order of paths did not change")
	}
	b.SetPeers([]Peer{{"a", atA[1:], port}}, atB[1:])
	until(t, "the socket is closed", func() bool {
		l, err := net.ListenPacket("udp4", netip.AddrPortFrom(atB[0], port).String())
		if err != nil {
			return false
		}
		_ = l.Close()
		return true
	})
}

func TestASocketIsTriedAgain(t *testing.T) {
	atA, atB := addresses("127.0.73.1"), addresses("127.0.73.2")
	taken, err := net.ListenPacket("udp4", netip.AddrPortFrom(atB[0], port).String())
	if err != nil {
		t.Fatal(err)
	}
	a, b := start(t, atA, Peer{"b", atB, port}), start(t, atB, Peer{"a", atA, port})
	rekey(t, a.Transport, b.Transport, 1)
	b.Send("a", 0, nil)
	if s := b.Stats(); s.SendErrors != 1 || s.Sent != 0 {
		t.Errorf("sent without a socket: %+v", s)
	}
	_ = taken.Close()
	beat(t, a, b, "b", "a", 0, "bound at last")
}

func TestMarkedAsNetworkControl(t *testing.T) {
	a := start(t, addresses("127.0.73.1"))
	var tos, priority int
	until(t, "the socket", func() bool {
		s := a.sockets[netip.MustParseAddr("127.0.73.1")]
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.raw == nil {
			return false
		}
		_ = s.raw.Control(func(fd uintptr) {
			tos, _ = unix.GetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TOS)
			priority, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY)
		})
		return true
	})
	if tos != classSelector6 || priority != 6 {
		t.Errorf("TOS %#x, priority %d", tos, priority)
	}
}

// A flood on the port from a stranger must not keep heartbeats away.
func TestFlood(t *testing.T) {
	atA, atB := addresses("127.0.73.1"), addresses("127.0.73.2")
	a, b := start(t, atA, Peer{"b", atB, port}), start(t, atB, Peer{"a", atA, port})
	rekey(t, a.Transport, b.Transport, 1)
	beat(t, a, b, "b", "a", 0, "before")
	junk := packet(a.Transport, "b", strings.Repeat("x", 300))
	junk[20] ^= 1 // of a known key: the kind that costs most
	var flood sync.WaitGroup
	stop, sent := make(chan struct{}), make(chan struct{}, 10_000)
	flood.Go(func() {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 73, 66)}}
		c, err := d.Dial("udp4", netip.AddrPortFrom(atB[0], port).String())
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			_, _ = c.Write(junk)
			select {
			case sent <- struct{}{}:
			default:
			}
		}
	})
	defer func() { close(stop); flood.Wait() }()
	until(t, "the flood", func() bool { return len(sent) == cap(sent) })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	const beats = 50
	for range beats {
		<-tick.C
		a.Send("b", 0, []byte("in the flood"))
	}
	until(t, "every heartbeat", func() bool { return b.count(got{"a", 0, "in the flood"}) == beats })
	if s := b.Stats(); s.BadTag != 0 {
		t.Errorf("%d datagrams of a stranger came through", s.BadTag)
	}
}

func TestFilter(t *testing.T) {
	list := addresses("10.1.2.3", "::ffff:10.1.2.4", "fd00::1:2", "fd00::3")
	for six, count := range map[bool]int{false: 1 + 2*2 + 1, true: 2*9 + 1} {
		raw, err := newFilter(list, six)
		if err != nil || len(raw) != count {
			t.Errorf("%v: %d instructions, want %d (%v)", six, len(raw), count, err)
		}
	}
	many := make([]netip.Addr, 31*8)
	for i := range many {
		many[i] = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})
	}
	if raw, err := newFilter(many, true); err != nil || len(raw) > 4096 {
		t.Errorf("%d instructions for a large cluster, more than the kernel takes (%v)", len(raw), err)
	}
}

func FuzzTake(f *testing.F) {
	a, b, _, atB := pair(f)
	f.Add(packet(a, "b", "beat"))
	f.Add(packet(a, "b", strings.Repeat("x", MaxPayload)))
	f.Add([]byte("TkH\x01"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		before := atB.len()
		b.take(0, bytes.Clone(p))
		if n := atB.len() - before; n > 1 || n == 1 && !bytes.HasPrefix(p, []byte("TkH\x01")) {
			t.Errorf("delivered %d: %x", n, p)
		}
	})
}

func BenchmarkSealAndOpen(bench *testing.B) {
	a, b, _, _ := pair(bench)
	b.opt.Receive = func(cluster.NodeName, int, []byte) {}
	payload := bytes.Repeat([]byte("x"), 300)
	buf := make([]byte, 0, maxPacket)
	from := a.peers["b"].sending
	bench.ReportAllocs()
	for bench.Loop() {
		b.take(0, from.sealTo(buf, payload))
	}
	if s := b.Stats(); s.Received != uint64(bench.N) {
		bench.Fatalf("%+v", s)
	}
}

func BenchmarkLoopback(bench *testing.B) {
	atA, atB := addresses("127.0.73.1"), addresses("127.0.73.2")
	a, b := start(bench, atA, Peer{"b", atB, port}), start(bench, atB, Peer{"a", atA, port})
	rekey(bench, a.Transport, b.Transport, 1)
	beat(bench, a, b, "b", "a", 0, "ready")
	heard := make(chan struct{}, 1)
	b.opt.Receive = func(cluster.NodeName, int, []byte) { heard <- struct{}{} }
	payload := bytes.Repeat([]byte("x"), 300)
	bench.ReportAllocs()
	for bench.Loop() {
		a.Send("b", 0, payload)
		<-heard
	}
}

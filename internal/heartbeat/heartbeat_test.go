package heartbeat

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func pair(t testing.TB) (a, b *Transport) {
	t.Helper()
	o := Options{Port: 1, Log: slog.New(slog.DiscardHandler), Receive: func(cluster.NodeName, int, []byte) {}}
	a, b = New(o), New(o)
	a.SetPeers([]Peer{{Name: "b"}}, nil)
	b.SetPeers([]Peer{{Name: "a"}}, nil)
	rekey(t, a, b, 1)
	return a, b
}

func rekey(t testing.TB, a, b *Transport, n byte) {
	t.Helper()
	secret := bytes.Repeat([]byte{n}, 32)
	if err := a.AddKey("b", Key{Secret: secret, Dialer: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.AddKey("a", Key{Secret: secret}); err != nil {
		t.Fatal(err)
	}
}

func TestSealedPacketsOpenOnce(t *testing.T) {
	a, b := pair(t)
	p := a.peers["b"].current().seal([]byte("beat"))
	s, payload, err := b.open(p)
	if err != nil || string(payload) != "beat" || s.peer != "a" {
		t.Fatalf("%v %q", err, payload)
	}
	if _, _, err := b.open(p); err == nil {
		t.Fatal("a replay was accepted")
	}
	if _, _, err := a.open(p); err == nil {
		t.Fatal("a packet was accepted by its own sender")
	}
	for i := range p {
		q := a.peers["b"].current().seal([]byte("beat"))
		q[i] ^= 1
		if _, _, err := b.open(q); err == nil {
			t.Fatalf("a packet with byte %d changed was accepted", i)
		}
	}
}

func TestAcceptorWaitsForTheFirstPacket(t *testing.T) {
	a, b := pair(t)
	if b.peers["a"].current() != nil {
		t.Fatal("the acceptor sends before it knows that the dialer has the key")
	}
	if _, _, err := b.open(a.peers["b"].current().seal(nil)); err != nil {
		t.Fatal(err)
	}
	if b.peers["a"].current() == nil {
		t.Fatal("the acceptor does not send")
	}
}

func TestOldKeysStayForPacketsUnderWay(t *testing.T) {
	a, b := pair(t)
	old := a.peers["b"].current().seal([]byte("old"))
	for n := byte(2); n < 2+keysKept-1; n++ {
		rekey(t, a, b, n)
	}
	if _, _, err := b.open(old); err != nil {
		t.Fatal("a packet under an older key was refused")
	}
	rekey(t, a, b, 100)
	if _, _, err := b.open(a.peers["b"].sessions[0].seal(nil)); err != nil {
		t.Fatal("the oldest key that is kept was refused")
	}
	if len(b.byID) != keysKept {
		t.Fatalf("%d keys are kept", len(b.byID))
	}
}

func TestWindowSlides(t *testing.T) {
	s := &session{}
	for _, c := range []struct {
		n     uint64
		fresh bool
	}{{1, true}, {1, false}, {2000, true}, {900, false}, {977, true}, {977, false}, {1999, true}, {5000, true}, {3900, false}, {4000, true}} {
		if got := s.fresh(c.n); got != c.fresh {
			t.Errorf("%d: fresh %v", c.n, got)
		}
	}
}

func FuzzOpen(f *testing.F) {
	a, b := pair(f)
	f.Add(a.peers["b"].current().seal([]byte("beat")))
	f.Add([]byte{version})
	f.Fuzz(func(t *testing.T, p []byte) {
		if s, _, err := b.open(p); err == nil && s.peer != "a" {
			t.Error("a stranger was let in")
		}
	})
}

func BenchmarkSealAndOpen(bench *testing.B) {
	a, b := pair(bench)
	payload := bytes.Repeat([]byte("x"), 300)
	for bench.Loop() {
		if _, _, err := b.open(a.peers["b"].current().seal(payload)); err != nil {
			bench.Fatal(err)
		}
	}
}

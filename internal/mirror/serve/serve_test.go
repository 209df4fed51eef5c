package serve

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

const testSize = 64 << 20

var deactivateNow = control.Request{Do: control.Deactivate, Force: true}

// rig is two copies on loopback addresses, and a register in place of the cluster.
type rig struct {
	t     testing.TB
	front func(int, front.Device) (front.Front, error) // in place of noFront; may be nil
	dirs  [2]string
	spec  [2]control.Spec
	copy  [2]*running

	mu    sync.Mutex
	owner int
	epoch uint64
	in    [2]bool
	rev   uint64
	down  bool // the register answers nobody
}

// running is one process that serves.
type running struct {
	stop   context.CancelFunc
	ended  chan error
	client atomic.Pointer[control.Client]
	front  *noFront
}

// noFront is a front end without a kernel: the test calls the device.
type noFront struct {
	front.Device
	gone  chan struct{}
	once  sync.Once
	abort atomic.Bool
}

func (n *noFront) Path() string { return "/dev/none" }
func (n *noFront) Serve() error { <-n.gone; return nil }
func (n *noFront) Detach(context.Context) error {
	n.once.Do(func() { close(n.gone) })
	return nil
}
func (n *noFront) Abort() error { n.abort.Store(true); return nil }
func (n *noFront) Grown() error { return nil }

func newRig(t testing.TB, change func(*control.Spec)) *rig {
	t.Helper()
	r := &rig{t: t, owner: -1}
	root := t.TempDir()
	ids := [2]string{filepath.Join(root, "id-a"), filepath.Join(root, "id-b")}
	a, err := identity.Init(ids[0], "trial", "a")
	if err != nil {
		t.Fatal(err)
	}
	joinCluster(t, a, ids[1], "b")
	addrs := [2]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
	port := freePort(t)
	for i, n := range []string{"a", "b"} {
		r.dirs[i] = filepath.Join(root, "run-"+n)
		s := control.Spec{Resource: "md", Node: n, Peer: []string{"b", "a"}[i], Data: filepath.Join(root, "data-"+n), Meta: filepath.Join(root, "meta-"+n),
			Identity: ids[i], Addresses: addrs[i : i+1], PeerAddresses: addrs[1-i : 2-i], Port: port,
			PeerTimeout: 500 * time.Millisecond, IOTimeout: 5 * time.Second, InitialCopy: true, SplitBrain: "none", Lab: true}
		if change != nil {
			change(&s)
		}
		r.spec[i] = s
		for path, size := range map[string]int64{s.Data: testSize, s.Meta: 16 << 20} {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := control.WriteSpec(r.dirs[i], s); err != nil {
			t.Fatal(err)
		}
		r.run(i)
	}
	return r
}

func joinCluster(t testing.TB, a *identity.Identity, dir string, name cluster.NodeName) {
	t.Helper()
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
	if _, err := identity.Adopt(dir, key, cert, a.CAPEM(), caKey); err != nil {
		t.Fatal(err)
	}
}

// freePort returns a port that nobody has, of those that the kernel does not give to
// connections by itself.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for {
		port := uint16(20000 + rand.IntN(12000))
		if l, err := net.Listen("tcp", fmt.Sprint(":", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
}

// run starts a copy's process.
func (r *rig) run(i int) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	x := &running{stop: cancel, ended: make(chan error, 1)}
	log := slog.New(slog.NewTextHandler(&lines{t: r.t, name: r.spec[i].Node}, nil))
	o := Options{Dir: r.dirs[i], Log: log, Version: "test", Front: func(d front.Device) (front.Front, error) {
		if r.front != nil {
			return r.front(i, d)
		}
		x.front = &noFront{Device: d, gone: make(chan struct{})}
		return x.front, nil
	}}
	go func() { x.ended <- Run(ctx, o) }()
	r.mu.Lock()
	r.copy[i] = x
	r.mu.Unlock()
	r.t.Cleanup(func() { r.halt(i) })
	r.wait("its socket", func() bool {
		c, err := control.Dial(ctx, filepath.Join(r.dirs[i], control.FileSocket), func(m control.Message) { r.hears(i, m) })
		x.client.Store(c)
		return err == nil
	})
	r.tell(i)
}

// lines brings a log into that of a test.
type lines struct {
	t    testing.TB
	name string
}

func (l *lines) Write(p []byte) (int, error) {
	l.t.Logf("%s: %s", l.name, bytes.TrimSpace(p))
	return len(p), nil
}

// at returns the process of a copy; nil: there is none.
func (r *rig) at(i int) *running {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.copy[i]
}

// halt ends a copy's process as if it were killed: nothing is demoted.
func (r *rig) halt(i int) {
	r.mu.Lock()
	x := r.copy[i]
	r.copy[i] = nil
	r.mu.Unlock()
	if x == nil {
		return
	}
	x.stop()
	if err := <-x.ended; err != nil {
		r.t.Errorf("the process of %s: %v", r.spec[i].Node, err)
	}
	if c := x.client.Load(); c != nil {
		_ = c.Close()
	}
}

func (r *rig) wait(what string, is func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		if is() {
			return
		}
	}
	r.t.Fatalf("waited in vain for %s; %s", what, r.describe())
}

func (r *rig) describe() string {
	out := ""
	for i := range r.copy {
		if r.at(i) != nil {
			out += fmt.Sprintf("\n%s: %+v", r.spec[i].Node, r.status(i))
		}
	}
	return out
}

// hears takes what a process says to its daemon.
func (r *rig) hears(i int, m control.Message) {
	switch {
	case m.Ask != nil:
		r.mu.Lock()
		grant := !r.down && r.owner == i && m.Ask.Rev == r.rev
		if grant {
			r.in[i], r.in[1-i] = m.Ask.Self, m.Ask.Peer
			r.rev++
		}
		r.mu.Unlock()
		if grant {
			go func() { r.tell(0); r.tell(1) }()
		}
	case m.Fail != "":
		r.t.Logf("%s fails: %s", r.spec[i].Node, m.Fail)
	}
}

func (r *rig) set(i int) *control.Set {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &control.Set{Self: r.in[i], Peer: r.in[1-i], Rev: r.rev}
}

func (r *rig) tell(i int) {
	if x := r.at(i); x != nil && x.client.Load() != nil {
		_, _ = x.client.Load().Do(context.Background(), control.Request{Do: control.Told, Set: r.set(i)}) // it may be ending
	}
}

func (r *rig) do(i int, q control.Request) (control.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return r.at(i).client.Load().Do(ctx, q)
}

func (r *rig) status(i int) control.Status {
	m, err := r.do(i, control.Request{Do: control.Query})
	if err != nil {
		return control.Status{}
	}
	return *m.Status
}

// activate gives the group to a copy.
func (r *rig) activate(i int) {
	r.t.Helper()
	r.mu.Lock()
	r.owner = i
	r.epoch++
	q := control.Request{Do: control.Activate, Epoch: r.epoch, Construct: !r.in[0] && !r.in[1]}
	r.mu.Unlock()
	q.Set, q.PeerDown = r.set(i), r.at(1-i) == nil
	if _, err := r.do(i, q); err != nil {
		r.t.Fatalf("activate %s: %v", r.spec[i].Node, err)
	}
}

func (r *rig) joined(i int) {
	r.t.Helper()
	r.wait("both copies in sync", func() bool {
		set := r.set(i)
		return r.status(i).Phase == "joined" && set.Self && set.Peer
	})
}

// io carries out one request on the device of a copy.
func (r *rig) io(i int, op front.Op, off int64, data []byte) syscall.Errno {
	done := make(chan syscall.Errno, 1)
	q := &front.Request{Op: op, Offset: off, Length: len(data), Data: data, Done: func(_ *front.Request, e syscall.Errno) { done <- e }}
	r.at(i).front.Do(q)
	select {
	case e := <-done:
		return e
	case <-time.After(15 * time.Second):
		r.t.Errorf("a %s does not complete; %s", op, r.describe())
		return syscall.ETIMEDOUT
	}
}

// fill writes blocks of random content and returns what was acknowledged.
func (r *rig) fill(i, n int, rng *rand.Rand, into map[int64][]byte) {
	r.t.Helper()
	for range n {
		size := 4096 << rng.IntN(6)
		off := int64(rng.IntN((testSize-size)/4096)) * 4096
		data := disk.Aligned(size)
		for k := range data {
			data[k] = byte(rng.Uint32())
		}
		if e := r.io(i, front.Write, off, data); e != 0 {
			r.t.Fatalf("write: %v", e)
		}
		for at := 0; at < size; at += 4096 {
			into[off+int64(at)] = data[at : at+4096]
		}
	}
	if e := r.io(i, front.Flush, 0, nil); e != 0 {
		r.t.Fatalf("flush: %v", e)
	}
}

func (r *rig) look(i int, want map[int64][]byte) {
	r.t.Helper()
	got := disk.Aligned(4096)
	for off, data := range want {
		if e := r.io(i, front.Read, off, got); e != 0 || !bytes.Equal(got, data) {
			r.t.Fatalf("what was acknowledged at %d is not on %s (errno %d)", off, r.spec[i].Node, e)
		}
	}
}

func (r *rig) equal() {
	r.t.Helper()
	a, err := os.ReadFile(r.spec[0].Data)
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := os.ReadFile(r.spec[1].Data)
	if err != nil {
		r.t.Fatal(err)
	}
	for at := 0; at < len(a); at += 4096 {
		if !bytes.Equal(a[at:at+4096], b[at:at+4096]) {
			r.t.Fatalf("the copies differ at byte %d", at)
		}
	}
}

func TestLifeOfTwoCopies(t *testing.T) {
	for name, change := range map[string]func(*control.Spec){
		"sync": nil, "async": func(s *control.Spec) { s.Async, s.Queue = true, 2<<20 }, "compressed": func(s *control.Spec) { s.Compress = true },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, change)
			rng := rand.New(rand.NewPCG(1, 2))
			want := map[int64][]byte{}
			r.activate(0)
			r.fill(0, 20, rng, want)
			r.joined(0)
			r.fill(0, 50, rng, want)
			r.halt(1) // the other copy is gone for a while
			r.fill(0, 50, rng, want)
			r.run(1)
			r.joined(0)
			r.fill(0, 20, rng, want)
			if _, err := r.do(0, control.Request{Do: control.Deactivate}); err != nil {
				t.Fatal(err)
			}
			r.equal()
			r.activate(1) // a planned move
			r.look(1, want)
			r.fill(1, 50, rng, want)
			r.joined(1)
			if r.halt(1); change == nil || name == "compressed" { // the active copy is gone
				r.activate(0)
				r.look(0, want)
				r.fill(0, 30, rng, want)
				if err := os.Remove(filepath.Join(r.dirs[1], control.FileActive)); err != nil {
					t.Fatal(err)
				}
				r.run(1)
				r.joined(0)
				r.equal()
			}
		})
	}
}

// The process of the active copy is killed and another one goes on: what was
// acknowledged is there, and the copies become equal.
func TestActiveProcessStartsAnew(t *testing.T) {
	r := newRig(t, nil)
	rng := rand.New(rand.NewPCG(3, 4))
	want := map[int64][]byte{}
	r.activate(0)
	r.joined(0)
	for range 4 {
		r.fill(0, 20, rng, want)
		r.halt(0)
		r.run(0)
		r.look(0, want)
		r.joined(0)
	}
	r.fill(0, 20, rng, want)
	r.equal()
}

// A freeze holds everything, and an abort ends it with errors.
func TestFreezeAndAbort(t *testing.T) {
	r := newRig(t, nil)
	r.activate(0)
	r.joined(0)
	if _, err := r.do(0, control.Request{Do: control.Freeze}); err != nil {
		t.Fatal(err)
	}
	held := make(chan syscall.Errno, 1)
	go func() { held <- r.io(0, front.Write, 0, disk.Aligned(4096)) }()
	select {
	case e := <-held:
		t.Fatalf("a write completes while all is frozen: %v", e)
	case <-time.After(200 * time.Millisecond):
	}
	if _, err := r.do(0, control.Request{Do: control.Thaw}); err != nil {
		t.Fatal(err)
	}
	if e := <-held; e != 0 {
		t.Errorf("after the thaw: %v", e)
	}
	if _, err := r.do(0, control.Request{Do: control.Freeze}); err != nil {
		t.Fatal(err)
	}
	go func() { held <- r.io(0, front.Write, 0, disk.Aligned(4096)) }()
	r.wait("the write", func() bool { return r.status(0).Waiting > 0 })
	if _, err := r.do(0, control.Request{Do: control.Deactivate, Force: true}); err != nil {
		t.Fatal(err)
	}
	if e := <-held; e != syscall.EIO {
		t.Errorf("after the abort: %v", e)
	}
	if s := r.status(0); s.Role != "standby" {
		t.Errorf("%+v", s)
	}
}

// A loss of the other copy holds writes until the cluster has spoken.
func TestWritesWaitForTheCluster(t *testing.T) {
	r := newRig(t, nil)
	r.activate(0)
	r.joined(0)
	r.mu.Lock()
	r.down = true
	r.mu.Unlock()
	r.halt(1)
	held := make(chan syscall.Errno, 1)
	go func() { held <- r.io(0, front.Write, 4096, disk.Aligned(4096)) }()
	select {
	case e := <-held:
		t.Fatalf("a write completes although nobody knows whether the other copy counts: %v", e)
	case <-time.After(1500 * time.Millisecond):
	}
	r.mu.Lock()
	r.down = false
	r.mu.Unlock()
	r.again(0)
	if e := <-held; e != 0 {
		t.Errorf("%v", e)
	}
}

// again connects anew, as a daemon that starts does: it hears the wish that
// stands, and tells what holds. The wish may be granted before the new
// connection is in its place, so it is told here in every case.
func (r *rig) again(i int) {
	r.t.Helper()
	_ = r.at(i).client.Load().Close()
	c, err := control.Dial(context.Background(), filepath.Join(r.dirs[i], control.FileSocket), func(m control.Message) { r.hears(i, m) })
	if err != nil {
		r.t.Fatal(err)
	}
	r.at(i).client.Store(c)
	r.tell(i)
}

// Who stops the active copy while the other one, lost a moment ago, is back hands over
// two complete copies.
func TestHandOver(t *testing.T) {
	r := newRig(t, nil)
	r.activate(0)
	r.joined(0)
	r.halt(1)
	if e := r.io(0, front.Write, 0, disk.Aligned(4096)); e != 0 { // goes on alone
		t.Fatal(e)
	}
	r.run(1)
	if _, err := r.do(0, control.Request{Do: control.Deactivate}); err != nil {
		t.Fatal(err)
	}
	if s := r.set(0); !s.Self || !s.Peer {
		t.Errorf("%+v", s)
	}
	r.activate(1)
	r.joined(1)
}

// TestFlushForeseen: who flushes after each write has both copies flush before they are asked.
func TestFlushForeseen(t *testing.T) {
	r := newRig(t, nil)
	early := func(i int) uint64 { return r.at(i).front.Device.(device).s.data.Stats().Early }
	r.activate(0)
	r.joined(0)
	block := disk.Aligned(4096)
	for range 20 {
		if e := max(r.io(0, front.Write, 0, block), r.io(0, front.Flush, 0, nil)); e != 0 {
			t.Fatal(e)
		}
	}
	if n := early(0); n < 5 {
		t.Errorf("the active copy flushed early %d times", n)
	}
	if _, err := r.do(0, control.Request{Do: control.Deactivate}); err != nil {
		t.Fatal(err)
	}
	r.activate(1)
	if n := early(1); n < 5 {
		t.Errorf("the other one flushed early %d times", n)
	}
}

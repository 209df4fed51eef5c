package mirrordisk

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/script"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// node is a driver with what it says, and the directories of a node.
type node struct {
	*Driver
	t     *testing.T
	file  *config.File
	dir   string
	stop  context.CancelFunc
	asks  chan resource.MirrorAsk
	fails chan resource.Failure

	mu      sync.Mutex
	notices []resource.Notice
}

// newNode makes node a, with an edit of its mirror disk.
func newNode(t *testing.T, edit func(*config.MirrorDisk)) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), asks: make(chan resource.MirrorAsk, 10), fails: make(chan resource.Failure, 10)}
	for _, name := range []string{"data", "meta"} {
		if err := os.WriteFile(filepath.Join(n.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.file = n.newFile()
	if edit != nil {
		edit(n.file.Groups[0].Resources[0].MirrorDisk)
	}
	n.Driver = New(Options{
		Node: "a", Run: n.dir, Logs: n.dir, Links: filepath.Join(n.dir, "links"), Identity: "/nowhere",
		Ask: func(a resource.MirrorAsk) { n.asks <- a }, Failed: func(f resource.Failure) { n.fails <- f },
		Notice: func(x resource.Notice) { n.mu.Lock(); n.notices = append(n.notices, x); n.mu.Unlock() },
	})
	return n
}

// newFile is a cluster file with one mirror disk.
func (n *node) newFile() *config.File {
	md := &config.MirrorDisk{
		MirrorDevices: config.MirrorDevices{Data: filepath.Join(n.dir, "data"), Meta: filepath.Join(n.dir, "meta")},
		Mount:         filepath.Join(n.dir, "mnt"), FS: config.FSExt4, Fsck: config.FsckAuto, Mode: config.MirrorSync, Port: config.DefaultMirrorPort,
		MountTimeout: 10 * time.Second, MountRetries: 1, UmountTimeout: 10 * time.Second, UmountRetries: 1, PeerTimeout: time.Second,
	}
	return &config.File{
		Cluster: "c",
		Nodes: []config.Node{
			{Name: "a", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, {Name: "b", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}},
		},
		Groups: []config.Group{{Name: "g", Nodes: []cluster.NodeName{"a", "b"}, Resources: []config.Resource{{Name: "md", Kind: config.KindMirrorDisk, MirrorDisk: md}}}},
	}
}

// follow has the driver follow the file until the end of the test.
func (n *node) follow() {
	ctx, stop := context.WithCancel(n.t.Context())
	n.stop = stop
	n.t.Cleanup(func() {
		stop()
		m := n.mirror("md")
		until(n.t, "the end of who follows it", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return !m.running })
	})
	n.Follow(ctx, n.file)
}

func (n *node) task(edit func(*resource.Task)) resource.Task {
	g := n.file.Groups[0]
	t := resource.Task{Cluster: "c", Node: "a", Group: g, Resource: g.Resources[0], Epoch: 7, Mirror: &state.Mirror{InSync: []cluster.NodeName{"a", "b"}, Rev: 3}}
	if edit != nil {
		edit(&t)
	}
	return t
}

// said returns the codes of the notices so far.
func (n *node) said() (codes []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.notices {
		codes = append(codes, x.Code)
	}
	return codes
}

// process is a serving process that is played: what it was asked, in order, and
// what it answers.
type process struct {
	t      *testing.T
	dir    string
	server *control.Server
	end    context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	status control.Status
	heard  []control.Request
	answer map[control.Verb]func(control.Request) control.Message // instead of what it would do
	device string                                                 // that it hands out
	busy   func() bool                                            // whether the device is in use
}

// serve begins to play the process of the mirror disk md.
func (n *node) serve(edit func(*process)) *process {
	n.t.Helper()
	p := &process{t: n.t, dir: control.Dir(n.dir, "md"), answer: map[control.Verb]func(control.Request) control.Message{}, device: "/dev/null", busy: func() bool { return false }}
	p.status = control.Status{Role: "standby", PID: os.Getpid(), Size: 1 << 20, Complete: true}
	if edit != nil {
		edit(p)
	}
	if _, err := os.Stat(filepath.Join(p.dir, control.FileSpec)); err != nil && len(n.file.Groups[0].Resources) > 0 {
		g := &n.file.Groups[0]
		s, err := n.specOf(n.file, g, &g.Resources[0])
		if err == nil {
			_, err = control.WriteSpec(p.dir, s)
		}
		if err != nil {
			n.t.Fatal(err)
		}
	}
	p.begin()
	return p
}

func (p *process) begin() {
	p.t.Helper()
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	var err error
	if p.server, err = control.Listen(p.dir, p.handle, func() []control.Message { s := p.now(); return []control.Message{{Status: &s}} }); err != nil {
		p.t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	server := p.server
	p.end, p.ended = end, ended
	go func() { defer close(ended); _ = server.Run(ctx) }()
	p.t.Cleanup(p.die)
}

// die ends the process.
func (p *process) die() {
	p.end()
	<-p.ended
}

func (p *process) now() control.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

func (p *process) set(f func(*control.Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.status)
}

func (p *process) handle(r control.Request, tell func(control.Message)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Do != control.Query {
		p.heard = append(p.heard, r)
	}
	if f := p.answer[r.Do]; f != nil {
		tell(f(r))
		return
	}
	var m control.Message
	switch s := &p.status; r.Do {
	case control.Query:
		now := *s
		m.Status = &now
	case control.Activate:
		s.Role, s.Epoch, s.Device, s.Set = "active", r.Epoch, p.device, *r.Set
		m.Path = p.device
		if err := os.WriteFile(filepath.Join(p.dir, control.FileActive), nil, 0o600); err != nil {
			m.Error = err.Error()
		}
	case control.Deactivate:
		if p.busy() {
			m.Error, m.Code = "the block device is in use", control.Busy
			break
		}
		s.Role, s.Device, s.Frozen = "standby", "", false
		_ = os.Remove(filepath.Join(p.dir, control.FileActive))
	case control.Freeze, control.Thaw:
		s.Frozen = r.Do == control.Freeze
	case control.Told:
		s.Set = *r.Set
	case control.Quit:
		go p.end()
	}
	tell(m)
}

// verbs returns what it was asked, in order; what was forced has a "!".
func (p *process) verbs() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.heard {
		v := string(r.Do)
		if r.Force {
			v += "!"
		}
		out = append(out, v)
	}
	return out
}

// asked returns the latest request of a verb, and how many there were.
func (p *process) asked(v control.Verb) (last control.Request, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.heard {
		if r.Do == v {
			last, times = r, times+1
		}
	}
	return last, times
}

// until waits for something, looking again and again.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(10 * time.Second); !is(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not seen: %s", what)
		}
	}
}

// next waits for one thing of a channel.
func next[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case x := <-ch:
		return x
	case <-time.After(10 * time.Second):
		t.Fatalf("not seen: %s", what)
		panic("unreachable")
	}
}

// fakeSystem is a machine that is played: one mount point, and who uses it.
type fakeSystem struct {
	mu       sync.Mutex
	at       *mountedAt
	using    []holder
	stubborn bool // SIGTERM does not help
	log      []string
	mounts   []error // of the next tries
	unmounts []error
	hang     chan struct{} // not nil: unmounting waits for it
	exit     map[string]int
}

func (f *fakeSystem) say(format string, args ...any) {
	f.log = append(f.log, fmt.Sprintf(format, args...))
}

func (f *fakeSystem) did() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

const fakeNumber = 77

func (f *fakeSystem) device(string) (uint64, error) { return fakeNumber, nil }

func (f *fakeSystem) mounted(string) (*mountedAt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at, nil
}

func (f *fakeSystem) mount(device, point, fs, options string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.say("mount %s %s", fs, options)
	if len(f.mounts) > 0 {
		err := f.mounts[0]
		f.mounts = f.mounts[1:]
		if err != nil {
			return err
		}
	}
	f.at = &mountedAt{source: device, point: point, number: fakeNumber}
	return nil
}

func (f *fakeSystem) unmount(_ string, flags int) error {
	if f.hang != nil {
		<-f.hang
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if flags != 0 {
		f.say("unmount -l")
		f.at = nil
		return nil
	}
	f.say("unmount")
	if len(f.unmounts) > 0 {
		err := f.unmounts[0]
		f.unmounts = f.unmounts[1:]
		if err != nil {
			return err
		}
	}
	if len(f.using) > 0 {
		return unix.EBUSY
	}
	f.at = nil
	return nil
}

func (f *fakeSystem) holders(uint64) ([]holder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.using), nil
}

func (f *fakeSystem) signal(h holder, s unix.Signal) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.say("kill %v %d", s, h.pid)
	if s == unix.SIGKILL || !f.stubborn {
		f.using = slices.DeleteFunc(f.using, func(x holder) bool { return x.pid == h.pid })
	}
	return nil
}

func (f *fakeSystem) run(_ context.Context, _ script.Log, name string, args ...string) (script.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.say("%s %s", name, strings.Join(args[:len(args)-1], " "))
	return script.Result{ExitCode: f.exit[name]}, nil
}

package mirrordisk

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/script"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// played is a node whose machine and process are played.
func played(t *testing.T, edit func(*config.MirrorDisk)) (*node, *process, *fakeSystem) {
	t.Helper()
	n, sys := newNode(t, edit), &fakeSystem{}
	n.sys = sys
	p := n.serve(nil)
	n.follow()
	return n, p, sys
}

func (n *node) start() {
	n.t.Helper()
	if err := n.Start(n.t.Context(), n.task(nil)); err != nil {
		n.t.Fatal(err)
	}
}

// deeds returns what a process was asked, without what is told by itself; who follows
// it may freeze it too.
func (p *process) deeds() string {
	deeds := strings.Join(slices.DeleteFunc(p.verbs(), func(v string) bool { return v == string(control.Told) || v == string(control.Thaw) }), " ")
	return strings.ReplaceAll(deeds, "freeze freeze", "freeze")
}

func TestStartAndStop(t *testing.T) {
	n, p, sys := played(t, func(m *config.MirrorDisk) {
		m.MountOptions = "defaults,noatime,nofail,data=ordered,x-systemd.automount"
	})
	n.start()
	n.start() // again
	link, err := os.Readlink(filepath.Join(n.o.Links, "md"))
	if err != nil || link != "/dev/null" {
		t.Errorf("the link leads to %q: %v", link, err)
	}
	if active, err := n.Check(t.Context(), n.task(nil)); !active || err != nil {
		t.Errorf("active %v: %v", active, err)
	}
	for range 2 {
		if err := n.Stop(t.Context(), n.task(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"e2fsck -p", "mount ext4 noatime,data=ordered", "unmount"}; !slices.Equal(sys.did(), want) {
		t.Errorf("%q, want %q", sys.did(), want)
	}
	if want := "activate activate deactivate"; p.deeds() != want {
		t.Errorf("%q, want %q", p.deeds(), want)
	}
	if _, err := os.Lstat(filepath.Join(n.o.Links, "md")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link is still there: %v", err)
	}
	if active, err := n.Check(t.Context(), n.task(nil)); active || err != nil {
		t.Errorf("active %v: %v", active, err)
	}
}

func TestWithoutAFileSystem(t *testing.T) {
	n, p, sys := played(t, func(m *config.MirrorDisk) { m.FS, m.Mount = config.FSNone, "" })
	n.start()
	if active, err := n.Check(t.Context(), n.task(nil)); !active || err != nil {
		t.Errorf("active %v: %v", active, err)
	}
	if err := n.Stop(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	if len(sys.did()) > 0 || p.deeds() != "activate deactivate" {
		t.Errorf("%q, %q", sys.did(), p.deeds())
	}
}

// A start that was cut short while the process was at work on it may still come to
// something, so its stop is not content with what it sees.
func TestAnActivationThatComesLate(t *testing.T) {
	n, p, _ := played(t, nil)
	asked := make(chan struct{})
	p.mu.Lock()
	p.answer[control.Activate] = func(control.Request) control.Message {
		close(asked)
		return control.Message{Error: "later", Code: "later"}
	}
	p.mu.Unlock()
	if err := n.Start(t.Context(), n.task(nil)); err == nil {
		t.Fatal("it has started")
	}
	next(t, "the activation", asked)
	if err := n.Stop(t.Context(), n.task(nil)); err != nil || p.deeds() != "activate deactivate" {
		t.Errorf("%v: %q", err, p.deeds())
	}
}

// A program that hangs with the device holds up nobody: not the isolation, which
// comes when its step has come back.
func TestAProgramThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, nil)
		hangs := make(chan struct{})
		n.sys = hanging{&fakeSystem{}, hangs}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := n.fsck(ctx, n.task(nil), "/dev/null"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		close(hangs)
	})
}

type hanging struct {
	*fakeSystem
	until chan struct{}
}

func (h hanging) run(context.Context, script.Log, string, ...string) (script.Result, error) {
	<-h.until
	return script.Result{}, nil
}

// What a process is asked to become depends on what was agreed on.
func TestActivations(t *testing.T) {
	n, p, _ := played(t, nil)
	forced := &state.Forced{Node: "a"}
	for name, c := range map[string]struct {
		edit func(*resource.Task)
		want control.Request
	}{
		"both copies are complete":                                  {func(*resource.Task) {}, control.Request{Set: &control.Set{Self: true, Peer: true, Rev: 3}}},
		"the other node is down":                                    {func(t *resource.Task) { t.Down = []cluster.NodeName{"b"} }, control.Request{Set: &control.Set{Self: true, Peer: true, Rev: 3}, PeerDown: true}},
		"the other node has handed it over and left":                {func(t *resource.Task) { t.Down, t.Handed = []cluster.NodeName{"b"}, true }, control.Request{Set: &control.Set{Self: true, Peer: true, Rev: 3}}},
		"it was never constructed":                                  {func(t *resource.Task) { t.Mirror.InSync = nil }, control.Request{Set: &control.Set{Rev: 3}, Construct: true}},
		"this copy was forced":                                      {func(t *resource.Task) { t.Mirror.InSync, t.Mirror.Forced = []cluster.NodeName{"a"}, forced }, control.Request{Set: &control.Set{Self: true, Rev: 3}, Force: true}},
		"this copy was forced, and the other one is complete again": {func(t *resource.Task) { t.Mirror.Forced = forced }, control.Request{Set: &control.Set{Self: true, Peer: true, Rev: 3}}},
		"the other copy was forced":                                 {func(t *resource.Task) { t.Mirror.Forced = &state.Forced{Node: "b"} }, control.Request{Set: &control.Set{Self: true, Peer: true, Rev: 3}}},
	} {
		if err := n.Start(t.Context(), n.task(c.edit)); err != nil {
			t.Fatal(err)
		}
		got, _ := p.asked(control.Activate)
		c.want.Do, c.want.ID, c.want.Epoch = control.Activate, got.ID, 7
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if err := n.Stop(t.Context(), n.task(nil)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStartsThatAreRefused(t *testing.T) {
	n, p, _ := played(t, nil)
	for hint, edit := range map[string]func(*resource.Task){
		"is not in force everywhere": func(t *resource.Task) { t.Mirror = nil },
		"tasuki mirror force md":     func(t *resource.Task) { t.Mirror.InSync = []cluster.NodeName{"b"} },
		"the data device of mirror disk md on a is not there": func(t *resource.Task) {
			md := *t.Resource.MirrorDisk
			md.Data = "/dev/not-there"
			t.Resource.MirrorDisk = &md
		},
		"is no mirror disk": func(t *resource.Task) { t.Resource.MirrorDisk = nil },
	} {
		if err := n.Start(t.Context(), n.task(edit)); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%v, want %q", err, hint)
		}
	}
	if p.deeds() != "" {
		t.Errorf("something was begun: %q", p.deeds())
	}
	for code, hint := range map[control.Code]string{
		control.OutOfDate: "tasuki mirror force md", control.Blank: "tasuki mirror invalidate md --node a", control.Failed: "replace it",
		control.OldEpoch: "assigned anew", "": "does not become active",
	} {
		p.mu.Lock()
		p.answer[control.Activate] = func(control.Request) control.Message { return control.Message{Error: "so it is", Code: code} }
		p.mu.Unlock()
		if err := n.Start(t.Context(), n.task(nil)); err == nil || !strings.Contains(err.Error(), hint) || !strings.Contains(err.Error(), "so it is") {
			t.Errorf("%v, want %q", err, hint)
		}
	}
}

func TestSomethingElseIsMounted(t *testing.T) {
	n, _, sys := played(t, nil)
	sys.at = &mountedAt{source: "/dev/sdz9", point: "/mnt", number: 1}
	if err := n.Start(t.Context(), n.task(nil)); err == nil || !strings.Contains(err.Error(), "/dev/sdz9") {
		t.Error(err)
	}
	if err := n.Stop(t.Context(), n.task(nil)); err != nil || sys.at == nil {
		t.Errorf("what is not ours was unmounted: %v", err)
	}
}

func TestMountIsTriedAgain(t *testing.T) {
	n, _, sys := played(t, func(m *config.MirrorDisk) { m.MountRetries = 1 })
	sys.mounts = []error{syscall.EBUSY, nil}
	n.start()
	if err := n.Stop(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	sys.mounts = []error{syscall.EUCLEAN, syscall.EUCLEAN, nil}
	if err := n.Start(t.Context(), n.task(nil)); err == nil || !strings.Contains(err.Error(), "e2fsck /dev/null") {
		t.Errorf("%v: no hint", err)
	}
}

func TestFsck(t *testing.T) {
	n, _, sys := played(t, nil)
	for _, c := range []struct {
		fs, when string
		exit     int
		ran      string // "": nothing
		fails    string // "": it does not
		notice   string
	}{
		{config.FSExt4, config.FsckAuto, 0, "e2fsck -p", "", ""},
		{config.FSExt3, config.FsckAlways, 0, "e2fsck -p -f", "", ""},
		{config.FSExt4, config.FsckNever, 0, "", "", ""},
		{config.FSExt4, config.FsckAuto, 1, "e2fsck -p", "", "fsck-corrected"},
		{config.FSExt4, config.FsckAuto, 3, "e2fsck -p", "should be rebooted", ""},
		{config.FSExt4, config.FsckAuto, 4, "e2fsck -p", "by hand", ""},
		{config.FSExt4, config.FsckAuto, 12, "e2fsck -p", "by hand", ""},
		{config.FSExt4, config.FsckAuto, 8, "e2fsck -p", "is there a file system on it?", ""},
		{config.FSXFS, config.FsckAuto, 1, "", "", ""},
		{config.FSXFS, config.FsckAlways, 1, "xfs_repair -n", "", "fsck-found"},
	} {
		sys.mu.Lock()
		sys.exit, sys.log = map[string]int{"e2fsck": c.exit, "xfs_repair": c.exit}, nil
		sys.mu.Unlock()
		n.notices = nil
		task := n.task(nil)
		md := *task.Resource.MirrorDisk
		md.FS, md.Fsck = c.fs, c.when
		task.Resource.MirrorDisk = &md
		err := n.Start(t.Context(), task)
		if (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%+v: %v", c, err)
		}
		if ran := sys.did()[0]; c.ran == "" && !strings.HasPrefix(ran, "mount") || c.ran != "" && ran != c.ran {
			t.Errorf("%+v: %q", c, sys.did())
		}
		if c.notice != "" && !slices.Contains(n.said(), c.notice) {
			t.Errorf("%+v: %q", c, n.said())
		}
		if err := n.Stop(t.Context(), task); err != nil {
			t.Fatal(err)
		}
	}
}

// A file system is made when the mirror disk is constructed, where none is; and
// where that was cut short, but not at any other time.
func TestMkfs(t *testing.T) {
	n, _, sys := played(t, func(m *config.MirrorDisk) { m.Mkfs, m.MountRetries = true, 0 })
	start := func(constructed bool, blkid int) []string {
		sys.mu.Lock()
		sys.log, sys.exit = nil, map[string]int{"blkid": blkid}
		sys.mu.Unlock()
		err := n.Start(t.Context(), n.task(func(t *resource.Task) {
			if !constructed {
				t.Mirror.InSync = nil
			}
		}))
		did := sys.did()
		if err := errors.Join(n.Stop(t.Context(), n.task(nil))); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			return []string{err.Error()}
		}
		return did
	}
	const blank, found = 2, 0
	for _, c := range []struct {
		constructed bool
		blkid       int
		mounts      error
		want        []string
	}{
		{true, blank, nil, []string{"e2fsck -p", "mount ext4 "}},
		{false, found, nil, []string{"blkid -p", "e2fsck -p", "mount ext4 "}},
		{false, blank, nil, []string{"blkid -p", "mkfs.ext4 -q", "mount ext4 "}},
		{true, blank, nil, []string{"e2fsck -p", "mount ext4 "}},
	} {
		if got := start(c.constructed, c.blkid); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if got := start(false, 4); len(got) != 1 || !strings.Contains(got[0], "blkid") {
		t.Errorf("an answer that nobody understands: %q", got)
	}
	if got := start(true, blank); !slices.Contains(got, "mkfs.ext4 -q") {
		t.Errorf("a construction that was cut short stays without a file system: %q", got)
	}
}

func TestStopEndsWhoIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, nil)
		init := holder{pid: 1, name: "init", what: "/mnt"} // leaves by itself
		sys := &fakeSystem{at: &mountedAt{number: fakeNumber}, using: []holder{{pid: 4711, name: "writer", what: "/mnt/x"}, init}, stubborn: true}
		n.sys = sys
		time.AfterFunc(termAfter+killAfter/2, func() { sys.mu.Lock(); sys.using = nil; sys.mu.Unlock() })
		e := &ending{mirror: n.mirror("md"), t: n.task(nil), was: &started{Number: fakeNumber, Mount: "/mnt"}}
		began := time.Now()
		if err := n.unmountAll(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began).Round(holderLook); took < termAfter+killAfter/2 || took > termAfter+killAfter {
			t.Errorf("it took %s", took)
		}
		if want := []string{"unmount", "kill terminated 4711", "unmount", "kill killed 4711", "unmount"}; !slices.Equal(sys.did(), want) {
			t.Errorf("%q, want %q", sys.did(), want)
		}
		if want := []string{"resource-killed", "resource-killed"}; !slices.Equal(n.said(), want) {
			t.Errorf("told of %q", n.said())
		}
	})
}

func TestStopNamesWhoKeepsTheDeviceOpen(t *testing.T) {
	n, p, sys := played(t, nil)
	n.start()
	sys.using = []holder{{pid: 4711, name: "watcher"}} // sees the mount in another namespace
	sys.unmounts = nil
	p.busy = func() bool { return true }
	e, err := n.begin(t.Context(), n.task(nil), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := n.detach(ctx, e); err == nil || !strings.Contains(err.Error(), "process 4711 (watcher), which has it mounted in a namespace of its own") {
		t.Error(err)
	}
	for _, line := range sys.did() {
		if strings.HasPrefix(line, "kill") {
			t.Error(line)
		}
	}
}

// An isolated copy whose lease does not come back is stopped while everything in
// it hangs: what waits is given up before anything is unmounted, and before what uses
// it is stopped, which could not end.
func TestFrozenStop(t *testing.T) {
	for name, first := range map[string]bool{"alone": false, "after what uses it": true} {
		t.Run(name, func(t *testing.T) { frozenStop(t, first) })
	}
}

func frozenStop(t *testing.T, unblock bool) {
	n, p, sys := played(t, nil)
	n.start()
	if err := n.Unblock(t.Context(), n.task(nil)); err != nil || p.deeds() != "activate" {
		t.Fatalf("what can go on was given up: %q %v", p.deeds(), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := n.Isolate(ctx, n.task(nil)); err != nil {
		t.Fatal(err)
	}
	if !p.now().Frozen || !n.mirror("md").isFrozen() {
		t.Fatalf("not frozen: %+v", p.now())
	}
	if _, err := n.Check(t.Context(), n.task(nil)); err == nil {
		t.Error("what is frozen counts as active")
	}
	sys.hang = make(chan struct{})
	p.mu.Lock()
	given := false
	p.answer[control.Deactivate] = func(r control.Request) control.Message {
		if !given && r.Force {
			given = true
			close(sys.hang)
			return control.Message{Error: "mounted", Code: control.Busy}
		}
		p.status.Role, p.status.Frozen = "standby", false
		return control.Message{}
	}
	p.mu.Unlock()
	if unblock {
		if err := n.Unblock(t.Context(), n.task(nil)); err != nil {
			t.Fatal(err)
		}
		<-sys.hang
	}
	if err := n.Stop(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	if want := "activate freeze deactivate! deactivate!"; p.deeds() != want {
		t.Errorf("%q, want %q", p.deeds(), want)
	}
	if n.mirror("md").isFrozen() {
		t.Error("it stays frozen")
	}
}

func TestRestore(t *testing.T) {
	n, p, _ := played(t, nil)
	n.start()
	if err := errors.Join(n.Isolate(t.Context(), n.task(nil)), n.Restore(t.Context(), n.task(nil))); err != nil {
		t.Fatal(err)
	}
	if p.now().Frozen || n.mirror("md").isFrozen() {
		t.Error("it is frozen")
	}
	p.die() // while it is isolated, and another begins that does not look for the file
	if err := n.Isolate(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	p = n.serve(func(p *process) { p.status.Role = "active" })
	until(t, "that it is frozen", func() bool { return p.now().Frozen })
	p.die()
	if err := n.Restore(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	p = n.serve(func(p *process) { p.status.Role, p.status.Frozen = "active", true })
	until(t, "that it is thawed", func() bool { return !p.now().Frozen })
}

// A process that does not answer is killed within the time that there is.
func TestIsolateKillsWhoDoesNotAnswer(t *testing.T) {
	n := newNode(t, nil)
	m := n.mirror("md")
	if err := n.Isolate(t.Context(), n.task(nil)); err != nil {
		t.Errorf("what was never served here cannot be isolated: %v", err)
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.Isolate(t.Context(), n.task(nil)); err != nil || !m.isFrozen() {
		t.Errorf("nobody is there, and that is no isolation, or who comes is not told: %v", err)
	}
	deaf := exec.Command("/proc/self/exe")
	deaf.Env = append(os.Environ(), playDeaf+"="+m.dir)
	if err := deaf.Start(); err != nil {
		t.Fatal(err)
	}
	n.listening("a process that does not answer")
	const within = time.Second // this machine may be busy; in a lab it takes half of the time that there is, and 3 ms
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	began := time.Now()
	if err := n.Isolate(ctx, n.task(nil)); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > within {
		t.Errorf("it took %s", took)
	}
	if err := deaf.Wait(); err == nil || deaf.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("it lives: %v", err)
	}
}

func TestForce(t *testing.T) {
	n, p, sys := played(t, nil)
	if how, err := n.Force(t.Context(), n.task(nil)); err != nil || how != "it was not active" {
		t.Errorf("%q %v", how, err)
	}
	n.start()
	sys.log, sys.using, sys.unmounts = nil, []holder{{pid: 4711, what: "/x"}}, []error{unix.EBUSY}
	mounted := func() bool { sys.mu.Lock(); defer sys.mu.Unlock(); return sys.at != nil }
	p.mu.Lock()
	p.busy = mounted
	p.mu.Unlock()
	how, err := n.Force(t.Context(), n.task(nil))
	if err != nil || how != "what waited in it has failed, 1 process was killed, the file system was detached" {
		t.Errorf("%q %v", how, err)
	}
	if want := []string{"kill killed 4711", "unmount", "unmount -l"}; !slices.Equal(sys.did(), want) {
		t.Errorf("%q, want %q", sys.did(), want)
	}
	n.start()
	p.mu.Lock()
	p.answer[control.Deactivate] = func(control.Request) control.Message { return control.Message{} } // a lie
	p.mu.Unlock()
	if _, err := n.Force(t.Context(), n.task(nil)); err == nil {
		t.Error("what is still active was believed to be gone")
	}
}

// deadKeeper starts a keeper whose processes do not come up.
func deadKeeper(t *testing.T, m *mirror) *exec.Cmd {
	t.Helper()
	dead := exec.Command("/proc/self/exe")
	dead.Env = append(os.Environ(), playDead+"="+m.dir)
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dead.Process.Kill(); _ = dead.Wait() })
	until(t, "a keeper", m.kept)
	return dead
}

// The keeper has the block device open as long as it is there, and is not ended for it.
func TestTheKeeperIsNoUser(t *testing.T) {
	n, p, sys := played(t, nil)
	n.start()
	n.stop()
	p.die()
	m := n.mirror("md")
	keeper := holder{pid: deadKeeper(t, m).Process.Pid, what: "/dev/loop4"}
	sys.using = []holder{keeper, {pid: 4711, what: "/mnt/x"}}
	sys.log = nil
	e := &ending{mirror: m, t: n.task(nil), was: &started{Number: fakeNumber}}
	if err := n.clear(t.Context(), e, unix.SIGKILL, time.Second); err != nil {
		t.Fatal(err)
	}
	if want := []string{"kill killed 4711"}; !slices.Equal(sys.did(), want) || len(e.met) != 1 {
		t.Errorf("%q %v", sys.did(), e.met)
	}
}

// No process comes up any more while the disk is mounted: the keeper starts one after
// the other in vain. Force ends the keeper, and the disk counts as stopped; the next
// keeper's process does not find it active.
func TestForceWithoutAProcess(t *testing.T) {
	n, p, sys := played(t, nil)
	n.start()
	n.stop() // the daemon that was; this one starts no keeper of its own
	p.die()
	m := n.mirror("md")
	dead := deadKeeper(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	how, err := n.Force(ctx, n.task(nil))
	if err != nil || how != "its keeper was killed, what waited in it has failed" {
		t.Errorf("%q %v", how, err)
	}
	if err := dead.Wait(); err == nil || dead.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the keeper lives: %v", err)
	}
	if was, err := m.whatStarted(); sys.at != nil || was != nil || err != nil || m.wasActive() {
		t.Errorf("mounted %v, started %v, active %v: %v", sys.at, was, m.wasActive(), err)
	}
}

// Who only ends what an earlier daemon has left has nothing but the socket.
func TestALastActor(t *testing.T) {
	n, p, sys := played(t, nil)
	n.start()
	n.stop()
	last := New(Options{Node: "a", Run: n.dir, Logs: n.dir, Links: n.o.Links})
	last.sys = sys
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := errors.Join(last.Isolate(ctx, n.task(nil)), last.Stop(t.Context(), n.task(nil))); err != nil {
		t.Fatal(err)
	}
	if want := "activate freeze deactivate!"; p.deeds() != want || sys.at != nil {
		t.Errorf("%q, want %q; mounted: %v", p.deeds(), want, sys.at)
	}
	p.die()
	if err := last.Stop(t.Context(), n.task(nil)); err != nil {
		t.Errorf("what nobody serves is not stopped: %v", err)
	}
}

// The kernel does not come back from an unmount: each try has its time, a second one
// is not begun beside it, and a later stop sees its success.
func TestAnUnmountThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, func(m *config.MirrorDisk) { m.UmountTimeout, m.UmountRetries = 2*time.Minute, 2 })
		sys := &fakeSystem{hang: make(chan struct{}), at: &mountedAt{number: fakeNumber}}
		n.sys = sys
		e := &ending{mirror: n.mirror("md"), t: n.task(nil), was: &started{Number: fakeNumber, Mount: "/mnt"}}
		began := time.Now()
		if err := n.unmountAll(t.Context(), e); !errors.Is(err, errHangs) && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if took := time.Since(began); took != 6*time.Minute+2*againAfter {
			t.Errorf("three tries of two minutes took %s", took)
		}
		close(sys.hang)
		synctest.Wait()
		if err := n.unmountAll(t.Context(), e); err != nil || len(sys.did()) != 1 {
			t.Errorf("%v, %q", err, sys.did())
		}
	})
}

func TestStopIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, nil)
		sys := &fakeSystem{hang: make(chan struct{}), at: &mountedAt{number: fakeNumber}}
		n.sys = sys
		e := &ending{mirror: n.mirror("md"), t: n.task(nil), was: &started{Number: fakeNumber, Mount: "/mnt"}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := n.unmountAll(ctx, e); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Millisecond {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		close(sys.hang)
	})
}

func TestUsersThatStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, func(m *config.MirrorDisk) { m.UmountRetries = 1 })
		sys := &fakeSystem{at: &mountedAt{number: fakeNumber}, using: []holder{{pid: 1, name: "init", what: "/mnt/log"}}}
		n.sys = sys
		e := &ending{mirror: n.mirror("md"), t: n.task(nil), was: &started{Number: fakeNumber, Mount: "/mnt"}}
		if err := n.unmountAll(t.Context(), e); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "process 1 (init) by /mnt/log") {
			t.Error(err)
		}
		if want := strings.Split(strings.Repeat("unmount ", 6), " "); !slices.Equal(append(sys.did(), ""), want) {
			t.Errorf("%q", sys.did())
		}
	})
}

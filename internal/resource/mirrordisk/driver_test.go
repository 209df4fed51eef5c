package mirrordisk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/state"
)

func TestWhatWasAgreedOnReachesEveryProcess(t *testing.T) {
	n := newNode(t, nil)
	n.Told("md", state.Mirror{InSync: []cluster.NodeName{"a", "b"}, Rev: 3, Victim: "b", Paused: &state.Paused{}}, 0) // before Follow
	p := n.serve(nil)
	n.follow()
	want := control.Request{Do: control.Told, Set: &control.Set{Self: true, Peer: true, Rev: 3}, Victim: control.VictimPeer, Paused: true}
	told := func() bool {
		got, _ := p.asked(control.Told)
		got.ID = 0
		return cmp.Equal(got, want)
	}
	until(t, "the first word", told)
	want = control.Request{Do: control.Told, Set: &control.Set{Peer: true, Rev: 2}, Victim: control.VictimSelf}
	n.Told("md", state.Mirror{InSync: []cluster.NodeName{"b"}, Rev: 2, Victim: "a"}, 0) // a new life of consensus has an older one
	until(t, "a change", told)
	p.die()
	p = n.serve(nil)
	until(t, "a process that began anew", told)
}

func TestWhatAProcessSaysReachesTheDaemon(t *testing.T) {
	n := newNode(t, nil)
	statuses := make(chan resource.MirrorStatus, 100)
	n.o.Status = func(s resource.MirrorStatus) { statuses <- s }
	p := n.serve(nil)
	n.follow()
	next(t, "a status", statuses)
	p.server.Tell(control.Message{Ask: &control.Ask{Set: control.Set{Self: true, Rev: 5}, Epoch: 7, Why: "it is lost"}})
	want := resource.MirrorAsk{Resource: "md", Epoch: 7, Base: 5, InSync: []cluster.NodeName{"a"}, Why: "it is lost"}
	if diff := cmp.Diff(want, next(t, "an ask", n.asks)); diff != "" {
		t.Error(diff)
	}
	p.server.Tell(control.Message{Notice: &control.Notice{Level: "warn", Code: "mirror-disk-lost", Text: "The other copy is lost."}})
	until(t, "a notice", func() bool { return slices.Contains(n.said(), "mirror-disk-lost") })
	n.mu.Lock()
	got := n.notices[0]
	n.mu.Unlock()
	if diff := cmp.Diff(resource.Notice{Level: cluster.LevelWarn, Code: "mirror-disk-lost", Text: "The other copy is lost.", Group: "g", Resource: "md"}, got); diff != "" {
		t.Error(diff)
	}
	s := p.now()
	s.Role, s.Set.Self, s.Total, s.Dirty, s.Speed, s.Connected = "active", true, 1000, 250, 99, true
	p.server.Tell(control.Message{Status: &s})
	c := next(t, "a copy", statuses).Copy
	c.Since = time.Time{}
	if diff := cmp.Diff(api.MirrorCopy{Role: "active", State: api.MirrorInSync, Text: "it is copied to b", Connected: true, Percent: 75, Rate: 99, Dirty: 250, Size: 1 << 20}, c); diff != "" {
		t.Error(diff)
	}
	p.server.Tell(control.Message{Status: &s}) // nothing new
	s.Broken = "no more"
	p.server.Tell(control.Message{Status: &s})
	if got := next(t, "the next change", statuses).Copy; got.State != api.MirrorFailed || got.Text != "no more" {
		t.Errorf("%+v", got)
	}
	if got, known := n.Copy("md"); !known || got.State != api.MirrorFailed {
		t.Errorf("%+v %v", got, known)
	}
}

func TestStates(t *testing.T) {
	for want, s := range map[string]control.Status{
		api.MirrorUnknown:  {},
		api.MirrorFailed:   {PID: 1, Broken: "x", Split: "y"},
		api.MirrorSplit:    {PID: 1, Split: "y", Role: "active", Set: control.Set{Self: true}},
		api.MirrorOutdated: {PID: 1, Role: "standby", Size: 1, Set: control.Set{Peer: true}},
		api.MirrorCopying:  {PID: 1, Role: "standby", Size: 1, Target: true, Set: control.Set{Peer: true}},
		api.MirrorInSync:   {PID: 1, Role: "standby", Size: 1, Set: control.Set{Self: true, Peer: true}},
	} {
		if got := copyOf(s, "b").State; got != want {
			t.Errorf("%+v is %s, want %s", s, got, want)
		}
	}
	for role, want := range map[string]string{"active": api.MirrorInSync, "standby": api.MirrorUnknown} { // of a mirror disk that is not constructed yet
		if got := copyOf(control.Status{PID: 1, Role: role}, "b").State; got != want {
			t.Errorf("%s: %s, want %s", role, got, want)
		}
	}
}

func TestAFailureIsToldOnceInAnActivation(t *testing.T) {
	n := newNode(t, nil)
	n.sys = &fakeSystem{}
	p := n.serve(nil)
	n.follow()
	p.server.Tell(control.Message{Fail: "before"}) // nobody minds
	if err := n.Start(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p.server.Tell(control.Message{Fail: "the disk is gone"})
	}
	f := next(t, "the failure", n.fails)
	if f.Group != "g" || f.Resource != "md" || f.Epoch != 7 || f.Text != "the disk is gone" {
		t.Errorf("%+v", f)
	}
	if err := n.Stop(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), n.task(func(t *resource.Task) { t.Epoch = 9 })); err != nil {
		t.Fatal(err)
	}
	p.die()
	p = n.serve(nil) // whoever kept the device has died too
	if f := next(t, "the end of the device", n.fails); f.Epoch != 9 || !strings.Contains(f.Text, "has ended") {
		t.Errorf("%+v", f)
	}
	task := n.task(func(t *resource.Task) { t.Epoch = 11 })
	if err := errors.Join(n.Stop(t.Context(), task), n.Start(t.Context(), task)); err != nil {
		t.Fatal(err)
	}
	p.die()
	n.serve(func(p *process) { p.status.Role, p.status.Epoch, p.status.Device = "active", 11, "/dev/other" })
	if f := next(t, "another device", n.fails); f.Epoch != 11 {
		t.Errorf("%+v", f)
	}
	if active, err := n.Check(t.Context(), task); active || err != nil {
		t.Errorf("active %v: %v", active, err)
	}
	if len(n.fails) > 0 {
		t.Errorf("told again: %+v", <-n.fails)
	}
}

// An active copy whose process does not come up again has failed: what the kernel
// asks waits, and nobody else would say so.
func TestNoProcessIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, nil)
		n.sys = &fakeSystem{}
		n.mirror("md").guard(started{Group: "g", Epoch: 7, Device: "/dev/null"})
		began := time.Now()
		n.follow()
		f := <-n.fails
		if took := time.Since(began); f.Epoch != 7 || !strings.Contains(f.Text, "no process serves it") || took < absentAfter || took > absentAfter+longPause {
			t.Errorf("after %s: %+v", took, f)
		}
		if _, err := n.begin(t.Context(), n.task(nil), serveLimit); err == nil || time.Since(began) > absentAfter+longPause+forceLook {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		n.stop()
	})
}

func TestARefusalEndsWhatWaitsForIt(t *testing.T) {
	n := newNode(t, nil)
	n.sys = &fakeSystem{}
	p := n.serve(nil)
	n.follow()
	if err := n.Start(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	p.server.Tell(control.Message{Ask: &control.Ask{Set: control.Set{Self: true, Rev: 3}, Epoch: 7}})
	next(t, "the ask", n.asks)
	n.Refused("md", "group g is not a's any more")
	if f := next(t, "the failure", n.fails); !strings.Contains(f.Text, "not a's any more") {
		t.Errorf("%+v", f)
	}
	if err := n.Stop(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	if _, times := p.asked(control.Deactivate); times == 0 || !slices.Contains(p.verbs(), "deactivate!") {
		t.Errorf("what waits was not given up: %q", p.verbs())
	}
}

func TestOrders(t *testing.T) {
	n := newNode(t, nil)
	n.sys = &fakeSystem{}
	p := n.serve(nil)
	n.follow()
	tell := func(rev uint64, o *state.MirrorOrder) {
		n.Told("md", state.Mirror{InSync: []cluster.NodeName{"a", "b"}, Rev: rev, Order: o}, 0)
		until(t, "that it was told", func() bool { got, _ := p.asked(control.Told); return got.Set != nil && got.Set.Rev == rev })
	}
	tell(3, &state.MirrorOrder{Serial: 3, Kind: state.OrderFull}) // from before this boot
	if err := n.Start(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	tell(4, &state.MirrorOrder{Serial: 4, Kind: state.OrderVerifyRepair})
	until(t, "the first order", func() bool { got, times := p.asked(control.Verify); return times == 1 && got.Thorough })
	tell(5, &state.MirrorOrder{Serial: 4, Kind: state.OrderVerifyRepair})
	p.answer[control.Copy] = func(control.Request) control.Message {
		return control.Message{Error: "not now", Code: control.NotActive}
	}
	tell(6, &state.MirrorOrder{Serial: 6, Kind: state.OrderResync})
	until(t, "that it failed", func() bool { return slices.Contains(n.said(), "mirror-order-failed") })
	p.die()
	p = n.serve(func(p *process) { p.status.Role = "active" })
	tell(7, &state.MirrorOrder{Serial: 6, Kind: state.OrderResync})
	tell(8, &state.MirrorOrder{Serial: 8, Kind: state.OrderFull})
	until(t, "the last order", func() bool { got, times := p.asked(control.Copy); return times == 1 && got.Thorough })
	if _, times := p.asked(control.Verify); times > 0 {
		t.Error("an order was carried out again")
	}
}

// quits waits for a process to be told to quit, and says whether it was.
func (p *process) quits() bool { _, times := p.asked(control.Quit); return times > 0 }

func TestAChangeOfTheFile(t *testing.T) {
	n := newNode(t, nil)
	n.sys = &fakeSystem{}
	p := n.serve(nil)
	n.follow()
	if err := n.Start(t.Context(), n.task(nil)); err != nil { // by then it goes by the file
		t.Fatal(err)
	}
	if p.quits() {
		t.Error("a process was ended although nothing has changed")
	}
	p.die()
	p = n.serve(func(p *process) { p.status.Role, p.status.Device = "active", "/dev/null" })
	md := *n.file.Groups[0].Resources[0].MirrorDisk
	md.Rate, md.Data = 1<<20, "/other"
	was := md.Data
	n.file.Groups[0].Resources[0].MirrorDisk = &md
	n.follow()
	until(t, "that the active process begins anew", p.quits)
	s, err := control.ReadSpec(p.dir)
	if err != nil || s.Rate != 1<<20 || s.Data == was {
		t.Errorf("an active copy got another device, or not its new rate: %+v %v", s, err)
	}
	p.die()
	if err := os.Remove(filepath.Join(p.dir, control.FileActive)); err != nil {
		t.Fatal(err)
	}
	p = n.serve(nil)
	until(t, "that the standby begins anew with its new device", func() bool { s, err := control.ReadSpec(p.dir); return err == nil && s.Data == "/other" && p.quits() })
	p.die()
	n.file.Groups[0].Resources = nil
	p = n.serve(nil)
	n.follow()
	until(t, "the end of a mirror disk that is not in the file", func() bool { _, err := os.Stat(p.dir); return p.quits() && os.IsNotExist(err) })
}

func TestAnActiveCopyThatLeftTheFileGoesOn(t *testing.T) {
	n := newNode(t, nil)
	n.file.Groups[0].Resources = nil
	p := n.serve(func(p *process) { p.status.Role = "active" })
	n.follow()
	until(t, "that it is looked at", func() bool { _, known := n.Copy("md"); return known })
	if p.quits() {
		t.Error("it was ended")
	}
}

func TestLeave(t *testing.T) {
	n := newNode(t, nil)
	p := n.serve(nil)
	n.follow()
	until(t, "that it is followed", func() bool { _, known := n.Copy("md"); return known })
	n.stop()
	if p.set(func(s *control.Status) { s.Role = "active" }); p.quits() {
		t.Error("a process ends with its daemon")
	}
	if err := n.Leave(t.Context()); err != nil || p.quits() {
		t.Errorf("an active copy was ended: %v", err)
	}
	p.set(func(s *control.Status) { s.Role = "standby" })
	if err := n.Leave(t.Context()); err != nil || !p.quits() {
		t.Errorf("a standby was not ended: %v", err)
	}
}

func TestAProcessThatHangsIsKilled(t *testing.T) {
	n := newNode(t, nil)
	n.patience = 50 * time.Millisecond
	if err := os.MkdirAll(n.mirror("md").dir, 0o700); err != nil {
		t.Fatal(err)
	}
	deaf := exec.Command("/proc/self/exe")
	deaf.Env = append(os.Environ(), playDeaf+"="+n.mirror("md").dir)
	if err := deaf.Start(); err != nil {
		t.Fatal(err)
	}
	n.listening("a process that does not answer")
	n.follow()
	if err := deaf.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Error(err)
	}
	if !slices.Contains(n.said(), "mirror-process-hangs") {
		t.Errorf("nobody is told: %q", n.said())
	}
}

// TestKeeper has this program as the keeper: see TestMain.
func TestKeeper(t *testing.T) {
	n := newNode(t, nil)
	n.o.Keeper = func(dir string) *exec.Cmd {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), playKeeper+"="+dir)
		return c
	}
	n.follow()
	m := n.mirror("md")
	first := n.listening("a process")
	if !m.kept() {
		t.Error("nobody keeps it")
	}
	n.stop()
	n.kills(first)
	if again, err := m.listener(t.Context()); err != nil || again != 0 {
		t.Errorf("without a daemon it was started again: %d %v", again, err)
	}
	n.follow()
	second := n.listening("another process")
	n.kills(second)
	third := n.listening("a third one, though nobody asked for it")
	p, err := os.FindProcess(third)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(n.dir, "mirror-md.log"))
	if err != nil || strings.Count(string(log), "keeper begins") != 3 {
		t.Errorf("its log: %q %v", log, err)
	}
	n.stop()
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	until(t, "its end", func() bool { return !m.kept() })
}

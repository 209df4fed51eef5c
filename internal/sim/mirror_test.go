package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
)

const mirrorCluster = `cluster: VMcluster
nodes:
  CLP-1: {addresses: [192.168.10.1, 10.2.102.51]}
  CLP-2: {addresses: [192.168.10.2, 10.2.102.52]}
  third: {addresses: [192.168.10.3, 10.2.102.53], witness: true}
groups:
  failover:
    resources:
      md: {kind: mirror-disk, data: /dev/sda4, meta: /dev/sda3, mount: /data, fs: ext3}
      exec: {kind: exec, after: [md], start: start.sh, stop: stop.sh}
`

// mirrored returns a world whose group is online on CLP-1 with both copies
// complete.
func mirrored(t *testing.T) *World {
	t.Helper()
	w, err := NewWorld(mirrorCluster, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range w.names {
		if err := w.Boot(n); err != nil {
			t.Fatal(err)
		}
	}
	w.Run(3 * time.Second)
	askFor(w, w.nodes["CLP-1"].active["failover/md"], "CLP-1", "CLP-2")
	if got := w.nodes["CLP-2"].machine.State().Mirror("md").InSync; len(got) != 2 {
		t.Fatalf("the test's world is wrong: %v\n%s", got, Lines(w))
	}
	return w
}

// askFor has the copy on CLP-1, which became active in that epoch, ask.
func askFor(w *World, e cluster.Epoch, set ...cluster.NodeName) {
	w.step(w.nodes["CLP-1"], engine.Event{Mirror: &engine.MirrorAsk{Resource: "md", Epoch: e, Base: w.nodes["CLP-1"].machine.State().Mirror("md").Rev, InSync: set, Why: "so it is"}})
	w.Run(200 * time.Millisecond)
}

func restart(w *World, r cluster.ResourceName) {
	w.Ask("CLP-1", admission.Ask{Kind: admission.GroupRestart, Group: "failover", Resource: r})
	w.Run(time.Second)
}

// What is asked counts as long as the assignment lasts in which the copy became
// active, whatever the epoch counts meanwhile; not beyond its end.
func TestMirrorAskOfAnEarlierAssignment(t *testing.T) {
	w := mirrored(t)
	n := w.nodes["CLP-1"]
	began := n.active["failover/md"]
	restart(w, "exec")
	if is := n.machine.State().Groups["failover"].Epoch; is <= began {
		t.Fatalf("epoch %d, then %d", began, is)
	}
	askFor(w, began, "CLP-1")
	if m := n.machine.State().Mirror("md"); len(m.InSync) != 1 || len(n.copies["md"].refused) != 0 {
		t.Fatalf("the restart of another resource has made the ask void: %+v, refused %q", m, n.copies["md"].refused)
	}
	restart(w, "")
	askFor(w, began, "CLP-1", "CLP-2")
	if m := n.machine.State().Mirror("md"); len(m.InSync) != 1 || len(n.copies["md"].refused) != 1 {
		t.Fatalf("an ask of an earlier start has counted: %+v, refused %q", m, n.copies["md"].refused)
	}
	askFor(w, n.active["failover/md"], "CLP-1", "CLP-2")
	if m := n.machine.State().Mirror("md"); len(m.InSync) != 2 {
		t.Fatalf("%+v", m)
	}
}

// A later ask takes the place of one that nobody can decide, and gives the mirror
// a revision of its own, also where it asks for what is agreed already.
func TestLaterMirrorAskCounts(t *testing.T) {
	w := mirrored(t)
	n := w.nodes["CLP-1"]
	began, told, rev := n.active["failover/md"], n.copies["md"].told, n.machine.State().Mirror("md").Rev
	cut := func(do func(from, to cluster.NodeName, path int)) {
		for _, other := range []cluster.NodeName{"CLP-2", "third"} {
			do("CLP-1", other, -1)
			do(other, "CLP-1", -1)
		}
	}
	cut(w.Cut)
	w.Run(400 * time.Millisecond)
	askFor(w, began, "CLP-1")
	askFor(w, began, "CLP-2", "CLP-1")
	if got := n.copies["md"].told; got != told {
		t.Errorf("told %d times without a majority", got-told)
	}
	cut(w.Heal)
	w.Run(2 * time.Second)
	if m := n.machine.State().Mirror("md"); len(m.InSync) != 2 || m.Rev != rev+1 || len(n.copies["md"].refused) != 0 {
		t.Errorf("%+v, before %d, refused %q", m, rev, n.copies["md"].refused)
	}
}

// A copy that asks in vain, again and again, writes one line a minute about it.
func TestAsksInVainAreToldTogether(t *testing.T) {
	w := mirrored(t)
	lines := func() int { return strings.Count(Lines(w), "stays as it is, although CLP-2 was asked for") }
	ask := func(times int) {
		for range times { // it asks for what is not its to ask for: CLP-2 does not own the group
			w.step(w.nodes["CLP-2"], engine.Event{Mirror: &engine.MirrorAsk{Resource: "md", Epoch: 1, Base: w.nodes["CLP-2"].machine.State().Mirror("md").Rev, InSync: []cluster.NodeName{"CLP-2"}}})
			w.Run(10 * time.Millisecond)
		}
	}
	ask(20)
	if n := lines(); n != 1 || len(w.nodes["CLP-2"].copies["md"].refused) != 20 {
		t.Fatalf("%d lines about %d asks", n, len(w.nodes["CLP-2"].copies["md"].refused))
	}
	w.Run(2 * time.Minute)
	ask(1)
	if n := lines(); n != 2 || !strings.Contains(Lines(w), "The same happened 19 times more") {
		t.Errorf("%d lines:\n%s", n, Lines(w))
	}
}

// Nobody forces a copy that says that it was never made.
func TestForceOfACopyThatWasNeverMade(t *testing.T) {
	w := mirrored(t)
	askFor(w, w.nodes["CLP-1"].active["failover/md"], "CLP-1")
	w.Ask("third", admission.Ask{Kind: admission.GroupStop, Group: "failover"})
	w.Run(time.Second)
	force := func() *api.Error {
		id := w.Ask("third", admission.Ask{Kind: admission.MirrorForce, Resource: "md", Node: "CLP-2", Confirm: "VMcluster", Why: "CLP-1 burned out", Author: "anna"})
		w.Run(time.Second)
		return w.answers[id].Err
	}
	says := func(blank bool) {
		w.step(w.nodes["CLP-2"], engine.Event{MirrorStatus: &engine.MirrorStatus{Resource: "md", Copy: api.MirrorCopy{Role: api.MirrorStandby, State: api.MirrorUnknown, Blank: blank}}})
		w.Run(2 * time.Second)
	}
	says(true)
	if e := force(); e == nil || e.Code != "copy-blank" || !strings.Contains(e.Hint, "CLP-1") {
		t.Fatalf("%+v", e)
	}
	says(false)
	if e := force(); e != nil {
		t.Error(e)
	}
}

// Steps of a group carry what is agreed on about its mirror disks.
func TestStepsCarryTheMirror(t *testing.T) {
	w := mirrored(t)
	w.Ask("CLP-1", admission.Ask{Kind: admission.GroupMove, Group: "failover"})
	w.Run(time.Second)
	if in := w.nodes["CLP-2"].began["md"].InSync; len(in) != 2 {
		t.Errorf("CLP-2 was started with %v", in)
	}
}

// The disk of n1 had an error while it was the only one, and n2 is being worked on:
// the group waits for the person who works there, and goes on as soon as he is done.
func TestFailedDiskWhileTheOtherNodeIsInMaintenance(t *testing.T) {
	terrain := terrains["mirror-pair"].Terrain
	terrain.Long = 2 * time.Minute
	why, w := Hunt(terrain, 1, []Fault{
		{At: 20 * time.Second, Kind: Crash, A: "n2", For: 40 * time.Second},
		{At: 40 * time.Second, Kind: DiskBad, A: "n1", For: 2 * time.Second},
		{At: 90 * time.Second, Kind: Maintain, A: "n2", B: "n2", For: 10 * time.Second, Much: 75},
		{At: 100 * time.Second, Kind: Reboot, A: "n1"},
	})
	if why != "" || !strings.Contains(Lines(w), "Resource md could not be started (try 1 of 1): the disk of this copy has failed.") {
		t.Errorf("%s\n%s", why, Lines(w))
	}
}

func status(w *World, at cluster.NodeName) api.Mirror { return w.nodes[at].machine.Status().Mirrors[0] }

// Every node shows both copies, and what is agreed on counts more than what a
// copy says of itself.
func TestMirrorStatus(t *testing.T) {
	w := mirrored(t)
	says := func(n cluster.NodeName, c api.MirrorCopy) {
		w.step(w.nodes[n], engine.Event{MirrorStatus: &engine.MirrorStatus{Resource: "md", Copy: c}})
	}
	says("CLP-1", api.MirrorCopy{Role: api.MirrorActive, State: api.MirrorInSync, Connected: true})
	says("CLP-2", api.MirrorCopy{Role: api.MirrorStandby, State: api.MirrorInSync, Connected: true})
	w.Run(100 * time.Millisecond)
	for _, at := range w.names {
		m := status(w, at)
		if len(m.Copies) != 2 || m.Owner != "CLP-1" || m.Mount != "/data" || m.Copies[0].Node != "CLP-1" || m.Copies[0].Color() != "GREEN" || m.Copies[1].Color() != "GREEN" || m.Copies[1].Role != api.MirrorStandby {
			t.Errorf("at %s: %+v", at, m)
		}
	}
	askFor(w, w.nodes["CLP-1"].active["failover/md"], "CLP-1")
	if c := status(w, "third").Copies[1]; c.State != api.MirrorOutdated || c.Color() != "RED" {
		t.Errorf("a copy that is not in the set says that it is: %+v", c)
	}
	says("CLP-2", api.MirrorCopy{Role: api.MirrorStandby, State: api.MirrorCopying, Percent: 12.5})
	w.Run(100 * time.Millisecond)
	says("CLP-2", api.MirrorCopy{Role: api.MirrorStandby, State: api.MirrorCopying, Percent: 25})
	w.Run(2 * time.Second)
	if c := status(w, "CLP-1").Copies[1]; c.State != api.MirrorCopying || c.Percent != 25 || c.Color() != "YELLOW" {
		t.Errorf("progress: %+v", c)
	}
	w.Crash("CLP-2")
	w.Run(3 * time.Second)
	if c := status(w, "CLP-1").Copies[1]; c.State != api.MirrorOutdated {
		t.Errorf("the copy of a node that is down is not complete: %+v", c)
	}
}

func TestMirrorOfASilentNode(t *testing.T) {
	w := mirrored(t)
	w.Crash("CLP-2")
	w.Run(3 * time.Second)
	if c := status(w, "CLP-1").Copies[1]; c.State != api.MirrorUnknown || c.Color() != "GRAY" {
		t.Errorf("%+v", c)
	}
}

// Both copies see a split brain; one node tells of it.
func TestSplitBrainIsToldOnce(t *testing.T) {
	w := mirrored(t)
	for _, n := range []cluster.NodeName{"CLP-1", "CLP-2", "CLP-1"} {
		w.step(w.nodes[n], engine.Event{MirrorStatus: &engine.MirrorStatus{Resource: "md", Copy: api.MirrorCopy{State: api.MirrorSplit}}})
	}
	w.Run(100 * time.Millisecond)
	if n := strings.Count(Lines(w), "split brain"); n != 1 || !strings.Contains(Lines(w), "tasuki mirror resolve md --discard NODE") {
		t.Errorf("told %d times:\n%s", n, Lines(w))
	}
}

package lab_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// mirrorFile is two nodes and a witness with the business on a mirror disk.
const mirrorFile = `cluster: mirrored
nodes:
  n1: {addresses: [10.20.2.1, 10.20.1.1]}
  n2: {addresses: [10.20.2.2, 10.20.1.2]}
  w: {addresses: [10.20.2.3, 10.20.1.3], witness: true}
groups:
  g:
    nodes: [n1, n2]
    hold: {failovers: 0}
    resources:
      ip: {kind: floating-ip, address: 10.20.1.50}
      md: {kind: mirror-disk, data: /dev/sda4, meta: /dev/sda3, mount: /data, fs: ext3, mkfs: true, io_timeout: 3s, activation: {failovers: 99}}
      web: {kind: exec, after: [ip, md], start: start.sh, stop: stop.sh}
quarantine: {failures: 0}
`

// mirrored is a cluster whose group is active and in sync, and a client that
// writes to it all the time.
func mirrored(t *testing.T, file string, edits ...func(*lab.Layout)) (*demo.Stage, *demo.Writing) {
	t.Helper()
	s := mirrorStage(t, file, edits...)
	from, err := s.Lab.Namespace(t.Context(), s.Client)
	must(t, err)
	w, err := s.Write(t.Context(), 8, from.DialContext)
	must(t, err)
	t.Cleanup(func() { _ = w.Close() })
	return s, w
}

func mirrorStage(t *testing.T, file string, edits ...func(*lab.Layout)) *demo.Stage {
	t.Helper()
	l := up(t, "witness", edits...)
	s := &demo.Stage{Lab: l, Guests: []string{"n1", "n2", "w"}, Client: "client", URL: "http://10.20.1.50/", Group: "g", Resource: "web", Mirror: true}
	for _, m := range []string{"n1", "n2"} {
		must(t, s.Scripts(t.Context(), m))
	}
	must(t, s.Cluster(t.Context(), []byte(file), quiet, s.Guests...))
	inSync(t, s)
	return s
}

// inSync waits until the group is active and both copies are in sync.
func inSync(t *testing.T, s *demo.Stage) {
	t.Helper()
	var last string
	err := s.Until(t.Context(), "the group is active and both copies are in sync", func() (bool, error) {
		for _, at := range []string{"n1", "n2"} {
			st, err := s.Status(t.Context(), at)
			if err != nil || len(st.Mirrors) != 1 {
				return false, nil
			}
			m := st.Mirrors[0]
			last = fmt.Sprintf("%s: %s, %+v", at, owner(st, "g"), m)
			if owner(st, "g") == "" || len(m.InSync) != 2 || len(m.Copies) != 2 || m.Copies[0].State != api.MirrorInSync || m.Copies[1].State != api.MirrorInSync || !groupOnline(st) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, last)
	}
}

func groupOnline(st api.Status) bool {
	for _, g := range st.Groups {
		if g.Phase != cluster.PhaseOnline {
			return false
		}
	}
	return true
}

// written ends the writing, stops the group, and looks at everything: no
// acknowledged write is lost, the file system is whole, the copies are equal.
func written(t *testing.T, s *demo.Stage, w *demo.Writing, since time.Time) {
	t.Helper()
	inSync(t, s)
	got, err := w.Stop(t.Context(), since)
	must(t, err)
	if got.Acknowledged < 20 || got.Lost != 0 {
		t.Errorf("%+v", got)
	}
	t.Logf("%+v", *got)
	do(t, s, "n1", "tasuki", "group", "stop", "g")
	if blocks := differ(t, s.Lab, "sda4", "n1", "n2"); len(blocks) != 0 {
		t.Errorf("the copies differ in blocks %v", blocks)
	}
	for _, n := range []string{"n1", "n2"} {
		for _, m := range []string{"n1", "n2"} {
			_, err := s.Lab.Service(t.Context(), m, "stop")
			must(t, err)
		}
		fsck(t, s.Lab, n, "/dev/sda4", false)
	}
}

// other returns the node that does not own the group.
func other(n cluster.NodeName) string {
	if n == "n1" {
		return "n2"
	}
	return "n1"
}

// The active node, or the other one, crashes at random moments of a load, again
// and again: CRASHES times (3).
func TestMirrorCrashes(t *testing.T) {
	n := 3
	if text := os.Getenv("CRASHES"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		must(t, err)
	}
	s, w := mirrored(t, mirrorFile)
	begun := time.Now()
	crashes{Seed: 7, Count: n, Machines: []string{"n1", "n2"}, Run: 2 * time.Second, Off: 3 * time.Second, Ready: func(string) {
		inSync(t, s)
		soon, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		must(t, w.Await(soon, "", 8))
	}}.play(t, s.Lab)
	written(t, s, w, begun)
}

// What happens to one node while the client writes, and what must be seen. FAULT
// picks those that have it in their name.
func TestMirrorFaults(t *testing.T) {
	s, w := mirrored(t, mirrorFile)
	begun := time.Now()
	dir := "/run/tasuki/mirror/md/"
	fault := func(node, device, text string) {
		t.Helper()
		must(t, s.Lab.WriteFile(t.Context(), node, dir+"fault."+device, 0o600, []byte(text+"\n")))
	}
	for _, step := range []struct {
		name string
		do   func(active, standby string)
		undo func(active, standby string)
		move bool // the group must go to the other node
		slow bool // only where FAULT names it
	}{
		{name: "the serving process of the active copy is killed", do: func(a, _ string) { killServing(t, s, a, "mirror serve") }},
		{name: "the serving process of the standby copy is killed", do: func(_, b string) { killServing(t, s, b, "mirror serve") }},
		{name: "the keeper of the standby copy is killed", do: func(_, b string) { killServing(t, s, b, "mirror keep") }},
		{name: "the daemon of the active node is killed", do: func(a, _ string) { killServing(t, s, a, "tasuki[^ ]* daemon$") }},
		{name: "writes fail on the standby copy", do: func(_, b string) { fault(b, "data", "write:eio") },
			undo: func(_, b string) { fault(b, "data", "") }},
		{name: "writes fail on the active copy", do: func(a, _ string) { fault(a, "data", "write:eio") },
			undo: func(a, _ string) { fault(a, "data", "") }, move: true},
		{name: "the disk of the active copy hangs", do: func(a, _ string) { fault(a, "data", "write:hang") },
			undo: func(a, _ string) { fault(a, "data", "") }, move: true},
		{name: "the disk of the standby copy is slow", do: func(_, b string) { fault(b, "data", "write:delay=50ms") },
			undo: func(_, b string) { fault(b, "data", "") }},
		{name: "the meta device of the standby copy fails", do: func(_, b string) { fault(b, "meta", "write:eio") },
			undo: func(_, b string) { fault(b, "meta", "") }},
		{name: "the meta device of the active copy fails", do: func(a, _ string) {
			fault(a, "meta", "write:eio")
			go s.Do(t.Context(), a, "dd", "if=/dev/zero", "of=/data/filler", "bs=1M", "count=64", "oflag=direct", "status=none") // in extents that were not written for long; it fails
		}, undo: func(a, _ string) { fault(a, "meta", "") }, move: true},
		{name: "the process of the active copy does not come up again", slow: true, move: true, do: func(a, _ string) {
			do(t, s, a, "mv", "/dev/sda4", "/dev/gone")
			killServing(t, s, a, "mirror serve")
		}, undo: func(a, _ string) { do(t, s, a, "mv", "/dev/gone", "/dev/sda4") }},
		{name: "the two nodes do not hear each other", do: func(_, _ string) { must(t, s.Lab.Cut(t.Context(), "n1", "n2")) },
			undo: func(_, _ string) { must(t, s.Lab.HealAll(t.Context())) }},
	} {
		if fault := os.Getenv("FAULT"); !strings.Contains(step.name, fault) || step.slow && fault == "" {
			continue
		}
		active := string(s.Active(t.Context(), "n1"))
		standby := other(cluster.NodeName(active))
		t.Logf("%s: %s is active", step.name, active)
		forced := count(t, s, standby, "resource-stop-force")
		step.do(active, standby)
		goesOn(t, w)
		if step.move {
			activeOn(t, s, standby)
		}
		if step.undo != nil {
			step.undo(active, standby)
			if strings.Contains(step.name, "fail") || strings.Contains(step.name, "hang") {
				goesOn(t, w)
				saysWell(t, s)
			}
		}
		inSync(t, s)
		if count(t, s, standby, "resource-stop-force") > forced && !step.slow {
			t.Error("something was stopped by force: it may have waited for the disk")
		}
		if t.Failed() {
			return
		}
	}
	written(t, s, w, begun)
}

// saysWell has an operator say that the disks are well again, and once more where a
// process has not seen yet that the fault is gone.
func saysWell(t *testing.T, s *demo.Stage) {
	t.Helper()
	var next time.Time
	must(t, s.Until(t.Context(), "both copies count again", func() (bool, error) {
		if time.Now().After(next) {
			next = time.Now().Add(3 * time.Second)
			_, _ = s.Do(t.Context(), "n1", "tasuki", "mirror", "copy", "md")
		}
		st, err := s.Status(t.Context(), "n1")
		return err == nil && len(st.Mirrors) == 1 && len(st.Mirrors[0].InSync) == 2, nil
	}))
}

// A mirror that an operator breaks goes on with one copy, also when the other node
// comes back, until it is resumed.
func TestMirrorBroken(t *testing.T) {
	s, w := mirrored(t, mirrorFile)
	begun := time.Now()
	active := string(s.Active(t.Context(), "n1"))
	standby := other(cluster.NodeName(active))
	alone := func() {
		t.Helper()
		must(t, s.Until(t.Context(), "only the active copy counts", func() (bool, error) {
			st, err := s.Status(t.Context(), active)
			return err == nil && len(st.Mirrors) == 1 && st.Mirrors[0].Paused != nil && slices.Equal(st.Mirrors[0].InSync, []cluster.NodeName{cluster.NodeName(active)}), nil
		}))
		goesOn(t, w)
	}
	do(t, s, standby, "tasuki", "mirror", "break", "md", "--reason", "the interconnect is replaced")
	alone()
	for _, verb := range []string{"stop", "start"} {
		_, err := s.Lab.Service(t.Context(), standby, verb)
		must(t, err)
	}
	told(t, s, active, "node-up", standby+" is up: its daemon has started anew")
	alone()
	if code, text := fails(t, s, active, "tasuki", "group", "move", "g", "--to", standby); code != 1 || !strings.Contains(text, "out of date") {
		t.Errorf("%d %s", code, text)
	}
	do(t, s, standby, "tasuki", "mirror", "resume", "md")
	written(t, s, w, begun)
}

// goesOn waits until more writes are acknowledged.
func goesOn(t *testing.T, w *demo.Writing) {
	t.Helper()
	soon, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	must(t, w.Await(soon, "", 16))
}

// killServing kills the processes of a machine whose command line has that in it.
func killServing(t *testing.T, s *demo.Stage, machine, what string) {
	t.Helper()
	do(t, s, machine, "pkill", "-KILL", "-f", what)
}

// rawFile is the same without a file system: what uses the device is fio.
var rawFile = strings.NewReplacer(
	"mount: /data, fs: ext3, mkfs: true", "fs: none",
	"      web: {kind: exec, after: [ip, md], start: start.sh, stop: stop.sh}\n", "",
).Replace(mirrorFile)

// device is where a mirror disk is on the node that has it.
const device = "/dev/tasuki/md"

// What fio wrote is there after whatever happened meanwhile, on both nodes.
func TestMirrorVerifiedByFIO(t *testing.T) {
	needProgram(t, "fio")
	s := mirrorStage(t, rawFile)
	active := s.Active(t.Context(), "n1")
	for i, step := range []struct {
		name, block string
		depth       int
		extra       []string
		meanwhile   func(active, standby string)
	}{
		{"nothing", "4k", 1, nil, func(_, _ string) {}},
		{"the standby serving process is killed", "64k", 16, nil, func(_, b string) { killServing(t, s, b, "mirror serve") }},
		{"the active serving process is killed", "4k", 16, nil, func(a, _ string) { killServing(t, s, a, "mirror serve") }},
		{"the nodes are cut apart and joined again", "512", 32, nil, func(_, _ string) {
			must(t, s.Lab.Cut(t.Context(), "n1", "n2"))
			<-time.After(2 * time.Second)
			must(t, s.Lab.HealAll(t.Context()))
		}},
		{"the active node hears and is not heard", "16k", 8, nil, func(a, b string) {
			must(t, s.Lab.Cut(t.Context(), a, b, lab.OneWay()))
			<-time.After(2 * time.Second)
			must(t, s.Lab.HealAll(t.Context()))
		}},
		{"everything is copied", "1M", 4, nil, func(_, _ string) { do(t, s, "n1", "tasuki", "mirror", "copy", "md", "--full") }},
		{"ranges are discarded", "128k", 8, []string{"--rw=randtrimwrite"}, func(_, _ string) {}},
		{"the group moves", "4k-256k", 16, []string{"--bsrange=4k-256k"}, nil},
	} {
		a, b := string(active), other(active)
		job := []string{
			"fio", "--name=x", "--filename=" + device, "--direct=1", "--ioengine=libaio", "--rw=randwrite", fmt.Sprint("--iodepth=", step.depth),
			"--size=96M", "--io_size=48M", "--verify=crc32c", "--verify_fatal=1", fmt.Sprint("--randseed=", i+1), "--serialize_overlap=1",
		}
		if !strings.Contains(step.block, "-") {
			job = append(job, "--bs="+step.block)
		}
		job = append(job, step.extra...)
		ended := make(chan error, 1)
		go func() {
			r, err := s.Lab.Exec(t.Context(), a, job...)
			if err == nil && r.Code != 0 {
				err = fmt.Errorf("%v ended with %d: %s%s", job, r.Code, r.Stdout, r.Stderr)
			}
			ended <- err
		}()
		if step.meanwhile != nil {
			<-time.After(300 * time.Millisecond)
			step.meanwhile(a, b)
		}
		if err := <-ended; err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		inSync(t, s)
		if step.meanwhile == nil {
			do(t, s, "n1", "tasuki", "group", "move", "g", "--to", b)
			inSync(t, s)
			do(t, s, b, append(job, "--verify_only")...)
			active = cluster.NodeName(b)
		}
	}
	do(t, s, "n1", "tasuki", "mirror", "verify", "md")
	told(t, s, string(active), "mirror-disk-verified", "equal")
	do(t, s, "n1", "tasuki", "group", "stop", "g")
	if blocks := differ(t, s.Lab, "sda4", "n1", "n2"); len(blocks) != 0 {
		t.Errorf("the copies differ in blocks %v", blocks)
	}
}

// What stands on a meta device may be damaged: what cannot be known any more counts
// as different, or the copy is refused, and nothing is lost.
func TestMirrorDamagedMeta(t *testing.T) {
	s, w := mirrored(t, mirrorFile)
	begun := time.Now()
	const garbage = "dd if=/dev/urandom of=/dev/sda3 bs=4k iflag=count_bytes oflag=seek_bytes,direct conv=notrunc status=none "
	for name, damage := range map[string]string{
		"a page of the bitmap": garbage + "seek=128k count=4k", "a slot of the activity log": garbage + "seek=16k count=4k",
		"a bit of a superblock": "printf x | dd of=/dev/sda3 bs=1 seek=100 conv=notrunc,fsync status=none",
		"everything":            garbage + "seek=0 count=1M",
	} {
		active := string(s.Active(t.Context(), "n1"))
		standby := other(cluster.NodeName(active))
		t.Logf("%s of %s", name, standby)
		_, err := s.Lab.Service(t.Context(), standby, "stop")
		must(t, err)
		goesOn(t, w)
		do(t, s, standby, "sh", "-ec", damage)
		_, err = s.Lab.Service(t.Context(), standby, "start")
		must(t, err)
		if name == "everything" { // it could be somebody else's: that is for an operator to say
			must(t, s.Until(t.Context(), "the status says what to do", func() (bool, error) {
				out, err := s.Do(t.Context(), standby, "tasuki", "mirror", "status") // its daemon may not answer yet
				return err == nil && strings.Contains(out, "wipe the device if nobody needs it"), nil
			}))
			do(t, s, standby, "dd", "if=/dev/zero", "of=/dev/sda3", "bs=1M", "count=1", "oflag=direct", "conv=notrunc", "status=none")
		}
		inSync(t, s)
	}
	written(t, s, w, begun)
}

// Two nodes and nothing else, of which both go on when they are cut apart: both
// write. When they meet again one of them stops, both copies are kept as they are,
// and nothing is copied until an operator names the one whose writes are given up.
func TestMirrorSplitBrain(t *testing.T) {
	pair := strings.Replace(mirrorFile, "  w: {addresses: [10.20.2.3, 10.20.1.3], witness: true}\n", "", 1) + "arbitration: [none]\n"
	l := up(t, "witness")
	s := &demo.Stage{Lab: l, Guests: []string{"n1", "n2"}, Client: "client", URL: "http://10.20.1.50/", Group: "g", Resource: "web", Mirror: true}
	for _, m := range s.Guests {
		must(t, s.Scripts(t.Context(), m))
	}
	must(t, s.Cluster(t.Context(), []byte(pair), quiet, s.Guests...))
	inSync(t, s)
	must(t, l.Cut(t.Context(), "n1", "n2"))
	for _, n := range s.Guests {
		must(t, s.Until(t.Context(), n+" goes on alone and writes", func() (bool, error) {
			st, err := s.Status(t.Context(), n)
			return err == nil && string(owner(st, "g")) == n && groupOnline(st), nil
		}))
		do(t, s, n, "sh", "-ec", "echo "+n+" >/data/only-here; sync")
	}
	must(t, l.HealAll(t.Context()))
	var m api.Mirror
	must(t, s.Until(t.Context(), "the split brain is seen", func() (bool, error) {
		st, err := s.Status(t.Context(), "n1")
		if err != nil || len(st.Mirrors) != 1 || !groupOnline(st) {
			return false, nil
		}
		m = st.Mirrors[0]
		return m.Copies[0].State == api.MirrorSplit || m.Copies[1].State == api.MirrorSplit, nil
	}))
	keeps := string(m.Owner)
	gives := other(m.Owner)
	t.Logf("%s goes on, the copy of %s is kept aside: %s", keeps, gives, do(t, s, keeps, "tasuki", "mirror", "status"))
	stays(t, s, keeps, 2*time.Second)
	if got := do(t, s, keeps, "cat", "/data/only-here"); got != keeps+"\n" {
		t.Errorf("%s has %q", keeps, got)
	}
	if _, text := fails(t, s, keeps, "tasuki", "mirror", "resolve", "md"); !strings.Contains(text, "went on alone") || !strings.Contains(text, "--discard") || strings.Count(text, "only-here") != 2 {
		t.Errorf("the histories, with the file that each has written: %s", text)
	}
	if _, text := fails(t, s, keeps, "tasuki", "mirror", "resolve", "md", "--discard", gives, "--cluster-name", "wrong", "--reason", "a test"); !strings.Contains(text, "hint:") {
		t.Errorf("%s", text)
	}
	resolved := do(t, s, keeps, "tasuki", "mirror", "resolve", "md", "--discard", gives, "--cluster-name", "mirrored", "--reason", "a test")
	inSync(t, s)
	keptAside(t, s, gives, resolved)
	do(t, s, keeps, "tasuki", "group", "move", "g", "--to", gives)
	inSync(t, s)
	if got := do(t, s, gives, "cat", "/data/only-here"); got != keeps+"\n" {
		t.Errorf("after the copy %s has %q", gives, got)
	}
}

// keptAside looks at what was kept of the copy that was given up, after the other one
// has taken its place: the file that only it had.
func keptAside(t *testing.T, s *demo.Stage, node, resolved string) {
	t.Helper()
	id := regexp.MustCompile(`all of it is kept on ` + node + ` as (\w+)`).FindStringSubmatch(resolved)
	if id == nil {
		t.Fatalf("nothing was kept: %s", resolved)
	}
	if list := do(t, s, node, "tasuki", "mirror", "discarded", "list", "md"); !strings.Contains(list, id[1]) {
		t.Errorf("%s", list)
	}
	const image = "/var/lib/tasuki/md.img"
	do(t, s, node, "tasuki", "mirror", "discarded", "export", "md", id[1], image)
	fsck(t, s.Lab, node, image, true)
	if got := do(t, s, node, "debugfs", "-R", "cat /only-here", image); !strings.Contains(got, node+"\n") {
		t.Errorf("the image of what %s gave up has %q", node, got)
	}
	do(t, s, node, "tasuki", "mirror", "discarded", "delete", "md", id[1])
}

// The data devices are enlarged on both nodes while the disk is in use. To grow the
// file system on it too takes a privilege that machines of a lab may lack.
func TestMirrorGrows(t *testing.T) {
	s, w := mirrored(t, strings.Replace(mirrorFile, "fs: ext3", "fs: ext4", 1))
	begun := time.Now()
	for _, n := range []string{"n1", "n2"} {
		m, err := s.Lab.Machine(t.Context(), n)
		must(t, err)
		for _, d := range m.Disks {
			if d.Name == "sda4" {
				must(t, os.Truncate(d.File, 320<<20))
				if out, err := exec.Command("losetup", "-c", d.Device).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
		}
	}
	active := string(s.Active(t.Context(), "n1"))
	do(t, s, active, "tasuki", "mirror", "grow", "md")
	told(t, s, active, "mirror-disk-grown", fmt.Sprint(320<<20))
	told(t, s, active, "mirror-out", "is out of date") // until what is new was copied
	inSync(t, s)
	large := func(node string) {
		t.Helper()
		if size := strings.TrimSpace(do(t, s, node, "blockdev", "--getsize64", device)); size != fmt.Sprint(320<<20) {
			t.Errorf("the block device has %s bytes on %s", size, node)
		}
	}
	large(active)
	do(t, s, active, "tasuki", "group", "move", "g") // the other copy has grown too
	large(string(s.Active(t.Context(), "n1")))
	written(t, s, w, begun)
}

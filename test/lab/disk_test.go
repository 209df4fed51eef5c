package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// diskFile returns the file that a machine's disk is made of.
func diskFile(t testing.TB, l *lab.Lab, machine, disk string) string {
	t.Helper()
	m, err := l.Machine(t.Context(), machine)
	must(t, err)
	for _, d := range m.Disks {
		if d.Name == disk {
			return d.File
		}
	}
	t.Fatalf("%s has no disk %s", machine, disk)
	return ""
}

// blockSize is what differences of disks are counted in.
const blockSize = 4096

// differ returns the numbers of the blocks in which two machines have something
// else on a disk, at most 100 of them. Nothing may be written meanwhile: the
// machines are off, or what writes is stopped.
func differ(t *testing.T, l *lab.Lab, disk, a, b string) (blocks []int64) {
	t.Helper()
	var files [2]*os.File
	for i, m := range []string{a, b} {
		f, err := os.Open(diskFile(t, l, m, disk))
		must(t, err)
		defer f.Close()
		files[i] = f
	}
	var chunks [2][1 << 20]byte
	for off := int64(0); ; off += int64(len(chunks[0])) {
		n, err := io.ReadFull(files[0], chunks[0][:])
		m, err2 := io.ReadFull(files[1], chunks[1][:])
		if n != m {
			t.Fatalf("the disks %s of %s and %s have different sizes", disk, a, b)
		}
		for at := 0; at < n && !bytes.Equal(chunks[0][:n], chunks[1][:n]); at += blockSize {
			if !bytes.Equal(chunks[0][at:min(at+blockSize, n)], chunks[1][at:min(at+blockSize, n)]) && len(blocks) < 100 {
				blocks = append(blocks, (off+int64(at))/blockSize)
			}
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return blocks
		case err != nil || err2 != nil:
			t.Fatal(err, err2)
		}
	}
}

// fsck checks a file system that is not mounted. repair says whether what a
// crash leaves, a journal to be replayed, is right; else nothing may be wrong.
func fsck(t *testing.T, l *lab.Lab, machine, device string, repair bool) {
	t.Helper()
	kind, err := l.Exec(t.Context(), machine, "blkid", "-o", "value", "-s", "TYPE", device)
	must(t, err)
	argv := []string{"e2fsck", "-fn", device}
	switch fs := strings.TrimSpace(kind.Stdout); {
	case fs == "xfs" && repair:
		s := &demo.Stage{Lab: l} // the kernel replays the journal, by a mount
		do(t, s, machine, "mount", device, "/mnt")
		do(t, s, machine, "umount", "/mnt")
		fallthrough
	case fs == "xfs":
		argv = []string{"xfs_repair", "-n", device}
	case !strings.HasPrefix(fs, "ext"):
		t.Fatalf("%s of %s holds no file system: %q", device, machine, fs)
	case repair:
		argv = []string{"e2fsck", "-fp", device}
	}
	r, err := l.Exec(t.Context(), machine, argv...)
	must(t, err)
	if r.Code != 0 && (!repair || r.Code != 1) { // 1: repaired
		t.Errorf("%s of %s is damaged, %v ended with %d:\n%s%s", device, machine, argv, r.Code, r.Stdout, r.Stderr)
	}
}

// crashes takes the power from machines, again and again, at random moments of a
// load that somebody else makes. The same seed takes the same machines after the
// same times.
type crashes struct {
	Seed     uint64
	Count    int
	Machines []string      // one of them each time
	Run      time.Duration // the longest time before a crash
	Off      time.Duration // the longest time before the machine is booted again
	// Ready returns when the next crash may come. It is told which machine has
	// booted; "" at first.
	Ready func(booted string)
}

func (c crashes) play(t *testing.T, l *lab.Lab) {
	t.Helper()
	random := rand.New(rand.NewPCG(c.Seed, 0))
	c.Ready("")
	for i := range c.Count {
		machine := c.Machines[random.IntN(len(c.Machines))]
		run, off := time.Duration(random.Int64N(int64(c.Run)+1)), time.Duration(random.Int64N(int64(c.Off)+1))
		<-time.After(run)
		t.Logf("crash %d of %d (seed %d): %s, off for %v", i+1, c.Count, c.Seed, machine, off.Round(time.Millisecond))
		must(t, l.Kill(t.Context(), machine))
		<-time.After(off)
		must(t, l.Boot(t.Context(), machine))
		c.Ready(machine)
	}
}

func TestDiffer(t *testing.T) {
	l := up(t, "witness")
	s := &demo.Stage{Lab: l}
	for _, n := range []string{"n1", "n2"} {
		do(t, s, n, "dd", "if=/dev/zero", "of=/dev/sda4", "bs=1M", "count=3", "oflag=direct", "status=none")
	}
	if got := differ(t, l, "sda4", "n1", "n2"); len(got) != 0 {
		t.Errorf("equal disks differ in %v", got)
	}
	for _, block := range []int{0, 300, 65535} {
		do(t, s, "n2", "sh", "-ec", fmt.Sprintf("printf x | dd of=/dev/sda4 bs=4096 seek=%d conv=sync,fsync status=none", block))
	}
	if got := fmt.Sprint(differ(t, l, "sda4", "n1", "n2")); got != "[0 300 65535]" {
		t.Error(got)
	}
}

// A file system on a plain disk bears what a mirror disk has to: crashes at
// random moments, after which the journal is enough, the file system is whole,
// and every write that was acknowledged is there.
func TestCrashesUnderLoad(t *testing.T) {
	l := up(t, "single")
	ctx := t.Context()
	s := &demo.Stage{Lab: l, Guests: []string{"n1"}, Client: "client", URL: "http://10.30.1.1/", Group: "g", Resource: "web", Mirror: true}
	must(t, s.Scripts(ctx, "n1"))
	do(t, s, "n1", "mkfs.ext3", "-q", "/dev/sda4")
	from, err := l.Namespace(ctx, s.Client)
	must(t, err)
	var w *demo.Writing
	begun := time.Now()
	crashes{Seed: 1, Count: 5, Machines: []string{"n1"}, Run: 500 * time.Millisecond, Ready: func(string) {
		fsck(t, l, "n1", "/dev/sda4", true)
		do(t, s, "n1", "mount", "/dev/sda4", "/data")
		do(t, s, "n1", "/etc/tasuki/scripts/g/web/start.sh")
		if w == nil {
			w, err = s.Write(ctx, 8, from.DialContext)
			must(t, err)
			t.Cleanup(func() { w.Close() })
		}
		soon, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		must(t, w.Await(soon, "n1", 10))
	}}.play(t, l)
	got, err := w.Stop(ctx, begun)
	must(t, err)
	if got.Acknowledged < 60 || got.Lost != 0 {
		t.Errorf("%+v", got)
	}
	do(t, s, "n1", "/etc/tasuki/scripts/g/web/stop.sh")
	do(t, s, "n1", "umount", "/data")
	fsck(t, l, "n1", "/dev/sda4", false)
	t.Logf("%+v", *got)
}

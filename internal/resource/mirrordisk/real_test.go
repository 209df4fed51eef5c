package mirrordisk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
)

// realNode is a node whose process is played, and hands out a real block device: a loop
// device on a file.
func realNode(t *testing.T, edit func(*config.MirrorDisk)) (*node, *process, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: loop devices and mounts")
		}
		t.Skip("needs root: loop devices and mounts")
	}
	n := newNode(t, edit)
	image := filepath.Join(n.dir, "image")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(16<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	loop := runs(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() {
		for unix.Unmount(n.point(), unix.MNT_DETACH) == nil {
			continue
		}
		if out, err := exec.Command("losetup", "--detach", loop).CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", loop, err, out)
		}
	})
	p := n.serve(func(p *process) { p.device, p.busy = loop, func() bool { return inUse(loop) } })
	n.follow()
	return n, p, loop
}

func (n *node) point() string { return n.file.Groups[0].Resources[0].MirrorDisk.Mount }

// inUse says whether a block device cannot be had alone: it is mounted.
func inUse(device string) bool {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return errors.Is(err, unix.EBUSY)
}

func runs(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

// uses has a process open a file and keep it open.
func uses(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), playUser+"="+name)
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%q %v", line, err)
	}
	return c
}

func TestRealFileSystem(t *testing.T) {
	n, p, loop := realNode(t, func(m *config.MirrorDisk) { m.Fsck, m.MountOptions = config.FsckAlways, "defaults,noatime" })
	runs(t, "mkfs.ext4", "-q", loop)
	n.start()
	if !slices.Contains(n.said(), "mount-point-made") {
		t.Errorf("a directory was made and nobody is told: %q", n.said())
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || !strings.Contains(string(mounts), n.point()+" rw,noatime") {
		t.Errorf("%v: %s", err, mounts)
	}
	if err := os.WriteFile(filepath.Join(n.point(), "kept"), []byte("this"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start() // again
	if active, err := n.Check(t.Context(), n.task(nil)); !active || err != nil {
		t.Errorf("active %v: %v", active, err)
	}
	if err := n.Stop(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	if inUse(loop) || p.now().Role == roleActive {
		t.Error("it is still there")
	}
	n.start()
	if got, err := os.ReadFile(filepath.Join(n.point(), "kept")); err != nil || string(got) != "this" {
		t.Errorf("%q %v", got, err)
	}
	if err := unix.Unmount(n.point(), 0); err != nil {
		t.Fatal(err)
	}
	if active, err := n.Check(t.Context(), n.task(nil)); active || err != nil {
		t.Errorf("somebody unmounted it, and it is active: %v", err)
	}
	if err := n.Stop(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
}

func TestRealUsers(t *testing.T) {
	n, _, loop := realNode(t, nil)
	runs(t, "mkfs.ext4", "-q", loop)
	n.start()
	user := uses(t, filepath.Join(n.point(), "mild"))
	hs, err := linux{}.holders(numberOf(t, loop))
	if err != nil || len(hs) != 1 || hs[0].pid != user.Process.Pid || hs[0].what != filepath.Join(n.point(), "mild") {
		t.Fatalf("%v: %v", err, hs)
	}
	began := time.Now()
	if err := n.Stop(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	t.Logf("the stop took %s", time.Since(began))
	if err := user.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Error(err)
	}
	if inUse(loop) {
		t.Error("it is still mounted")
	}
}

func numberOf(t *testing.T, device string) uint64 {
	t.Helper()
	n, err := linux{}.device(device)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRealForce(t *testing.T) {
	n, p, loop := realNode(t, nil)
	runs(t, "mkfs.ext4", "-q", loop)
	n.start()
	user := uses(t, "!"+filepath.Join(n.point(), "file"))
	how, err := n.Force(t.Context(), n.task(nil))
	if err != nil || how != "what waited in it has failed, 1 process was killed" {
		t.Errorf("%q %v", how, err)
	}
	if err := user.Wait(); err == nil {
		t.Error("its user lives")
	}
	if inUse(loop) || p.deeds() != "activate deactivate! deactivate!" {
		t.Errorf("in use %v: %q", inUse(loop), p.deeds())
	}
}

// Everything on the device hangs, as while the copy is frozen, and is let go with an
// error when it is given up: the stop must not wait before that.
func TestRealFrozenStop(t *testing.T) {
	n, p, loop := realNode(t, nil)
	runs(t, "mkfs.ext4", "-q", loop)
	n.start()
	user := uses(t, filepath.Join(n.point(), "file"))
	// FIFREEZE holds writes of the file system as a frozen copy holds those of the
	// device; who has it unmounts in vain until somebody thaws.
	dir, err := os.Open(n.point())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.answer[control.Deactivate] = func(r control.Request) control.Message {
		if r.Force && dir != nil {
			err := errors.Join(unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0), dir.Close())
			dir = nil
			if err != nil {
				return control.Message{Error: err.Error()}
			}
		}
		if inUse(loop) {
			return control.Message{Error: "mounted", Code: control.Busy}
		}
		p.status.Role = "standby"
		return control.Message{}
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := n.Isolate(ctx, n.task(nil)); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	if err := user.Wait(); err == nil || inUse(loop) {
		t.Errorf("its user %v; in use %v", err, inUse(loop))
	}
}

// FIFREEZE and FITHAW of linux/fs.h.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

func TestRealMkfs(t *testing.T) {
	n, _, loop := realNode(t, func(m *config.MirrorDisk) { m.Mkfs = true })
	task := n.task(nil)
	task.Mirror.InSync = nil
	if err := n.Start(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	uuid := runs(t, "blkid", "-p", "-s", "UUID", "-o", "value", loop)
	if err := n.Stop(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), task); err != nil { // a construction once more, and there is something
		t.Fatal(err)
	}
	if again := runs(t, "blkid", "-p", "-s", "UUID", "-o", "value", loop); again != uuid || !slices.Contains(n.said(), "mkfs-not-needed") {
		t.Errorf("a file system was made over another one: %s, then %s; %q", uuid, again, n.said())
	}
	if err := n.Stop(t.Context(), task); err != nil {
		t.Fatal(err)
	}
}

func TestRealNothingOnIt(t *testing.T) {
	n, _, _ := realNode(t, func(m *config.MirrorDisk) { m.MountRetries = 0 })
	if err := n.Start(t.Context(), n.task(nil)); err == nil || !strings.Contains(err.Error(), "is there a file system on it?") {
		t.Error(err)
	}
	n2 := n.task(nil)
	md := *n2.Resource.MirrorDisk
	md.Fsck = config.FsckNever
	n2.Resource.MirrorDisk = &md
	if err := n.Start(t.Context(), n2); err == nil || !strings.Contains(err.Error(), "there may be no ext4 on it") {
		t.Error(err)
	}
	if err := n.Stop(t.Context(), n2); err != nil {
		t.Fatal(err)
	}
}

// A block device that somebody has open is not taken away from under him, and with
// no file system on it he is found all the same.
func TestRealDeviceInUse(t *testing.T) {
	n, p, _ := realNode(t, func(m *config.MirrorDisk) { m.FS, m.Mount = config.FSNone, "" })
	n.start()
	user := uses(t, filepath.Join(n.o.Links, "md"))
	ended := make(chan error, 1)
	go func() { ended <- user.Wait() }()
	open := true
	p.mu.Lock()
	p.busy = func() bool {
		select {
		case <-ended:
			open = false
		default:
		}
		return open
	}
	p.mu.Unlock()
	if err := n.Stop(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(n.said(), "resource-killed") {
		t.Errorf("%q", n.said())
	}
}

// A process whose first thread has ended is seen by what the others have open.
func TestTheFirstThreadEnds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), playThread+"="+file)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	dir := fmt.Sprint("/proc/", c.Process.Pid)
	until(t, "the end of its first thread", func() bool { _, _, ok := processOf(dir); return !ok })
	_, _, at, ok := living(dir)
	fds, _ := filepath.Glob(at + "/fd/*")
	if !ok || !slices.ContainsFunc(fds, func(fd string) bool { to, _ := os.Readlink(fd); return to == file }) {
		t.Errorf("%v %q has %q", ok, at, fds)
	}
}

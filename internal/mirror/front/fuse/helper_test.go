package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		if err := child(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if path := os.Getenv(keeperFile); path != "" {
		err := keep.Run(context.Background(), keep.Options{
			Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Command: func() *exec.Cmd { return childOf(path, os.Stdout) },
		})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root: FUSE and loop devices")
	}
	t.Skip("needs root: FUSE and loop devices")
}

// limit bounds everything that is waited for.
const limit = 30 * time.Second

// attach returns an attached device that is served. At the end of the test it is
// detached, and nothing of it may be left.
func attach(t testing.TB, d front.Device, o Options) *Front {
	t.Helper()
	needRoot(t)
	before := descriptors(t)
	o.Name = "test"
	f, err := Attach(t.Context(), d, &keep.Held{}, o)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve() }()
	t.Cleanup(func() {
		detach(t, f)
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(limit):
			t.Error("serve does not end")
		}
		if bound(t, f.Path()) {
			t.Errorf("%s is still there", f.Path())
		}
		eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
	})
	return f
}

func detach(t testing.TB, f *Front) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := f.Detach(ctx); err != nil {
		t.Errorf("detach: %v", err)
	}
}

// descriptors counts those of this process that have to do with block devices.
func descriptors(t testing.TB) (n int) {
	t.Helper()
	list, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		to, err := os.Readlink(l)
		if err == nil && (strings.HasPrefix(to, "/dev/") && to != "/dev/null" || to == "/") {
			n++
		}
	}
	return n
}

// bound says whether a loop device is one of ours.
func bound(t testing.TB, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		return false // it is on its way out
	}
	defer func() { _ = f.Close() }()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		return !errors.Is(err, unix.ENXIO) // it is there, and its file fails
	}
	return strings.HasPrefix(string(info.File_name[:]), "tasuki-test")
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick, end := time.NewTicker(2*time.Millisecond), time.After(limit)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// run runs a program, which must succeed, and returns what it says.
func run(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%s is missing; 'make packages' installs what tests need", program)
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// fio runs it on a path for some seconds, with a checksum in every block that is
// looked at when the block is read again.
func fio(t testing.TB, path string, seconds int, args ...string) {
	t.Helper()
	run(t, "fio", append([]string{
		"--name=verify", "--filename=" + path, "--direct=1", "--ioengine=libaio", "--verify=crc32c", "--verify_backlog=512",
		"--verify_fatal=1", "--verify_state_save=0", "--time_based", "--runtime=" + fmt.Sprint(seconds), "--minimal",
	}, args...)...)
}

// mount mounts a file system for the test.
func mount(t testing.TB, path, kind string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount(path, dir, kind, 0, ""); err != nil {
		t.Fatalf("mount %s: %v", path, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // if the test has not
	return dir
}

func unmount(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatalf("unmount %s: %v", dir, err)
	}
}

// open opens a block device for direct I/O.
func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// filled is an aligned buffer of n bytes of the same value.
func filled(n int, value byte) []byte {
	b := disk.Aligned(n)
	copy(b, bytes.Repeat([]byte{value}, n))
	return b
}

// onDisk is a device over a file with direct I/O: the kernel's path without a
// mirror.
type onDisk struct {
	disk.Disk
	size int64
}

func openDisk(path string) (*onDisk, error) {
	d, err := disk.Open(path, disk.Options{})
	if err != nil {
		return nil, err
	}
	size, err := d.Size()
	return &onDisk{d, size}, err
}

func newDisk(t testing.TB, size int64) (d *onDisk, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	d, err := openDisk(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, path
}

func (d *onDisk) Size() int64 { return d.size }

func (d *onDisk) Do(r *front.Request) {
	var err error
	switch r.Op {
	case front.Read:
		_, err = d.ReadAt(r.Data, r.Offset)
	case front.Write:
		err = d.WriteAt(r.Data, r.Offset, r.FUA)
	case front.Flush:
		err = d.Flush()
	case front.Discard:
		err = d.Disk.Discard(r.Offset, int64(r.Length))
	case front.Zero:
		err = d.Zero(r.Offset, int64(r.Length))
	}
	r.Done(r, disk.Errno(err))
}

// is checks the error of a system call on the block device.
func is(t testing.TB, what string, err error, want syscall.Errno) {
	t.Helper()
	if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

package nbd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
)

// needKernel is for the tests that need the kernel's nbd. Where it has none they
// say so, also in CI: make test-vm brings a kernel that has.
func needKernel(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: block devices")
		}
		t.Skip("needs root: block devices")
	}
	if err := Available(); err != nil {
		if os.Getpid() == 1 {
			t.Fatal(err)
		}
		t.Skipf("%v; make test-vm boots a kernel that has it", err)
	}
}

// live is a block device of dev that is served until the test ends.
func live(t *testing.T, dev *fronttest.Device) (k *Kernel, served <-chan error) {
	t.Helper()
	needKernel(t)
	k, err := Attach(dev, options(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	served = serving(k)
	t.Cleanup(func() {
		dev.Release()
		if k.state.Load() != detached {
			_ = k.Abort()
		}
		dev.Check(t)
	})
	return k, served
}

// direct opens a block device past the page cache.
func direct(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func detach(t *testing.T, k *Kernel) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if err := k.Detach(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestKernelDevice(t *testing.T) {
	dev := fronttest.New(64*mib, 4096)
	k, served := live(t, dev)
	for file, want := range map[string]string{
		"size": strconv.Itoa(64 * mib / 512), "queue/logical_block_size": "4096", "queue/write_cache": "write back",
		"queue/fua": "1", "queue/rotational": "0", "queue/io_timeout": "1000", "ro": "0",
	} {
		got, err := os.ReadFile(filepath.Join("/sys/block", name(k.index), file))
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q (%v), want %q", file, got, err, want)
		}
	}
	f := direct(t, k.Path(), 0)
	data, back := disk.Aligned(4*mib), disk.Aligned(4*mib)
	copy(data, fill(4*mib, 1))
	for _, n := range []int{4096, mib, 1306624, 4 * mib} {
		if _, err := f.WriteAt(data[:n], 8192); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(back[:n], 8192); err != nil || !bytes.Equal(back[:n], data[:n]) {
			t.Errorf("%d bytes are read otherwise than written (%v)", n, err)
		}
	}
	if err := f.Sync(); err != nil || dev.Count(front.Flush) == 0 {
		t.Errorf("%d flushes arrived after fsync (%v)", dev.Count(front.Flush), err)
	}
	durable := direct(t, k.Path(), unix.O_DSYNC)
	if _, err := durable.WriteAt(data[:4096], 0); err != nil {
		t.Fatal(err)
	}
	_ = durable.Close()
	if want := (fronttest.Seen{Op: front.Write, Length: 4096, FUA: true}); !slices.Contains(dev.Seen(), want) {
		t.Error("a durable write did not arrive as such")
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 8192, mib); err != nil {
		t.Fatal(err)
	}
	if got := dev.Content(8192, mib); !bytes.Equal(got, make([]byte, mib)) {
		t.Error("zeroes were asked for and did not come")
	}
	t.Logf("a zeroing arrives as %d zero, else as writes", dev.Count(front.Zero))
	gone := [2]uint64{mib, mib} // offset, length
	if _, _, err := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&gone))); err != 0 || dev.Count(front.Discard) == 0 {
		t.Errorf("%d discards arrived (%v)", dev.Count(front.Discard), err)
	}

	dev.Grow(96 * mib)
	if err := k.Grown(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data[:4096], 96*mib-4096); err != nil {
		t.Errorf("the new end cannot be written: %v", err)
	}
	_ = f.Close()

	claimed := direct(t, k.Path(), unix.O_EXCL)
	if err := k.Detach(t.Context()); !errors.Is(err, front.ErrBusy) {
		t.Errorf("detach of a device that is claimed: %v", err)
	}
	if _, err := claimed.WriteAt(data[:4096], 0); err != nil {
		t.Errorf("a refused Detach broke the device: %v", err)
	}
	_ = claimed.Close()
	detach(t, k)
	if err := ended(t, served); err != nil {
		t.Errorf("Serve returned %v after Detach", err)
	}
}

// What is dirty in the page cache is on the device after Detach.
func TestKernelDetachLosesNothing(t *testing.T) {
	dev := fronttest.New(16*mib, 512)
	k, _ := live(t, dev)
	data := fill(4*mib, 9)
	if err := os.WriteFile(k.Path(), data, 0); err != nil {
		t.Fatal(err)
	}
	detach(t, k)
	if !bytes.Equal(dev.Content(0, len(data)), data) {
		t.Error("what was written before Detach is not on the device")
	}
}

// The mirror may hold a write for long. The kernel must wait, and must not send
// it again.
func TestKernelWaitsForAHeldWrite(t *testing.T) {
	dev := fronttest.New(16*mib, 512)
	k, _ := live(t, dev)
	f := direct(t, k.Path(), 0)
	dev.Hold(func(s fronttest.Seen) bool { return s.Op == front.Write })
	written := make(chan error, 1)
	go func() { _, err := f.WriteAt(disk.Aligned(4096), 4096); written <- err }()
	select {
	case err := <-written:
		t.Errorf("a held write ended: %v", err)
	case <-time.After(6 * time.Second): // six times Requeue
	}
	dev.Release()
	if err := <-written; err != nil {
		t.Errorf("the write failed: %v", err)
	}
	if n := dev.Count(front.Write); n != 1 {
		t.Errorf("the write was sent %d times", n)
	}
	_ = f.Close()
	detach(t, k)
}

// With a device that answers no write any more, Abort lets what is mounted go, also
// when there are more writes than the connection takes.
func TestKernelAbort(t *testing.T) {
	const writers = memory/mib + 40
	dev := fronttest.New(256*mib, 512)
	k, served := live(t, dev)
	must(t, "mke2fs", "-q", "-t", "ext4", k.Path())
	at := t.TempDir()
	if err := unix.Mount(k.Path(), at, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	var files []*os.File
	for i := range writers {
		name := filepath.Join(at, strconv.Itoa(i))
		if err := os.WriteFile(name, fill(mib, byte(i)), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, direct(t, name, 0))
	}
	unix.Sync() // so that the writes below need no new space
	if err := k.Detach(t.Context()); !errors.Is(err, front.ErrBusy) {
		t.Errorf("detach of a device that is mounted: %v", err)
	}
	dev.Hold(func(s fronttest.Seen) bool { return s.Op != front.Read })
	written, data := make(chan error, writers), disk.Aligned(mib)
	for _, f := range files {
		go func() { _, err := f.WriteAt(data, 0); written <- err }()
	}
	eventually(t, "the connection is full", func() bool { return dev.Held() >= memory/mib })
	start := time.Now()
	if err := k.Abort(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := <-written; !errors.Is(err, unix.EIO) {
			t.Errorf("a write that was never done ends with %v", err)
		}
		_ = f.Close()
	}
	t.Logf("all writes had failed %v after Abort", time.Since(start))
	if err := unix.Unmount(at, 0); err != nil {
		t.Errorf("unmount: %v", err)
	}
	t.Logf("the file system was unmounted %v after Abort", time.Since(start))
	if err := ended(t, served); !errors.Is(err, ErrAborted) {
		t.Errorf("Serve returned %v after Abort", err)
	}
	detach(t, k)
}

func writeDurably(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// A child is a process that serves, for the test to kill.
type child struct {
	cmd *exec.Cmd
	out io.ReadCloser
}

func startChild(t *testing.T, file string, env ...string) (c *child, index int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c = &child{cmd: exec.Command(exe)}
	t.Cleanup(c.kill)
	c.cmd.Env = append(append(os.Environ(), serveEnv+"="+file), env...)
	c.cmd.Stderr = t.Output()
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c.out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server does not start: %v", err)
	}
	if index, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return c, index
}

func (c *child) kill() {
	if c.cmd.Process != nil && c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}

// served makes a block device that a child serves, with a file system that is
// mounted until the test ends.
func served(t *testing.T) (c *child, image, path, at string) {
	t.Helper()
	needKernel(t)
	image = filepath.Join(t.TempDir(), "image")
	c, index := startChild(t, image)
	t.Cleanup(func() {
		if f, err := open(); err == nil {
			_ = f.disconnect(index)
			_ = f.conn.Close()
		}
	})
	if found, ok := Find("tasuki:md1"); !ok || found != index {
		t.Errorf("device %d is found as %d, %v", index, found, ok)
	}
	path, at = "/dev/"+name(index), t.TempDir()
	must(t, "mke2fs", "-q", "-t", "ext4", path)
	if err := unix.Mount(path, at, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return c, image, path, at
}

// The process that serves is killed again and again in the middle of writes, and
// another one takes over: nobody sees an error, and nothing is lost.
func TestKernelServerIsKilled(t *testing.T) {
	c, image, path, at := served(t)
	replace := func() { c.kill(); c, _ = startChild(t, image, resumeEnv+"=yes") }
	w := &writer{dir: at, stop: make(chan struct{}), ended: make(chan error, 1)}
	go w.run()
	for range 3 {
		w.more(t)
		replace()
	}
	w.more(t)
	close(w.stop)
	if err := <-w.ended; err != nil {
		t.Errorf("a write failed: %v", err)
	}
	files := int(w.files.Load())
	t.Logf("%d files were written durably, the slowest took %v", files, w.slowest)
	for i := max(files-keptFiles, 0); i < files; i++ {
		if got, err := os.ReadFile(w.path(i)); err != nil || !bytes.Equal(got, fill(fileSize, byte(i))) {
			t.Errorf("file %d is not what was written (%v)", i, err)
		}
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	must(t, "e2fsck", "-fn", path)
	replace() // an idle one, too
	must(t, "e2fsck", "-fn", path)
}

// What waits in a device that is left behind fails when that is removed, at once.
func TestKernelRemovesWhatIsLeft(t *testing.T) {
	c, image, _, at := served(t)
	w := &writer{dir: at, stop: make(chan struct{}), ended: make(chan error, 1)}
	go w.run()
	w.more(t)
	c.kill()
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := Remove(t.Context(), "tasuki:md1"); !errors.Is(err, front.ErrBusy) {
		t.Errorf("remove of a device that is mounted: %v", err)
	}
	if err := <-w.ended; err == nil {
		t.Error("the writer did not fail")
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Errorf("unmount: %v", err)
	}
	if err := Remove(t.Context(), "tasuki:md1"); err != nil {
		t.Errorf("remove: %v", err)
	}
	if index, found := Find("tasuki:md1"); found {
		t.Errorf("the device is still there: %d", index)
	}
	t.Logf("it took %v", time.Since(start))
	if after, err := os.ReadFile(image); err != nil || !bytes.Equal(before, after) {
		t.Errorf("something reached the bytes (%v)", err)
	}
}

const (
	keptFiles = 50
	fileSize  = 300 << 10
)

// A writer writes one file after the other, each durably.
type writer struct {
	dir     string
	stop    chan struct{}
	ended   chan error
	files   atomic.Int64
	slowest time.Duration // valid after ended
}

func (w *writer) path(i int) string { return filepath.Join(w.dir, strconv.Itoa(i%keptFiles)) }

func (w *writer) run() {
	for {
		select {
		case <-w.stop:
			w.ended <- nil
			return
		default:
		}
		i, start := int(w.files.Load()), time.Now()
		if err := writeDurably(w.path(i), fill(fileSize, byte(i))); err != nil {
			w.ended <- fmt.Errorf("file %d: %w", i, err)
			return
		}
		w.slowest = max(w.slowest, time.Since(start))
		w.files.Add(1)
	}
}

// more waits until some more files are written.
func (w *writer) more(t *testing.T) {
	t.Helper()
	end := w.files.Load() + 20
	eventually(t, "more files are written", func() bool { return w.files.Load() >= end || len(w.ended) > 0 })
}

// A device that belongs to somebody else, or that is served, is not taken over.
func TestKernelResumesOnlyItsOwn(t *testing.T) {
	dev := fronttest.New(16*mib, 512)
	k, _ := live(t, dev)
	opt := options(t.Output())
	opt.Identity = "tasuki:md2"
	if _, err := Resume(k.Index(), dev, opt); err == nil {
		t.Error("a device with another identity was resumed")
	}
	if _, err := Resume(k.Index()+5, dev, options(t.Output())); err == nil {
		t.Error("a device that is not attached was resumed")
	}
	if _, err := Resume(k.Index(), dev, options(t.Output())); err == nil || !strings.Contains(err.Error(), "another process serves it") {
		t.Errorf("resume of a device that is served: %v", err)
	}
	if _, err := direct(t, k.Path(), 0).WriteAt(disk.Aligned(512), 0); err != nil {
		t.Errorf("the device is broken after that: %v", err)
	}
}

package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
)

func TestTheKernelSeesWhatItShould(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			d := fronttest.New(16<<20, sector)
			f := attach(t, d, Options{})
			b := open(t, f.Path())
			info, err := unix.IoctlLoopGetStatus64(int(b.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			if want := uint32(unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR); info.Flags != want {
				t.Errorf("the loop device has flags %#x, want direct I/O and autoclear, %#x", info.Flags, want)
			}
			got, err := unix.IoctlGetInt(int(b.Fd()), unix.BLKSSZGET)
			if err != nil || got != sector {
				t.Errorf("its sectors have %d bytes (%v), want %d", got, err, sector)
			}
			if size := sizeOf(t, b); size != 16<<20 {
				t.Errorf("it has %d bytes, want %d", size, 16<<20)
			}
			for name, want := range map[string]string{"write_cache": "write back", "fua": "0", "max_sectors_kb": "512", "discard_max_bytes": "67108864"} {
				if got := setting(t, f, name); got != want {
					t.Errorf("its %s is %q, want %q", name, got, want)
				}
			}
			d.Check(t)
		})
	}
}

func sizeOf(t testing.TB, f *os.File) int64 {
	t.Helper()
	size, err := f.Seek(0, 2)
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func setting(t testing.TB, f *Front, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(f.Path()), "queue", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestFileSystems(t *testing.T) {
	memory := func(t *testing.T) front.Device {
		d := fronttest.New(64<<20, 512)
		t.Cleanup(func() { d.Check(t) })
		return d
	}
	direct := func(t *testing.T) front.Device { d, _ := newDisk(t, 64<<20); return d }
	for _, tt := range []struct {
		name, kind string
		make       func(*testing.T) front.Device
	}{{"ext4 in memory", "ext4", memory}, {"ext3 in memory", "ext3", memory}, {"ext4 on a disk", "ext4", direct}, {"ext3 on a disk", "ext3", direct}} {
		t.Run(tt.name, func(t *testing.T) {
			needRoot(t)
			d := tt.make(t)
			text := bytes.Repeat([]byte("what was written is there. "), 100000)
			t.Run("write", func(t *testing.T) {
				f := attach(t, d, Options{})
				run(t, "mkfs."+tt.kind, "-q", f.Path())
				dir := mount(t, f.Path(), tt.kind)
				out, err := os.Create(filepath.Join(dir, "file"))
				if err != nil {
					t.Fatal(err)
				}
				_, err = out.Write(text)
				if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
					t.Fatal(err)
				}
				unmount(t, dir)
				run(t, "fsck."+tt.kind, "-fn", f.Path())
			})
			t.Run("read", func(t *testing.T) { // through another connection
				f := attach(t, d, Options{})
				dir := mount(t, f.Path(), tt.kind)
				if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || !bytes.Equal(got, text) {
					t.Errorf("read %d bytes (%v) that are not the %d written ones", len(got), err, len(text))
				}
				unmount(t, dir)
				run(t, "fsck."+tt.kind, "-fn", f.Path())
			})
		})
	}
}

func TestVerify(t *testing.T) {
	for name, tt := range map[string]struct {
		sector int
		args   []string
	}{
		"small, one at a time":      {512, []string{"--rw=randrw", "--bs=512", "--iodepth=1"}},
		"small, deep":               {512, []string{"--rw=randwrite", "--bs=4k", "--iodepth=128"}},
		"of every size":             {512, []string{"--rw=randrw", "--bsrange=512-2m", "--iodepth=16"}},
		"memory at odd places":      {4096, []string{"--rw=randrw", "--bsrange=4k-1m", "--iodepth=16", "--iomem_align=512"}},
		"discarded between, serial": {512, []string{"--rw=randtrimwrite", "--bs=64k", "--iodepth=4", "--verify=0"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := fronttest.New(64<<20, tt.sector)
			f := attach(t, d, Options{})
			fio(t, f.Path(), 1, tt.args...)
			d.Check(t)
		})
	}
}

func TestVerifyOnDisk(t *testing.T) {
	d, _ := newDisk(t, 64<<20)
	f := attach(t, d, Options{})
	fio(t, f.Path(), 2, "--rw=randwrite", "--bsrange=4k-64k", "--iodepth=32", "--fsync=50")
}

func TestEveryFsyncArrives(t *testing.T) {
	d := fronttest.New(16<<20, 512)
	f := attach(t, d, Options{})
	b := open(t, f.Path())
	buf := filled(4096, 7)
	d.Forget()
	for i := range 10 {
		if _, err := b.WriteAt(buf, int64(i)*4096); err != nil {
			t.Fatal(err)
		}
		if err := b.Sync(); err != nil {
			t.Fatal(err)
		}
		if got := d.Count(front.Flush); got != i+1 {
			t.Fatalf("%d flushes after %d fsyncs", got, i+1)
		}
	}
	if got := d.Content(9*4096, 4096); !bytes.Equal(got, buf) {
		t.Error("the last write is not there")
	}
	d.Check(t)
}

// blkRange is an ioctl on a range of a block device.
func blkRange(f *os.File, request uintptr, off, n uint64) error {
	r := [2]uint64{off, n}
	if _, _, err := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&r))); err != 0 {
		return err
	}
	return nil
}

func TestDiscardAndZero(t *testing.T) {
	const off, n = 1 << 20, 128 << 10
	for name, tt := range map[string]struct {
		do     func(f *os.File) error
		noHole bool
	}{
		"discard":    {func(f *os.File) error { return blkRange(f, unix.BLKDISCARD, off, n) }, false},
		"zeroout":    {func(f *os.File) error { return blkRange(f, unix.BLKZEROOUT, off, n) }, true},
		"punch hole": {func(f *os.File) error { return unix.Fallocate(int(f.Fd()), modePunch, off, n) }, false},
		"zero range": {func(f *os.File) error { return unix.Fallocate(int(f.Fd()), modeZero, off, n) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := fronttest.New(16<<20, 512)
			f := attach(t, d, Options{})
			b := open(t, f.Path())
			if _, err := b.WriteAt(filled(n, 7), off); err != nil {
				t.Fatal(err)
			}
			d.Forget()
			is(t, name, tt.do(b), 0)
			want := fronttest.Seen{Op: front.Zero, Offset: off, Length: n, NoHole: tt.noHole}
			if seen := d.Seen(); len(seen) != 1 || seen[0] != want {
				t.Errorf("it arrived as %v, want %v", seen, want)
			}
			if !bytes.Equal(d.Content(off, n), make([]byte, n)) {
				t.Error("it does not read as zeroes")
			}
			d.Check(t)
		})
	}
}

func TestErrorsReachTheWriter(t *testing.T) {
	d := fronttest.New(16<<20, 512)
	var fail atomic.Int64 // the operation, -1 is none
	fail.Store(-1)
	errno := syscall.EIO
	d.Fail = func(s fronttest.Seen) syscall.Errno {
		if int64(s.Op) == fail.Load() {
			return errno
		}
		return 0
	}
	f := attach(t, d, Options{})
	b, buf := open(t, f.Path()), filled(4096, 7)
	for op, do := range map[front.Op]func() error{
		front.Read:  func() error { _, err := b.ReadAt(buf, 8192); return err },
		front.Write: func() error { _, err := b.WriteAt(buf, 8192); return err },
		front.Flush: b.Sync,
		front.Zero:  func() error { return unix.Fallocate(int(b.Fd()), modePunch, 8192, 4096) },
	} {
		is(t, op.String(), do(), 0)
		fail.Store(int64(op))
		is(t, "failing "+op.String(), do(), unix.EIO)
		fail.Store(-1)
		is(t, op.String()+" after that", do(), 0)
	}
	d.Check(t)
}

func TestDeviceWithoutZero(t *testing.T) {
	d := fronttest.New(16<<20, 512)
	d.Fail = func(s fronttest.Seen) syscall.Errno {
		if s.Op == front.Zero {
			return unix.EOPNOTSUPP
		}
		return 0
	}
	f := attach(t, d, Options{})
	b := open(t, f.Path())
	if _, err := b.WriteAt(filled(64<<10, 7), 0); err != nil {
		t.Fatal(err)
	}
	is(t, "discard", blkRange(b, unix.BLKDISCARD, 0, 64<<10), 0) // it need not have an effect
	if !bytes.Equal(d.Content(0, 64<<10), filled(64<<10, 7)) {
		t.Error("a discard that was refused had an effect")
	}
	is(t, "zeroout", blkRange(b, unix.BLKZEROOUT, 0, 64<<10), 0) // the kernel writes them
	if !bytes.Equal(d.Content(0, 64<<10), make([]byte, 64<<10)) {
		t.Error("it does not read as zeroes")
	}
	d.Check(t)
}

func TestBusy(t *testing.T) {
	d := fronttest.New(16<<20, 512)
	f := attach(t, d, Options{})
	b := open(t, f.Path())
	if err := f.Detach(t.Context()); !errors.Is(err, front.ErrBusy) {
		t.Fatalf("detach of an open device: %v, want %v", err, front.ErrBusy)
	}
	if _, err := b.WriteAt(filled(4096, 7), 0); err != nil {
		t.Fatalf("nothing may have changed: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", f.Path())
	dir := mount(t, f.Path(), "ext4")
	if err := f.Detach(t.Context()); !errors.Is(err, front.ErrBusy) {
		t.Fatalf("detach of a mounted device: %v, want %v", err, front.ErrBusy)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
	unmount(t, dir)
	d.Check(t)
}

func TestDetachWritesBack(t *testing.T) {
	d := fronttest.New(16<<20, 512)
	f := attach(t, d, Options{})
	b, err := os.OpenFile(f.Path(), os.O_RDWR, 0) // through the page cache
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{7}, 1<<20)
	if _, err := b.WriteAt(want, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	detach(t, f)
	if !bytes.Equal(d.Content(1<<20, 1<<20), want) {
		t.Error("what the kernel had cached is lost")
	}
	d.Check(t)
}

func TestGrow(t *testing.T) {
	d := fronttest.New(16<<20, 512)
	f := attach(t, d, Options{})
	b, buf := open(t, f.Path()), filled(4096, 7)
	if _, err := b.WriteAt(buf, 16<<20); err == nil {
		t.Error("a write beyond the end was taken")
	}
	d.Grow(24 << 20)
	if err := f.Grown(); err != nil {
		t.Fatal(err)
	}
	if size := sizeOf(t, b); size != 24<<20 {
		t.Errorf("the block device has %d bytes, want %d", size, 24<<20)
	}
	if _, err := b.WriteAt(buf, 24<<20-4096); err != nil {
		t.Error(err)
	}
	d.Check(t)
}

// stuck is a device whose Do does not come back, as with a disk that hangs.
type stuck struct {
	front.Device
	on   atomic.Bool
	gate sync.RWMutex // held whole: it hangs
	in   atomic.Int32
}

func (s *stuck) Do(r *front.Request) {
	if s.on.Load() {
		s.in.Add(1)
		s.gate.RLock()
		defer s.gate.RUnlock()
	}
	s.Device.Do(r)
}

func TestAbortWhileTheDeviceHoldsItsRequests(t *testing.T) {
	d := fronttest.New(64<<20, 512)
	abort(t, d, func() { d.Hold(func(fronttest.Seen) bool { return true }) }, func() bool { return d.Held() == 6 }, d.Release)
	d.Check(t)
}

func TestAbortWhileTheDeviceHangs(t *testing.T) {
	d := &stuck{Device: fronttest.New(64<<20, 512)}
	abort(t, d, func() { d.gate.Lock(); d.on.Store(true) }, func() bool { return d.in.Load() == 4 }, d.gate.Unlock)
}

// abort has a device hang, under a mounted file system and other writers.
func abort(t *testing.T, d front.Device, hang func(), hangs func() bool, release func()) {
	t.Helper()
	needRoot(t)
	before := descriptors(t)
	f, err := Attach(t.Context(), d, &keep.Held{}, Options{Name: "test", Depth: 6, Threads: 4}) // fewer than what will wait
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve() }()
	run(t, "mkfs.ext4", "-q", f.Path())
	dir := mount(t, f.Path(), "ext4")
	b := open(t, f.Path())
	hang()
	const writers = 12
	failed := make(chan error, writers+1)
	for i := range writers {
		go func() {
			_, err := b.WriteAt(filled(4096, 7), int64(i)*4096+32<<20)
			failed <- err
		}()
	}
	go func() {
		name := filepath.Join(dir, "file")
		err := os.WriteFile(name, []byte("x"), 0o600)
		if err == nil {
			var out *os.File
			if out, err = os.Open(name); err == nil {
				err = errors.Join(out.Sync(), out.Close())
			}
		}
		failed <- err
	}()
	eventually(t, "everything waits for the device", hangs)
	begin := time.Now()
	if err := f.Abort(); err != nil {
		t.Fatal(err)
	}
	for range writers + 1 {
		select {
		case err := <-failed:
			if !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EROFS) {
				t.Errorf("a waiting writer got %v, want %v", err, unix.EIO)
			}
		case <-time.After(limit):
			t.Fatal("a writer still waits")
		}
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the writers waited for %s after the abort", took)
	}
	if err := <-served; err == nil || !strings.Contains(err.Error(), "aborted") {
		t.Errorf("serve: %v, want that it was aborted", err)
	}
	_, err = b.WriteAt(filled(4096, 7), 0)
	is(t, "a later write", err, unix.EIO)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	unmount(t, dir)
	detach(t, f)
	if bound(t, f.Path()) {
		t.Errorf("%s is still there", f.Path())
	}
	release() // the device ends what it had; nobody waits for it
	if err := f.Abort(); err != nil {
		t.Errorf("abort once more: %v", err)
	}
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
}

func TestAttachAfterAnAbort(t *testing.T) {
	needRoot(t)
	d, h := fronttest.New(16<<20, 512), &keep.Held{}
	f, err := Attach(t.Context(), d, h, Options{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if path, err := h.Kept(); err != nil || path != f.Path() {
		t.Errorf("%q is kept (%v), want %q", path, err, f.Path())
	}
	if err := f.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := f.Serve(); err == nil || !strings.Contains(err.Error(), "aborted") {
		t.Errorf("serve: %v, want that it was aborted", err)
	}
	b := open(t, f.Path())
	if _, err := Attach(t.Context(), d, h, Options{Name: "test"}); !errors.Is(err, front.ErrBusy) {
		t.Errorf("attach while the old one is open: %v, want %v", err, front.ErrBusy)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Attach(t.Context(), d, h, Options{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	b = open(t, again.Path())
	_, err = b.WriteAt(filled(4096, 7), 0)
	is(t, "write", err, 0)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	detach(t, again)
	if path, err := h.Kept(); err != nil || path != "" {
		t.Errorf("%q is kept (%v) after the detach", path, err)
	}
	d.Check(t)
}

// The kernel flushes when it makes a loop device.
func TestAttachToADeviceThatFails(t *testing.T) {
	needRoot(t)
	before := descriptors(t)
	d, h := fronttest.New(16<<20, 512), &keep.Held{}
	d.Hold(func(s fronttest.Seen) bool { return s.Op == front.Flush })
	attached := make(chan error, 1)
	go func() {
		_, err := Attach(t.Context(), d, h, Options{Name: "test"})
		attached <- err
	}()
	eventually(t, "the kernel flushes", func() bool { return d.Held() == 1 })
	conn, err := h.Connect(keep.Spec{Name: "test", SectorSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	if err := keep.Abort(conn.ID); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	select {
	case err := <-attached:
		if err == nil {
			t.Error("attached to a device that does not flush")
		}
	case <-time.After(limit):
		t.Fatal("attach waits for ever")
	}
	d.Release()
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
	d.Check(t)
}

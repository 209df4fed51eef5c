package disk

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// filled returns n aligned bytes that all are c.
func filled(n int, c byte) []byte {
	b := Aligned(n)
	copy(b, bytes.Repeat([]byte{c}, n))
	return b
}

func read(t testing.TB, d Disk, off int64, n int) []byte {
	t.Helper()
	b := filled(n, 0xaa)
	if got, err := d.ReadAt(b, off); err != nil || got != n {
		t.Fatalf("read %d at %d: %d, %v", n, off, got, err)
	}
	return b
}

func write(t testing.TB, d Disk, off int64, p []byte, durable bool) {
	t.Helper()
	if err := d.WriteAt(p, off, durable); err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, d Disk, off int64, n int, c byte) {
	t.Helper()
	if !bytes.Equal(read(t, d, off, n), filled(n, c)) {
		t.Fatalf("%d bytes at %d are not all %q", n, off, c)
	}
}

func newFile(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t testing.TB, path string, o Options) Disk {
	t.Helper()
	d, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// contract is what Disk promises, of a disk of 8 MiB that reads as zeroes.
func contract(t *testing.T, d Disk) {
	const size = 8 * mib
	sector := int64(d.SectorSize())
	if n, err := d.Size(); err != nil || n != size {
		t.Fatalf("size %d, %v", n, err)
	}
	expect(t, d, 0, mib, 0)
	write(t, d, sector, filled(int(sector), 'a'), false)
	write(t, d, 3*sector, filled(int(sector), 'b'), true)
	write(t, d, mib, filled(2*mib, 'c'), true)
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	for i, c := range []byte{0, 'a', 0, 'b', 0} {
		expect(t, d, int64(i)*sector, int(sector), c)
	}
	expect(t, d, mib, 2*mib, 'c')

	if err := d.Zero(mib+sector, mib); err != nil {
		t.Fatal(err)
	}
	expect(t, d, mib, int(sector), 'c')
	expect(t, d, mib+sector, mib, 0)
	expect(t, d, 2*mib+sector, mib-int(sector), 'c')
	if err := d.Discard(mib, mib); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	expect(t, d, 2*mib+sector, mib-int(sector), 'c')

	b := Aligned(int(2 * sector))
	if n, err := d.ReadAt(b, size-sector); err != io.EOF || n != int(sector) {
		t.Errorf("read over the end: %d, %v", n, err)
	}
	for name, op := range map[string]func() error{
		"write":   func() error { return d.WriteAt(b, size-sector, false) },
		"zero":    func() error { return d.Zero(size-sector, 2*sector) },
		"discard": func() error { return d.Discard(size-sector, 2*sector) },
	} {
		if err := op(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s over the end: %v", name, err)
		}
	}
	if n, err := d.Size(); err != nil || n != size {
		t.Errorf("it has grown to %d, %v", n, err)
	}
	for name, op := range map[string]func() error{
		"read at an odd offset":  func() error { _, err := d.ReadAt(b, 1); return err },
		"read an odd length":     func() error { _, err := d.ReadAt(b[:100], 0); return err },
		"read to an odd address": func() error { _, err := d.ReadAt(Aligned(int(2 * sector))[sector/2:][:sector], 0); return err },
		"write before the begin": func() error { return d.WriteAt(b, -sector, false) },
		"write an odd length":    func() error { return d.WriteAt(b[:sector-1], 0, false) },
		"zero an odd length":     func() error { return d.Zero(0, 100) },
		"discard at odd offset":  func() error { return d.Discard(7, sector) },
	} {
		if err := op(); Errno(err) != syscall.EINVAL {
			t.Errorf("%s: %v", name, err)
		}
	}
	crowd(t, d)

	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(b, 0, false); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if err := d.Flush(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("flush after close: %v", err)
	}
}

// crowd lets several use the disk at the same time, each a part of it.
func crowd(t *testing.T, d Disk) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			off, c := int64(4*mib+i*64<<10), byte('A'+i)
			for range 5 {
				if err := errors.Join(d.WriteAt(filled(64<<10, c), off, c%2 == 0), d.Flush()); err != nil {
					t.Error(err)
					return
				}
				b := Aligned(64 << 10)
				if _, err := d.ReadAt(b, off); err != nil || !bytes.Equal(b, filled(64<<10, c)) {
					t.Errorf("part %c: read something else, %v", c, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestMem(t *testing.T) {
	contract(t, NewMem(8*mib, 512))
	contract(t, NewMem(8*mib, 4096))
}

func TestLayers(t *testing.T) {
	contract(t, Measure(Faulty(NewMem(8*mib, 512))))
	f := Faulty(NewMem(8*mib, 4096))
	f.Volatile()
	contract(t, f)
}

func TestFile(t *testing.T) {
	path := newFile(t, 8*mib+100)
	d := mustOpen(t, path, Options{Buffered: true})
	if _, err := Open(path, Options{}); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "another process has it") {
		t.Errorf("opened twice: %v", err)
	}
	contract(t, d)
	if err := os.Truncate(path, 16*mib); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, path, Options{Buffered: true})
	if err := os.Truncate(path, 24*mib); err != nil {
		t.Fatal(err)
	}
	write(t, d, 24*mib-4096, filled(4096, 'z'), false) // where it has grown
	if n, err := d.Size(); err != nil || n != 24*mib {
		t.Errorf("after it grew: %d, %v", n, err)
	}
}

// TestFlushThatFailed: after a flush that failed nothing is called durable any more.
func TestFlushThatFailed(t *testing.T) {
	d := mustOpen(t, newFile(t, mib), Options{Buffered: true})
	f := d.(*file)
	f.noSync.Store(true) // as on a kernel that has no durable write: it flushes
	write(t, d, 0, filled(4096, 'a'), true)
	failed := error(syscall.EIO)
	f.failed.Store(&failed)
	for name, err := range map[string]error{"flush": d.Flush(), "durable write": d.WriteAt(filled(4096, 'b'), 0, true)} {
		if Errno(err) != syscall.EIO || !strings.Contains(err.Error(), "an earlier flush failed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	expect(t, d, 0, 4096, 'a')
	write(t, d, 0, filled(4096, 'c'), false)
}

func TestFileGivesSpaceBack(t *testing.T) {
	path := newFile(t, 8*mib)
	d := mustOpen(t, path, Options{Buffered: true})
	write(t, d, 0, filled(8*mib, 'x'), true)
	before := allocated(t, path)
	if err := d.Discard(0, 4*mib); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this file system cannot punch holes")
	} else if err != nil {
		t.Fatal(err)
	}
	if now := allocated(t, path); now > before-3*mib {
		t.Errorf("%d bytes allocated, %d before", now, before)
	}
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                          "a block device or a regular file is wanted",
		"/dev/null":                  "a block device or a regular file is wanted",
		filepath.Join(dir, "absent"): "no such file",
	} {
		if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root: loop devices and mounts")
	}
	t.Skip("needs root: loop devices and mounts")
}

// loopDevice makes a block device of a file. It goes away with the last that has
// it open, also if the test is killed.
func loopDevice(t *testing.T, size int64, sector uint32) string {
	t.Helper()
	needRoot(t)
	back, err := os.OpenFile(newFile(t, size), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ctl.Close()
	for range 20 { // another process may take the same number first
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		dev, err := os.OpenFile(filepath.Join("/dev", "loop"+strconv.Itoa(n)), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &unix.LoopConfig{Fd: uint32(back.Fd()), Size: sector,
			Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}})
		if err == nil {
			t.Cleanup(func() { _ = dev.Close() })
			return dev.Name()
		}
		_ = dev.Close()
		if !errors.Is(err, syscall.EBUSY) {
			t.Fatal(err)
		}
	}
	t.Fatal("no free loop device")
	return ""
}

func TestBlockDevice(t *testing.T) {
	for _, sector := range []uint32{512, 4096} {
		path := loopDevice(t, 8*mib, sector)
		d := mustOpen(t, path, Options{})
		if d.SectorSize() != int(sector) {
			t.Errorf("sectors of %d, want %d", d.SectorSize(), sector)
		}
		if _, err := Open(path, Options{}); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "mounted") {
			t.Errorf("opened twice: %v", err)
		}
		contract(t, d)
	}
}

// TestNoDirectIO uses ramfs, which has nothing but a page cache.
func TestNoDirectIO(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "disk")
	if err := os.WriteFile(path, make([]byte, 8*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "knows no direct I/O") {
		t.Fatalf("without direct I/O: %v", err)
	}
	d := mustOpen(t, path, Options{Buffered: true})
	// ramfs cannot punch holes either: Discard says so, Zero writes.
	if err := d.Discard(0, mib); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("discard: %v", err)
	}
	contract(t, d)
}

func TestAligned(t *testing.T) {
	for _, n := range []int{0, 1, 512, 4096, 5000, mib} {
		b := Aligned(n)
		if len(b) != n || cap(b) != n || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%Alignment != 0 {
			t.Errorf("%d: len %d, cap %d, at %p", n, len(b), cap(b), b)
		}
	}
}

func TestPool(t *testing.T) {
	p := NewPool(8192, 2)
	a, b := p.Get(), p.Get()
	if len(a) != 8192 || len(b) != 8192 || &a[0] == &b[0] {
		t.Fatal("two buffers of the size are wanted")
	}
	third := make(chan []byte)
	go func() { third <- p.Get() }()
	select {
	case <-third:
		t.Fatal("a third buffer")
	default:
	}
	p.Put(a[:10])
	if c := <-third; len(c) != 8192 || &c[0] != &a[0] {
		t.Fatal("not the buffer that came back")
	}
}

func TestErrorText(t *testing.T) {
	err := error(&Error{Op: "write", Path: "/dev/sdb1", Off: 4096, Len: 512, Err: syscall.EIO, Hint: "look"})
	if got, want := err.Error(), "write /dev/sdb1 (512 bytes at 4096): input/output error; look"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for want, err := range map[syscall.Errno]error{
		0:              nil,
		syscall.EIO:    os.ErrClosed,
		syscall.ENOSPC: errors.Join(errors.New("x"), &Error{Op: "write", Err: syscall.ENOSPC}),
	} {
		if got := Errno(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// TestFlushOfNothing: the kernel is asked to flush only when something has changed.
func TestFlushOfNothing(t *testing.T) {
	f := mustOpen(t, newFile(t, mib), Options{Buffered: true, Queue: true}).(*file)
	dirty := func() bool { return f.changes.Load() > f.durable }
	if !dirty() {
		t.Error("what was written before it was opened counts as durable")
	}
	p := Aligned(4096)
	for name, do := range map[string]func() error{
		"write":   func() error { return f.WriteAt(p, 0, false) },
		"zero":    func() error { return f.Zero(4096, 4096) },
		"discard": func() error { return f.Discard(8192, 4096) },
		"start": func() error {
			if began, err := start(t, f, Start{Write: true, P: p, Off: 4096}); began {
				return err
			}
			return f.WriteAt(p, 4096, false)
		},
	} {
		if err := f.Flush(); err != nil || dirty() {
			t.Fatalf("something is left after a flush: %v", err)
		}
		if _, err := f.ReadAt(p, 0); err != nil || dirty() {
			t.Errorf("a read counts as a change: %v", err)
		}
		if err := do(); err != nil && !errors.Is(err, errors.ErrUnsupported) || !dirty() {
			t.Errorf("a %s needs no flush: %v", name, err)
		}
	}
}

package disk

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options of Open.
type Options struct {
	// Buffered lets a file whose file system knows no direct I/O be used through
	// the page cache. What was flushed is as durable as it would be otherwise.
	Buffered bool
	// Queue lets Start be used, where the kernel can do it. Settled, which may be
	// nil, is called from its goroutine when it has told all that have ended.
	Queue   bool
	Settled func()
}

// file is a block device or a regular file.
type file struct {
	path   string
	block  bool
	sector int
	noSync atomic.Bool // the kernel knows no RWF_DSYNC for it
	queue  *queue      // nil: there is none

	mu     sync.RWMutex // held for reading by every system call, so that Close does not give the descriptor to another file
	fd     int
	closed atomic.Bool

	size atomic.Int64 // as last seen
	flusher
}

var _ Disk = (*file)(nil)

// Open opens a block device, or a regular file that exists, for direct I/O, and
// for nobody else: a device that is mounted or claimed, and a file that another
// process has opened here, is refused (EBUSY).
func Open(path string, o Options) (Disk, error) {
	fail := func(err error, hint string) (Disk, error) {
		return nil, &Error{Op: "open", Path: path, Err: err, Hint: hint}
	}
	// The kind decides the flags: O_EXCL claims a block device, and is undefined
	// for anything else.
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fail(err, "")
	}
	f := &file{path: path, block: st.Mode&unix.S_IFMT == unix.S_IFBLK}
	flags := unix.O_RDWR | unix.O_CLOEXEC | unix.O_DIRECT
	switch {
	case f.block:
		flags |= unix.O_EXCL
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fail(syscall.EINVAL, "a block device or a regular file is wanted")
	}
	fd, err := open(path, flags)
	if errors.Is(err, syscall.EINVAL) && !f.block {
		if !o.Buffered {
			return fail(err, "its file system knows no direct I/O: put the file on another one, or use a block device")
		}
		fd, err = open(path, flags&^unix.O_DIRECT)
	}
	if errors.Is(err, syscall.EBUSY) {
		return fail(err, fmt.Sprintf("it is mounted, or something else has it for itself: see 'lsblk %s'", path))
	}
	if err != nil {
		return fail(err, "")
	}
	f.fd, f.sync = fd, unix.Fdatasync
	f.changes.Store(1) // of what was done before it was opened nothing is known
	if hint, err := f.examine(&st); err != nil {
		_ = unix.Close(fd)
		return fail(err, hint)
	}
	if o.Queue {
		f.queue = newQueue(f, o.Settled)
	}
	return f, nil
}

func open(path string, flags int) (int, error) {
	return again(func() (int, error) { return unix.Open(path, flags, 0) })
}

// again repeats a system call that a signal interrupted.
func again[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

// examine finds out what was opened, and keeps others of us from a file. The
// text is a hint for the error.
func (f *file) examine(expect *unix.Stat_t) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != expect.Mode&unix.S_IFMT {
		return "", errors.New("it was replaced while it was opened")
	}
	if f.block {
		n, err := unix.IoctlGetInt(f.fd, unix.BLKSSZGET)
		if err != nil {
			return "", fmt.Errorf("ask for the sector size: %w", err)
		}
		f.sector = n
	} else {
		if err := unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
			return "another process has it as a mirror disk's device", syscall.EBUSY
		} else if err != nil {
			return "", fmt.Errorf("lock: %w", err)
		}
		f.sector = directAlignment(f.fd)
	}
	if f.sector != 512 && f.sector != 4096 {
		return "", fmt.Errorf("sectors of %d bytes: only 512 and 4096 are supported", f.sector)
	}
	_, err := f.measure()
	return "", err
}

// directAlignment is the sector size of a file: what its file system says about
// direct I/O, 4096 where it says nothing.
func directAlignment(fd int) int {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 || st.Dio_offset_align == 0 {
		return 4096
	}
	return max(512, int(st.Dio_offset_align))
}

// measure asks the kernel for the size.
func (f *file) measure() (int64, error) {
	var size int64
	if f.block {
		if _, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); no != 0 {
			return 0, no
		}
	} else {
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil {
			return 0, err
		}
		size = st.Size
	}
	size -= size % int64(f.sector)
	f.size.Store(size)
	return size, nil
}

// enter guards a system call; leave follows it.
func (f *file) enter() error {
	if f.closed.Load() {
		return os.ErrClosed
	}
	f.mu.RLock()
	if f.closed.Load() {
		f.mu.RUnlock()
		return os.ErrClosed
	}
	return nil
}

func (f *file) leave() { f.mu.RUnlock() }

// Size returns the size now, rounded down to whole sectors.
func (f *file) Size() (int64, error) {
	if err := f.enter(); err != nil {
		return 0, f.wrap("size", 0, 0, err)
	}
	defer f.leave()
	size, err := f.measure()
	return size, f.wrap("size", 0, 0, err)
}

func (f *file) SectorSize() int { return f.sector }

// Close waits for the operations that are under way; later ones fail with
// os.ErrClosed.
func (f *file) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	f.mu.Lock() // nothing is under way
	defer f.mu.Unlock()
	if f.queue != nil {
		f.queue.close()
	}
	return f.wrap("close", 0, 0, unix.Close(f.fd))
}

func (f *file) wrap(op string, off, n int64, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Path: f.path, Off: off, Len: n, Err: err}
}

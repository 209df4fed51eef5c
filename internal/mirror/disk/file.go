package disk

import (
	"errors"
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadAt reads all of p, or up to the end of the device and io.EOF.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := checkBuffer("read", f.path, p, off, f.sector); err != nil {
		return 0, err
	}
	if err := f.enter(); err != nil {
		return 0, f.wrap("read", off, int64(len(p)), err)
	}
	defer f.leave()
	n, err := f.readAll(p, off)
	if err != nil && err != io.EOF {
		err = f.wrap("read", off, int64(len(p)), err)
	}
	return n, err
}

// readAll reads all of p, or up to the end of the device and io.EOF.
func (f *file) readAll(p []byte, off int64) (done int, err error) {
	for done < len(p) {
		n, err := again(func() (int, error) { return unix.Pread(f.fd, p[done:], off+int64(done)) })
		if err != nil {
			return done, err
		}
		whole := n - n%f.sector // a file may end in the middle of a sector
		if done += whole; whole < n || n == 0 {
			return done, io.EOF
		}
	}
	return done, nil
}

// WriteAt writes p. A durable write is one system call where the kernel can do
// that, which reaches a device as one FUA write (pwritev2(2), RWF_DSYNC).
func (f *file) WriteAt(p []byte, off int64, durable bool) error {
	if err := checkBuffer("write", f.path, p, off, f.sector); err != nil {
		return err
	}
	n := int64(len(p))
	if err := f.enter(); err != nil {
		return f.wrap("write", off, n, err)
	}
	defer f.leave()
	if err := f.fits("write", off, n); err != nil {
		return err
	}
	if durable {
		if err := f.lost("write", off, n); err != nil {
			return err
		}
	}
	return f.writeAll(p, off, durable)
}

// writeAll writes all of p.
func (f *file) writeAll(p []byte, off int64, durable bool) error {
	for done := 0; done < len(p); {
		n, err := f.write(p[done:], off+int64(done), durable)
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return f.notWritten(off, int64(len(p)), durable, err)
		}
		done += n
	}
	if durable && f.noSync.Load() {
		return f.flush()
	}
	return nil
}

// notWritten is the error of a write. What a durable one was to make durable may be
// more than its own.
func (f *file) notWritten(off, n int64, durable bool, err error) error {
	if durable {
		f.failed.CompareAndSwap(nil, &err)
	}
	return f.wrap("write", off, n, err)
}

// write is one system call, durable if it is to be and can be.
func (f *file) write(p []byte, off int64, durable bool) (int, error) {
	defer f.wrote()
	if durable && !f.noSync.Load() {
		n, err := again(func() (int, error) { return unix.Pwritev2(f.fd, [][]byte{p}, off, unix.RWF_DSYNC) })
		if err != unix.EOPNOTSUPP && err != unix.ENOSYS && err != unix.EINVAL {
			return n, err
		}
		f.noSync.Store(true)
	}
	return again(func() (int, error) { return unix.Pwrite(f.fd, p, off) })
}

// fits refuses what ends past the end. The kernel is asked only if it does not
// fit in the size that was last seen, so a device that has grown is noticed.
func (f *file) fits(op string, off, n int64) error {
	if off <= f.size.Load()-n {
		return nil
	}
	size, err := f.measure()
	if err != nil {
		return f.wrap(op, off, n, err)
	}
	if off > size-n {
		return errPastEnd(op, f.path, off, n, size)
	}
	return nil
}

// piece bounds one discard or zero, in bytes: the kernel may write it out, and
// does not return before.
const piece = 64 << 20

// Discard gives the range back. A device or file system that cannot do that
// answers errors.ErrUnsupported.
func (f *file) Discard(off, n int64) error {
	return f.pieces("discard", off, n, func(off, n int64) error {
		if f.block {
			return f.ioctlRange(unix.BLKDISCARD, off, n)
		}
		return f.allocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
	})
}

// Zero makes the range read as zeroes: by giving it back where that reads as
// zeroes, else by what the device can do for it, else by writing.
func (f *file) Zero(off, n int64) error {
	return f.pieces("zero", off, n, func(off, n int64) error {
		// On a block device this is a write of zeroes that may unmap, and that
		// fails where the device would have to be written to.
		err := f.allocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
		if unsupported(err) && f.block {
			err = f.ioctlRange(unix.BLKZEROOUT, off, n)
		} else if unsupported(err) {
			err = f.allocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
		}
		if unsupported(err) {
			err = f.writeZeroes(off, n)
		}
		return err
	})
}

// unsupported says that another way may work. EINVAL is what some file systems
// and old kernels say to a mode that they do not know.
func unsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTTY)
}

// pieces does a range step by step.
func (f *file) pieces(op string, off, n int64, do func(off, n int64) error) error {
	if err := checkRange(op, f.path, off, n, f.sector); err != nil {
		return err
	}
	if err := f.enter(); err != nil {
		return f.wrap(op, off, n, err)
	}
	defer f.leave()
	if err := f.fits(op, off, n); err != nil {
		return err
	}
	for end := off + n; off < end; {
		step := min(end-off, piece)
		err := do(off, step)
		f.changes.Add(1)
		if err != nil {
			return f.wrap(op, off, step, err)
		}
		off += step
	}
	return nil
}

func (f *file) allocate(mode uint32, off, n int64) error {
	_, err := again(func() (struct{}, error) {
		return struct{}{}, unix.Fallocate(f.fd, mode|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	return err
}

func (f *file) ioctlRange(request uintptr, off, n int64) error {
	r := [2]uint64{uint64(off), uint64(n)}
	_, err := again(func() (struct{}, error) {
		_, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), request, uintptr(unsafe.Pointer(&r)))
		if no != 0 {
			return struct{}{}, no
		}
		return struct{}{}, nil
	})
	return err
}

func (f *file) writeZeroes(off, n int64) error {
	for n > 0 {
		done, err := f.write(ZeroBytes(int(min(n, MaxZeroBytes))), off, false)
		if err != nil {
			return err
		}
		if done == 0 {
			return io.ErrShortWrite
		}
		off, n = off+int64(done), n-int64(done)
	}
	return nil
}

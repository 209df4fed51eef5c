package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// block is a disk of a machine that is on: a loop device over a file of the
// lab. The kernel takes the device away when nobody has it open any more, so
// none outlives the supervisor and its machines.
type block struct {
	spec   Disk
	file   *os.File
	device *os.File
	number uint64
}

// attach makes the machine's disks. Their files have no blocks before something
// is written, and are kept as long as the lab.
func (s *supervisor) attach(m *unit) error {
	for _, d := range m.spec.Disks {
		b, err := openBlock(d, s.dir.block(m.spec.Name, d.Name))
		if err != nil {
			return fmt.Errorf("attach disk %s: %w", d.Name, err)
		}
		m.blocks = append(m.blocks, b)
	}
	return nil
}

func openBlock(d Disk, path string) (*block, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	b := &block{spec: d, file: f}
	if err = f.Truncate(int64(d.Size)); err == nil {
		b.device, err = loopOver(f)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(b.device.Fd()), &st)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	b.number = st.Rdev
	return b, nil
}

// loopTries bounds how often another program may be faster to take a free loop
// device.
const loopTries = 64

// loopOver attaches a file to a free loop device. I/O goes past the page cache
// of this machine, as to a disk, where the file's file system can do that; the
// kernel does without where it cannot.
func loopOver(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("the disks of a lab need loop devices (try modprobe loop): %w", err)
	}
	defer control.Close()
	for range loopTries {
		var n int
		if n, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		var device *os.File
		if device, err = openLoop(n); err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO},
		})
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return nil, fmt.Errorf("configure a loop device: %w", err)
}

// openLoop opens a loop device. Where /dev is no devtmpfs, as in a container,
// its node may be missing.
func openLoop(n int) (*os.File, error) {
	const major = 7
	path := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err = unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(major, uint32(n)))); err == nil {
			f, err = os.OpenFile(path, os.O_RDWR, 0)
		}
	}
	return f, err
}

// detach takes the disks from a machine whose processes are gone, as its power
// was. A file system of them that is mounted would be unmounted with the
// machine's last mounts, and written to the end: so the disks fail first.
func (s *supervisor) detach(m *unit) error {
	var errs []error
	for _, b := range m.blocks {
		errs = append(errs, b.fail())
	}
	errs = append(errs, m.unmount())
	for _, b := range m.blocks {
		errs = append(errs, b.close())
	}
	m.blocks = nil
	return errors.Join(errs...)
}

// fail makes every later request to the disk an error, by a size of nothing.
// What was completed before stays.
func (b *block) fail() error {
	info, err := unix.IoctlLoopGetStatus64(int(b.device.Fd()))
	if err == nil {
		info.Offset = uint64(b.spec.Size)
		err = unix.IoctlLoopSetStatus64(int(b.device.Fd()), info)
	}
	if err != nil {
		return fmt.Errorf("take the power from disk %s: %w", b.spec.Name, err)
	}
	return nil
}

func (b *block) close() error {
	if b.device == nil {
		return b.file.Close()
	}
	return errors.Join(b.device.Close(), b.file.Close())
}

// unmount lets go of the machine's mounts. The kernel unmounts them meanwhile,
// which may hang in a file system that waits for something that never comes.
func (m *unit) unmount() error {
	if m.mounts == nil {
		return nil
	}
	closed := make(chan error, 1)
	go func(f *os.File) { closed <- f.Close() }(m.mounts)
	m.mounts = nil
	select {
	case err := <-closed:
		return err
	case <-time.After(endWithin):
		return fmt.Errorf("a file system of %s is stuck in the kernel", m.spec.Name)
	}
}

// releaseBlocks takes the files of a lab without a supervisor from loop devices
// that still have them, and returns how many had.
func releaseBlocks(d dir) (held int) {
	const suffix = "/loop/backing_file"
	found, _ := filepath.Glob("/sys/block/loop*" + suffix)
	for _, f := range found {
		path, err := os.ReadFile(f)
		if err != nil || !strings.HasPrefix(string(path), d.blocks()+"/") {
			continue
		}
		held++
		if device, err := os.Open(filepath.Join("/dev", filepath.Base(strings.TrimSuffix(f, suffix)))); err == nil {
			unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0)
			device.Close()
		}
	}
	return held
}

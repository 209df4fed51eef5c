package keep

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Transfer is how many bytes one read or write of the kernel may have. The block
// layer of the kernel makes none that is larger, see tune; if it did, FUSE would
// cut it where its limit of pages falls, which need not be between two sectors.
// 512 KiB in at most 128 segments, the most the block layer makes, always fit
// into the 256 pages of a request of FUSE.
const Transfer = 512 << 10

// File is the one name in the FUSE file system. The serving side knows it.
const File = "disk"

// mount opens a FUSE connection and a file system on it that is in no mount
// namespace: nobody can see or unmount it, and when the last descriptor of it is
// closed, by whatever end of whatever process, it is gone. Nothing is asked of
// the serving side yet.
func mount(name string) (device, root *os.File, err error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open /dev/fuse (is the fuse module loaded?): %w", err)
	}
	device = os.NewFile(uintptr(fd), "/dev/fuse")
	r, err := detached("fuse", [][2]string{
		{"source", "tasuki-" + name}, {"subtype", "tasuki"}, {"fd", strconv.Itoa(fd)}, {"rootmode", "40000"},
		{"user_id", "0"}, {"group_id", "0"}, {"max_read", strconv.Itoa(Transfer)},
	})
	if err != nil {
		_ = device.Close() // nothing is behind it
		return nil, nil, err
	}
	return device, r, nil
}

// detached makes a file system of the kind and mounts it nowhere.
func detached(kind string, options [][2]string) (*os.File, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open file system %s: %w", kind, err)
	}
	defer func() { _ = unix.Close(fs) }()
	for _, o := range options {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return nil, fmt.Errorf("file system %s: option %s=%s: %w", kind, o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make file system %s: %w", kind, err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount file system %s: %w", kind, err)
	}
	return os.NewFile(uintptr(m), kind), nil
}

// writeIn writes texts to files of a kernel's file system, which need not be mounted
// anywhere.
func writeIn(kind string, files ...file) error {
	root, err := detached(kind, nil)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, f := range files {
		if f.has(int(root.Fd())) {
			continue // to write to the queue of a block device takes 15 ms each
		}
		if err := f.writeIn(int(root.Fd()), kind); err != nil {
			return err
		}
	}
	return nil
}

// file is one of the kernel's: a name and what is to stand in it.
type file struct{ path, text string }

func (f file) writeIn(root int, kind string) error {
	fd, err := unix.Openat(root, f.path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s of %s: %w", f.path, kind, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Write(fd, []byte(f.text)); err != nil {
		return fmt.Errorf("write %s of %s: %w", f.path, kind, err)
	}
	return nil
}

// has says whether the text stands there already.
func (f file) has(root int) bool {
	fd, err := unix.Openat(root, f.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	b := make([]byte, len(f.text)+2)
	n, err := unix.Read(fd, b)
	return err == nil && strings.TrimSpace(string(b[:n])) == f.text
}

// connectionID is the number of a connection in the fusectl file system: the
// minor of its device. Asking for nothing keeps the kernel from asking the
// serving side.
func connectionID(root *os.File) (uint32, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(root.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return 0, fmt.Errorf("look up the number of the FUSE connection: %w", err)
	}
	return st.Dev_minor, nil
}

// Abort ends a connection: every request that waits in it, and every later one,
// fails at once. The caller holds a descriptor of its file system, or the number
// might have become somebody else's.
func Abort(id uint32) error {
	err := writeIn("fusectl", file{strconv.FormatUint(uint64(id), 10) + "/abort", "1"})
	if errors.Is(err, syscall.ENOENT) {
		return nil // it is gone
	}
	return err
}

const (
	loopMajor = 7
	loopTries = 64 // others take free numbers at the same time
	// The kernel lets no write pass a discard, so one discard must not take long.
	loopDiscardBytes = 64 << 20
)

// bind gives the file of a file system a free loop device, and returns it opened,
// and its path. The serving side has to answer.
func bind(root, sector int, name string) (loop int, path string, err error) {
	fd, err := unix.Openat(root, File, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", fmt.Errorf("open the file of the FUSE file system: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // the loop device has its own reference
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", fmt.Errorf("open /dev/loop-control (is the loop module loaded?): %w", err)
	}
	defer func() { _ = unix.Close(control) }()
	config := unix.LoopConfig{Fd: uint32(fd), Size: uint32(sector)}
	// The last close frees the device: a crash of everybody leaves nothing behind.
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:len(config.Info.File_name)-1], "tasuki-"+name)
	for range loopTries {
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return -1, "", fmt.Errorf("find a free loop device: %w", err)
		}
		loop, path, err := openLoop(n)
		if err == nil {
			if err = unix.IoctlLoopConfigure(loop, &config); err == nil {
				if err = tune(loop, n); err == nil {
					return loop, path, nil
				}
			}
			_ = unix.Close(loop) // not ours, or freed by this
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) { // somebody was faster
			return -1, "", fmt.Errorf("set up loop device %d: %w", n, err)
		}
	}
	return -1, "", errors.New("every free loop device was taken by somebody else: try again")
}

// openLoop opens the n-th loop device. Where /dev is not kept by the kernel, as
// in a container, the node is made first.
func openLoop(n int) (fd int, path string, err error) {
	path = "/dev/loop" + strconv.Itoa(n)
	device := unix.Mkdev(loopMajor, uint32(n))
	if err := unix.Mknod(path, unix.S_IFBLK|0o660, int(device)); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, "", fmt.Errorf("make %s: %w", path, err)
	}
	if fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return -1, "", fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Rdev != device {
		_ = unix.Close(fd)
		return -1, "", fmt.Errorf("%s is not the loop device of that number: remove it", path)
	}
	return fd, path, nil
}

// tune sets limits of the queue of the n-th loop device, and checks that nothing
// is cached twice.
func tune(loop, n int) error {
	info, err := unix.IoctlLoopGetStatus64(loop)
	if err != nil {
		return fmt.Errorf("look at it: %w", err)
	}
	if info.Flags&unix.LO_FLAGS_DIRECT_IO == 0 {
		return errors.New("the kernel does no direct I/O on a FUSE file")
	}
	queue := fmt.Sprintf("block/loop%d/queue/", n)
	return writeIn("sysfs",
		file{queue + "max_sectors_kb", strconv.Itoa(Transfer >> 10)},
		file{queue + "discard_max_bytes", strconv.Itoa(loopDiscardBytes)},
	)
}

// unbind begins the end of a loop device if we are its only user. The kernel then
// lets nobody else open it; if there is another user it only remembers to free it
// at the last close, which it does anyway. The status tells which of the two, by
// whether there is one: the kernel looks at the file for it, which may be aborted.
func unbind(loop int) (bool, error) {
	if _, err := unix.IoctlRetInt(loop, unix.LOOP_CLR_FD); err != nil && !errors.Is(err, unix.ENXIO) {
		return false, fmt.Errorf("free the loop device: %w", err)
	}
	_, err := unix.IoctlLoopGetStatus64(loop)
	return errors.Is(err, unix.ENXIO), nil
}

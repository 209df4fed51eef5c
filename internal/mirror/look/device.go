package look

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
)

// filesystem is one that can be looked at without a write.
type filesystem struct {
	kind    string            // as the kernel knows it
	flags   []string          // mount options
	options map[string]string // with values
	lacks   string            // what a mount with them does not show; "" if nothing
}

// ErrUnknown: on the device stands no file system that can be looked at.
var ErrUnknown = errors.New("there is no ext2, ext3, ext4 or xfs on it")

// Device is Tree of the file system that stands on a data device, a block device or
// a file, which nothing may be writing to. It needs root and Linux 5.8 or later.
func Device(ctx context.Context, path string, since time.Time, most int) (api.MirrorFiles, error) {
	fail := func(err error) (api.MirrorFiles, error) {
		return api.MirrorFiles{}, fmt.Errorf("look at the file system on %s: %w", path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	is, err := identify(f)
	if err != nil {
		return fail(err)
	}
	loop, err := readOnlyLoop(f)
	if err != nil {
		return fail(err)
	}
	defer loop.Close() // the kernel takes the device away after its last user
	mount, err := is.mount(loop.Name())
	if err != nil {
		return fail(err)
	}
	defer unix.Close(mount)
	found, err := Tree(ctx, fmt.Sprintf("/proc/self/fd/%d/.", mount), since, most)
	if found.Text == "" {
		found.Text = is.lacks
	}
	return found, err
}

// identify reads which file system stands there: the superblock of xfs is at the
// beginning, that of ext at byte 1024.
func identify(f *os.File) (*filesystem, error) {
	const (
		ext       = 1024
		magicAt   = ext + 56
		featureAt = ext + 96
		recover   = 4 // of the features: the journal has what the rest has not
	)
	b := make([]byte, 4096)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(b, []byte("XFSB")):
		return &filesystem{kind: "xfs", flags: []string{"norecovery", "nouuid"}, lacks: "what only its log has is not shown"}, nil
	case b[magicAt] == 0x53 && b[magicAt+1] == 0xef:
		// The file system itself may want the machine to panic at an error.
		is := &filesystem{kind: "ext4", flags: []string{"noload"}, options: map[string]string{"errors": "continue"}}
		if b[featureAt]&recover != 0 {
			is.lacks = "what only its journal has is not shown"
		}
		return is, nil
	}
	return nil, ErrUnknown
}

// mount returns a mount that is nowhere but in the descriptor.
func (s *filesystem) mount(device string) (int, error) {
	c, err := unix.Fsopen(s.kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount it as %s: %w", s.kind, err)
	}
	defer unix.Close(c)
	err = unix.FsconfigSetString(c, "source", device)
	for _, flag := range append([]string{"ro"}, s.flags...) {
		if err == nil {
			err = unix.FsconfigSetFlag(c, flag)
		}
	}
	for key, value := range s.options {
		if err == nil {
			err = unix.FsconfigSetString(c, key, value)
		}
	}
	if err == nil {
		err = unix.FsconfigCreate(c)
	}
	mount := -1
	if err == nil {
		mount, err = unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOATIME)
	}
	if err != nil {
		return -1, fmt.Errorf("mount it as %s: %w%s", s.kind, err, words(c))
	}
	return mount, nil
}

// words returns what the kernel says about a mount that came to nothing.
func words(c int) string {
	b := make([]byte, 512)
	n, err := unix.Read(c, b)
	if err != nil || n < 2 {
		return ""
	}
	return " (" + string(bytes.TrimSpace(b[2:n])) + ")" // behind a letter for its level
}

// loopTries bounds how often another program may be faster to take a free loop
// device.
const loopTries = 64

// readOnlyLoop makes a loop device over f that nobody can write to. It goes away with
// its last user.
func readOnlyLoop(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("make a loop device: %w", err)
	}
	defer control.Close()
	for range loopTries {
		var n int
		if n, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			break
		}
		var loop *os.File
		if loop, err = openLoop(n); err != nil {
			break
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{
			Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return nil, fmt.Errorf("make a loop device: %w", err)
}

// openLoop opens a loop device. Where /dev is no devtmpfs, as in a container, its
// node may be missing.
func openLoop(n int) (*os.File, error) {
	const major = 7
	path := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(major, uint32(n)))); err == nil {
			f, err = os.Open(path)
		}
	}
	return f, err
}

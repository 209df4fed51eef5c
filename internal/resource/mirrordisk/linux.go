package mirrordisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"github.com/moby/sys/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/script"
)

// system is what the driver needs of the machine.
type system interface {
	// device returns the number of a block device, see stat(2).
	device(path string) (number uint64, err error)
	// mounted returns what is mounted at a directory, on top; nil: nothing.
	mounted(point string) (*mountedAt, error)
	mount(device, point, fs, options string) error
	// unmount is umount2(2). unix.EBUSY while something uses it.
	unmount(point string, flags int) error
	// holders finds the processes that use a file system on the device, or have the
	// device itself open.
	holders(number uint64) ([]holder, error)
	signal(h holder, s unix.Signal) error
	// run runs a program of the system to its end, see script.Run.
	run(ctx context.Context, log script.Log, name string, args ...string) (script.Result, error)
}

// mountedAt is a mount.
type mountedAt struct {
	source string
	point  string
	number uint64 // of the device
}

// linux is the system itself.
type linux struct{}

func (linux) device(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("look at block device %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, fmt.Errorf("%s is not a block device", path)
	}
	return st.Rdev, nil
}

func (linux) mounted(point string) (*mountedAt, error) {
	if real, err := filepath.EvalSymlinks(point); err == nil {
		point = real
	}
	all, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != point, false })
	if err != nil {
		return nil, fmt.Errorf("read what is mounted: %w", err)
	}
	if len(all) == 0 {
		return nil, nil
	}
	top := all[len(all)-1] // of several at one place the kernel lists the topmost last
	return &mountedAt{source: top.Source, point: point, number: unix.Mkdev(uint32(top.Major), uint32(top.Minor))}, nil
}

func (linux) mount(device, point, fs, options string) error {
	return mount.Mount(device, point, fs, options)
}

func (linux) unmount(point string, flags int) error {
	if real, err := filepath.EvalSymlinks(point); err == nil {
		point = real
	}
	return unix.Unmount(point, flags|unix.UMOUNT_NOFOLLOW)
}

// runPath is where the programs that are run look for others.
const runPath = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

func (linux) run(ctx context.Context, log script.Log, name string, args ...string) (script.Result, error) {
	path, err := program(name)
	if err != nil {
		return script.Result{}, err
	}
	return script.Run(ctx, script.Spec{Path: path, Args: args, Env: []string{runPath, "LANG=C.UTF-8"}, Log: log})
}

// locked says whether somebody holds the lock of a file.
func locked(path string) bool {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	f := flock.New(path)
	got, err := f.TryRLock()
	if err != nil {
		return true // not known
	}
	if got {
		_ = f.Unlock()
	}
	return !got
}

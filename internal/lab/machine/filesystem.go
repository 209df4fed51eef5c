package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// overlays are the directories that a machine can write, over what the real
// machine has there. fresh ones start empty; everything else is read-only.
var (
	overlays = []string{"etc", "var", "opt", "root", "srv", "home", "usr/sbin", "usr/local"}
	fresh    = []string{"proc", "sys", "dev", "run", "tmp", "lost+found", "data"}
	// opaque directories are ours: a Tasuki of the real machine must not show.
	opaque  = []string{"etc/tasuki", "var/lib/tasuki", "var/log/tasuki", "opt/nec"}
	devices = []string{"null", "zero", "full", "random", "urandom", "tty", "fuse", "loop-control", "net/tun"}
)

// build makes the machine's file system on c.Root and moves into it.
func build(c Config) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("detach from the mounts outside: %w", err)
	}
	if err := unix.Mount("tmpfs", c.Root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, f := range []func(Config) error{system, writable, kernel, device, scratch, program, power} {
		if err := f(c); err != nil {
			return err
		}
	}
	return enter(c.Root)
}

// system shows the real machine's directories read-only.
func system(c Config) error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := "/"+e.Name(), filepath.Join(c.Root, e.Name())
		switch {
		case slices.Contains(fresh, e.Name()):
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(from)
			if err == nil {
				err = os.Symlink(target, to)
			}
			if err != nil {
				return err
			}
		case e.IsDir():
			if err := os.Mkdir(to, 0o755); err != nil {
				return err
			}
			if slices.Contains(overlays, e.Name()) {
				continue
			}
			if err := bindReadOnly(from, to); err != nil {
				return err
			}
		}
	}
	return nil
}

func bindReadOnly(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("show %s: %w", from, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make %s read-only: %w", from, err)
	}
	return nil
}

// writable mounts the overlays; their upper directories are on c.Disk.
func writable(c Config) error {
	for _, o := range opaque {
		dir := filepath.Join(c.Disk, "upper", o)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Setxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("hide the outer /%s: %w", o, err)
		}
	}
	for _, o := range overlays {
		lower := "/" + o
		info, err := os.Stat(lower)
		if err != nil || !info.IsDir() {
			continue
		}
		name := strings.ReplaceAll(o, "/", "-")
		upper, work := filepath.Join(c.Disk, "upper", name), filepath.Join(c.Disk, "work", name)
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o700), os.Chmod(upper, info.Mode().Perm())); err != nil {
			return err
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
		if err := unix.Mount("overlay", filepath.Join(c.Root, o), "overlay", 0, options); err != nil {
			return fmt.Errorf("mount an overlay on /%s: %w", o, err)
		}
	}
	if c.State != "" {
		to := filepath.Join(c.Root, "var/lib/tasuki")
		if err := errors.Join(os.MkdirAll(to, 0o755), unix.Mount(c.State, to, "", unix.MS_BIND, "")); err != nil {
			return fmt.Errorf("mount the state disk: %w", err)
		}
	}
	return identity(c)
}

// identity gives the machine its own /etc/hostname and /etc/hosts, once: what
// somebody changes later stays.
func identity(c Config) error {
	for name, text := range map[string]string{"hostname": c.Name + "\n", "hosts": c.Hosts} {
		if _, err := os.Lstat(filepath.Join(c.Disk, "upper/etc", name)); err == nil {
			continue
		}
		path := filepath.Join(c.Root, "etc", name)
		os.Remove(path)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// kernel mounts /proc and /sys of the machine's own namespaces. What would
// reach the real machine through them cannot be written.
func kernel(c Config) error {
	proc, sys := filepath.Join(c.Root, "proc"), filepath.Join(c.Root, "sys")
	if err := errors.Join(os.Mkdir(proc, 0o555), os.Mkdir(sys, 0o555)); err != nil {
		return err
	}
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", proc, "proc", quiet, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// Read-only is this mount, not the file system: a front end of a mirror disk
	// mounts it again to tune its own block device.
	err := unix.Mount("sysfs", sys, "sysfs", quiet, "")
	if err == nil {
		err = unix.MountSetattr(unix.AT_FDCWD, sys, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	// One for all machines: it names, and can end, what is mounted through /dev/fuse.
	err = unix.Mount("fusectl", sys+"/fs/fuse/connections", "fusectl", quiet, "")
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("mount /sys/fs/fuse/connections: %w", err)
	}
	if err := bindReadOnly(proc+"/sys", proc+"/sys"); err != nil {
		return err
	}
	if err := unix.Mount(proc+"/sys/net", proc+"/sys/net", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show /proc/sys/net: %w", err)
	}
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, proc+"/sys/net", 0, &attr); err != nil {
		return fmt.Errorf("make /proc/sys/net writable: %w", err)
	}
	for _, f := range []string{"sysrq-trigger", "kcore", "kmsg"} {
		err := unix.Mount("/dev/null", filepath.Join(proc, f), "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("hide /proc/%s: %w", f, err)
		}
	}
	return nil
}

// device makes a /dev without watchdogs, and of disks with the machine's own
// ones. Nodes for loop devices that the machine attaches it makes itself.
func device(c Config) error {
	dev := filepath.Join(c.Root, "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	for _, d := range devices {
		from, to := filepath.Join("/dev", d), filepath.Join(dev, d)
		if _, err := os.Stat(from); err != nil {
			continue
		}
		err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, nil, 0o666))
		if err == nil {
			err = unix.Mount(from, to, "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("show %s: %w", from, err)
		}
	}
	if len(c.Disks) > 0 { // where the examples mount one; it stays over boots, as on a real machine
		if err := os.Mkdir(filepath.Join(c.Root, "data"), 0o755); err != nil {
			return err
		}
	}
	for _, d := range c.Disks {
		if err := unix.Mknod(filepath.Join(dev, d.Name), unix.S_IFBLK|0o660, int(d.Number)); err != nil {
			return fmt.Errorf("make /dev/%s: %w", d.Name, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Mkdir(dev+"/pts", 0o755), os.Mkdir(dev+"/shm", 0o755)); err != nil {
		return err
	}
	if err := unix.Mount("devpts", dev+"/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	return unix.Mount("tmpfs", dev+"/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
}

// scratch mounts what is empty after a boot.
func scratch(c Config) error {
	for dir, mode := range map[string]string{"run": "mode=755", "tmp": "mode=1777"} {
		path := filepath.Join(c.Root, dir)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, mode); err != nil {
			return fmt.Errorf("mount /%s: %w", dir, err)
		}
	}
	lock := filepath.Join(c.Root, "run/lock")
	return errors.Join(os.Mkdir(lock, 0o755), os.Chmod(lock, 0o777|fs.ModeSticky))
}

// program puts the lab's binary at /usr/sbin/tasuki.
func program(c Config) error {
	to := filepath.Join(c.Root, "usr/sbin/tasuki")
	f, err := os.OpenFile(to, os.O_CREATE|os.O_RDONLY, 0o755)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(c.Program, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("install /usr/sbin/tasuki: %w", err)
	}
	return nil
}

// enter makes root the root and lets go of everything else.
func enter(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Chdir("/")
}

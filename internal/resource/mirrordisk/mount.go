package mirrordisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/script"
)

const (
	againAfter = time.Second    // between two tries to mount or to unmount
	longest    = 24 * time.Hour // of what is bounded by its context alone
)

// slow runs calls that may hang in the kernel, one at a time. It has the capacity 1.
type slow chan struct{}

// errHangs: the kernel did not come back from a call.
var errHangs = errors.New("the kernel does not come back from it: perhaps it waits for the mirror disk")

// call runs f and waits for it as long as limit and ctx allow. What does not come
// back in time goes on, and the next call waits for it.
func (s slow) call(ctx context.Context, limit time.Duration, f func() error) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case s <- struct{}{}:
	case <-timer.C:
		return errHangs
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan error, 1)
	go func() {
		err := f()
		<-s
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errHangs
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wait waits, and says whether ctx goes on.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// mount brings the file system to its mount point, after a check of it.
func (d *Driver) mount(ctx context.Context, m *mirror, t resource.Task, device string, number uint64) error {
	md := t.Resource.MirrorDisk
	if there, err := d.free(t, number); there || err != nil {
		return err
	}
	if err := d.mountPoint(t); err != nil {
		return err
	}
	if made, err := d.mkfs(ctx, m, t, device); err != nil {
		return err
	} else if !made {
		if err := d.fsck(ctx, t, device); err != nil {
			return err
		}
	}
	options := kernelOptions(md.MountOptions)
	var err error
	for try := 0; try <= md.MountRetries; try++ {
		if try > 0 && !wait(ctx, againAfter) {
			break
		}
		err = m.kernel.call(ctx, md.MountTimeout, func() error {
			if there, err := d.free(t, number); there || err != nil {
				return err // a try that came back late
			}
			return d.sys.mount(device, md.Mount, md.FS, options)
		})
		if err == nil {
			return m.forget(fileMkfs)
		}
		d.o.Log.Warn("a mirror disk could not be mounted", "resource", m.name, "mount", md.Mount, "try", try+1, "error", err)
	}
	return fmt.Errorf("mount mirror disk %s (%s, %s) at %s: %w%s", m.name, device, md.FS, md.Mount, err, mountHint(err, md, device))
}

// mountHint says what can be done where the kernel does not mount.
func mountHint(err error, md *config.MirrorDisk, device string) string {
	switch {
	case errors.Is(err, syscall.EUCLEAN) && md.FS == config.FSXFS:
		return "; the file system is damaged: repair it by hand with xfs_repair " + device
	case errors.Is(err, syscall.EUCLEAN):
		return "; the file system is damaged: repair it by hand with e2fsck " + device
	case errors.Is(err, syscall.EINVAL):
		return fmt.Sprintf("; there may be no %s on it (mkfs: true makes one when the mirror disk is constructed), or mount_options has one that it does not know", md.FS)
	case errors.Is(err, syscall.ENODEV):
		return fmt.Sprintf("; the kernel of this node has no %s", md.FS)
	}
	return ""
}

// free says whether the file system is at its mount point already. It is an error
// if something else is.
func (d *Driver) free(t resource.Task, number uint64) (there bool, err error) {
	at, err := d.sys.mounted(t.Resource.MirrorDisk.Mount)
	switch {
	case err != nil || at == nil:
		return false, err
	case at.number == number:
		return true, nil
	}
	return false, fmt.Errorf("%s is mounted at %s, where mirror disk %s belongs: unmount it, and take it out of /etc/fstab", at.source, at.point, t.Resource.Name)
}

// mountPoint makes the mount point where there is none.
func (d *Driver) mountPoint(t resource.Task) error {
	path := t.Resource.MirrorDisk.Mount
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("make the mount point of mirror disk %s: %w", t.Resource.Name, err)
		}
		d.notice(t.Group.Name, t.Resource.Name, cluster.LevelInfo, "mount-point-made", t.Cause, "The directory %s did not exist on %s and has been made: mirror disk %s is mounted there.", path, t.Node, t.Resource.Name)
	case err != nil:
		return fmt.Errorf("look at the mount point of mirror disk %s: %w", t.Resource.Name, err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory: mirror disk %s cannot be mounted there", path, t.Resource.Name)
	}
	return nil
}

// ofFstab are mount options that mean something to mount(8) and /etc/fstab only.
var ofFstab = []string{"defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "group"}

// kernelOptions leaves out what the kernel does not know.
func kernelOptions(options string) string {
	var keep []string
	for o := range strings.SplitSeq(options, ",") {
		o = strings.TrimSpace(o)
		if o != "" && !slices.Contains(ofFstab, o) && !strings.HasPrefix(o, "x-") && !strings.HasPrefix(o, "comment=") {
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

// program finds a program of the system.
func program(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed here: %w", name, os.ErrNotExist)
}

// run runs a program that uses the device. When ctx ends it returns at once: an
// isolation may be waiting, and the program for the device. It is ended meanwhile, and
// the next call of the kernel waits for it.
func (d *Driver) run(ctx context.Context, m *mirror, name string, args ...string) (script.Result, error) {
	var r script.Result
	err := m.kernel.call(ctx, longest, func() (err error) {
		r, err = d.sys.run(ctx, m.logFile(), name, args...)
		return err
	})
	if err != nil {
		return script.Result{}, err
	}
	return r, nil
}

// mkfs makes a file system where the mirror disk has just been constructed, the
// file asks for it, and nothing is there.
func (d *Driver) mkfs(ctx context.Context, m *mirror, t resource.Task, device string) (made bool, err error) {
	md := t.Resource.MirrorDisk
	if _, err := os.Stat(m.file(fileMkfs)); err != nil || !md.Mkfs {
		return false, nil
	}
	// blkid(8): -p looks at the device itself; 0 tells what is there, 2 that nothing
	// known is, 8 that several things may be.
	r, err := d.run(ctx, m, "blkid", "-p", device)
	switch {
	case err != nil:
		return false, fmt.Errorf("look whether a file system is on mirror disk %s before one is made: %w", m.name, err)
	case r.ExitCode == 0 || r.ExitCode == 8:
		d.notice(t.Group.Name, m.name, cluster.LevelInfo, "mkfs-not-needed", t.Cause, "No file system is made on mirror disk %s: there is something already (%s).", m.name, r.LastLine())
		return false, nil
	case r.ExitCode != 2:
		return false, fmt.Errorf("look whether a file system is on mirror disk %s before one is made: blkid: %w (%s)", m.name, r.Err(), r.LastLine())
	}
	r, err = d.run(ctx, m, "mkfs."+md.FS, "-q", device)
	if err == nil && r.Err() != nil {
		err = fmt.Errorf("%w (%s)", r.Err(), r.LastLine())
	}
	if err != nil {
		return false, fmt.Errorf("make a file system on mirror disk %s: mkfs.%s: %w", m.name, md.FS, err)
	}
	d.notice(t.Group.Name, m.name, cluster.LevelInfo, "mkfs-done", t.Cause, "Mirror disk %s has a new file system (%s).", m.name, md.FS)
	return true, nil
}

// fsck checks the file system as the file says.
func (d *Driver) fsck(ctx context.Context, t resource.Task, device string) error {
	md := t.Resource.MirrorDisk
	m := d.mirror(t.Resource.Name)
	log := m.logFile()
	switch {
	case md.Fsck == config.FsckNever:
		return nil
	case md.FS == config.FSXFS && md.Fsck == config.FsckAuto:
		return nil // it never asks for a check, and mounting it replays its log
	case md.FS == config.FSXFS:
		r, err := d.run(ctx, m, "xfs_repair", "-n", device)
		if err != nil {
			return fmt.Errorf("look at the file system of mirror disk %s: %w", t.Resource.Name, err)
		}
		if r.Err() != nil { // it may be a log that has to be replayed: mounting tells
			d.notice(t.Group.Name, t.Resource.Name, cluster.LevelWarn, "fsck-found", t.Cause, "xfs_repair -n has found something on mirror disk %s (%v); nothing was changed, see %s.", t.Resource.Name, r.Err(), log.Path)
		}
		return nil
	}
	args := []string{"-p", device} // checks where it is due, replays the journal, repairs what is safe
	if md.Fsck == config.FsckAlways {
		args = []string{"-p", "-f", device}
	}
	r, err := d.run(ctx, m, "e2fsck", args...)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("check the file system of mirror disk %s: %w; install e2fsprogs, or write fsck: never", t.Resource.Name, err)
	}
	if err != nil {
		return fmt.Errorf("check the file system of mirror disk %s: %w", t.Resource.Name, err)
	}
	return d.judgeFsck(t, device, r, log)
}

// judgeFsck reads the exit code of e2fsck(8), a sum of bits: 1 errors were
// corrected, 2 the system should be rebooted, 4 errors were left, 8 it could not
// work, 16 and 32 it was used wrongly or stopped.
func (d *Driver) judgeFsck(t resource.Task, device string, r script.Result, log script.Log) error {
	switch {
	case r.ExitCode == 0:
		return nil
	case r.ExitCode == 1:
		d.notice(t.Group.Name, t.Resource.Name, cluster.LevelWarn, "fsck-corrected", t.Cause, "e2fsck has corrected the file system of mirror disk %s, see %s.", t.Resource.Name, log.Path)
		return nil
	case r.ExitCode > 0 && r.ExitCode < 4:
		return fmt.Errorf("e2fsck has corrected the file system of mirror disk %s and says that %s should be rebooted before it is used: start the group again after that", t.Resource.Name, t.Node)
	case r.ExitCode > 0 && r.ExitCode&4 != 0:
		return fmt.Errorf("the file system of mirror disk %s has errors that e2fsck -p does not correct (%s, see %s): repair it by hand with fs: none, which leaves the device at %s/%s: e2fsck %s",
			t.Resource.Name, r.LastLine(), log.Path, d.o.Links, t.Resource.Name, filepath.Join(d.o.Links, string(t.Resource.Name)))
	}
	return fmt.Errorf("e2fsck cannot check mirror disk %s (%s): %w, its last words: %s; is there a file system on it? mkfs: true makes one when the mirror disk is constructed", t.Resource.Name, device, r.Err(), r.LastLine())
}

package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
)

// stuckAfter is how long the processes of a machine may take to end by
// themselves when its power goes.
const stuckAfter = 300 * time.Millisecond

// gone waits until the processes of a machine that was killed are gone. One that
// waits for a FUSE server of the machine, and itself keeps the kernel from seeing
// that there is none any more, would wait for ever: a server that closes a file of
// its own mount, or a process that holds the connection for one.
func (s *supervisor) gone(m *unit) error {
	select {
	case <-m.ended:
		return nil
	case <-time.After(stuckAfter):
	}
	if err := s.endFUSE(m); err != nil {
		s.log.Error("end what waits for a FUSE server", "machine", m.spec.Name, "error", err)
	}
	select {
	case <-m.ended:
		return nil
	case <-time.After(endWithin):
		return fmt.Errorf("%s does not end: a process of it is stuck in the kernel", m.spec.Name)
	}
}

// endFUSE makes everything fail that waits for a FUSE server of a machine. It
// looks only for connections that something of the machine still has, since a
// number that is free may be given to somebody else.
func (s *supervisor) endFUSE(m *unit) error {
	outer, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer outer.Close()
	inner, err := openMounts(m.mounts)
	if err != nil {
		return fmt.Errorf("look at the mounts of %s: %w", m.spec.Name, err)
	}
	defer inner.Close()
	ours := fuseMounts(outer) // the real machine's show in machines too
	theirs := slices.DeleteFunc(fuseMounts(inner), func(n uint32) bool { return slices.Contains(ours, n) })
	if s.group != "" {
		theirs = append(theirs, fuseHeld(s.group.child(m.spec.Name))...)
	}
	if len(theirs) > 0 {
		s.log.Warn("a FUSE server does not end by itself", "machine", m.spec.Name, "connections", theirs)
	}
	return abortFUSE(theirs)
}

func abortFUSE(connections []uint32) error {
	var errs []error
	for _, n := range connections {
		errs = append(errs, keep.Abort(n))
	}
	return errors.Join(errs...)
}

// fuseHeld returns the connections that processes of a cgroup have open, also
// those with no thread but one that cannot end. Old kernels do not tell.
func fuseHeld(c cgroup) (connections []uint32) {
	for _, pid := range c.processes() {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/fd/*", pid))
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err != nil || !strings.HasPrefix(to, "/dev/fuse") {
				continue
			}
			info, err := os.ReadFile(filepath.Join(filepath.Dir(fd)+"info", filepath.Base(fd)))
			if err != nil {
				continue // closed meanwhile
			}
			for line := range strings.Lines(string(info)) {
				var n uint32
				if _, err := fmt.Sscanf(line, "fuse_connection: %d", &n); err == nil && !slices.Contains(connections, n) {
					connections = append(connections, n)
				}
			}
		}
	}
	return connections
}

// openMounts opens the mountinfo of a mount namespace, also of one without
// processes. The thread that enters it never comes back.
func openMounts(ns *os.File) (f *os.File, err error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // until the end of the goroutine: the thread ends with it
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return
		}
		var fd int
		if fd, err = unix.Openat(int(proc.Fd()), "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			f = os.NewFile(uintptr(fd), "mountinfo")
		}
	}()
	<-done
	return f, err
}

// fuseMounts returns the connections of the FUSE mounts in a mountinfo: the
// minors of their devices. (fuseblk, with a real device, is nothing of a lab's.)
func fuseMounts(mountinfo io.Reader) (connections []uint32) {
	for s := bufio.NewScanner(mountinfo); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		kind, _, _ := strings.Cut(after, " ")
		if len(fields) < 3 || kind != "fuse" && !strings.HasPrefix(kind, "fuse.") {
			continue
		}
		var n uint32
		if _, err := fmt.Sscanf(fields[2], "0:%d", &n); err == nil {
			connections = append(connections, n)
		}
	}
	return connections
}

package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fuseControl is where the kernel lets one end what is mounted through
// /dev/fuse, by the number of the connection.
const fuseControl = "/sys/fs/fuse/connections"

// stuckAfter is how long the processes of a machine may take to end by
// themselves when its power goes.
const stuckAfter = 300 * time.Millisecond

// gone waits until the processes of a machine that was killed are gone. A FUSE
// server that has a file of its own mount open waits for itself when it closes
// it, for ever; but nobody waits for a machine without power.
func (s *supervisor) gone(m *unit) error {
	select {
	case <-m.ended:
		return nil
	case <-time.After(stuckAfter):
	}
	err := s.endFUSE(m)
	select {
	case <-m.ended:
		return err
	case <-time.After(endWithin):
		return errors.Join(err, fmt.Errorf("%s does not end: a process of it is stuck in the kernel", m.spec.Name))
	}
}

// endFUSE makes everything fail that waits for a FUSE server of a machine.
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
	ours := map[uint64]bool{} // the real machine's show in machines too
	for _, n := range fuseMounts(outer) {
		ours[n] = true
	}
	var errs []error
	for _, n := range fuseMounts(inner) {
		if ours[n] {
			continue
		}
		s.log.Warn("a FUSE server does not end by itself", "machine", m.spec.Name, "connection", n)
		err := os.WriteFile(filepath.Join(fuseControl, strconv.FormatUint(n, 10), "abort"), []byte("1"), 0)
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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

// fuseMounts returns the connections of the FUSE mounts in a mountinfo: their
// devices, as the kernel counts them.
func fuseMounts(mountinfo io.Reader) (connections []uint64) {
	for s := bufio.NewScanner(mountinfo); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		kind, _, _ := strings.Cut(after, " ")
		if len(fields) < 3 || kind != "fuse" && kind != "fuseblk" && !strings.HasPrefix(kind, "fuse.") {
			continue
		}
		var major, minor uint64
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err == nil {
			connections = append(connections, major<<20|minor)
		}
	}
	return connections
}

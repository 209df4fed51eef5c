package mirrordisk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

const (
	termAfter  = 5 * time.Second        // that processes are given to end after SIGTERM
	killAfter  = 2 * time.Second        // and after SIGKILL, until the kernel has let go of their files
	holderLook = 100 * time.Millisecond // between two looks whether they have
	mostNamed  = 5                      // processes in a sentence
)

// holder is a process that keeps a file system or a block device in use.
type holder struct {
	pid   int
	start string // field 22 of /proc/PID/stat: it tells processes with the same number apart
	name  string
	what  string // that it has there: a directory, an open file, or "" where it only sees the mount in a namespace of its own
}

func (h holder) String() string {
	if h.what == "" {
		return fmt.Sprintf("process %d (%s), which has it mounted in a namespace of its own", h.pid, h.name)
	}
	return fmt.Sprintf("process %d (%s) by %s", h.pid, h.name, h.what)
}

// naming puts holders into words.
func naming(hs []holder) string {
	if len(hs) == 0 {
		return "nobody that can be seen, perhaps the kernel: a loop or swap device, or an NFS export"
	}
	var names []string
	for _, h := range hs[:min(len(hs), mostNamed)] {
		names = append(names, h.String())
	}
	if more := len(hs) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// holders looks at all processes, as fuser(1) does: their directories, programs,
// open files, and what they have mapped. Processes that end meanwhile are left out.
func (linux) holders(number uint64) (out []holder, err error) {
	if number == 0 {
		return nil, nil
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		name, start, dir, ok := living(dir)
		if !ok {
			continue
		}
		if what, uses := usedBy(dir, number); uses {
			out = append(out, holder{pid: pid, start: start, name: name, what: what})
		}
	}
	return out, nil
}

// usedBy says what a process has of a device.
func usedBy(dir string, number uint64) (what string, uses bool) {
	links := []string{dir + "/cwd", dir + "/root", dir + "/exe"}
	fds, _ := filepath.Glob(dir + "/fd/*") // unreadable where the process has ended
	for _, l := range append(links, fds...) {
		var st unix.Statx_t // what the kernel has at hand: a file server that is gone must not hold this up
		if unix.Statx(unix.AT_FDCWD, l, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st) != nil {
			continue
		}
		on, is := unix.Mkdev(st.Dev_major, st.Dev_minor), unix.Mkdev(st.Rdev_major, st.Rdev_minor)
		if on == number || st.Mode&unix.S_IFMT == unix.S_IFBLK && is == number {
			to, _ := os.Readlink(l)
			return to, true
		}
	}
	if path, mapped := mapsOn(dir, number); mapped {
		return path, true
	}
	return "", mountsOn(dir, number)
}

// mapsOn looks for a file of the device in /proc/PID/maps, whose fourth field is its
// device and whose sixth its path, see proc(5).
func mapsOn(dir string, number uint64) (path string, ok bool) {
	want := fmt.Sprintf("%02x:%02x", unix.Major(number), unix.Minor(number))
	f, err := os.Open(dir + "/maps")
	if err != nil {
		return "", false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 5 && fields[3] == want {
			return fields[5], true
		}
	}
	return "", false
}

// mountsOn looks whether a process in another mount namespace has the device
// mounted, which keeps it in use after it was unmounted here.
func mountsOn(dir string, number uint64) bool {
	ours, err := os.Readlink("/proc/self/ns/mnt")
	theirs, gone := os.Readlink(dir + "/ns/mnt")
	if err != nil || gone != nil || ours == theirs {
		return false
	}
	want := fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
	f, err := os.Open(dir + "/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 2 && fields[2] == want {
			return true
		}
	}
	return false
}

// living returns the name and the start of a process of which anything lives, and where
// to look at it. After its first thread has ended, be it by a signal, another one may
// wait for a disk, and has all that it had open.
func living(dir string) (name, start, at string, ok bool) {
	if name, start, ok = processOf(dir); ok {
		return name, start, dir, true
	}
	threads, _ := filepath.Glob(dir + "/task/[0-9]*")
	for _, at := range threads {
		if name, start, ok = processOf(at); ok {
			return name, start, at, true
		}
	}
	return "", "", "", false
}

// processOf returns the name and the start of a process, or a thread, that lives.
func processOf(dir string) (name, start string, ok bool) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return "", "", false
	}
	open, end := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')')
	if open < 0 || end < open {
		return "", "", false
	}
	fields := strings.Fields(string(b[end+1:])) // from the third on
	if len(fields) < 20 || fields[0] == "Z" {
		return "", "", false
	}
	return string(b[open+1 : end]), fields[19], true
}

func (linux) signal(h holder, s unix.Signal) error {
	fd, err := unix.PidfdOpen(h.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find process %d: %w", h.pid, err)
	}
	defer unix.Close(fd)
	if _, start, _, ok := living("/proc/" + strconv.Itoa(h.pid)); !ok || start != h.start {
		return nil // the number is another's now
	}
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end process %d: %w", h.pid, err)
	}
	return nil
}

// users returns those who hold the device, but for its own keeper, which has it open as
// long as it is there.
func (d *Driver) users(e *ending) ([]holder, error) {
	hs, err := d.sys.holders(e.was.Number)
	keeper := 0
	if err == nil {
		keeper, err = lockHolder(e.file(control.FileKeeper))
	}
	if err != nil {
		return nil, fmt.Errorf("find out who holds it: %w", err)
	}
	return slices.DeleteFunc(hs, func(h holder) bool { return h.pid == keeper }), nil
}

// evict sends a signal to all processes that hold the device, and waits until they
// have let go. It returns those that it met and those that are left.
func (d *Driver) evict(ctx context.Context, e *ending, s unix.Signal, limit time.Duration) (met, left []holder, err error) {
	met, err = d.users(e)
	if err != nil {
		return nil, nil, err
	}
	sent := false
	for _, h := range met {
		if h.what == "" || h.pid <= 1 { // not ours to end
			continue
		}
		if err := d.sys.signal(h, s); err != nil {
			return met, met, err
		}
		sent = true
	}
	if left = met; !sent {
		return met, left, nil
	}
	for until := time.Now().Add(limit); len(left) > 0 && time.Now().Before(until) && wait(ctx, holderLook); {
		if left, err = d.users(e); err != nil {
			return met, nil, err
		}
	}
	return met, left, nil
}

// tellEvicted writes down who was ended.
func (d *Driver) tellEvicted(t resource.Task, met []holder, how string) {
	if len(met) == 0 {
		return
	}
	d.notice(t.Group.Name, t.Resource.Name, cluster.LevelWarn, "resource-killed", t.Cause, "Mirror disk %s was still in use when it was stopped, and its users were sent %s: %s.", t.Resource.Name, how, naming(met))
}

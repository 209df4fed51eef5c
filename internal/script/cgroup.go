package script

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Every program gets a control group of its own below that of this process:
// tasuki-PID-NUMBER, PID that of this process.
const cgroupPrefix = "tasuki-"

// cgroupBase is where control groups can be made, or "" if they cannot.
var cgroupBase = sync.OnceValue(func() string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	mount := cgroupMount(mounts)
	base := filepath.Join(mount, cgroupPath(own))
	probe := filepath.Join(base, fmt.Sprintf("%s%d-probe", cgroupPrefix, os.Getpid()))
	if mount == "" || os.Mkdir(probe, 0o755) != nil {
		return ""
	}
	defer func() { _ = os.Remove(probe) }()
	if unix.Access(probe+"/cgroup.kill", unix.W_OK) != nil {
		return "" // a kernel before 5.14
	}
	sweepCgroups(base)
	return base
})

// cgroupMount is the mount point of the version 2 hierarchy in mountinfo, or "".
func cgroupMount(mountinfo []byte) string {
	for line := range bytes.Lines(mountinfo) {
		before, after, ok := strings.Cut(string(line), " - ")
		f := strings.Fields(before)
		if ok && len(f) >= 6 && strings.HasPrefix(after, "cgroup2 ") && strings.HasPrefix(f[5], "rw") {
			return f[4]
		}
	}
	return ""
}

// cgroupPath is the path of the version 2 hierarchy in /proc/self/cgroup.
func cgroupPath(own []byte) string {
	s := bufio.NewScanner(bytes.NewReader(own))
	for s.Scan() {
		if p, ok := strings.CutPrefix(s.Text(), "0::"); ok {
			return filepath.Join("/", p) // ".." of a foreign namespace cannot lead out
		}
	}
	return ""
}

// sweepCgroups removes what earlier lives left and nobody uses.
func sweepCgroups(base string) {
	old, _ := filepath.Glob(filepath.Join(base, cgroupPrefix+"*-*"))
	for _, dir := range old {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && unix.Kill(pid, 0) == unix.ESRCH {
			_ = os.Remove(dir) // fails while somebody is in it
		}
	}
}

var cgroupCount atomic.Uint64

// newCgroup makes an empty control group and opens it; nil if that cannot be.
func newCgroup(off bool) *os.File {
	base := cgroupBase()
	if base == "" || off {
		return nil
	}
	dir := filepath.Join(base, fmt.Sprintf("%s%d-%d", cgroupPrefix, os.Getpid(), cgroupCount.Add(1)))
	if os.Mkdir(dir, 0o755) != nil {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		_ = os.Remove(dir)
		return nil
	}
	return f
}

// leftovers are control groups in which a daemon lived on, at most maxLeftovers;
// more of them stay until the next life of this program sweeps them.
var leftovers struct {
	sync.Mutex
	dirs []string
}

const maxLeftovers = 256

// dropCgroup removes the control group, now or, if somebody is in it, later.
func dropCgroup(dir string) {
	leftovers.Lock()
	defer leftovers.Unlock()
	if dir != "" && len(leftovers.dirs) < maxLeftovers {
		leftovers.dirs = append(leftovers.dirs, dir)
	}
	kept := leftovers.dirs[:0]
	seen := map[string]bool{}
	for _, d := range leftovers.dirs {
		if err := os.Remove(d); err != nil && !os.IsNotExist(err) && !seen[d] {
			kept = append(kept, d)
			seen[d] = true
		}
	}
	leftovers.dirs = kept
}

package lab_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab"
)

// xfsFile is the business on xfs. Both copies have the file system's UUID, and here
// one kernel mounts both: that of a machine that has crashed may not be gone yet.
var xfsFile = strings.Replace(mirrorFile, "fs: ext3", "fs: xfs, mount_options: nouuid", 1)

// larger gives the data devices that much room.
func larger(size lab.Size) func(*lab.Layout) {
	return func(l *lab.Layout) {
		for i := range l.Machines {
			for k := range l.Machines[i].Disks {
				if d := &l.Machines[i].Disks[k]; d.Name == "sda4" {
					d.Size = size
				}
			}
		}
	}
}

// xfs on a mirror disk: mkfs by the file, a crash of the active node under writes,
// whose log the other one replays, and both copies whole at the end. mkfs.xfs makes
// none of less than 300 MB.
func TestMirrorXFS(t *testing.T) {
	s, w := mirrored(t, xfsFile, larger(320<<20))
	begun := time.Now()
	goesOn(t, w)
	active := string(s.Active(t.Context(), "n1"))
	must(t, s.Lab.Kill(t.Context(), active))
	goesOn(t, w)
	activeOn(t, s, other(cluster.NodeName(active)))
	must(t, s.Lab.Boot(t.Context(), active))
	written(t, s, w, begun)
}

// The process that serves has next to no memory to spare, in a memory cgroup, while
// a program dirties many times as much on the mirror disk. With MEMORY, which says how
// many MiB it has beyond what it had before, since that makes a cgroup of the machine
// that the lab runs on. That the program is in the same
// cgroup is tried in a guest: here the process may not be allowed to count as one that
// frees memory.
func TestMirrorWithoutMemory(t *testing.T) {
	limit, err := strconv.Atoi(os.Getenv("MEMORY"))
	if err != nil {
		t.Skip("makes a memory cgroup of this machine: MEMORY=40 runs it")
	}
	limit <<= 20
	s, w := mirrored(t, mirrorFile)
	begun := time.Now()
	goesOn(t, w)
	active := string(s.Active(t.Context(), "n1"))
	const dirties = 192 << 20
	name := fmt.Sprintf("/tasuki-test-%d", os.Getpid())
	group := "/mnt" + name
	do(t, s, active, "mount", "-t", "cgroup", "-o", "memory", "none", "/mnt")
	do(t, s, active, "mkdir", group)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Lab.Kill(ctx, active) // off already, if all went well
		must(t, s.Until(ctx, "the cgroup is empty", func() (bool, error) { return os.Remove("/sys/fs/cgroup/memory"+name) == nil, nil }))
	}()
	do(t, s, active, "sh", "-ec", fmt.Sprintf("echo %d >%s/memory.limit_in_bytes; for p in $(pgrep -f 'mirror serve'); do echo $p >%s/cgroup.procs; done", limit, group, group))
	serves := do(t, s, active, "cat", group+"/cgroup.procs")
	for range 3 {
		from := time.Now()
		do(t, s, active, "dd", "if=/dev/zero", "of=/data/filler", "bs=1M", fmt.Sprint("count=", dirties>>20), "conv=fsync", "status=none")
		took := time.Since(from)
		goesOn(t, w)
		t.Logf("%d MiB in %v, %.0f MiB/s; %s bytes at most were used, the limit was reached %s times", dirties>>20, took.Round(time.Millisecond), float64(dirties>>20)/took.Seconds(),
			strings.TrimSpace(do(t, s, active, "cat", group+"/memory.max_usage_in_bytes")), strings.TrimSpace(do(t, s, active, "cat", group+"/memory.failcnt")))
	}
	if now := do(t, s, active, "cat", group+"/cgroup.procs"); now != serves {
		t.Errorf("the process %q did not live through it: %q", serves, now)
	}
	do(t, s, active, "rm", "/data/filler")
	written(t, s, w, begun)
}

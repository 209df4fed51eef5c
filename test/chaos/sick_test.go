package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// stateSize is the disk for the state of each machine, in bytes.
const stateSize = 16 << 20

// What a machine lacks; $1 is its daemon.
const (
	fill    = `head -c 1G /dev/zero >/var/lib/tasuki/fill 2>/dev/null; true`
	unfill  = `rm -f /var/lib/tasuki/fill`
	noFiles = `exec prlimit --pid "$1" --nofile="$(ls /proc/"$1"/fd | wc -l)":`
	files   = `exec prlimit --pid "$1" --nofile="$(ulimit -Hn)":`
	// A file system that is written to cannot become read-only at once: the
	// daemon is killed, and finds it so when it starts anew.
	readOnly = `kill -KILL "$1"
n=0
until mount -o remount,bind,ro /var/lib/tasuki 2>/dev/null; do
	n=$((n + 1))
	[ $n -ge 500 ] && exit 1
	sleep 0.01
done`
	readWrite = `mount -o remount,bind,rw /var/lib/tasuki`
	// What throttle has done.
	anyRate = `for n in eth0 eth1; do tc qdisc del dev $n root 2>/dev/null; done; true`
)

// errNotHere is a fault that cannot be made on this machine.
var errNotHere = errors.New("cannot be had on this machine")

// sicken lets a machine's daemon lack something.
func (c *chaos) sicken(f *fault, name string) {
	sh := func(text string) func(context.Context) error {
		return func(ctx context.Context) error {
			svc, err := c.Lab.Service(ctx, name, "status")
			if err == nil {
				_, err = c.Do(ctx, name, "sh", "-c", text, "sh", strconv.Itoa(svc.PID))
			}
			return err
		}
	}
	switch f.kind {
	case "disk full":
		// A node that writes nothing does not notice, so all are made to write.
		f.begin = func(ctx context.Context) error {
			return errors.Join(sh(fill)(ctx), c.apply(ctx, c.members[c.other(f.member, 1)], 5000))
		}
		f.end = sh(unfill)
	case "read-only":
		f.begin, f.end = sh(readOnly), sh(readWrite)
	case "files":
		f.begin, f.end = sh(noFiles), sh(files)
	case "memory":
		c.limit(f, name, "memory", func(dir string, pid int) error {
			if f.all { // the daemon exempts itself from the killer where it may, and then stands still
				if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("0"), 0); err != nil {
					return err
				}
			}
			// What it has is not counted here: so much more it may have.
			return os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte("256K"), 0)
		})
		lacks, undo := f.begin, f.end
		f.begin = func(ctx context.Context) error { // a large file makes all nodes want more
			return errors.Join(lacks(ctx), c.apply(ctx, c.members[c.other(f.member, 1)], 5000))
		}
		f.end = func(ctx context.Context) error {
			c.sayMemory(name)
			return undo(ctx)
		}
	case "processes":
		c.limit(f, name, "pids", func(dir string, _ int) error {
			now, err := os.ReadFile(filepath.Join(dir, "pids.current"))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "pids.max"), now, 0)
		})
	}
	undo := f.end
	f.end = func(ctx context.Context) error {
		if svc, err := c.Lab.Service(ctx, name, "status"); err == nil {
			c.say("  %s: daemon %s; %d crashes since the boot", name, svc.Why, svc.Crashes)
		}
		return undo(ctx)
	}
}

// controlGroup is where the groups of a controller are, and the one of a machine.
func controlGroup(controller, name string) (top, dir string) {
	top = filepath.Join("/sys/fs/cgroup", controller)
	return top, filepath.Join(top, fmt.Sprintf("tasuki-chaos-%d-%s", os.Getpid(), name))
}

// sayMemory says whether the limit of a machine's daemon was met, and what the
// kernel did.
func (c *chaos) sayMemory(name string) {
	_, dir := controlGroup("memory", name)
	met, err := os.ReadFile(filepath.Join(dir, "memory.failcnt"))
	did, err2 := os.ReadFile(filepath.Join(dir, "memory.oom_control"))
	if err := errors.Join(err, err2); err != nil {
		return // it could not be had
	}
	c.say("  %s: the limit was met %s times; %s", name, strings.TrimSpace(string(met)), strings.Join(strings.Split(strings.TrimSpace(string(did)), "\n"), ", "))
}

// limit puts a machine's daemon into a group of control of its own.
func (c *chaos) limit(f *fault, name, controller string, set func(dir string, pid int) error) {
	top, dir := controlGroup(controller, name)
	procs := func(d string) string { return filepath.Join(d, "cgroup.procs") }
	f.begin = func(ctx context.Context) error {
		if _, err := os.Stat(procs(top)); err != nil {
			return fmt.Errorf("the controller %s of version 1: %w", controller, errNotHere)
		}
		pid, err := c.outerPID(ctx, name)
		if err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(procs(dir), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
		return set(dir, pid)
	}
	f.end = func(context.Context) error {
		left, err := os.ReadFile(procs(dir))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		for _, pid := range strings.Fields(string(left)) {
			os.WriteFile(procs(top), []byte(pid), 0) // one that has ended is no matter
		}
		return os.Remove(dir)
	}
}

// outerPID is the process id of a machine's daemon as it is seen from outside.
func (c *chaos) outerPID(ctx context.Context, name string) (int, error) {
	svc, err := c.Lab.Service(ctx, name, "status")
	if err != nil {
		return 0, err
	}
	info, err := c.Lab.Machine(ctx, name)
	if err != nil {
		return 0, err
	}
	within, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", info.PID))
	if err != nil {
		return 0, err
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		pid := p.Name()
		if ns, _ := os.Readlink("/proc/" + pid + "/ns/pid"); ns != within {
			continue
		}
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" && f[len(f)-1] == strconv.Itoa(svc.PID) {
				return strconv.Atoi(pid)
			}
		}
	}
	return 0, fmt.Errorf("the daemon of %s is not to be seen from outside", name)
}

// cure undoes what sicken and throttle may have left.
func (c *chaos) cure(ctx context.Context, name string) error {
	_, err := c.Do(ctx, name, "sh", "-c", unfill+" && "+readWrite+" && "+anyRate)
	return err
}

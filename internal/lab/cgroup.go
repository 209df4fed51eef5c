package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is a directory of the cgroup v2 hierarchy, or "" where none can be
// made: then everything works but by process, not at one stroke.
type cgroup string

// labCgroup returns the cgroup of a lab, made or not.
func labCgroup(dir string) cgroup {
	root := cgroupRoot()
	if root == "" {
		return ""
	}
	h := fnv.New32a()
	h.Write([]byte(dir))
	return cgroup(filepath.Join(root, "tasuki-lab", fmt.Sprintf("%s-%08x", filepath.Base(dir), h.Sum32())))
}

// cgroupRoot is where cgroup v2 is mounted; "" is nowhere.
func cgroupRoot() string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4]
		}
	}
	return ""
}

// child makes the cgroup of that name below this one; "" if it cannot.
func (c cgroup) child(name string) cgroup {
	if c == "" {
		return ""
	}
	dir := filepath.Join(string(c), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return ""
	}
	return cgroup(dir)
}

// freeze stops or continues every process of the cgroup and waits until it has
// happened.
func (c cgroup) freeze(ctx context.Context, on bool) error {
	v := "0"
	if on {
		v = "1"
	}
	if err := os.WriteFile(filepath.Join(string(c), "cgroup.freeze"), []byte(v), 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		data, err := os.ReadFile(filepath.Join(string(c), "cgroup.events"))
		return strings.Contains(string(data), "frozen "+v), err
	})
}

// end kills every process of the cgroup and below, and removes it when they
// are gone.
func (c cgroup) end(ctx context.Context) error {
	if c == "" {
		return nil
	}
	if _, err := os.Stat(string(c)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := c.kill(); err != nil {
		return err
	}
	err := poll(ctx, func() (bool, error) {
		data, err := os.ReadFile(filepath.Join(string(c), "cgroup.events"))
		return strings.Contains(string(data), "populated 0"), err
	})
	if err != nil {
		return fmt.Errorf("processes of %s do not end: %w", c, err)
	}
	return poll(ctx, func() (bool, error) { return c.remove(), nil })
}

// kill kills all processes below, also on kernels without cgroup.kill. Some
// kernels then kill whatever is cloned into the cgroup later, so it must not be
// used again.
func (c cgroup) kill() error {
	if err := os.WriteFile(filepath.Join(string(c), "cgroup.kill"), []byte("1"), 0); err == nil {
		return nil
	}
	for _, pid := range c.processes() {
		if pid > 1 {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	return nil
}

// processes returns what is in the cgroup and below.
func (c cgroup) processes() (pids []int) {
	filepath.WalkDir(string(c), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // it went meanwhile
		}
		data, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, f := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// remove removes the directories, the deepest first, and the common parent of
// all labs with the last one.
func (c cgroup) remove() bool {
	entries, _ := os.ReadDir(string(c))
	for _, e := range entries {
		if e.IsDir() {
			cgroup(filepath.Join(string(c), e.Name())).remove()
		}
	}
	if err := os.Remove(string(c)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if parent := filepath.Dir(string(c)); filepath.Base(parent) == "tasuki-lab" {
		os.Remove(parent)
	}
	return true
}

// poll asks every 2 ms until done, an error, or the end of ctx.
func poll(ctx context.Context, done func() (bool, error)) error {
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
)

// How long down waits for a supervisor to say that it heard, for it to be gone,
// and for processes that were killed.
const (
	hearsWithin = 2 * time.Second
	downWithin  = 15 * time.Second
	killsWithin = 10 * time.Second
)

// Down removes the lab of that name, in whatever state it is: it asks the
// supervisor, and takes away by itself what is left.
func Down(ctx context.Context, name string) error {
	d, err := dirOf(name)
	if err != nil {
		return err
	}
	_, dirErr := os.Stat(string(d))
	_, groupErr := os.Stat(string(labCgroup(string(d))))
	if errors.Is(dirErr, fs.ErrNotExist) && (errors.Is(groupErr, fs.ErrNotExist) || labCgroup(string(d)) == "") {
		return noLab(name)
	}
	lock, err := d.hold()
	if errors.Is(err, errHeld) {
		lock, err = d.evict(ctx)
	}
	if err != nil {
		return fmt.Errorf("take down lab %s: %w", name, err)
	}
	defer lock.Close()
	return clear(ctx, d)
}

// DownAll removes every lab that there is.
func DownAll(ctx context.Context) error {
	var errs []error
	for _, n := range Names() {
		errs = append(errs, Down(ctx, n))
	}
	return errors.Join(errs...)
}

func noLab(name string) error {
	hint := "start one with tasuki lab up"
	if names := Names(); len(names) > 0 {
		hint = "there is " + strings.Join(names, ", ")
	}
	return &api.Error{Code: "no-lab", Message: fmt.Sprintf("there is no lab %q", name), Hint: hint}
}

// evict makes the supervisor go, and takes the lab when it has.
func (d dir) evict(ctx context.Context) (lock *os.File, err error) {
	hears, cancel := context.WithTimeout(ctx, hearsWithin)
	defer cancel()
	if _, err := d.ask(hears, ask{Op: "down"}); err == nil {
		asked, cancel := context.WithTimeout(ctx, downWithin)
		defer cancel()
		if lock, err := d.waitHold(asked, func() {}); err == nil {
			return lock, nil
		}
	}
	killed, cancel := context.WithTimeout(ctx, killsWithin)
	defer cancel()
	return d.waitHold(killed, func() { killMarked(d) })
}

// waitHold takes the lab as soon as it is free, and does push until then: what
// was being started shows itself only when it runs.
func (d dir) waitHold(ctx context.Context, push func()) (lock *os.File, err error) {
	err = poll(ctx, func() (bool, error) {
		push()
		var e error
		lock, e = d.hold()
		if errors.Is(e, errHeld) {
			return false, nil
		}
		return true, e
	})
	return lock, err
}

// clear removes everything of a lab that has no supervisor. The caller holds
// the lab.
func clear(ctx context.Context, d dir) error {
	ctx, cancel := context.WithTimeout(ctx, killsWithin)
	defer cancel()
	err := poll(ctx, func() (bool, error) { return killMarked(d) == 0, nil })
	if err != nil {
		return fmt.Errorf("processes of lab %s do not end: %v", d.name(), marked(d))
	}
	if err := endProcesses(ctx, d); err != nil {
		return err
	}
	if poll(ctx, func() (bool, error) { return releaseBlocks(d) == 0, nil }) != nil {
		return fmt.Errorf("a loop device of lab %s does not go: somebody uses it", d.name())
	}
	return removeLab(d)
}

// endProcesses ends what does not carry the marker, or does not end by itself.
func endProcesses(ctx context.Context, d dir) error {
	g := labCgroup(string(d))
	soon, cancel := context.WithTimeout(ctx, stuckAfter)
	defer cancel()
	if g.end(soon) == nil {
		return nil
	}
	return errors.Join(abortFUSE(fuseHeld(g)), g.end(ctx))
}

// removeLab removes the directory, and that of all labs with the last one.
func removeLab(d dir) error {
	for _, m := range slices.Backward(mountsBelow(string(d))) {
		unix.Unmount(m, unix.MNT_DETACH)
	}
	if err := os.RemoveAll(string(d)); err != nil {
		return err
	}
	os.Remove(filepath.Dir(string(d)))
	return nil
}

// marked returns the processes that carry the lab's marker. Those that they
// started inside machines do not, but cannot outlive them.
func marked(d dir) []int {
	entries, _ := os.ReadDir("/proc")
	want := []byte(marker + string(d))
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil {
			continue
		}
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(v, want) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// killMarked kills them and says how many there were.
func killMarked(d dir) int {
	pids := marked(d)
	for _, pid := range pids {
		unix.Kill(pid, unix.SIGKILL)
	}
	return len(pids)
}

// mountsBelow returns the mount points of this process below a directory.
func mountsBelow(path string) []string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], path+"/") {
			out = append(out, fields[4])
		}
	}
	return out
}

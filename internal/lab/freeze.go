package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// freeze stops or continues every process of a machine: by its cgroup, or one
// by one where there is none.
func (s *supervisor) freeze(ctx context.Context, m *unit, on bool) error {
	if s.group != "" {
		if g := s.group.child(m.spec.Name); g != "" {
			return g.freeze(ctx, on)
		}
	}
	sig := unix.SIGCONT
	if on {
		sig = unix.SIGSTOP
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// A process may fork before its turn comes: until all have stopped.
	return poll(ctx, func() (bool, error) {
		pids, err := inside(m.pid)
		if err != nil {
			return false, err
		}
		done := true
		for _, pid := range pids {
			unix.Kill(pid, sig)
			done = done && (processState(pid) == 'T') == on
		}
		return done, nil
	})
}

// thaw makes the cgroup of a machine that was killed while it was paused fit for
// the next boot: what is started in a frozen one does not begin.
func (s *supervisor) thaw(m *unit) error {
	if s.group == "" {
		return nil
	}
	g := s.group.child(m.spec.Name)
	if g == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(string(g), "cgroup.freeze"), []byte("0"), 0)
}

// inside returns the processes in the PID namespace of one.
func inside(pid int) ([]int, error) {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if other, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p)); err == nil && other == ns {
			out = append(out, p)
		}
	}
	return out, nil
}

// processState is the letter of /proc/PID/stat: 'T' is stopped, 0 is gone.
func processState(pid int) byte {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	for i := len(data) - 1; i > 0; i-- {
		if data[i] == ')' && i+2 < len(data) {
			return data[i+2]
		}
	}
	return 0
}

package script

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MarkName is the environment variable by which processes are known that left
// the session and the parent that they came from: its value is handed down to
// whatever a program starts, unless that clears its environment.
const MarkName = "TASUKI_RUN"

// NewMark returns a value of MarkName that no other program has.
func NewMark() string { return rand.Text() }

// Family is everything that programs with one mark left behind: who has the
// mark, who is in their control groups, their sessions, and all descendants.
// What cleared its environment, left its session and lost its parent is found by
// the control group alone.
type Family struct {
	Mark    string
	Cgroups []string // absolute paths; a missing one is empty
}

// Member is one process of a family.
type Member struct {
	PID    int
	Name   string // of its program, at most 15 bytes; see proc_pid_comm(5)
	Frozen bool   // it stands still after SIGSTOP
}

func (m Member) String() string { return fmt.Sprintf("%d %s", m.PID, m.Name) }

// Members returns who of the family lives, by process id. This program and its
// ancestors are never among them.
func (f Family) Members() ([]Member, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	all, known := map[int]stat{}, map[int]bool{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, ok := readStat(pid); ok && !s.dead() {
			all[pid] = s
			known[pid] = f.marked(pid)
		}
	}
	for _, dir := range f.Cgroups {
		for _, pid := range (group{cgroup: dir}).list(nil) {
			known[pid] = true
		}
	}
	spared := ancestors(all)
	f.relatives(all, known, spared)
	var out []Member
	for pid := range all {
		if known[pid] && !spared[pid] {
			b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
			out = append(out, Member{PID: pid, Name: strings.TrimSpace(string(b)), Frozen: all[pid].state == 'T'})
		}
	}
	slices.SortFunc(out, func(a, b Member) int { return a.PID - b.PID })
	return out, nil
}

// relatives adds the descendants of those who are known, and their sessions: a
// session cannot be entered from outside.
func (f Family) relatives(all map[int]stat, known, spared map[int]bool) {
	for more := true; more; {
		more = false
		sessions := map[int]bool{}
		for pid, s := range all {
			if known[pid] && !spared[pid] && s.session > 0 {
				sessions[s.session] = true
			}
		}
		for pid := range spared {
			delete(sessions, all[pid].session)
		}
		for pid, s := range all {
			if !known[pid] && (known[s.parent] && !spared[s.parent] || sessions[s.session]) {
				known[pid], more = true, true
			}
		}
	}
}

func (f Family) marked(pid int) bool {
	if f.Mark == "" {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	want := []byte(MarkName + "=" + f.Mark)
	for v := range bytes.SplitSeq(b, []byte{0}) {
		if bytes.Equal(v, want) {
			return true
		}
	}
	return false
}

// ancestors returns this process and those that it comes from.
func ancestors(all map[int]stat) map[int]bool {
	out := map[int]bool{1: true}
	for pid := os.Getpid(); pid > 0 && (!out[pid] || pid == 1); pid = all[pid].parent {
		out[pid] = true
		if pid == 1 {
			break
		}
	}
	return out
}

// End ends the family: SIGTERM, after grace SIGKILL, again and again until
// nobody is left. It returns who was there, and ErrStillRuns if somebody still
// is when ctx ends.
func (f Family) End(ctx context.Context, grace time.Duration) ([]Member, error) {
	left, err := f.Members()
	met := left
	send(left, unix.SIGTERM)
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for err == nil && len(left) > 0 {
		select {
		case <-ctx.Done():
			return met, fmt.Errorf("%s: %w", list(left), ErrStillRuns)
		case <-tick.C:
		}
		if time.Since(began) >= grace {
			for _, dir := range f.Cgroups {
				_ = os.WriteFile(dir+"/cgroup.kill", []byte("1"), 0) // all at once, so that nobody can fork away
			}
			send(left, unix.SIGKILL)
		}
		left, err = f.Members()
		for _, m := range left {
			if !slices.ContainsFunc(met, func(o Member) bool { return o.PID == m.PID }) {
				met = append(met, m)
			}
		}
	}
	return met, err
}

// Freeze makes the family stand still (SIGSTOP), again and again until nobody
// runs who could have started another. It returns who was found, and an error if
// somebody still runs when ctx ends.
func (f Family) Freeze(ctx context.Context) ([]Member, error) {
	for {
		all, err := f.Members()
		run := slices.DeleteFunc(slices.Clone(all), func(m Member) bool { return m.Frozen })
		if err != nil || len(run) == 0 {
			return all, err
		}
		if err := ctx.Err(); err != nil {
			return all, fmt.Errorf("%s: %w", list(run), ErrStillRuns)
		}
		send(run, unix.SIGSTOP)
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
}

// Thaw lets a frozen family go on.
func (f Family) Thaw() error {
	all, err := f.Members()
	send(all, unix.SIGCONT)
	return err
}

// EndFrozen kills who of the family was frozen, so that it does nothing more, not
// even to end in order. It returns how many those were.
func (f Family) EndFrozen(ctx context.Context) (int, error) {
	all, err := f.Members()
	if err != nil || !slices.ContainsFunc(all, func(m Member) bool { return m.Frozen }) {
		return 0, err
	}
	send(all, unix.SIGKILL)
	_, err = f.End(ctx, 0)
	return len(all), err
}

func send(to []Member, s unix.Signal) {
	for _, m := range to {
		_ = unix.Kill(m.PID, s) // it may have ended
	}
}

// list names some processes.
func list(all []Member) string {
	const most = 8
	var parts []string
	for i, m := range all {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(all)-most))
			break
		}
		parts = append(parts, m.String())
	}
	return strings.Join(parts, ", ")
}

// Count says how many processes there are, and which.
func Count(all []Member) string {
	if len(all) == 1 {
		return "1 process (" + list(all) + ")"
	}
	return fmt.Sprintf("%d processes (%s)", len(all), list(all))
}

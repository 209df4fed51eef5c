package script

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// leave runs a script to its end that leaves processes behind, and returns
// their family. The script writes the process ids, one a line, to the file.
func leave(t *testing.T, noCgroup bool, text string) (Family, []int) {
	t.Helper()
	dir := t.TempDir()
	ids := filepath.Join(dir, "ids")
	path := filepath.Join(dir, "start.sh")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nids="+ids+"; export ids\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := Family{Mark: NewMark()}
	r, err := Run(t.Context(), Spec{Path: path, Env: []string{"PATH=/usr/bin:/bin", MarkName + "=" + f.Mark}, Timeout: 10 * time.Second, noCgroup: noCgroup})
	if err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	if r.Cgroup != "" {
		f.Cgroups = []string{r.Cgroup}
	}
	var pids []int
	for _, m := range numbers(t, ids) {
		pids = append(pids, m)
		t.Cleanup(func() { _ = unix.Kill(m, unix.SIGKILL) })
	}
	return f, pids
}

func numbers(t *testing.T, file string) (out []int) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for n, in := 0, false; len(b) > 0; b = b[1:] {
		switch {
		case b[0] >= '0' && b[0] <= '9':
			n, in = 10*n+int(b[0]-'0'), true
		case in:
			out, n, in = append(out, n), 0, false
		}
	}
	return out
}

func lives(pid int) bool {
	s, ok := readStat(pid)
	return ok && !s.dead()
}

// What a script leaves behind is found wherever it went, with control groups and
// without.
func TestFamilyIsEnded(t *testing.T) {
	for name, noCgroup := range map[string]bool{"control group": false, "mark": true} {
		t.Run(name, func(t *testing.T) {
			f, pids := leave(t, noCgroup, `
sleep 60 & echo $! >>$ids
env -i sleep 60 & echo $! >>$ids # no mark, but the session
setsid sh -c 'echo $$ >>$ids; trap "" TERM; while :; do sleep 1; done' &
(setsid sh -c '(sleep 60 & echo $! >>$ids)' &)
while [ $(wc -l <$ids) -lt 4 ]; do sleep 0.01; done`)
			if len(pids) != 4 {
				t.Fatalf("%d processes", len(pids))
			}
			bystander := bystanding(t, "sleep 60")
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			met, err := f.End(ctx, 200*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if time.Since(begin) < 200*time.Millisecond {
				t.Error("SIGKILL came without the grace")
			}
			for _, pid := range pids {
				if lives(pid) {
					t.Errorf("process %d lives", pid)
				}
				if !slices.ContainsFunc(met, func(m Member) bool { return m.PID == pid }) {
					t.Errorf("process %d was not named: %v", pid, met)
				}
			}
			if !lives(bystander) {
				t.Error("a process of somebody else was ended")
			}
			if left, err := f.Members(); err != nil || len(left) > 0 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}

// Only the control group still knows who gave up all that he came from.
func TestFamilyWithoutAnyTrace(t *testing.T) {
	if cgroupBase() == "" {
		t.Skip("needs control groups of version 2")
	}
	f, pids := leave(t, false, `
(env -i ids=$ids setsid sh -c '(sleep 60 & echo $! >>$ids)' &)
while [ ! -s $ids ]; do sleep 0.01; done`)
	f.Mark = ""
	if met, err := f.End(t.Context(), time.Second); err != nil || len(met) != 1 || lives(pids[0]) {
		t.Errorf("%v %v, lives: %v", met, err, lives(pids[0]))
	}
}

func TestFamilyThatDoesNotEnd(t *testing.T) {
	f, pids := leave(t, true, `sh -c 'trap "" TERM; while :; do sleep 1; done' & echo $! >>$ids; sleep 0.1`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	met, err := f.End(ctx, time.Hour) // no SIGKILL: as one that the kernel holds
	if !errors.Is(err, ErrStillRuns) || len(met) == 0 || !lives(pids[0]) {
		t.Errorf("%v %v", met, err)
	}
}

func TestFamilySparesThisProgram(t *testing.T) {
	t.Setenv(MarkName, "x") // of no use: the environment at the start counts
	f := Family{Mark: "x"}
	if got, err := f.Members(); err != nil || len(got) > 0 {
		t.Errorf("%v %v", got, err)
	}
	all := map[int]stat{os.Getpid(): {parent: os.Getppid()}}
	for _, pid := range []int{1, os.Getpid(), os.Getppid()} {
		if !ancestors(all)[pid] {
			t.Errorf("process %d is not spared", pid)
		}
	}
}

func TestCountNamesSome(t *testing.T) {
	var all []Member
	for i := range 10 {
		all = append(all, Member{PID: i, Name: "x"})
	}
	if got, want := Count(all[:1]), "1 process (0 x)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := Count(all), "10 processes (0 x, 1 x, 2 x, 3 x, 4 x, 5 x, 6 x, 7 x, and 2 more)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// bystanding starts a program of nobody's family.
func bystanding(t *testing.T, command string) int {
	t.Helper()
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "exec " + command}, &os.ProcAttr{Env: []string{"PATH=/usr/bin:/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Kill()
		_, _ = p.Wait()
	})
	return p.Pid
}

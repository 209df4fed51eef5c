package script

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// write makes an executable script of the lines and returns its path.
func write(t testing.TB, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script.sh")
	text := "#!/bin/sh\n" + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// env is enough to find sleep and friends.
var env = []string{"PATH=/usr/bin:/bin"}

// eachWay runs the test with control groups, where the system has them, and
// without.
func eachWay(t *testing.T, f func(t *testing.T, noCgroup bool)) {
	t.Run("cgroup", func(t *testing.T) {
		if cgroupBase() == "" {
			t.Skip("this system has no control groups version 2 that we may use")
		}
		f(t, false)
	})
	t.Run("plain", func(t *testing.T) { f(t, true) })
}

// pids reads the process ids that a script wrote, when there are n of them.
func pids(t *testing.T, path string, n int) []int {
	t.Helper()
	var out []int
	eventually(t, fmt.Sprintf("%d process ids in %s", n, path), func() bool {
		out = out[:0]
		b, _ := os.ReadFile(path)
		for _, f := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return false
			}
			out = append(out, pid)
		}
		return len(out) == n && strings.HasSuffix(string(b), "\n")
	})
	return out
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(8 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func alive(pid int) bool {
	_, err := startTime(pid)
	return err == nil
}

// reap ends a process that a test left alive on purpose.
func reap(t *testing.T, pid int) {
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
}

func TestExitCodesAndOutput(t *testing.T) {
	eachWay(t, func(t *testing.T, noCgroup bool) {
		log := filepath.Join(t.TempDir(), "deep", "out.log")
		for _, l := range []Log{{}, {Path: log}} {
			s := Spec{Path: write(t, `echo "to out $1"; echo "to err" >&2; exit 7`), Args: []string{"a b"}, Log: l, noCgroup: noCgroup}
			r, err := Run(t.Context(), s)
			if err != nil || r.ExitCode != 7 || r.Signal != 0 || r.TimedOut || r.LogError != nil {
				t.Fatalf("%+v %v", r, err)
			}
			if got := string(r.Tail); got != "to out a b\nto err\n" || r.LastLine() != "to err" {
				t.Errorf("tail %q", got)
			}
			if r.Err() == nil || r.Err().Error() != "ended with exit code 7" {
				t.Errorf("Err() = %v", r.Err())
			}
		}
		if b, _ := os.ReadFile(log); string(b) != "to out a b\nto err\n" {
			t.Errorf("log holds %q", b)
		}
	})
}

func TestEndBySignal(t *testing.T) {
	r, err := Run(t.Context(), Spec{Path: write(t, "kill -9 $$")})
	if err != nil || r.Signal != syscall.SIGKILL || r.ExitCode != -1 || r.Err() == nil {
		t.Errorf("%+v %v", r, err)
	}
}

func TestEnvironmentAndDirectoryAreExact(t *testing.T) {
	t.Setenv("LEAKED", "yes")
	r, err := Run(t.Context(), Spec{Path: "/usr/bin/env", Env: []string{"A=1", "B=x y"}})
	if err != nil || string(r.Tail) != "A=1\nB=x y\n" {
		t.Errorf("%q %v", r.Tail, err)
	}
	r, err = Run(t.Context(), Spec{Path: "/usr/bin/env"})
	if err != nil || len(r.Tail) != 0 {
		t.Errorf("no environment: %q %v", r.Tail, err)
	}
	r, err = Run(t.Context(), Spec{Path: write(t, `pwd; cat; ps -o pid=,pgid=,sid= $$ | tr -s ' '; echo $$`), Env: env})
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(r.Tail))
	if len(f) != 5 || f[0] != "/" || f[1] != f[2] || f[2] != f[3] || f[3] != f[4] {
		t.Errorf("want the root directory, an empty input, and a session of its own: %q", r.Tail)
	}
}

func TestTail(t *testing.T) {
	for _, l := range []Log{{}, {Path: filepath.Join(t.TempDir(), "log")}} {
		r, err := Run(t.Context(), Spec{Path: write(t, "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"), Log: l})
		if err != nil || len(r.Tail) != TailSize || r.LastLine() != "line 2999" {
			t.Errorf("%d bytes, last line %q, %v", len(r.Tail), r.LastLine(), err)
		}
	}
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tc := range map[string]struct {
		path string
		want error
	}{
		"missing":             {filepath.Join(dir, "none"), fs.ErrNotExist},
		"not executable":      {file("plain", "#!/bin/sh\n", 0o644), fs.ErrPermission},
		"a directory":         {dir, fs.ErrPermission},
		"no shebang":          {file("bare", "echo hello\n", 0o755), ErrFormat},
		"missing interpreter": {file("lost", "#!/no/such/shell -e\n", 0o755), ErrInterpreter},
		"DOS line ends":       {file("dos", "#!/bin/sh\r\necho\r\n", 0o755), ErrInterpreter},
	} {
		_, err := Run(t.Context(), Spec{Path: tc.path})
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if _, err := Run(t.Context(), Spec{Path: "true"}); err == nil {
		t.Error("a relative path was run")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ended, Spec{Path: "/bin/true"}); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestFileThatIsBeingWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tool")
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(3*busyPause, func() { _ = f.Close() })
	if r, err := Run(t.Context(), Spec{Path: path}); err != nil || r.Err() != nil {
		t.Errorf("%+v %v", r, err)
	}
}

func TestTimeOutEndsTheWholeGroup(t *testing.T) {
	for name, tc := range map[string]struct {
		lines    []string
		children int
		hard     bool // only SIGKILL ends it
	}{
		"a child":                         {[]string{`sleep 60 & echo $! >$1; wait`}, 1, false},
		"ignores SIGTERM":                 {[]string{`trap '' TERM; sleep 60 & echo $! >$1; while :; do sleep 60; done`}, 1, true},
		"a child in a session of its own": {[]string{`setsid sh -c 'trap "" TERM; echo $$ >>'$1'; while :; do sleep 60; done' & wait`}, 1, true},
		"many":                            {[]string{`i=0; while [ $i -lt 50 ]; do setsid sleep 60 & echo $! >>$1; i=$((i+1)); done; wait`}, 50, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, noCgroup bool) {
				list := filepath.Join(t.TempDir(), "pids")
				ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
				defer cancel()
				start := time.Now()
				r, err := Run(ctx, Spec{
					Path: write(t, tc.lines...), Args: []string{list}, Env: env,
					Grace: 150 * time.Millisecond, noCgroup: noCgroup,
				})
				took := time.Since(start)
				if !errors.Is(err, ErrTimedOut) || !r.TimedOut || r.Err() == nil {
					t.Errorf("%+v %v", r, err)
				}
				if tc.hard && took < 550*time.Millisecond {
					t.Errorf("killed after %v, before the grace was over", took)
				}
				for _, pid := range pids(t, list, tc.children) {
					if alive(pid) {
						t.Errorf("process %d lives on", pid)
						reap(t, pid)
					}
				}
			})
		})
	}
}

// A program that forks all the time until it is ended leaves nothing.
func TestForkBombEnds(t *testing.T) {
	eachWay(t, func(t *testing.T, noCgroup bool) {
		mark := fmt.Sprintf("31.%d", time.Now().UnixNano()%1e9)
		bomb := write(t, `trap '' TERM`, `n=0; while [ $n -lt 400 ]; do (trap '' TERM; sleep `+mark+`) & n=$((n+1)); done; wait`)
		_, err := Run(t.Context(), Spec{
			Path: bomb, Env: env, Timeout: 100 * time.Millisecond, Grace: 50 * time.Millisecond, noCgroup: noCgroup,
		})
		if !errors.Is(err, ErrTimedOut) {
			t.Errorf("got %v", err)
		}
		if left := commandLines(t, mark); len(left) > 0 {
			t.Errorf("%d of its processes live on", len(left))
			for _, pid := range left {
				reap(t, pid)
			}
		}
	})
}

// commandLines lists the processes with the word in their command line.
func commandLines(t *testing.T, word string) (out []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		b, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && strings.Contains(string(b), word) && alive(pid) {
			out = append(out, pid)
		}
	}
	return out
}

func TestCancelIsNoTimeOut(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	r, err := Run(ctx, Spec{Path: write(t, "sleep 60"), Env: env})
	if !errors.Is(err, context.Canceled) || r.TimedOut || r.Signal != syscall.SIGTERM {
		t.Errorf("%+v %v", r, err)
	}
}

// A daemon that a start script leaves behind lives on and delays nothing, also
// while it holds the output open.
func TestDaemonLeftBehindLives(t *testing.T) {
	eachWay(t, func(t *testing.T, noCgroup bool) {
		for _, l := range []Log{{}, {Path: filepath.Join(t.TempDir(), "log")}} {
			list := filepath.Join(t.TempDir(), "pids")
			start := time.Now()
			r, err := Run(t.Context(), Spec{
				Path: write(t, `( trap '' HUP; while sleep 0.02; do echo alive; done ) & echo $! >$1; echo started`),
				Args: []string{list}, Env: env, Log: l, noCgroup: noCgroup,
			})
			if err != nil || r.Err() != nil || r.LastLine() != "started" {
				t.Fatalf("%+v %v", r, err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("the daemon held Run up for %v", took)
			}
			pid := pids(t, list, 1)[0]
			reap(t, pid)
			if l.Path != "" {
				eventually(t, "the daemon's own output", func() bool {
					b, _ := os.ReadFile(l.Path)
					return strings.Count(string(b), "alive\n") >= 3
				})
			}
			if !alive(pid) {
				t.Error("the daemon has ended")
			}
		}
	})
}

func TestControlGroupsAreRemoved(t *testing.T) {
	if cgroupBase() == "" {
		t.Skip("this system has no control groups version 2 that we may use")
	}
	list := filepath.Join(t.TempDir(), "pids")
	if _, err := Run(t.Context(), Spec{Path: write(t, `sleep 60 & echo $! >$1`), Args: []string{list}, Env: env}); err != nil {
		t.Fatal(err)
	}
	pid := pids(t, list, 1)[0]
	reap(t, pid)
	own := func() []string {
		dirs, _ := filepath.Glob(filepath.Join(cgroupBase(), fmt.Sprintf("%s%d-*", cgroupPrefix, os.Getpid())))
		return dirs
	}
	if len(own()) == 0 {
		t.Error("the group of the living daemon is gone")
	}
	for _, p := range leftovers.dirs {
		b, _ := os.ReadFile(p + "/cgroup.procs")
		for _, f := range strings.Fields(string(b)) {
			n, _ := strconv.Atoi(f)
			_ = unix.Kill(n, unix.SIGKILL)
		}
	}
	eventually(t, "the removal of all groups", func() bool {
		_, err := Run(t.Context(), Spec{Path: "/bin/true"})
		return err == nil && len(own()) == 0
	})
}

func TestSupervisedProcess(t *testing.T) {
	eachWay(t, func(t *testing.T, noCgroup bool) {
		list := filepath.Join(t.TempDir(), "pids")
		p, err := Start(t.Context(), Spec{
			Path: write(t, `setsid sleep 60 & echo $! >$1; trap 'exit 3' TERM; while :; do sleep 0.01; done`),
			Args: []string{list}, Env: env, noCgroup: noCgroup,
		})
		if err != nil {
			t.Fatal(err)
		}
		child := pids(t, list, 1)[0]
		reap(t, child)
		if r := p.Result(); r.ExitCode != -1 {
			t.Errorf("before its end: %+v", r)
		}
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := p.Result(); r.ExitCode != 3 {
			t.Errorf("%+v, want exit code 3 of the trap", r)
		}
		if alive(p.PID()) || alive(child) {
			t.Errorf("alive: %v, its child: %v", alive(p.PID()), alive(child))
		}
		if err := p.Stop(t.Context()); err != nil {
			t.Errorf("the second stop: %v", err)
		}
	})
}

// The process has died, a child of it not: Stop ends the child.
func TestStopEndsWhatADeadProcessLeft(t *testing.T) {
	eachWay(t, func(t *testing.T, noCgroup bool) {
		list := filepath.Join(t.TempDir(), "pids")
		p, err := Start(t.Context(), Spec{Path: write(t, `sleep 60 & echo $! >$1; exit 1`), Args: []string{list}, Env: env, noCgroup: noCgroup})
		if err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		child := pids(t, list, 1)[0]
		reap(t, child)
		if !alive(child) {
			t.Fatal("the child ended with its parent")
		}
		if err := p.Stop(t.Context()); err != nil || alive(child) {
			t.Errorf("alive: %v, %v", alive(child), err)
		}
	})
}

func TestStopKeepsItsTime(t *testing.T) {
	p, err := Start(t.Context(), Spec{Path: write(t, `trap '' TERM; echo up; while :; do sleep 60; done`), Env: env, Grace: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("%v; over before its time: %v", err, ctx.Err() == nil)
	}
	if alive(p.PID()) {
		t.Error("it lives on")
	}
}

func TestAdopt(t *testing.T) {
	eachWay(t, func(t *testing.T, noCgroup bool) {
		p, err := Start(t.Context(), Spec{Path: write(t, `while :; do sleep 0.01; done`), Env: env, noCgroup: noCgroup})
		if err != nil {
			t.Fatal(err)
		}
		id, err := p.Identity()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Adopt(id, Log{})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-again.Done():
			t.Fatal("the adopted process counts as ended")
		default:
		}
		if err := again.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-again.Done()
		<-p.Done()
		if again.Result().Err() == nil {
			t.Error("the end of an adopted process counts as a success")
		}
		if _, err := Adopt(id, Log{}); !errors.Is(err, ErrNotRunning) {
			t.Errorf("adopting the dead: %v", err)
		}
	})
}

func TestAdoptRefusesStrangers(t *testing.T) {
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]Identity{
		"the number is another's now": {PID: os.Getpid(), Start: start + 1, Boot: BootID()},
		"of another boot":             {PID: os.Getpid(), Start: start, Boot: "other"},
	} {
		p, err := Adopt(id, Log{})
		if !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", name, err)
		}
		if err := p.Stop(t.Context()); err != nil { // must not end this test
			t.Errorf("%s: stop: %v", name, err)
		}
	}
}

func TestLogRotates(t *testing.T) {
	log := Log{Path: filepath.Join(t.TempDir(), "log"), MaxSize: 10_000}
	say := Spec{Path: write(t, "i=0; while [ $i -lt 100 ]; do echo 'some fifty bytes of output for the log file, $i'; i=$((i+1)); done"), Log: log}
	for range 9 {
		if r, err := Run(t.Context(), say); err != nil || r.LogError != nil || len(r.Tail) != TailSize {
			t.Fatalf("%+v %v", r, err)
		}
	}
	now, err := os.Stat(log.Path)
	if err != nil || now.Size() > log.MaxSize {
		t.Errorf("%v %v", now, err)
	}
	old, err := os.Stat(log.Path + ".1")
	if err != nil || old.Size() < log.MaxSize || old.Size() > 2*log.MaxSize {
		t.Errorf("%v %v", old, err)
	}
	entries, _ := os.ReadDir(filepath.Dir(log.Path))
	if len(entries) != 2 {
		t.Errorf("%d files, want the log and one old one", len(entries))
	}
}

// Who has the log open goes on writing at its start after it was rotated.
func TestRotationKeepsWriters(t *testing.T) {
	log := Log{Path: filepath.Join(t.TempDir(), "log"), MaxSize: 100}
	f, err := os.OpenFile(log.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprint(f, strings.Repeat("x", 150))
	if err := log.Trim(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "after")
	if b, _ := os.ReadFile(log.Path); string(b) != "after" {
		t.Errorf("log holds %q", b)
	}
	if b, _ := os.ReadFile(log.Path + ".1"); len(b) != 100 {
		t.Errorf("the old one has %d bytes", len(b))
	}
}

func TestBrokenLogDoesNotStopTheProgram(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Spec{Path: write(t, "echo done"), Log: Log{Path: blocked + "/log"}})
	if err != nil || r.Err() != nil || r.LastLine() != "done" || r.LogError == nil {
		t.Errorf("%+v %v", r, err)
	}
}

func TestChildrenAreNotProtectedFromTheMemoryKiller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: oom_score_adj")
	}
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-500"), 0); err != nil {
		t.Skip("cannot protect the test itself:", err)
	}
	defer func() { _ = os.WriteFile("/proc/self/oom_score_adj", own, 0) }()
	r, err := Run(t.Context(), Spec{Path: write(t, "sleep 0.1; cat /proc/self/oom_score_adj"), Env: env})
	if err != nil || r.LastLine() != "0" {
		t.Errorf("%q %v", r.Tail, err)
	}
}

func TestParsers(t *testing.T) {
	s, ok := parseStat([]byte("42 (a) b (c) S 1 40 39 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 1 1"))
	if want := (stat{state: 'S', parent: 1, group: 40, session: 39, start: 987654}); !ok || s != want {
		t.Errorf("%+v %v", s, ok)
	}
	for _, bad := range []string{"", "42", "42 (x) S 1", "42 (x"} {
		if _, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q was read", bad)
		}
	}
	const mounts = "22 1 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
		"33 22 0:28 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
	if got := cgroupMount([]byte(mounts)); got != "/sys/fs/cgroup/unified" {
		t.Errorf("mount %q", got)
	}
	if got := cgroupMount([]byte("33 22 0:28 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n")); got != "" {
		t.Errorf("read-only mount %q", got)
	}
	if got := cgroupPath([]byte("1:cpu:/x\n0::/system.slice/tasuki.service\n")); got != "/system.slice/tasuki.service" {
		t.Errorf("path %q", got)
	}
	if got := cgroupPath([]byte("0::/../../other\n")); got != "/other" {
		t.Errorf("path %q", got)
	}
}

// What Run costs beyond the fork and the execution: compare with Bare.
func BenchmarkRun(b *testing.B) {
	log := filepath.Join(b.TempDir(), "log")
	for name, s := range map[string]Spec{
		"log":    {Path: "/bin/true", Log: Log{Path: log}},
		"pipe":   {Path: "/bin/true"},
		"nogrp":  {Path: "/bin/true", noCgroup: true},
		"script": {Path: write(b, "exit 0"), Log: Log{Path: log}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Run(context.Background(), s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBare(b *testing.B) {
	for b.Loop() {
		p, err := os.StartProcess("/bin/true", []string{"/bin/true"}, &os.ProcAttr{Env: []string{}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestInputAndStandardOutput(t *testing.T) {
	eachWay(t, func(t *testing.T, noCgroup bool) {
		spec := Spec{Path: write(t, "cat", "echo a complaint >&2"), Env: env, Timeout: 5 * time.Second, Stdout: 8, noCgroup: noCgroup}
		spec.Input = []byte("one\ntwo\nthree\n")
		r, err := Run(t.Context(), spec)
		if err != nil || r.Err() != nil {
			t.Fatal(err, r.Err())
		}
		if string(r.Stdout) != "o\nthree\n" || r.LastLine() != "a complaint" {
			t.Errorf("standard output %q, the rest %q", r.Stdout, r.Tail)
		}
		spec.Input, spec.Stdout = nil, 0
		if r, err = Run(t.Context(), spec); err != nil || string(r.Tail) != "a complaint\n" || r.Stdout != nil {
			t.Errorf("without input: %v, standard output %q, the rest %q", err, r.Stdout, r.Tail)
		}
	})
}

package keep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

// childDir is where a child finds what it is to do, and leaves what it did.
const childDir = "TASUKI_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	goleak.VerifyTestMain(m)
}

// child ends as the first line of "plan" that is left says: a status, "kill", or
// "wait" for the end of the keeper's patience.
func child(dir string) int {
	plan := filepath.Join(dir, "plan")
	b, err := os.ReadFile(plan)
	if err != nil {
		return 99
	}
	line, rest, _ := strings.Cut(string(b), "\n")
	if err := os.WriteFile(plan, []byte(rest), 0o600); err != nil {
		return 99
	}
	c, err := Dial()
	if err != nil {
		return 98
	}
	if err := c.Grow(); err == nil || !strings.Contains(err.Error(), errNothing.Error()) {
		return 97
	}
	switch line {
	case "kill":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	case "wait":
		if err := os.WriteFile(filepath.Join(dir, "waiting"), nil, 0o600); err != nil {
			return 99
		}
		_, _ = receive(c.conn, &answer{}) // until SIGTERM ends the process
	}
	var status int
	_, _ = fmt.Sscan(line, &status)
	return status
}

const limit = 30 * time.Second

func TestRunStartsAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		plan   string
		starts int
		end    string // what Run returns
	}{
		"once":                      {"0", 1, ""},
		"after a failure":           {"1\n0", 2, ""},
		"after kill -9":             {"kill\nkill\n7\n0", 4, ""},
		"no longer when told so":    {"1\nwait", 2, "signal: terminated"},
		"no longer before it began": {"", 0, "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "plan"), []byte(tt.plan), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			starts, log := 0, &strings.Builder{}
			done := make(chan error, 1)
			go func() {
				done <- Run(ctx, Options{Log: slog.New(slog.NewTextHandler(log, nil)), Command: func() *exec.Cmd {
					if tt.starts == 0 {
						cancel()
						return exec.Command("/missing")
					}
					starts++
					cmd := exec.Command("/proc/self/exe")
					cmd.Env = append(os.Environ(), childDir+"="+dir)
					cmd.Stderr = os.Stderr
					return cmd
				}})
			}()
			if strings.Contains(tt.plan, "wait") {
				eventually(t, "the process waits", func() bool { _, err := os.Stat(filepath.Join(dir, "waiting")); return err == nil })
				cancel()
			}
			select {
			case err := <-done:
				if tt.end == "" && err != nil || tt.end != "" && (err == nil || !strings.Contains(err.Error(), tt.end)) {
					t.Errorf("it ended with %v, want %q", err, tt.end)
				}
			case <-time.After(limit):
				t.Fatal("it does not end")
			}
			if starts != tt.starts {
				t.Errorf("the process was started %d times, want %d", starts, tt.starts)
			}
			if again := strings.Count(log.String(), "started again"); again != max(tt.starts-1, 0) {
				t.Errorf("%d restarts were told, want %d:\n%s", again, tt.starts-1, log)
			}
		})
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, end := time.NewTicker(2*time.Millisecond), time.After(limit)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestDialWithoutKeeper(t *testing.T) {
	for _, v := range []string{"", "0", "x", "1000"} {
		t.Setenv(variable, v)
		if c, err := Dial(); err == nil {
			_ = c.Close()
			t.Errorf("a keeper on descriptor %q", v)
		}
	}
}

// channel returns both ends of one.
func channel(t *testing.T) (*Client, *net.UnixConn) {
	t.Helper()
	ours, theirs, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connOf(theirs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ours.Close(), conn.Close() })
	return &Client{conn: conn}, ours
}

func TestLateAnswersAreNotMistaken(t *testing.T) {
	c, keeper := channel(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := c.Release(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("release without an answer: %v", err)
	}
	go func() {
		for range 2 {
			var q ask
			if _, err := receive(keeper, &q); err != nil {
				return
			}
			_ = send(keeper, answer{Serial: q.Serial, Path: "of " + q.Do})
		}
	}()
	if path, err := c.Bind(); err != nil || path != "of bind" {
		t.Errorf("bind was answered with %q, %v", path, err)
	}
}

func TestErrorsCrossTheChannel(t *testing.T) {
	c, keeper := channel(t)
	h := &Held{}
	served := make(chan error, 1)
	go func() { served <- h.serve(t.Context(), keeper) }()
	if err := c.Grow(); err == nil || !strings.Contains(err.Error(), errNothing.Error()) {
		t.Errorf("grow of nothing: %v", err)
	}
	if err := c.Release(t.Context()); err != nil {
		t.Errorf("release of nothing: %v", err)
	}
	if _, _, err := c.call(ask{Do: "dance"}); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("an unknown question: %v", err)
	}
	if err := (answer{Busy: true, Error: "x", Path: "/dev/loop1"}).err(); !errors.Is(err, front.ErrBusy) || !strings.Contains(err.Error(), "/dev/loop1") {
		t.Errorf("busy: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Errorf("the end of the process: %v", err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root: FUSE and loop devices")
	}
	t.Skip("needs root: FUSE and loop devices")
}

// A process that dies between its questions leaves a call behind that waits for
// its answers.
func TestProcessDiesBeforeItsDeviceIsThere(t *testing.T) {
	needRoot(t)
	h := &Held{}
	conn, err := h.Connect(Spec{Name: "test", SectorSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Connect(Spec{Name: "test", SectorSize: 4096}); err == nil {
		t.Error("the sectors of a device that is held were changed")
	}
	bound := make(chan error, 1)
	go func() { _, err := h.Bind(); bound <- err }()
	b := make([]byte, 1<<20) // the first request is there: Bind waits, or will
	if _, err := unix.Read(int(conn.Device.Fd()), b); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bind has begun", func() bool { // it holds the lock while it waits
		free := h.calls.TryLock()
		if free {
			h.calls.Unlock()
		}
		return !free
	})
	conn.Close() // the process is dead
	if err := h.lost(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-bound:
		if err == nil {
			t.Error("there is a device that nobody serves")
		}
	case <-time.After(limit):
		t.Fatal("bind waits for ever")
	}
	if conn, hand, _ := h.now(); conn.Device != nil || hand != nil {
		t.Error("something is still held")
	}
	again, err := h.Connect(Spec{Name: "test", SectorSize: 4096})
	if err != nil {
		t.Fatalf("the next process: %v", err)
	}
	again.Close()
	h.Close()
}

// The collector and timers of Go use descriptors from any thread.
func TestTheRuntimeLivesWithTheHand(t *testing.T) {
	root, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	other, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	h, err := newHand(root)
	if err != nil {
		t.Fatal(err)
	}
	err = h.run(func() error {
		for range 3 {
			runtime.GC()
			<-time.After(time.Millisecond)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(other.Fd()), &st); !errors.Is(err, unix.EBADF) {
			return fmt.Errorf("a descriptor of others: %w", err)
		}
		return unix.Fstat(h.root, &st)
	})
	if err != nil {
		t.Error(err)
	}
	h.stop()
	<-h.ended
	if err := h.run(func() error { return nil }); !errors.Is(err, errNothing) {
		t.Errorf("a hand that has ended: %v", err)
	}
	if _, err := other.Stat(); err != nil {
		t.Errorf("the descriptor of the other threads: %v", err)
	}
}

func TestAbortOfWhatIsGone(t *testing.T) {
	needRoot(t)
	if err := Abort(1 << 30); err != nil {
		t.Error(err)
	}
}

func TestNodeOfALoopDevice(t *testing.T) {
	needRoot(t)
	fd, path, err := openLoop(0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	if path != "/dev/loop0" {
		t.Errorf("it is called %s", path)
	}
}

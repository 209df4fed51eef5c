package mirrordisk

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/control"
)

// Environment variables that make the test program something else, with the
// directory of a mirror disk: what keeps one and serves it, and what only listens.
const (
	playKeeper = "TASUKI_TEST_KEEPER"
	playDeaf   = "TASUKI_TEST_DEAF"
	playDead   = "TASUKI_TEST_DEAD"   // a keeper whose processes do not come up
	playThread = "TASUKI_TEST_THREAD" // opens a file, and its first thread ends
	playUser   = "TASUKI_TEST_USER"   // opens a file and waits to be ended; with a "!" before the name it does not mind SIGTERM
)

func init() { runtime.LockOSThread() } // TestMain runs on the first thread

func TestMain(m *testing.M) {
	if os.Getenv(playThread) == "" {
		runtime.UnlockOSThread()
	}
	switch {
	case os.Getenv(playKeeper) != "":
		keeper(os.Getenv(playKeeper), true)
	case os.Getenv(playDeaf) != "":
		keeper(os.Getenv(playDeaf), false)
	case os.Getenv(playDead) != "":
		if ours, err := flock.New(filepath.Join(os.Getenv(playDead), control.FileKeeper)).TryLock(); err == nil && ours {
			<-time.After(time.Minute)
		}
		os.Exit(1)
	case os.Getenv(playThread) != "":
		_, err := os.Open(os.Getenv(playThread))
		fmt.Println("open", err)
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	case os.Getenv(playUser) != "":
		user(os.Getenv(playUser))
	}
	os.Exit(m.Run())
}

// keeper serves a mirror disk until it is killed, or a minute has passed.
func keeper(dir string, answers bool) {
	fmt.Fprintln(os.Stderr, "keeper begins")
	if ours, err := flock.New(filepath.Join(dir, control.FileKeeper)).TryLock(); err != nil || !ours {
		os.Exit(0)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := control.Listen(dir, func(r control.Request, tell func(control.Message)) {
		if answers {
			tell(control.Message{Status: &control.Status{Role: "standby", PID: os.Getpid()}})
		}
	}, func() []control.Message { return nil })
	if err == nil {
		err = s.Run(ctx)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// listening waits for a process of the mirror disk md and returns its number.
func (n *node) listening(what string) (pid int) {
	n.t.Helper()
	until(n.t, what, func() bool {
		p, err := n.mirror("md").listener(n.t.Context())
		pid = p
		return err == nil && p != 0
	})
	return pid
}

// kills ends a process and waits until it does not listen any more.
func (n *node) kills(pid int) {
	n.t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	until(n.t, "its end", func() bool { p, err := n.mirror("md").listener(n.t.Context()); return err == nil && p != pid })
}

func user(name string) {
	stubborn := name[0] == '!'
	if stubborn {
		name = name[1:]
		ignoreTerm()
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("open")
	<-time.After(time.Minute)
	_ = f.Close()
	os.Exit(0)
}

func ignoreTerm() { signal.Ignore(unix.SIGTERM) }

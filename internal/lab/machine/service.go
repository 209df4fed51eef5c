package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/tasuki-ha/tasuki/internal/paths"
)

// How the daemon is kept running.
const (
	restartAfter = 200 * time.Millisecond // after a crash
	stopWithin   = 10 * time.Second       // then SIGKILL
)

// service keeps one daemon running. An end with code 0 is meant, any other one
// is a crash and followed by a restart.
type service struct {
	argv     []string
	children *children
	identity string
	log      string

	mu      sync.Mutex
	wanted  bool
	changed chan struct{} // closed and replaced when anything below changes
	state   Service
}

func newService(argv []string, identity string, c *children) *service {
	dirs := paths.At("/")
	return &service{
		argv: argv, children: c, changed: make(chan struct{}),
		identity: filepath.Join(dirs.Etc, identity), log: filepath.Join(dirs.Log, "daemon.log"),
		state: Service{Why: "not asked to run"},
	}
}

// set changes the state and wakes everybody who waits for a change.
func (s *service) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *service) look() (wanted bool, st Service, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted, s.state, s.changed
}

// run keeps the daemon as wanted until ctx ends. At the start it is wanted if
// the machine has an identity.
func (s *service) run(ctx context.Context) {
	if _, err := os.Stat(s.identity); err == nil {
		s.set(func() { s.wanted = true })
	} else {
		s.set(func() { s.state.Why = "there is no " + s.identity })
	}
	for {
		wanted, _, changed := s.look()
		var wait <-chan time.Time
		if wanted && s.once(ctx) {
			wait = time.After(restartAfter)
			changed = nil
		}
		if ctx.Err() != nil {
			return
		}
		if wanted && wait == nil {
			continue
		}
		select {
		case <-wait:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// once runs the daemon to its end and says whether it crashed.
func (s *service) once(ctx context.Context) (crashed bool) {
	pid, end, err := s.start()
	if err != nil {
		s.set(func() { s.state.Crashes++; s.state.Why = err.Error() })
		return true
	}
	s.set(func() { s.state.Running, s.state.PID, s.state.Why = true, pid, "running" })
	ws := s.stay(ctx, pid, end)
	s.set(func() {
		s.state.Running, s.state.PID = false, 0
		switch {
		case !s.wanted:
			s.state.Why = "stopped on request"
		case ws.Exited() && ws.ExitStatus() == 0:
			s.wanted = false
			s.state.Why = "ended with code 0"
		default:
			crashed = true
			s.state.Crashes++
			s.state.Why = fmt.Sprintf("crashed with code %d", code(ws))
		}
	})
	return crashed
}

func (s *service) start() (int, <-chan syscall.WaitStatus, error) {
	if err := os.MkdirAll(filepath.Dir(s.log), 0o755); err != nil {
		return 0, nil, err
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, nil, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	return s.children.start(s.argv[0], s.argv, environment(), "/", [3]*os.File{null, log, log})
}

// stay returns the daemon's end; when it is no longer wanted, it is asked to
// stop and then killed.
func (s *service) stay(ctx context.Context, pid int, end <-chan syscall.WaitStatus) syscall.WaitStatus {
	var kill <-chan time.Time
	for {
		wanted, _, changed := s.look()
		if !wanted && kill == nil {
			syscall.Kill(-pid, syscall.SIGTERM)
			kill = time.After(stopWithin)
		}
		select {
		case ws := <-end:
			return ws
		case <-kill:
			syscall.Kill(-pid, syscall.SIGKILL)
		case <-changed:
		case <-ctx.Done():
			return 0
		}
	}
}

// do carries out what the control socket asks: start, stop, restart, status.
func (s *service) do(ctx context.Context, verb string) (Service, error) {
	switch verb {
	case "status":
	case "start":
		if _, err := os.Stat(s.identity); err != nil {
			return Service{}, fmt.Errorf("the daemon has no identity (%s): make one with tasuki init or tasuki join", s.identity)
		}
		s.want(ctx, true)
	case "stop":
		s.want(ctx, false)
	case "restart":
		s.want(ctx, false)
		s.want(ctx, true)
	default:
		return Service{}, fmt.Errorf("a service does not %q: start, stop, restart or status", verb)
	}
	_, st, _ := s.look()
	return st, ctx.Err()
}

// want waits until the daemon runs, or does not, as wanted; one that cannot be
// started is tried once.
func (s *service) want(ctx context.Context, on bool) {
	_, before, _ := s.look()
	s.set(func() { s.wanted = on })
	for {
		_, st, changed := s.look()
		if st.Running == on || on && st.Crashes > before.Crashes {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// environment is what every process of the machine starts with.
func environment() []string {
	return []string{InLab + "=1", "PATH=" + searchPath, "HOME=/root", "LANG=C.UTF-8", "TERM=" + os.Getenv("TERM")}
}

// InLab is in the environment of everything that a machine starts. The daemon
// takes it for a reason not to reset what is no machine of a lab.
const InLab = "TASUKI_IN_LAB"

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

package machine

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children is every process that init started, and reaps the orphans of the
// machine beside them. wait4 for anything would steal the ends that os/exec
// waits for, so nothing here uses os/exec to start.
type children struct {
	mu      sync.Mutex // held over fork and registration: no end is missed
	waiting map[int]chan syscall.WaitStatus
}

func newChildren() *children { return &children{waiting: map[int]chan syscall.WaitStatus{}} }

// start runs a program as leader of a session. The channel gets its end.
func (c *children) start(path string, argv, env []string, dir string, files [3]*os.File) (int, <-chan syscall.WaitStatus, error) {
	attr := &syscall.ProcAttr{Dir: dir, Env: env, Sys: &syscall.SysProcAttr{Setsid: true}}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	end := make(chan syscall.WaitStatus, 1)
	c.waiting[pid] = end
	return pid, end, nil
}

// run reaps until ctx ends.
func (c *children) run(ctx context.Context) {
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, unix.SIGCHLD)
	defer signal.Stop(chld)
	for {
		c.reap()
		select {
		case <-chld:
		case <-ctx.Done():
			return
		}
	}
}

func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if end := c.waiting[pid]; end != nil {
			delete(c.waiting, pid)
			end <- ws
		}
	}
}

// code is the exit code as a shell counts it.
func code(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

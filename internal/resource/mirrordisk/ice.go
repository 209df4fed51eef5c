package mirrordisk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// isFrozen says whether the copy is to be frozen.
func (m *mirror) isFrozen() bool {
	_, err := os.Stat(m.file(control.FileFrozen))
	return err == nil
}

// Isolate freezes the copy: no request of the kernel begins or completes. A process
// that does not do so in half of the time is killed; the one that takes its place
// finds the file that says that it is frozen, before it takes a request up.
func (d *Driver) Isolate(ctx context.Context, t resource.Task) error {
	m := d.mirror(t.Resource.Name)
	err := os.WriteFile(m.file(control.FileFrozen), nil, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was never served here
	}
	if err != nil {
		return fmt.Errorf("freeze mirror disk %s: %w", m.name, err)
	}
	half := answerLimit
	if at, ok := ctx.Deadline(); ok {
		half = time.Until(at) / 2
	}
	soon, cancel := context.WithTimeout(ctx, half)
	defer cancel()
	if err = m.freeze(soon); err == nil {
		return nil
	}
	d.o.Log.Error("the process of a mirror disk does not freeze it and is killed", "resource", m.name, "error", err)
	if killed := m.kill(ctx); killed != nil {
		return fmt.Errorf("freeze mirror disk %s: %w; %w", m.name, err, killed)
	}
	return nil
}

// freeze has everything held by the process that there is, if there is one.
func (m *mirror) freeze(ctx context.Context) error { return m.change(ctx, control.Freeze) }

// thaw undoes freeze.
func (m *mirror) thaw(ctx context.Context) error {
	defer m.stir() // a process that cannot be asked now is when it is reached
	if err := m.change(ctx, control.Thaw); err != nil {
		return fmt.Errorf("thaw mirror disk %s: %w", m.name, err)
	}
	return nil
}

// change asks the process to freeze or to thaw, one at a time. It succeeds where there
// is nobody: who comes looks at the file.
func (m *mirror) change(ctx context.Context, do control.Verb) error {
	select {
	case m.ice <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-m.ice }()
	for {
		c, release, err := m.reach(ctx)
		if nobody(err) {
			return nil
		}
		if err == nil {
			_, err = c.Do(ctx, control.Request{Do: do})
			release()
		}
		switch {
		case err == nil, control.CodeOf(err) == control.NotActive:
			return nil
		case isAnswer(err), !wait(ctx, time.Millisecond):
			return err
		}
	}
}

// nobody says whether there was nobody to connect to.
func nobody(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// kill ends the process that listens, as hard as it goes, and waits until it is
// gone with its last write. ctx bounds the wait alone: late is better than never.
func (m *mirror) kill(ctx context.Context) error {
	pid, err := m.listener(context.WithoutCancel(ctx))
	if err != nil || pid == 0 {
		return err
	}
	return killProcess(ctx, pid)
}

// killProcess is kill of any process.
func killProcess(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill its process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill its process %d: %w", pid, err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for the end of its process %d: %w", pid, err)
		case ctx.Err() != nil:
			return fmt.Errorf("its process %d does not end: the kernel holds it, perhaps waiting for a disk: %w", pid, ctx.Err())
		}
	}
}

// listener returns the process behind the socket; 0: there is none. The kernel
// tells, so it is known also of a process that does not answer.
func (m *mirror) listener(ctx context.Context) (int, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.socket())
	if nobody(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find its process: %w", err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	var who *unix.Ucred
	if err == nil {
		fails := raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
		err = errors.Join(fails, err)
	}
	if err != nil {
		return 0, fmt.Errorf("find its process: %w", err)
	}
	if pid := int(who.Pid); pid > 1 && pid != os.Getpid() {
		return pid, nil
	}
	return 0, fmt.Errorf("its process has the number %d, which is not killed", who.Pid)
}

// Restore lets the copy go on. The file is gone first: a process that starts in
// between must not stay frozen.
func (d *Driver) Restore(ctx context.Context, t resource.Task) error {
	m := d.mirror(t.Resource.Name)
	if err := m.forget(control.FileFrozen); err != nil {
		return err
	}
	return m.thaw(ctx)
}

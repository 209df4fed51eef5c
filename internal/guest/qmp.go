package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
)

// qmpPower switches QEMUs by the socket of their monitor: -qmp
// unix:PATH,server=on,wait=off. The protocol is QMP: a line of JSON each way,
// the greeting of QEMU first.
//
// Off kills the process that listens, as the kernel names it, instead of asking
// it to quit: a QEMU that hangs does not read its monitor while its processors
// may run, and one that quits removes its socket, after which nothing here
// could prove that it is off. A killed one leaves its socket. The kernel closes
// a process's files after its last thread has ended, so a socket that is there
// and refuses means that no processor of the guest runs any more.
type qmpPower struct{}

// maxQMP bounds what is read of a QEMU, in bytes.
const maxQMP = 1 << 20

// Off kills the QEMU and waits for its end.
func (p qmpPower) Off(ctx context.Context, socket string) error {
	conn, err := p.dial(ctx, socket)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	pid, err := listener(conn)
	if err != nil {
		return err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("take hold of process %d behind %s: %w", pid, socket, err)
	}
	defer unix.Close(process)
	// Had the process ended before we took hold, so that its number could be
	// another's, the connection would have ended with it.
	if err := alive(conn); err != nil {
		return fmt.Errorf("process %d behind %s: %w", pid, socket, err)
	}
	if err := isQEMU(pid, socket); err != nil {
		return err
	}
	if err := unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d behind %s: %w", pid, socket, err)
	}
	return ended(ctx, process, pid)
}

// On cannot start a QEMU: nobody but who started it knows how.
func (p qmpPower) On(ctx context.Context, socket string) error {
	if on, err := p.Status(ctx, socket); err != nil || on {
		return err
	}
	return &api.Error{Code: "cannot-power-on", Message: "a guest that is known by its QMP socket only cannot be started from here",
		Hint: "start its QEMU in the way that you always do"}
}

// Status asks QEMU how it is: whatever it answers, it runs.
func (p qmpPower) Status(ctx context.Context, socket string) (bool, error) {
	conn, err := p.dial(ctx, socket)
	if errors.Is(err, unix.ECONNREFUSED) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := query(conn); err != nil {
		return false, fmt.Errorf("talk to QEMU at %s: %w", socket, err)
	}
	return true, nil
}

// dial connects. Only a socket that is there and refuses gives ECONNREFUSED.
func (qmpPower) dial(ctx context.Context, socket string) (*net.UnixConn, error) {
	info, err := os.Stat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is not there: QEMU has ended by itself, or has its monitor elsewhere", socket)
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is no socket", socket)
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// listener returns which process listens at the other end of a connection.
func listener(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var no error
	if err := raw.Control(func(fd uintptr) { cred, no = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if no != nil {
		return 0, fmt.Errorf("ask who listens: %w", no)
	}
	if cred.Pid <= 1 {
		return 0, errors.New("who listens is in another PID namespace, or is the first process")
	}
	return int(cred.Pid), nil
}

// alive says whether the other end still holds a connection, taken or not. One
// connection must do: a QEMU that hangs takes none, and soon refuses more.
func alive(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	fds := []unix.PollFd{{Events: unix.POLLRDHUP}}
	var no error
	if err := raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		_, no = unix.Poll(fds, 0)
	}); err != nil {
		return err
	}
	if no == nil && fds[0].Revents != 0 {
		no = errors.New("it let go of the connection")
	}
	return no
}

// isQEMU says whether a process is a QEMU, and not one that made the socket for
// it, like libvirt.
func isQEMU(pid int, socket string) error {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return fmt.Errorf("see what listens at %s: %w", socket, err)
	}
	if name := filepath.Base(exe); !strings.HasPrefix(name, "qemu") && !strings.HasPrefix(name, "kvm") {
		return fmt.Errorf("%s listens at %s, which is no QEMU: it is left alone", exe, socket)
	}
	return nil
}

// ended waits for the end of a process.
func ended(ctx context.Context, process, pid int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(confirmEvery.Milliseconds()))
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for the end of process %d: %w", pid, err)
		case n > 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("process %d was killed but does not end: it is stuck in the kernel", pid)
		}
	}
}

// query leads the conversation: greeting, capabilities, query-status.
func query(conn io.ReadWriter) error {
	lines := bufio.NewScanner(io.LimitReader(conn, maxQMP))
	lines.Buffer(make([]byte, 4096), maxQMP)
	var greeting struct{ QMP *json.RawMessage }
	if err := read(lines, &greeting); err != nil {
		return err
	}
	if greeting.QMP == nil {
		return errors.New("who listens there does not speak QMP")
	}
	for _, command := range []string{"qmp_capabilities", "query-status"} {
		if _, err := fmt.Fprintf(conn, "{\"execute\":%q}\n", command); err != nil {
			return err
		}
		if err := reply(lines, command); err != nil {
			return err
		}
	}
	return nil
}

// reply reads up to the answer to a command; events may stand before it.
func reply(lines *bufio.Scanner, command string) error {
	for {
		var a struct {
			Return *json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := read(lines, &a); err != nil {
			return err
		}
		if a.Error != nil {
			return fmt.Errorf("%s: %s", command, a.Error.Desc)
		}
		if a.Return != nil {
			return nil
		}
	}
}

func read(lines *bufio.Scanner, into any) error {
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(lines.Bytes(), into)
}

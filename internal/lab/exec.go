package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/lab/machine"
)

// Cmd is a command for a machine. A nil Stdin, Stdout or Stderr is /dev/null;
// an *os.File is handed over as it is.
type Cmd struct {
	Machine        string
	Argv           []string
	Env            []string // beside the machine's default environment
	Dir            string   // default /root
	Stdin          io.Reader
	Stdout, Stderr io.Writer // may be the same one
}

// Process is a command that runs in a machine. It is killed, with its process
// group, when this process ends or the context of Run is done.
type Process struct {
	conn   *net.UnixConn
	stop   func() bool
	ours   []*os.File // ends of pipes
	copies sync.WaitGroup
	pid    int

	once sync.Once
	code int
	err  error
}

// outputAfter is how long output is read on after a command's end, if something
// that it left behind holds the pipe.
const outputAfter = 200 * time.Millisecond

// Run starts a command and returns when it runs. A command that cannot be
// started is an error, with the exit code that a shell would give.
func (l *Lab) Run(ctx context.Context, c Cmd) (*Process, error) {
	m, err := l.running(ctx, c.Machine)
	if err != nil {
		return nil, err
	}
	p := &Process{}
	theirs, err := p.files(c)
	if err == nil {
		p.conn, err = call(m, machine.Request{Exec: &machine.Exec{Argv: c.Argv, Env: c.Env, Dir: c.Dir}}, theirs)
	}
	closeAll(theirs)
	if err != nil {
		p.drain()
		return nil, err
	}
	p.stop = context.AfterFunc(ctx, func() { p.conn.Close() })
	r, err := receive(p.conn)
	if err != nil || r.Ended {
		p.stop()
		p.conn.Close()
		p.drain()
		if err == nil {
			err = &ExitError{Code: r.Code, Message: r.Error}
		}
		return nil, err
	}
	p.pid = r.PID
	return p, nil
}

// drain reads what is left in the pipes, and closes them: nothing is written to
// the caller's writers after it.
func (p *Process) drain() {
	for _, f := range p.ours {
		f.SetReadDeadline(time.Now().Add(outputAfter))
	}
	p.copies.Wait()
	closeAll(p.ours)
}

// ExitError is a command that could not be run.
type ExitError struct {
	Code    int // 127: not found, 126: not executable
	Message string
}

func (e *ExitError) Error() string { return e.Message }

// running returns a machine that can be asked.
func (l *Lab) running(ctx context.Context, name string) (MachineInfo, error) {
	m, err := l.Machine(ctx, name)
	if err != nil {
		return m, err
	}
	switch m.State {
	case Off:
		return m, &api.Error{Code: "machine-off", Message: fmt.Sprintf("%s is off: %s", name, m.Why), Hint: "tasuki lab boot " + name}
	case Paused:
		return m, &api.Error{Code: "machine-paused", Message: name + " is paused", Hint: "tasuki lab resume " + name}
	}
	return m, nil
}

// files makes the command's three files, and starts copying where they are
// pipes.
func (p *Process) files(c Cmd) (theirs []*os.File, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	theirs = []*os.File{null, null, null}
	dup := func(f *os.File) (*os.File, error) {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewFile(uintptr(fd), f.Name()), err
	}
	switch in := c.Stdin.(type) {
	case nil:
	case *os.File:
		if theirs[0], err = dup(in); err != nil {
			return theirs, err
		}
	default:
		r, w, err := os.Pipe()
		if err != nil {
			return theirs, err
		}
		theirs[0], p.ours = r, append(p.ours, w)
		go func() { // ends with the pipe, at the latest
			io.Copy(w, in)
			w.Close()
		}()
	}
	for i, out := range []io.Writer{c.Stdout, c.Stderr} {
		if i == 1 && same(c.Stdout, c.Stderr) {
			theirs[2] = theirs[1]
			continue
		}
		switch out := out.(type) {
		case nil:
		case *os.File:
			if theirs[i+1], err = dup(out); err != nil {
				return theirs, err
			}
		default:
			r, w, err := os.Pipe()
			if err != nil {
				return theirs, err
			}
			theirs[i+1], p.ours = w, append(p.ours, r)
			p.copies.Go(func() { io.Copy(out, r) })
		}
	}
	return theirs, nil
}

// same says whether both outputs are one writer, which then gets one pipe: it
// need not bear two writers at a time.
func same(a, b io.Writer) (equal bool) {
	defer func() {
		if recover() != nil { // of types that cannot be compared
			equal = false
		}
	}()
	return a == b
}

// PID returns the process id within the machine.
func (p *Process) PID() int { return p.pid }

// Signal sends a signal to the command's process group.
func (p *Process) Signal(s syscall.Signal) error {
	data, err := json.Marshal(machine.Signal{Signal: int(s)})
	if err != nil {
		return err
	}
	_, err = p.conn.Write(data)
	return err
}

// Kill kills the command with its process group.
func (p *Process) Kill() error { return p.Signal(syscall.SIGKILL) }

// Wait returns the exit code, 128 + signal where a signal ended the command. An
// error means that the end is not known: the machine died, or the context of
// Run is done.
func (p *Process) Wait() (int, error) {
	p.once.Do(func() {
		r, err := receive(p.conn)
		p.code, p.err = r.Code, err
		if err == nil && r.Error != "" {
			p.err = errors.New(r.Error)
		}
		p.stop()
		p.conn.Close()
		p.drain()
	})
	return p.code, p.err
}

// Result is what a command left.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Exec runs a command to its end. A code other than 0 is no error.
func (l *Lab) Exec(ctx context.Context, name string, argv ...string) (Result, error) {
	var stdout, stderr bytes.Buffer
	p, err := l.Run(ctx, Cmd{Machine: name, Argv: argv, Stdout: &stdout, Stderr: &stderr})
	var cannot *ExitError
	if errors.As(err, &cannot) {
		return Result{Code: cannot.Code, Stderr: cannot.Message + "\n"}, nil
	}
	if err != nil {
		return Result{}, err
	}
	code, err := p.Wait()
	if err != nil {
		err = fmt.Errorf("%s on %s: %w", argv[0], name, errors.Join(ctx.Err(), err))
	}
	return Result{Code: code, Stdout: stdout.String(), Stderr: stderr.String()}, err
}

// ExecStart starts a command whose output nobody reads.
func (l *Lab) ExecStart(ctx context.Context, name string, argv ...string) (*Process, error) {
	return l.Run(ctx, Cmd{Machine: name, Argv: argv})
}

// WriteFile replaces a file of a machine; missing folders are made.
func (l *Lab) WriteFile(ctx context.Context, name, path string, mode os.FileMode, data []byte) error {
	m, err := l.running(ctx, name)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	go func() {
		w.Write(data)
		w.Close()
	}()
	reply, err := once(ctx, m, machine.Request{Write: &machine.Write{Path: path, Mode: uint32(mode.Perm())}}, []*os.File{r})
	r.Close()
	if err == nil && reply.Error != "" {
		err = errors.New(reply.Error)
	}
	if err != nil {
		return fmt.Errorf("write %s on %s: %w", path, name, err)
	}
	return nil
}

// Service asks for the daemon of a machine: start, stop, restart or status. A
// machine with an identity starts its daemon at boot.
func (l *Lab) Service(ctx context.Context, name, verb string) (machine.Service, error) {
	m, err := l.running(ctx, name)
	if err != nil {
		return machine.Service{}, err
	}
	r, err := once(ctx, m, machine.Request{Service: verb}, nil)
	if err != nil {
		return machine.Service{}, err
	}
	if r.Error != "" {
		return machine.Service{}, &api.Error{Code: "service", Message: name + ": " + r.Error}
	}
	return *r.Service, nil
}

// call opens a connection to a machine's init and sends the request.
func call(m MachineInfo, q machine.Request, files []*os.File) (*net.UnixConn, error) {
	data, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	if len(data) > machine.MaxMessage {
		return nil, fmt.Errorf("a command for %s is longer than %d bytes", m.Name, machine.MaxMessage)
	}
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: m.Control, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", m.Name, err)
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix(data, rights, nil); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s does not answer: %w", m.Name, err)
	}
	return conn, nil
}

// once is a call with one answer.
func once(ctx context.Context, m MachineInfo, q machine.Request, files []*os.File) (machine.Reply, error) {
	conn, err := call(m, q, files)
	if err != nil {
		return machine.Reply{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	return receive(conn)
}

func receive(conn *net.UnixConn) (r machine.Reply, err error) {
	buf := make([]byte, machine.MaxMessage)
	n, err := conn.Read(buf)
	if err != nil {
		return r, fmt.Errorf("the machine is gone: %w", err)
	}
	return r, json.Unmarshal(buf[:n], &r)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

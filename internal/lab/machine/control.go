package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxCallers bounds how many callers are served at a time.
const maxCallers = 256

// control serves the control socket.
type control struct {
	children *children
	service  *service
	slots    chan struct{}
}

// run serves until ctx ends.
func (c *control) run(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("control socket: %w", err)
		}
		c.slots <- struct{}{}
		go func() {
			defer func() { <-c.slots }()
			defer conn.Close()
			c.serve(ctx, conn)
		}()
	}
}

// serve answers one caller.
func (c *control) serve(ctx context.Context, conn *net.UnixConn) {
	req, files, err := receive(conn)
	defer closeAll(files)
	if err != nil {
		reply(conn, Reply{Ended: true, Error: err.Error()})
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := listen(conn, cancel)
	switch {
	case req.Exec != nil && len(files) == 3:
		c.exec(ctx, conn, *req.Exec, [3]*os.File(files), gone)
	case req.Write != nil && len(files) == 1:
		r := Reply{Ended: true}
		if err := replace(*req.Write, files[0]); err != nil {
			r.Error = err.Error()
		}
		reply(conn, r)
	case req.Service != "":
		st, err := c.service.do(ctx, req.Service)
		r := Reply{Ended: true, Service: &st}
		if err != nil {
			r.Error = err.Error()
		}
		reply(conn, r)
	default:
		reply(conn, Reply{Ended: true, Error: "not a request, or not with its files"})
	}
}

// receive reads the request and its files.
func receive(conn *net.UnixConn) (req Request, files []*os.File, err error) {
	buf, oob := make([]byte, MaxMessage), make([]byte, unix.CmsgSpace(4*8))
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, on, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return req, nil, err
	}
	conn.SetReadDeadline(time.Time{})
	messages, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil {
		return req, nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "caller"))
		}
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return req, files, fmt.Errorf("a request is longer than %d bytes", MaxMessage)
	}
	return req, files, json.Unmarshal(buf[:n], &req)
}

// listen hands on the caller's signals, and cancels when the caller is gone.
func listen(conn *net.UnixConn, cancel func()) <-chan syscall.Signal {
	signals := make(chan syscall.Signal, 16)
	go func() {
		defer cancel()
		buf := make([]byte, 256)
		for {
			n, err := conn.Read(buf)
			if err != nil || n == 0 {
				return
			}
			var s Signal
			if json.Unmarshal(buf[:n], &s) == nil && s.Signal > 0 {
				select {
				case signals <- syscall.Signal(s.Signal):
				default: // a caller that floods loses signals
				}
			}
		}
	}()
	return signals
}

// exec runs a program for the caller.
func (c *control) exec(ctx context.Context, conn *net.UnixConn, e Exec, files [3]*os.File, signals <-chan syscall.Signal) {
	if len(e.Argv) == 0 {
		reply(conn, Reply{Ended: true, Code: 127, Error: "no command"})
		return
	}
	if e.Dir == "" {
		e.Dir = "/root"
	}
	path, err := exec.LookPath(e.Argv[0])
	if err != nil {
		code := 127
		if errors.Is(err, fs.ErrPermission) {
			code = 126
		}
		reply(conn, Reply{Ended: true, Code: code, Error: fmt.Sprintf("cannot run %s: %v", e.Argv[0], errors.Unwrap(err))})
		return
	}
	pid, end, err := c.children.start(path, e.Argv, append(environment(), e.Env...), e.Dir, files)
	closeAll(files[:])
	if err != nil {
		reply(conn, Reply{Ended: true, Code: 126, Error: fmt.Sprintf("cannot run %s: %v", path, err)})
		return
	}
	reply(conn, Reply{PID: pid})
	for {
		select {
		case ws := <-end:
			reply(conn, Reply{PID: pid, Ended: true, Code: code(ws)})
			return
		case s := <-signals:
			syscall.Kill(-pid, s)
		case <-ctx.Done():
			syscall.Kill(-pid, syscall.SIGKILL)
			<-end
			return
		}
	}
}

// replace writes a file beside the old one and renames it.
func replace(w Write, content io.Reader) error {
	if !filepath.IsAbs(w.Path) {
		return fmt.Errorf("the path %q is not absolute", w.Path)
	}
	if err := os.MkdirAll(filepath.Dir(w.Path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(w.Path), ".new-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	err = errors.Join(err, f.Chmod(fs.FileMode(w.Mode).Perm()), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), w.Path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// reply tells the caller; one that is gone needs no answer.
func reply(conn *net.UnixConn, r Reply) {
	data, err := json.Marshal(r)
	if err != nil {
		return
	}
	conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	conn.Write(data)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

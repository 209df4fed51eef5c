package nbd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

const (
	// mostConnections is how many clients are served at once; one more is hung up on.
	mostConnections = 16
	// handshakeLimit is how long a client has until the transmission phase.
	handshakeLimit = 10 * time.Second
)

// Listen makes a unix socket that only the owner of this process can connect to.
// A socket that a process before left at path is replaced.
func Listen(ctx context.Context, path string) (*net.UnixListener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		_ = os.Remove(path)
	}
	// The mode of the socket becomes that of the file.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(failed, err)
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("offer the device on %s: %w", path, err)
	}
	return l.(*net.UnixListener), nil
}

// Server offers one device to programs on this machine. Create it with NewServer.
type Server struct {
	name  string
	dev   front.Device
	log   *slog.Logger
	pool  pool
	limit time.Duration // of a handshake

	mu     sync.Mutex // guards what follows
	open   map[io.Closer]bool
	closed bool
}

// NewServer returns a server that calls the device by that name; clients that name
// nothing mean it too.
func NewServer(name string, dev front.Device, log *slog.Logger) *Server {
	return &Server{name: name, dev: dev, log: log, limit: handshakeLimit, open: map[io.Closer]bool{}}
}

// Serve takes connections until Close, then it returns nil, or until the listener
// fails. A client that breaks the protocol loses its own connection only.
func (s *Server) Serve(l *net.UnixListener) error {
	if !s.add(l) {
		return l.Close()
	}
	defer s.remove(l)
	for {
		conn, err := l.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("accept a client: %w", err)
		case !s.add(conn):
			s.log.Warn("an NBD client is refused: too many are connected", "most", mostConnections)
			_ = conn.Close()
		default:
			go s.client(conn)
		}
	}
}

// Close ends every connection, and Serve. Requests that the device has not
// completed are left to it.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
}

// add notes the listener or a connection, for Close to close; false if there are
// too many, or after Close.
func (s *Server) add(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.open) > mostConnections {
		return false
	}
	s.open[c] = true
	return true
}

func (s *Server) remove(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	_ = c.Close()
}

// client serves one connection.
func (s *Server) client(conn *net.UnixConn) {
	defer s.remove(conn)
	if err := s.serve(conn); !errors.Is(err, errDisconnected) {
		s.log.Info("an NBD client is gone", "export", s.name, "error", err)
	}
}

func (s *Server) serve(conn *net.UnixConn) error {
	if err := conn.SetDeadline(time.Now().Add(s.limit)); err != nil {
		return err
	}
	in := bufio.NewReaderSize(conn, headers)
	h := handshake{rw: struct {
		io.Reader
		io.Writer
	}{in, conn}, name: s.name, dev: s.dev}
	if err := h.run(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	_ = conn.SetWriteBuffer(sending) // what the system allows
	ses, err := newSession(conn, in, s.dev, &s.pool)
	if err != nil {
		return err
	}
	return ses.run()
}

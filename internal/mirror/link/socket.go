package link

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readBuffer is what one read(2) takes at most. A record is 16 KiB, so it is
	// the records of several frames.
	readBuffer = 256 << 10
	// writeBuffer is what is gathered before a write(2), so that the other side
	// decrypts while this one still encrypts the rest of a large frame.
	writeBuffer = 256 << 10
	// socketBuffer is what the kernel holds each way: a frame that is being
	// sent, and the next ones. The kernel doubles it for its own needs.
	socketBuffer = 2 << 20
	// unackedFor is how long the kernel tries to send before it gives up. It is
	// the last resort: the engine counts a silent copy as lost much earlier, but
	// one whose disk stands still does not read either, and the kernel cannot
	// tell the two apart.
	unackedFor = 60 * time.Second
)

// socket is the TCP connection below TLS. crypto/tls writes each record of
// 16 KiB by itself; the socket gathers them until it is told to push. It is used
// by one reader and one writer at a time.
type socket struct {
	*net.TCPConn

	in       []byte // what was read and not yet taken is in[from:to]
	from, to int
	out      []byte

	// From takeOver on the descriptor is ours, and the runtime's poller is out of
	// the way: read(2) and write(2) wait in the kernel.
	ours   bool
	mu     sync.RWMutex // held for reading by every system call, so that Close does not give the descriptor to another file
	fd     int
	closed atomic.Bool
}

func newSocket(c *net.TCPConn) *socket {
	return &socket{TCPConn: c, in: make([]byte, readBuffer)}
}

// Read is crypto/tls asking for the rest of a record, or more.
func (s *socket) Read(p []byte) (int, error) {
	if s.from == s.to {
		n, err := s.read(s.in)
		if err != nil {
			return 0, err
		}
		s.from, s.to = 0, n
	}
	n := copy(p, s.in[s.from:s.to])
	s.from += n
	return n, nil
}

// Write is crypto/tls writing one record.
func (s *socket) Write(p []byte) (int, error) {
	if !s.ours {
		return len(p), s.write(p)
	}
	if len(s.out)+len(p) > writeBuffer {
		if err := s.push(); err != nil {
			return 0, err
		}
	}
	s.out = append(s.out, p...)
	return len(p), nil
}

// push sends what was gathered.
func (s *socket) push() error {
	if len(s.out) == 0 {
		return nil
	}
	err := s.write(s.out)
	s.out = s.out[:0]
	return err
}

func (s *socket) read(p []byte) (int, error) {
	if !s.ours {
		return s.TCPConn.Read(p)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for !s.closed.Load() {
		n, err := unix.Read(s.fd, p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
	return 0, net.ErrClosed
}

func (s *socket) write(p []byte) error {
	if !s.ours {
		_, err := s.TCPConn.Write(p)
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for len(p) > 0 {
		if s.closed.Load() {
			return net.ErrClosed
		}
		n, err := unix.Write(s.fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		p = p[n:]
	}
	return nil
}

// takeOver takes the descriptor away from the runtime's poller, and with it its
// deadlines. From then on writes are gathered. Nothing may be under way.
func (s *socket) takeOver() error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	var failed error
	if err := raw.Control(func(of uintptr) {
		fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return err
	}
	if failed != nil {
		return os.NewSyscallError("dup", failed)
	}
	// The mode belongs to the connection, not to the descriptor: the poller's
	// must be gone before.
	err = s.TCPConn.Close()
	if err == nil {
		err = os.NewSyscallError("fcntl", unix.SetNonblock(fd, false))
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	s.fd, s.ours = fd, true
	return nil
}

// Close ends reads and writes that wait, of any goroutine, and returns when they
// have ended.
func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	if !s.ours {
		return s.TCPConn.Close()
	}
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
	s.mu.Lock()
	defer s.mu.Unlock()
	return os.NewSyscallError("close", unix.Close(s.fd))
}

// setOptions is called before a socket is connected or listens, because the
// window's scale is settled then. What it wants is better to have, and no reason
// to do without the connection.
func setOptions(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		for _, o := range [...][2]int{{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}} {
			// Above the system's limit only with CAP_NET_ADMIN.
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[0], socketBuffer) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[1], socketBuffer)
			}
		}
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedFor.Milliseconds()))
	})
}

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
	// readBuffer is what one readv(2) takes beyond what is asked for: the next
	// frames, if they are small.
	readBuffer = 64 << 10
	// writeBuffer is what is gathered beside a write(2) that is under way, before
	// others have to wait.
	writeBuffer = 256 << 10
	// socketBuffer is what the kernel holds each way: a frame that is being
	// sent, and the next ones. The kernel doubles it for its own needs.
	socketBuffer = 2 << 20
	// congestion is the control of a link within a building. One that paces what it
	// sends (bbr, where it is the system's choice) sets a timer for every burst and
	// lets it wait: writes of 1 MiB took a third more processor time.
	congestion = "cubic"
	// unackedFor is how long the kernel tries to send before it gives up. It is
	// the last resort: the engine counts a silent copy as lost much earlier, but
	// one whose disk stands still does not read either, and the kernel cannot
	// tell the two apart.
	unackedFor = 60 * time.Second
)

// socket is a TCP connection out of reach of the runtime's poller: read(2) and
// write(2) wait in the kernel. It is used by one reader and one writer at a time.
type socket struct {
	mu     sync.RWMutex // held for reading by every system call, so that Close does not give the descriptor to another file
	fd     int
	closed atomic.Bool

	in       []byte // what was read and not yet taken is in[from:to]
	from, to int
}

// takeOver takes the descriptor away from the runtime's poller, and with it its
// deadlines. Nothing may be under way.
func takeOver(c *net.TCPConn) (*socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var failed error
	if err := raw.Control(func(of uintptr) {
		fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, os.NewSyscallError("dup", failed)
	}
	// The mode belongs to the connection, not to the descriptor: the poller's
	// must be gone before.
	err = c.Close()
	if err == nil {
		err = os.NewSyscallError("fcntl", unix.SetNonblock(fd, false))
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &socket{fd: fd, in: make([]byte, readBuffer)}, nil
}

// has says whether so many bytes were read already.
func (s *socket) has(n int) bool { return s.to-s.from >= n }

// fill reads all of p. At the end of the connection it returns io.EOF if nothing
// of p came, else io.ErrUnexpectedEOF.
func (s *socket) fill(p []byte) error {
	n := copy(p, s.in[s.from:s.to])
	s.from += n
	for some := n > 0; n < len(p); some = true {
		m, err := s.read(p[n:])
		if err == io.EOF && some {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		n += m
	}
	return nil
}

// read waits for some bytes of p; those behind it go into the buffer, which is
// empty before.
func (s *socket) read(p []byte) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	to := [2][]byte{p, s.in}
	for !s.closed.Load() {
		n, err := unix.Readv(s.fd, to[:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			s.from, s.to = 0, max(n-len(p), 0)
			return min(n, len(p)), nil
		}
	}
	return 0, net.ErrClosed
}

// write sends all of p.
func (s *socket) write(p []byte) error {
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

// Close ends reads and writes that wait, of any goroutine, and returns when they
// have ended.
func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return nil
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
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedFor.Milliseconds()))
	})
}

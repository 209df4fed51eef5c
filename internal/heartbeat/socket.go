package heartbeat

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// rebindEvery is how long a socket that cannot be opened waits for another try.
const rebindEvery = time.Second

// classSelector6 is DSCP CS6, network control, as it stands in the TOS byte.
const classSelector6 = 0xc0

// A socket receives and sends on one local address for as long as that address
// is in the cluster file.
type socket struct {
	t     *Transport
	local netip.Addr
	path  atomic.Int32
	stop  context.CancelFunc

	mu    sync.Mutex // guards what follows: one datagram is sent at a time
	raw   syscall.RawConn
	buf   [maxPacket]byte
	out   []byte
	to4   unix.SockaddrInet4
	to6   unix.SockaddrInet6
	err   error
	from  []netip.Addr // of the peers
	write func(fd uintptr) bool
}

func newSocket(t *Transport, local netip.Addr) *socket {
	s := &socket{t: t, local: local}
	s.write = s.push
	return s
}

// run keeps the socket open until ctx ends.
func (s *socket) run(ctx context.Context) {
	told := ""
	for ctx.Err() == nil {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if err.Error() != told {
			told = err.Error()
			s.t.opt.Log.Warn("heartbeats have no socket on an address of this node; trying on", "address", s.local, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(rebindEvery):
		}
	}
}

// serve opens the socket and reads from it until it fails or ctx ends.
func (s *socket) serve(ctx context.Context) error {
	network := "udp4"
	if s.local.Is6() {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: s.options}
	pc, err := lc.ListenPacket(ctx, network, netip.AddrPortFrom(s.local, s.t.opt.Port).String())
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = pc.Close() })()
	defer func() { _ = pc.Close() }()
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return errors.New("no UDP socket")
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	s.use(raw)
	defer s.use(nil)
	buf := make([]byte, maxPacket+1) // one more: what is longer than allowed shows
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		s.t.take(int(s.path.Load()), buf[:n])
	}
}

func (s *socket) use(raw syscall.RawConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = raw
	s.filter()
}

// expect names the addresses from which datagrams are taken.
func (s *socket) expect(from []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.from, from) {
		s.from = from
		s.filter()
	}
}

// filter keeps other datagrams out. Without it all works but for a flood. mu is
// held.
func (s *socket) filter() {
	if s.raw == nil {
		return
	}
	prog, err := newFilter(s.from, s.local.Is6())
	if err == nil {
		err = attach(s.raw, prog)
	}
	if err != nil {
		s.t.opt.Log.Warn("datagrams of strangers cannot be filtered", "address", s.local, "error", err)
	}
}

// options lets the socket be bound while its address is absent, so it works
// again the moment the address comes back. The rest is better to have and no
// reason to do without the socket.
func (s *socket) options(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		if s.local.Is6() {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TCLASS, classSelector6)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TOS, classSelector6)
		}
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, 6) // the highest without a privilege
	})
	return errors.Join(err, failed)
}

var errNoSocket = errors.New("no socket on the local address")

// send seals payload and sends it. It never waits: what the kernel cannot take
// at once fails.
func (s *socket) send(b *box, to netip.AddrPort, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw == nil {
		return errNoSocket
	}
	s.out = b.sealTo(s.buf[:0], payload)
	if to.Addr().Is6() {
		s.to6 = unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	} else {
		s.to4 = unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	if err := s.raw.Write(s.write); err != nil {
		return err
	}
	return s.err
}

// push is the system call of send; true says that there is nothing to wait for.
func (s *socket) push(fd uintptr) bool {
	var to unix.Sockaddr = &s.to4
	if s.local.Is6() {
		to = &s.to6
	}
	s.err = unix.Sendto(int(fd), s.out, unix.MSG_DONTWAIT, to)
	return true
}

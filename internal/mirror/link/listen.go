package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

// strangers bounds the connections that have not yet shown a certificate, or
// that were not yet taken by Accept. Each costs its buffers (about 300 KiB) for
// at most HandshakeTimeout; what comes while there are so many is closed.
const strangers = 16

// ListenOptions of Listen.
type ListenOptions struct {
	Addresses []netip.Addr // of this node; one that is absent now will do, it counts when it is there
	Port      uint16       // 0 takes a free one, for a single address
	Identity  *identity.Identity
	Peer      cluster.NodeName // who may connect
	From      []netip.Addr     // from where; empty: from anywhere
	Log       *slog.Logger
}

// Listener waits for the other copy.
type Listener struct {
	o     ListenOptions
	tls   *tls.Config
	ls    []*net.TCPListener
	ready chan *Conn
	slots chan struct{} // one for each stranger
	quiet *rate.Limiter // of warnings: a stranger could fill the disk with them

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// Listen listens on all addresses, until Close or the end of ctx.
func Listen(ctx context.Context, o ListenOptions) (*Listener, error) {
	if len(o.Addresses) == 0 {
		return nil, errors.New("listen for the other copy: this node has no address")
	}
	l := &Listener{o: o, tls: judge(o.Identity.ServerTLS(nil), o.Identity, o.Peer),
		ready: make(chan *Conn), slots: make(chan struct{}, strangers), quiet: rate.NewLimiter(rate.Every(10*time.Second), 3)}
	l.tls.ClientAuth = tls.RequireAnyClientCert // judge knows whose
	l.ctx, l.stop = context.WithCancel(ctx)
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		return errors.Join(setOptions(network, address, c), freebind(network, c))
	}}
	lc.SetMultipathTCP(false) // its sockets lack the options
	for _, a := range o.Addresses {
		n, err := lc.Listen(l.ctx, "tcp", netip.AddrPortFrom(a, o.Port).String())
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("listen for the other copy: %w", err)
		}
		l.ls = append(l.ls, n.(*net.TCPListener))
	}
	for _, n := range l.ls {
		l.wg.Go(func() { l.accept(n) })
	}
	context.AfterFunc(l.ctx, l.closeSockets)
	return l, nil
}

// freebind lets a socket be bound while its address is absent.
func freebind(network string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		if network == "tcp6" {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		}
	})
	return errors.Join(err, failed)
}

// Port is the port of the first address.
func (l *Listener) Port() uint16 { return uint16(l.ls[0].Addr().(*net.TCPAddr).Port) }

// Accept returns the next connection of the peer. It fails with net.ErrClosed
// after Close.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close stops listening. Connections that Accept returned go on.
func (l *Listener) Close() {
	l.stop()
	l.closeSockets()
	l.wg.Wait()
}

func (l *Listener) closeSockets() {
	for _, n := range l.ls {
		_ = n.Close()
	}
}

// accept takes connections on one address.
func (l *Listener) accept(n *net.TCPListener) {
	for l.ctx.Err() == nil {
		c, err := n.AcceptTCP()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) { // out of descriptors, or the like
				l.warn("a connection to a mirror disk cannot be taken", "error", err)
				select {
				case <-l.ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
			continue
		}
		from, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		if len(l.o.From) > 0 && !slices.Contains(l.o.From, unmap(from).Addr().WithZone("")) {
			_ = c.Close()
			l.warn("a stranger tried to connect to a mirror disk", "from", from)
			continue
		}
		select {
		case l.slots <- struct{}{}:
			l.wg.Go(func() {
				defer func() { <-l.slots }()
				l.greet(c)
			})
		default:
			_ = c.Close()
			l.warn("too many strangers connect to a mirror disk at once", "from", from)
		}
	}
}

// greet finds out who it is, and hands the connection on.
func (l *Listener) greet(raw *net.TCPConn) {
	c, err := l.shake(raw)
	if err != nil {
		_ = raw.Close()
		if l.ctx.Err() == nil {
			l.warn("a connection to a mirror disk was refused", "from", raw.RemoteAddr().String(), "error", err)
		}
		return
	}
	// Who waits here for too long is gone on the other side.
	timer := time.NewTimer(HandshakeTimeout)
	defer timer.Stop()
	select {
	case l.ready <- c:
	case <-timer.C:
		_ = c.Close()
	case <-l.ctx.Done():
		_ = c.Close()
	}
}

func (l *Listener) shake(raw *net.TCPConn) (*Conn, error) {
	t := tls.Server(raw, l.tls)
	if err := t.SetDeadline(time.Now().Add(HandshakeTimeout)); err != nil {
		return nil, err
	}
	if err := t.HandshakeContext(l.ctx); err != nil {
		return nil, err
	}
	if _, err := t.Write([]byte{greeting}); err != nil {
		return nil, err
	}
	return newConn(raw, t, false)
}

func (l *Listener) warn(text string, args ...any) {
	if l.quiet.Allow() {
		l.o.Log.Warn(text, append(args, "peer", l.o.Peer, "port", l.Port())...)
	}
}

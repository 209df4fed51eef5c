package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

const (
	// stagger is how long one address is tried alone before the next one is tried
	// beside it.
	stagger = 150 * time.Millisecond
	// answerWithin is how long an address has to answer at all. The kernel repeats what
	// was lost after 1 s, then 3 s; a new attempt is sooner there when a link that was
	// cut comes back.
	answerWithin = time.Second
	// rememberFor is how long an address that worked is tried before those of a
	// higher priority: all connections of one link then take the same way, and
	// a better way that is mended is used again in the end.
	rememberFor = time.Minute
)

// DialOptions of NewDialer.
type DialOptions struct {
	Addresses []netip.Addr // of the peer, by priority
	Local     []netip.Addr // the address of this node that goes with each; shorter, or invalid ones: the kernel chooses
	Port      uint16
	Identity  *identity.Identity
	Peer      cluster.NodeName
}

// Dialer connects to the other copy. It may be used by several goroutines.
type Dialer struct {
	o   DialOptions
	tls *tls.Config

	mu     sync.Mutex
	worked int       // the index of the address that answered last
	at     time.Time // when; zero: never
}

// NewDialer returns a dialer for one peer.
func NewDialer(o DialOptions) *Dialer {
	return &Dialer{o: o, tls: judge(o.Identity.PeerTLS(o.Peer), o.Identity, o.Peer)}
}

// Dial connects to the first address that answers, and to the peer alone. An
// attempt takes at most HandshakeTimeout. The error has what every address
// answered; it is identity.ErrNotTrusted if one of them showed a certificate
// that is not the peer's.
func (d *Dialer) Dial(ctx context.Context) (*Conn, error) {
	type result struct {
		conn  *Conn
		index int
		err   error
	}
	order := d.order()
	if len(order) == 0 {
		return nil, fmt.Errorf("connect to the copy on %s: it has no address", d.o.Peer)
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan result, len(order))
	started, ended := 0, 0
	defer func() { // those that lost
		cancel()
		go func() {
			for ; ended < started; ended++ {
				if r := <-results; r.conn != nil {
					_ = r.conn.Close()
				}
			}
		}()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var failed []error
	for {
		select {
		case <-timer.C:
			if started < len(order) {
				i := order[started]
				started++
				go func() {
					c, err := d.connect(ctx, i)
					results <- result{c, i, err}
				}()
				timer.Reset(stagger)
			}
		case r := <-results:
			ended++
			if r.err == nil {
				d.mu.Lock()
				d.worked, d.at = r.index, time.Now()
				d.mu.Unlock()
				return r.conn, nil
			}
			failed = append(failed, fmt.Errorf("%s: %w", d.o.Addresses[r.index], r.err))
			if ended == len(order) {
				return nil, fmt.Errorf("connect to the copy on %s: %w", d.o.Peer, errors.Join(failed...))
			}
			timer.Reset(0)
		}
	}
}

// order is the indexes of the addresses as they are to be tried.
func (d *Dialer) order() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := -1
	if !d.at.IsZero() && time.Since(d.at) < rememberFor {
		first = d.worked
	}
	var order []int
	if first >= 0 {
		order = append(order, first)
	}
	for i := range d.o.Addresses {
		if i != first {
			order = append(order, i)
		}
	}
	return order
}

// connect tries one address.
func (d *Dialer) connect(ctx context.Context, i int) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	nd := net.Dialer{Control: setOptions, Timeout: answerWithin}
	nd.SetMultipathTCP(false) // its sockets lack the options
	if i < len(d.o.Local) && d.o.Local[i].IsValid() {
		nd.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.o.Local[i], 0))
	}
	raw, err := nd.DialContext(ctx, "tcp", netip.AddrPortFrom(d.o.Addresses[i], d.o.Port).String())
	if err != nil {
		return nil, err
	}
	c, err := d.shake(ctx, raw.(*net.TCPConn))
	if err != nil {
		_ = raw.Close()
	}
	return c, err
}

func (d *Dialer) shake(ctx context.Context, raw *net.TCPConn) (*Conn, error) {
	t := tls.Client(raw, d.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	var b [1]byte
	_, err := io.ReadFull(t, b[:])
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("it did not let us in: %w", err)
	}
	if b[0] != greeting {
		return nil, fmt.Errorf("it speaks version %d of the link, this is %d: use the same version of tasuki on both nodes", b[0], greeting)
	}
	return newConn(raw, t, true)
}

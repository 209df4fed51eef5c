// Package link joins the two copies of a mirror disk: one side dials, the other
// listens, and what goes over a connection are frames of a header and a payload,
// which the link does not look into.
//
// Connections begin with TLS 1.3 and the certificates of the cluster; what follows
// is sealed with keys from that handshake (seal.go). Each side takes
// only the very node that it expects; who cannot show that he is it is refused
// before anything that he sends is looked at. As between daemons
// (internal/identity) a certificate that has expired is an alarm and no refusal: a
// clock that is wrong must not cost a copy, and with it the next failover. The
// listener sends one byte first, the version of this
// protocol, when it has let the other side in: in TLS 1.3 who dials would
// otherwise learn of a refusal only when it next reads.
//
// What one Send hands over goes out in one system call, as long as it is not
// larger than 128 KiB, and together with what others send at the same time.
// Nothing is queued but that: a Send waits while the other side does not read.
// A connection does not use the runtime's poller: who receives and who sends
// wait in the kernel, each on a thread. BenchmarkRoundTrip4K took 7.8 µs that way
// and 10.2 µs with the poller; it costs a thread for each connection.
package link

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

const (
	// protocol is the ALPN name: nothing else that the nodes speak is taken for it.
	protocol = "tasuki-mirror/1"
	// greeting is the byte that the listener sends first.
	greeting = 1
)

// HandshakeTimeout bounds one attempt to connect, from either side: TCP, TLS and
// the greeting.
const HandshakeTimeout = 5 * time.Second

// Header is what every frame begins with.
type Header = [wire.HeaderSize]byte

// Conn is one connection between two copies. Any number of goroutines may send;
// one receives.
type Conn struct {
	sock   *socket
	local  netip.AddrPort
	remote netip.AddrPort
	shown  *x509.Certificate // of the other side

	mu      sync.Mutex
	room    sync.Cond // the push under way has taken what was gathered
	seals   *direction
	out     []byte // gathered
	going   []byte // out of the push under way
	pushing bool
	large   bool  // a frame is gathered in part
	failed  error // of a push: what follows would be out of step

	opens  *direction
	spoilt error // of a receive
	header [wire.HeaderSize + Overhead]byte
	spare  []byte // a payload whose buffer has no room for Overhead

	left           atomic.Bool  // something is gathered and not sent
	sent, received atomic.Int64 // bytes
}

// Send sends a frame; the payload may be empty, and belongs to the caller again
// afterwards. It waits while the other side does not read; Close ends that. After
// an error every later Send fails too. Without one the kernel has the frame, or
// another Send that waited meanwhile takes it along.
func (c *Conn) Send(h *Header, payload []byte) error { return c.send(h, payload, true) }

// SendMore is Send for a frame that may wait for the next Send or Flush, or for
// the next Receive that has to wait itself.
func (c *Conn) SendMore(h *Header, payload []byte) error { return c.send(h, payload, false) }

// Flush sends what SendMore left.
func (c *Conn) Flush() error { return c.send(nil, nil, true) }

// send gathers a frame. One sender at a time pushes, and takes along what the
// others gather meanwhile: they do not wait for it. A large frame is pushed piece
// by piece, and then they do.
func (c *Conn) send(h *Header, payload []byte, push bool) error {
	large := len(payload) > piece
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.failed == nil && (c.large || c.pushing && (large || len(c.out) >= writeBuffer)) {
		c.room.Wait()
	}
	if h != nil {
		c.sent.Add(int64(len(h) + len(payload)))
		c.out = c.seals.seal(c.out, h[:])
		for p := range slices.Chunk(payload, piece) {
			c.out = c.seals.seal(c.out, p)
			if c.large = large; large {
				c.push()
			}
		}
		c.large = false
	}
	if push || len(c.out) >= writeBuffer {
		c.push()
	}
	c.left.Store(len(c.out) > 0)
	return c.failed
}

// push sends what was gathered, and what is gathered meanwhile, unless another one
// does. mu is held, but not while the kernel takes it.
func (c *Conn) push() {
	for !c.pushing && len(c.out) > 0 && c.failed == nil {
		c.pushing = true
		c.out, c.going = c.going[:0], c.out
		c.mu.Unlock()
		err := c.sock.write(c.going)
		c.mu.Lock()
		c.pushing, c.failed = false, err
		c.room.Broadcast()
	}
}

// Receive waits for the next frame and reads its header. At the end of the
// connection it returns an error that is io.EOF if the other side closed it, and
// net.ErrClosed if this one did.
func (c *Conn) Receive(h *Header) error {
	if err := c.take(c.header[:]); err != nil {
		return err
	}
	copy(h[:], c.header[:])
	return nil
}

// More says whether the next frame, or what it begins with, was read already, with
// the last one. It is for who receives.
func (c *Conn) More() bool { return c.sock.has(len(c.header)) }

// ReadPayload fills p with the payload of the frame whose header came last, which
// has so many bytes. It is quicker if p has Overhead bytes of capacity behind it,
// whose content it changes.
func (c *Conn) ReadPayload(p []byte) error {
	b := p
	if cap(p) < len(p)+Overhead {
		c.spare = slices.Grow(c.spare[:0], len(p)+Overhead)
		b = c.spare[:len(p)]
	}
	for at := 0; at < len(p); at += piece {
		if err := c.take(b[at : min(at+piece, len(p))+Overhead]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	if cap(p) < len(p)+Overhead {
		copy(p, b)
	}
	return nil
}

// take reads and opens what was sealed at once. What this side owes goes out
// before it waits.
func (c *Conn) take(b []byte) error {
	if c.spoilt != nil {
		return c.spoilt
	}
	if c.left.Load() && !c.sock.has(len(b)) {
		if err := c.Flush(); err != nil {
			return err
		}
	}
	err := c.sock.fill(b)
	if err == nil {
		err = c.opens.open(b)
	}
	if err != nil {
		c.spoilt = err
		return err
	}
	c.received.Add(int64(len(b) - Overhead))
	return nil
}

// Close ends the connection, and every Send and Receive that waits. What was
// sent and not yet read by the other side may be lost.
func (c *Conn) Close() error { return c.sock.Close() }

// Local is the address of this side.
func (c *Conn) Local() netip.AddrPort { return c.local }

// Remote is the address of the other side.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Bytes returns how many bytes of frames went each way.
func (c *Conn) Bytes() (sent, received int64) { return c.sent.Load(), c.received.Load() }

// Worn says that so much went over the connection (about 360 GiB) that another
// one, with other keys, should take its place. Nothing breaks if that takes a
// while.
func (c *Conn) Worn() bool { return max(c.sent.Load(), c.received.Load()) > wornAfter }

// judge completes a TLS configuration of an identity: it refuses all but the
// peer's certificate in the handshake.
func judge(c *tls.Config, id *identity.Identity, peer cluster.NodeName) *tls.Config {
	standard := c.VerifyConnection
	c.NextProtos = []string{protocol}
	c.SessionTicketsDisabled = true // every connection is judged by certificates
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != protocol {
			return fmt.Errorf("the other end does not speak %s", protocol)
		}
		// The identity knows its own protocol only, and what it says of a
		// connection before the handshake ends is of no account.
		cs.NegotiatedProtocol, cs.HandshakeComplete = identity.ProtocolPeer, true
		if err := standard(cs); err != nil {
			return err
		}
		who := id.Who(cs, nil)
		switch {
		case who.Kind != identity.OwnNode:
			return fmt.Errorf("%w: it is not of a node of this cluster", identity.ErrNotTrusted)
		case who.Node != peer:
			return fmt.Errorf("%w: node %s where %s should be", identity.ErrNotTrusted, who.Node, peer)
		}
		return nil
	}
	return c
}

// newConn takes over what has shaken hands. Neither side has sent anything since:
// who dialed waits for the greeting, and who listened for the first frame.
func newConn(raw *net.TCPConn, t *tls.Conn, dialed bool) (*Conn, error) {
	local, _ := netip.ParseAddrPort(raw.LocalAddr().String())
	remote, _ := netip.ParseAddrPort(raw.RemoteAddr().String())
	cs := t.ConnectionState()
	out, in, err := directions(cs, dialed)
	if err != nil {
		return nil, err
	}
	s, err := takeOver(raw)
	if err != nil {
		return nil, err
	}
	c := &Conn{sock: s, seals: out, opens: in, local: unmap(local), remote: unmap(remote), shown: cs.PeerCertificates[0]}
	c.room.L = &c.mu
	return c, nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

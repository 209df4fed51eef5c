// Package link joins the two copies of a mirror disk: one side dials, the other
// listens, and what goes over a connection are frames of a header and a payload,
// which the link does not look into.
//
// Connections are TLS 1.3 with the certificates of the cluster. Each side takes
// only the very node that it expects; who cannot show that he is it is refused
// before anything that he sends is looked at. As between daemons
// (internal/identity) a certificate that has expired is an alarm and no refusal: a
// clock that is wrong must not cost a copy, and with it the next failover. The
// listener sends one byte first, the version of this
// protocol, when it has let the other side in: in TLS 1.3 who dials would
// otherwise learn of a refusal only when it next reads.
//
// What one Send hands over goes out in one system call, as long as it is not
// larger than 256 KiB, and together with what others send at the same time.
// Nothing is queued but that: a Send waits while the other side does not read.
// A connection does not use the runtime's poller: who receives and who sends
// wait in the kernel, each on a thread. BenchmarkRoundTrip4K took 7.8 µs that way
// and 10.2 µs with the poller; it costs a thread for each connection.
package link

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/netip"
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
	// record is how many bytes TLS encrypts at once (RFC 8446, section 5.1).
	record = 16 << 10
	// wornAfter bytes one key should encrypt no more: 2^24.5 full records of AES-GCM
	// (RFC 8446, section 5.5). crypto/tls does not change keys by itself.
	wornAfter = 23_726_566 * record
)

// HandshakeTimeout bounds one attempt to connect, from either side: TCP, TLS and
// the greeting.
const HandshakeTimeout = 5 * time.Second

// Header is what every frame begins with.
type Header = [wire.HeaderSize]byte

// Conn is one connection between two copies. Any number of goroutines may send;
// one receives.
type Conn struct {
	tls    *tls.Conn
	sock   *socket
	local  netip.AddrPort
	remote netip.AddrPort

	senders atomic.Int32 // that wait for mu: the last one pushes
	mu      sync.Mutex
	owed    bool         // a Send left its push to the next one
	first   [record]byte // the header and the begin of the payload
	failed  error        // of a send: what follows would be out of step

	sent, received atomic.Int64 // bytes
}

// Send sends a frame; the payload may be empty, and belongs to the caller again
// afterwards. It waits while the other side does not read; Close ends that. After
// an error every later Send fails too. Without one the kernel has the frame, or
// another Send that waited meanwhile takes it along.
func (c *Conn) Send(h *Header, payload []byte) error { return c.send(h, payload, true) }

// SendMore is Send for a frame that may wait for the next Send or Flush of this
// goroutine, which follows at once.
func (c *Conn) SendMore(h *Header, payload []byte) error { return c.send(h, payload, false) }

// Flush sends what SendMore left.
func (c *Conn) Flush() error { return c.send(nil, nil, true) }

func (c *Conn) send(h *Header, payload []byte, push bool) error {
	c.senders.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.senders.Add(-1) == 0
	if c.failed == nil && h != nil {
		c.failed = c.encrypt(h, payload)
	}
	if c.owed = c.owed || push; c.failed == nil && c.owed && last {
		c.owed, c.failed = false, c.sock.push()
	}
	return c.failed
}

// encrypt makes records of a frame. The begin of the payload goes into the
// record of the header: copying it costs less than another record. mu is held.
func (c *Conn) encrypt(h *Header, payload []byte) error {
	n := copy(c.first[len(h):], payload)
	copy(c.first[:], h[:])
	c.sent.Add(int64(len(h) + len(payload)))
	if _, err := c.tls.Write(c.first[:len(h)+n]); err != nil {
		return err
	}
	if n == len(payload) {
		return nil
	}
	_, err := c.tls.Write(payload[n:])
	return err
}

// Receive waits for the next frame and reads its header. At the end of the
// connection it returns an error that is io.EOF if the other side closed it, and
// net.ErrClosed if this one did.
func (c *Conn) Receive(h *Header) error { return c.read(h[:]) }

// ReadPayload fills p from the payload of the frame whose header came last. All
// of a payload has to be read, in one call or several, before the next Receive.
func (c *Conn) ReadPayload(p []byte) error {
	err := c.read(p)
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *Conn) read(p []byte) error {
	n, err := io.ReadFull(c.tls, p)
	c.received.Add(int64(n))
	return err
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
	c.DynamicRecordSizingDisabled = true // small records at the beginning would cost each new connection its speed
	c.SessionTicketsDisabled = true      // every connection is judged by certificates
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

// newConn takes over what has shaken hands.
func newConn(s *socket, t *tls.Conn) (*Conn, error) {
	local, _ := netip.ParseAddrPort(s.LocalAddr().String())
	remote, _ := netip.ParseAddrPort(s.RemoteAddr().String())
	if err := t.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if err := s.takeOver(); err != nil {
		return nil, err
	}
	return &Conn{tls: t, sock: s, local: unmap(local), remote: unmap(remote)}, nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

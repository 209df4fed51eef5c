// Package heartbeat carries small sealed datagrams between the nodes of one
// cluster, over every network they share.
//
// A packet is: version (1 byte), key id (4), counter (8), then AES-256-GCM
// ciphertext with that header as additional data and the counter as nonce. Keys
// come from the TLS exporter of a connection between the same two nodes, one
// for each direction, so there is nothing to configure and no packet without a
// proven sender. A counter is accepted once, within a window of 1,024.
package heartbeat

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Bounds of a packet, in bytes.
const (
	MaxPayload = 1200
	headerSize = 13
	tagSize    = 16
	version    = 1
	keysKept   = 4 // of each peer
	windowBits = 1024
)

// Key is what two nodes derived from one connection. Secret is 32 bytes of its
// TLS exporter; Dialer says which side this node was on.
type Key struct {
	Secret []byte
	Dialer bool
}

// Peer is another node and its addresses; path i joins our address i with its.
type Peer struct {
	Name      cluster.NodeName
	Addresses []netip.Addr
}

// Options of New.
type Options struct {
	Port    uint16
	Log     *slog.Logger
	Receive func(from cluster.NodeName, path int, payload []byte)
}

// Stats counts packets since the start.
type Stats struct{ Sent, Received, Refused, Unsent uint64 }

// Transport is all heartbeats of one node. Its methods may be called from any
// goroutine.
type Transport struct {
	opt Options

	mu      sync.RWMutex
	peers   map[cluster.NodeName]*peer
	byID    map[uint32]*session
	self    []netip.Addr
	sockets []*socket
	changed chan struct{} // capacity 1

	sent, received, refused, unsent atomic.Uint64
}

type peer struct {
	addresses []netip.AddrPort
	sessions  []*session // the oldest first
}

// session is one key in use.
type session struct {
	id        uint32
	peer      cluster.NodeName
	out, in   cipher.AEAD
	counter   atomic.Uint64
	confirmed atomic.Bool // a packet under it has arrived, or this node dialed

	mu     sync.Mutex
	top    uint64
	window [windowBits / 64]uint64
}

type socket struct {
	addr netip.Addr
	path int
	conn *net.UDPConn
	stop context.CancelFunc
	done chan struct{}
}

// New returns a transport that Run starts.
func New(o Options) *Transport {
	return &Transport{opt: o, peers: map[cluster.NodeName]*peer{}, byID: map[uint32]*session{}, changed: make(chan struct{}, 1)}
}

// SetPeers says who the other nodes are, and which addresses are ours.
func (t *Transport) SetPeers(peers []Peer, self []netip.Addr) {
	t.mu.Lock()
	old := t.peers
	t.peers = map[cluster.NodeName]*peer{}
	for _, p := range peers {
		n := &peer{}
		if was := old[p.Name]; was != nil {
			n.sessions = was.sessions
		}
		for _, a := range p.Addresses {
			n.addresses = append(n.addresses, netip.AddrPortFrom(a, t.opt.Port))
		}
		t.peers[p.Name] = n
	}
	for id, s := range t.byID {
		if t.peers[s.peer] == nil {
			delete(t.byID, id)
		}
	}
	t.self = slices.Clone(self)
	t.mu.Unlock()
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// AddKey adds a key for the heartbeats with a peer; the latest few are kept, so
// packets under way are still understood.
func (t *Transport) AddKey(n cluster.NodeName, k Key) error {
	s, err := newSession(n, k)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[n]
	if p == nil {
		return fmt.Errorf("%s is no node of this cluster", n)
	}
	p.sessions = append(p.sessions, s)
	if len(p.sessions) > keysKept {
		delete(t.byID, p.sessions[0].id)
		p.sessions = p.sessions[1:]
	}
	t.byID[s.id] = s
	return nil
}

func newSession(n cluster.NodeName, k Key) (*session, error) {
	derive := func(label string) (cipher.AEAD, error) {
		raw, err := hkdf.Key(sha256.New, k.Secret, nil, "tasuki heartbeat "+label, 32)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	}
	id, err := hkdf.Key(sha256.New, k.Secret, nil, "tasuki heartbeat id", 4)
	if err != nil {
		return nil, fmt.Errorf("derive a heartbeat key: %w", err)
	}
	dialer, err1 := derive("from the dialer")
	acceptor, err2 := derive("from the acceptor")
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("derive a heartbeat key: %w", err)
	}
	s := &session{id: binary.BigEndian.Uint32(id), peer: n, out: dialer, in: acceptor}
	if !k.Dialer {
		s.out, s.in = acceptor, dialer
	}
	s.confirmed.Store(k.Dialer) // the acceptor has derived it before it answered
	return s, nil
}

// current returns the session to send with: the newest that both sides have.
func (p *peer) current() *session {
	for i := len(p.sessions) - 1; i >= 0; i-- {
		if p.sessions[i].confirmed.Load() {
			return p.sessions[i]
		}
	}
	return nil
}

// Send sends one packet on a path. Without a key, or where the path does not
// exist, it is counted as unsent; a heartbeat may be lost.
func (t *Transport) Send(to cluster.NodeName, path int, payload []byte) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p := t.peers[to]
	if p == nil || path >= len(p.addresses) || len(payload) > MaxPayload {
		t.unsent.Add(1)
		return
	}
	s, sock := p.current(), t.socket(path)
	if s == nil || sock == nil {
		t.unsent.Add(1)
		return
	}
	if _, err := sock.conn.WriteToUDPAddrPort(s.seal(payload), p.addresses[path]); err != nil {
		t.unsent.Add(1)
		return
	}
	t.sent.Add(1)
}

func (t *Transport) socket(path int) *socket {
	for _, s := range t.sockets {
		if s.path == path {
			return s
		}
	}
	return nil
}

func nonce(counter uint64) []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[4:], counter)
	return n[:]
}

func (s *session) seal(payload []byte) []byte {
	counter := s.counter.Add(1)
	b := make([]byte, headerSize, headerSize+len(payload)+tagSize)
	b[0] = version
	binary.BigEndian.PutUint32(b[1:], s.id)
	binary.BigEndian.PutUint64(b[5:], counter)
	return s.out.Seal(b, nonce(counter), payload, b[:headerSize])
}

var errRefused = errors.New("not a heartbeat of this cluster")

// open authenticates a packet before anything in it but the fixed header is
// looked at.
func (t *Transport) open(b []byte) (*session, []byte, error) {
	if len(b) < headerSize+tagSize || b[0] != version {
		return nil, nil, errRefused
	}
	t.mu.RLock()
	s := t.byID[binary.BigEndian.Uint32(b[1:])]
	t.mu.RUnlock()
	if s == nil {
		return nil, nil, errRefused
	}
	counter := binary.BigEndian.Uint64(b[5:])
	payload, err := s.in.Open(nil, nonce(counter), b[headerSize:], b[:headerSize])
	if err != nil || !s.fresh(counter) {
		return nil, nil, errRefused
	}
	s.confirmed.Store(true)
	return s, payload, nil
}

// fresh says whether the counter was not seen before, and notes it.
func (s *session) fresh(c uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c+windowBits <= s.top {
		return false
	}
	if c > s.top {
		for i := s.top + 1; i <= c && i <= s.top+windowBits; i++ {
			s.window[i/64%uint64(len(s.window))] &^= 1 << (i % 64)
		}
		s.top = c
	}
	word, bit := c/64%uint64(len(s.window)), uint64(1)<<(c%64)
	if s.window[word]&bit != 0 {
		return false
	}
	s.window[word] |= bit
	return true
}

// rebindEvery is how often a socket that could not be opened is tried again.
const rebindEvery = time.Second

// Run opens and serves the sockets until ctx ends.
func (t *Transport) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			t.bind(nil)
			return nil
		case <-t.changed:
		case <-timer.C:
		}
		t.mu.RLock()
		self := t.self
		t.mu.RUnlock()
		if t.bindAll(ctx, self) {
			timer.Stop()
		} else {
			timer.Reset(rebindEvery)
		}
	}
}

// bindAll brings the sockets in line with our addresses and says whether all
// are open.
func (t *Transport) bindAll(ctx context.Context, self []netip.Addr) bool {
	t.bind(self)
	all := true
	for path, a := range self {
		t.mu.RLock()
		have := t.socket(path)
		t.mu.RUnlock()
		if have != nil {
			continue
		}
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, t.opt.Port)))
		if err != nil {
			t.opt.Log.Debug("a heartbeat address cannot be used yet", "address", a, "error", err)
			all = false
			continue
		}
		sctx, stop := context.WithCancel(ctx)
		s := &socket{addr: a, path: path, conn: conn, stop: stop, done: make(chan struct{})}
		t.mu.Lock()
		t.sockets = append(t.sockets, s)
		t.mu.Unlock()
		go t.serve(sctx, s)
	}
	return all
}

// bind closes the sockets whose address is not ours any more.
func (t *Transport) bind(self []netip.Addr) {
	t.mu.Lock()
	var gone []*socket
	t.sockets = slices.DeleteFunc(t.sockets, func(s *socket) bool {
		keep := s.path < len(self) && self[s.path] == s.addr
		if !keep {
			gone = append(gone, s)
		}
		return !keep
	})
	t.mu.Unlock()
	for _, s := range gone {
		s.stop()
		_ = s.conn.Close()
		<-s.done
	}
}

func (t *Transport) serve(ctx context.Context, s *socket) {
	defer close(s.done)
	buf := make([]byte, 2048)
	for {
		n, _, err := s.conn.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier packet
		}
		session, payload, err := t.open(buf[:n])
		if err != nil {
			t.refused.Add(1)
			continue
		}
		t.received.Add(1)
		t.opt.Receive(session.peer, s.path, payload)
	}
}

// Stats returns the counters.
func (t *Transport) Stats() Stats {
	return Stats{Sent: t.sent.Load(), Received: t.received.Load(), Refused: t.refused.Load(), Unsent: t.unsent.Load()}
}

package heartbeat

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

const (
	windowSize  = 1024 // datagrams of one key that may overtake another
	keysPerPeer = 16   // two for each path: both ends may order them differently
	maxPeers    = 64   // nodes with keys; a cluster has 32
)

// Options of a Transport. All but Log must be set.
type Options struct {
	Port uint16 // that we receive on
	Log  *slog.Logger
	// Receive gets what a peer sent, in the order of arrival on a path, at the
	// same time from several paths. The payload is the receiver's own. While it
	// does not return, nothing else is received on that path.
	Receive func(from cluster.NodeName, path int, payload []byte)
}

// Peer is another node.
type Peer struct {
	Name      cluster.NodeName
	Addresses []netip.Addr // path i leads from our address i to this address i
	Port      uint16
}

// Stats counts datagrams since the start.
type Stats struct {
	Sent     uint64
	Received uint64 // and delivered

	SendErrors uint64 // the kernel refused them, or there was no socket
	NoKey      uint64 // not sent: no key that the peer is known to have
	NoPath     uint64 // not sent: no such peer or path, or too long

	Malformed  uint64 // received, of a wrong size or with a wrong beginning
	UnknownKey uint64 // received, under a key that we do not have
	BadTag     uint64 // received, not sealed by the owner of the key
	Replayed   uint64 // received again, or too late to know
}

type counters struct {
	sent, received, sendErrors, noKey, noPath, malformed, unknownKey, badTag, replayed atomic.Uint64
}

// Transport sends and receives heartbeats.
type Transport struct {
	opt   Options
	n     counters
	clock atomic.Uint64 // orders the uses of keys

	mu      sync.RWMutex
	ctx     context.Context // of Run; nil before, done after
	wg      sync.WaitGroup  // the sockets; none is added once ctx has ended
	orders  uint64
	boxes   map[uint64]*box
	peers   map[cluster.NodeName]*peer
	sockets map[netip.Addr]*socket
}

type peer struct {
	name    cluster.NodeName
	known   bool // by SetPeers; else only by its keys
	paths   []*route
	boxes   []*box
	sending *box // nil until the peer is known to have a key
	trial   *box // a later one that it may not have yet
}

type route struct {
	remote netip.AddrPort
	socket *socket
	fails  atomic.Bool // the latest datagram was not sent
}

// New returns a transport without peers; Run makes it work.
func New(opt Options) *Transport {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Transport{
		opt: opt, boxes: map[uint64]*box{}, peers: map[cluster.NodeName]*peer{}, sockets: map[netip.Addr]*socket{},
	}
}

// SetPeers names the other nodes and our own addresses by priority. The keys of
// nodes that are not named are forgotten. What stays the same is not disturbed.
func (t *Transport) SetPeers(peers []Peer, self []netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.listen(self)
	named := map[cluster.NodeName]bool{}
	var from []netip.Addr
	for _, n := range peers {
		named[n.Name] = true
		p := t.peers[n.Name]
		if p == nil {
			p = &peer{name: n.Name}
			t.peers[n.Name] = p
		}
		p.known = true
		from = append(from, n.Addresses...)
		p.paths = make([]*route, min(len(own), len(n.Addresses)))
		for i := range p.paths {
			if a := n.Addresses[i].Unmap(); a.Is4() == own[i].local.Is4() {
				p.paths[i] = &route{remote: netip.AddrPortFrom(a, n.Port), socket: own[i]}
			}
		}
	}
	for name, p := range t.peers {
		if !named[name] {
			for _, b := range p.boxes {
				delete(t.boxes, b.id)
			}
			delete(t.peers, name)
		}
	}
	for _, s := range own {
		s.expect(from)
	}
}

// listen has a socket for each of our addresses and returns them in order. mu
// is held.
func (t *Transport) listen(self []netip.Addr) []*socket {
	own := make([]*socket, len(self))
	keep := map[netip.Addr]bool{}
	for i, a := range self {
		a = a.Unmap()
		s := t.sockets[a]
		if s == nil {
			s = newSocket(t, a)
			t.sockets[a] = s
			t.start(s)
		}
		if !keep[a] {
			s.path.Store(int32(i))
		}
		own[i], keep[a] = s, true
	}
	for a, s := range t.sockets {
		if !keep[a] {
			delete(t.sockets, a)
			if s.stop != nil {
				s.stop()
			}
		}
	}
	return own
}

// start runs a socket if the transport runs. mu is held.
func (t *Transport) start(s *socket) {
	if t.ctx == nil || t.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(t.ctx)
	s.stop = cancel
	t.wg.Go(func() {
		defer cancel()
		s.run(ctx)
	})
}

// Run receives until ctx ends; it is called once. Its error is always nil.
func (t *Transport) Run(ctx context.Context) error {
	t.mu.Lock()
	t.ctx = ctx
	for _, s := range t.sockets {
		t.start(s)
	}
	t.mu.Unlock()
	<-ctx.Done()
	t.settled()
	t.wg.Wait()
	return nil
}

// settled returns when whoever was starting a socket has added it.
func (t *Transport) settled() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sockets)
}

// Send sends payload, of at most MaxPayload bytes, on one path to a peer. It
// does not wait and does not keep payload. What cannot be sent is counted. While
// the peer may not have our latest key yet, payload is sent under both that and
// the one before, so it may be received twice.
func (t *Transport) Send(to cluster.NodeName, path int, payload []byte) {
	t.mu.RLock()
	p := t.peers[to]
	if p == nil || path < 0 || path >= len(p.paths) || p.paths[path] == nil || len(payload) > MaxPayload {
		t.mu.RUnlock()
		t.n.noPath.Add(1)
		return
	}
	way, b, trial := p.paths[path], p.sending, p.trial
	t.mu.RUnlock()
	if b == nil && trial == nil {
		t.n.noKey.Add(1)
		return
	}
	for _, b := range [...]*box{b, trial} {
		if b != nil {
			t.send(p.name, path, way, b, payload)
		}
	}
}

func (t *Transport) send(to cluster.NodeName, path int, way *route, b *box, payload []byte) {
	b.used.Store(t.clock.Add(1))
	err := way.socket.send(b, way.remote, payload)
	if err == nil {
		t.n.sent.Add(1)
	} else {
		t.n.sendErrors.Add(1)
	}
	failed := err != nil
	if way.fails.Load() == failed || way.fails.Swap(failed) == failed {
		return
	}
	if failed {
		t.opt.Log.Warn("heartbeats cannot be sent", "node", to, "path", path, "address", way.remote, "error", err)
	} else {
		t.opt.Log.Info("heartbeats are sent again", "node", to, "path", path, "address", way.remote)
	}
}

// take handles one datagram. It opens b in place.
func (t *Transport) take(path int, b []byte) {
	h, ok := parseHeader(b)
	if !ok {
		t.n.malformed.Add(1)
		return
	}
	t.mu.RLock()
	box := t.boxes[h.key]
	if box != nil && !box.peer.known {
		box = nil
	}
	t.mu.RUnlock()
	if box == nil {
		t.n.unknownKey.Add(1)
		return
	}
	payload, err := box.openIn(b)
	if err != nil {
		t.n.badTag.Add(1)
		return
	}
	if !box.fresh(h.counter) {
		t.n.replayed.Add(1)
		return
	}
	box.used.Store(t.clock.Add(1))
	if !box.confirmed.Load() {
		t.mu.Lock()
		t.confirm(box)
		t.mu.Unlock()
	}
	t.n.received.Add(1)
	t.opt.Receive(box.peer.name, path, bytes.Clone(payload))
}

// Stats returns the counters.
func (t *Transport) Stats() Stats {
	n := &t.n
	return Stats{
		Sent: n.sent.Load(), Received: n.received.Load(),
		SendErrors: n.sendErrors.Load(), NoKey: n.noKey.Load(), NoPath: n.noPath.Load(),
		Malformed: n.malformed.Load(), UnknownKey: n.unknownKey.Load(), BadTag: n.badTag.Load(), Replayed: n.replayed.Load(),
	}
}

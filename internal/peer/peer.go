// Package peer carries messages between the nodes of one cluster over TLS, on
// every network at once: a normal message is sent on all paths that are up and
// delivered once, so that no path has to be found dead before another is used.
package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

const (
	queueLength  = 512 // frames that wait on one path; the oldest are dropped
	pingEvery    = 2 * time.Second
	silentFor    = 7 * time.Second         // a path without a frame for this long is dead
	unackedFor   = 1500 * time.Millisecond // and so is one that acknowledges nothing that was sent for this long
	dialTimeout  = time.Second
	backoffMin   = 50 * time.Millisecond
	backoffMax   = 500 * time.Millisecond
	protocolNow  = 1
	protocolOld  = 1 // the oldest that is understood
	exportLabel  = "EXPORTER-tasuki-heartbeat"
	exportLength = 32
)

// Peer is another node; path i joins our address i with its.
type Peer struct {
	Name      cluster.NodeName
	Addresses []netip.Addr
	Port      uint16
}

// Options of New.
type Options struct {
	Self    cluster.NodeName
	Boot    string // of this daemon: messages of an earlier one are not confused with ours
	Log     *slog.Logger
	TLS     func(cluster.NodeName) *tls.Config
	Receive func(from cluster.NodeName, class Class, msg []byte)
	// Key is told the exporter's secret of every new connection.
	Key func(n cluster.NodeName, secret []byte, dialer bool)
}

// Transport is all connections to the other nodes.
type Transport struct {
	opt Options
	seq atomic.Uint64

	mu    sync.Mutex
	ctx   context.Context
	peers map[cluster.NodeName]*remote
	self  []netip.Addr
	wg    sync.WaitGroup
}

// remote is one other node.
type remote struct {
	name  cluster.NodeName
	addrs []netip.Addr
	port  atomic.Uint32      // that the next dial uses
	stop  context.CancelFunc // of its dialers
	kick  []chan struct{}    // by path, capacity 1: dial now

	mu    sync.Mutex
	conns map[int]*conn // by path
	boot  string
	seen  window
}

type conn struct {
	tls   *tls.Conn
	path  int
	queue chan []byte
	dead  chan struct{}
	once  sync.Once
}

func (c *conn) close() {
	c.once.Do(func() {
		close(c.dead)
		_ = c.tls.NetConn().Close()
	})
}

// New returns a transport that Run starts.
func New(o Options) *Transport {
	return &Transport{opt: o, peers: map[cluster.NodeName]*remote{}}
}

// Run keeps connections to the peers until ctx ends.
func (t *Transport) Run(ctx context.Context) error {
	t.mu.Lock()
	t.ctx = ctx
	for _, r := range t.peers {
		t.dialAll(r)
	}
	t.mu.Unlock()
	<-ctx.Done()
	t.mu.Lock()
	for _, r := range t.peers {
		r.shut()
	}
	t.mu.Unlock()
	t.wg.Wait()
	return nil
}

// SetPeers says who the other nodes are, and which addresses are ours.
func (t *Transport) SetPeers(peers []Peer, self []netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	same := slices.Equal(t.self, self)
	t.self = slices.Clone(self)
	keep := map[cluster.NodeName]bool{}
	for _, p := range peers {
		keep[p.Name] = true
		if r := t.peers[p.Name]; r != nil {
			if same && slices.Equal(r.addrs, p.Addresses) {
				// A connection that stands brings the peer its new port.
				r.port.Store(uint32(p.Port))
				continue
			}
			r.shut()
		}
		r := &remote{name: p.Name, addrs: slices.Clone(p.Addresses), conns: map[int]*conn{}}
		r.port.Store(uint32(p.Port))
		t.peers[p.Name] = r
		if t.ctx != nil {
			t.dialAll(r)
		}
	}
	for n, r := range t.peers {
		if !keep[n] {
			r.shut()
			delete(t.peers, n)
		}
	}
}

func (r *remote) shut() {
	if r.stop != nil {
		r.stop()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.close()
	}
}

// dialAll starts a dialer for each path if it is our part: the node whose name
// comes first dials.
func (t *Transport) dialAll(r *remote) {
	ctx, stop := context.WithCancel(t.ctx)
	r.stop = stop
	if t.opt.Self > r.name {
		return
	}
	for path := range min(len(r.addrs), len(t.self)) {
		kick := make(chan struct{}, 1)
		r.kick = append(r.kick, kick)
		local := t.self[path]
		t.wg.Go(func() { t.dial(ctx, r, path, local, kick) })
	}
}

// Kick lets a path that is down be dialed at once: something was heard on it.
func (t *Transport) Kick(n cluster.NodeName, path int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.peers[n]; r != nil && path < len(r.kick) && !r.up(path) {
		select {
		case r.kick[path] <- struct{}{}:
		default:
		}
	}
}

func (r *remote) up(path int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns[path] != nil
}

func (t *Transport) dial(ctx context.Context, r *remote, path int, local netip.Addr, kick chan struct{}) {
	backoff := backoffMin
	for ctx.Err() == nil {
		began := time.Now()
		err := t.connect(ctx, r, path, local)
		if ctx.Err() != nil {
			return
		}
		t.opt.Log.Debug("a connection to a node has ended", "node", r.name, "path", path, "error", err)
		if time.Since(began) > 5*time.Second {
			backoff = backoffMin
		}
		select {
		case <-ctx.Done():
		case <-kick:
		case <-time.After(backoff/2 + time.Duration(rand.Int64N(int64(backoff)))):
		}
		backoff = min(2*backoff, backoffMax)
	}
}

func (t *Transport) connect(ctx context.Context, r *remote, path int, local netip.Addr) error {
	d := net.Dialer{Timeout: dialTimeout, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
	raw, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(r.addrs[path], uint16(r.port.Load())).String())
	if err != nil {
		return err
	}
	c := tls.Client(raw, t.opt.TLS(r.name))
	hctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := c.HandshakeContext(hctx); err != nil {
		_ = raw.Close()
		return fmt.Errorf("greet %s: %w", r.name, err)
	}
	return t.serve(r, c, path, true)
}

// Serve takes a connection that was accepted from that node, until it ends.
func (t *Transport) Serve(c *tls.Conn, from cluster.NodeName) {
	addr, err := netip.ParseAddrPort(c.RemoteAddr().String())
	t.mu.Lock()
	r := t.peers[from]
	path := -1
	if r != nil && err == nil {
		path = slices.Index(r.addrs, addr.Addr().Unmap())
	}
	if path < 0 || t.ctx == nil || t.ctx.Err() != nil {
		t.mu.Unlock()
		_ = c.Close()
		return
	}
	t.wg.Add(1)
	t.mu.Unlock()
	defer t.wg.Done()
	err = t.serve(r, c, path, false)
	t.opt.Log.Debug("a connection from a node has ended", "node", from, "path", path, "error", err)
}

// greeting is the first frame of each side.
type greeting struct {
	Boot string `json:"boot"`
	Now  int    `json:"now"`
	Old  int    `json:"old"`
}

func (t *Transport) serve(r *remote, tc *tls.Conn, path int, dialer bool) error {
	setUserTimeout(tc.NetConn())
	c := &conn{tls: tc, path: path, queue: make(chan []byte, queueLength), dead: make(chan struct{})}
	defer c.close()
	in := bufio.NewReader(tc)
	g, err := t.greet(tc, in)
	if err != nil {
		return err
	}
	if g.Old > protocolNow || g.Now < protocolOld {
		t.opt.Log.Error("a node speaks a protocol that does not fit", "node", r.name, "its", g.Now, "ours", protocolNow)
		return errors.New("the protocols do not fit")
	}
	cs := tc.ConnectionState()
	secret, err := cs.ExportKeyingMaterial(exportLabel, nil, exportLength)
	if err != nil {
		return fmt.Errorf("derive a key: %w", err)
	}
	r.mu.Lock()
	if r.boot != g.Boot {
		r.boot, r.seen = g.Boot, window{}
	}
	if old := r.conns[path]; old != nil {
		old.close()
	}
	r.conns[path] = c
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		if r.conns[path] == c {
			delete(r.conns, path)
		}
		r.mu.Unlock()
	}()
	t.opt.Key(r.name, secret, dialer)
	t.wg.Go(func() { c.write() })
	return t.read(r, c, in)
}

func (t *Transport) greet(tc *tls.Conn, in *bufio.Reader) (greeting, error) {
	var g greeting
	mine, err := json.Marshal(greeting{Boot: t.opt.Boot, Now: protocolNow, Old: protocolOld})
	if err != nil {
		return g, err
	}
	if err := tc.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return g, err
	}
	if _, err := tc.Write(frame{class: hello, data: mine}.append(nil)); err != nil {
		return g, err
	}
	f, err := readFrame(in)
	if err != nil {
		return g, err
	}
	if f.class != hello || json.Unmarshal(f.data, &g) != nil {
		return g, errFrame
	}
	return g, tc.SetDeadline(time.Time{})
}

func (t *Transport) read(r *remote, c *conn, in *bufio.Reader) error {
	for {
		if err := c.tls.SetReadDeadline(time.Now().Add(silentFor)); err != nil {
			return err
		}
		f, err := readFrame(in)
		if err != nil {
			return err
		}
		if f.class != Normal && f.class != Bulk {
			continue
		}
		r.mu.Lock()
		fresh := r.seen.add(f.seq)
		r.mu.Unlock()
		if fresh {
			t.opt.Receive(r.name, f.class, f.data)
		}
	}
}

func (c *conn) write() {
	defer c.close()
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		var b []byte
		select {
		case <-c.dead:
			return
		case b = <-c.queue:
		case <-tick.C:
			b = frame{class: ping}.append(nil)
		}
		if err := c.tls.SetWriteDeadline(time.Now().Add(silentFor)); err != nil {
			return
		}
		if _, err := c.tls.Write(b); err != nil {
			return
		}
	}
}

// put queues a frame; where the queue is full the oldest one is dropped.
func (c *conn) put(b []byte) {
	for {
		select {
		case c.queue <- b:
			return
		default:
		}
		select {
		case <-c.queue:
		default:
		}
	}
}

// Send sends a message to a node. It never waits; what cannot be sent is lost,
// as the callers expect.
func (t *Transport) Send(to cluster.NodeName, class Class, msg []byte) {
	t.mu.Lock()
	r := t.peers[to]
	t.mu.Unlock()
	if r == nil || len(msg) > maxBulk {
		return
	}
	if len(msg) > maxNormal {
		class = Bulk
	}
	b := frame{class: class, seq: t.seq.Add(1), data: msg}.append(make([]byte, 0, headerSize+len(msg)))
	r.mu.Lock()
	defer r.mu.Unlock()
	for path := range r.addrs {
		c := r.conns[path]
		if c == nil {
			continue
		}
		c.put(b)
		if class == Bulk {
			return
		}
	}
}

// window remembers which of the latest sequence numbers were seen.
type window struct {
	top  uint64
	bits [4096 / 64]uint64
}

func (w *window) add(n uint64) bool {
	const size = 4096
	if n+size <= w.top {
		return false
	}
	if n > w.top {
		for i := w.top + 1; i <= n && i <= w.top+size; i++ {
			w.bits[i/64%(size/64)] &^= 1 << (i % 64)
		}
		w.top = n
	}
	word, bit := n/64%(size/64), uint64(1)<<(n%64)
	if w.bits[word]&bit != 0 {
		return false
	}
	w.bits[word] |= bit
	return true
}

// setUserTimeout lets the kernel give up on a peer that does not answer.
func setUserTimeout(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedFor.Milliseconds()))
	})
}

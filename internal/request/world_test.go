package request

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

// quiet is for servers whose refusals are part of a test.
var quiet = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)

// shared is a value that a test changes while others read it.
type shared[T any] struct {
	mu sync.Mutex
	v  T
}

func (s *shared[T]) set(v T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.v = v
}

func (s *shared[T]) get() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.v
}

// pass lets pretended time pass.
func pass(d time.Duration) { <-time.After(d) }

// latency is the one-way delay of the pretended network.
const latency = time.Millisecond

// network is a pretended TCP network. Its time is that of the synctest bubble.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	dropped   map[string]bool // nothing arrives there or comes from there
	dials     map[string]int
	conns     []*conn
}

func newNetwork() *network {
	return &network{listeners: map[string]*listener{}, dropped: map[string]bool{}, dials: map[string]int{}}
}

// drop makes an address a black hole, or ends that.
func (n *network) drop(address string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dropped[address] = on
}

func (n *network) drops(address string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dropped[address]
}

func (n *network) dialed(address string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[address]
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dials[address]++
	n.mu.Unlock()
	if n.drops(address) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(2 * latency):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	a, b := n.pair(address)
	select {
	case l.conns <- b:
		return a, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	}
}

func (n *network) pair(address string) (*conn, *conn) {
	there, back := make(chan packet, 4096), make(chan packet, 4096)
	a := &conn{n: n, address: address, in: back, out: there, done: make(chan struct{})}
	b := &conn{n: n, address: address, in: there, out: back, done: make(chan struct{})}
	a.peer, b.peer = b, a
	n.mu.Lock()
	n.conns = append(n.conns, a, b)
	n.mu.Unlock()
	return a, b
}

func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.Close()
	}
}

type packet struct {
	data []byte
	due  time.Time
}

type conn struct {
	n       *network
	address string // of the server
	in, out chan packet
	rest    []byte
	peer    *conn
	once    sync.Once
	done    chan struct{}
}

func (c *conn) Read(b []byte) (int, error) {
	for len(c.rest) == 0 {
		select {
		case <-c.done:
			return 0, net.ErrClosed
		case p := <-c.in:
			pass(time.Until(p.due))
			if c.n.drops(c.address) {
				continue
			}
			if p.data == nil {
				return 0, io.EOF
			}
			c.rest = p.data
		}
	}
	k := copy(b, c.rest)
	c.rest = c.rest[k:]
	return k, nil
}

func (c *conn) Write(b []byte) (int, error) {
	select {
	case <-c.done:
		return 0, net.ErrClosed
	case c.out <- packet{slices.Clone(b), time.Now().Add(latency)}:
		return len(b), nil
	}
}

func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.done)
		select {
		case c.out <- packet{nil, time.Now().Add(latency)}:
		default:
		}
	})
	return nil
}

func (c *conn) LocalAddr() net.Addr              { return tcpAddr("10.9.9.9:1") }
func (c *conn) RemoteAddr() net.Addr             { return tcpAddr(c.address) }
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func tcpAddr(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

type listener struct {
	n       *network
	address string
	conns   chan *conn
	once    sync.Once
	closed  chan struct{}
}

func (n *network) listen(address string) *listener {
	l := &listener{n: n, address: address, conns: make(chan *conn, 64), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[address] = l
	return l
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.n.mu.Lock()
		defer l.n.mu.Unlock()
		if l.n.listeners[l.address] == l {
			delete(l.n.listeners, l.address)
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return tcpAddr(l.address) }

// got is one request as a node got it.
type got struct {
	node    cluster.NodeName
	address string
	req     api.Request
	at      time.Duration // since the test began
}

// guest is the cluster that is asked: two nodes with two addresses each.
type guest struct {
	t     *testing.T
	begun time.Time
	ids   map[cluster.NodeName]*identity.Identity
	trust shared[[]identity.Trusted]

	mu     sync.Mutex
	log    []got
	answer func(cluster.NodeName, *http.Request, api.Request) (int, any)
}

var nodeAddresses = map[cluster.NodeName][]string{
	"CLP-1": {"192.168.10.1:29002", "10.2.102.51:29002"},
	"CLP-2": {"192.168.10.2:29002", "10.2.102.52:29002"},
}

func initIdentity(t *testing.T, name cluster.Name, node cluster.NodeName) *identity.Identity {
	t.Helper()
	id, err := identity.Init(filepath.Join(t.TempDir(), "identity"), name, node)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func joinIdentity(t *testing.T, id *identity.Identity, node cluster.NodeName) *identity.Identity {
	t.Helper()
	key, csr, err := identity.NewCSR(node)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := id.Sign(csr, node)
	if err != nil {
		t.Fatal(err)
	}
	joined, err := identity.Adopt(filepath.Join(t.TempDir(), "identity"), key, cert, id.CAPEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return joined
}

func newGuest(t *testing.T, host *identity.Identity) *guest {
	g := &guest{t: t, begun: time.Now(), ids: map[cluster.NodeName]*identity.Identity{}}
	g.ids["CLP-1"] = initIdentity(t, "VMcluster", "CLP-1")
	g.ids["CLP-2"] = joinIdentity(t, g.ids["CLP-1"], "CLP-2")
	g.trust.set([]identity.Trusted{{Link: "esx", CA: host.CA()}})
	g.answer = func(_ cluster.NodeName, _ *http.Request, r api.Request) (int, any) {
		return http.StatusOK, api.Answer{ID: r.ID, Text: "done"}
	}
	return g
}

// server is the API of one node behind a listener.
func (g *guest) server(node cluster.NodeName, address string) *http.Server {
	id := g.ids[node]
	trust := g.trust.get
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathPing, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST "+PathRequests, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || id.Who(*r.TLS, trust).Link != "esx" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		var req api.Request
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		g.mu.Lock()
		g.log = append(g.log, got{node, address, req, time.Since(g.begun)})
		answer := g.answer
		g.mu.Unlock()
		status, body := answer(node, r, req)
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		if text, ok := body.(string); ok {
			io.WriteString(w, text)
			return
		}
		json.NewEncoder(w).Encode(body)
	})
	return &http.Server{Handler: mux, TLSConfig: id.ServerTLS(trust), ErrorLog: quiet}
}

func (g *guest) setAnswer(f func(cluster.NodeName, *http.Request, api.Request) (int, any)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer = f
}

// took returns what arrived since the last call.
func (g *guest) took() []got {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := g.log
	g.log = nil
	return out
}

func (g *guest) link() Link {
	l := Link{Name: "VMcluster", CA: string(g.ids["CLP-1"].CAPEM())}
	for _, n := range []cluster.NodeName{"CLP-1", "CLP-2"} {
		node := Node{Name: n}
		for _, a := range nodeAddresses[n] {
			node.Addresses = append(node.Addresses, netip.MustParseAddrPort(a))
		}
		l.Nodes = append(l.Nodes, node)
	}
	return l
}

// bubble runs a test with pretended time. It does so on one processor: with more,
// the race detector of Go 1.26 crashes when timers of one bubble fire on two of
// them (https://go.dev/issue/78156).
func bubble(t *testing.T, test func(t *testing.T)) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, test)
}

// world is a guest cluster and a host that asks it, on a pretended network.
type world struct {
	*network
	guest   *guest
	host    *identity.Identity
	links   shared[[]Link]
	sender  *Sender
	servers map[string]*http.Server
	serving sync.WaitGroup
}

// inWorld runs a test in a bubble with pretended time; everything is connected.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	bubble(t, func(t *testing.T) {
		w := &world{network: newNetwork(), servers: map[string]*http.Server{}}
		w.host = initIdentity(t, "bay7-esx", "bay7-esx")
		w.guest = newGuest(t, w.host)
		w.links.set([]Link{w.guest.link()})
		for node, addresses := range nodeAddresses {
			for _, a := range addresses {
				w.serve(node, a)
			}
		}
		w.sender = New(Options{Identity: w.host, Logger: slog.New(slog.DiscardHandler), Links: w.links.get, DialContext: w.dial})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := w.sender.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer func() {
			cancel()
			running.Wait()
			for a := range w.servers {
				w.kill(a)
			}
			w.network.close()
			w.serving.Wait()
			pass(time.Minute) // for what still has a timer
		}()
		pass(100 * time.Millisecond)
		test(t, w)
	})
}

func (w *world) serve(node cluster.NodeName, address string) {
	srv := w.guest.server(node, address)
	w.servers[address] = srv
	l := w.listen(address)
	w.serving.Go(func() { srv.ServeTLS(l, "", "") })
}

// kill ends the server at an address and all its connections.
func (w *world) kill(address string) {
	w.servers[address].Close()
}

// ask sends and says how long it took.
func (w *world) ask(t *testing.T, verb cluster.Verb, hosts ...string) ([]api.HostAnswer, time.Duration) {
	t.Helper()
	begun := time.Now()
	got := w.sender.Send(t.Context(), api.SendRequest{Request: api.Request{ID: "r1", Verb: verb, Resource: "exec", Script: "failover_message.sh"}, Hosts: hosts})
	return got, time.Since(begun)
}

// summary is one line for each answer: host, address, ok or the error's code.
func summary(answers []api.HostAnswer) string {
	var b strings.Builder
	for _, a := range answers {
		word := "ok"
		if a.Error != nil {
			word = a.Error.Code
		}
		if (a.Error == nil) == (a.Answer == nil) {
			word = "both or none"
		}
		fmt.Fprintf(&b, "%s via %s: %s\n", a.Host, a.Via, word)
	}
	return b.String()
}

func (w *world) states() string {
	var b strings.Builder
	for _, n := range w.sender.Reachable() {
		fmt.Fprintf(&b, "%s/%s %v:", n.Link, n.Node, n.Reachable)
		for _, p := range n.Paths {
			fmt.Fprintf(&b, " %v", p.Up)
		}
		b.WriteString("\n")
	}
	return b.String()
}

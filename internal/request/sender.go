package request

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

// The paths of the other end's API.
const (
	PathRequests = "/v1/requests"
	PathPing     = "/v1/ping"
	PathJoin     = "/v1/join"
	PathLink     = "/v1/link"
)

// Link is a cluster that may be asked.
type Link struct {
	Name  cluster.LinkName
	CA    string // PEM; one certificate, or several while it is being replaced
	Nodes []Node
}

// Node is one node of a linked cluster.
type Node struct {
	Name      cluster.NodeName
	Addresses []netip.AddrPort // the best first
}

// Options of New. Identity, Logger and Links must be set; a zero duration or
// number is its default.
type Options struct {
	Identity *identity.Identity
	Logger   *slog.Logger
	// Links returns the links that may be asked. It is called at every Send and
	// every few seconds, and must be quick.
	Links func() []Link
	// DialContext opens a TCP connection; default: net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	Wait        time.Duration // for an answer, if the request does not say; default 10 s
	Hedge       time.Duration // until the next address of a node is tried as well; default 15 ms
	HostHedge   time.Duration // until the next host of a cluster is tried as well; default 50 ms
	Patience    time.Duration // how long a Send waits for a connection that is not there; default 500 ms
	DialTimeout time.Duration // for TCP, TLS and the first answer; default 1 s
	PingEvery   time.Duration // on an idle connection, longer if there are many; default 1 s
	PingTimeout time.Duration // then the connection is dead; default 1 s
	MaxBackoff  time.Duration // between attempts to connect; default 3 s
	MaxSends    int           // at a time, further ones wait; default 16
}

// maxPaths bounds the connections that are kept. Further addresses are left out.
const maxPaths = 256

// pingsAtOnce is how many connections are pinged as often as PingEvery says.
// With more of them each is pinged less often, so that idling stays cheap.
const pingsAtOnce = 8

// refreshEvery is how often Links is looked at without being told to.
const refreshEvery = 2 * time.Second

func (o *Options) defaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.Wait, 10*time.Second)
	def(&o.Hedge, 15*time.Millisecond)
	def(&o.HostHedge, 50*time.Millisecond)
	def(&o.Patience, 500*time.Millisecond)
	def(&o.DialTimeout, time.Second)
	def(&o.PingEvery, time.Second)
	def(&o.PingTimeout, time.Second)
	def(&o.MaxBackoff, 3*time.Second)
	if o.MaxSends <= 0 {
		o.MaxSends = 16
	}
	if o.DialContext == nil {
		o.DialContext = new(net.Dialer).DialContext
	}
}

// Sender asks linked clusters.
type Sender struct {
	o       Options
	slots   chan struct{} // one for each Send under way
	refresh chan struct{}

	mu    sync.Mutex
	ctx   context.Context // of Run; nil: not running
	paths map[pathKey]*path
	wg    sync.WaitGroup // the paths
	full  bool           // maxPaths was logged
}

// pathKey is what makes a connection another one.
type pathKey struct {
	link    cluster.LinkName
	node    cluster.NodeName
	address netip.AddrPort
	ca      string // PEM
}

// New returns a Sender that does nothing before Run.
func New(o Options) *Sender {
	o.defaults()
	return &Sender{o: o, slots: make(chan struct{}, o.MaxSends), refresh: make(chan struct{}, 1), paths: map[pathKey]*path{}}
}

// Run keeps the connections until ctx ends, and returns nil when all are
// closed. It must be running for Send to work.
func (s *Sender) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.ctx != nil {
		s.mu.Unlock()
		return errors.New("request: Run is running already")
	}
	s.ctx = ctx
	s.mu.Unlock()
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		s.reconcile()
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-s.refresh:
		}
	}
	s.mu.Lock()
	s.ctx = nil
	s.paths = map[pathKey]*path{}
	s.mu.Unlock()
	cancel()
	s.wg.Wait()
	return nil
}

// Refresh says that Links returns something new. It never blocks.
func (s *Sender) Refresh() {
	select {
	case s.refresh <- struct{}{}:
	default:
	}
}

// reconcile makes the connections those of the links as they are now, which it
// returns.
func (s *Sender) reconcile() []Link {
	links := s.o.Links()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		return links
	}
	wanted := map[pathKey]bool{}
	var order []pathKey
	for _, l := range links {
		for _, n := range l.Nodes {
			for _, a := range n.Addresses {
				if k := (pathKey{l.Name, n.Name, unmap(a), l.CA}); !wanted[k] {
					wanted[k] = true
					order = append(order, k)
				}
			}
		}
	}
	if over := len(order) > maxPaths; over != s.full {
		if s.full = over; over {
			s.o.Logger.Warn("too many addresses of linked clusters, some are left out", "addresses", len(order), "limit", maxPaths)
		}
	}
	for _, k := range order[min(len(order), maxPaths):] {
		delete(wanted, k)
	}
	order = order[:min(len(order), maxPaths)]
	for k, p := range s.paths {
		if !wanted[k] {
			p.stop()
			delete(s.paths, k)
		}
	}
	for _, k := range order {
		if s.paths[k] == nil {
			s.paths[k] = s.open(k, s.o.PingEvery*time.Duration((len(order)+pingsAtOnce-1)/pingsAtOnce))
		}
	}
	return links
}

// open starts to keep one connection. A CA that cannot be read leaves a path
// that is never up and says why.
func (s *Sender) open(k pathKey, pingEvery time.Duration) *path {
	ctx, stop := context.WithCancel(s.ctx)
	p := &path{key: k, o: &s.o, stop: stop, log: s.o.Logger.With("link", k.link, "node", k.node, "address", k.address),
		changed: make(chan struct{}), kick: make(chan struct{}, 1)}
	cas, err := identity.ParseCertificates([]byte(k.ca))
	var name cluster.Name
	if err == nil {
		name, err = identity.ClusterOf(cas[0])
	}
	if err != nil {
		p.broken = fmt.Errorf("CA of link %s: %w", k.link, err)
	}
	p.transport = transport(s.o.Identity.APITLS(cas, name, k.node), pingEvery, &s.o)
	s.wg.Go(func() { p.run(ctx) })
	return p
}

// find returns the connections to a node, in the order of its addresses.
func (s *Sender) find(l Link, n Node) []*path {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*path
	for _, a := range n.Addresses {
		if p := s.paths[pathKey{l.Name, n.Name, unmap(a), l.CA}]; p != nil {
			out = append(out, p)
		}
	}
	return out
}

// NodeStatus is what is known of a node of a linked cluster.
type NodeStatus struct {
	Link      cluster.LinkName
	Node      cluster.NodeName
	Reachable bool // by at least one address
	Paths     []PathStatus
}

// PathStatus is what is known of one address.
type PathStatus struct {
	Address netip.AddrPort
	Up      bool
	Since   time.Time     // zero: not tried yet
	RTT     time.Duration // of the first answer on this connection
	Why     string        // it is not up
}

// Reachable returns what is known now, in the order of Links.
func (s *Sender) Reachable() []NodeStatus {
	var out []NodeStatus
	for _, l := range s.o.Links() {
		for _, n := range l.Nodes {
			st := NodeStatus{Link: l.Name, Node: n.Name}
			for _, p := range s.find(l, n) {
				ps := p.status()
				st.Reachable = st.Reachable || ps.Up
				st.Paths = append(st.Paths, ps)
			}
			out = append(out, st)
		}
	}
	return out
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// known lists the hosts that can be named, for hints.
func known(links []Link) string {
	names := map[string]bool{}
	for _, l := range links {
		for _, n := range l.Nodes {
			texts := make([]string, 0, len(n.Addresses))
			for _, a := range n.Addresses {
				texts = append(texts, a.Addr().Unmap().String())
			}
			names[fmt.Sprintf("%s (%s)", n.Name, strings.Join(texts, ", "))] = true
		}
	}
	if len(names) == 0 {
		return "no cluster is linked yet: tasuki link"
	}
	all := slices.Sorted(maps.Keys(names))
	if len(all) > 16 {
		all = append(all[:16], "…")
	}
	return "known are: " + strings.Join(all, "; ")
}

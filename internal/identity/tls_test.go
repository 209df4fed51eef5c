package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// clock is a settable wall clock.
type clock struct{ now time.Time }

func (c *clock) time() time.Time { return c.now }

// newIdentity makes a cluster with one node at start.
func newIdentity(t *testing.T, name cluster.Name, node cluster.NodeName) (*Identity, *clock) {
	t.Helper()
	c := &clock{start}
	id, err := create(name, node, c.time)
	if err != nil {
		t.Fatal(err)
	}
	return id, c
}

// secondNode makes another node of id's cluster; a witness gets no CA key.
func secondNode(t *testing.T, id *Identity, node cluster.NodeName, witness bool) *Identity {
	t.Helper()
	key, csr, err := NewCSR(node)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := id.Sign(csr, node)
	if err != nil {
		t.Fatal(err)
	}
	var caKey []byte
	if !witness {
		if caKey, err = id.CAKeyPEM(); err != nil {
			t.Fatal(err)
		}
	}
	other, err := parse(id.CAPEM(), caKey, cert, key, id.clock)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

type shaken struct {
	client, server       tls.ConnectionState
	clientErr, serverErr error // clientErr includes what the server says after the handshake
}

func shake(t *testing.T, server, client *tls.Config) shaken {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	var out shaken
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.Close()
		s := tls.Server(b, server)
		if out.serverErr = s.Handshake(); out.serverErr == nil {
			out.server = s.ConnectionState()
			s.Write([]byte{1})
		}
	}()
	c := tls.Client(a, client)
	if out.clientErr = c.Handshake(); out.clientErr == nil {
		out.client = c.ConnectionState()
		_, out.clientErr = c.Read(make([]byte, 1))
	}
	a.Close()
	<-done
	return out
}

func TestPeers(t *testing.T) {
	one, clk := newIdentity(t, "VMcluster", "CLP-1")
	two := secondNode(t, one, "CLP-2", false)
	witness := secondNode(t, one, "wit", true)
	if witness.CanSign() || !two.CanSign() {
		t.Fatal("the witness must not hold the CA key, another node must")
	}
	for _, id := range []*Identity{two, witness} {
		got := shake(t, one.ServerTLS(nil), id.PeerTLS("CLP-1"))
		if got.clientErr != nil || got.serverErr != nil {
			t.Fatalf("%s calls CLP-1: %v, %v", id.Node(), got.clientErr, got.serverErr)
		}
		want := Caller{Kind: OwnNode, Node: id.Node(), Cluster: "VMcluster"}
		if who := one.Who(got.server, nil); who != want {
			t.Fatalf("who = %+v, want %+v", who, want)
		}
		if p := got.server.NegotiatedProtocol; p != ProtocolPeer {
			t.Fatalf("protocol %q", p)
		}
	}
	got := shake(t, one.ServerTLS(nil), two.PeerTLS("CLP-3"))
	if !errors.Is(got.clientErr, ErrNotTrusted) || !strings.Contains(got.clientErr.Error(), "CLP-1 answers where CLP-3") {
		t.Fatalf("wrong node name: %v", got.clientErr)
	}

	// Years later, nothing renewed: reported, not refused.
	clk.now = start.AddDate(25, 0, 0)
	got = shake(t, one.ServerTLS(nil), two.PeerTLS("CLP-1"))
	if got.clientErr != nil || got.serverErr != nil {
		t.Fatalf("expired own certificates: %v, %v", got.clientErr, got.serverErr)
	}
	if who := one.Who(got.server, nil); who.Kind != OwnNode || !who.Expired {
		t.Fatalf("who = %+v, want an own node, expired", who)
	}
	// And before they were made.
	clk.now = time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC)
	if got = shake(t, one.ServerTLS(nil), two.PeerTLS("")); got.clientErr != nil || got.serverErr != nil {
		t.Fatalf("clock at 1970: %v, %v", got.clientErr, got.serverErr)
	}
	if fresh := secondNode(t, one, "CLP-4", false); fresh.Node() != "CLP-4" {
		t.Fatal("a node signed with a clock at 1970 must fit its CA")
	}
}

func TestCallers(t *testing.T) {
	us, clk := newIdentity(t, "VMcluster", "CLP-1")
	host, _ := newIdentity(t, "bay7-esx", "bay7-esx")
	host.clock = clk.time
	// It calls itself like our node; its CA decides.
	liar, _ := newIdentity(t, "VMcluster", "CLP-2")
	liar.clock = clk.time
	trust := func() []Trusted {
		return []Trusted{{Link: "empty"}, {Link: "esx", CA: host.CA()}, {Link: "liar", CA: liar.CA()}}
	}
	toUs := []*x509.Certificate{us.CA()}
	call := func(id *Identity) shaken {
		return shake(t, us.ServerTLS(trust), id.APITLS(toUs, "VMcluster", "CLP-1"))
	}

	got := call(host)
	if got.clientErr != nil || got.serverErr != nil {
		t.Fatalf("link: %v, %v", got.clientErr, got.serverErr)
	}
	if who, want := us.Who(got.server, trust), (Caller{Kind: Link, Link: "esx", Node: "bay7-esx", Cluster: "bay7-esx"}); who != want {
		t.Fatalf("who = %+v, want %+v", who, want)
	}
	if got.server.NegotiatedProtocol != "h2" {
		t.Fatalf("protocol %q, want h2", got.server.NegotiatedProtocol)
	}
	if who := us.Who(got.server, nil); who.Kind != Anonymous {
		t.Fatalf("a link that was removed since is %+v", who)
	}
	clk.now = start.AddDate(3, 0, 0)
	if who := us.Who(got.server, trust); who.Kind != Anonymous {
		t.Fatalf("a link that expired since is %+v", who)
	}
	clk.now = start

	got = call(liar)
	if who := us.Who(got.server, trust); who.Kind != Link || who.Link != "liar" {
		t.Fatalf("a link with our names is %+v", who)
	}

	// Nobody: let in without a name.
	anon := pinned(func(*x509.Certificate) error { return nil }, "http/1.1")
	got = shake(t, us.ServerTLS(trust), anon)
	if got.clientErr != nil || got.serverErr != nil || us.Who(got.server, trust).Kind != Anonymous {
		t.Fatalf("no certificate: %v, %v", got.clientErr, got.serverErr)
	}
	if len(got.client.PeerCertificates) != 2 || !got.client.PeerCertificates[1].Equal(us.CA()) {
		t.Fatal("the server does not show its CA")
	}
}

func TestRefused(t *testing.T) {
	us, clk := newIdentity(t, "VMcluster", "CLP-1")
	host, _ := newIdentity(t, "bay7-esx", "bay7-esx")
	stranger, _ := newIdentity(t, "VMcluster", "CLP-2")
	host.clock, stranger.clock = clk.time, clk.time
	trust := func() []Trusted { return []Trusted{{Link: "esx", CA: host.CA()}} }
	blind := func(*x509.Certificate) error { return nil }
	with := func(c *tls.Config, id *Identity) *tls.Config {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.cur.Load().tls, nil }
		return c
	}
	asCA := &Identity{clock: clk.time}
	asCA.cur.Store(&material{tls: tls.Certificate{Certificate: [][]byte{us.CA().Raw}, PrivateKey: us.cur.Load().caKey}})
	tls12 := pinned(blind, "h2")
	tls12.MinVersion, tls12.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	revoked := secondNode(t, us, "CLP-9", false)
	us.SetRevoked(func(c *x509.Certificate) bool { return c.Equal(revoked.Certificate()) })

	for _, c := range []struct {
		name   string
		client *tls.Config
		now    time.Time
		server string // what the server says
	}{
		{"wrong CA", with(pinned(blind, "h2"), stranger), start, "neither this cluster's CA nor"},
		{"wrong CA, peer protocol", with(pinned(blind, ProtocolPeer), stranger), start, "neither this cluster's CA nor"},
		{"no certificate, peer protocol", pinned(blind, ProtocolPeer), start, "for the nodes of this cluster only"},
		{"a link's certificate, peer protocol", with(pinned(blind, ProtocolPeer), host), start, "for the nodes of this cluster only"},
		{"expired link", with(pinned(blind, "h2"), host), start.Add(nodeValidity + time.Second), "link esx: it has expired"},
		{"a link not valid yet", with(pinned(blind, "h2"), host), start.Add(-backdate - time.Second), "not valid yet"},
		{"TLS 1.2", tls12, start, "unsupported versions"},
		{"the CA itself as a client", with(pinned(blind, "h2"), asCA), start, "is not a name"},
		{"revoked", with(pinned(blind, "h2"), revoked), start, "it was revoked"},
		{"another protocol", pinned(blind, "smtp"), start, "unsupported application protocols"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clk.now = c.now
			got := shake(t, us.ServerTLS(trust), c.client)
			if got.serverErr == nil || !strings.Contains(got.serverErr.Error(), c.server) {
				t.Fatalf("the server says %v, want %q", got.serverErr, c.server)
			}
			if got.clientErr == nil {
				t.Fatal("the client was let in")
			}
		})
	}
}

func TestWrongServer(t *testing.T) {
	us, clk := newIdentity(t, "VMcluster", "CLP-1")
	other, _ := newIdentity(t, "VMcluster", "CLP-1") // the same names, another CA
	other.clock = clk.time
	toUs := []*x509.Certificate{us.CA()}
	for _, c := range []struct {
		name   string
		server *Identity
		client *tls.Config
		now    time.Time
		want   string
	}{
		{"peer, wrong CA", other, us.PeerTLS("CLP-1"), start, "neither this cluster's CA"},
		{"api, wrong CA", other, other.APITLS(toUs, "VMcluster", "CLP-1"), start, "another CA signed it"},
		{"api, no CA at all", us, us.APITLS(nil, "VMcluster", "CLP-1"), start, "another CA signed it"},
		{"api, wrong cluster", us, us.APITLS(toUs, "VMcluster2", ""), start, "cluster VMcluster answers where VMcluster2"},
		{"api, wrong node", us, us.APITLS(toUs, "VMcluster", "CLP-2"), start, "node CLP-1 answers where CLP-2"},
		{"api, expired", us, us.APITLS(toUs, "VMcluster", ""), start.Add(nodeValidity + time.Second), "it has expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clk.now = c.now
			got := shake(t, c.server.ServerTLS(nil), c.client)
			if !errors.Is(got.clientErr, ErrNotTrusted) || !strings.Contains(got.clientErr.Error(), c.want) {
				t.Fatalf("the client says %v, want %q", got.clientErr, c.want)
			}
		})
	}
	// A server that speaks no ALPN is not taken for a peer.
	plain := us.ServerTLS(nil)
	plain.NextProtos = nil
	clk.now = start
	if got := shake(t, plain, us.PeerTLS("CLP-1")); got.clientErr == nil {
		t.Fatal("a server without the peer protocol was taken")
	}
}

// A resumed session is judged anew.
func TestResumption(t *testing.T) {
	us, clk := newIdentity(t, "VMcluster", "CLP-1")
	host, _ := newIdentity(t, "bay7-esx", "bay7-esx")
	host.clock = clk.time
	links := []Trusted{{Link: "esx", CA: host.CA()}}
	server := us.ServerTLS(func() []Trusted { return links })
	client := host.APITLS([]*x509.Certificate{us.CA()}, "VMcluster", "")
	client.ServerName = "x"
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	if got := shake(t, server, client); got.clientErr != nil || got.client.DidResume {
		t.Fatalf("first: %v", got.clientErr)
	}
	got := shake(t, server, client)
	if got.clientErr != nil || !got.server.DidResume {
		t.Fatalf("second: %v, resumed %v", got.clientErr, got.server.DidResume)
	}
	if who := us.Who(got.server, func() []Trusted { return links }); who.Kind != Link {
		t.Fatalf("resumed: %+v", who)
	}
	links = nil
	if got := shake(t, server, client); got.serverErr == nil {
		t.Fatal("a session of a link that was removed was resumed")
	}
}

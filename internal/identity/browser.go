package identity

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// browserValidity is how long a certificate for browsers is valid. It is made
// anew when a third of that is left, and lives in memory only.
const browserValidity = 90 * 24 * time.Hour

// BrowserTLS is for a door that browsers come to. A browser compares the address
// that it was given with the certificate, and a node's own names no address, so
// this node's CA issues one for all of the addresses that hosts returns, and the
// node's name. Where the key of the CA is not at hand, on a witness, it is the
// node's own. It never counts as a node's.
func (id *Identity) BrowserTLS(hosts func() []netip.Addr) *tls.Config {
	b := &browser{id: id, hosts: hosts}
	return &tls.Config{
		Time: id.clock, MinVersion: tls.VersionTLS13, NextProtos: []string{protocolHTTP2, protocolHTTP1},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return b.current() },
	}
}

// AnswerByAddress lets the server that c is of be called by address too, by
// programs that compare it with the certificate: curl, and clients in other
// languages. They are shown one that names the addresses and is the node's as
// well, so that nodes and linked clusters who call the same port know it. Peers,
// who ask for their own protocol, are shown the node's own.
func (id *Identity) AnswerByAddress(c *tls.Config, hosts func() []netip.Addr) *tls.Config {
	b, own := &browser{id: id, hosts: hosts, node: true}, c.GetCertificate
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if slices.Contains(hello.SupportedProtos, ProtocolPeer) {
			return own(hello)
		}
		return b.current()
	}
	return c
}

// browser keeps the certificate for browsers.
type browser struct {
	id    *Identity
	hosts func() []netip.Addr
	node  bool // it is to be known as the node too

	mu   sync.Mutex
	m    *material // that it was made from
	cert *tls.Certificate
	of   []netip.Addr
}

func (b *browser) current() (*tls.Certificate, error) {
	m, hosts, now := b.id.cur.Load(), b.hosts(), b.id.clock()
	if m.caKey == nil {
		return &m.tls, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cert != nil && b.m == m && slices.Equal(b.of, hosts) && (b.node || b.cert.Leaf.NotAfter.Sub(now) > browserValidity/3) {
		return b.cert, nil
	}
	cert, err := m.forBrowsers(hosts, b.node, now)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for browsers: %w", err)
	}
	b.m, b.cert, b.of = m, cert, slices.Clone(hosts)
	return cert, nil
}

func (m *material) forBrowsers(hosts []netip.Addr, node bool, now time.Time) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	ca := m.cas[0]
	template := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{string(m.cluster)}, CommonName: string(m.node)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(browserValidity), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if !strings.ContainsAny(string(m.node), "_") {
		template.DNSNames = []string{strings.ToLower(string(m.node))}
	}
	if node {
		// As long as the node's own: it may have been made when the clock was right.
		template.NotBefore, template.NotAfter = m.cert.NotBefore, m.cert.NotAfter
		template.URIs = []*url.URL{nodeURI(m.cluster, m.node)}
	}
	for _, h := range hosts {
		template.IPAddresses = append(template.IPAddresses, net.IP(h.AsSlice()))
	}
	cert, err := certify(template, ca, key.Public(), m.caKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw, ca.Raw}, PrivateKey: key, Leaf: cert}, nil
}

package identity

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Identity is one node's identity. It is safe for concurrent use. TLS
// configurations that it gave out follow every later change of it, from the
// next handshake on.
type Identity struct {
	clock   func() time.Time
	mu      sync.Mutex // one change at a time
	cur     atomic.Pointer[material]
	revoked atomic.Pointer[func(*x509.Certificate) bool]
}

// material is one consistent set of keys and certificates, never changed.
type material struct {
	cluster cluster.Name
	node    cluster.NodeName
	cas     []*x509.Certificate // the first one signs
	caKey   crypto.Signer       // nil: a witness
	cert    *x509.Certificate
	key     crypto.Signer
	tls     tls.Certificate
}

func refuse(code, hint, format string, args ...any) *api.Error {
	return &api.Error{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Init makes a new cluster: its CA and the certificate of its first node, and
// stores both in dir. It refuses to overwrite an identity that is there.
func Init(dir string, name cluster.Name, node cluster.NodeName) (*Identity, error) {
	if err := vacant(dir); err != nil {
		return nil, err
	}
	id, err := create(name, node, time.Now)
	if err != nil {
		return nil, err
	}
	return id, id.Save(dir)
}

// create makes the identity of a new cluster in memory.
func create(name cluster.Name, node cluster.NodeName, clock func() time.Time) (*Identity, error) {
	ca, caKey, err := newCA(name, clock())
	if err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	cert, err := issue(ca, caKey, node, key.Public(), clock())
	if err != nil {
		return nil, err
	}
	return assemble([]*x509.Certificate{ca}, caKey, cert, key, clock)
}

// Adopt stores what a node got when it joined a cluster: its own key, the
// certificate that the cluster signed for it, the CA and, unless the node is a
// witness, the key of the CA. It refuses parts that do not belong together and
// to overwrite an identity that is there.
func Adopt(dir string, key, certPEM, caPEM, caKeyPEM []byte) (*Identity, error) {
	if err := vacant(dir); err != nil {
		return nil, err
	}
	id, err := parse(caPEM, caKeyPEM, certPEM, key, time.Now)
	if err != nil {
		return nil, err
	}
	return id, id.Save(dir)
}

// parse reads an identity from its PEM parts; caKeyPEM may be empty.
func parse(caPEM, caKeyPEM, certPEM, keyPEM []byte, clock func() time.Time) (*Identity, error) {
	cas, caKey, err := parseCAs(caPEM, caKeyPEM)
	if err != nil {
		return nil, err
	}
	cert, key, err := parseNode(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	return assemble(cas, caKey, cert, key, clock)
}

func parseCAs(caPEM, caKeyPEM []byte) ([]*x509.Certificate, crypto.Signer, error) {
	cas, err := ParseCertificates(caPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("CA certificate: %w", err)
	}
	if len(bytes.TrimSpace(caKeyPEM)) == 0 {
		return cas, nil, nil
	}
	key, err := matchingKey(caKeyPEM, cas[0])
	if err != nil {
		return nil, nil, fmt.Errorf("key of the CA: %w", err)
	}
	return cas, key, nil
}

func parseNode(certPEM, keyPEM []byte) (*x509.Certificate, crypto.Signer, error) {
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("node certificate: %w", err)
	}
	key, err := matchingKey(keyPEM, certs[0])
	if err != nil {
		return nil, nil, fmt.Errorf("key of the node: %w", err)
	}
	return certs[0], key, nil
}

// assemble checks that the parts belong together.
func assemble(cas []*x509.Certificate, caKey crypto.Signer, cert *x509.Certificate, key crypto.Signer, clock func() time.Time) (*Identity, error) {
	m := &material{cas: cas, caKey: caKey, cert: cert, key: key}
	if err := m.check(clock()); err != nil {
		return nil, err
	}
	id := &Identity{clock: clock}
	id.cur.Store(m)
	return id, nil
}

// check fills in what follows from the parts, or says why they do not fit.
func (m *material) check(now time.Time) error {
	var err error
	if m.cluster, m.node, err = namesOf(m.cert); err != nil {
		return err
	}
	for _, ca := range m.cas {
		if !ca.IsCA || !ca.BasicConstraintsValid {
			return errors.New("a certificate that is given as a CA is none")
		}
		name, err := ClusterOf(ca)
		if err != nil {
			return err
		}
		if name != m.cluster {
			return fmt.Errorf("the CA is of cluster %s, the node's certificate of cluster %s", name, m.cluster)
		}
	}
	if m.issuer(now) == nil {
		return errors.New("the node's certificate is not signed by the cluster's CA")
	}
	// The CAs go along so that the holder of a token can compare their hash.
	chain := [][]byte{m.cert.Raw}
	for _, ca := range m.cas {
		chain = append(chain, ca.Raw)
	}
	m.tls = tls.Certificate{Certificate: chain, PrivateKey: m.key, Leaf: m.cert}
	return nil
}

// issuer is the CA that signed the node's own certificate, or nil.
func (m *material) issuer(now time.Time) *x509.Certificate {
	for _, ca := range m.cas {
		if err := signedBy(m.cert, ca, x509.ExtKeyUsageServerAuth, now, lenient); err == nil {
			return ca
		}
	}
	return nil
}

// Cluster returns the name of the cluster.
func (id *Identity) Cluster() cluster.Name { return id.cur.Load().cluster }

// Node returns the name of the node.
func (id *Identity) Node() cluster.NodeName { return id.cur.Load().node }

// Certificate returns the node's own certificate.
func (id *Identity) Certificate() *x509.Certificate { return id.cur.Load().cert }

// CA returns the CA certificate that signs.
func (id *Identity) CA() *x509.Certificate { return id.cur.Load().cas[0] }

// CAPEM returns all CA certificates of the cluster: what a link is given.
func (id *Identity) CAPEM() []byte { return encodeCerts(id.cur.Load().cas...) }

// CanSign says whether the key of the CA is here. It is not on a witness.
func (id *Identity) CanSign() bool { return id.cur.Load().caKey != nil }

// CAKeyPEM returns the key of the CA, for a node that joins and is no witness.
func (id *Identity) CAKeyPEM() ([]byte, error) {
	m := id.cur.Load()
	if m.caKey == nil {
		return nil, noCAKey()
	}
	return encodeKey(m.caKey)
}

func noCAKey() *api.Error {
	return refuse("no-ca-key", "ask a node that is no witness", "this node does not hold the key of the cluster's CA")
}

// Sign issues a node's certificate from its request. Only the public key is
// taken from the request; node must be the name in it.
func (id *Identity) Sign(csrPEM []byte, node cluster.NodeName) ([]byte, error) {
	m := id.cur.Load()
	if m.caKey == nil {
		return nil, noCAKey()
	}
	public, err := parseCSR(csrPEM, node)
	if err != nil {
		return nil, err
	}
	cert, err := issue(m.cas[0], m.caKey, node, public, id.clock())
	if err != nil {
		return nil, err
	}
	return encodeCerts(cert), nil
}

// renewAt is how much of a certificate's validity may be left before Renew
// makes a new one.
const renewAt = nodeValidity / 3

// Renew gives the node a new key and certificate if the present one expires
// within a third of its validity, is not valid yet, or was signed by a CA that
// no longer signs. It says whether it did; the caller then saves. A node without
// the key of the CA (a witness) gets an error when it is time, and uses NewCSR,
// another node's Sign, and Install.
func (id *Identity) Renew(now time.Time) (bool, error) {
	m := id.cur.Load()
	if m.issuer(now) == m.cas[0] && m.cert.NotAfter.Sub(now) > renewAt && !now.Before(m.cert.NotBefore) {
		return false, nil
	}
	if m.caKey == nil {
		return false, noCAKey()
	}
	key, err := newKey()
	if err != nil {
		return false, err
	}
	cert, err := issue(m.cas[0], m.caKey, m.node, key.Public(), now)
	if err != nil {
		return false, err
	}
	if err := id.change(func(m *material) { m.cert, m.key = cert, key }); err != nil {
		return false, err
	}
	return true, nil
}

// Install replaces the node's own key and certificate, which must be for the
// same node of the same cluster. The caller then saves.
func (id *Identity) Install(keyPEM, certPEM []byte) error {
	cert, key, err := parseNode(certPEM, keyPEM)
	if err != nil {
		return err
	}
	return id.change(func(m *material) { m.cert, m.key = cert, key })
}

// SetCAs replaces the CA certificates: the first one signs, all are trusted.
// caKeyPEM is the key of the first, empty on a witness. To replace a CA without
// a gap, every node first trusts the new one as the second, then it becomes
// the first everywhere and the nodes renew, then the old one is dropped. The
// caller then saves.
func (id *Identity) SetCAs(caPEM, caKeyPEM []byte) error {
	cas, caKey, err := parseCAs(caPEM, caKeyPEM)
	if err != nil {
		return err
	}
	return id.change(func(m *material) { m.cas, m.caKey = cas, caKey })
}

// NewCA makes the successor of the cluster's CA, for SetCAs. It changes
// nothing.
func (id *Identity) NewCA(now time.Time) (caPEM, caKeyPEM []byte, err error) {
	ca, key, err := newCA(id.Cluster(), now)
	if err != nil {
		return nil, nil, err
	}
	if caKeyPEM, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	return encodeCerts(ca), caKeyPEM, nil
}

// change puts a changed copy in force, if it is whole and of the same node.
func (id *Identity) change(edit func(*material)) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	old := id.cur.Load()
	m := *old
	edit(&m)
	if err := m.check(id.clock()); err != nil {
		return err
	}
	if m.cluster != old.cluster || m.node != old.node {
		return fmt.Errorf("the certificate is of node %s of cluster %s, this is node %s of cluster %s",
			m.node, m.cluster, old.node, old.cluster)
	}
	id.cur.Store(&m)
	return nil
}

// SetRevoked sets what says whether a certificate, of this cluster or of a
// link, was withdrawn before its time. It is asked at every handshake and by
// every Who, must be quick, and must not call back.
func (id *Identity) SetRevoked(revoked func(*x509.Certificate) bool) {
	id.revoked.Store(&revoked)
}

func (id *Identity) isRevoked(c *x509.Certificate) bool {
	f := id.revoked.Load()
	return f != nil && *f != nil && (*f)(c)
}

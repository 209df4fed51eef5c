package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Trusted is one CA of another cluster that this one is linked with. A link
// whose CA is being replaced has two entries.
type Trusted struct {
	Link cluster.LinkName
	CA   *x509.Certificate
}

// Kind says what sort of caller there is.
type Kind string

// The kinds of callers.
const (
	Anonymous Kind = "anonymous" // no certificate, or one that counts for nothing
	OwnNode   Kind = "node"      // a node of this cluster
	Link      Kind = "link"      // a node of a linked cluster
)

// Caller is who is at the other end of a connection.
type Caller struct {
	Kind    Kind
	Node    cluster.NodeName // the node's name in its own cluster
	Link    cluster.LinkName // of Kind Link
	Cluster cluster.Name     // as the certificate says; the CA decides, not this
	Expired bool             // an own node's certificate, accepted all the same
}

// ErrNotTrusted is behind every refusal of a certificate by this package.
var ErrNotTrusted = errors.New("certificate not trusted")

// mode is how time counts in a judgment.
type mode bool

const (
	lenient mode = false
	strict  mode = true
)

var errExpired = errors.New("it has expired or is not valid yet")

// signedBy says whether ca itself signed leaf for that usage. In strict mode
// both must be valid now, else at some common moment.
func signedBy(leaf, ca *x509.Certificate, usage x509.ExtKeyUsage, now time.Time, m mode) error {
	if leaf.IsCA {
		return errors.New("it is the certificate of a CA")
	}
	low, high := leaf.NotBefore, leaf.NotAfter
	if ca.NotBefore.After(low) {
		low = ca.NotBefore
	}
	if ca.NotAfter.Before(high) {
		high = ca.NotAfter
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	at := clamp(now, low, high)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return err
	}
	if m == strict && !at.Equal(now) {
		return fmt.Errorf("%w (%s to %s)", errExpired, low.Format(time.DateOnly), high.Format(time.DateOnly))
	}
	return nil
}

// judge says whose certificate leaf is, or why it is refused.
func (id *Identity) judge(leaf *x509.Certificate, usage x509.ExtKeyUsage, trust func() []Trusted) (Caller, error) {
	no := func(err error) (Caller, error) {
		return Caller{Kind: Anonymous}, fmt.Errorf("%w: %q of %q: %w", ErrNotTrusted, leaf.Subject.CommonName, leaf.Subject.Organization, err)
	}
	name, node, err := namesOf(leaf)
	if err != nil {
		return no(err)
	}
	if id.isRevoked(leaf) {
		return no(errors.New("it was revoked"))
	}
	m, now := id.cur.Load(), id.clock()
	c := Caller{Kind: OwnNode, Node: node, Cluster: name}
	for _, ca := range m.cas {
		if signedBy(leaf, ca, usage, now, lenient) != nil {
			continue
		}
		if name != m.cluster {
			return no(errors.New("it names another cluster than its CA"))
		}
		c.Expired = signedBy(leaf, ca, usage, now, strict) != nil
		return c, nil
	}
	why := errors.New("neither this cluster's CA nor one of a linked cluster signed it")
	if trust == nil {
		return no(why)
	}
	for _, t := range trust() {
		if t.CA == nil {
			continue
		}
		err := signedBy(leaf, t.CA, usage, now, strict)
		if errors.Is(err, errExpired) {
			why = fmt.Errorf("link %s: %w", t.Link, err)
		}
		if err == nil {
			c.Kind, c.Link = Link, t.Link
			return c, nil
		}
	}
	return no(why)
}

// Who says who is at the other end of a connection that a listener with
// ServerTLS accepted. It looks anew at every call, so a link that was removed,
// a certificate that was revoked or has expired since the handshake no longer
// counts.
func (id *Identity) Who(cs tls.ConnectionState, trust func() []Trusted) Caller {
	if !cs.HandshakeComplete || len(cs.PeerCertificates) == 0 {
		return Caller{Kind: Anonymous}
	}
	c, err := id.judge(cs.PeerCertificates[0], x509.ExtKeyUsageClientAuth, trust)
	if err != nil {
		return Caller{Kind: Anonymous}
	}
	return c
}

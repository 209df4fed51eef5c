package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// ProtocolPeer is the ALPN name of what the nodes of one cluster speak.
const ProtocolPeer = "tasuki-peer/1"

const (
	protocolHTTP2 = "h2"
	protocolHTTP1 = "http/1.1"
)

// ServerTLS is for the one listener of a node. It asks for a client
// certificate and does without; one that is given must be of this cluster or of
// a link that trust returns, else the handshake fails. Only a node of this
// cluster gets through with ProtocolPeer. trust may be nil and is called at
// every handshake, resumed ones too.
func (id *Identity) ServerTLS(trust func() []Trusted) *tls.Config {
	return &tls.Config{
		Time:       id.clock,
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{ProtocolPeer, protocolHTTP2, protocolHTTP1},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &id.cur.Load().tls, nil
		},
		// VerifyConnection judges; the standard check knows one set of CAs only.
		ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			c := Caller{Kind: Anonymous}
			if len(cs.PeerCertificates) > 0 {
				var err error
				if c, err = id.judge(cs.PeerCertificates[0], x509.ExtKeyUsageClientAuth, trust); err != nil {
					return err
				}
			}
			if cs.NegotiatedProtocol == ProtocolPeer && c.Kind != OwnNode {
				return fmt.Errorf("%w: %s is for the nodes of this cluster only", ErrNotTrusted, ProtocolPeer)
			}
			return nil
		},
	}
}

// PeerTLS is for calling a node of this cluster. The other end must hold a
// certificate for that very node, or for any node if node is empty.
func (id *Identity) PeerTLS(node cluster.NodeName) *tls.Config {
	c := id.clientTLS(func(leaf *x509.Certificate) error {
		who, err := id.judge(leaf, x509.ExtKeyUsageServerAuth, nil)
		if err != nil {
			return err
		}
		if node != "" && who.Node != node {
			return fmt.Errorf("%w: %s answers where %s should be", ErrNotTrusted, who.Node, node)
		}
		return nil
	}, ProtocolPeer)
	judge := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != ProtocolPeer {
			return fmt.Errorf("the other end does not speak %s", ProtocolPeer)
		}
		return judge(cs)
	}
	return c
}

// APITLS is for calling the API of another cluster, or of this one. One of cas
// must have signed the other end's certificate, which must be valid now and name
// that cluster and node; an empty node is any.
func (id *Identity) APITLS(cas []*x509.Certificate, expect cluster.Name, node cluster.NodeName) *tls.Config {
	return id.clientTLS(func(leaf *x509.Certificate) error {
		if id.isRevoked(leaf) {
			return fmt.Errorf("%w: it was revoked", ErrNotTrusted)
		}
		why := errors.New("another CA signed it than the one that this cluster is linked with")
		for _, ca := range cas {
			err := signedBy(leaf, ca, x509.ExtKeyUsageServerAuth, id.clock(), strict)
			if err == nil {
				return expectNames(leaf, expect, node)
			}
			if errors.Is(err, errExpired) {
				why = err
			}
		}
		return fmt.Errorf("%w: certificate of %q: %w", ErrNotTrusted, leaf.Subject.CommonName, why)
	}, protocolHTTP2, protocolHTTP1)
}

func expectNames(leaf *x509.Certificate, expect cluster.Name, node cluster.NodeName) error {
	name, has, err := namesOf(leaf)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotTrusted, err)
	}
	if name != expect {
		return fmt.Errorf("%w: cluster %s answers where %s should be", ErrNotTrusted, name, expect)
	}
	if node != "" && has != node {
		return fmt.Errorf("%w: node %s answers where %s should be", ErrNotTrusted, has, node)
	}
	return nil
}

// clientTLS shows our own certificate and leaves the judgment to verify.
func (id *Identity) clientTLS(verify func(leaf *x509.Certificate) error, protocols ...string) *tls.Config {
	c := pinned(verify, protocols...)
	c.Time = id.clock
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &id.cur.Load().tls, nil
	}
	return c
}

// pinned is a client's configuration where verify takes the place of the check
// by host name: our certificates name nodes, whatever their addresses are.
func pinned(verify func(leaf *x509.Certificate) error, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         protocols,
		InsecureSkipVerify: true, // VerifyConnection below does it, always
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return fmt.Errorf("%w: the other end shows none", ErrNotTrusted)
			}
			return verify(cs.PeerCertificates[0])
		},
	}
}

package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// How long certificates are valid. NotBefore lies backdate in the past, for
// clocks that differ.
const (
	caValidity   = 20 * 365 * 24 * time.Hour
	nodeValidity = 2 * 365 * 24 * time.Hour
	backdate     = 24 * time.Hour
)

// Bounds of what is parsed.
const (
	maxPEM   = 64 << 10 // bytes of one file or message part
	maxCerts = 8        // certificates in one of them
)

const (
	blockCert = "CERTIFICATE"
	blockKey  = "PRIVATE KEY"
	blockCSR  = "CERTIFICATE REQUEST"
)

// newKey makes an ECDSA P-256 key: what every TLS client and browser takes.
func newKey() (crypto.Signer, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// newCA makes the CA of a cluster.
func newCA(name cluster.Name, now time.Time) (*x509.Certificate, crypto.Signer, error) {
	if err := cluster.CheckName(string(name)); err != nil {
		return nil, nil, refuse("bad-name", "", "cluster name: %v", err)
	}
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{string(name)}, CommonName: string(name) + " CA"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caValidity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := certify(template, template, key.Public(), key)
	return cert, key, err
}

// issue signs a node's certificate. Its validity always overlaps the CA's,
// also when this node's clock is far off, so that the chain is valid at some
// moment.
func issue(ca *x509.Certificate, caKey crypto.Signer, node cluster.NodeName, public crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	if err := cluster.CheckName(string(node)); err != nil {
		return nil, refuse("bad-name", "", "node name: %v", err)
	}
	name, err := ClusterOf(ca)
	if err != nil {
		return nil, err
	}
	now = clamp(now, ca.NotBefore.Add(backdate), ca.NotAfter)
	return certify(&x509.Certificate{
		Subject:               pkix.Name{Organization: []string{string(name)}, CommonName: string(node)},
		URIs:                  []*url.URL{nodeURI(name, node)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(nodeValidity),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca, public, caKey)
}

func certify(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse("bad-name", "use names without two dots in a row or a dot at the end",
			"the names %s cannot stand in a certificate: %v", template.Subject, err)
	}
	return cert, nil
}

func nodeURI(name cluster.Name, node cluster.NodeName) *url.URL {
	return &url.URL{Scheme: "tasuki", Host: string(name), Path: "/" + string(node)}
}

// ClusterOf returns the name of the cluster that a certificate is of.
func ClusterOf(cert *x509.Certificate) (cluster.Name, error) {
	if len(cert.Subject.Organization) != 1 {
		return "", errors.New("the certificate does not name one cluster")
	}
	name := cert.Subject.Organization[0]
	if err := cluster.CheckName(name); err != nil {
		return "", fmt.Errorf("the cluster in the certificate: %w", err)
	}
	return cluster.Name(name), nil
}

// namesOf returns what a node's certificate says of its holder. All places
// that name it must agree.
func namesOf(cert *x509.Certificate) (cluster.Name, cluster.NodeName, error) {
	name, err := ClusterOf(cert)
	if err != nil {
		return "", "", err
	}
	node := cluster.NodeName(cert.Subject.CommonName)
	if err := cluster.CheckName(string(node)); err != nil {
		return "", "", fmt.Errorf("the node in the certificate: %w", err)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != nodeURI(name, node).String() {
		return "", "", fmt.Errorf("the certificate of %s is not one of a node of %s", node, name)
	}
	return name, node, nil
}

// NewCSR makes a key for a node and the request to have it signed. The key
// stays on the node.
func NewCSR(node cluster.NodeName) (keyPEM, csrPEM []byte, err error) {
	if err := cluster.CheckName(string(node)); err != nil {
		return nil, nil, refuse("bad-name", "", "node name: %v", err)
	}
	key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(node)}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate request: %w", err)
	}
	if keyPEM, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	return keyPEM, pem.EncodeToMemory(&pem.Block{Type: blockCSR, Bytes: der}), nil
}

// parseCSR returns the public key that a request proves to hold.
func parseCSR(csrPEM []byte, node cluster.NodeName) (crypto.PublicKey, error) {
	bad := func(format string, args ...any) error {
		return refuse("bad-csr", "make a new request on the node and try again", "certificate request: "+format, args...)
	}
	if len(csrPEM) > maxPEM {
		return nil, bad("longer than %d bytes", maxPEM)
	}
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != blockCSR {
		return nil, bad("not in PEM form")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, bad("%v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, bad("%v", err)
	}
	if csr.Subject.CommonName != string(node) {
		return nil, bad("it is for %q, not for %q", csr.Subject.CommonName, node)
	}
	if !goodKey(csr.PublicKey) {
		return nil, bad("the key is neither ECDSA P-256 nor Ed25519")
	}
	return csr.PublicKey, nil
}

func goodKey(public crypto.PublicKey) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return true
	}
	return false
}

// ParseCertificates reads 1 to 8 certificates from PEM text.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("longer than %d bytes", maxPEM)
	}
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type != blockCert {
			return nil, fmt.Errorf("a %q where a certificate should be", block.Type)
		}
		if len(certs) == maxCerts {
			return nil, fmt.Errorf("more than %d certificates", maxCerts)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM form")
	}
	return certs, nil
}

func encodeCerts(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: blockCert, Bytes: c.Raw}))
	}
	return out.Bytes()
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der}), nil
}

// matchingKey returns the key of cert. The text may hold several, as it does
// after a crash in the middle of a change.
func matchingKey(text []byte, cert *x509.Certificate) (crypto.Signer, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("longer than %d bytes", maxPEM)
	}
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New("no key that belongs to the certificate")
		}
		text = rest
		if block.Type != blockKey {
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		signer, ok := key.(crypto.Signer)
		if !ok || !goodKey(signer.Public()) {
			continue
		}
		if k, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); ok && k.Equal(cert.PublicKey) {
			return signer, nil
		}
	}
}

func clamp(t, low, high time.Time) time.Time {
	if t.Before(low) {
		t = low
	}
	if t.After(high) {
		t = high
	}
	return t
}

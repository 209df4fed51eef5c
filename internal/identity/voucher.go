package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// maxVoucher bounds the text of a voucher, in bytes.
const maxVoucher = 8 << 10

// voucher is a statement of a node that every other node can check.
type voucher struct {
	Statement   []byte `json:"statement"`
	Certificate []byte `json:"certificate"` // of the node, DER
	Signature   []byte `json:"signature"`
}

// vouched is what is signed: the purpose keeps a voucher from being taken for
// something else that the node's key signs.
func vouched(purpose string, statement []byte) []byte {
	return append([]byte("tasuki voucher\x00"+purpose+"\x00"), statement...)
}

// Vouch signs a statement for a purpose with the node's own key. The text, of
// letters, digits, '-' and '_', can go anywhere; it hides nothing.
func (id *Identity) Vouch(purpose string, statement []byte) (string, error) {
	m := id.cur.Load()
	message, hash := vouched(purpose, statement), crypto.Hash(0)
	if _, plain := m.key.Public().(ed25519.PublicKey); !plain {
		sum := sha256.Sum256(message)
		message, hash = sum[:], crypto.SHA256
	}
	sig, err := m.key.Sign(rand.Reader, message, hash)
	if err != nil {
		return "", fmt.Errorf("sign a voucher: %w", err)
	}
	data, err := json.Marshal(voucher{statement, m.cert.Raw, sig})
	if err != nil {
		return "", fmt.Errorf("write a voucher: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(data), nil
}

// Vouched returns the statement of a voucher that a node of this cluster made for
// that purpose, and the node. Whether the cluster file still has the node is for
// the caller to see. The error is ErrNotTrusted if anybody else made it.
func (id *Identity) Vouched(purpose, text string) ([]byte, cluster.NodeName, error) {
	var v voucher
	if len(text) > maxVoucher {
		return nil, "", fmt.Errorf("%w: a voucher of %d bytes", ErrNotTrusted, len(text))
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w: no voucher: %w", ErrNotTrusted, err)
	}
	cert, err := x509.ParseCertificate(v.Certificate)
	if err != nil {
		return nil, "", fmt.Errorf("%w: no certificate: %w", ErrNotTrusted, err)
	}
	who, err := id.judge(cert, x509.ExtKeyUsageClientAuth, nil)
	if err != nil {
		return nil, "", err
	}
	algorithm := x509.ECDSAWithSHA256
	if cert.PublicKeyAlgorithm == x509.Ed25519 {
		algorithm = x509.PureEd25519
	}
	if err := cert.CheckSignature(algorithm, vouched(purpose, v.Statement), v.Signature); err != nil {
		return nil, "", fmt.Errorf("%w: %s did not sign that: %w", ErrNotTrusted, who.Node, err)
	}
	return v.Statement, who.Node, nil
}

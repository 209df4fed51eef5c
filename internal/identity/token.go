package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Purpose is what a token is good for.
type Purpose string

// The purposes of tokens.
const (
	PurposeJoin Purpose = "join" // a node enters the cluster
	PurposeLink Purpose = "link" // another cluster is linked
)

// purposes are in the order of their number in a token.
var purposes = []Purpose{PurposeJoin, PurposeLink}

// Secret is what the holder of a token shows once. It prints as "…"; as JSON
// and text it is base64url.
type Secret [32]byte

// String hides the secret.
func (Secret) String() string { return "…" }

// GoString hides the secret.
func (Secret) GoString() string { return "…" }

// MarshalText returns the secret itself: it is for the wire only.
func (s Secret) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, s[:]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (s *Secret) UnmarshalText(text []byte) error {
	if len(text) != base64.RawURLEncoding.EncodedLen(len(s)) {
		return errors.New("the secret of a token has another length")
	}
	_, err := base64.RawURLEncoding.Strict().Decode(s[:], text)
	return err
}

// Token is what the text of a token says.
type Token struct {
	Purpose   Purpose
	ID        string // 16 hex digits
	Secret    Secret
	CAHash    [sha256.Size]byte // of the certificate of the cluster's CA, in DER
	Cluster   cluster.Name
	Addresses []netip.AddrPort // 1 to 16, the best first
}

// TokenRecord is what the cluster keeps of a token. The secret cannot be had
// from it.
type TokenRecord struct {
	ID      string    `json:"id"`
	Purpose Purpose   `json:"purpose"`
	Subject string    `json:"subject"` // the node or the link that it is for
	SHA256  string    `json:"sha256"`  // of the secret, in hex
	Expires time.Time `json:"expires"`
	Used    bool      `json:"used,omitempty"`
}

// The bounds of a token.
const (
	tokenVersion  = 1
	tokenIDSize   = 8
	tokenSumSize  = 4 // against typing errors
	maxAddresses  = 16
	maxTokenText  = 1024
	minTokenBytes = 2 + tokenIDSize + len(Secret{}) + sha256.Size + 1 + 1 + 1 + tokenSumSize
)

// NewToken makes a one-time token: the text for its holder, who reaches the
// cluster of caCert at one of the addresses, and the record for the cluster.
func NewToken(purpose Purpose, subject string, caCert *x509.Certificate, addresses []netip.AddrPort, now time.Time, ttl time.Duration) (string, TokenRecord, error) {
	name, err := ClusterOf(caCert)
	if err != nil {
		return "", TokenRecord{}, err
	}
	if ttl <= 0 {
		return "", TokenRecord{}, refuse("bad-token-ttl", "give a time such as 1h", "a token that is valid for %s is of no use", ttl)
	}
	t := Token{Purpose: purpose, Cluster: name, CAHash: sha256.Sum256(caCert.Raw)}
	for _, a := range addresses {
		t.Addresses = append(t.Addresses, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	}
	if err := t.check(); err != nil {
		return "", TokenRecord{}, err
	}
	if err := cluster.CheckName(subject); err != nil {
		return "", TokenRecord{}, refuse("bad-name", "", "whom the token is for: %v", err)
	}
	var number [tokenIDSize]byte
	rand.Read(number[:])
	rand.Read(t.Secret[:])
	t.ID = hex.EncodeToString(number[:])
	sum := sha256.Sum256(t.Secret[:])
	rec := TokenRecord{ID: t.ID, Purpose: purpose, Subject: subject, SHA256: hex.EncodeToString(sum[:]), Expires: now.Add(ttl)}
	return t.Text(), rec, nil
}

// check says whether the token can be written down.
func (t Token) check() error {
	if t.Purpose.number() < 0 {
		return fmt.Errorf("%q is not what a token can be for", t.Purpose)
	}
	if err := cluster.CheckName(string(t.Cluster)); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if n := len(t.Addresses); n < 1 || n > maxAddresses {
		return fmt.Errorf("a token holds 1 to %d addresses, not %d", maxAddresses, n)
	}
	for _, a := range t.Addresses {
		if !a.IsValid() || a.Port() == 0 || a.Addr().Zone() != "" || a.Addr().IsUnspecified() || a.Addr().Is4In6() {
			return fmt.Errorf("%s is not an address where others reach this node", a)
		}
	}
	return nil
}

func (p Purpose) number() int {
	for i, q := range purposes {
		if p == q {
			return i
		}
	}
	return -1
}

// prefix tells people, and programs that look for leaked secrets, what it is.
func (p Purpose) prefix() string { return "tasuki-" + string(p) + "-" }

// String names the token without giving it away.
func (t Token) String() string { return fmt.Sprintf("%s token %s of %s", t.Purpose, t.ID, t.Cluster) }

// Text returns the token as its holder gets it:
//
//	tasuki-PURPOSE- base64url( version 1 | purpose 1 | id 8 | secret 32 |
//	  SHA-256 of the CA 32 | length 1, cluster | count 1, { 4 or 16, address, port 2 } |
//	  first 4 bytes of the SHA-256 of all before )
func (t Token) Text() string {
	b := t.body()
	sum := sha256.Sum256(b)
	b = append(b, sum[:tokenSumSize]...)
	return t.Purpose.prefix() + base64.RawURLEncoding.EncodeToString(b)
}

// body is all of a token but its sum.
func (t Token) body() []byte {
	b := []byte{tokenVersion, byte(t.Purpose.number())}
	id, _ := hex.DecodeString(t.ID)
	b = append(b, id...)
	b = append(b, t.Secret[:]...)
	b = append(b, t.CAHash[:]...)
	b = append(b, byte(len(t.Cluster)))
	b = append(b, t.Cluster...)
	b = append(b, byte(len(t.Addresses)))
	for _, a := range t.Addresses {
		ip := a.Addr().AsSlice()
		b = append(b, byte(len(ip)))
		b = append(b, ip...)
		b = append(b, byte(a.Port()>>8), byte(a.Port()))
	}
	return b
}

// ParseToken reads the text of a token; blanks and line breaks do not count.
// Its error is an *api.Error that never quotes the text.
func ParseToken(text string) (Token, error) {
	t, err := parseToken(text)
	if err != nil {
		return Token{}, refuse("bad-token", "copy the whole line that begins with tasuki-join- or tasuki-link-, or make a new token",
			"this is not a token: %v", err)
	}
	return t, nil
}

func parseToken(text string) (Token, error) {
	if len(text) > 2*maxTokenText {
		return Token{}, errors.New("it is too long")
	}
	text = strings.Join(strings.Fields(text), "")
	if len(text) > maxTokenText {
		return Token{}, errors.New("it is too long")
	}
	var t Token
	for _, p := range purposes {
		if rest, ok := strings.CutPrefix(text, p.prefix()); ok {
			t.Purpose, text = p, rest
		}
	}
	if t.Purpose == "" {
		return Token{}, errors.New("it begins otherwise")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return Token{}, errors.New("it holds letters that no token holds, or a part is missing")
	}
	if len(b) > 0 && b[0] != tokenVersion {
		return Token{}, errors.New("it is of another version of tasuki")
	}
	if len(b) < minTokenBytes {
		return Token{}, errors.New("a part is missing")
	}
	b, sum := b[:len(b)-tokenSumSize], b[len(b)-tokenSumSize:]
	if want := sha256.Sum256(b); !bytes.Equal(sum, want[:tokenSumSize]) {
		return Token{}, errors.New("a part is missing or mistyped")
	}
	if int(b[1]) != t.Purpose.number() {
		return Token{}, errors.New("it begins with the wrong word")
	}
	return t, t.decode(b[2:])
}

// decode reads what follows the purpose. b is at least minTokenBytes long
// without version, purpose and sum.
func (t *Token) decode(b []byte) error {
	take := func(n int) []byte {
		if n > len(b) {
			b = nil
			return nil
		}
		part := b[:n]
		b = b[n:]
		return part
	}
	t.ID = hex.EncodeToString(take(tokenIDSize))
	copy(t.Secret[:], take(len(t.Secret)))
	copy(t.CAHash[:], take(len(t.CAHash)))
	count := func() int {
		if n := take(1); n != nil {
			return int(n[0])
		}
		return 0
	}
	t.Cluster = cluster.Name(take(count()))
	n := count()
	if n > maxAddresses {
		return errors.New("it holds too many addresses")
	}
	for range n {
		ip, ok := netip.AddrFromSlice(take(count()))
		port := take(2)
		if !ok || port == nil {
			return errors.New("an address in it is broken")
		}
		t.Addresses = append(t.Addresses, netip.AddrPortFrom(ip, uint16(port[0])<<8|uint16(port[1])))
	}
	if len(b) > 0 {
		return errors.New("something follows its end")
	}
	return t.check()
}

// Check says whether the secret redeems the token now. Whoever stores that the
// token was used does so in the same step of the replicated state, so that it
// is good only once.
func (r TokenRecord) Check(purpose Purpose, secret Secret, now time.Time) *api.Error {
	again := "make a new one: tasuki token create"
	sum := sha256.Sum256(secret[:])
	want, err := hex.DecodeString(r.SHA256)
	if err != nil || len(want) != len(sum) || subtle.ConstantTimeCompare(sum[:], want) != 1 {
		return refuse("token-refused", again, "the token is not known here")
	}
	switch {
	case r.Purpose != purpose:
		return refuse("token-refused", fmt.Sprintf("it is good for: %s", r.Purpose), "the token is not good for: %s", purpose)
	case r.Used:
		return refuse("token-used", again, "the token for %s was used already", r.Subject)
	case !now.Before(r.Expires):
		return refuse("token-expired", again, "the token for %s expired at %s", r.Subject, r.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// TokenTLS is for redeeming a token. The other end must show a CA with the hash
// that the token holds, and a certificate that this CA signed. The clock of a
// machine that joins counts for nothing; that of one that links does.
func TokenTLS(t Token) *tls.Config {
	c := pinned(nil, protocolHTTP2, protocolHTTP1)
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		m := lenient
		if t.Purpose == PurposeLink {
			m = strict
		}
		for _, ca := range cs.PeerCertificates {
			if sum := sha256.Sum256(ca.Raw); subtle.ConstantTimeCompare(sum[:], t.CAHash[:]) != 1 {
				continue
			}
			leaf := cs.PeerCertificates[0]
			if err := signedBy(leaf, ca, x509.ExtKeyUsageServerAuth, time.Now(), m); err != nil {
				return fmt.Errorf("%w: certificate of %q: %w", ErrNotTrusted, leaf.Subject.CommonName, err)
			}
			return expectNames(leaf, t.Cluster, "")
		}
		return fmt.Errorf("%w: the other end is not of the cluster %s that made the token", ErrNotTrusted, t.Cluster)
	}
	return c
}

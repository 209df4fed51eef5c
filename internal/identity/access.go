package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strings"
)

// accessPrefix tells people, and programs that look for leaked secrets, what it
// is.
const accessPrefix = "tasuki-access-"

// NewAccess makes an access token: its id, the text that its holder shows with
// every call, and the SHA-256 of its secret in hex, from which the text cannot be
// had. The secret has 256 random bits, so that its hash needs no salt.
func NewAccess() (id, text, sum string) {
	var number [tokenIDSize]byte
	var s Secret
	rand.Read(number[:])
	rand.Read(s[:])
	id = hex.EncodeToString(number[:])
	secret, _ := s.MarshalText() // it never fails
	return id, accessPrefix + id + "-" + string(secret), accessSum(s)
}

func accessSum(s Secret) string {
	sum := sha256.Sum256(s[:])
	return hex.EncodeToString(sum[:])
}

// ParseAccess reads the text of an access token. Its error never quotes the
// text.
func ParseAccess(text string) (id string, s Secret, err error) {
	rest, ok := strings.CutPrefix(text, accessPrefix)
	id, secret, two := strings.Cut(rest, "-")
	if raw, err := hex.DecodeString(id); !ok || !two || err != nil || len(raw) != tokenIDSize {
		return "", s, errors.New("it does not begin as an access token does: " + accessPrefix)
	}
	return id, s, s.UnmarshalText([]byte(secret))
}

// IsAccess says whether the secret is the one of this SHA-256. How long that
// takes tells nothing.
func IsAccess(s Secret, sum string) bool {
	return subtle.ConstantTimeCompare([]byte(accessSum(s)), []byte(sum)) == 1
}

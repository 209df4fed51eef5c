package identity

import (
	"fmt"

	"github.com/alexedwards/argon2id"
)

// hashing is the second choice of OWASP's for Argon2id. More memory would be
// taken, locked, from the machine whose services this program is there for; more
// lanes would be of no use to a daemon of one processor. One check takes some
// tens of milliseconds. The parameters stand in each hash, so that they can be
// raised: a password keeps those that it was set with.
var hashing = &argon2id.Params{Memory: 19 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// nobody is the hash of a password that nobody has: what is compared with where
// there is no user, so that it takes as long.
const nobody = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// HashPassword returns the Argon2id hash of a password, with its salt and
// parameters: $argon2id$v=19$m=…,t=…,p=…$SALT$HASH.
func HashPassword(password string) (string, error) {
	h, err := argon2id.CreateHash(password, hashing)
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	return h, nil
}

// CheckPassword says whether the hash is of this password. Where there is no
// user, and so no hash, it is given "", says no and takes as long.
func CheckPassword(password, hash string) bool {
	if hash == "" {
		_, _ = argon2id.ComparePasswordAndHash(password, nobody)
		return false
	}
	ok, err := argon2id.ComparePasswordAndHash(password, hash)
	return ok && err == nil
}

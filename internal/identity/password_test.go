package identity

import (
	"strings"
	"testing"

	"github.com/alexedwards/argon2id"
)

func TestPassword(t *testing.T) {
	h, err := HashPassword("correct horse")
	if err != nil || !strings.HasPrefix(h, "$argon2id$v=19$m=19456,t=2,p=1$") || strings.Contains(h, "horse") {
		t.Fatal(h, err)
	}
	again, err := HashPassword("correct horse")
	if err != nil || again == h {
		t.Error("two hashes of one password are equal: they have no salt")
	}
	for password, good := range map[string]bool{"correct horse": true, "correct horsf": false, "": false} {
		if CheckPassword(password, h) != good {
			t.Errorf("%q: not %v", password, good)
		}
	}
	if CheckPassword("", "") || CheckPassword("correct horse", "") || CheckPassword("x", "$argon2id$broken") {
		t.Error("a password is right where there is no hash")
	}
}

// Where there is no user the same work is done: the stand-in has the parameters
// of the others.
func TestNobodyTakesAsLong(t *testing.T) {
	p, _, _, err := argon2id.DecodeHash(nobody)
	if err != nil || *p != *hashing {
		t.Fatal(p, err)
	}
}

func TestAccess(t *testing.T) {
	id, text, sum := NewAccess()
	got, secret, err := ParseAccess(text)
	if err != nil || got != id || !IsAccess(secret, sum) || strings.Contains(text, sum) {
		t.Fatal(id, text, sum, got, err)
	}
	_, other, _ := NewAccess()
	_, wrong, err := ParseAccess(other)
	if err != nil || IsAccess(wrong, sum) || IsAccess(secret, "") || IsAccess(Secret{}, sum) {
		t.Error("another secret is right too", err)
	}
	for _, bad := range []string{"", "tasuki-access-", "tasuki-access-" + id, text[:len(text)-1], text + "A", "tasuki-join-" + text, strings.Replace(text, id, "zz", 1)} {
		if _, _, err := ParseAccess(bad); err == nil || strings.Contains(err.Error(), text[len(text)-20:]) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

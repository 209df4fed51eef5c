package identity

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tasuki-ha/tasuki/api"
)

var where = []netip.AddrPort{
	netip.MustParseAddrPort("192.168.10.1:29002"),
	netip.MustParseAddrPort("[::ffff:10.2.102.51]:29002"),
	netip.MustParseAddrPort("[fd00::51]:29002"),
}

func TestToken(t *testing.T) {
	id, _ := newIdentity(t, "VMcluster", "CLP-1")
	text, rec, err := NewToken(PurposeJoin, "CLP-2", id.CA(), where, start, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, "tasuki-join-") || len(text) > 200 {
		t.Fatalf("text %q", text)
	}
	tok, err := ParseToken("  " + text[:40] + "\n  " + text[40:] + "\r\n")
	if err != nil {
		t.Fatal(err)
	}
	want := Token{Purpose: PurposeJoin, ID: rec.ID, Secret: tok.Secret, CAHash: sha256.Sum256(id.CA().Raw), Cluster: "VMcluster",
		Addresses: []netip.AddrPort{where[0], netip.MustParseAddrPort("10.2.102.51:29002"), where[2]}}
	if d := cmp.Diff(want, tok, cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
		t.Fatal(d)
	}
	plain := string(mustJSON(t, tok.Secret))
	for _, shown := range []string{fmt.Sprint(tok), fmt.Sprintf("%+v %#v", tok, tok), fmt.Sprintf("%v %x", tok.Secret, tok.Secret), string(mustJSON(t, rec))} {
		if strings.Contains(shown, strings.Trim(plain, `"`)) || strings.Contains(shown, fmt.Sprintf("%x", tok.Secret[:])) || strings.Contains(shown, fmt.Sprintf("%d, %d", tok.Secret[0], tok.Secret[1])) {
			t.Errorf("the secret shows in %s", shown)
		}
	}

	var stored TokenRecord
	if err := json.Unmarshal(mustJSON(t, rec), &stored); err != nil {
		t.Fatal(err)
	}
	var sent Secret
	if err := json.Unmarshal([]byte(plain), &sent); err != nil || sent != tok.Secret {
		t.Fatal("the secret does not survive JSON", err)
	}
	used := stored
	used.Used = true
	wrong := tok.Secret
	wrong[31] ^= 1
	for _, c := range []struct {
		name    string
		rec     TokenRecord
		purpose Purpose
		secret  Secret
		now     time.Time
		code    string
	}{
		{"good", stored, PurposeJoin, tok.Secret, start.Add(time.Hour - 1), ""},
		{"wrong secret", stored, PurposeJoin, wrong, start, "token-refused"},
		{"no secret", stored, PurposeJoin, Secret{}, start, "token-refused"},
		{"empty record", TokenRecord{}, PurposeJoin, Secret{}, start, "token-refused"},
		{"another purpose", stored, PurposeLink, tok.Secret, start, "token-refused"},
		{"used", used, PurposeJoin, tok.Secret, start, "token-used"},
		{"expired", stored, PurposeJoin, tok.Secret, start.Add(time.Hour), "token-expired"},
		// Who does not know the secret learns nothing about the token.
		{"used, wrong secret", used, PurposeJoin, wrong, start, "token-refused"},
	} {
		got := c.rec.Check(c.purpose, c.secret, c.now)
		if (got == nil) != (c.code == "") || got != nil && got.Code != c.code {
			t.Errorf("%s: %v, want %q", c.name, got, c.code)
		}
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestNewTokenRefuses(t *testing.T) {
	id, _ := newIdentity(t, "VMcluster", "CLP-1")
	many := make([]netip.AddrPort, maxAddresses+1)
	for i := range many {
		many[i] = where[0]
	}
	for name, c := range map[string]struct {
		purpose Purpose
		subject string
		where   []netip.AddrPort
		ttl     time.Duration
	}{
		"purpose":    {"rule", "CLP-2", where, time.Hour},
		"subject":    {PurposeJoin, "a b", where, time.Hour},
		"no address": {PurposeJoin, "CLP-2", nil, time.Hour},
		"many":       {PurposeJoin, "CLP-2", many, time.Hour},
		"zone":       {PurposeJoin, "CLP-2", []netip.AddrPort{netip.MustParseAddrPort("[fe80::1%eth0]:29002")}, time.Hour},
		"any":        {PurposeJoin, "CLP-2", []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:29002")}, time.Hour},
		"no port":    {PurposeJoin, "CLP-2", []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:0")}, time.Hour},
		"ttl":        {PurposeJoin, "CLP-2", where, 0},
	} {
		if _, _, err := NewToken(c.purpose, c.subject, id.CA(), c.where, start, c.ttl); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	id, _ := newIdentity(t, "VMcluster", "CLP-1")
	text, _, err := NewToken(PurposeLink, "esx", id.CA(), where, start, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	bad := []string{"", "tasuki-link-", "hello", strings.Repeat("x", 5000), text + "A", "tasuki-join-" + text[len("tasuki-link-"):], text + text}
	for n := range len(text) {
		bad = append(bad, text[:n])
		other := byte('A')
		if text[n] == 'A' {
			other = 'B'
		}
		bad = append(bad, text[:n]+string(other)+text[n+1:])
	}
	for _, b := range bad {
		_, err := ParseToken(b)
		e, ok := errors.AsType[*api.Error](err)
		if !ok || e.Code != "bad-token" || e.Hint == "" {
			t.Fatalf("%q: %v", b, err)
		}
		if len(b) > 60 && strings.Contains(e.Message+e.Hint, b[20:50]) {
			t.Fatalf("the error quotes the token: %v", e)
		}
	}
}

func TestTokenTLS(t *testing.T) {
	us, _ := newIdentity(t, "VMcluster", "CLP-1")
	us.clock = time.Now // TokenTLS has no identity yet, and so no clock but the machine's
	fresh, err := create("VMcluster", "CLP-1", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	longAgo, err := create("VMcluster", "CLP-1", func() time.Time { return time.Now().AddDate(-3, 0, 0) })
	if err != nil {
		t.Fatal(err)
	}
	token := func(p Purpose, id *Identity) Token {
		text, _, err := NewToken(p, "x", id.CA(), where, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := ParseToken(text)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	// An impostor shows the true CA beside its own certificate.
	impostor, _ := newIdentity(t, "VMcluster", "CLP-1")
	m := *impostor.cur.Load()
	m.tls.Certificate = [][]byte{m.cert.Raw, fresh.CA().Raw}
	impostor.cur.Store(&m)
	renamed := token(PurposeJoin, fresh)
	renamed.Cluster = "other"
	for _, c := range []struct {
		name   string
		server *Identity
		token  Token
		want   string
	}{
		{"join", fresh, token(PurposeJoin, fresh), ""},
		{"link", fresh, token(PurposeLink, fresh), ""},
		{"join, expired", longAgo, token(PurposeJoin, longAgo), ""},
		{"link, expired", longAgo, token(PurposeLink, longAgo), "it has expired"},
		{"another cluster", longAgo, token(PurposeJoin, fresh), "not of the cluster VMcluster that made the token"},
		{"impostor", impostor, token(PurposeJoin, fresh), "certificate of \"CLP-1\""},
		{"another name", fresh, renamed, "cluster VMcluster answers where other"},
	} {
		got := shake(t, c.server.ServerTLS(nil), TokenTLS(c.token))
		if c.want == "" {
			if got.clientErr != nil || got.serverErr != nil {
				t.Errorf("%s: %v, %v", c.name, got.clientErr, got.serverErr)
			}
			continue
		}
		if !errors.Is(got.clientErr, ErrNotTrusted) || !strings.Contains(got.clientErr.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, got.clientErr, c.want)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	id, err := create("VMcluster", "CLP-1", time.Now)
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range purposes {
		text, _, err := NewToken(p, "x", id.CA(), where, start, time.Hour)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add("tasuki-join-AQA")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseToken(text)
		if err != nil {
			if code(err) != "bad-token" {
				t.Fatal(err)
			}
			return
		}
		if got := tok.Text(); got != strings.Join(strings.Fields(text), "") {
			t.Fatalf("%q becomes %q", text, got)
		}
	})
}

// FuzzTokenBody goes past the sum, which stops nearly all that FuzzParseToken
// tries.
func FuzzTokenBody(f *testing.F) {
	id, err := create("VMcluster", "CLP-1", time.Now)
	if err != nil {
		f.Fatal(err)
	}
	text, _, err := NewToken(PurposeJoin, "x", id.CA(), where, start, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	tok, err := ParseToken(text)
	if err != nil {
		f.Fatal(err)
	}
	raw := []byte(tok.body())
	f.Add(raw[2:])
	f.Add(make([]byte, minTokenBytes-2-tokenSumSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < minTokenBytes-2-tokenSumSize || len(b) > maxTokenText {
			return
		}
		got := Token{Purpose: PurposeJoin}
		if got.decode(b) != nil {
			return
		}
		if again := got.body()[2:]; string(again) != string(b) {
			t.Fatalf("%x becomes %x", b, again)
		}
	})
}

func FuzzSign(f *testing.F) {
	id, err := create("VMcluster", "CLP-1", time.Now)
	if err != nil {
		f.Fatal(err)
	}
	_, csr, err := NewCSR("CLP-2")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Add(id.CAPEM())
	f.Fuzz(func(t *testing.T, csr []byte) {
		cert, err := id.Sign(csr, "CLP-2")
		if err != nil {
			return
		}
		got, err := ParseCertificates(cert)
		if err != nil || got[0].IsCA || len(got[0].DNSNames)+len(got[0].IPAddresses) > 0 {
			t.Fatalf("signed %v", got)
		}
	})
}

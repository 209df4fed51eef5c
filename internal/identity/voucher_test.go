package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestVouch(t *testing.T) {
	id, _ := newIdentity(t, "shop", "n1")
	other := secondNode(t, id, "n2", true)
	stranger, _ := newIdentity(t, "shop", "n2") // the same names, another CA

	text, err := other.Vouch("session", []byte("anna"))
	if err != nil {
		t.Fatal(err)
	}
	statement, by, err := id.Vouched("session", text)
	if err != nil || string(statement) != "anna" || by != "n2" {
		t.Fatalf("%q by %q, %v", statement, by, err)
	}

	// edited returns the voucher with something else in it.
	edited := func(change func(*voucher)) string {
		var v voucher
		data, _ := base64.RawURLEncoding.DecodeString(text)
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		change(&v)
		data, _ = json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(data)
	}
	foreign, err := stranger.Vouch("session", []byte("anna"))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"nothing":           "",
		"no voucher":        "####",
		"too long":          strings.Repeat("A", maxVoucher+1),
		"another cluster":   foreign,
		"another statement": edited(func(v *voucher) { v.Statement = []byte("root") }),
		"another signer":    edited(func(v *voucher) { v.Certificate = id.Certificate().Raw }),
		"no certificate":    edited(func(v *voucher) { v.Certificate = nil }),
	} {
		if _, _, err := id.Vouched("session", bad); !errors.Is(err, ErrNotTrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := id.Vouched("something else", text); !errors.Is(err, ErrNotTrusted) {
		t.Errorf("a voucher was good for another purpose: %v", err)
	}
}

// A browser finds the address in the certificate, which is kept until it must
// change, and which makes nobody a node.
func TestBrowserCertificate(t *testing.T) {
	id, c := newIdentity(t, "shop", "n1")
	hosts := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	conf := id.BrowserTLS(func() []netip.Addr { return hosts })
	get := func() string {
		cert, err := conf.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			if err := cert.Leaf.VerifyHostname(h.String()); err != nil {
				t.Error(err)
			}
		}
		if err := cert.Leaf.CheckSignatureFrom(id.CA()); err != nil {
			t.Error(err)
		}
		if _, _, err := namesOf(cert.Leaf); err == nil {
			t.Error("it counts as a node's")
		}
		return cert.Leaf.SerialNumber.String()
	}
	first := get()
	if again := get(); again != first {
		t.Error("it was made anew without a reason")
	}
	hosts = append(hosts, netip.MustParseAddr("10.0.0.2"))
	second := get()
	if second == first {
		t.Error("a new address is not in it")
	}
	c.now = c.now.Add(browserValidity - 24*time.Hour)
	if get() == second {
		t.Error("it was not made anew before its end")
	}

	witness := secondNode(t, id, "w", true)
	cert, err := witness.BrowserTLS(func() []netip.Addr { return hosts }).GetCertificate(nil)
	if err != nil || !cert.Leaf.Equal(witness.Certificate()) {
		t.Errorf("a witness shows another certificate than its own: %v", err)
	}
}

// Programs that know the authority and the address can call; nodes and linked
// clusters know the node as before.
func TestAnswerByAddress(t *testing.T) {
	one, clk := newIdentity(t, "shop", "n1")
	two := secondNode(t, one, "n2", false)
	host, _ := newIdentity(t, "esx", "esx")
	host.clock = clk.time
	trust := func() []Trusted { return []Trusted{{Link: "esx", CA: host.CA()}} }
	server := func() *tls.Config {
		return one.AnswerByAddress(one.ServerTLS(trust), func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.0.0.1")} })
	}
	pool := x509.NewCertPool()
	pool.AddCert(one.CA())
	right := clk.now
	curl := func(address string) *tls.Config {
		return &tls.Config{RootCAs: pool, ServerName: address, Time: func() time.Time { return right }}
	}
	for name, client := range map[string]*tls.Config{
		"curl": curl("10.0.0.1"), "peer": two.PeerTLS("n1"), "link": host.APITLS([]*x509.Certificate{one.CA()}, "shop", "n1"),
	} {
		if got := shake(t, server(), client); got.clientErr != nil || got.serverErr != nil {
			t.Errorf("%s: %v, %v", name, got.clientErr, got.serverErr)
		}
	}
	if got := shake(t, server(), curl("10.0.0.2")); got.clientErr == nil {
		t.Error("it answers for an address that is not its own")
	}
	clk.now = right.AddDate(-30, 0, 0)
	if got := shake(t, server(), curl("10.0.0.1")); got.clientErr != nil {
		t.Error("while its clock is wrong:", got.clientErr)
	}
}

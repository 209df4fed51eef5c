package identity

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func code(err error) string {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestInitAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := Load(dir); code(err) != "no-identity" {
		t.Fatalf("load of nothing: %v", err)
	}
	made, err := Init(dir, "VMcluster", "CLP-1")
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{".": 0o700, fileCA: 0o644, fileCAKey: 0o600, fileNode: 0o644, fileNodeKey: 0o600} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want %v", name, st.Mode().Perm(), err, mode)
		}
	}
	id, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if id.Cluster() != "VMcluster" || id.Node() != "CLP-1" || !id.CanSign() || !id.Certificate().Equal(made.Certificate()) {
		t.Fatalf("loaded %s %s", id.Cluster(), id.Node())
	}
	if got := id.Certificate().URIs[0].String(); got != "tasuki://VMcluster/CLP-1" {
		t.Fatalf("URI %s", got)
	}
	if v := id.CA().NotAfter.Sub(id.CA().NotBefore); v != caValidity+backdate {
		t.Fatalf("the CA is valid for %v", v)
	}
	before, _ := os.ReadFile(filepath.Join(dir, fileCAKey))
	_, err = Init(dir, "VMcluster", "CLP-1")
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != "identity-exists" || e.Hint == "" {
		t.Fatalf("second init: %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, fileCAKey)); !bytes.Equal(before, after) {
		t.Fatal("the refused init changed the CA key")
	}
	if err := os.Chmod(filepath.Join(dir, fileCAKey), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); code(err) != "key-readable" {
		t.Fatalf("a key that others may read: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	one, _ := newIdentity(t, "VMcluster", "CLP-1")
	other, _ := newIdentity(t, "VMcluster", "CLP-1")
	key, csr, err := NewCSR("CLP-2")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := one.Sign(csr, "CLP-2")
	if err != nil {
		t.Fatal(err)
	}
	caKey, _ := one.CAKeyPEM()
	wrongKey, _, _ := NewCSR("CLP-2")
	wrongCAKey, _ := other.CAKeyPEM()
	for name, parts := range map[string][4][]byte{
		"another key":    {wrongKey, cert, one.CAPEM(), caKey},
		"another CA":     {key, cert, other.CAPEM(), nil},
		"another CA key": {key, cert, one.CAPEM(), wrongCAKey},
		"no CA":          {key, cert, nil, nil},
		"cert as CA":     {key, cert, cert, nil},
		"CA as cert":     {caKey, one.CAPEM(), one.CAPEM(), caKey},
		"garbage":        {key, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), one.CAPEM(), nil},
	} {
		dir := filepath.Join(t.TempDir(), "identity")
		if _, err := Adopt(dir, parts[0], parts[1], parts[2], parts[3]); err == nil {
			t.Errorf("%s: adopted", name)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: refused, but something was written", name)
		}
	}
	for _, withKey := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "identity")
		k := caKey
		if !withKey {
			k = nil
		}
		if _, err := Adopt(dir, key, cert, one.CAPEM(), k); err != nil {
			t.Fatal(err)
		}
		id, err := Load(dir)
		if err != nil || id.Node() != "CLP-2" || id.CanSign() != withKey {
			t.Fatalf("adopted: %v", err)
		}
		if _, err := Adopt(dir, key, cert, one.CAPEM(), nil); code(err) != "identity-exists" {
			t.Fatalf("second adopt: %v", err)
		}
		if _, err := id.CAKeyPEM(); withKey != (err == nil) {
			t.Fatalf("CA key: %v", err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	id, _ := newIdentity(t, "VMcluster", "CLP-1")
	_, csr, _ := NewCSR("CLP-2")
	flipped := bytes.Replace(csr, []byte("\nMI"), []byte("\nMJ"), 1)
	for name, c := range map[string]struct {
		csr  []byte
		node cluster.NodeName
	}{
		"another name": {csr, "CLP-3"}, "empty": {nil, "CLP-2"}, "a certificate": {id.CAPEM(), "CLP-2"},
		"damaged": {flipped, "CLP-2"}, "long": {bytes.Repeat([]byte("x"), maxPEM+1), "CLP-2"},
	} {
		if _, err := id.Sign(c.csr, c.node); code(err) != "bad-csr" {
			t.Errorf("%s: %v", name, err)
		}
	}
	witness := secondNode(t, id, "wit", true)
	if _, err := witness.Sign(csr, "CLP-2"); code(err) != "no-ca-key" {
		t.Errorf("witness: %v", err)
	}
	for _, name := range []cluster.Name{"", "a b", "x/y", "a..b", "a.", cluster.Name(strings.Repeat("x", 65))} {
		if _, err := create(name, "n", time.Now); code(err) != "bad-name" {
			t.Errorf("cluster name %q: %v", name, err)
		}
	}
	if _, err := create("VM_cluster.1-x", "CLP_1..x.", time.Now); err != nil {
		t.Errorf("odd but good names: %v", err)
	}
}

// The node's key and certificate, and the CA, change under running TLS
// configurations.
func TestRotation(t *testing.T) {
	one, clk := newIdentity(t, "VMcluster", "CLP-1")
	two := secondNode(t, one, "CLP-2", true)
	server, client := one.ServerTLS(nil), two.PeerTLS("CLP-1")
	ok := func(step string) {
		t.Helper()
		if got := shake(t, server, client); got.clientErr != nil || got.serverErr != nil {
			t.Fatalf("%s: %v, %v", step, got.clientErr, got.serverErr)
		}
	}
	ok("at first")
	if did, err := one.Renew(clk.now); did || err != nil {
		t.Fatalf("renewed too early: %v", err)
	}
	clk.now = start.Add(nodeValidity - renewAt)
	old := one.Certificate()
	if did, err := one.Renew(clk.now); !did || err != nil {
		t.Fatalf("not renewed: %v", err)
	}
	if one.Certificate().Equal(old) || !one.Certificate().NotAfter.Equal(clk.now.Add(nodeValidity)) {
		t.Fatal("renewed, but the same certificate")
	}
	ok("renewed")
	if _, err := two.Renew(clk.now); code(err) != "no-ca-key" {
		t.Fatalf("a witness renewed itself: %v", err)
	}
	key, csr, _ := NewCSR("CLP-2")
	cert, err := one.Sign(csr, "CLP-2")
	if err != nil {
		t.Fatal(err)
	}
	if err := two.Install(key, cert); err != nil {
		t.Fatal(err)
	}
	ok("installed")
	if err := one.Install(key, cert); err == nil {
		t.Fatal("CLP-1 took the certificate of CLP-2")
	}

	caPEM, caKeyPEM, err := one.NewCA(clk.now)
	if err != nil {
		t.Fatal(err)
	}
	oldCA := one.CAPEM()
	oldKey, _ := one.CAKeyPEM()
	join := func(a, b []byte) []byte { return append(bytes.Clone(a), b...) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(one.SetCAs(join(oldCA, caPEM), oldKey))
	ok("one trusts both")
	must(two.SetCAs(join(oldCA, caPEM), nil))
	must(one.SetCAs(join(caPEM, oldCA), caKeyPEM))
	if did, err := one.Renew(clk.now); !did || err != nil {
		t.Fatalf("not renewed by the new CA: %v", err)
	}
	ok("one has a certificate of the new CA, two of the old")
	if err := two.SetCAs(caPEM, nil); err == nil {
		t.Fatal("two dropped the CA that its own certificate hangs on")
	}
	cert, err = one.Sign(csr, "CLP-2")
	must(err)
	must(two.Install(key, cert))
	must(two.SetCAs(caPEM, nil))
	must(one.SetCAs(caPEM, caKeyPEM))
	ok("the old CA is gone")
}

// A crash after any step of a Save leaves a directory that loads: as it was, or
// as it was to become.
func TestSaveSurvivesCrash(t *testing.T) {
	id, clk := newIdentity(t, "VMcluster", "CLP-1")
	old := *id.cur.Load()
	caPEM, caKeyPEM, err := id.NewCA(clk.now)
	if err != nil {
		t.Fatal(err)
	}
	oldKey, _ := id.CAKeyPEM()
	both := append(caPEM, id.CAPEM()...)
	if err := id.SetCAs(both, caKeyPEM); err != nil {
		t.Fatal(err)
	}
	if _, err := id.Renew(clk.now); err != nil {
		t.Fatal(err)
	}
	if err := id.SetCAs(caPEM, caKeyPEM); err != nil {
		t.Fatal(err)
	}
	now := id.cur.Load()
	key, _ := encodeKey(now.key)
	nodeKey, _ := encodeKey(old.key)
	caKey, _ := encodeKey(now.caKey)
	for crash := 0; ; crash++ {
		dir := t.TempDir()
		if err := old.save(dir, oldKey, nodeKey, nil); err != nil {
			t.Fatal(err)
		}
		stop := errors.New("crash")
		left := crash
		err := now.save(dir, caKey, key, func() error {
			if left--; left < 0 {
				return stop
			}
			return nil
		})
		got, loadErr := Load(dir)
		if loadErr != nil {
			t.Fatalf("crash before step %d: %v", crash, loadErr)
		}
		if c := got.Certificate(); !c.Equal(old.cert) && !c.Equal(now.cert) || !got.CanSign() {
			t.Fatalf("crash before step %d: neither the old nor the new certificate", crash)
		}
		if err == nil {
			if data, _ := os.ReadFile(filepath.Join(dir, fileNodeKey)); !bytes.Equal(data, key) {
				t.Fatal("the old key stays behind")
			}
			if !got.Certificate().Equal(now.cert) || len(got.cur.Load().cas) != 1 {
				t.Fatal("saved, but not what was to be saved")
			}
			if crash < 5 {
				t.Fatalf("only %d steps", crash)
			}
			return
		}
	}
}

func TestAlarms(t *testing.T) {
	id, _ := newIdentity(t, "VMcluster", "CLP-1")
	link, _ := newIdentity(t, "bay7-esx", "bay7-esx")
	day := 24 * time.Hour
	end, caEnd := id.Certificate().NotAfter, id.CA().NotAfter
	trusted := Trusted{Link: "esx", CA: link.CA()}
	for _, c := range []struct {
		now  time.Time
		want string // What Days Level, by line
	}{
		{start, ""},
		{end.Add(-31 * day), ""},
		{end.Add(-30 * day), "node certificate 30 warn\n"},
		{end.Add(-8 * day), "node certificate 30 warn\n"},
		{end.Add(-7 * day), "node certificate 7 warn\n"},
		{end.Add(-day), "node certificate 1 error\n"},
		{end, "node certificate 0 error\n"},
		{caEnd.Add(-5 * day), "node certificate 0 error\ncluster CA 7 warn\nCA of link esx 7 warn\n"},
		{start.Add(-2 * day), "node certificate 0 error\ncluster CA 0 error\nCA of link esx 0 error\n"},
	} {
		var got strings.Builder
		for _, a := range id.Alarms(c.now, trusted, Trusted{Link: "none"}) {
			got.WriteString(a.What + " " + map[int]string{0: "0", 1: "1", 7: "7", 30: "30"}[a.Days] + " " + string(a.Level) + "\n")
			if a.Text == "" || a.Hint == "" {
				t.Errorf("%+v: no text or no hint", a)
			}
		}
		if got.String() != c.want {
			t.Errorf("at %v:\n%swant:\n%s", c.now, got.String(), c.want)
		}
	}
}

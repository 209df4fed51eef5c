package lab_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// With nobody to take over, the request is refused and the group is left alone.
func TestStandbyDown(t *testing.T) {
	s := plain(t, "CLP-1")
	must(t, s.Lab.Kill(t.Context(), "CLP-2"))
	told(t, s, "CLP-1", "node-down", "CLP-2")
	must(t, s.Lab.Pull(t.Context(), s.Host, "vmnic1"))
	e := told(t, s, "CLP-1", "request-refused", "GRP_FAILOVER")
	if !strings.Contains(e.Text, "CLP-2") {
		t.Errorf("the refusal does not say why: %s", e.Text)
	}
	failed := told(t, s, s.Host, "request-failed", "GRP_FAILOVER")
	if !strings.Contains(failed.Text, "CLP-2") {
		t.Errorf("the host was not told why: %s", failed.Text)
	}
	stays(t, s, "CLP-1", time.Second)
	if n := count(t, s, "CLP-1", "group-stop-begun"); n != 0 {
		t.Errorf("the group was stopped %d times", n)
	}
}

// second makes bay8-esx a cluster of its own, which may ask only what the
// invitation says.
func second(t *testing.T, s *demo.Stage, invitation ...string) {
	t.Helper()
	file := strings.NewReplacer("bay7-esx", "bay8-esx", "10.2.102.17", "10.2.102.18").Replace(do(t, s, s.Host, "tasuki", "config", "show"))
	must(t, s.Cluster(t.Context(), []byte(file), quiet, "bay8-esx"))
	token := do(t, s, "CLP-1", append([]string{"tasuki", "link", "invite", "bay8-esx"}, invitation...)...)
	do(t, s, "bay8-esx", "tasuki", "link", "add", strings.TrimSpace(token))
}

func TestRefusals(t *testing.T) {
	s := plain(t, "CLP-1")
	second(t, s, "--verbs", "EXEC_SCRIPT", "--scripts", "failover_message.sh")
	dir := "/opt/nec/clusterpro/work/clptrnreq"
	// What a script does, if it runs, is to leave a mark.
	mark := []byte("#!/bin/sh\ntouch /tmp/ran-$(basename \"$0\")\n")
	must(t, s.Lab.WriteFile(t.Context(), "CLP-1", dir+"/loose.sh", 0o757, mark))
	must(t, s.Lab.WriteFile(t.Context(), "CLP-1", dir+"/stranger.sh", 0o755, mark))
	must(t, s.Lab.WriteFile(t.Context(), "CLP-1", dir+"/fine.sh", 0o755, mark))
	must(t, s.Lab.WriteFile(t.Context(), "CLP-1", "/tmp/outside.sh", 0o755, mark))
	do(t, s, "CLP-1", "chown", "33", dir+"/stranger.sh")
	do(t, s, "CLP-1", "ln", "-s", "/tmp/outside.sh", dir+"/link.sh")
	for _, c := range []struct{ from, why, in string }{
		{"bay8-esx", "may not ask for GRP_FAILOVER", "request failover --resource exec --host CLP-1"},
		{"bay8-esx", "may not ask for script fine.sh", "request script --script fine.sh --host CLP-1"},
		{s.Host, "not a bare file name", "request script --script ../../../../../tmp/outside.sh --host CLP-1"},
		{s.Host, "not a bare file name", "request script --script /tmp/outside.sh --host CLP-1"},
		{s.Host, "written by others", "request script --script loose.sh --host CLP-1"},
		{s.Host, "root", "request script --script stranger.sh --host CLP-1"},
		{s.Host, "link", "request script --script link.sh --host CLP-1"},
		{s.Host, "may not ask for group nothing", "request failover --group nothing --host CLP-1"},
		{s.Host, "no group has a resource", "request failover --resource nothing --host CLP-1"},
	} {
		code, said := fails(t, s, c.from, append([]string{"tasuki"}, strings.Fields(c.in)...)...)
		if code == 2 || !strings.Contains(said, c.why) {
			t.Errorf("%s: exit code %d, which does not say %q:\n%s", c.in, code, c.why, said)
		}
		told(t, s, "CLP-1", "request-refused", c.why)
	}
	if out, _ := s.Do(t.Context(), "CLP-1", "sh", "-c", "ls /tmp/ran-* 2>/dev/null; true"); out != "" {
		t.Errorf("scripts ran: %s", out)
	}
	do(t, s, s.Host, "tasuki", "request", "script", "--script", "fine.sh", "--host", "CLP-1") // the check above can fail
	do(t, s, "CLP-1", "ls", "/tmp/ran-fine.sh")

	// A link that was removed asks no more.
	do(t, s, "CLP-1", "tasuki", "link", "remove", "bay8-esx")
	fails(t, s, "bay8-esx", "tasuki", "request", "script", "--script", "failover_message.sh", "--host", "CLP-1", "--wait", "2s")
	told(t, s, "CLP-1", "access-refused", "may not do this")
	stays(t, s, "CLP-1", 300*time.Millisecond)
	if n := count(t, s, "CLP-1", "group-stop-begun"); n != 0 {
		t.Errorf("the group was stopped %d times", n)
	}
}

// A key that no cluster knows, and no key at all, get nothing and are told of.
func TestStranger(t *testing.T) {
	s := plain(t, "CLP-1")
	from, err := s.Lab.Namespace(t.Context(), "client")
	must(t, err)
	defer from.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bay7-esx", Organization: []string{"bay7-esx"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	must(t, err)
	forged := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	send := func(certs ...tls.Certificate) (int, error) {
		c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs}}}
		body := []byte(`{"id":"x","verb":"GRP_FAILOVER","group":"failover"}`)
		req, err := http.NewRequestWithContext(context.Background(), "POST", "https://10.2.102.51:29002/v1/requests", bytes.NewReader(body))
		must(t, err)
		req.Header.Set("Content-Type", "application/json")
		r, err := c.Do(req)
		if err != nil {
			return 0, err
		}
		defer r.Body.Close()
		io.Copy(io.Discard, r.Body)
		return r.StatusCode, nil
	}
	if code, err := send(forged); err == nil {
		t.Errorf("a forged certificate got status %d", code)
	}
	told(t, s, "CLP-1", "access-refused", "certificate not trusted")
	if code, err := send(); err != nil || code != http.StatusForbidden {
		t.Errorf("nobody got status %d, %v", code, err)
	}
	told(t, s, "CLP-2", "access-refused", "anonymous")
	for range 100 {
		send(forged)
	}
	if n := count(t, s, "CLP-1", "access-refused"); n > 15 {
		t.Errorf("a stranger could write %d lines", n)
	}
	stays(t, s, "CLP-1", 300*time.Millisecond)
}

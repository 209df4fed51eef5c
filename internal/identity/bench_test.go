package identity

import (
	"crypto/x509"
	"testing"
	"time"
)

// Who is asked for every request.
func BenchmarkWho(b *testing.B) {
	us, err := create("VMcluster", "CLP-1", time.Now)
	if err != nil {
		b.Fatal(err)
	}
	link, err := create("esx", "esx", time.Now)
	if err != nil {
		b.Fatal(err)
	}
	trust := func() []Trusted { return []Trusted{{Link: "a", CA: us.CA()}, {Link: "esx", CA: link.CA()}} }
	for b.Loop() {
		if _, err := us.judge(link.Certificate(), x509.ExtKeyUsageClientAuth, trust); err != nil {
			b.Fatal(err)
		}
	}
}

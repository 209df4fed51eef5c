package outlet

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"
)

// maxAnswer bounds what is read of a receiver's answer, in bytes.
const maxAnswer = 64 << 10

// poster posts to a web server.
type poster struct {
	client *http.Client // nil: it could not be made yet
}

// post sends a request and returns the answer; ca is as of newClient. It names in an
// error what was posted and who answered, and is errRefused where it is of no use to
// post the same again: after the answers 400 and 413, and those that are given.
func (p *poster) post(req *http.Request, ca, what, who string, refused ...int) ([]byte, error) {
	if p.client == nil {
		client, err := newClient(ca)
		if err != nil {
			return nil, err
		}
		p.client = client
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("post %s: %w", what, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // a connection whose answer was read serves again
	switch code := resp.StatusCode; {
	case code/100 == 2:
		return answer, nil
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, slices.Contains(refused, code):
		return nil, fmt.Errorf("%w: %s: %.200q", errRefused, resp.Status, answer)
	}
	return nil, fmt.Errorf("%s answers %s: %.200q", who, resp.Status, answer)
}

// close implements sink.
func (p *poster) close() {
	if p.client != nil {
		p.client.CloseIdleConnections()
	}
}

// newClient returns a client that keeps one connection, follows no redirection
// (what is signed is meant for one address) and uses no proxy.
func newClient(ca string) (*http.Client, error) {
	conf, err := trusting(ca)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: conf, MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}, nil
}

// trusting returns how a receiver must show itself; ca "" trusts whom the system
// trusts.
func trusting(ca string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca == "" {
		return conf, nil
	}
	data, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("read the certificates to trust: %w", err)
	}
	conf.RootCAs = x509.NewCertPool()
	if !conf.RootCAs.AppendCertsFromPEM(data) {
		return nil, errors.New("there is no certificate in " + ca)
	}
	return conf, nil
}

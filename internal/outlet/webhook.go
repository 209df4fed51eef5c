package outlet

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tasuki-ha/tasuki/internal/config"
)

// maxAnswer bounds what is read of a receiver's answer, in bytes.
const maxAnswer = 64 << 10

// webhook posts events to a web server, signed as the Standard Webhooks say.
type webhook struct {
	sure
	c      config.Outlet
	client *http.Client // nil: it could not be made yet
}

// deliver implements sink.
func (w *webhook) deliver(ctx context.Context, d *Delivery) error {
	if w.client == nil {
		client, err := newClient(w.c.Webhook.CA)
		if err != nil {
			return err
		}
		w.client = client
	}
	req, err := w.request(ctx, d)
	if err != nil {
		return err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return fmt.Errorf("post the event: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // a connection whose answer was read serves again
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case resp.StatusCode == http.StatusBadRequest, resp.StatusCode == http.StatusRequestEntityTooLarge, resp.StatusCode == http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %s: %.200q", errRefused, resp.Status, answer)
	}
	return fmt.Errorf("the receiver answers %s: %.200q", resp.Status, answer)
}

func (w *webhook) request(ctx context.Context, d *Delivery) (*http.Request, error) {
	body, err := d.json()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.c.Webhook.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("post the event: %w", err)
	}
	now := time.Now()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tasuki")
	req.Header.Set(standardwebhooks.HeaderWebhookID, d.id())
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	if w.c.Webhook.SecretFile == "" {
		return req, nil
	}
	key, err := readKey(w.c.Webhook.SecretFile) // each time, so that it can be changed
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(d.id(), now, body)
	if err != nil {
		return nil, fmt.Errorf("sign the event: %w", err)
	}
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	return req, nil
}

// readKey reads the key of the signatures: whsec_ and base64, or any other line.
func readKey(path string) (*standardwebhooks.Webhook, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the secret: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if len(text) < 16 {
		return nil, fmt.Errorf("the secret in %s has less than 16 characters", path)
	}
	if strings.HasPrefix(text, "whsec_") {
		key, err := standardwebhooks.NewWebhook(text)
		if err != nil {
			return nil, fmt.Errorf("the secret in %s is no base64 behind whsec_: %w", path, err)
		}
		return key, nil
	}
	key, err := standardwebhooks.NewWebhookRaw([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("the secret in %s cannot be used: %w", path, err)
	}
	return key, nil
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

// close implements sink.
func (w *webhook) close() {
	if w.client != nil {
		w.client.CloseIdleConnections()
	}
}

package outlet

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tasuki-ha/tasuki/internal/config"
)

// webhook posts events to a web server, signed as the Standard Webhooks say.
type webhook struct {
	sure
	poster
	c config.Outlet
}

// deliver implements sink.
func (w *webhook) deliver(ctx context.Context, d *Delivery) error {
	req, err := w.request(ctx, d)
	if err != nil {
		return err
	}
	_, err = w.post(req, w.c.Webhook.CA, "the event", "the receiver", http.StatusUnprocessableEntity)
	return err
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

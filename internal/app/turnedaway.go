package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

// A stranger can knock as often as he likes; the operator's log gets this much
// of it. What is left out is counted.
const (
	turnedAwayEvery = 10 * time.Second
	turnedAwayBurst = 10
)

// turnedAway tells the operator's log of callers that are not let in.
type turnedAway struct {
	record func(context.Context, api.Event) cluster.EventID
	limit  *rate.Limiter
	missed atomic.Int64
}

func newTurnedAway(record func(context.Context, api.Event) cluster.EventID) *turnedAway {
	return &turnedAway{record: record, limit: rate.NewLimiter(rate.Every(turnedAwayEvery), turnedAwayBurst)}
}

func (t *turnedAway) tell(ctx context.Context, what, ip, why string) {
	if !t.limit.Allow() {
		t.missed.Add(1)
		return
	}
	text := fmt.Sprintf("%s (IP=%s) was refused: %s.", what, ip, why)
	if n := t.missed.Swap(0); n > 0 {
		text += fmt.Sprintf(" %d more like this were not logged.", n)
	}
	t.record(ctx, api.Event{Level: cluster.LevelWarn, Module: "apisv", Code: "access-refused", Text: text, Fields: map[string]string{"ip": ip}})
}

// handshakes returns the configuration that tells of a certificate that nobody
// here trusts.
func (t *turnedAway) handshakes(ctx context.Context, c *tls.Config) *tls.Config {
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		own := c.Clone()
		own.VerifyConnection = func(cs tls.ConnectionState) error {
			err := c.VerifyConnection(cs)
			if errors.Is(err, identity.ErrNotTrusted) {
				t.tell(ctx, "A connection", mapped(addrOf(hello.Conn.RemoteAddr().String())), err.Error())
			}
			return err
		}
		return own, nil
	}
	return c
}

// calls tells of calls that the handler answers with 403. The refusal of a
// linked cluster's request is told where it is refused, with its chain.
func (t *turnedAway) calls(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &statusSeen{ResponseWriter: w}
		h.ServeHTTP(seen, r)
		c := httpapi.CallerOf(r.Context())
		if seen.code == http.StatusForbidden && (c.Kind != httpapi.Linked || r.URL.Path != "/v1/requests") {
			who := strings.TrimSpace(fmt.Sprintf("the caller is %s %s", c.Kind, c.Name))
			t.tell(r.Context(), fmt.Sprintf("A call (%.8q %.64q)", r.Method, r.URL.Path), mapped(c.Addr), who+", which may not do this")
		}
	})
}

// statusSeen remembers the answer's status. Unwrap keeps flushing alive.
type statusSeen struct {
	http.ResponseWriter
	code int
}

func (s *statusSeen) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

func (s *statusSeen) Unwrap() http.ResponseWriter { return s.ResponseWriter }

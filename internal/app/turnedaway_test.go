package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
)

// book is an operator's log in memory.
type book struct{ lines []api.Event }

func (b *book) record(_ context.Context, e api.Event) cluster.EventID {
	b.lines = append(b.lines, e)
	return "n/1"
}

func TestStrangersCannotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b book
		away := newTurnedAway(b.record)
		for range 1000 {
			away.tell(t.Context(), "A call", "10.0.0.9", "no")
		}
		if len(b.lines) != turnedAwayBurst {
			t.Fatalf("%d lines", len(b.lines))
		}
		<-time.After(turnedAwayEvery)
		away.tell(t.Context(), "A call", "10.0.0.9", "no")
		if got := b.lines[len(b.lines)-1].Text; got != "A call (IP=10.0.0.9) was refused: no. 990 more like this were not logged." {
			t.Error(got)
		}
	})
}

func TestWhichCallsAreTold(t *testing.T) {
	for _, c := range []struct {
		kind httpapi.Kind
		path string
		code int
		told bool
	}{
		{httpapi.Anonymous, "/v1/requests", http.StatusForbidden, true},
		{httpapi.Anonymous, "/v1/status", http.StatusForbidden, true},
		{httpapi.Anonymous, "/v1/join", http.StatusOK, false},
		{httpapi.Anonymous, "/v1/join", http.StatusConflict, false},
		{httpapi.Linked, "/v1/status", http.StatusForbidden, true},
		{httpapi.Linked, "/v1/requests", http.StatusForbidden, false}, // told where it is refused
		{httpapi.Node, "/v1/status", http.StatusForbidden, true},
	} {
		var b book
		h := newTurnedAway(b.record).calls(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(c.code) }))
		r := httptest.NewRequest("POST", c.path, nil)
		r = r.WithContext(httpapi.WithCaller(r.Context(), httpapi.Caller{Kind: c.kind, Name: "x", Addr: netip.MustParseAddr("10.0.0.9")}))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.code || (len(b.lines) == 1) != c.told {
			t.Errorf("%s %s %d: %v", c.kind, c.path, c.code, b.lines)
		}
		if c.told && len(b.lines) == 1 && (!strings.Contains(b.lines[0].Text, c.path) || !strings.Contains(b.lines[0].Text, "::ffff:10.0.0.9")) {
			t.Error(b.lines[0].Text)
		}
	}
}

// A path is what a stranger chose: it cannot forge lines, nor fill one.
func TestAToldPathIsHarmless(t *testing.T) {
	var b book
	h := newTurnedAway(b.record).calls(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	r := httptest.NewRequest("GET", "/", nil)
	r.URL.Path = "/\n2026 forged" + strings.Repeat("x", 10_000)
	h.ServeHTTP(httptest.NewRecorder(), r)
	if got := b.lines[0].Text; strings.Contains(got, "\n") || len(got) > 300 {
		t.Error(got)
	}
}

package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

var (
	kinds    = []httpapi.Kind{httpapi.Local, httpapi.Node, httpapi.Linked, httpapi.Anonymous, "something new"}
	insiders = []httpapi.Kind{httpapi.Local, httpapi.Node}
	all      = []httpapi.Kind{httpapi.Local, httpapi.Node, httpapi.Linked, httpapi.Anonymous}
	linked   = []httpapi.Kind{httpapi.Linked}
)

// rights says who may call what. An operation that is not here fails the test:
// decide who may call it.
var rights = map[string][]httpapi.Kind{
	"GET /v1/ping": all, "GET /v1/status": insiders, "GET /v1/events": insiders, "GET /v1/explain": insiders, "GET /v1/plans/{id}": insiders,
	"GET /v1/follow":                 insiders,
	"POST /v1/groups/{group}/{verb}": insiders, "POST /v1/monitors/{monitor}/{verb}": insiders, "POST /v1/nodes/{node}/{verb}": insiders,
	"GET /v1/guests": insiders, "POST /v1/guests/{guest}/{action}": insiders,
	"POST /v1/fences/check": insiders, "POST /v1/maintenance/{verb}": insiders, "POST /v1/mirrors/{mirror}/{verb}": insiders,
	"POST /v1/log": insiders, "POST /v1/requests": linked, "POST /v1/send": insiders,
	"GET /v1/config": insiders, "GET /v1/config/history": insiders, "POST /v1/config/plan": insiders, "POST /v1/config/apply": insiders,
	"POST /v1/tokens": insiders, "POST /v1/join": all, "POST /v1/link": all, "POST /v1/links": insiders, "DELETE /v1/links/{name}": insiders,
}

// bodies are the least that each operation takes.
var bodies = map[string]string{
	"POST /v1/groups/{group}/{verb}": `{}`, "POST /v1/monitors/{monitor}/{verb}": `{}`, "POST /v1/nodes/{node}/{verb}": `{}`,
	"POST /v1/guests/{guest}/{action}": `{}`,
	"POST /v1/fences/check":            `{"node":"n"}`, "POST /v1/maintenance/{verb}": `{}`, "POST /v1/mirrors/{mirror}/{verb}": `{}`,
	"POST /v1/log": `{"text":"x"}`, "POST /v1/requests": `{"id":"1","verb":"GRP_FAILOVER"}`, "POST /v1/send": `{"id":"1","verb":"GRP_FAILOVER","hosts":["h"]}`,
	"POST /v1/config/plan": `{"text":"x","base":0}`, "POST /v1/config/apply": `{"text":"x","base":0}`, "POST /v1/tokens": `{"purpose":"join","subject":"n"}`,
	"POST /v1/join": `{"token_id":"x","secret":"x","node":"n","csr":"x"}`, "POST /v1/link": `{"token_id":"x","secret":"x","cluster":"c","ca":"x"}`,
	"POST /v1/links": `{"token":"x"}`,
}

func call(t *testing.T, b *httpapitest.Backend, c httpapi.Caller, op string) (int, string) {
	t.Helper()
	return callOf(t, b, c, op, bodies[op])
}

func send(t *testing.T, b *httpapitest.Backend, c httpapi.Caller, op, body string) (int, string) {
	t.Helper()
	code, text := callOf(t, b, c, op, body)
	if calls := b.Calls(); len(calls) > 0 {
		t.Errorf("%s with a broken body was carried out: %v", op, calls)
	}
	return code, text
}

func callOf(t *testing.T, b httpapi.Backend, c httpapi.Caller, op, body string) (int, string) {
	t.Helper()
	method, path, _ := strings.Cut(op, " ")
	path = strings.NewReplacer("{group}", "g", "{monitor}", "m", "{node}", "n", "{verb}", "stop", "{id}", "p1", "{name}", "c").Replace(path)
	ctx := httpapi.WithCaller(t.Context(), c)
	if op == "GET /v1/follow" { // it would go on for ever
		done, cancel := context.WithCancel(ctx)
		cancel()
		ctx = done
	}
	r := httptest.NewRequest(method, path, strings.NewReader(body)).WithContext(ctx)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	httpapi.New(b, "test").ServeHTTP(w, r)
	data, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(data)
}

func TestEveryOperationIsInTheTable(t *testing.T) {
	code, doc := call(t, &httpapitest.Backend{}, httpapi.Caller{Kind: httpapi.Local}, "GET /openapi.json")
	var spec struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal([]byte(doc), &spec); err != nil || code != http.StatusOK || len(spec.Paths) < 10 {
		t.Fatal(code, err, len(spec.Paths))
	}
	there := map[string]bool{}
	for path, methods := range spec.Paths {
		for method := range methods {
			op := strings.ToUpper(method) + " " + path
			there[op] = true
			if _, known := rights[op]; !known {
				t.Errorf("%s: nobody has decided who may call it", op)
			}
		}
	}
	for op := range rights {
		if !there[op] {
			t.Errorf("%s: there is no such operation", op)
		}
	}
}

// What a caller sends is not looked at before his right to send it.
func TestRightsComeBeforeTheBody(t *testing.T) {
	for op, allowed := range rights {
		if bodies[op] == "" || slices.Contains(allowed, httpapi.Anonymous) {
			continue
		}
		code, text := send(t, &httpapitest.Backend{}, httpapi.Caller{Kind: httpapi.Anonymous}, op, "this is no JSON")
		if code != http.StatusForbidden || !strings.Contains(text, `"hint"`) {
			t.Errorf("%s: %d %s", op, code, text)
		}
		for _, kind := range allowed {
			if code, text := send(t, &httpapitest.Backend{}, httpapi.Caller{Kind: kind}, op, "this is no JSON"); code < 400 || code >= 500 || !strings.Contains(text, `"bad-request"`) {
				t.Errorf("%s by %s: %d %s", op, kind, code, text)
			}
		}
	}
}

// What is no operation is for insiders too, also by a detour.
func TestDescriptionIsForInsiders(t *testing.T) {
	for _, path := range []string{"/openapi.json", "/openapi.yaml", "/openapi-3.0.json", "/", "/docs", "//openapi.json"} {
		for _, kind := range kinds {
			code, _ := call(t, &httpapitest.Backend{}, httpapi.Caller{Kind: kind}, "GET "+path)
			if (code != http.StatusForbidden) != slices.Contains(insiders, kind) {
				t.Errorf("%s got %d for %s", kind, code, path)
			}
		}
	}
	code, text := call(t, &httpapitest.Backend{}, httpapi.Caller{}, "GET /v1/../openapi.json")
	if code == http.StatusOK || strings.Contains(text, "Tasuki") {
		t.Error(code, text)
	}
}

// broken is a backend whose status cannot be had.
type broken struct {
	*httpapitest.Backend
	err error
}

func (b broken) Status(context.Context) (api.Status, error) { return api.Status{}, b.err }

// A refusal keeps its code, and what was not foreseen says so.
func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		code   string
	}{
		{&api.Error{Code: "standby-down"}, http.StatusConflict, "standby-down"},
		{&api.Error{Code: "no-such-group"}, http.StatusNotFound, "no-such-group"},
		{&api.Error{Code: "no-quorum"}, http.StatusServiceUnavailable, "no-quorum"},
		{fmt.Errorf("ask: %w", &api.Error{Code: "token-used"}), http.StatusForbidden, "token-used"},
		{&api.Error{Code: "config-invalid"}, http.StatusUnprocessableEntity, "config-invalid"},
		{&api.Error{Code: "timed-out"}, http.StatusGatewayTimeout, "timed-out"},
		{context.DeadlineExceeded, http.StatusGatewayTimeout, "timed-out"},
		{errors.New("disk full"), http.StatusInternalServerError, "internal"},
	} {
		code, text := callOf(t, broken{&httpapitest.Backend{}, tt.err}, httpapi.Caller{Kind: httpapi.Local}, "GET /v1/status", "")
		if code != tt.status || !strings.Contains(text, `"code":"`+tt.code+`"`) {
			t.Errorf("%v: %d %s", tt.err, code, text)
		}
	}
}

func TestRights(t *testing.T) {
	for op, allowed := range rights {
		for _, kind := range kinds {
			b := &httpapitest.Backend{}
			code, text := call(t, b, httpapi.Caller{Kind: kind, Name: "who", Link: "c"}, op)
			if slices.Contains(allowed, kind) {
				if code == http.StatusForbidden || code == http.StatusUnprocessableEntity || code >= 500 {
					t.Errorf("%s may call %s, and got %d %s", kind, op, code, text)
				}
				continue
			}
			if code != http.StatusForbidden || !strings.Contains(text, `"not-allowed"`) {
				t.Errorf("%s may not call %s, and got %d %s", kind, op, code, text)
			}
			if calls := b.Calls(); len(calls) > 0 {
				t.Errorf("%s may not call %s, and it was carried out: %v", kind, op, calls)
			}
		}
	}
}

// A context that no door has seen is nobody's.
func TestNoDoorNoRights(t *testing.T) {
	b := &httpapitest.Backend{}
	w := httptest.NewRecorder()
	httpapi.New(b, "test").ServeHTTP(w, httptest.NewRequest("GET", "/v1/status", nil))
	if w.Code != http.StatusForbidden || len(b.Calls()) > 0 {
		t.Error(w.Code, b.Calls())
	}
}

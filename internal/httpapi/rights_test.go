package httpapi_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

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
	"POST /v1/log": insiders, "POST /v1/requests": linked, "POST /v1/send": insiders,
	"GET /v1/config": insiders, "GET /v1/config/history": insiders, "POST /v1/config/plan": insiders, "POST /v1/config/apply": insiders,
	"POST /v1/tokens": insiders, "POST /v1/join": all, "POST /v1/link": all, "POST /v1/links": insiders, "DELETE /v1/links/{name}": insiders,
}

// bodies are the least that each operation takes.
var bodies = map[string]string{
	"POST /v1/groups/{group}/{verb}": `{}`, "POST /v1/monitors/{monitor}/{verb}": `{}`, "POST /v1/nodes/{node}/{verb}": `{}`,
	"POST /v1/log": `{"text":"x"}`, "POST /v1/requests": `{"id":"1","verb":"GRP_FAILOVER"}`, "POST /v1/send": `{"id":"1","verb":"GRP_FAILOVER","hosts":["h"]}`,
	"POST /v1/config/plan": `{"text":"x","base":0}`, "POST /v1/config/apply": `{"text":"x","base":0}`, "POST /v1/tokens": `{"purpose":"join","subject":"n"}`,
	"POST /v1/join": `{"token_id":"x","secret":"x","node":"n","csr":"x"}`, "POST /v1/link": `{"token_id":"x","secret":"x","cluster":"c","ca":"x"}`,
	"POST /v1/links": `{"token":"x"}`,
}

func call(t *testing.T, b *httpapitest.Backend, c httpapi.Caller, op string) (int, string) {
	t.Helper()
	method, path, _ := strings.Cut(op, " ")
	path = strings.NewReplacer("{group}", "g", "{monitor}", "m", "{node}", "n", "{verb}", "stop", "{id}", "p1", "{name}", "c").Replace(path)
	ctx := httpapi.WithCaller(t.Context(), c)
	if op == "GET /v1/follow" { // it would go on for ever
		done, cancel := context.WithCancel(ctx)
		cancel()
		ctx = done
	}
	r := httptest.NewRequest(method, path, strings.NewReader(bodies[op])).WithContext(ctx)
	if bodies[op] != "" {
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
	for path, methods := range spec.Paths {
		for method := range methods {
			if _, known := rights[strings.ToUpper(method)+" "+path]; !known {
				t.Errorf("%s %s: nobody has decided who may call it", strings.ToUpper(method), path)
			}
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

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
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

var (
	kinds    = []httpapi.Kind{httpapi.Local, httpapi.Node, httpapi.Linked, httpapi.Anonymous, httpapi.User, httpapi.Token, "something new"}
	insiders = []httpapi.Kind{httpapi.Local, httpapi.Node}
	all      = access{kinds: []httpapi.Kind{httpapi.Local, httpapi.Node, httpapi.Linked, httpapi.Anonymous, httpapi.User, httpapi.Token}}
	known    = access{kinds: []httpapi.Kind{httpapi.Local, httpapi.Node, httpapi.User, httpapi.Token}}
	linked   = access{kinds: []httpapi.Kind{httpapi.Linked}}
	users    = access{kinds: []httpapi.Kind{httpapi.User}}

	read      = access{insiders, cluster.RoleRead}
	operate   = access{insiders, cluster.RoleOperate}
	configure = access{insiders, cluster.RoleConfigure}
	fence     = access{insiders, cluster.RoleFence}
	request   = access{insiders, cluster.RoleRequest}
)

// access is who may call an operation: callers of these kinds, and users and
// access tokens with the role.
type access struct {
	kinds []httpapi.Kind
	role  cluster.Role
}

func (a access) allows(c httpapi.Caller) bool {
	byRole := c.Kind == httpapi.User || c.Kind == httpapi.Token
	return slices.Contains(a.kinds, c.Kind) || byRole && slices.Contains(c.Roles, a.role)
}

// callers are one of each kind; of users and access tokens one without a role,
// one with each role, and one with all but each.
func callers() (out []httpapi.Caller) {
	for _, k := range kinds {
		c := httpapi.Caller{Kind: k, Name: "who", Link: "c"}
		out = append(out, c)
		if k == httpapi.User || k == httpapi.Token {
			for _, r := range cluster.Roles() {
				only, allBut := c, c
				only.Roles = []cluster.Role{r}
				allBut.Roles = slices.DeleteFunc(cluster.Roles(), func(other cluster.Role) bool { return other == r })
				out = append(out, only, allBut)
			}
			continue
		}
		c.Roles = cluster.Roles() // which are nothing for who is neither
		out = append(out, c)
	}
	return out
}

// rights says who may call what. An operation that is not here fails the test:
// decide who may call it.
var rights = map[string]access{
	"GET /versions": all, "GET /v1/ping": all, "GET /v1/status": read, "GET /v1/events": read, "GET /v1/explain": read, "GET /v1/plans/{id}": read,
	"GET /v1/snapshot": read, "POST /v1/simulate": read, "GET /metrics": read, "GET /v1/follow": read, "GET /v1/stream": read,
	"POST /v1/groups/{group}/{verb}": operate, "POST /v1/monitors/{monitor}/{verb}": operate, "POST /v1/nodes/{node}/{verb}": operate,
	"POST /v1/nodes/{node}/fence": fence, "POST /v1/nodes/{node}/start-alone": fence,
	"GET /v1/guests": read, "POST /v1/guests/{guest}/{action}": fence,
	"POST /v1/fences/check": fence, "POST /v1/maintenance/{verb}": operate, "POST /v1/mirrors/{mirror}/{verb}": operate,
	"POST /v1/log": operate, "POST /v1/requests": linked, "POST /v1/send": request,
	// The text of the cluster file may hold secrets of fence devices.
	"GET /v1/config": configure, "GET /v1/config/history": read, "POST /v1/config/plan": configure, "POST /v1/config/apply": configure,
	"GET /v1/config/draft": configure, "POST /v1/config/draft": configure,
	"POST /v1/tokens": configure, "POST /v1/join": all, "POST /v1/link": all, "POST /v1/links": configure, "DELETE /v1/links/{name}": configure,
	"GET /v1/self": known, "POST /v1/self/password": users,
	"GET /v1/users": configure, "POST /v1/users": configure, "DELETE /v1/users/{user}": configure,
	"POST /v1/users/{user}/password": configure, "POST /v1/users/{user}/roles": configure,
	"GET /v1/access-tokens": configure, "POST /v1/access-tokens": configure, "DELETE /v1/access-tokens/{id}": configure,
}

// bodies are the least that each operation takes.
var bodies = map[string]string{
	"POST /v1/groups/{group}/{verb}": `{}`, "POST /v1/monitors/{monitor}/{verb}": `{}`, "POST /v1/nodes/{node}/{verb}": `{}`,
	"POST /v1/guests/{guest}/{action}": `{}`,
	"POST /v1/fences/check":            `{"node":"n"}`, "POST /v1/maintenance/{verb}": `{}`, "POST /v1/mirrors/{mirror}/{verb}": `{}`,
	"POST /v1/log": `{"text":"x"}`, "POST /v1/requests": `{"id":"1","verb":"GRP_FAILOVER"}`, "POST /v1/send": `{"id":"1","verb":"GRP_FAILOVER","hosts":["h"]}`,
	"POST /v1/config/plan": `{"text":"x","base":0}`, "POST /v1/config/apply": `{"text":"x","base":0}`, "POST /v1/config/draft": `{}`, "POST /v1/tokens": `{"purpose":"join","subject":"n"}`,
	"POST /v1/join": `{"token_id":"x","secret":"x","node":"n","csr":"x"}`, "POST /v1/link": `{"token_id":"x","secret":"x","cluster":"c","ca":"x"}`,
	"POST /v1/links": `{"token":"x"}`, "POST /v1/nodes/{node}/fence": `{}`, "POST /v1/nodes/{node}/start-alone": `{}`,
	"POST /v1/self/password": `{"old":"x","password":"longer than that"}`, "POST /v1/users": `{"name":"u","password":"longer than that","roles":["read"]}`,
	"POST /v1/users/{user}/password": `{"password":"longer than that"}`, "POST /v1/users/{user}/roles": `{"roles":["read"]}`,
	"POST /v1/access-tokens": `{"name":"backup","roles":["read"]}`, "POST /v1/simulate": `{"kill":["n"]}`,
}

func call(t *testing.T, b *httpapitest.Backend, c httpapi.Caller, op string) (int, string) {
	t.Helper()
	return callOf(t, b, c, op, bodies[op])
}

func callOf(t *testing.T, b httpapi.Backend, c httpapi.Caller, op, body string) (int, string) {
	t.Helper()
	return callOn(t, httpapi.New(b, "test"), c, op, body)
}

func callOn(t *testing.T, h http.Handler, c httpapi.Caller, op, body string) (int, string) {
	t.Helper()
	ctx := httpapi.WithCaller(t.Context(), c)
	if endless(op) {
		done, cancel := context.WithCancel(ctx)
		cancel()
		ctx = done
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, ask(op, body).WithContext(ctx))
	data, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(data)
}

// endless says whether the answer goes on for ever.
func endless(op string) bool { return op == "GET /v1/follow" || op == "GET /v1/stream" }

// ask is a call of an operation about things that are not there.
func ask(op, body string) *http.Request {
	method, path, _ := strings.Cut(op, " ")
	path = strings.NewReplacer("{group}", "g", "{monitor}", "m", "{node}", "n", "{verb}", "stop", "{id}", "p1", "{name}", "c", "{user}", "u", "{guest}", "v", "{action}", "off", "{mirror}", "md").Replace(path)
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
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
	b := &httpapitest.Backend{}
	h := httpapi.New(b, "test")
	for op, allowed := range rights {
		if bodies[op] == "" || allowed.allows(httpapi.Caller{Kind: httpapi.Anonymous}) {
			continue
		}
		code, text := callOn(t, h, httpapi.Caller{Kind: httpapi.Anonymous}, op, "this is no JSON")
		if code != http.StatusForbidden || !strings.Contains(text, `"hint"`) {
			t.Errorf("%s: %d %s", op, code, text)
		}
		for _, kind := range allowed.kinds {
			if code, text := callOn(t, h, httpapi.Caller{Kind: kind}, op, "this is no JSON"); code < 400 || code >= 500 || !strings.Contains(text, `"bad-request"`) {
				t.Errorf("%s by %s: %d %s", op, kind, code, text)
			}
		}
	}
	if calls := b.Calls(); len(calls) > 0 {
		t.Error("a broken body was carried out:", calls)
	}
}

// What is no operation is for insiders too, also by a detour.
func TestDescriptionIsForInsiders(t *testing.T) {
	h := httpapi.New(&httpapitest.Backend{}, "test")
	for _, path := range []string{"/openapi.json", "/openapi.yaml", "/openapi-3.0.json", "/", "/docs", "//openapi.json"} {
		for _, kind := range kinds {
			code, _ := callOn(t, h, httpapi.Caller{Kind: kind}, "GET "+path, "")
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

// What is refused for its length may be a password: it is not sent back.
func TestRefusalsDoNotQuote(t *testing.T) {
	code, text := callOf(t, &httpapitest.Backend{}, httpapi.Caller{Kind: httpapi.Local}, "POST /v1/users", `{"name":"ann","password":"hunter2","roles":["read"]}`)
	if code != http.StatusUnprocessableEntity || strings.Contains(text, "hunter2") || !strings.Contains(text, "body.password") {
		t.Error(code, text)
	}
}

func TestRights(t *testing.T) {
	b := &httpapitest.Backend{}
	h := httpapi.New(b, "test")
	for op, allowed := range rights {
		for _, c := range callers() {
			before := len(b.Calls())
			code, text := callOn(t, h, c, op, bodies[op])
			if allowed.allows(c) {
				if code == http.StatusForbidden || code == http.StatusUnprocessableEntity || code >= 500 {
					t.Errorf("%s with %v may call %s, and got %d %s", c.Kind, c.Roles, op, code, text)
				}
				continue
			}
			if code != http.StatusForbidden || !strings.Contains(text, `"not-allowed"`) {
				t.Errorf("%s with %v may not call %s, and got %d %s", c.Kind, c.Roles, op, code, text)
			}
			if calls := b.Calls()[before:]; len(calls) > 0 {
				t.Errorf("%s with %v may not call %s, and it was carried out: %v", c.Kind, c.Roles, op, calls)
			}
		}
	}
}

// Whoever lacks a role is told which; whose token is not good is told that.
func TestRefusalsSayWhatIsMissing(t *testing.T) {
	for want, c := range map[string]httpapi.Caller{
		"user ann has not the role operate": {Kind: httpapi.User, Name: "ann", Roles: []cluster.Role{cluster.RoleRead}},
		"has expired":                       {Kind: httpapi.Anonymous, Stale: true},
		"a caller of kind link may not":     {Kind: httpapi.Linked, Name: "esx"},
	} {
		if code, text := call(t, &httpapitest.Backend{}, c, "POST /v1/groups/{group}/{verb}"); code != http.StatusForbidden || !strings.Contains(text, want) {
			t.Errorf("%q: %d %s", want, code, text)
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

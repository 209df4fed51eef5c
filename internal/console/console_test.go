package console

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
)

// town is a cluster whose nodes know the same users and trust each other's
// vouchers.
type town struct {
	node cluster.NodeName
	site *site
}

type site struct {
	mu    sync.Mutex
	users map[cluster.UserName]api.User
	log   []string
}

func (s *site) tell(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, text)
}

func (t town) SignIn(ctx context.Context, name cluster.UserName, password string) (api.User, error) {
	if !httpapi.CallerOf(ctx).Addr.IsValid() {
		return api.User{}, errors.New("nobody knows where the caller is")
	}
	if password != "correct" {
		return api.User{}, &api.Error{Code: "sign-in-refused", Message: "the name or the password is wrong", Hint: "try again"}
	}
	return t.User(ctx, name)
}

func (t town) User(_ context.Context, name cluster.UserName) (api.User, error) {
	t.site.mu.Lock()
	defer t.site.mu.Unlock()
	u, known := t.site.users[name]
	if !known {
		return api.User{}, &api.Error{Code: "no-such-user", Message: "there is no such user"}
	}
	return u, nil
}

func (t town) Vouch(purpose string, statement []byte) (string, error) {
	return purpose + ":" + string(statement), nil
}

func (t town) Vouched(purpose, voucher string) ([]byte, cluster.NodeName, error) {
	statement, ours := strings.CutPrefix(voucher, purpose+":")
	if !ours {
		return nil, "", errors.New("not signed")
	}
	return []byte(statement), "n1", nil
}

func (t town) Record(_ context.Context, e api.Event) cluster.EventID {
	t.site.tell(e.Text)
	return "n1/1"
}

func (t town) TurnedAway(_ context.Context, what string, _ netip.Addr, why string) {
	t.site.tell(what + ": " + why)
}

func (town) Consoles() []Elsewhere { return []Elsewhere{{"n2", "https://10.0.0.2:29003"}} }

func (t town) Names() (cluster.Name, cluster.NodeName) { return "shop", t.node }

func (s *site) set(u api.User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[u.Name] = u
}

func (s *site) remove(n cluster.UserName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, n)
}

// whoAmI is an API that tells the caller who he is; /v1/stream goes on.
var whoAmI = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	c := httpapi.CallerOf(r.Context())
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": c.Kind, "name": c.Name, "roles": c.Roles})
	if r.URL.Path == "/v1/stream" {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
})

func packed(t *testing.T, text string) *fstest.MapFile {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return &fstest.MapFile{Data: b.Bytes()}
}

// browser keeps the cookies of one console.
type browser struct {
	t    *testing.T
	http *http.Client
	url  string
}

// start serves a console at one node of a site.
func start(t *testing.T, s *site, node cluster.NodeName, page fs.FS) *browser {
	t.Helper()
	c := New(Options{API: whoAmI, Cluster: town{node, s}, Version: "v1", Port: 29003, Page: page})
	server := httptest.NewTLSServer(c)
	t.Cleanup(server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := server.Client()
	client.Jar = jar
	return &browser{t, client, server.URL}
}

func newSite() *site {
	return &site{users: map[cluster.UserName]api.User{"ann": {Name: "ann", Roles: []cluster.Role{cluster.RoleRead}}}}
}

// do makes a request and returns the answer with its body read.
func (b *browser) do(method, path string, body any, edit ...func(*http.Request)) (*http.Response, string) {
	b.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range edit {
		f(r)
	}
	resp, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(text)
}

func (b *browser) signIn() {
	b.t.Helper()
	if resp, text := b.do("POST", "/session", map[string]string{"name": "ann", "password": "correct"}); resp.StatusCode != 200 {
		b.t.Fatal(resp.Status, text)
	}
}

func TestSession(t *testing.T) {
	s := newSite()
	b := start(t, s, "n1", nil)
	if resp, text := b.do("GET", "/v1/self", nil); resp.StatusCode != 401 || !strings.Contains(text, "not-signed-in") {
		t.Fatal("the API answers whoever comes:", resp.Status, text)
	}
	if resp, text := b.do("POST", "/session", map[string]string{"name": "ann", "password": "wrong"}); resp.StatusCode != 403 || !strings.Contains(text, "sign-in-refused") || len(resp.Cookies()) > 0 {
		t.Fatal("a wrong password:", resp.Status, text, resp.Cookies())
	}
	resp, text := b.do("POST", "/session", map[string]string{"name": "ann", "password": "correct"})
	cookies := resp.Cookies()
	if resp.StatusCode != 200 || len(cookies) != 1 {
		t.Fatal(resp.Status, text, cookies)
	}
	if c := cookies[0]; !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-") {
		t.Errorf("the cookie is %v", c)
	}
	var told Session
	if err := json.Unmarshal([]byte(text), &told); err != nil || told.User != "ann" || told.Node != "n1" || told.Cluster != "shop" || len(told.Elsewhere) != 1 {
		t.Errorf("%s (%v)", text, err)
	}
	if _, text := b.do("GET", "/v1/self", nil); text != `{"kind":"user","name":"ann","roles":["read"]}`+"\n" {
		t.Error(text)
	}
	s.set(api.User{Name: "ann", Roles: []cluster.Role{cluster.RoleOperate}})
	if _, text := b.do("GET", "/v1/self", nil); !strings.Contains(text, "operate") {
		t.Error("new roles do not count at once:", text)
	}
	b.do("DELETE", "/session", nil)
	replay := func(r *http.Request) { r.AddCookie(cookies[0]) }
	if resp, _ := b.do("GET", "/v1/self", nil, replay); resp.StatusCode != 401 {
		t.Error("a session goes on after signing out:", resp.Status)
	}
}

// What ends a session, ends it at once.
func TestSessionEnds(t *testing.T) {
	for name, end := range map[string]func(*site){
		"the user was removed": func(s *site) { s.remove("ann") },
		"a new password":       func(s *site) { s.set(api.User{Name: "ann", Changed: time.Now()}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite()
			b := start(t, s, "n1", nil)
			b.signIn()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, "GET", b.url+"/v1/stream", nil)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := b.http.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Body.Close()
			end(s)
			if resp, _ := b.do("GET", "/v1/self", nil); resp.StatusCode != 401 {
				t.Error("a call is answered:", resp.Status)
			}
			if _, err := io.ReadAll(stream.Body); err != nil {
				t.Error("the stream goes on:", err)
			}
		})
	}
}

func TestHandOver(t *testing.T) {
	s := newSite()
	first, second := start(t, s, "n1", nil), start(t, s, "n2", nil)
	ticketOf := func(b *browser) Ticket {
		t.Helper()
		resp, text := b.do("POST", "/session/ticket", nil)
		var tk Ticket
		if err := json.Unmarshal([]byte(text), &tk); err != nil || resp.StatusCode != 200 || tk.Ticket == "" {
			t.Fatal(resp.Status, text, err)
		}
		return tk
	}
	if resp, _ := first.do("POST", "/session/ticket", nil); resp.StatusCode != 401 {
		t.Error("a ticket for nobody:", resp.Status)
	}
	first.signIn()
	ticket := ticketOf(first)
	if resp, text := second.do("POST", "/session/handover", ticket); resp.StatusCode != 200 || !strings.Contains(text, `"node":"n2"`) {
		t.Fatal("the ticket is not good at another node:", resp.Status, text)
	}
	if resp, _ := second.do("GET", "/v1/self", nil); resp.StatusCode != 200 {
		t.Error("there is no session after it:", resp.Status)
	}
	third := start(t, s, "n2", nil)
	for name, bad := range map[string]func() Ticket{
		"nothing":          func() Ticket { return Ticket{} },
		"signed by nobody": func() Ticket { return Ticket{Ticket: "x" + ticket.Ticket} },
		"one that has run out": func() Ticket {
			return forged(t, ticket, func(k *ticketBody) { k.Until = time.Now().Add(-time.Second) })
		},
		"one that lasts for ever":      func() Ticket { return forged(t, ticket, func(k *ticketBody) { k.Until = time.Now().Add(time.Hour) }) },
		"of a session that is too old": func() Ticket { return forged(t, ticket, func(k *ticketBody) { k.Since = time.Now().Add(-lifetime) }) },
		"of a user that is gone":       func() Ticket { return forged(t, ticket, func(k *ticketBody) { k.User = "bob" }) },
	} {
		if resp, _ := third.do("POST", "/session/handover", bad()); resp.StatusCode != 401 {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	if resp, _ := second.do("POST", "/session/handover", ticket); resp.StatusCode != 401 {
		t.Error("a ticket was good twice:", resp.Status)
	}
	if log := strings.Join(s.log, "\n"); !strings.Contains(log, "User ann (IP=127.0.0.1) goes on at the console of this node, with a ticket of n1.") || strings.Count(log, "A ticket for the console: ") != 7 {
		t.Errorf("the log says:\n%s", log)
	}
}

type ticketBody = ticket

// forged is a ticket that a node of the cluster could have made.
func forged(t *testing.T, from Ticket, change func(*ticketBody)) Ticket {
	t.Helper()
	var k ticketBody
	if err := json.Unmarshal([]byte(strings.TrimPrefix(from.Ticket, ticketPurpose+":")), &k); err != nil {
		t.Fatal(err)
	}
	k.ID += "'"
	change(&k)
	data, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	return Ticket{Ticket: ticketPurpose + ":" + string(data)}
}

func TestUsedIsBounded(t *testing.T) {
	u := &used{until: map[string]time.Time{}}
	now := time.Now()
	if !u.first("a", now.Add(time.Minute), now) || u.first("a", now.Add(time.Minute), now) {
		t.Error("a ticket is good other than once")
	}
	if !u.first("b", now.Add(time.Hour), now.Add(2*time.Minute)) || len(u.until) != 1 {
		t.Error("what has run out is remembered:", u.until)
	}
}

// Another page, even one at another port of the same host, can make a browser send
// nothing that counts.
func TestCrossOrigin(t *testing.T) {
	b := start(t, newSite(), "n1", nil)
	b.signIn()
	for _, site := range []string{"cross-site", "same-site"} {
		foreign := func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", site)
			r.Header.Set("Origin", "https://evil.example")
		}
		for _, path := range []string{"/v1/groups/g/stop", "/session", "/session/ticket"} {
			if resp, _ := b.do("POST", path, nil, foreign); resp.StatusCode != 403 {
				t.Errorf("%s POST %s: %s", site, path, resp.Status)
			}
		}
	}
}

func TestHeaders(t *testing.T) {
	b := start(t, newSite(), "n1", fstest.MapFS{"index.html.gz": packed(t, "<html>")})
	for _, path := range []string{"/", "/session", "/v1/self", "/assets/no.js"} {
		resp, _ := b.do("GET", path, nil)
		csp := resp.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "connect-src 'self' https://10.0.0.2:29003;"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: %q is not in %q", path, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Errorf("%s: %s", path, csp)
		}
		for name, want := range map[string]string{"Strict-Transport-Security": "max-age=86400", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
	}
	if resp, _ := b.do("GET", "/ping", nil); resp.StatusCode != 204 || resp.Header.Get("Cross-Origin-Resource-Policy") != "cross-origin" {
		t.Error("the page of another node cannot ask whether this one answers")
	}
}

func TestPage(t *testing.T) {
	b := start(t, newSite(), "n1", fstest.MapFS{
		"index.html.gz": packed(t, "<html>the page"), "index.html.br": {Data: []byte("in brotli")},
		"assets/main-1a2b.js.gz": packed(t, "alert()"), "assets/main-1a2b.js.br": {Data: []byte("in brotli")}, "favicon.svg.gz": packed(t, "<svg/>"),
	})
	takes := func(what string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Accept-Encoding", what) }
	}
	for _, c := range []struct{ path, takes, status, kind, encoding, cache, body string }{
		{"/", "identity", "200 OK", "text/html; charset=utf-8", "", "no-cache", "<html>the page"},
		{"/groups/failover", "gzip, br", "200 OK", "text/html; charset=utf-8", "br", "no-cache", "in brotli"},
		{"/report/CLP-1/42", "br;q=0", "200 OK", "text/html; charset=utf-8", "", "no-cache", "<html>the page"},
		{"/assets/main-1a2b.js", "gzip, br;q=0.5", "200 OK", "text/javascript; charset=utf-8", "br", "public, max-age=31536000, immutable", "in brotli"},
		{"/assets/main-1a2b.js", "", "200 OK", "text/javascript; charset=utf-8", "", "public, max-age=31536000, immutable", "alert()"},
		{"/favicon.svg", "", "200 OK", "image/svg+xml", "", "no-cache", "<svg/>"},
		{"/assets/gone.js", "br", "404 Not Found", "text/plain; charset=utf-8", "", "", "404 page not found\n"},
		{"/../../etc/passwd", "br", "200 OK", "text/html; charset=utf-8", "br", "no-cache", "in brotli"},
	} {
		resp, text := b.do("GET", c.path, nil, takes(c.takes))
		h := resp.Header
		if resp.Status != c.status || h.Get("Content-Type") != c.kind || h.Get("Content-Encoding") != c.encoding || h.Get("Cache-Control") != c.cache || text != c.body {
			t.Errorf("%s for %q: %s %v %q", c.path, c.takes, resp.Status, h, text)
		}
	}
}

// A binary that was built without npm says so.
func TestNotBuilt(t *testing.T) {
	b := start(t, newSite(), "n1", fstest.MapFS{".keep": {}})
	resp, text := b.do("GET", "/groups", nil)
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "make web") {
		t.Error(resp.Status, text)
	}
}

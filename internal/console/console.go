// Package console serves the web console: the page, which is built from web/ and
// embedded, and the API behind a session. Every node serves it, for the whole
// cluster.
//
// A session lives in the memory of the node that it was begun on. To go on at
// another node the page shows a ticket there, which the first node has signed; see
// docs/decisions/0014-the-console-moves-by-ticket.md.
package console

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/klauspost/compress/gzhttp"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
)

// Port returns the port of the console of a node whose daemon listens on that
// one: the next, so that two daemons on one machine have two.
func Port(daemon int) int { return daemon + 1 }

// lifetime is how long a session lasts, and the ones that follow from it at other
// nodes: a working day. Nothing shortens it but a sign-out, a new password and the
// end of the daemon, so that a screen on a wall does not go dark.
const lifetime = 12 * time.Hour

// recheck is how soon a call that has no end is ended when its session is.
const recheck = 2 * time.Second

// Cluster is what the console must know of the node that it is served by.
type Cluster interface {
	// SignIn returns the user whose password that is. The caller's address is in
	// the context. It bounds how often somebody may try.
	SignIn(ctx context.Context, name cluster.UserName, password string) (api.User, error)
	// User returns a user as the cluster knows it now.
	User(ctx context.Context, name cluster.UserName) (api.User, error)
	// Vouch signs a statement for a purpose, for the other nodes.
	Vouch(purpose string, statement []byte) (string, error)
	// Vouched returns a statement that a node of the cluster has signed for that
	// purpose, and the node.
	Vouched(purpose, voucher string) ([]byte, cluster.NodeName, error)
	// Record writes a line of the operator's log.
	Record(ctx context.Context, e api.Event) cluster.EventID
	// TurnedAway tells the operator's log of somebody who was not let in, unless
	// that happens too often.
	TurnedAway(ctx context.Context, what string, from netip.Addr, why string)
	// Consoles returns the consoles of the other nodes, the likeliest to be
	// reached first.
	Consoles() []Elsewhere
	// Names returns the names of the cluster and of this node.
	Names() (cluster.Name, cluster.NodeName)
}

// Elsewhere is the console of another node.
type Elsewhere struct {
	Node   cluster.NodeName `json:"node"`
	Origin string           `json:"origin"` // https://HOST:PORT
}

// Options is what a console is made of.
type Options struct {
	API     http.Handler // it finds the caller in the context
	Cluster Cluster
	Version string
	Port    int   // where it is served; it tells the cookies of two consoles on one machine apart
	Page    fs.FS // nil: the embedded one
}

// Console is the handler of one node's console.
type Console struct {
	Options
	sessions *scs.SessionManager
	used     *used
	handler  http.Handler
}

// New returns a console.
func New(o Options) *Console {
	if o.Page == nil {
		o.Page = embedded()
	}
	// Not by scs.New, whose store begins a goroutine that nothing ends.
	m := &scs.SessionManager{Lifetime: lifetime, Store: &sessions{all: map[string]session{}}, Codec: scs.GobCodec{}}
	m.Cookie = scs.SessionCookie{Name: fmt.Sprintf("__Host-tasuki-%d", o.Port), Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	m.ErrorFunc = func(w http.ResponseWriter, _ *http.Request, err error) { httpapi.Refuse(w, err) }
	c := &Console{Options: o, sessions: m, used: &used{until: map[string]time.Time{}}}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", ping)
	mux.Handle("GET /session", m.LoadAndSave(c.answer(c.session)))
	mux.Handle("POST /session", m.LoadAndSave(c.answer(c.signIn)))
	mux.Handle("DELETE /session", m.LoadAndSave(c.answer(c.signOut)))
	mux.Handle("POST /session/ticket", m.LoadAndSave(c.answer(c.newTicket)))
	mux.Handle("POST /session/handover", m.LoadAndSave(c.answer(c.handOver)))
	mux.HandleFunc("GET /v1/stream", c.call) // in small pieces, at once
	mux.HandleFunc("GET /v1/follow", c.call)
	mux.Handle("/v1/", gzhttp.GzipHandler(http.HandlerFunc(c.call)))
	mux.Handle("/", c.page())
	c.handler = c.guarded(http.NewCrossOriginProtection().Handler(mux))
	return c
}

// ServeHTTP answers a browser.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.handler.ServeHTTP(w, r) }

// ping says that this node answers. The page of another node asks it before it
// moves here.
func ping(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// call hands a call of the API on, as the user whose session it comes with.
func (c *Console) call(w http.ResponseWriter, r *http.Request) {
	var token string
	if cookie, err := r.Cookie(c.sessions.Cookie.Name); err == nil {
		token = cookie.Value
	}
	ctx, err := c.sessions.Load(r.Context(), token)
	if err != nil {
		httpapi.Refuse(w, err)
		return
	}
	u, err := c.user(ctx)
	if err != nil {
		httpapi.Refuse(w, err)
		return
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	go c.endWith(ctx, end, token)
	w.Header().Set("Cache-Control", "no-store")
	who := httpapi.CallerUser(u, httpapi.Caller{Addr: addrOf(r)})
	c.API.ServeHTTP(w, r.WithContext(httpapi.WithCaller(ctx, who)))
}

// endWith ends a call when its session has ended: a stream must not outlive the
// right to see it.
func (c *Console) endWith(ctx context.Context, end context.CancelFunc, token string) {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, found, err := c.sessions.Store.Find(token)
		if err != nil || !found {
			end()
			return
		}
		if _, err := c.user(ctx); err != nil {
			end()
			return
		}
	}
}

// addrOf returns where a request comes from; IPv4 as such.
func addrOf(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// maxBody bounds what a call of the console itself may send, in bytes.
const maxBody = 16 << 10

// answer makes a handler of a function that returns what is told as JSON.
func (c *Console) answer(f func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		w.Header().Set("Cache-Control", "no-store")
		v, err := f(r)
		if err != nil {
			httpapi.Refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	})
}

// body reads what a call has sent.
func body(r *http.Request, v any) error {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		return &api.Error{Code: "bad-request", Message: fmt.Sprintf("the request cannot be read: %v", err), Hint: "reload the page"}
	}
	return nil
}

// Package httpapi is the one API: JSON over HTTP, described by OpenAPI 3.1 from
// the code. It is served on three doors, the local socket (root), the TLS port
// (nodes, linked clusters, holders of access tokens) and the console's (users); who
// may call what is one table.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// MaxBody bounds what a caller may send, in bytes.
const MaxBody = 2 << 20

// Backend is what the API speaks for. Errors that are *api.Error reach the
// caller as they are; others are told as internal.
type Backend interface {
	Status(ctx context.Context) (api.Status, error)
	Events(ctx context.Context, f api.EventFilter) ([]api.Event, error)
	// Follow returns the events that happen from now on. One without an id stands for
	// some that a receiver missed which was too slow.
	Follow(ctx context.Context) <-chan api.Event
	// Changed returns a channel that is closed when Status may give another answer
	// than after this call. Not every change is told.
	Changed() <-chan struct{}
	Explain(ctx context.Context, id cluster.EventID) ([]api.Event, error)
	Group(ctx context.Context, g cluster.GroupName, verb string, op api.GroupOp) (api.Begun, error)
	Plan(ctx context.Context, id string, wait time.Duration) (api.PlanResult, error)
	// Record writes a line of the operator's log and returns its id, or "".
	Record(ctx context.Context, e api.Event) cluster.EventID
	Monitor(ctx context.Context, m cluster.MonitorName, verb string, op api.MonitorOp) error
	Node(ctx context.Context, n cluster.NodeName, verb string, op api.NodeOp) (api.Begun, error)
	Mirror(ctx context.Context, author string, r cluster.ResourceName, verb string, op api.MirrorOp) (api.Begun, error)
	Maintenance(ctx context.Context, owner, verb string, op api.MaintenanceOp) (api.Begun, error)
	CheckFences(ctx context.Context, n cluster.NodeName) ([]api.NodeFence, error)
	Log(ctx context.Context, l api.LogLine) (api.Logged, error)
	Config(ctx context.Context, version uint64) (api.ConfigText, error)
	History(ctx context.Context) ([]api.ConfigVersion, error)
	PlanConfig(ctx context.Context, c api.ConfigChange) (api.ConfigPlan, error)
	ApplyConfig(ctx context.Context, author string, c api.ConfigChange) (api.Begun, error)
	NewToken(ctx context.Context, r api.TokenRequest) (api.TokenText, error)
	Join(ctx context.Context, r api.JoinRequest) (api.JoinReply, error)
	RedeemLink(ctx context.Context, r api.LinkRequest) (api.LinkReply, error)
	AddLink(ctx context.Context, r api.LinkToken) (api.Begun, error)
	RemoveLink(ctx context.Context, name cluster.LinkName) error
	Request(ctx context.Context, c Caller, r api.Request) (api.Answer, error)
	Send(ctx context.Context, r api.SendRequest) ([]api.HostAnswer, error)
	Guests(ctx context.Context) ([]api.Guest, error)
	Guest(ctx context.Context, g cluster.GuestName, action string, op api.GuestOp) (api.Guest, error)
	// Metrics answers a scrape of Prometheus.
	Metrics(w http.ResponseWriter, r *http.Request)
	Users
	Snapshots
	Drafts
}

// problem is an error as callers see it: RFC 9457 with our code and hint.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Hint   string `json:"hint,omitempty"`
}

func (p *problem) Error() string             { return p.Detail }
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return "application/problem+json" }

// statusOf maps our codes to HTTP, once. A refusal by the state of things is a
// conflict; a caller who may try elsewhere gets 503.
func statusOf(code string) int {
	switch code {
	case "no-quorum", "no-state", "stopping", "overload":
		return http.StatusServiceUnavailable
	case "timed-out":
		return http.StatusGatewayTimeout
	case "not-signed-in":
		return http.StatusUnauthorized
	case "too-many-attempts":
		return http.StatusTooManyRequests
	case "internal":
		return http.StatusInternalServerError
	case "not-allowed", "verb-not-allowed", "group-not-allowed", "script-not-allowed", "guest-not-allowed", "action-not-allowed", "script-refused", "token-refused", "token-used", "token-expired", "wrong-node", "wrong-cluster", "not-confirmed", "sign-in-refused", "role-not-granted":
		return http.StatusForbidden
	case "no-such-group", "no-such-resource", "no-such-node", "no-such-monitor", "no-such-plan", "no-such-event", "no-such-version", "no-such-link", "no-such-guest", "no-such-mirror", "no-such-copy", "no-incident", "unknown-host", "no-such-user", "no-such-token", "no-such-api-version":
		return http.StatusNotFound
	case "bad-request", "bad-script-name", "config-invalid", "unknown-verb", "bad-token", "wrong-token", "bad-name", "bad-role", "bad-password", "bad-token-ttl":
		return http.StatusUnprocessableEntity
	}
	return http.StatusConflict
}

func toProblem(err error) error {
	if err == nil {
		return nil
	}
	var e *api.Error
	if !errors.As(err, &e) {
		code := "internal"
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			code = "timed-out"
		}
		status := statusOf(code)
		return &problem{Status: status, Title: http.StatusText(status), Detail: err.Error(), Code: code, Hint: "the daemon's own log may say more: journalctl -u tasuki"}
	}
	s := statusOf(e.Code)
	return &problem{Status: s, Title: http.StatusText(s), Detail: e.Message, Code: e.Code, Hint: e.Hint}
}

// body is a response with a JSON body.
type body[T any] struct{ Body T }

// in is a request with a JSON body.
type in[T any] struct{ Body T }

func answer[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, toProblem(err)
	}
	return &body[T]{v}, nil
}

// server registers operations with the callers that each is for.
type server struct {
	api     huma.API
	b       Backend
	glances *glances
	streams chan struct{} // capacity maxStreams
}

// register adds an operation. Who may not call it is refused before anything of
// the body is read.
func register[I, O any](s *server, who right, method, path, id, summary string, f func(context.Context, *I) (*O, error)) {
	op := huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Middlewares: huma.Middlewares{who.guard(id)},
		MaxBodyBytes: MaxBody, BodyReadTimeout: 10 * time.Second}
	who.describe(&op)
	huma.Register(s.api, op, f)
}

// ourErrors makes the errors of the library look like all others; it has one
// place for the whole program.
var ourErrors = sync.OnceFunc(func() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		p := &problem{Status: status, Title: http.StatusText(status), Detail: msg, Code: "bad-request", Hint: "/openapi.json describes every operation"}
		for _, e := range errs {
			var at *huma.ErrorDetail
			if errors.As(e, &at) { // without the value, which may be a password
				e = fmt.Errorf("%s (%s)", at.Message, at.Location)
			}
			p.Detail += ": " + e.Error()
		}
		if status == http.StatusNotFound {
			p.Code = "no-such-path"
		}
		return p
	}
})

// New returns the API as a handler. The doors put the caller into the context.
// What is no operation, the description of the API above all, takes the role read.
func New(b Backend, version string) http.Handler {
	mux := http.NewServeMux()
	newServer(b, version, mux)
	rest := needs(cluster.RoleRead).guarded("what is no operation", mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case strings.HasPrefix(path, "/v1/") || path == "/versions":
			mux.ServeHTTP(w, r)
		case otherVersion(path) != nil:
			Refuse(w, otherVersion(path))
		default:
			rest.ServeHTTP(w, r)
		}
	})
}

// newServer registers all operations with a mux.
func newServer(b Backend, version string, mux *http.ServeMux) *server {
	ourErrors()
	c := huma.DefaultConfig("Tasuki", version)
	c.DocsPath, c.SchemasPath, c.CreateHooks = "", "", nil
	about(c)
	s := &server{api: humago.New(mux, c), b: b, glances: &glances{b: b}, streams: make(chan struct{}, maxStreams)}
	s.reading()
	s.acting()
	s.switching()
	s.requesting()
	s.configuring()
	s.drafting()
	s.meeting()
	s.knowing()
	s.foreseeing()
	s.endless(mux, "/v1/follow", "follow", "New events as they come, one JSON object a line", "application/x-ndjson", s.follow)
	s.endless(mux, "/v1/stream", "stream", "The status when it changes, and events, as server-sent events", "text/event-stream", s.stream)
	s.measured(mux)
	s.versions()
	letAnswersGrow(s.api.OpenAPI())
	return s
}

// endless adds an operation for readers whose answer has no end; the description
// has it too.
func (s *server) endless(mux *http.ServeMux, path, id, summary, content string, h http.HandlerFunc) {
	who := needs(cluster.RoleRead)
	mux.Handle("GET "+path, who.guarded(id, h))
	op := &huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: summary,
		Responses: map[string]*huma.Response{"200": {Description: "until the caller goes", Content: map[string]*huma.MediaType{content: {Schema: &huma.Schema{Type: huma.TypeString}}}}}}
	who.describe(op)
	s.api.OpenAPI().AddOperation(op)
}

// measured adds the one operation that stands where Prometheus looks for it. rest,
// in New, guards it too.
func (s *server) measured(mux *http.ServeMux) {
	const path, id = "/metrics", "metrics"
	who := needs(cluster.RoleRead)
	mux.Handle("GET "+path, who.guarded(id, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.b.Metrics(w, r) })))
	op := &huma.Operation{OperationID: id, Method: http.MethodGet, Path: path, Summary: "What this node measures, for Prometheus",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}}}}}
	who.describe(op)
	s.api.OpenAPI().AddOperation(op)
}

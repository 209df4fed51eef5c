// Package httpapi is the one API: JSON over HTTP, described by OpenAPI 3.1 from
// the code. It is served on two doors, the local socket (root) and the TLS port
// (nodes, linked clusters, holders of tokens); who may call what is one table.
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
	s.configuring()
	s.meeting()
	s.knowing()
	s.foreseeing()
	s.endless(mux, "/v1/follow", "follow", "New events as they come, one JSON object a line", "application/x-ndjson", s.follow)
	s.endless(mux, "/v1/stream", "stream", "The status when it changes, and events, as server-sent events", "text/event-stream", s.stream)
	s.measured(mux)
	s.versions()
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

func (s *server) reading() {
	type none struct{}
	register(s, everyone, "GET", "/v1/ping", "ping", "Says that this node answers", func(context.Context, *none) (*body[string], error) {
		return answer("ok", nil)
	})
	register(s, needs(cluster.RoleRead), "GET", "/v1/status", "status", "The cluster as this node sees it", func(ctx context.Context, _ *none) (*body[api.Status], error) {
		return answer(s.b.Status(ctx))
	})
	register(s, needs(cluster.RoleRead), "GET", "/v1/guests", "guests", "The guests of this host, with their power", func(ctx context.Context, _ *none) (*body[[]api.Guest], error) {
		return answer(s.b.Guests(ctx))
	})
	type eventsIn struct {
		After  string    `query:"after"`
		Since  time.Time `query:"since"`
		Node   string    `query:"node"`
		Group  string    `query:"group"`
		Newest bool      `query:"newest"`
		Limit  int       `query:"limit" minimum:"0"`
	}
	register(s, needs(cluster.RoleRead), "GET", "/v1/events", "events", "The operator's log of the cluster", func(ctx context.Context, i *eventsIn) (*body[[]api.Event], error) {
		return answer(s.b.Events(ctx, api.EventFilter{After: cluster.EventID(i.After), Since: i.Since, Node: cluster.NodeName(i.Node),
			Group: cluster.GroupName(i.Group), Newest: i.Newest, Limit: i.Limit}))
	})
	type explainIn struct {
		ID string `query:"id"`
	}
	register(s, needs(cluster.RoleRead), "GET", "/v1/explain", "explain", "From the first cause to the last effect", func(ctx context.Context, i *explainIn) (*body[[]api.Event], error) {
		return answer(s.b.Explain(ctx, cluster.EventID(i.ID)))
	})
	type planIn struct {
		ID   string `path:"id"`
		Wait string `query:"wait"`
	}
	register(s, needs(cluster.RoleRead), "GET", "/v1/plans/{id}", "plan", "How a plan ended, after waiting for it", func(ctx context.Context, i *planIn) (*body[api.PlanResult], error) {
		wait, err := time.ParseDuration(i.Wait)
		if i.Wait != "" && (err != nil || wait > time.Minute) {
			return nil, toProblem(&api.Error{Code: "bad-request", Message: fmt.Sprintf("%q is not a time to wait", i.Wait), Hint: "at most 60s"})
		}
		return answer(s.b.Plan(ctx, i.ID, wait))
	})
}

// to names where something goes, if that was said.
func to(n cluster.NodeName) string {
	if n == "" {
		return ""
	}
	return " to " + string(n)
}

func (s *server) acting() {
	type groupIn struct {
		Group string `path:"group"`
		Verb  string `path:"verb"`
		Body  api.GroupOp
	}
	change(s, needs(cluster.RoleOperate), "POST", "/v1/groups/{group}/{verb}", "group", "Start, stop, move, failover, restart, clear or release a group", func(i *groupIn) (string, *cluster.EventID) {
		return fmt.Sprintf("%s group %s%s", i.Verb, i.Group, to(i.Body.To)), &i.Body.Cause
	}, func(ctx context.Context, i *groupIn) (*body[api.Begun], error) {
		return answer(s.b.Group(ctx, cluster.GroupName(i.Group), i.Verb, i.Body))
	})
	type monitorIn struct {
		Monitor string `path:"monitor"`
		Verb    string `path:"verb"`
		Body    api.MonitorOp
	}
	change(s, needs(cluster.RoleOperate), "POST", "/v1/monitors/{monitor}/{verb}", "monitor", "Suspend, resume or rehearse a monitor", func(i *monitorIn) (string, *cluster.EventID) {
		return fmt.Sprintf("%s monitor %s", i.Verb, i.Monitor), &i.Body.Cause
	}, func(ctx context.Context, i *monitorIn) (*body[api.Begun], error) {
		return answer(api.Begun{Text: i.Verb + " done"}, s.b.Monitor(ctx, cluster.MonitorName(i.Monitor), i.Verb, i.Body))
	})
	type mirrorIn struct {
		Mirror string `path:"mirror"`
		Verb   string `path:"verb"`
		Body   api.MirrorOp
	}
	change(s, needs(cluster.RoleOperate), "POST", "/v1/mirrors/{mirror}/{verb}", "mirror", "Break, resume, copy, verify, grow, invalidate, force, acknowledge or resolve a mirror disk", func(i *mirrorIn) (string, *cluster.EventID) {
		return fmt.Sprintf("%s mirror disk %s", i.Verb, i.Mirror), &i.Body.Cause
	}, func(ctx context.Context, i *mirrorIn) (*body[api.Begun], error) {
		return answer(s.b.Mirror(ctx, CallerOf(ctx).Author(), cluster.ResourceName(i.Mirror), i.Verb, i.Body))
	})
	type nodeIn struct {
		Node string `path:"node"`
		Verb string `path:"verb"`
		Body api.NodeOp
	}
	change(s, needs(cluster.RoleOperate), "POST", "/v1/nodes/{node}/{verb}", "node", "Let a node leave by plan, return, or out of its quarantine", func(i *nodeIn) (string, *cluster.EventID) {
		return fmt.Sprintf("%s node %s", i.Verb, i.Node), &i.Body.Cause
	}, func(ctx context.Context, i *nodeIn) (*body[api.Begun], error) {
		return answer(s.b.Node(ctx, cluster.NodeName(i.Node), i.Verb, i.Body))
	})
	type nodeOnlyIn struct {
		Node string `path:"node"`
		Body api.NodeOp
	}
	for verb, summary := range map[string]string{"fence": "Force a node off", "start-alone": "Let a node start without the others, who are known to be off"} {
		change(s, needs(cluster.RoleFence), "POST", "/v1/nodes/{node}/"+verb, "node-"+verb, summary, func(i *nodeOnlyIn) (string, *cluster.EventID) {
			return fmt.Sprintf("%s node %s (%s)", verb, i.Node, i.Body.Reason), &i.Body.Cause
		}, func(ctx context.Context, i *nodeOnlyIn) (*body[api.Begun], error) {
			return answer(s.b.Node(ctx, cluster.NodeName(i.Node), verb, i.Body))
		})
	}
	type maintenanceIn struct {
		Verb string `path:"verb"`
		Body api.MaintenanceOp
	}
	change(s, needs(cluster.RoleOperate), "POST", "/v1/maintenance/{verb}", "maintenance", "Begin (on) or end (off) the maintenance of a node, a group or the cluster", func(i *maintenanceIn) (string, *cluster.EventID) {
		return "maintenance " + i.Verb, &i.Body.Cause
	}, func(ctx context.Context, i *maintenanceIn) (*body[api.Begun], error) {
		return answer(s.b.Maintenance(ctx, CallerOf(ctx).Author(), i.Verb, i.Body))
	})
	register(s, needs(cluster.RoleFence), "POST", "/v1/fences/check", "fence-check", "Try the fence devices of other nodes, without switching anything", func(ctx context.Context, i *in[api.FenceCheck]) (*body[[]api.NodeFence], error) {
		return answer(s.b.CheckFences(ctx, i.Body.Node))
	})
	type guestIn struct {
		Guest  string `path:"guest"`
		Action string `path:"action"`
		Body   api.GuestOp
	}
	change(s, needs(cluster.RoleFence), "POST", "/v1/guests/{guest}/{action}", "guest", "Power a guest of this host off or on, or look at it", func(i *guestIn) (string, *cluster.EventID) {
		if i.Action == string(cluster.PowerStatus) {
			return "", &i.Body.Cause
		}
		return fmt.Sprintf("power %s of guest %s", i.Action, i.Guest), &i.Body.Cause
	}, func(ctx context.Context, i *guestIn) (*body[api.Guest], error) {
		return answer(s.b.Guest(ctx, cluster.GuestName(i.Guest), i.Action, i.Body))
	})
	register(s, needs(cluster.RoleOperate), "POST", "/v1/log", "log", "Write a line of the operator's log", func(ctx context.Context, i *in[api.LogLine]) (*body[api.Logged], error) {
		return answer(s.b.Log(ctx, i.Body))
	})
	register(s, linked, "POST", "/v1/requests", "request", "What a linked cluster asks", func(ctx context.Context, i *in[api.Request]) (*body[api.Answer], error) {
		return answer(s.b.Request(ctx, CallerOf(ctx), i.Body))
	})
	change(s, needs(cluster.RoleRequest), "POST", "/v1/send", "send", "Ask linked clusters", func(i *in[api.SendRequest]) (string, *cluster.EventID) {
		return fmt.Sprintf("send request %s to %v", i.Body.Verb, i.Body.Hosts), &i.Body.Cause
	}, func(ctx context.Context, i *in[api.SendRequest]) (*body[[]api.HostAnswer], error) {
		return answer(s.b.Send(ctx, i.Body))
	})
}

func (s *server) configuring() {
	type versionIn struct {
		Version uint64 `query:"version"`
	}
	register(s, needs(cluster.RoleConfigure), "GET", "/v1/config", "config", "The cluster file, in force or of a version", func(ctx context.Context, i *versionIn) (*body[api.ConfigText], error) {
		return answer(s.b.Config(ctx, i.Version))
	})
	type none struct{}
	register(s, needs(cluster.RoleRead), "GET", "/v1/config/history", "config-history", "The versions that are kept", func(ctx context.Context, _ *none) (*body[[]api.ConfigVersion], error) {
		return answer(s.b.History(ctx))
	})
	register(s, needs(cluster.RoleConfigure), "POST", "/v1/config/plan", "config-plan", "What a change of the cluster file would do", func(ctx context.Context, i *in[api.ConfigChange]) (*body[api.ConfigPlan], error) {
		return answer(s.b.PlanConfig(ctx, i.Body))
	})
	register(s, needs(cluster.RoleConfigure), "POST", "/v1/config/apply", "config-apply", "Put a cluster file in force on all nodes", func(ctx context.Context, i *in[api.ConfigChange]) (*body[api.Begun], error) {
		return answer(s.b.ApplyConfig(ctx, CallerOf(ctx).Author(), i.Body))
	})
}

func (s *server) meeting() {
	change(s, needs(cluster.RoleConfigure), "POST", "/v1/tokens", "token", "Make a one-time token", func(i *in[api.TokenRequest]) (string, *cluster.EventID) {
		return fmt.Sprintf("make a token for %s %s", i.Body.Purpose, i.Body.Subject), nil
	}, func(ctx context.Context, i *in[api.TokenRequest]) (*body[api.TokenText], error) {
		return answer(s.b.NewToken(ctx, i.Body))
	})
	register(s, everyone, "POST", "/v1/join", "join", "Become a node, with a token", func(ctx context.Context, i *in[api.JoinRequest]) (*body[api.JoinReply], error) {
		return answer(s.b.Join(ctx, i.Body))
	})
	register(s, everyone, "POST", "/v1/link", "link", "Be allowed to ask, with a token", func(ctx context.Context, i *in[api.LinkRequest]) (*body[api.LinkReply], error) {
		return answer(s.b.RedeemLink(ctx, i.Body))
	})
	change(s, needs(cluster.RoleConfigure), "POST", "/v1/links", "link-add", "Redeem a token of another cluster", func(i *in[api.LinkToken]) (string, *cluster.EventID) {
		return "be linked to another cluster", nil
	}, func(ctx context.Context, i *in[api.LinkToken]) (*body[api.Begun], error) {
		return answer(s.b.AddLink(ctx, i.Body))
	})
	type linkIn struct {
		Name string `path:"name"`
	}
	change(s, needs(cluster.RoleConfigure), "DELETE", "/v1/links/{name}", "link-remove", "End a link", func(i *linkIn) (string, *cluster.EventID) {
		return "end the link to " + i.Name, nil
	}, func(ctx context.Context, i *linkIn) (*body[api.Begun], error) {
		return answer(api.Begun{Text: "removed"}, s.b.RemoveLink(ctx, cluster.LinkName(i.Name)))
	})
}

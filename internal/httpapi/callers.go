package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Kind says what is known of a caller.
type Kind string

// The kinds of callers.
const (
	Anonymous Kind = "anonymous"
	Local     Kind = "local" // root on this machine
	Node      Kind = "node"  // a node of this cluster
	Linked    Kind = "link"  // a node of a linked cluster
	User      Kind = "user"  // a person who signed in
	Token     Kind = "token" // a script that shows an access token
)

// Caller is who calls.
type Caller struct {
	Kind  Kind
	Link  cluster.LinkName
	Name  string         // for the log: the node, the cluster, the user, what the token is for, or "root"
	Roles []cluster.Role // of a user or token
	Token string         // the id of the access token that it showed
	Addr  netip.Addr
	Stale bool // it showed an access token that is not good, and so is anonymous
}

// Author names the caller as the author of a change.
func (c Caller) Author() string {
	if c.Kind == User || c.Kind == Token {
		return fmt.Sprintf("%s %s", c.Kind, c.Name)
	}
	return c.Name
}

// Granted returns the roles that the caller has, and so may give to others: root
// and the nodes have all.
func (c Caller) Granted() []cluster.Role {
	switch c.Kind {
	case Local, Node:
		return cluster.Roles()
	case User, Token:
		return c.Roles
	}
	return nil
}

type callerKey struct{}

// WithCaller notes who calls; the doors do.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns who calls; a context that no door has seen is anonymous.
func CallerOf(ctx context.Context) Caller {
	if c, ok := ctx.Value(callerKey{}).(Caller); ok {
		return c
	}
	return Caller{Kind: Anonymous}
}

// right says who may call an operation: callers of these kinds, whatever their
// roles, and users and tokens with the role. Whoever is not named may not.
type right struct {
	kinds []Kind
	role  cluster.Role
}

// Rights of operations. Root here and the nodes of the cluster may call all that
// is not for linked clusters alone.
var (
	everyone = right{kinds: []Kind{Local, Node, Linked, Anonymous, User, Token}}
	knownOne = right{kinds: []Kind{Local, Node, User, Token}}
	linked   = right{kinds: []Kind{Linked}}
)

// needs is the right of an operation that takes a role.
func needs(r cluster.Role) right { return right{kinds: []Kind{Local, Node}, role: r} }

func (r right) lets(c Caller) bool {
	if slices.Contains(r.kinds, c.Kind) {
		return true
	}
	return r.role != "" && (c.Kind == User || c.Kind == Token) && slices.Contains(c.Roles, r.role)
}

// refusal is what a caller is told of an operation that is not for it.
func (r right) refusal(c Caller, id string) error {
	e := &api.Error{Code: "not-allowed", Message: fmt.Sprintf("a caller of kind %s may not call %s", c.Kind, id),
		Hint: "nodes and root may, and users and access tokens with the role for it; linked clusters may ask by request"}
	if c.Stale {
		e.Code, e.Message = "token-refused", "the access token is not known here, or has expired"
		e.Hint = "make a new one on a node: tasuki token add"
	}
	if r.role != "" && (c.Kind == User || c.Kind == Token) {
		e.Message = fmt.Sprintf("%s has not the role %s, without which nobody may call %s", c.Author(), r.role, id)
		e.Hint = "whoever has the role configure can give roles: tasuki user roles, tasuki token add"
	}
	return e
}

// guard lets only those through who have the right, before anything of the body
// is read.
func (r right) guard(id string) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		c := CallerOf(ctx.Context())
		if r.lets(c) {
			next(ctx)
			return
		}
		no := toProblem(r.refusal(c, id)).(*problem)
		ctx.SetHeader("Content-Type", no.ContentType(""))
		ctx.SetStatus(no.Status)
		_ = json.NewEncoder(ctx.BodyWriter()).Encode(no)
	}
}

// guarded is guard for a handler that is no operation of the library.
func (r right) guarded(id string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := CallerOf(req.Context())
		if r.lets(c) {
			h.ServeHTTP(w, req)
			return
		}
		Refuse(w, r.refusal(c, id))
	})
}

// Refuse answers with an error as every operation does, for doors that refuse
// before one is reached.
func Refuse(w http.ResponseWriter, err error) {
	no := toProblem(err).(*problem)
	w.Header().Set("Content-Type", no.ContentType(""))
	w.WriteHeader(no.Status)
	_ = json.NewEncoder(w).Encode(no)
}

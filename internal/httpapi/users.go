package httpapi

import (
	"context"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Users is the part of a Backend that knows users and access tokens. What the
// caller may not give, nobody gets from it: a change names its Caller.
type Users interface {
	// SignIn returns the user of that name if this is the password. It takes as long
	// for a name that is not known, and refuses who tries too often, by the name and
	// by the address of the caller in ctx. The error has the code sign-in-refused or
	// too-many-attempts.
	SignIn(ctx context.Context, name cluster.UserName, password string) (api.User, error)
	// User returns a user, for a session that was begun earlier: the roles may have
	// changed, and a session from before User.Changed is over. The error has the code
	// no-such-user.
	User(ctx context.Context, name cluster.UserName) (api.User, error)
	Users(ctx context.Context) ([]api.User, error)
	AddUser(ctx context.Context, c Caller, u api.UserNew) (api.Begun, error)
	SetPassword(ctx context.Context, c Caller, name cluster.UserName, p api.UserPassword) (api.Begun, error)
	SetOwnPassword(ctx context.Context, c Caller, p api.OwnPassword) (api.Begun, error)
	SetRoles(ctx context.Context, c Caller, name cluster.UserName, r api.UserRoles) (api.Begun, error)
	RemoveUser(ctx context.Context, c Caller, name cluster.UserName) (api.Begun, error)
	Accesses(ctx context.Context) ([]api.Access, error)
	AddAccess(ctx context.Context, c Caller, a api.AccessNew) (api.AccessText, error)
	RemoveAccess(ctx context.Context, c Caller, id string) (api.Begun, error)
}

// knowing registers what concerns users and access tokens.
func (s *server) knowing() {
	type none struct{}
	configure := needs(cluster.RoleConfigure)
	register(s, knownOne, "GET", "/v1/self", "self", "Who calls, and with which roles", func(ctx context.Context, _ *none) (*body[api.Self], error) {
		c := CallerOf(ctx)
		return answer(api.Self{Kind: string(c.Kind), Name: c.Name, Roles: c.Granted()}, nil)
	})
	register(s, right{kinds: []Kind{User}}, "POST", "/v1/self/password", "own-password", "Set one's own password", func(ctx context.Context, i *in[api.OwnPassword]) (*body[api.Begun], error) {
		return answer(s.b.SetOwnPassword(ctx, CallerOf(ctx), i.Body))
	})
	register(s, configure, "GET", "/v1/users", "users", "All users", func(ctx context.Context, _ *none) (*body[[]api.User], error) {
		return answer(s.b.Users(ctx))
	})
	register(s, configure, "POST", "/v1/users", "user-add", "Add a user", func(ctx context.Context, i *in[api.UserNew]) (*body[api.Begun], error) {
		return answer(s.b.AddUser(ctx, CallerOf(ctx), i.Body))
	})
	type passwordIn struct {
		User string `path:"user"`
		Body api.UserPassword
	}
	register(s, configure, "POST", "/v1/users/{user}/password", "user-password", "Set the password of a user", func(ctx context.Context, i *passwordIn) (*body[api.Begun], error) {
		return answer(s.b.SetPassword(ctx, CallerOf(ctx), cluster.UserName(i.User), i.Body))
	})
	type rolesIn struct {
		User string `path:"user"`
		Body api.UserRoles
	}
	register(s, configure, "POST", "/v1/users/{user}/roles", "user-roles", "Set the roles of a user", func(ctx context.Context, i *rolesIn) (*body[api.Begun], error) {
		return answer(s.b.SetRoles(ctx, CallerOf(ctx), cluster.UserName(i.User), i.Body))
	})
	type userIn struct {
		User string `path:"user"`
	}
	register(s, configure, "DELETE", "/v1/users/{user}", "user-remove", "Remove a user", func(ctx context.Context, i *userIn) (*body[api.Begun], error) {
		return answer(s.b.RemoveUser(ctx, CallerOf(ctx), cluster.UserName(i.User)))
	})
	register(s, configure, "GET", "/v1/access-tokens", "access-tokens", "All access tokens, without their secrets", func(ctx context.Context, _ *none) (*body[[]api.Access], error) {
		return answer(s.b.Accesses(ctx))
	})
	register(s, configure, "POST", "/v1/access-tokens", "access-token-add", "Make an access token; its text is shown this once", func(ctx context.Context, i *in[api.AccessNew]) (*body[api.AccessText], error) {
		return answer(s.b.AddAccess(ctx, CallerOf(ctx), i.Body))
	})
	type accessIn struct {
		ID string `path:"id"`
	}
	register(s, configure, "DELETE", "/v1/access-tokens/{id}", "access-token-remove", "Remove an access token", func(ctx context.Context, i *accessIn) (*body[api.Begun], error) {
		return answer(s.b.RemoveAccess(ctx, CallerOf(ctx), i.ID))
	})
}

// still says whether the caller of an answer without an end may go on reading: a
// user or access token may be gone, or have lost the role, since it began.
func (s *server) still(ctx context.Context) bool {
	switch c := CallerOf(ctx); c.Kind {
	case User:
		u, err := s.b.User(ctx, cluster.UserName(c.Name))
		return err == nil && slices.Contains(u.Roles, cluster.RoleRead)
	case Token:
		list, err := s.b.Accesses(ctx)
		return err == nil && slices.ContainsFunc(list, func(a api.Access) bool { return a.ID == c.Token && time.Now().Before(a.Expires) })
	}
	return true
}

// CallerUser is the caller that a door makes of a user who signed in there.
func CallerUser(u api.User, from Caller) Caller {
	from.Kind, from.Name, from.Roles = User, string(u.Name), u.Roles
	return from
}

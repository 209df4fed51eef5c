package admission

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Kinds of asks about users and access tokens. Nobody gives, or takes away, a
// role that the asker does not have: Ask.Granted.
const (
	UserAdd      Kind = "user-add"
	UserPassword Kind = "user-password"
	UserOwn      Kind = "user-own-password" // of the asker, whatever the roles
	UserRoles    Kind = "user-roles"
	UserRemove   Kind = "user-remove"
	AccessAdd    Kind = "access-add"
	AccessRemove Kind = "access-remove"
)

// Bounds of what is kept of users and access tokens.
const (
	MaxUsers    = 1000
	MaxAccesses = 1000
	MaxAccess   = 2 * 366 * 24 * time.Hour // how long an access token is good at most
)

func admitUser(s *state.State, a Ask) (state.Entry, *api.Error) {
	was, known := s.Users[a.User]
	switch {
	case a.Kind == UserAdd && cluster.CheckName(string(a.User)) != nil:
		return state.Entry{}, refuse("bad-name", "choose another name", "the user: %v", cluster.CheckName(string(a.User)))
	case a.Kind == UserAdd && known:
		return state.Entry{}, refuse("user-exists", "tasuki user roles and tasuki user passwd change it", "there is a user %s already", a.User)
	case a.Kind == UserAdd && len(s.Users) >= MaxUsers:
		return state.Entry{}, refuse("too-many-users", "remove one: tasuki user list", "there are %d users already", MaxUsers)
	case a.Kind != UserAdd && !known:
		return state.Entry{}, refuse("no-such-user", "tasuki user list", "there is no user %q", a.User)
	}
	if no := mayGive(a, was.Roles); no != nil && a.Kind != UserOwn {
		return state.Entry{}, no
	}
	now := state.User{Hash: was.Hash, Roles: was.Roles, Changed: was.Changed, Author: a.Author}
	did := ""
	switch a.Kind {
	case UserAdd, UserRoles:
		roles, no := checkRoles(a)
		if no != nil {
			return state.Entry{}, no
		}
		now.Roles, did = roles, "has now the roles "+listed(roles)
		if a.Kind == UserAdd {
			now.Hash, now.Changed, did = a.Hash, a.Wall, "was added with the roles "+listed(roles)
		}
	case UserPassword, UserOwn:
		now.Hash, now.Changed, did = a.Hash, a.Wall, "has a new password"
	case UserRemove:
		return done(a, fmt.Sprintf("user %s was removed", a.User),
			state.Command{User: &state.SetUser{Name: a.User, Why: "was removed", Author: a.Author}}), nil
	}
	return done(a, fmt.Sprintf("user %s %s", a.User, did),
		state.Command{User: &state.SetUser{Name: a.User, User: &now, Why: did, Author: a.Author}}), nil
}

func admitAccess(s *state.State, a Ask) (state.Entry, *api.Error) {
	if a.Kind == AccessRemove {
		was, known := s.Accesses[a.Token]
		if !known {
			return state.Entry{}, refuse("no-such-token", "tasuki token list", "there is no access token %q", a.Token)
		}
		if no := mayGive(a, was.Roles); no != nil {
			return state.Entry{}, no
		}
		return done(a, fmt.Sprintf("access token %s (%s) was removed", a.Token, was.Name),
			state.Command{Access: &state.SetAccess{ID: a.Token, Why: fmt.Sprintf("%s (%s) was removed", a.Token, was.Name), Author: a.Author, Time: a.Wall}}), nil
	}
	if a.Access == nil {
		return state.Entry{}, refuse("bad-ask", "tasuki token add sends one", "no access token was sent")
	}
	roles, no := checkRoles(a)
	takes := a.Access.Expires.Sub(a.Access.Created)
	switch {
	case no != nil:
		return state.Entry{}, no
	case cluster.CheckName(a.Access.Name) != nil:
		return state.Entry{}, refuse("bad-name", "say what it is for in one word", "the access token: %v", cluster.CheckName(a.Access.Name))
	case takes < time.Minute || takes > MaxAccess:
		return state.Entry{}, refuse("bad-token-ttl", "from 1m to two years", "an access token cannot be good for %s", cluster.Span(takes))
	case len(s.Accesses) >= MaxAccesses:
		return state.Entry{}, refuse("too-many-tokens", "remove one: tasuki token list", "there are %d access tokens already", MaxAccesses)
	}
	made := *a.Access
	made.Roles, made.Author = roles, a.Author
	did := fmt.Sprintf("%s (%s) was made with the roles %s, until %s", a.Token, made.Name, listed(roles), made.Expires.UTC().Format("2006-01-02 15:04:05 MST"))
	return done(a, "access token "+did, state.Command{Access: &state.SetAccess{ID: a.Token, Access: &made, Why: did, Author: a.Author, Time: a.Wall}}), nil
}

// checkRoles returns the roles that are asked for, each once and in their order.
func checkRoles(a Ask) ([]cluster.Role, *api.Error) {
	var out []cluster.Role
	for _, r := range cluster.Roles() {
		if slices.Contains(a.Roles, r) {
			out = append(out, r)
		}
	}
	for _, r := range a.Roles {
		if !slices.Contains(cluster.Roles(), r) {
			return nil, refuse("bad-role", "the roles are: "+listed(cluster.Roles()), "there is no role %q", r)
		}
	}
	if len(out) == 0 {
		return nil, refuse("bad-role", "the roles are: "+listed(cluster.Roles()), "without a role nothing may be done: name at least one")
	}
	return out, mayGive(a, out)
}

// mayGive refuses who has not all of the roles.
func mayGive(a Ask, roles []cluster.Role) *api.Error {
	for _, r := range roles {
		if !slices.Contains(a.Granted, r) {
			return refuse("role-not-granted", "ask root on a node, or somebody who has it", "%s has not the role %s, and so decides nothing about who has it", a.Author, r)
		}
	}
	return nil
}

func listed(roles []cluster.Role) string {
	texts := make([]string, len(roles))
	for i, r := range roles {
		texts[i] = string(r)
	}
	return strings.Join(texts, ", ")
}

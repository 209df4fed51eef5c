package httpapitest

import (
	"context"
	"slices"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
)

var noUser = &api.Error{Code: "no-such-user", Message: "there is no such user", Hint: "tasuki user list"}

// SignIn lets in the users of UserList whose password in Passwords it is.
func (b *Backend) SignIn(ctx context.Context, name cluster.UserName, password string) (api.User, error) {
	b.called("sign-in %s", name)
	u, err := b.User(ctx, name)
	if is, known := b.Passwords[name]; err != nil || !known || is != password {
		return api.User{}, &api.Error{Code: "sign-in-refused", Message: "the name or the password is wrong", Hint: "try again"}
	}
	return u, nil
}

// User returns the user of that name in UserList.
func (b *Backend) User(_ context.Context, name cluster.UserName) (api.User, error) {
	i := slices.IndexFunc(b.UserList, func(u api.User) bool { return u.Name == name })
	if i < 0 {
		return api.User{}, noUser
	}
	return b.UserList[i], nil
}

// Users returns UserList.
func (b *Backend) Users(context.Context) ([]api.User, error) {
	b.called("users")
	return slices.Clone(b.UserList), nil
}

// AddUser does nothing.
func (b *Backend) AddUser(_ context.Context, c httpapi.Caller, u api.UserNew) (api.Begun, error) {
	return api.Begun{Text: "added"}, b.change("user-add %s roles=%v by=%s", u.Name, u.Roles, c.Author())
}

// SetPassword does nothing.
func (b *Backend) SetPassword(_ context.Context, c httpapi.Caller, name cluster.UserName, _ api.UserPassword) (api.Begun, error) {
	return api.Begun{Text: "set"}, b.change("user-password %s by=%s", name, c.Author())
}

// SetOwnPassword does nothing.
func (b *Backend) SetOwnPassword(_ context.Context, c httpapi.Caller, _ api.OwnPassword) (api.Begun, error) {
	return api.Begun{Text: "set"}, b.change("own-password by=%s", c.Author())
}

// SetRoles does nothing.
func (b *Backend) SetRoles(_ context.Context, c httpapi.Caller, name cluster.UserName, r api.UserRoles) (api.Begun, error) {
	return api.Begun{Text: "set"}, b.change("user-roles %s roles=%v by=%s", name, r.Roles, c.Author())
}

// RemoveUser does nothing.
func (b *Backend) RemoveUser(_ context.Context, c httpapi.Caller, name cluster.UserName) (api.Begun, error) {
	return api.Begun{Text: "removed"}, b.change("user-remove %s by=%s", name, c.Author())
}

// Accesses returns AccessList.
func (b *Backend) Accesses(context.Context) ([]api.Access, error) {
	b.called("accesses")
	return slices.Clone(b.AccessList), nil
}

// AddAccess returns a text that is no token.
func (b *Backend) AddAccess(_ context.Context, c httpapi.Caller, a api.AccessNew) (api.AccessText, error) {
	made := api.Access{ID: "0123456789abcdef", Name: a.Name, Roles: a.Roles, Author: c.Author()}
	return api.AccessText{Access: made, Token: "token-for-" + a.Name}, b.change("access-add %s roles=%v by=%s", a.Name, a.Roles, c.Author())
}

// RemoveAccess does nothing.
func (b *Backend) RemoveAccess(_ context.Context, c httpapi.Caller, id string) (api.Begun, error) {
	return api.Begun{Text: "removed"}, b.change("access-remove %s by=%s", id, c.Author())
}

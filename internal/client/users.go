package client

import (
	"context"
	"net/url"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Users returns all users.
func (c *Client) Users(ctx context.Context) (out []api.User, err error) {
	return out, c.Do(ctx, "GET", "/v1/users", nil, &out)
}

// AddUser adds a user.
func (c *Client) AddUser(ctx context.Context, u api.UserNew) (out api.Begun, err error) {
	return out, c.Do(ctx, "POST", "/v1/users", u, &out)
}

// SetPassword sets the password of a user.
func (c *Client) SetPassword(ctx context.Context, name cluster.UserName, p api.UserPassword) (out api.Begun, err error) {
	return out, c.Do(ctx, "POST", "/v1/users/"+url.PathEscape(string(name))+"/password", p, &out)
}

// SetRoles sets the roles of a user.
func (c *Client) SetRoles(ctx context.Context, name cluster.UserName, r api.UserRoles) (out api.Begun, err error) {
	return out, c.Do(ctx, "POST", "/v1/users/"+url.PathEscape(string(name))+"/roles", r, &out)
}

// RemoveUser removes a user.
func (c *Client) RemoveUser(ctx context.Context, name cluster.UserName) (out api.Begun, err error) {
	return out, c.Do(ctx, "DELETE", "/v1/users/"+url.PathEscape(string(name)), nil, &out)
}

// Accesses returns all access tokens, without their secrets.
func (c *Client) Accesses(ctx context.Context) (out []api.Access, err error) {
	return out, c.Do(ctx, "GET", "/v1/access-tokens", nil, &out)
}

// AddAccess makes an access token.
func (c *Client) AddAccess(ctx context.Context, n api.AccessNew) (out api.AccessText, err error) {
	return out, c.Do(ctx, "POST", "/v1/access-tokens", n, &out)
}

// RemoveAccess removes an access token.
func (c *Client) RemoveAccess(ctx context.Context, id string) (out api.Begun, err error) {
	return out, c.Do(ctx, "DELETE", "/v1/access-tokens/"+url.PathEscape(id), nil, &out)
}

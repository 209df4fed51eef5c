package engine

import (
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// narrateUsers writes the leader's lines about users and access tokens.
func (m *Machine) narrateUsers(c state.Command, b before) {
	switch {
	case b.again:
	case c.User != nil:
		code := "user-set"
		if c.User.User == nil {
			code = "user-removed"
		}
		m.event(cluster.LevelInfo, "apisv", code, "", map[string]string{"user": string(c.User.Name), "author": c.User.Author},
			"User %s %s (by %s).", c.User.Name, c.User.Why, c.User.Author)
	case c.Access != nil:
		code := "access-token-made"
		if c.Access.Access == nil {
			code = "access-token-removed"
		}
		m.event(cluster.LevelInfo, "apisv", code, "", map[string]string{"token": c.Access.ID, "author": c.Access.Author},
			"Access token %s (by %s).", c.Access.Why, c.Access.Author)
	}
}

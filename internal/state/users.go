package state

import (
	"maps"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// User is a person who signs in with a password. The password itself is not
// here.
type User struct {
	Hash    string         `json:"hash"` // of the password, with its parameters: $argon2id$…
	Roles   []cluster.Role `json:"roles"`
	Author  string         `json:"author"`  // who made, or last changed, it
	Changed time.Time      `json:"changed"` // when the password was set, by the leader's wall clock
}

// Access is an access token: a script shows it with every call. The secret
// itself is not here.
type Access struct {
	SHA256  string         `json:"sha256"` // of the secret, in hex
	Name    string         `json:"name"`   // what it is for
	Roles   []cluster.Role `json:"roles"`
	Author  string         `json:"author"`
	Created time.Time      `json:"created"`
	Expires time.Time      `json:"expires"`
}

// SetUser stores a user, or forgets the one of that name where User is nil.
type SetUser struct {
	Name   cluster.UserName `json:"name"`
	User   *User            `json:"user,omitempty"`
	Why    string           `json:"why"` // what was done
	Author string           `json:"author"`
}

// SetAccess stores an access token, or forgets it where Access is nil.
type SetAccess struct {
	ID     string    `json:"id"`
	Access *Access   `json:"access,omitempty"`
	Why    string    `json:"why"` // what was done
	Author string    `json:"author"`
	Time   time.Time `json:"time"` // the leader's wall clock; what expired before is forgotten
}

func (s *State) setUser(c SetUser) {
	if c.User == nil {
		delete(s.Users, c.Name)
		return
	}
	u := *c.User
	u.Roles = slices.Clone(u.Roles)
	s.Users[c.Name] = u
}

func (s *State) setAccess(c SetAccess) {
	maps.DeleteFunc(s.Accesses, func(_ string, a Access) bool { return a.Expires.Before(c.Time) })
	if c.Access == nil {
		delete(s.Accesses, c.ID)
		return
	}
	s.Accesses[c.ID] = *c.Access
}

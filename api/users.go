package api

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// User is a person who signs in with a password. The password is not in it.
type User struct {
	Name    cluster.UserName `json:"name"`
	Roles   []cluster.Role   `json:"roles"`
	Author  string           `json:"author"`  // who made, or last changed, it
	Changed time.Time        `json:"changed"` // when its password was set; a session that is older is over
}

// UserNew asks for a new user.
type UserNew struct {
	ID       cluster.RequestID `json:"id,omitempty"` // the same id sent twice acts once; "" is a new one
	Name     cluster.UserName  `json:"name"`
	Password string            `json:"password" minLength:"8" maxLength:"256"`
	Roles    []cluster.Role    `json:"roles"`
}

// UserPassword sets the password of a user.
type UserPassword struct {
	ID       cluster.RequestID `json:"id,omitempty"` // the same id sent twice acts once; "" is a new one
	Password string            `json:"password" minLength:"8" maxLength:"256"`
}

// OwnPassword has users set their own password.
type OwnPassword struct {
	ID       cluster.RequestID `json:"id,omitempty"` // the same id sent twice acts once; "" is a new one
	Old      string            `json:"old" maxLength:"256"`
	Password string            `json:"password" minLength:"8" maxLength:"256"`
}

// UserRoles sets the roles of a user.
type UserRoles struct {
	ID    cluster.RequestID `json:"id,omitempty"` // the same id sent twice acts once; "" is a new one
	Roles []cluster.Role    `json:"roles"`
}

// Access is an access token as others see it: a script shows it with every call.
type Access struct {
	ID      string         `json:"id"`
	Name    string         `json:"name"` // what it is for
	Roles   []cluster.Role `json:"roles"`
	Author  string         `json:"author"`
	Created time.Time      `json:"created"`
	Expires time.Time      `json:"expires"`
}

// AccessNew asks for an access token.
type AccessNew struct {
	Name  string         `json:"name"` // what it is for
	Roles []cluster.Role `json:"roles"`
	TTL   time.Duration  `json:"ttl,omitempty" doc:"how long it is good, in nanoseconds; 0: 90 days, at most two years"`
}

// AccessText is a new access token with the text that its holder shows. The text
// cannot be had again.
type AccessText struct {
	Access
	Token string `json:"token"`
}

// Versions are the versions of the API that a node speaks: the N of /vN/.
type Versions struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// Self is who calls, as the daemon knows it.
type Self struct {
	Kind  string         `json:"kind"` // local, node, link, user or token
	Name  string         `json:"name"`
	Roles []cluster.Role `json:"roles"`
}

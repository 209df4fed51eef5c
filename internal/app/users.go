package app

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Who gives a wrong password may go on trying: so many times at once, then once
// in that time. It counts for the name, and for the address.
const (
	guessBurst      = 5
	guessEvery      = 10 * time.Second
	guessesInQueue  = 16  // passwords that wait to be checked: one is at a time
	guessesTogether = 512 // names, and addresses, are counted in so many heaps
	subscriberBits  = 64  // of an IPv6 address: the rest is the subscriber's to choose
)

// gate bounds how many passwords can be tried. A heap of names shares one count:
// so what is kept has a bound, and which names share one is not known outside.
type gate struct {
	queue, turn  chan struct{}
	seed         maphash.Seed
	names, addrs [guessesTogether]*rate.Limiter
}

func newGate() *gate {
	g := &gate{queue: make(chan struct{}, guessesInQueue), turn: make(chan struct{}, 1), seed: maphash.MakeSeed()}
	for i := range g.names {
		g.names[i] = rate.NewLimiter(rate.Every(guessEvery), guessBurst)
		g.addrs[i] = rate.NewLimiter(rate.Every(guessEvery), guessBurst)
	}
	return g
}

var errTooMany = &api.Error{Code: "too-many-attempts", Message: "too many wrong passwords were given", Hint: fmt.Sprintf("wait for %s, then try again", guessEvery)}

// try lets check, which takes long, decide on a password, if another guess for
// this name from this address may be made. Only a wrong one counts.
func (g *gate) try(ctx context.Context, name cluster.UserName, from netip.Addr, check func() bool) (bool, *api.Error) {
	select {
	case g.queue <- struct{}{}:
	default:
		return false, errTooMany
	}
	defer func() { <-g.queue }()
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return false, &api.Error{Code: "timed-out", Message: "the password could not be checked in time", Hint: "try again"}
	}
	defer func() { <-g.turn }()
	if from.Is6() {
		if p, err := from.Prefix(subscriberBits); err == nil {
			from = p.Addr()
		}
	}
	byName := g.names[maphash.String(g.seed, string(name))%guessesTogether]
	byAddr := g.addrs[maphash.Comparable(g.seed, from)%guessesTogether]
	if byName.Tokens() < 1 || byAddr.Tokens() < 1 {
		return false, errTooMany
	}
	ok := check()
	if !ok {
		byName.Allow()
		byAddr.Allow()
	}
	return ok, nil
}

// defaultAccess is how long an access token is good where nothing else is asked
// for.
const defaultAccess = 90 * 24 * time.Hour

// user returns what the state holds of a user; an empty one for a name that is
// not known.
func (d *Daemon) user(ctx context.Context, name cluster.UserName) (u state.User, known bool, err error) {
	err = d.inspect(ctx, func(m *engine.Machine) { u, known = m.State().Users[name] })
	return u, known, err
}

func apiUser(name cluster.UserName, u state.User) api.User {
	return api.User{Name: name, Roles: u.Roles, Author: u.Author, Changed: u.Changed}
}

// SignIn returns the user of that name if this is the password.
func (d *Daemon) SignIn(ctx context.Context, name cluster.UserName, password string) (api.User, error) {
	u, _, err := d.user(ctx, name)
	if err != nil {
		return api.User{}, err
	}
	c := httpapi.CallerOf(ctx)
	ok, no := d.gate.try(ctx, name, c.Addr, func() bool { return identity.CheckPassword(password, u.Hash) })
	if no == nil && !ok {
		no = &api.Error{Code: "sign-in-refused", Message: "the name or the password is wrong", Hint: "tasuki user list shows the users, tasuki user passwd sets a new password"}
	}
	if no != nil {
		d.away.tell(ctx, fmt.Sprintf("A sign-in as %.64q", name), mapped(c.Addr), no.Message)
		return api.User{}, no
	}
	d.record(ctx, api.Event{Module: "apisv", Code: "signed-in", Fields: map[string]string{"user": string(name), "ip": mapped(c.Addr)},
		Text: fmt.Sprintf("User %s (IP=%s) has signed in.", name, mapped(c.Addr))})
	return apiUser(name, u), nil
}

// User returns a user.
func (d *Daemon) User(ctx context.Context, name cluster.UserName) (api.User, error) {
	u, known, err := d.user(ctx, name)
	if err == nil && !known {
		err = &api.Error{Code: "no-such-user", Message: fmt.Sprintf("there is no user %q", name), Hint: "tasuki user list"}
	}
	return apiUser(name, u), err
}

// Users returns all users, by name.
func (d *Daemon) Users(ctx context.Context) ([]api.User, error) {
	out := []api.User{}
	err := d.inspect(ctx, func(m *engine.Machine) {
		users := m.State().Users
		for _, name := range slices.Sorted(maps.Keys(users)) {
			out = append(out, apiUser(name, users[name]))
		}
	})
	return out, err
}

// changeUser brings a change of a user to the cluster.
func (d *Daemon) changeUser(ctx context.Context, kind admission.Kind, c httpapi.Caller, id cluster.RequestID, name cluster.UserName, password string, roles []cluster.Role) (api.Begun, error) {
	a, err := d.newAsk(kind, id, "")
	if err != nil {
		return api.Begun{}, err
	}
	a.User, a.Roles, a.Author, a.Granted = name, roles, c.Author(), c.Granted()
	if password != "" {
		if a.Hash, err = identity.HashPassword(password); err != nil {
			return api.Begun{}, err
		}
	}
	ans, no := d.ask(ctx, a)
	return api.Begun{Text: ans.Text}, orNil(no)
}

// AddUser adds a user.
func (d *Daemon) AddUser(ctx context.Context, c httpapi.Caller, u api.UserNew) (api.Begun, error) {
	return d.changeUser(ctx, admission.UserAdd, c, u.ID, u.Name, u.Password, u.Roles)
}

// SetPassword sets the password of a user.
func (d *Daemon) SetPassword(ctx context.Context, c httpapi.Caller, name cluster.UserName, p api.UserPassword) (api.Begun, error) {
	return d.changeUser(ctx, admission.UserPassword, c, p.ID, name, p.Password, nil)
}

// SetOwnPassword sets the password of the user who calls and knows the old one.
func (d *Daemon) SetOwnPassword(ctx context.Context, c httpapi.Caller, p api.OwnPassword) (api.Begun, error) {
	name := cluster.UserName(c.Name)
	u, _, err := d.user(ctx, name)
	if err != nil {
		return api.Begun{}, err
	}
	ok, no := d.gate.try(ctx, name, c.Addr, func() bool { return identity.CheckPassword(p.Old, u.Hash) })
	if no == nil && !ok {
		no = &api.Error{Code: "sign-in-refused", Message: "the old password is wrong", Hint: "whoever has the role configure can set a new one: tasuki user passwd"}
	}
	if no != nil {
		d.away.tell(ctx, fmt.Sprintf("A change of the password of %.64q", name), mapped(c.Addr), no.Message)
		return api.Begun{}, no
	}
	return d.changeUser(ctx, admission.UserOwn, c, p.ID, name, p.Password, nil)
}

// SetRoles sets the roles of a user.
func (d *Daemon) SetRoles(ctx context.Context, c httpapi.Caller, name cluster.UserName, r api.UserRoles) (api.Begun, error) {
	return d.changeUser(ctx, admission.UserRoles, c, r.ID, name, "", r.Roles)
}

// RemoveUser removes a user.
func (d *Daemon) RemoveUser(ctx context.Context, c httpapi.Caller, name cluster.UserName) (api.Begun, error) {
	return d.changeUser(ctx, admission.UserRemove, c, "", name, "", nil)
}

func apiAccess(id string, a state.Access) api.Access {
	return api.Access{ID: id, Name: a.Name, Roles: a.Roles, Author: a.Author, Created: a.Created, Expires: a.Expires}
}

// Accesses returns all access tokens, by what they are for.
func (d *Daemon) Accesses(ctx context.Context) ([]api.Access, error) {
	out := []api.Access{}
	err := d.inspect(ctx, func(m *engine.Machine) {
		for id, a := range m.State().Accesses {
			out = append(out, apiAccess(id, a))
		}
	})
	slices.SortFunc(out, func(a, b api.Access) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out, err
}

// AddAccess makes an access token.
func (d *Daemon) AddAccess(ctx context.Context, c httpapi.Caller, n api.AccessNew) (api.AccessText, error) {
	a, err := d.newAsk(admission.AccessAdd, "", "")
	if err != nil {
		return api.AccessText{}, err
	}
	id, text, sum := identity.NewAccess()
	made := state.Access{SHA256: sum, Name: n.Name, Created: a.Wall, Expires: a.Wall.Add(cmp.Or(n.TTL, defaultAccess))}
	a.Token, a.Access, a.Roles, a.Author, a.Granted = id, &made, n.Roles, c.Author(), c.Granted()
	_, no := d.ask(ctx, a)
	made.Roles, made.Author = a.Roles, a.Author // this node may not have heard yet what was agreed on
	return api.AccessText{Access: apiAccess(id, made), Token: text}, orNil(no)
}

// RemoveAccess removes an access token.
func (d *Daemon) RemoveAccess(ctx context.Context, c httpapi.Caller, id string) (api.Begun, error) {
	a, err := d.newAsk(admission.AccessRemove, "", "")
	if err != nil {
		return api.Begun{}, err
	}
	a.Token, a.Author, a.Granted = id, c.Author(), c.Granted()
	ans, no := d.ask(ctx, a)
	return api.Begun{Text: ans.Text}, orNil(no)
}

// bearer returns the access token of that text, if it is good now.
func (d *Daemon) bearer(ctx context.Context, text string) (id string, a state.Access, good bool) {
	id, secret, err := identity.ParseAccess(text)
	if err != nil {
		return "", a, false
	}
	if err := d.inspect(ctx, func(m *engine.Machine) { a = m.State().Accesses[id] }); err != nil {
		return "", a, false
	}
	return id, a, identity.IsAccess(secret, a.SHA256) && time.Now().Before(a.Expires)
}

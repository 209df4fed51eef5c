package console

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
)

// What a session holds.
const (
	keyUser  = "user"  // who signed in
	keySince = "since" // when that was, in nanoseconds since 1970; the same at every node that it moved to
)

// Session is what the page is told of its session.
type Session struct {
	User      cluster.UserName `json:"user"`
	Roles     []cluster.Role   `json:"roles"`
	Cluster   cluster.Name     `json:"cluster"`
	Node      cluster.NodeName `json:"node"` // that serves the page
	Version   string           `json:"version"`
	Expires   time.Time        `json:"expires"`
	Elsewhere []Elsewhere      `json:"elsewhere"` // where the page goes on when the node is gone
}

// noSession is what a call without a session is told.
func noSession(why string) error {
	return &api.Error{Code: "not-signed-in", Message: why, Hint: "sign in"}
}

// user returns whose session it is. Whoever was removed, or got a new password
// since, has none any more.
func (c *Console) user(ctx context.Context) (api.User, error) {
	name := c.sessions.GetString(ctx, keyUser)
	if name == "" {
		return api.User{}, noSession("nobody has signed in")
	}
	return c.userSince(ctx, cluster.UserName(name), time.Unix(0, c.sessions.GetInt64(ctx, keySince)))
}

// userSince returns a user who signed in at that time.
func (c *Console) userSince(ctx context.Context, name cluster.UserName, since time.Time) (api.User, error) {
	u, err := c.Cluster.User(ctx, name)
	if err != nil {
		return api.User{}, noSession(fmt.Sprintf("the session has ended: %v", err))
	}
	if u.Changed.After(since) || time.Since(since) > lifetime {
		return api.User{}, noSession("the session has ended")
	}
	return u, nil
}

// begin begins a session, with a cookie that nobody knew before.
func (c *Console) begin(ctx context.Context, name cluster.UserName, since time.Time) error {
	if err := c.sessions.RenewToken(ctx); err != nil {
		return fmt.Errorf("begin a session: %w", err)
	}
	c.sessions.SetDeadline(ctx, since.Add(lifetime))
	c.sessions.Put(ctx, keyUser, string(name))
	c.sessions.Put(ctx, keySince, since.UnixNano())
	return nil
}

func (c *Console) told(u api.User, since time.Time) Session {
	name, node := c.Cluster.Names()
	return Session{User: u.Name, Roles: u.Roles, Cluster: name, Node: node, Version: c.Version, Expires: since.Add(lifetime), Elsewhere: c.Cluster.Consoles()}
}

// session tells the page who has signed in: null is nobody.
func (c *Console) session(r *http.Request) (any, error) {
	u, err := c.user(r.Context())
	if err != nil {
		return nil, nil // the page asks whether, not why not
	}
	return c.told(u, time.Unix(0, c.sessions.GetInt64(r.Context(), keySince))), nil
}

// signIn begins a session by name and password.
func (c *Console) signIn(r *http.Request) (any, error) {
	var in struct {
		Name     cluster.UserName `json:"name"`
		Password string           `json:"password"`
	}
	if err := body(r, &in); err != nil {
		return nil, err
	}
	now := time.Now()
	ctx := httpapi.WithCaller(r.Context(), httpapi.Caller{Kind: httpapi.Anonymous, Addr: addrOf(r)})
	u, err := c.Cluster.SignIn(ctx, in.Name, in.Password)
	if err != nil {
		return nil, err
	}
	return c.told(u, now), c.begin(r.Context(), u.Name, now)
}

// signOut ends the session.
func (c *Console) signOut(r *http.Request) (any, error) {
	if err := c.sessions.Destroy(r.Context()); err != nil {
		return nil, fmt.Errorf("end a session: %w", err)
	}
	return struct{}{}, nil
}

// A ticket begins a session at another node, once at each, within ticketLife.
const (
	ticketLife    = 5 * time.Minute
	ticketPurpose = "console session"
)

type ticket struct {
	ID    string           `json:"id"`
	User  cluster.UserName `json:"user"`
	Since time.Time        `json:"since"` // of the session
	Until time.Time        `json:"until"` // of the ticket
}

// Ticket is a ticket for the page.
type Ticket struct {
	Ticket string    `json:"ticket"`
	Until  time.Time `json:"until"`
}

// newTicket gives the page a ticket, for when this node is gone.
func (c *Console) newTicket(r *http.Request) (any, error) {
	u, err := c.user(r.Context())
	if err != nil {
		return nil, err
	}
	t := ticket{ID: rand.Text(), User: u.Name, Since: time.Unix(0, c.sessions.GetInt64(r.Context(), keySince)), Until: time.Now().Add(ticketLife)}
	statement, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("write a ticket: %w", err)
	}
	voucher, err := c.Cluster.Vouch(ticketPurpose, statement)
	if err != nil {
		return nil, err
	}
	return Ticket{voucher, t.Until}, nil
}

// handOver begins a session by a ticket of another node, or of this one before it
// was started anew.
func (c *Console) handOver(r *http.Request) (any, error) {
	var in Ticket
	if err := body(r, &in); err != nil {
		return nil, err
	}
	u, t, by, err := c.redeem(r.Context(), in.Ticket)
	if err != nil {
		c.Cluster.TurnedAway(r.Context(), "A ticket for the console", addrOf(r), err.Error())
		return nil, err
	}
	c.Cluster.Record(r.Context(), api.Event{Level: cluster.LevelInfo, Module: "apisv", Code: "session-moved", Fields: map[string]string{"user": string(t.User), "ip": addrOf(r).String()},
		Text: fmt.Sprintf("User %s (IP=%s) goes on at the console of this node, with a ticket of %s.", t.User, addrOf(r), by)})
	return c.told(u, t.Since), c.begin(r.Context(), u.Name, t.Since)
}

// redeem checks a ticket, which is then used, and returns whose it is, what it says
// and who made it.
func (c *Console) redeem(ctx context.Context, text string) (u api.User, t ticket, by cluster.NodeName, err error) {
	statement, by, err := c.Cluster.Vouched(ticketPurpose, text)
	if err == nil {
		err = json.Unmarshal(statement, &t)
	}
	if err != nil {
		return u, t, by, noSession(fmt.Sprintf("the ticket of the other node is not good here: %v", err))
	}
	now := time.Now()
	if now.After(t.Until) || t.Until.After(now.Add(2*ticketLife)) {
		return u, t, by, noSession("the ticket of the other node has run out")
	}
	if u, err = c.userSince(ctx, t.User, t.Since); err != nil {
		return u, t, by, err
	}
	if !c.used.first(t.ID, t.Until, now) {
		return u, t, by, noSession("the ticket of the other node has been used")
	}
	return u, t, by, nil
}

// used remembers the tickets that were shown here, as long as they could be shown
// again.
type used struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// maxUsed bounds what is remembered; only the nodes of the cluster make tickets.
const maxUsed = 10_000

// first says whether a ticket is shown for the first time.
func (u *used) first(id string, until, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, t := range u.until {
		if now.After(t) {
			delete(u.until, id)
		}
	}
	if _, known := u.until[id]; known || len(u.until) >= maxUsed {
		return false
	}
	u.until[id] = until
	return true
}

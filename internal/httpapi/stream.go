package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// The stream of server-sent events pushes the whole status when it has changed,
// and every event. Its bounds:
const (
	statusPause  = 100 * time.Millisecond // between two statuses, at least
	statusLook   = 200 * time.Millisecond // how often it is looked for what nobody told
	statusCosts  = 8                      // a big status is made less often: both are at least so many times as long as making it takes
	statusAnyway = 5 * time.Second        // how often it is pushed though nothing but times has changed
	aliveEvery   = time.Second            // a client hears at least so often that the stream lives
	sendWithin   = 5 * time.Second        // a client that takes longer to read is cut off
	maxStreams   = 64                     // that go on at once
	maxBacklog   = 1000                   // events that a client can have missed, and get
	retryAfter   = time.Second            // when a client that was cut off comes back
	mayEvery     = 5 * time.Second        // how often it is looked whether the caller still may
)

// Names of what is pushed.
const (
	pushStatus = "status" // data: api.Status
	pushEvent  = "event"  // id: of the event; data: api.Event
	pushMissed = "missed" // too many events have happened since the one that was named: ask /v1/events
)

// glance is the status at one moment, ready to be sent to all who look.
type glance struct {
	data    []byte
	sum     [sha256.Size]byte // of all but what changes with every look
	changed <-chan struct{}   // closed when there may be news
	at      time.Time
	pause   time.Duration // before the next one, if there is news
	look    time.Duration // before the next one
}

// glances makes one glance for all clients.
type glances struct {
	b      Backend
	mu     sync.Mutex
	latest *glance
	took   [4]time.Duration // the latest ones; a ring
	next   int              // in took
}

// cost is what making a status costs: the least of what the latest ones took. One
// that had to wait, for the disk or for a processor, cost no more for that, and the
// next one is wanted all the sooner.
func (g *glances) cost(took time.Duration) time.Duration {
	g.took[g.next] = max(took, 1) // 0 is none
	g.next = (g.next + 1) % len(g.took)
	least := took
	for _, t := range g.took {
		if t > 0 {
			least = min(least, t)
		}
	}
	return least
}

// take returns a glance that is not older than the latest news, or than the pause
// between two.
func (g *glances) take(ctx context.Context) (*glance, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.latest; l != nil {
		news := false
		select {
		case <-l.changed:
			news = true
		default:
		}
		if age := time.Since(l.at); age < l.pause || !news && age < l.look {
			return l, nil
		}
	}
	began := time.Now()
	next := &glance{changed: g.b.Changed(), at: began} // before the look: what happens meanwhile is news
	s, err := g.b.Status(ctx)
	if err != nil {
		return nil, err
	}
	if next.data, err = json.Marshal(s); err != nil {
		return nil, fmt.Errorf("write the status: %w", err)
	}
	lasting, err := json.Marshal(withoutTimes(s))
	if err != nil {
		return nil, fmt.Errorf("write the status: %w", err)
	}
	next.sum = sha256.Sum256(lasting)
	cost := g.cost(time.Since(began))
	next.pause, next.look = max(statusPause, statusCosts*cost), max(statusLook, statusCosts*cost)
	g.latest = next
	return next, nil
}

// withoutTimes is the status without what changes while nothing happens.
func withoutTimes(s api.Status) api.Status {
	s.Time = nil
	s.Nodes = append([]api.Node(nil), s.Nodes...)
	for i := range s.Nodes {
		s.Nodes[i].Heard = nil
	}
	return s
}

// sent is one client of the stream, with what it got.
type sent struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	sum  [sha256.Size]byte
	at   time.Time                    // of the latest status
	said time.Time                    // when anything was sent last
	late map[cluster.EventID]struct{} // what it got of the backlog, which may come once more
}

// message writes one server-sent event; data has no line breaks.
func (c *sent) message(name, id string, data []byte) error {
	var b bytes.Buffer
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", name, data)
	return c.write(b.Bytes())
}

func (c *sent) write(data []byte) error {
	if err := c.rc.SetWriteDeadline(time.Now().Add(sendWithin)); err != nil {
		return fmt.Errorf("bound a write: %w", err)
	}
	if _, err := c.w.Write(data); err != nil {
		return fmt.Errorf("write to a stream: %w", err)
	}
	if err := c.rc.Flush(); err != nil {
		return fmt.Errorf("write to a stream: %w", err)
	}
	c.said = time.Now()
	// HTTP/2 ends a stream whose deadline passes, also while nothing is written.
	return c.rc.SetWriteDeadline(time.Time{})
}

func (c *sent) event(e api.Event) error {
	if _, twice := c.late[e.ID]; twice {
		return nil
	}
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	return c.message(pushEvent, string(e.ID), data)
}

// status sends a glance if it is news to the client, else now and then a comment, by
// which it sees that the node is there.
func (c *sent) status(g *glance) error {
	if g.sum == c.sum && time.Since(c.at) < statusAnyway {
		if time.Since(c.said) < aliveEvery {
			return nil
		}
		return c.write([]byte(":\n\n"))
	}
	c.sum, c.at = g.sum, time.Now()
	return c.message(pushStatus, "", g.data)
}

// backlog sends what happened after the event of that id.
func (c *sent) backlog(ctx context.Context, b Backend, after cluster.EventID) error {
	if after == "" {
		return nil
	}
	missed, err := b.Events(ctx, api.EventFilter{After: after, Limit: maxBacklog + 1})
	if err != nil {
		return err
	}
	if len(missed) > maxBacklog {
		return c.message(pushMissed, "", []byte("{}"))
	}
	c.late = map[cluster.EventID]struct{}{}
	for _, e := range missed {
		if err := c.event(e); err != nil {
			return err
		}
		c.late[e.ID] = struct{}{}
	}
	return nil
}

// stream pushes status and events as server-sent events until the caller goes,
// or is too slow: then it is cut off, comes back by itself with the id of the
// event that it got last, and begins with a status and what it missed.
func (s *server) stream(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		Refuse(w, &api.Error{Code: "overload", Message: fmt.Sprintf("there are %d streams already", maxStreams), Hint: "ask another node, or close some"})
		return
	}
	ctx := r.Context()
	events := s.b.Follow(ctx)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	c := &sent{w: w, rc: http.NewResponseController(w)}
	after := cluster.EventID(cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after")))
	if c.write(fmt.Appendf(nil, "retry: %d\n\n", retryAfter.Milliseconds())) != nil || c.backlog(ctx, s.b, after) != nil {
		return
	}
	look := time.NewTimer(0)
	defer look.Stop()
	recheck := time.NewTicker(mayEvery)
	defer recheck.Stop()
	var latest glance
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-recheck.C:
			if !s.still(ctx) {
				return
			}
		case e, open := <-events:
			if !open || e.ID == "" {
				return
			}
			err = c.event(e)
		case <-latest.changed:
			latest.changed = nil // once
			look.Reset(time.Until(latest.at.Add(latest.pause)))
		case <-look.C:
			var g *glance
			if g, err = s.glances.take(ctx); err == nil {
				latest = *g
				look.Reset(g.look)
				err = c.status(g)
			}
		}
		if err != nil {
			return
		}
	}
}

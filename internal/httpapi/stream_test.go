package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

// pushed is what one client of a stream was sent.
type pushed struct {
	id, name, data string
	at             time.Time
}

// reader is a client of a stream: what it is sent, or one that does not read.
type reader struct {
	stuck bool

	mu       sync.Mutex
	header   http.Header
	got      []pushed
	heard    []time.Time // when anything came
	deadline time.Time
}

func (r *reader) Header() http.Header { return r.header }
func (r *reader) WriteHeader(int)     {}
func (r *reader) Flush()              {}

func (r *reader) SetWriteDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadline = t
	return nil
}

func (r *reader) Write(b []byte) (int, error) {
	if r.stuck {
		<-time.After(time.Until(r.deadline))
		return 0, os.ErrDeadlineExceeded
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := pushed{at: time.Now()}
	r.heard = append(r.heard, p.at)
	for line := range strings.SplitSeq(string(b), "\n") {
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "id":
			p.id = value
		case "event":
			p.name = value
		case "data":
			p.data = value
		}
	}
	if p.name != "" {
		r.got = append(r.got, p)
	}
	return len(b), nil
}

func (r *reader) all(name string) (out []pushed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.got {
		if p.name == name {
			out = append(out, p)
		}
	}
	return out
}

// watch begins a stream; the channel is closed when the daemon has ended it.
func watch(ctx context.Context, h http.Handler, r *reader, after string) <-chan struct{} {
	return watchAs(ctx, h, r, httpapi.Caller{Kind: httpapi.Local}, after)
}

func watchAs(ctx context.Context, h http.Handler, r *reader, c httpapi.Caller, after string) <-chan struct{} {
	r.header = http.Header{}
	done := make(chan struct{})
	req := httptest.NewRequest("GET", "/v1/stream", nil)
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	go func() {
		defer close(done)
		h.ServeHTTP(r, req.WithContext(httpapi.WithCaller(ctx, c)))
	}()
	return done
}

func groups(phase cluster.Phase) api.Status {
	now := time.Now()
	return api.Status{Cluster: "c", Nodes: []api.Node{{Name: "n1", Heard: &now}}, Groups: []api.Group{{Name: "g", Phase: phase}}}
}

// A change is pushed at once, but statuses are at least 100 ms apart, and one
// that differs only in when a node was last heard is no change.
func TestStatusIsPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &httpapitest.Backend{State: groups(cluster.PhaseStarting)}
		var r reader
		ctx, cancel := context.WithCancel(t.Context())
		done := watch(ctx, httpapi.New(b, "test"), &r, "")
		<-time.After(statusRest)
		if got := r.all("status"); len(got) != 1 || !strings.Contains(got[0].data, `"starting"`) {
			t.Fatal("no status to begin with:", got)
		}
		changed := time.Now()
		b.Change(groups(cluster.PhaseOnline))
		synctest.Wait()
		got := r.all("status")
		if len(got) != 2 || got[1].at != changed || !strings.Contains(got[1].data, `"online"`) {
			t.Fatal("the change was not pushed at once:", got)
		}
		for i := range 20 { // one each 10 ms
			b.Change(groups(cluster.Phase(fmt.Sprint("phase", i))))
			<-time.After(10 * time.Millisecond)
		}
		<-time.After(statusRest)
		got = r.all("status")
		if !strings.Contains(got[len(got)-1].data, "phase19") {
			t.Error("the last change is missing:", got[len(got)-1].data)
		}
		if n := len(got); n > 6 {
			t.Errorf("%d statuses within 700 ms", n)
		}
		before := len(got)
		b.Change(groups("phase19")) // heard anew
		<-time.After(statusRest)
		if got = r.all("status"); len(got) != before {
			t.Error("a heartbeat alone was pushed as a change")
		}
		cancel()
		<-done
	})
}

// statusRest is long enough for whatever is due, and too short for a status that
// is pushed though nothing has changed. No look falls on its end.
const statusRest = 1150 * time.Millisecond

// slow is a daemon that takes so long for a status, and now and then for one.
type slow struct {
	*httpapitest.Backend
	takes, stall atomic.Int64 // time.Duration; stall is once
}

func (s *slow) Status(ctx context.Context) (api.Status, error) {
	<-time.After(time.Duration(s.takes.Load() + s.stall.Swap(0)))
	return s.Backend.Status(ctx)
}

// A big status is not made all the time, but one that had to wait does not delay the
// next.
func TestSlowStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &slow{Backend: &httpapitest.Backend{State: groups(cluster.PhaseStarting)}}
		var r reader
		ctx, cancel := context.WithCancel(t.Context())
		done := watch(ctx, httpapi.New(b, "test"), &r, "")
		<-time.After(statusRest)
		later := func(stall time.Duration) time.Duration {
			b.stall.Store(int64(stall))
			b.Change(groups("one"))
			<-time.After(stall + time.Millisecond)
			changed := time.Now()
			b.Change(groups("two"))
			<-time.After(3 * time.Second)
			for _, p := range r.all("status") {
				if strings.Contains(p.data, `"two"`) && !p.at.Before(changed) {
					return p.at.Sub(changed)
				}
			}
			t.Fatal("it was never pushed")
			return 0
		}
		if took := later(140 * time.Millisecond); took > 100*time.Millisecond {
			t.Errorf("a change after a stall was pushed after %s", took)
		}
		b.takes.Store(int64(50 * time.Millisecond))
		<-time.After(5 * time.Second)
		if took := later(0); took < 400*time.Millisecond {
			t.Errorf("a status that takes 50 ms was made again after %s", took)
		}
		cancel()
		<-done
	})
}

// Nothing has happened for a while: the client sees that the stream lives.
func TestStreamShowsThatItLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &httpapitest.Backend{State: groups(cluster.PhaseOnline)}
		var r reader
		ctx, cancel := context.WithCancel(t.Context())
		done := watch(ctx, httpapi.New(b, "test"), &r, "")
		<-time.After(time.Minute)
		cancel()
		<-done
		if n := len(r.all("status")); n < 10 || n > 13 {
			t.Errorf("%d statuses within a minute", n)
		}
		for i := range len(r.heard) - 1 {
			if silent := r.heard[i+1].Sub(r.heard[i]); silent > 1300*time.Millisecond {
				t.Errorf("nothing was to be heard for %s", silent)
			}
		}
		if n := len(r.heard); n > 75 {
			t.Errorf("it said something %d times", n)
		}
	})
}

// Whoever comes back gets what it missed, in order and once, then what is new.
func TestStreamGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &httpapitest.Backend{}
		for i := range 5 {
			b.Happen(api.Event{ID: cluster.EventID(fmt.Sprint("n1/", i))})
		}
		var r reader
		ctx, cancel := context.WithCancel(t.Context())
		done := watch(ctx, httpapi.New(b, "test"), &r, "n1/2")
		synctest.Wait()
		b.Happen(api.Event{ID: "n1/4"}) // it was told twice
		b.Happen(api.Event{ID: "n2/1"})
		synctest.Wait()
		var ids []string
		for _, p := range r.all("event") {
			var e api.Event
			if err := json.Unmarshal([]byte(p.data), &e); err != nil || string(e.ID) != p.id {
				t.Error(p, err)
			}
			ids = append(ids, p.id)
		}
		if got := strings.Join(ids, " "); got != "n1/3 n1/4 n2/1" {
			t.Error(got)
		}
		cancel()
		<-done
	})
}

// Too much was missed: the client is told to read the log.
func TestStreamAfterTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &httpapitest.Backend{}
		for i := range 1100 {
			b.Happen(api.Event{ID: cluster.EventID(fmt.Sprint("n1/", i))})
		}
		var r reader
		ctx, cancel := context.WithCancel(t.Context())
		done := watch(ctx, httpapi.New(b, "test"), &r, "n1/2")
		synctest.Wait()
		if len(r.all("missed")) != 1 || len(r.all("event")) != 0 {
			t.Error(r.all("missed"), len(r.all("event")))
		}
		cancel()
		<-done
	})
}

// A client that does not read, and one that missed events, are cut off.
func TestSlowClientsAreCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &httpapitest.Backend{}
		h := httpapi.New(b, "test")
		began := time.Now()
		<-watch(t.Context(), h, &reader{stuck: true}, "")
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("a client that does not read was cut off after %s", took)
		}
		done := watch(t.Context(), h, &reader{}, "")
		synctest.Wait()
		b.Happen(api.Event{}) // stands for what was missed
		<-done
	})
}

// Who may not read any more is cut off: the user lost the role, the token is gone.
func TestStreamEndsWithTheRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &httpapitest.Backend{UserList: []api.User{{Name: "ann", Roles: []cluster.Role{cluster.RoleOperate}}, {Name: "bob", Roles: cluster.Roles()}},
			AccessList: []api.Access{{ID: "good", Expires: time.Now().Add(time.Hour)}, {ID: "old", Expires: time.Now().Add(time.Second)}}}
		h := httpapi.New(b, "test")
		ctx, cancel := context.WithCancel(t.Context())
		ends := func(c httpapi.Caller) bool {
			c.Roles = []cluster.Role{cluster.RoleRead} // when the stream began
			done := watchAs(ctx, h, &reader{}, c, "")
			<-time.After(time.Minute)
			select {
			case <-done:
				return true
			default:
				return false
			}
		}
		for who, want := range map[string]bool{"ann": true, "bob": false, "gone": true} {
			if got := ends(httpapi.Caller{Kind: httpapi.User, Name: who}); got != want {
				t.Errorf("the stream of %s has ended: %v", who, got)
			}
		}
		for token, want := range map[string]bool{"good": false, "old": true, "gone": true} {
			if got := ends(httpapi.Caller{Kind: httpapi.Token, Token: token}); got != want {
				t.Errorf("the stream with token %s has ended: %v", token, got)
			}
		}
		cancel()
	})
}

func TestTooManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := httpapi.New(&httpapitest.Backend{}, "test")
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		for range 64 {
			watch(ctx, h, &reader{}, "")
		}
		synctest.Wait()
		w := httptest.NewRecorder()
		req := httptest.NewRequest("GET", "/v1/stream", nil)
		h.ServeHTTP(w, req.WithContext(httpapi.WithCaller(ctx, httpapi.Caller{Kind: httpapi.Local})))
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `"overload"`) {
			t.Error(w.Code, w.Body)
		}
	})
}

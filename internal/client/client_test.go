package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/client"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

// serve returns a client of a daemon of values.
func serve(t *testing.T, h http.Handler) *client.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	c := client.Unix(path)
	t.Cleanup(c.Close)
	return c
}

func asRoot(b httpapi.Backend) http.Handler {
	h := httpapi.New(b, "test")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(httpapi.WithCaller(r.Context(), httpapi.Caller{Kind: httpapi.Local, Name: "root"})))
	})
}

// Every call of the client reaches the operation that it is for.
func TestEveryCall(t *testing.T) {
	b := &httpapitest.Backend{Versions: []api.ConfigText{{ConfigVersion: api.ConfigVersion{Version: 1}, Text: "x"}}}
	c := serve(t, asRoot(b))
	ctx := t.Context()
	b.Happen(api.Event{ID: "n1/1", Text: "first"})
	for want, call := range map[string]func() error{
		"status": func() error { _, err := c.Status(ctx); return err },
		"events limit=7 newest=true after=n1/1": func() error {
			_, err := c.Events(ctx, api.EventFilter{Limit: 7, Newest: true, After: "n1/1"})
			return err
		},
		"explain n1/1":              func() error { _, err := c.Explain(ctx, "n1/1"); return err },
		"group move g/x to=n2":      func() error { _, err := c.Group(ctx, "g/x", "move", api.GroupOp{To: "n2"}); return err },
		"plan p1":                   func() error { _, err := c.Plan(ctx, "p1", time.Second); return err },
		"monitor suspend m node=n1": func() error { _, err := c.Monitor(ctx, "m", "suspend", api.MonitorOp{Node: "n1"}); return err },
		"node leave n1":             func() error { _, err := c.Node(ctx, "n1", "leave", api.NodeOp{}); return err },
		"check-fences n2":           func() error { _, err := c.CheckFences(ctx, "n2", time.Second); return err },
		"log warn a line":           func() error { _, err := c.Log(ctx, api.LogLine{Text: "a line", Level: cluster.LevelWarn}); return err },
		"config 1":                  func() error { _, err := c.Config(ctx, 1); return err },
		"history":                   func() error { _, err := c.History(ctx); return err },
		"plan-config 4 bytes":       func() error { _, err := c.PlanConfig(ctx, api.ConfigChange{Text: "text"}); return err },
		"apply-config by root on 1: why": func() error {
			_, err := c.ApplyConfig(ctx, api.ConfigChange{Text: "text", Base: 1, Note: "why"})
			return err
		},
		"token join n2 [] [] []": func() error { _, err := c.NewToken(ctx, api.TokenRequest{Purpose: "join", Subject: "n2"}); return err },
		"link-add T":             func() error { _, err := c.AddLink(ctx, api.LinkToken{Token: "T"}); return err },
		"link-remove c":          func() error { return c.RemoveLink(ctx, "c") },
		"send EXEC_SCRIPT [h] group= resource= script=s id=1": func() error {
			_, err := c.Send(ctx, api.SendRequest{Hosts: []string{"h"}, Request: api.Request{ID: "1", Verb: cluster.VerbExecScript, Script: "s"}})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if calls := b.Calls(); !slices.Contains(calls, want) {
			t.Errorf("no %q in %q", want, calls)
		}
	}
}

// An error keeps its code and hint on the way.
func TestRefusalsArriveWhole(t *testing.T) {
	no := &api.Error{Code: "standby-down", Message: "no other node can take group g", Hint: "tasuki status"}
	c := serve(t, asRoot(&httpapitest.Backend{Refusal: no}))
	_, err := c.Group(t.Context(), "g", "move", api.GroupOp{})
	var e *api.Error
	if !errors.As(err, &e) || *e != *no {
		t.Errorf("%+v", err)
	}
}

func TestWhatIsNoAnswerOfOurs(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) }))
	_, err := c.Status(t.Context())
	var e *api.Error
	if !errors.As(err, &e) || e.Code != "internal" || !strings.Contains(e.Message, "502") {
		t.Errorf("%+v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	c := client.Unix("/nonexistent/api.sock")
	_, err := c.Status(t.Context())
	var e *api.Error
	if !errors.As(err, &e) || e.Code != client.CodeUnreachable || e.Hint == "" || !strings.Contains(e.Message, "/nonexistent/api.sock") {
		t.Errorf("%+v", err)
	}
}

// Who gives up, or has waited long enough, is not told that nobody answers.
func TestGivingUp(t *testing.T) {
	release := make(chan struct{})
	c := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := c.Status(ctx)
	var e *api.Error
	if errors.As(err, &e) || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err = c.Status(ctx); !errors.As(err, &e) || e.Code != "timed-out" {
		t.Errorf("%+v", err)
	}
}

// What happens after begun is called arrives, and in order.
func TestFollow(t *testing.T) {
	b := &httpapitest.Backend{}
	c := serve(t, asRoot(b))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	err := c.Follow(ctx, func() {
		for _, text := range []string{"a", "b", "c"} {
			b.Happen(api.Event{ID: cluster.EventID(text), Text: text})
		}
	}, func(e api.Event) {
		if got = append(got, e.Text); len(got) == 3 {
			cancel()
		}
	})
	if err != nil || strings.Join(got, "") != "abc" {
		t.Error(got, err)
	}
}

// A daemon that ends is told of.
func TestFollowEndsWithTheDaemon(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	var e *api.Error
	if err := c.Follow(t.Context(), nil, func(api.Event) {}); !errors.As(err, &e) || e.Code != client.CodeUnreachable {
		t.Errorf("%+v", err)
	}
}

// serveTLS returns a client over TLS of a daemon of values, for which a caller
// without a certificate is nobody and one with a certificate is a node.
func serveTLS(t *testing.T, b httpapi.Backend) (address string, trusted *tls.Config) {
	t.Helper()
	h := httpapi.New(b, "test")
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := httpapi.Caller{Kind: httpapi.Anonymous}
		if len(r.TLS.PeerCertificates) > 0 {
			c = httpapi.Caller{Kind: httpapi.Node, Name: "n2"}
		}
		h.ServeHTTP(w, r.WithContext(httpapi.WithCaller(r.Context(), c)))
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s.Listener.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "example.com", Certificates: s.TLS.Certificates}
}

func overTLS(t *testing.T, address string, conf *tls.Config) *client.Client {
	t.Helper()
	c := client.TLS(address, conf)
	t.Cleanup(c.Close)
	return c
}

// What goes over the socket goes over TLS too, with the rights of who calls.
func TestOverTLS(t *testing.T) {
	b := &httpapitest.Backend{State: api.Status{Cluster: "c"}}
	address, conf := serveTLS(t, b)
	c := overTLS(t, address, conf)
	if s, err := c.Status(t.Context()); err != nil || s.Cluster != "c" {
		t.Error(s, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := ""
	if err := c.Follow(ctx, func() { b.Happen(api.Event{ID: "a", Text: "a"}) }, func(e api.Event) { got = e.Text; cancel() }); err != nil || got != "a" {
		t.Error(got, err)
	}
	nobody := conf.Clone()
	nobody.Certificates = nil
	var e *api.Error
	if _, err := overTLS(t, address, nobody).Status(t.Context()); !errors.As(err, &e) || e.Code != "not-allowed" || e.Hint == "" {
		t.Errorf("%+v", err)
	}
	if err := overTLS(t, address, nobody).Follow(ctxFor(t, 5*time.Second), nil, func(api.Event) {}); !errors.As(err, &e) || e.Code != "not-allowed" || e.Hint == "" {
		t.Errorf("%+v", err)
	}
}

func TestRefusalsArriveWholeOverTLS(t *testing.T) {
	no := &api.Error{Code: "standby-down", Message: "no other node can take group g", Hint: "tasuki status"}
	address, conf := serveTLS(t, &httpapitest.Backend{Refusal: no})
	var e *api.Error
	if _, err := overTLS(t, address, conf).Group(t.Context(), "g", "move", api.GroupOp{}); !errors.As(err, &e) || *e != *no {
		t.Errorf("%+v", err)
	}
}

// A daemon that is not the one it should be is as good as none.
func TestDaemonThatIsNotTrusted(t *testing.T) {
	b := &httpapitest.Backend{}
	address, conf := serveTLS(t, b)
	conf.RootCAs = x509.NewCertPool()
	var e *api.Error
	if _, err := overTLS(t, address, conf).Status(t.Context()); !errors.As(err, &e) || e.Code != client.CodeUnreachable || !strings.Contains(e.Message, "certificate") {
		t.Errorf("%+v", err)
	}
	if calls := b.Calls(); len(calls) > 0 {
		t.Error(calls)
	}
}

// A connection that ends amid an answer, or amid the log, is told of with its
// reason, and what had come by then has been seen.
func TestBrokenConnections(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"text":"whole"}` + "\n" + `{"text":"ha`))
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	var e *api.Error
	if _, err := c.Status(t.Context()); !errors.As(err, &e) || e.Code != client.CodeUnreachable || !strings.Contains(e.Message, "unexpected EOF") {
		t.Errorf("%+v", err)
	}
	e = nil
	var got []string
	if err := c.Follow(t.Context(), nil, func(ev api.Event) { got = append(got, ev.Text) }); !errors.As(err, &e) || e.Code != client.CodeUnreachable {
		t.Errorf("%+v", err)
	}
	if len(got) != 1 || got[0] != "whole" {
		t.Error(got)
	}
}

// Who gives up while he follows has not failed; who had given up before has no
// answer, but is not told that nobody answers.
func TestGivingUpBefore(t *testing.T) {
	c := serve(t, asRoot(&httpapitest.Backend{}))
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Follow(ctx, cancel, func(api.Event) {}); err != nil {
		t.Error(err)
	}
	var e *api.Error
	if _, err := c.Status(ctx); errors.As(err, &e) || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v", err)
	}
}

func ctxFor(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// A daemon that hangs is told of: a call and a stream do not wait for ever.
func TestDaemonThatHangs(t *testing.T) {
	release := make(chan struct{})
	headers := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.NewResponseController(w).Flush()
		<-release
	}))
	nothing := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(func() { close(release) }) // before the daemons are closed
	for name, c := range map[string]*client.Client{"no answer": nothing, "no end of the answer": headers} {
		c.SetPatience(20 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context()) // no deadline
		guard := time.AfterFunc(10*time.Second, cancel)
		for what, err := range map[string]error{
			"status": second(c.Status(ctx)),
			"plan":   second(c.Plan(ctx, "p1", 10*time.Millisecond)),
			"follow": c.Follow(ctx, nil, func(api.Event) {}),
		} {
			var e *api.Error
			if !errors.As(err, &e) || e.Code != "timed-out" || e.Hint == "" {
				t.Errorf("%s, %s: %+v", name, what, err)
			}
		}
		guard.Stop()
		cancel()
	}
}

func second[T any](_ T, err error) error { return err }

// The time that the caller takes for an event is not the daemon's silence.
func TestSlowFollower(t *testing.T) {
	b := &httpapitest.Backend{}
	c := serve(t, asRoot(b))
	c.SetPatience(300 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	longer := func() { <-time.After(400 * time.Millisecond) }
	got := 0
	err := c.Follow(ctx, func() {
		longer()
		b.Happen(api.Event{ID: "a", Text: "a"})
		b.Happen(api.Event{ID: "b", Text: "b"})
	}, func(api.Event) {
		longer()
		if got++; got == 2 {
			cancel()
		}
	})
	if err != nil || got != 2 {
		t.Error(got, err)
	}
}

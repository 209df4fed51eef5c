package request

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

const (
	failover = cluster.VerbGroupFailover
	script   = cluster.VerbExecScript
)

func TestScriptGoesToEveryHost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		answers, took := w.ask(t, script, "10.2.102.51", "10.2.102.52")
		want := "10.2.102.51 via 192.168.10.1:29002: ok\n10.2.102.52 via 192.168.10.2:29002: ok\n"
		if got := summary(answers); got != want {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
		if took > 3*latency {
			t.Fatalf("took %v, one round trip is %v", took, 2*latency)
		}
		at := w.guest.took()
		if len(at) != 2 || at[0].req.ID == at[1].req.ID || !strings.HasPrefix(string(at[0].req.ID), "r1@CLP-") || at[0].req.Script != "failover_message.sh" {
			t.Fatalf("the nodes got %+v", at)
		}
	})
}

func TestFailoverActsOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		answers, took := w.ask(t, failover, "10.2.102.51", "10.2.102.52")
		if got, want := summary(answers), "10.2.102.51 via 192.168.10.1:29002: ok\n"; got != want {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
		if at := w.guest.took(); len(at) != 1 || at[0].node != "CLP-1" || at[0].req.ID != "r1" || at[0].req.Resource != "exec" {
			t.Fatalf("the nodes got %+v", at)
		}
		if took > 3*latency {
			t.Fatalf("took %v", took)
		}
		// The same again is visible as the same.
		w.ask(t, failover, "CLP-2")
		if at := w.guest.took(); len(at) != 1 || at[0].node != "CLP-2" || at[0].req.ID != "r1" {
			t.Fatalf("the nodes got %+v", at)
		}
	})
}

// The best address has just died, and nobody knows yet.
func TestFirstAddressFallsSilent(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, verb := range []cluster.Verb{script, failover} {
			w.drop("192.168.10.1:29002", true)
			answers, took := w.ask(t, verb, "10.2.102.51", "10.2.102.52")
			if got := summary(answers); !strings.HasPrefix(got, "10.2.102.51 via 10.2.102.51:29002: ok\n") {
				t.Fatalf("%s: got\n%s", verb, got)
			}
			if took > 20*time.Millisecond {
				t.Fatalf("%s took %v", verb, took)
			}
			w.drop("192.168.10.1:29002", false)
			pass(10 * time.Second)
			w.guest.took()
		}
	})
}

// What is known to be dead is not tried first.
func TestKnownDeadAddress(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.drop("192.168.10.1:29002", true)
		pass(2500 * time.Millisecond)
		if got, want := w.states(), "VMcluster/CLP-1 true: false true\nVMcluster/CLP-2 true: true true\n"; got != want {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
		answers, took := w.ask(t, failover, "10.2.102.51", "10.2.102.52")
		if got, want := summary(answers), "10.2.102.51 via 10.2.102.51:29002: ok\n"; got != want || took > 3*latency {
			t.Fatalf("got after %v\n%swant\n%s", took, got, want)
		}
		w.drop("192.168.10.1:29002", false)
		pass(5 * time.Second)
		if got := w.states(); !strings.Contains(got, "CLP-1 true: true true") {
			t.Fatalf("not back:\n%s", got)
		}
	})
}

// A machine dies: its cluster is asked by the other one, at once or after the
// moment that it takes to see it.
func TestFirstHostDies(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, a := range nodeAddresses["CLP-1"] {
			w.drop(a, true)
		}
		for _, limit := range []time.Duration{80 * time.Millisecond, 3 * latency} {
			answers, took := w.ask(t, failover, "10.2.102.51", "10.2.102.52")
			if got, want := summary(answers), "10.2.102.52 via 192.168.10.2:29002: ok\n"; got != want || took > limit {
				t.Fatalf("got after %v\n%swant\n%s", took, got, want)
			}
			pass(3 * time.Second)
		}
		w.guest.took()
		// A script for it fails soon: what comes next must not wait.
		answers, took := w.ask(t, script, "10.2.102.51", "10.2.102.52")
		want := "10.2.102.51 via : unreachable\n10.2.102.52 via 192.168.10.2:29002: ok\n"
		if got := summary(answers); got != want || took > 550*time.Millisecond {
			t.Fatalf("got after %v\n%swant\n%s", took, got, want)
		}
	})
}

func TestHostRefusesConnections(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, a := range nodeAddresses["CLP-1"] {
			w.kill(a)
		}
		answers, took := w.ask(t, failover, "CLP-1", "CLP-2")
		if got, want := summary(answers), "CLP-2 via 192.168.10.2:29002: ok\n"; got != want || took > 10*latency {
			t.Fatalf("got after %v\n%swant\n%s", took, got, want)
		}
		answers, took = w.ask(t, script, "CLP-1")
		if got, want := summary(answers), "CLP-1 via : unreachable\n"; got != want || took > 10*latency {
			t.Fatalf("got after %v\n%swant\n%s", took, got, want)
		}
	})
}

// Nothing can be reached when the request is made, but a moment later.
func TestFailoverGetsThroughLater(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		everything := append(append([]string{}, nodeAddresses["CLP-1"]...), nodeAddresses["CLP-2"]...)
		for _, a := range everything {
			w.drop(a, true)
		}
		go func() {
			pass(4 * time.Second)
			for _, a := range everything {
				w.drop(a, false)
			}
		}()
		answers, took := w.ask(t, failover, "CLP-1", "CLP-2")
		if got := summary(answers); !strings.HasSuffix(got, ": ok\n") || took < 4*time.Second || took > 6*time.Second {
			t.Fatalf("got after %v\n%s", took, got)
		}
		if len(w.guest.took()) == 0 {
			t.Fatal("nothing arrived")
		}
		for _, a := range everything {
			w.drop(a, true)
		}
		pass(3 * time.Second)
		answers, took = w.ask(t, failover, "CLP-1", "CLP-2")
		if got, want := summary(answers), "CLP-1 via : unreachable\nCLP-2 via : unreachable\n"; got != want || took != 10*time.Second {
			t.Fatalf("got after %v\n%swant\n%s", took, got, want)
		}
	})
}

// A script that runs long is waited for, and asked for by one more address at
// the most; the answer of the first is as good.
func TestSlowAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		gone := make(chan struct{}, 4)
		w.guest.setAnswer(func(_ cluster.NodeName, r *http.Request, req api.Request) (int, any) {
			select {
			case <-r.Context().Done():
				gone <- struct{}{}
			case <-time.After(5 * time.Second):
			}
			return 200, api.Answer{ID: req.ID, ExitCode: 3}
		})
		answers, took := w.ask(t, script, "CLP-1")
		if got := summary(answers); got != "CLP-1 via 192.168.10.1:29002: ok\n" || answers[0].Answer.ExitCode != 3 {
			t.Fatalf("got\n%s", got)
		}
		if took < 5*time.Second || took > 5*time.Second+5*latency {
			t.Fatalf("took %v", took)
		}
		<-gone // the other one was canceled
		at := w.guest.took()
		if len(at) != 2 || at[0].req.ID != at[1].req.ID || at[1].at-at[0].at != 15*time.Millisecond {
			t.Fatalf("the node got %+v", at)
		}

		begun := time.Now()
		answers = w.sender.Send(t.Context(), api.SendRequest{Request: api.Request{Verb: script, Script: "x"}, Hosts: []string{"CLP-1"}, Wait: time.Second})
		if got := summary(answers); got != "CLP-1 via : no-answer\n" || time.Since(begun) != time.Second {
			t.Fatalf("got after %v\n%s", time.Since(begun), got)
		}
		if at := w.guest.took(); len(at[0].req.ID) < 20 {
			t.Fatalf("a request without an id got %q", at[0].req.ID)
		}
		pass(5 * time.Second)
	})
}

func TestRefusals(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, c := range []struct {
			status int
			body   any
			want   api.Error
		}{
			{409, map[string]any{"type": "about:blank", "title": "Conflict", "status": 409, "detail": "group failover is busy", "code": "busy", "hint": "wait"},
				api.Error{Code: "busy", Message: "group failover is busy", Hint: "wait"}},
			{404, api.Error{Code: "no-such-group", Message: "there is no group x", Hint: "h"}, api.Error{Code: "no-such-group", Message: "there is no group x", Hint: "h"}},
			{403, `{"title":"Forbidden"}`, api.Error{Code: "forbidden", Message: "Forbidden"}},
			{422, `{"code":"bad"}`, api.Error{Code: "bad", Message: "refused with status 422"}},
		} {
			w.guest.setAnswer(func(cluster.NodeName, *http.Request, api.Request) (int, any) { return c.status, c.body })
			answers, took := w.ask(t, failover, "CLP-1", "CLP-2")
			if len(answers) != 1 || answers[0].Error == nil || *answers[0].Error != c.want || answers[0].Via == "" {
				t.Errorf("status %d: got %v", c.status, summary(answers))
			}
			if at := w.guest.took(); len(at) != 1 || took > 3*latency {
				t.Errorf("status %d: the nodes got %+v, it took %v", c.status, at, took)
			}
		}
	})
}

// A node that cannot answer now sends the asker on; that nobody can is tried
// again.
func TestNodeCannotAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		noLeader := api.Error{Code: "no-leader", Message: "the cluster is electing"}
		w.guest.setAnswer(func(n cluster.NodeName, _ *http.Request, r api.Request) (int, any) {
			if n == "CLP-1" {
				return 503, noLeader
			}
			return 200, api.Answer{ID: r.ID}
		})
		answers, took := w.ask(t, failover, "CLP-1", "CLP-2")
		if got, want := summary(answers), "CLP-2 via 192.168.10.2:29002: ok\n"; got != want || took > 5*latency {
			t.Fatalf("got after %v\n%swant\n%s", took, got, want)
		}
		if at := w.guest.took(); len(at) != 2 {
			t.Fatalf("the nodes got %+v", at)
		}
		until := time.Now().Add(time.Second)
		w.guest.setAnswer(func(_ cluster.NodeName, _ *http.Request, r api.Request) (int, any) {
			if time.Now().Before(until) {
				return 503, noLeader
			}
			return 200, api.Answer{ID: r.ID}
		})
		answers, took = w.ask(t, failover, "CLP-1", "CLP-2")
		if got, want := summary(answers), "CLP-1 via 192.168.10.1:29002: ok\n"; got != want || took > 1300*time.Millisecond {
			t.Fatalf("got after %v\n%swant\n%s", took, got, want)
		}
		w.guest.setAnswer(func(cluster.NodeName, *http.Request, api.Request) (int, any) { return 503, noLeader })
		answers, _ = w.ask(t, script, "CLP-1")
		if *answers[0].Error != noLeader {
			t.Fatalf("got %+v", answers[0].Error)
		}
		// Not one of ours: nobody's word.
		w.guest.setAnswer(func(n cluster.NodeName, _ *http.Request, r api.Request) (int, any) { return 200, "<html>" })
		if answers, _ = w.ask(t, script, "CLP-1"); answers[0].Error.Code != "bad-answer" {
			t.Fatalf("got %+v", answers[0].Error)
		}
	})
}

func TestHosts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		other := w.guest.link()
		other.Name = "twin"
		other.Nodes = other.Nodes[1:] // CLP-2 is a node of both
		w.links.set(append(w.links.get(), other))
		for _, c := range []struct {
			verb  cluster.Verb
			hosts []string
			want  string
		}{
			{script, []string{"10.9.9.9", "CLP-1"}, "10.9.9.9 via : unknown-host\nCLP-1 via 192.168.10.1:29002: ok\n"},
			{failover, []string{"CLP-3"}, "CLP-3 via : unknown-host\n"},
			{failover, []string{"CLP-2"}, "CLP-2 via : ambiguous-host\n"},
			{failover, []string{"VMcluster/CLP-2"}, "VMcluster/CLP-2 via 192.168.10.2:29002: ok\n"},
			{failover, []string{"CLP-1", "twin/CLP-2"}, "CLP-1 via 192.168.10.1:29002: ok\ntwin/CLP-2 via 192.168.10.2:29002: ok\n"},
			{script, []string{"10.2.102.51:29002", "CLP-1", "CLP-1", "::ffff:192.168.10.1"},
				"10.2.102.51:29002 via 192.168.10.1:29002: ok\nCLP-1 via 192.168.10.1:29002: ok\n::ffff:192.168.10.1 via 192.168.10.1:29002: ok\n"},
			{failover, nil, " via : no-host\n"},
			{"DROP_TABLE", []string{"CLP-1"}, " via : unknown-verb\n"},
			{failover, make([]string, maxHosts+1), " via : too-many-hosts\n"},
		} {
			answers, _ := w.ask(t, c.verb, c.hosts...)
			if got := summary(answers); got != c.want {
				t.Errorf("%s %v: got\n%swant\n%s", c.verb, c.hosts, got, c.want)
			}
		}
		if at := w.guest.took(); len(at) != 5 {
			t.Errorf("the nodes got %+v", at)
		}
		answers, _ := w.ask(t, failover, "CLP-3")
		if h := answers[0].Error.Hint; !strings.Contains(h, "CLP-1 (192.168.10.1, 10.2.102.51)") {
			t.Errorf("hint %q", h)
		}
		other.Nodes = []Node{{Name: "bare"}}
		w.links.set([]Link{other})
		if answers, took := w.ask(t, failover, "bare"); answers[0].Error.Code != "no-address" || took > 0 {
			t.Errorf("got after %v %+v", took, answers[0].Error)
		}
		w.links.set(nil)
		if answers, _ = w.ask(t, failover, "CLP-1"); !strings.Contains(answers[0].Error.Hint, "no cluster is linked") {
			t.Errorf("hint %q", answers[0].Error.Hint)
		}
	})
}

func TestWrongKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		// They no longer know us: found out at the next connection.
		trust := w.guest.trust.get()
		w.guest.trust.set(nil)
		for _, a := range nodeAddresses["CLP-1"] {
			w.kill(a)
			w.serve("CLP-1", a)
		}
		pass(time.Second)
		answers, took := w.ask(t, failover, "CLP-1")
		if got := summary(answers); got != "CLP-1 via : not-trusted\n" || took > time.Second {
			t.Fatalf("got after %v\n%s%v", took, got, answers[0].Error)
		}
		// Linked again.
		w.guest.trust.set(trust)
		if answers, _ = w.ask(t, failover, "CLP-1"); answers[0].Error != nil {
			t.Fatal(answers[0].Error)
		}
		// Somebody else answers there.
		impostor := newGuest(t, w.host)
		w.guest.took()
		w.guest.ids["CLP-1"] = impostor.ids["CLP-1"]
		for _, a := range nodeAddresses["CLP-1"] {
			w.kill(a)
			w.serve("CLP-1", a)
		}
		answers, _ = w.ask(t, script, "CLP-1")
		if got := summary(answers); got != "CLP-1 via : not-trusted\n" {
			t.Fatalf("got\n%s", got)
		}
		// The node answers where another should be.
		w.guest.ids["CLP-1"] = w.guest.ids["CLP-2"]
		for _, a := range nodeAddresses["CLP-1"] {
			w.kill(a)
			w.serve("CLP-1", a)
		}
		answers, _ = w.ask(t, script, "CLP-1")
		if got := summary(answers); got != "CLP-1 via : not-trusted\n" || !strings.Contains(answers[0].Error.Message, "node CLP-2 answers where CLP-1") {
			t.Fatalf("got\n%s%v", got, answers[0].Error)
		}
		if at := w.guest.took(); len(at) != 0 {
			t.Fatalf("they got %+v", at)
		}
		// A CA that cannot be read.
		bad := w.guest.link()
		bad.CA = "nonsense"
		w.links.set([]Link{bad})
		if answers, _ = w.ask(t, failover, "CLP-1"); answers[0].Error.Code != "bad-link" {
			t.Fatalf("got %+v", answers[0].Error)
		}
	})
}

func TestLinksChange(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		links := w.links.get()
		w.links.set(nil)
		w.sender.Refresh()
		pass(time.Second)
		w.sender.mu.Lock()
		n := len(w.sender.paths)
		w.sender.mu.Unlock()
		if n != 0 {
			t.Fatalf("%d connections are kept for nothing", n)
		}
		w.links.set(links) // and nobody says so
		answers, took := w.ask(t, failover, "CLP-1")
		if got := summary(answers); got != "CLP-1 via 192.168.10.1:29002: ok\n" || took > 20*latency {
			t.Fatalf("got after %v\n%s", took, got)
		}
		dials := w.dialed("192.168.10.1:29002")
		pass(time.Minute)
		if d := w.dialed("192.168.10.1:29002"); d != dials {
			t.Fatalf("an idle connection was made %d times", d-dials)
		}
		// The other end restarts politely.
		for _, a := range nodeAddresses["CLP-1"] {
			w.servers[a].Shutdown(t.Context())
			w.serve("CLP-1", a)
		}
		pass(10 * time.Second)
		if got := w.states(); !strings.Contains(got, "CLP-1 true: true true") {
			t.Fatalf("not back:\n%s", got)
		}
	})
}

func TestSendWithoutRun(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := New(w.sender.o)
		answers := s.Send(t.Context(), api.SendRequest{Request: api.Request{Verb: failover}, Hosts: []string{"CLP-1"}})
		if got := summary(answers); got != "CLP-1 via : not-ready\n" {
			t.Fatalf("got\n%s", got)
		}
		if err := w.sender.Run(t.Context()); err == nil {
			t.Fatal("Run ran twice")
		}
	})
}

// Many at once: all are answered, no more than the limit at a time.
func TestManyAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.guest.setAnswer(func(_ cluster.NodeName, _ *http.Request, r api.Request) (int, any) {
			pass(10 * time.Millisecond)
			return 200, api.Answer{ID: r.ID}
		})
		const n = 100
		done := make(chan string, n)
		begun := time.Now()
		for range n {
			go func() {
				answers, _ := w.ask(t, failover, "CLP-1")
				done <- summary(answers)
			}()
		}
		for range n {
			if got := <-done; got != "CLP-1 via 192.168.10.1:29002: ok\n" {
				t.Fatal(got)
			}
		}
		if took, want := time.Since(begun), 7*10*time.Millisecond; took < want {
			t.Fatalf("took %v: more than %d at a time", took, w.sender.o.MaxSends)
		}
	})
}

package request

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// asHost makes the linked cluster one of a single node with two addresses, which
// answers with that power.
func (w *world) asHost(power func(api.Request) cluster.Power) *Host {
	l := w.guest.link()
	l.Nodes = l.Nodes[:1]
	w.links.set([]Link{l})
	w.guest.setAnswer(func(_ cluster.NodeName, _ *http.Request, r api.Request) (int, any) {
		return http.StatusOK, api.Answer{ID: r.ID, Text: "done", Power: power(r)}
	})
	return w.sender.Host(l.Name)
}

func bounded(t *testing.T, d time.Duration, f func(context.Context) error) (time.Duration, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	begun := time.Now()
	err := f(ctx)
	return time.Since(begun), err
}

func TestHostSwitches(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		now := cluster.On
		h := w.asHost(func(r api.Request) cluster.Power {
			if r.Action == cluster.PowerOff {
				now = cluster.Off
			}
			return now
		})
		if p, err := h.Status(t.Context(), "vm1"); err != nil || p != cluster.On {
			t.Errorf("before: %q, %v", p, err)
		}
		if err := h.Off(t.Context(), "vm1", "CLP-9/7", []api.Event{{ID: "CLP-9/7"}}); err != nil {
			t.Error(err)
		}
		if p, err := h.Status(t.Context(), "vm1"); err != nil || p != cluster.Off {
			t.Errorf("after: %q, %v", p, err)
		}
		if err := h.Check(t.Context()); err != nil {
			t.Error(err)
		}
		at := w.guest.took()
		if len(at) != 4 {
			t.Fatalf("the host got %+v", at)
		}
		ids := map[cluster.RequestID]bool{}
		for i, want := range []api.Request{{Guest: "vm1", Action: cluster.PowerStatus}, {Guest: "vm1", Action: cluster.PowerOff, Cause: "CLP-9/7"}, {Guest: "vm1", Action: cluster.PowerStatus}, {Action: cluster.PowerStatus}} {
			r := at[i].req
			if r.Verb != cluster.VerbFence || r.Guest != want.Guest || r.Action != want.Action || r.Cause != want.Cause || ids[r.ID] || r.ID == "" {
				t.Errorf("request %d is %+v, want %+v with an id of its own", i, r, want)
			}
			ids[r.ID] = true
		}
		if len(at[1].req.Chain) != 1 {
			t.Errorf("the host got no story: %+v", at[1].req)
		}
	})
}

// An answer that does not say "off" is none: also one of a version that does not
// know the verb.
func TestHostThatDoesNotConfirm(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, p := range []cluster.Power{"", cluster.On, "unknown"} {
			h := w.asHost(func(api.Request) cluster.Power { return p })
			if err := h.Off(t.Context(), "vm1", "", nil); err == nil {
				t.Errorf("power %q was taken for off", p)
			}
			if got, err := h.Status(t.Context(), "vm1"); p != cluster.On && err == nil {
				t.Errorf("power %q was taken for %q", p, got)
			}
		}
		h := w.asHost(func(api.Request) cluster.Power { return cluster.Off })
		w.guest.setAnswer(func(cluster.NodeName, *http.Request, api.Request) (int, any) {
			return http.StatusForbidden, map[string]string{"code": "guest-not-allowed", "detail": "VMcluster may not"}
		})
		w.guest.took()
		took, err := bounded(t, 5*time.Second, func(ctx context.Context) error { return h.Off(ctx, "vm1", "", nil) })
		if err == nil || !strings.Contains(err.Error(), "may not") || took > time.Second {
			t.Errorf("a refusal: %v after %v", err, took)
		}
		if n := len(w.guest.took()); n != 1 {
			t.Errorf("a refusal was asked for %d times", n)
		}
		if err := w.sender.Host("nobody").Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no such link") {
			t.Errorf("no such link: %v", err)
		}
	})
}

// The first address is dead: the second is asked. Both are dead: a failure when
// the time is over, and a success as soon as one is back before.
func TestHostAddresses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		h := w.asHost(func(api.Request) cluster.Power { return cluster.Off })
		off := func(ctx context.Context) error { return h.Off(ctx, "vm1", "", nil) }
		w.drop("192.168.10.1:29002", true)
		if took, err := bounded(t, 5*time.Second, off); err != nil || took > 100*time.Millisecond {
			t.Errorf("by the second address: %v after %v", err, took)
		}
		w.drop("10.2.102.51:29002", true)
		if took, err := bounded(t, 5*time.Second, off); err == nil || took > 5*time.Second+100*time.Millisecond {
			t.Errorf("by no address: %v after %v", err, took)
		}
		go func() {
			pass(4 * time.Second)
			w.drop("10.2.102.51:29002", false)
		}()
		if took, err := bounded(t, 30*time.Second, off); err != nil || took < 4*time.Second {
			t.Errorf("the second address comes back: %v after %v", err, took)
		}
	})
}

package app

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
)

func newAnswered() *answered { return &answered{byID: map[cluster.RequestID]*answer{}} }

func TestARequestActsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAnswered()
		var acted atomic.Int32
		release := make(chan struct{})
		f := func() (api.Answer, *api.Error) {
			acted.Add(1)
			<-release
			return api.Answer{Text: "done"}, nil
		}
		for range 5 {
			go func() {
				if got, err := a.once(t.Context(), "id", f); err != nil || got.Text != "done" {
					t.Error(got, err)
				}
			}()
		}
		synctest.Wait() // all have asked, one acts
		impatient, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.once(impatient, "id", f); err == nil || err.Code != "timed-out" {
			t.Error(err)
		}
		close(release)
		synctest.Wait()
		if got, err := a.once(t.Context(), "id", f); err != nil || got.Text != "done" || acted.Load() != 1 {
			t.Error(got, err, acted.Load())
		}
	})
}

func TestARefusalIsNotKept(t *testing.T) {
	a := newAnswered()
	no := func() (api.Answer, *api.Error) { return api.Answer{}, &api.Error{Code: "standby-down"} }
	if _, err := a.once(t.Context(), "id", no); err == nil {
		t.Fatal("not refused")
	}
	yes := func() (api.Answer, *api.Error) { return api.Answer{Text: "done"}, nil }
	if got, err := a.once(t.Context(), "id", yes); err != nil || got.Text != "done" {
		t.Error(got, err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	a := newAnswered()
	for i := range 3 * keepAnswers {
		a.once(t.Context(), cluster.RequestID(fmt.Sprint(i)), func() (api.Answer, *api.Error) { return api.Answer{}, nil })
	}
	if len(a.byID) != keepAnswers || len(a.order) != keepAnswers {
		t.Error(len(a.byID), len(a.order))
	}
}

func TestNoClusterTakesAnothersAnswer(t *testing.T) {
	r := api.Request{ID: "7"}
	if ownID(httpapi.Caller{Link: "a"}, r) == ownID(httpapi.Caller{Link: "b"}, r) {
		t.Error("two clusters share an id")
	}
}

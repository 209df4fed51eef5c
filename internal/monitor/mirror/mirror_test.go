package mirror

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/monitor"
)

func monitorOf(r cluster.ResourceName) config.Monitor {
	return config.Monitor{Name: "mdw", Interval: 10 * time.Second, Mirror: &config.MirrorWatch{Resource: r}}
}

// look returns the first probe of a copy.
func look(t *testing.T, make func(Copies) *Driver, c api.MirrorCopy, known bool) (p monitor.Probe) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	err := make(func(cluster.ResourceName) (api.MirrorCopy, bool) { return c, known }).Watch(ctx, monitor.Env{}, monitorOf("md"), func(got monitor.Probe) {
		p = got
		cancel()
	})
	if err != nil {
		t.Fatal(err)
	}
	if !p.Good == (p.Code == 0) {
		t.Errorf("%+v: a code means bad, and bad has a code", p)
	}
	return p
}

func TestVerdicts(t *testing.T) { synctest.Test(t, verdicts) }

func verdicts(t *testing.T) {
	for _, c := range []struct {
		copy          api.MirrorCopy
		mirror        int
		connect       int
		mirrorMatches string
	}{
		{copy: api.MirrorCopy{State: api.MirrorInSync, Connected: true}},
		{copy: api.MirrorCopy{State: api.MirrorInSync, Text: "cut"}, connect: CodeApart},
		{copy: api.MirrorCopy{State: api.MirrorInSync, Connected: true, DiskError: true}, mirrorMatches: "had an error"},
		{copy: api.MirrorCopy{State: api.MirrorCopying, Connected: true, Percent: 41.7}, mirrorMatches: "brought up to date (42 %)"},
		{copy: api.MirrorCopy{State: api.MirrorOutdated}, mirror: CodeOutdated, connect: CodeApart},
		{copy: api.MirrorCopy{State: api.MirrorSplit}, mirror: CodeSplit, connect: CodeApart},
		{copy: api.MirrorCopy{State: api.MirrorFailed, Text: "a write failed"}, mirror: CodeFailed, connect: CodeApart, mirrorMatches: "has failed: a write failed."},
		{copy: api.MirrorCopy{State: api.MirrorUnknown}, mirror: CodeUnknown, connect: CodeUnknown},
		{copy: api.MirrorCopy{State: api.MirrorUnknown, Connected: true}, mirror: CodeUnknown},
	} {
		if p := look(t, New, c.copy, true); p.Code != c.mirror || !strings.Contains(p.Text, c.mirrorMatches) {
			t.Errorf("mirror of %+v: %+v", c.copy, p)
		}
		if p := look(t, NewConnect, c.copy, true); p.Code != c.connect {
			t.Errorf("mirror-connect of %+v: %+v", c.copy, p)
		}
	}
}

func TestNothingIsKnown(t *testing.T) { synctest.Test(t, nothingIsKnown) }

func nothingIsKnown(t *testing.T) {
	for _, kind := range []func(Copies) *Driver{New, NewConnect} {
		if p := look(t, kind, api.MirrorCopy{State: api.MirrorInSync, Connected: true}, false); p.Code != CodeUnknown {
			t.Errorf("%+v", p)
		}
	}
	if err := New(nil).Watch(t.Context(), monitor.Env{}, config.Monitor{Name: "mdw"}, nil); err == nil {
		t.Error("a monitor without a mirror disk watches")
	}
}

func TestEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		probes := 0
		d := New(func(cluster.ResourceName) (api.MirrorCopy, bool) {
			return api.MirrorCopy{State: api.MirrorInSync}, true
		})
		if err := d.Watch(ctx, monitor.Env{}, monitorOf("md"), func(monitor.Probe) { probes++ }); err != nil || probes != 3 {
			t.Errorf("%d probes in 25 s, want 3 (%v)", probes, err)
		}
	})
}

// A copy that is known soon after the start was never unknown.
func TestAStartIsBorne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		d := New(func(cluster.ResourceName) (api.MirrorCopy, bool) {
			return api.MirrorCopy{State: api.MirrorInSync}, time.Since(began) > settle/2
		})
		if err := d.Watch(ctx, monitor.Env{}, monitorOf("md"), func(p monitor.Probe) {
			if !p.Good {
				t.Errorf("%+v", p)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if p := look(t, New, api.MirrorCopy{}, false); p.Good || time.Since(began) < settle {
			t.Errorf("%+v after %s", p, time.Since(began))
		}
	})
}

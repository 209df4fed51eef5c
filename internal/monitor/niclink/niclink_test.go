package niclink

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/monitor"
)

// fakeLinks is a kernel whose links change by call.
type fakeLinks struct {
	changed func(name string, carrier, exists bool)
	fail    chan error
}

func (f *fakeLinks) WatchLinks(ctx context.Context, changed func(string, bool, bool)) error {
	f.changed = changed
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-f.fail:
		return err
	}
}

// watch runs the monitor against the story in a bubble with its own clock, and
// returns what was reported and Watch's error.
func watch(t *testing.T, m config.Monitor, story func(f *fakeLinks)) (probes []monitor.Probe, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := &fakeLinks{fail: make(chan error, 1)}
		done := make(chan struct{})
		go func() {
			defer close(done)
			err = New(f).Watch(ctx, monitor.Env{Node: "bay7-esx"}, m, func(p monitor.Probe) { probes = append(probes, p) })
		}()
		synctest.Wait()
		story(f)
		synctest.Wait()
		cancel()
		<-done
	})
	return probes, err
}

func texts(probes []monitor.Probe) []string {
	var out []string
	for _, p := range probes {
		if p.Good {
			out = append(out, "good")
		} else {
			out = append(out, p.Text)
		}
	}
	return out
}

var vmnic1 = config.Monitor{Name: "miiw-vmnic1", Kind: config.KindNICLink, NICLink: &config.NICLink{Device: "vmnic1"}}

func TestCableOutAndIn(t *testing.T) {
	probes, err := watch(t, vmnic1, func(f *fakeLinks) {
		f.changed("lo", true, true)
		f.changed("vmnic1", true, true)
		f.changed("vmnic1", true, true) // the kernel often says the same twice
		f.changed("vmnic0", false, true)
		f.changed("vmnic1", false, true)
		f.changed("vmnic1", true, true)
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"good", "NIC vmnic1 link was down.", "good"}, texts(probes)); d != "" {
		t.Fatal(d)
	}
	down := probes[1]
	if down.Code != 20 || down.Monitor != "miiw-vmnic1" || down.At.IsZero() {
		t.Errorf("%+v", down)
	}
}

func TestMissingFromTheStart(t *testing.T) {
	probes, _ := watch(t, vmnic1, func(f *fakeLinks) {
		f.changed("lo", true, true)
		<-time.After(time.Minute) // of the bubble's clock
		f.changed("vmnic1", true, true)
		f.changed("vmnic1", true, false)
	})
	if d := cmp.Diff([]string{"NIC vmnic1 does not exist.", "good", "NIC vmnic1 does not exist."}, texts(probes)); d != "" {
		t.Fatal(d)
	}
	if probes[0].Code != CodeMissing {
		t.Errorf("%+v", probes[0])
	}
}

func TestRepeatsBadStateForRetries(t *testing.T) {
	m := vmnic1
	m.Retries, m.Interval = 2, 3*time.Second
	probes, _ := watch(t, m, func(f *fakeLinks) {
		f.changed("vmnic1", false, true)
		<-time.After(7 * time.Second)
		f.changed("vmnic1", true, true)
		<-time.After(time.Minute)
	})
	down := "NIC vmnic1 link was down."
	if d := cmp.Diff([]string{down, down, down, "good"}, texts(probes)); d != "" {
		t.Fatal(d)
	}
}

func TestDevicePerNode(t *testing.T) {
	m := vmnic1
	m.NICLink = &config.NICLink{Device: "eth0", PerNode: map[cluster.NodeName]string{"bay7-esx": "vmnic7"}}
	probes, _ := watch(t, m, func(f *fakeLinks) {
		f.changed("eth0", true, true)
		f.changed("vmnic7", false, true)
	})
	if d := cmp.Diff([]string{"NIC vmnic7 link was down."}, texts(probes)); d != "" {
		t.Fatal(d)
	}
}

func TestCannotWatch(t *testing.T) {
	_, err := watch(t, vmnic1, func(f *fakeLinks) { f.fail <- errors.New("no netlink here") })
	if err == nil || !strings.Contains(err.Error(), "vmnic1") || !strings.Contains(err.Error(), "no netlink here") {
		t.Error(err)
	}
	if _, err := watch(t, config.Monitor{Name: "m"}, func(*fakeLinks) {}); err == nil {
		t.Error("a monitor without a device watches something")
	}
}

package niclink

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/host"
	"github.com/tasuki-ha/tasuki/internal/host/hosttest"
	"github.com/tasuki-ha/tasuki/internal/monitor"
)

func TestThroughTheHost(t *testing.T) {
	var probes []monitor.Probe
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := hosttest.New("vmnic1")
		done := make(chan error)
		go func() {
			done <- New(Host{n}).Watch(ctx, monitor.Env{}, vmnic1, func(p monitor.Probe) { probes = append(probes, p) })
		}()
		synctest.Wait()
		n.SetCarrier("vmnic1", false)
		synctest.Wait()
		n.RemoveLink("vmnic1")
		synctest.Wait()
		n.AddLink("vmnic1")
		<-time.After(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	want := []string{"good", "NIC vmnic1 link was down.", "NIC vmnic1 does not exist.", "good"}
	if d := cmp.Diff(want, texts(probes)); d != "" {
		t.Error(d)
	}
}

// renaming is a network on which one interface changes its name.
type renaming struct{ host.Network }

func (renaming) WatchLinks(_ context.Context, report func(host.LinkEvent)) error {
	report(host.LinkEvent{Link: host.Link{Index: 2, Name: "eth0", Carrier: true}})
	report(host.LinkEvent{Link: host.Link{Index: 2, Name: "vmnic1", Carrier: true}})
	report(host.LinkEvent{Link: host.Link{Index: 2, Name: "vmnic1"}, Gone: true})
	return nil
}

func TestRenamedInterface(t *testing.T) {
	type told struct {
		Name            string
		Carrier, Exists bool
	}
	var got []told
	err := Host{renaming{}}.WatchLinks(t.Context(), func(name string, carrier, exists bool) {
		got = append(got, told{name, carrier, exists})
	})
	want := []told{{"eth0", true, true}, {"eth0", false, false}, {"vmnic1", true, true}, {"vmnic1", false, false}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

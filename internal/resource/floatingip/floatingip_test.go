package floatingip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/host"
	"github.com/tasuki-ha/tasuki/internal/host/hosttest"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

var (
	fip    = netip.MustParseAddr("10.2.102.50")
	prefix = netip.MustParsePrefix("10.2.102.50/24")
)

func task(change ...func(*config.FloatingIP)) resource.Task {
	f := &config.FloatingIP{
		Address: fip, DuplicateCheck: 100 * time.Millisecond, AnnounceCount: 5, AnnounceEvery: 10 * time.Second,
	}
	for _, c := range change {
		c(f)
	}
	return resource.Task{
		Group: config.Group{Name: "failover"}, Epoch: 3,
		Resource: config.Resource{Name: "fip", FloatingIP: f},
	}
}

// node is a driver that runs over a network in memory, in a bubble of time.
type node struct {
	*Driver
	net      *hosttest.Network
	failures []resource.Failure
	stop     func() error // ends Run
}

func inBubble(t *testing.T, f func(t *testing.T, n *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &node{net: hosttest.New("eth0", "10.2.102.51/24", "fd07::1/64")}
		n.net.AddLink("eth1")
		n.net.Put("eth1", netip.MustParsePrefix("192.168.10.1/24"))
		n.Driver = New(Options{Network: n.net, Failed: func(f resource.Failure) { n.failures = append(n.failures, f) }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		n.stop = func() error { cancel(); return <-done }
		synctest.Wait()
		f(t, n)
		if err := n.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// pass lets time go by in the bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (n *node) start(t *testing.T, tk resource.Task) {
	t.Helper()
	if err := n.Start(t.Context(), tk); err != nil {
		t.Fatal(err)
	}
}

func (n *node) has(t *testing.T, a netip.Addr) (host.Address, bool) {
	t.Helper()
	at, ok, err := n.net.HasAddress(a)
	if err != nil {
		t.Fatal(err)
	}
	return at, ok
}

func TestStartTakesTheTimeOfTheDuplicateCheckOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		begin := time.Now()
		n.start(t, task())
		if took := time.Since(begin); took != 100*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if at, ok := n.has(t, fip); !ok || at != (host.Address{Device: "eth0", Prefix: prefix}) {
			t.Errorf("it is at %v %v", at, ok)
		}
		if a := n.net.Announcements(); len(a) != 1 {
			t.Errorf("%d announcements when Start returns, want 1", len(a))
		}
		if active, err := n.Check(t.Context(), task()); !active || err != nil {
			t.Errorf("check: %v %v", active, err)
		}
	})
}

func TestAnnouncements(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.start(t, task())
		begin := time.Now()
		pass(25 * time.Second)
		var got []time.Duration
		for _, a := range n.net.Announcements() {
			got = append(got, a.At.Sub(begin))
		}
		want := []time.Duration{0, 20, 60, 140, 300, 10_300, 20_300}
		if len(got) != len(want) {
			t.Fatalf("announced after %v, want %v ms", got, want)
		}
		for i := range want {
			if got[i] != want[i]*time.Millisecond {
				t.Fatalf("announced after %v, want %v ms", got, want)
			}
		}
		if err := n.Stop(t.Context(), task()); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if after := len(n.net.Announcements()); after != len(want) {
			t.Errorf("%d announcements after Stop", after-len(want))
		}
	})
}

func TestConflictNamesTheOther(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.net.Conflict(fip, net.HardwareAddr{2, 0, 0, 0, 9, 9})
		err := n.Start(t.Context(), task())
		var e *api.Error
		if !errors.As(err, &e) || e.Code != "address-in-use" || !strings.Contains(e.Message, "02:00:00:00:09:09") || e.Hint == "" {
			t.Errorf("got %v", err)
		}
		if _, ok := n.has(t, fip); ok {
			t.Error("it was taken all the same")
		}
		// Without the check nobody is asked.
		n.start(t, task(func(f *config.FloatingIP) { f.DuplicateCheck = 0 }))
	})
}

func TestWhatIsHereAlreadyIsAnnouncedOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.net.Put("eth1", prefix)
		n.net.Conflict(fip, net.HardwareAddr{2, 0, 0, 0, 9, 9})
		for range 2 {
			n.start(t, task())
		}
		if at, _ := n.has(t, fip); at.Device != "eth1" {
			t.Errorf("it moved to %s", at.Device)
		}
		if len(n.net.Probes()) != 0 || len(n.net.Announcements()) < 2 {
			t.Errorf("%d probes, %d announcements", len(n.net.Probes()), len(n.net.Announcements()))
		}
	})
}

func TestWhereItGoes(t *testing.T) {
	set := func(device string, bits int, a string) func(*config.FloatingIP) {
		return func(f *config.FloatingIP) { f.Device, f.Prefix, f.Address = device, bits, netip.MustParseAddr(a) }
	}
	for name, tc := range map[string]struct {
		change func(*config.FloatingIP)
		want   string // DEVICE PREFIX or the code of the error
	}{
		"by its subnet":                 {set("", 0, "192.168.10.9"), "eth1 192.168.10.9/24"},
		"IPv6":                          {set("", 0, "fd07::50"), "eth0 fd07::50/64"},
		"named device":                  {set("eth0", 0, "10.2.102.9"), "eth0 10.2.102.9/24"},
		"own prefix":                    {set("", 32, "10.2.102.9"), "eth0 10.2.102.9/32"},
		"a subnet of its own":           {set("eth1", 28, "172.16.0.9"), "eth1 172.16.0.9/28"},
		"no subnet":                     {set("", 0, "172.16.0.9"), "no-subnet"},
		"no subnet, though a prefix":    {set("", 24, "172.16.0.9"), "no-subnet"},
		"subnet of another device":      {set("eth1", 0, "10.2.102.9"), "no-subnet"},
		"no such device":                {set("eth7", 24, "10.2.102.9"), "no-device"},
		"link-local without a device":   {set("", 0, "fe80::50"), "no-subnet"},
		"link-local with its interface": {set("eth1", 64, "fe80::50"), "eth1 fe80::50/64"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *node) {
				tk := task(tc.change)
				err := n.Start(t.Context(), tk)
				var e *api.Error
				if errors.As(err, &e) {
					if e.Code != tc.want || e.Hint == "" {
						t.Errorf("%v (%s), want %s", err, e.Code, tc.want)
					}
					return
				}
				at, _ := n.has(t, tk.Resource.FloatingIP.Address)
				if got := at.Device + " " + at.Prefix.String(); err != nil || got != tc.want {
					t.Errorf("%s %v, want %s", got, err, tc.want)
				}
			})
		})
	}
}

func TestTakenAwayIsAFailure(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.start(t, task())
		n.net.Take(fip)
		synctest.Wait()
		want := resource.Failure{
			Group: "failover", Resource: "fip", Epoch: 3, At: time.Now(),
			Text: "the address 10.2.102.50 was taken from eth0",
		}
		if len(n.failures) != 1 || n.failures[0] != want {
			t.Fatalf("%+v, want %+v", n.failures, want)
		}
		before := len(n.net.Announcements())
		pass(time.Minute)
		if len(n.failures) != 1 || len(n.net.Announcements()) != before {
			t.Errorf("%d failures, %d announcements of what is gone", len(n.failures), len(n.net.Announcements())-before)
		}
		n.start(t, task())
		n.net.RemoveLink("eth0")
		synctest.Wait()
		if len(n.failures) != 2 {
			t.Errorf("the interface went with the address: %d failures, want 2", len(n.failures))
		}
	})
}

// What we take away ourselves is no failure.
func TestStopAndIsolateAreNoFailures(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		for range 3 {
			n.start(t, task())
			if err := n.Isolate(t.Context(), task()); err != nil {
				t.Fatal(err)
			}
			if _, ok := n.has(t, fip); ok {
				t.Error("isolated, but still here")
			}
			before := len(n.net.Announcements())
			pass(time.Minute)
			if len(n.net.Announcements()) != before {
				t.Error("announced while isolated")
			}
			begin := time.Now()
			if err := n.Restore(t.Context(), task()); err != nil {
				t.Fatal(err)
			}
			if _, ok := n.has(t, fip); !ok || time.Since(begin) != 0 || len(n.net.Announcements()) != before+1 {
				t.Errorf("restored: %v after %v", ok, time.Since(begin))
			}
			for range 2 {
				if err := n.Stop(t.Context(), task()); err != nil {
					t.Fatal(err)
				}
			}
			if _, ok := n.has(t, fip); ok {
				t.Error("stopped, but still here")
			}
			synctest.Wait()
		}
		if len(n.failures) != 0 {
			t.Errorf("%+v", n.failures)
		}
	})
}

// A daemon that was restarted finds the address and goes on with it.
func TestCheckTakesOver(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		if active, err := n.Check(t.Context(), task()); active || err != nil {
			t.Errorf("nothing there: %v %v", active, err)
		}
		n.net.Put("eth0", prefix)
		if active, err := n.Check(t.Context(), task()); !active || err != nil {
			t.Fatalf("%v %v", active, err)
		}
		pass(time.Second)
		if len(n.net.Announcements()) != 5 {
			t.Errorf("%d announcements, want a burst of 5", len(n.net.Announcements()))
		}
		n.net.Take(fip)
		synctest.Wait()
		if len(n.failures) != 1 {
			t.Errorf("%d failures after it was taken away", len(n.failures))
		}
	})
}

func TestReturnOfTheCarrierAnnouncesAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.start(t, task(func(f *config.FloatingIP) { f.AnnounceEvery = 0 }))
		pass(5 * time.Second)
		n.net.SetCarrier("eth1", false)
		n.net.SetCarrier("eth0", false)
		synctest.Wait()
		n.net.SetCarrier("eth0", true)
		n.net.SetCarrier("eth1", true)
		pass(5 * time.Second)
		if got := len(n.net.Announcements()); got != 10 {
			t.Errorf("%d announcements, want two bursts of 5", got)
		}
	})
}

func TestInterfaceSwitchedOff(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.net.SetUp("eth0", false)
		var e *api.Error
		if err := n.Start(t.Context(), task()); !errors.As(err, &e) || e.Code != "device-down" {
			t.Errorf("got %v", err)
		}
	})
}

func TestErrorsOfTheKernel(t *testing.T) {
	broken := errors.New("broken")
	for _, op := range []hosttest.Op{hosttest.OpAdd, hosttest.OpList, hosttest.OpProbe} {
		inBubble(t, func(t *testing.T, n *node) {
			n.net.Fail(op, broken)
			if err := n.Start(t.Context(), task()); !errors.Is(err, broken) {
				t.Errorf("%s: start: %v", op, err)
			}
			n.net.Fail(op, nil)
			if _, ok := n.has(t, fip); ok {
				t.Errorf("%s: half started", op)
			}
		})
	}
	inBubble(t, func(t *testing.T, n *node) {
		n.start(t, task())
		n.net.Fail(hosttest.OpRemove, broken)
		if err := n.Stop(t.Context(), task()); !errors.Is(err, broken) {
			t.Errorf("stop: %v", err)
		}
		if err := n.Isolate(t.Context(), task()); !errors.Is(err, broken) {
			t.Errorf("isolate: %v", err)
		}
		// An announcement that fails does not take the address away again.
		n.net.Fail(hosttest.OpAnnounce, broken)
		n.start(t, task())
	})
}

func TestStartEndsWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := n.Start(ctx, task()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, ok := n.has(t, fip); ok {
			t.Error("it was taken all the same")
		}
	})
}

func TestRunSaysThatItCannotWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, broken := hosttest.New("eth0"), errors.New("broken")
		n.Fail(hosttest.OpWatch, broken)
		if err := New(Options{Network: n}).Run(t.Context()); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}

func TestResourceWithoutAddress(t *testing.T) {
	d := New(Options{Network: hosttest.New("eth0")})
	if err := d.Start(t.Context(), resource.Task{Resource: config.Resource{Name: cluster.ResourceName("x")}}); err == nil {
		t.Error("started")
	}
}

func TestForceTriesUntilItIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.start(t, task())
		begin := time.Now()
		n.net.Fail("remove", errors.New("device or resource busy"))
		if err := n.Stop(t.Context(), task()); err == nil {
			t.Error("it could not be removed, and nobody said so")
		}
		time.AfterFunc(time.Second, func() { n.net.Fail("remove", nil) })
		if how, err := n.Force(t.Context(), task()); err != nil || how == "" || time.Since(begin) < time.Second {
			t.Errorf("%q %v", how, err)
		}
		if _, ok := n.has(t, fip); ok {
			t.Error("it is still there")
		}
	})
}

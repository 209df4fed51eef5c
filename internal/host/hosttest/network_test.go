package hosttest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/internal/host"
)

func TestWatchesReportTheStateAndEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New("eth0", "10.0.0.1/24")
		var links []host.LinkEvent
		var addresses []host.AddressEvent
		ctx, cancel := context.WithCancel(t.Context())
		go n.WatchLinks(ctx, func(e host.LinkEvent) { links = append(links, e) })
		go n.WatchAddresses(ctx, func(e host.AddressEvent) { addresses = append(addresses, e) })
		synctest.Wait()
		n.SetCarrier("eth0", false)
		synctest.Wait()
		n.Take(netip.MustParseAddr("10.0.0.1"))
		synctest.Wait()
		n.RemoveLink("eth0")
		synctest.Wait()
		cancel()
		synctest.Wait()
		if len(links) != 3 || !links[0].Link.Carrier || links[1].Link.Carrier || links[1].Gone || !links[2].Gone {
			t.Errorf("links: %+v", links)
		}
		if len(addresses) != 2 || addresses[0].Gone || !addresses[1].Gone {
			t.Errorf("addresses: %+v", addresses)
		}
	})
}

func TestProbeAndPingTakeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New("eth0", "10.0.0.1/24")
		a, start := netip.MustParseAddr("10.0.0.50"), time.Now()
		if mac, err := n.Probe(t.Context(), "eth0", a, time.Second, 3); mac != nil || err != nil || time.Since(start) != time.Second {
			t.Errorf("nobody: %v %v after %v", mac, err, time.Since(start))
		}
		n.Conflict(a, net.HardwareAddr{1, 2, 3, 4, 5, 6})
		if mac, err := n.Probe(t.Context(), "eth0", a, time.Second, 3); mac == nil || err != nil || time.Since(start) != time.Second {
			t.Errorf("conflict: %v %v after %v", mac, err, time.Since(start))
		}
		if _, err := n.Ping(t.Context(), a); !errors.Is(err, host.ErrNoAnswer) {
			t.Errorf("ping: %v", err)
		}
		n.Answer(a, time.Millisecond)
		if rtt, err := n.Ping(t.Context(), a); rtt != time.Millisecond || err != nil {
			t.Errorf("ping: %v %v", rtt, err)
		}
	})
}

func TestFailuresAreScripted(t *testing.T) {
	n, broken := New("eth0"), errors.New("broken")
	n.Fail(OpAdd, broken)
	p := netip.MustParsePrefix("10.0.0.50/24")
	if err := n.AddAddress("eth0", p); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	n.Fail(OpAdd, nil)
	if err := n.AddAddress("eth0", p); err != nil {
		t.Error(err)
	}
	if err := n.Announce("eth1", p.Addr()); !errors.Is(err, host.ErrNoDevice) {
		t.Errorf("got %v", err)
	}
}

package host

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// A link that was pulled comes back as it was, but for what is not to.
func TestPull(t *testing.T) {
	a, b := cable(t)
	k, err := a.link(a.dev)
	if err != nil {
		t.Fatal(err)
	}
	floating := netip.MustParsePrefix("fd07::50/64")
	if err := a.AddAddress(a.dev, floating); err != nil {
		t.Fatal(err)
	}
	for _, r := range []netlink.Route{{Gw: net.ParseIP("10.7.0.2")}, {Gw: net.ParseIP("fd07::2"), Dst: &net.IPNet{IP: net.ParseIP("fd09::"), Mask: net.CIDRMask(64, 128)}}} {
		r.LinkIndex = k.Index
		if err := a.handle.RouteAdd(&r); err != nil {
			t.Fatal(err)
		}
	}
	before := shape(t, a)
	back, err := a.Pull(a.dev, []netip.Addr{floating.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	if other, err := b.link(b.dev); err != nil || other.Carrier {
		t.Errorf("the other end has its carrier: %v", err)
	}
	if _, err := a.Pull(a.dev, nil); err == nil {
		t.Error("it is pulled twice")
	}
	if during := shape(t, a); slices.Equal(during, before) {
		t.Error("nothing was lost meanwhile")
	}
	if err := back(); err != nil {
		t.Fatal(err)
	}
	if after := shape(t, a); !slices.Equal(after, slices.DeleteFunc(before, func(s string) bool { return s == floating.String() })) {
		t.Errorf("it was\n%q, is\n%q", before, after)
	}
	if other, err := b.link(b.dev); err != nil || !other.Carrier {
		t.Errorf("the other end has no carrier: %v", err)
	}
}

// shape lists the addresses and the routes by a gateway of a side.
func shape(t *testing.T, s side) (out []string) {
	t.Helper()
	list, err := s.Addresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if a.Device == s.dev && !a.Prefix.Addr().IsLinkLocalUnicast() {
			out = append(out, a.Prefix.String())
		}
	}
	routes, err := s.handle.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Gw != nil {
			out = append(out, r.Dst.String()+" by "+r.Gw.String())
		}
	}
	slices.Sort(out)
	return out
}

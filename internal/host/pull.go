package host

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Pull takes a link down, which for all who watch its carrier is as if its cable
// had been pulled, and returns what brings it up again, with the addresses and
// routes that the kernel forgot meanwhile. except are addresses that are not put
// back: they may be elsewhere by then. A link that is down already is an error.
func (l *Linux) Pull(device string, except []netip.Addr) (back func() error, err error) {
	is, err := l.link(device)
	if err != nil {
		return nil, err
	}
	if !is.Up {
		return nil, fmt.Errorf("%s is down already", device)
	}
	k := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: is.Index, Name: device}}
	addrs, err := again(func() ([]netlink.Addr, error) { return l.handle.AddrList(k, netlink.FAMILY_V6) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", device, err)
	}
	routes, err := again(func() ([]netlink.Route, error) { return l.handle.RouteList(k, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the routes of %s: %w", device, err)
	}
	if err := l.handle.LinkSetDown(k); err != nil {
		return nil, fmt.Errorf("take %s down: %w", device, err)
	}
	return func() error {
		if err := l.handle.LinkSetUp(k); err != nil {
			return fmt.Errorf("bring %s up: %w", device, err)
		}
		return errors.Join(l.putAddresses(k, addrs, except), l.putRoutes(routes))
	}, nil
}

// putAddresses puts IPv6 addresses back; those of IPv4 outlive the link.
func (l *Linux) putAddresses(k netlink.Link, addrs []netlink.Addr, except []netip.Addr) (err error) {
	for _, a := range addrs {
		p, ok := prefixOf(a)
		if !ok || p.Addr().IsLinkLocalUnicast() || slices.Contains(except, p.Addr()) {
			continue
		}
		a.Flags = a.Flags&^unix.IFA_F_TENTATIVE | unix.IFA_F_NODAD // it was checked when it came
		if a.ValidLft == 0 {
			a.ValidLft, a.PreferedLft = math.MaxUint32, math.MaxUint32
		}
		if no := l.handle.AddrReplace(k, &a); no != nil {
			err = errors.Join(err, fmt.Errorf("put %s back: %w", p, no))
		}
	}
	return err
}

// putRoutes puts routes back that the kernel does not make by itself, those
// without a gateway first: the others need them.
func (l *Linux) putRoutes(routes []netlink.Route) (err error) {
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return len(a.Gw) - len(b.Gw) })
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL || r.Protocol == unix.RTPROT_RA {
			continue
		}
		r.Flags &^= unix.RTNH_F_LINKDOWN | unix.RTNH_F_DEAD
		if no := l.handle.RouteReplace(&r); no != nil {
			err = errors.Join(err, fmt.Errorf("put the route to %v back: %w", r.Dst, no))
		}
	}
	return err
}

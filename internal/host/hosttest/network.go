// Package hosttest holds a network in memory for the tests of everything that
// uses host.Network.
package hosttest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/internal/host"
)

// Network is a host.Network in memory. The zero value has no interfaces. All
// methods may be called at the same time.
type Network struct {
	mu        sync.Mutex
	links     []host.Link
	addresses []host.Address
	announced []Announcement
	probes    []netip.Addr
	conflicts map[netip.Addr]net.HardwareAddr
	pings     map[netip.Addr]time.Duration
	failures  map[Op]error
	changed   chan struct{} // closed at every change
}

var _ host.Network = (*Network)(nil)

// Announcement is one call of Announce that succeeded.
type Announcement struct {
	Device  string
	Address netip.Addr
	At      time.Time
}

// Op names a method that can be made to fail.
type Op string

// The methods that Fail can make fail.
const (
	OpAdd      Op = "add"
	OpRemove   Op = "remove"
	OpList     Op = "list"
	OpProbe    Op = "probe"
	OpAnnounce Op = "announce"
	OpWatch    Op = "watch"
)

// New returns a network with one interface that is up, has carrier, and has the
// addresses: New("eth0", "10.0.0.1/24").
func New(device string, prefixes ...string) *Network {
	n := &Network{}
	n.AddLink(device)
	for _, p := range prefixes {
		n.Put(device, netip.MustParsePrefix(p))
	}
	return n
}

// AddLink adds an interface that is up and has carrier.
func (n *Network) AddLink(device string) {
	n.change(func() {
		i := len(n.links) + 1
		n.links = append(n.links, host.Link{
			Index: i, Name: device, MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}, Up: true, Carrier: true,
		})
	})
}

// RemoveLink removes the interface with its addresses.
func (n *Network) RemoveLink(device string) {
	n.change(func() {
		n.links = slices.DeleteFunc(n.links, func(k host.Link) bool { return k.Name == device })
		n.addresses = slices.DeleteFunc(n.addresses, func(a host.Address) bool { return a.Device == device })
	})
}

// SetCarrier plugs the cable in or pulls it.
func (n *Network) SetCarrier(device string, carrier bool) {
	n.change(func() {
		for i := range n.links {
			if n.links[i].Name == device {
				n.links[i].Carrier = carrier
			}
		}
	})
}

// Put adds an address as somebody else on the host would.
func (n *Network) Put(device string, p netip.Prefix) {
	n.change(func() { n.addresses = append(n.addresses, host.Address{Device: device, Prefix: p}) })
}

// Take takes an address away as somebody else on the host would.
func (n *Network) Take(a netip.Addr) {
	n.change(func() {
		n.addresses = slices.DeleteFunc(n.addresses, func(h host.Address) bool { return h.Prefix.Addr() == a })
	})
}

// Conflict makes probes for the address be answered by mac; nil ends it.
func (n *Network) Conflict(a netip.Addr, mac net.HardwareAddr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conflicts == nil {
		n.conflicts = map[netip.Addr]net.HardwareAddr{}
	}
	n.conflicts[a] = mac
}

// Answer makes pings of the address be answered after rtt. All others are not.
func (n *Network) Answer(a netip.Addr, rtt time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pings == nil {
		n.pings = map[netip.Addr]time.Duration{}
	}
	n.pings[a] = rtt
}

// Silence ends Answer.
func (n *Network) Silence(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pings, a)
}

// Fail makes a method fail until it is called with nil.
func (n *Network) Fail(op Op, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failures == nil {
		n.failures = map[Op]error{}
	}
	n.failures[op] = err
}

// Announcements returns what was announced so far.
func (n *Network) Announcements() []Announcement {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.announced)
}

// Probes returns the addresses that were probed for.
func (n *Network) Probes() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.probes)
}

func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

func (n *Network) failure(op Op) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failures[op]
}

// Links lists the interfaces.
func (n *Network) Links() ([]host.Link, error) {
	if err := n.failure(OpList); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.links), nil
}

// Addresses lists the addresses.
func (n *Network) Addresses() ([]host.Address, error) {
	if err := n.failure(OpList); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.addresses), nil
}

// WatchLinks reports links and their changes.
func (n *Network) WatchLinks(ctx context.Context, report func(host.LinkEvent)) error {
	same := func(a, b host.Link) bool { return a.Name == b.Name && a.Up == b.Up && a.Carrier == b.Carrier }
	return watch(ctx, n, func() []host.Link { return n.links }, same, func(k host.Link, gone bool) {
		report(host.LinkEvent{Link: k, Gone: gone})
	})
}

// WatchAddresses reports addresses and their changes.
func (n *Network) WatchAddresses(ctx context.Context, report func(host.AddressEvent)) error {
	same := func(a, b host.Address) bool { return a == b }
	return watch(ctx, n, func() []host.Address { return n.addresses }, same, func(a host.Address, gone bool) {
		report(host.AddressEvent{Address: a, Gone: gone})
	})
}

// watch compares the list with what was reported after every change. The state
// of a link whose name stays replaces the one before: it is not gone.
func watch[T any](ctx context.Context, n *Network, list func() []T, same func(a, b T) bool, report func(T, bool)) error {
	if err := n.failure(OpWatch); err != nil {
		return err
	}
	var known []T
	for ctx.Err() == nil {
		n.mu.Lock()
		now := slices.Clone(list())
		if n.changed == nil {
			n.changed = make(chan struct{})
		}
		changed := n.changed
		n.mu.Unlock()
		in := func(l []T, v T) bool { return slices.ContainsFunc(l, func(o T) bool { return same(o, v) }) }
		for _, v := range known {
			if !in(now, v) && !replaced(now, v) {
				report(v, true)
			}
		}
		for _, v := range now {
			if !in(known, v) {
				report(v, false)
			}
		}
		known = now
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

func replaced[T any](now []T, v T) bool {
	k, ok := any(v).(host.Link)
	return ok && slices.ContainsFunc(now, func(o T) bool { return any(o).(host.Link).Name == k.Name })
}

// AddAddress puts the address on the interface.
func (n *Network) AddAddress(device string, p netip.Prefix) error {
	if err := n.failure(OpAdd); err != nil {
		return err
	}
	if err := n.exists(device); err != nil {
		return err
	}
	if at, ok, _ := n.HasAddress(p.Addr()); ok && at == (host.Address{Device: device, Prefix: p}) {
		return nil
	}
	n.Put(device, p)
	return nil
}

// RemoveAddress takes the address off.
func (n *Network) RemoveAddress(device string, p netip.Prefix) error {
	if err := n.failure(OpRemove); err != nil {
		return err
	}
	n.change(func() {
		n.addresses = slices.DeleteFunc(n.addresses, func(a host.Address) bool {
			return a == host.Address{Device: device, Prefix: p}
		})
	})
	return nil
}

// InterfaceFor returns the interface whose subnet holds the address.
func (n *Network) InterfaceFor(a netip.Addr) (string, int, error) {
	list, err := n.Addresses()
	if err != nil {
		return "", 0, err
	}
	return host.Choose(list, a)
}

// HasAddress says where the address is.
func (n *Network) HasAddress(a netip.Addr) (host.Address, bool, error) {
	list, err := n.Addresses()
	i := slices.IndexFunc(list, func(h host.Address) bool { return h.Prefix.Addr() == a })
	if err != nil || i < 0 {
		return host.Address{}, false, err
	}
	return list[i], true, nil
}

// Probe returns the MAC that Conflict gave, at once, or nil after wait.
func (n *Network) Probe(ctx context.Context, device string, a netip.Addr, wait time.Duration, _ int) (net.HardwareAddr, error) {
	if err := errors.Join(n.failure(OpProbe), n.exists(device)); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.probes = append(n.probes, a)
	mac := n.conflicts[a]
	n.mu.Unlock()
	if mac != nil {
		return mac, nil
	}
	return nil, pause(ctx, wait)
}

// Announce records the announcement.
func (n *Network) Announce(device string, a netip.Addr) error {
	if err := errors.Join(n.failure(OpAnnounce), n.exists(device)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.announced = append(n.announced, Announcement{Device: device, Address: a, At: time.Now()})
	return nil
}

// Ping answers after the time that Answer gave, or fails when ctx ends.
func (n *Network) Ping(ctx context.Context, a netip.Addr) (time.Duration, error) {
	n.mu.Lock()
	rtt, ok := n.pings[a]
	n.mu.Unlock()
	if !ok {
		rtt = host.PingLimit
	}
	if err := pause(ctx, rtt); err != nil || !ok {
		return 0, fmt.Errorf("ping %s: %w", a, host.ErrNoAnswer)
	}
	return rtt, nil
}

func (n *Network) exists(device string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.ContainsFunc(n.links, func(k host.Link) bool { return k.Name == device }) {
		return fmt.Errorf("%w: %s", host.ErrNoDevice, device)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

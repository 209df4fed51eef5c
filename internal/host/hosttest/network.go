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
	linkLog   []host.LinkEvent    // every change so far, for the watches
	addrLog   []host.AddressEvent // the same
	announced []Announcement
	probes    []netip.Addr
	conflicts map[netip.Addr]net.HardwareAddr
	claimLog  []claim // every claim so far, for the watches
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
		i := len(n.linkLog) + 1 // new for every interface
		k := host.Link{
			Index: i, Name: device, MAC: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}, Up: true, Carrier: true,
		}
		n.links = append(n.links, k)
		n.linkLog = append(n.linkLog, host.LinkEvent{Link: k})
	})
}

// RemoveLink removes the interface with its addresses.
func (n *Network) RemoveLink(device string) {
	n.change(func() {
		n.drop(func(a host.Address) bool { return a.Device == device })
		n.links = slices.DeleteFunc(n.links, func(k host.Link) bool {
			if k.Name == device {
				n.linkLog = append(n.linkLog, host.LinkEvent{Link: k, Gone: true})
			}
			return k.Name == device
		})
	})
}

// SetCarrier plugs the cable in or pulls it.
func (n *Network) SetCarrier(device string, carrier bool) {
	n.setLink(device, func(k *host.Link) { k.Carrier = carrier && k.Up })
}

// SetUp switches the interface on or off; on, it has carrier.
func (n *Network) SetUp(device string, up bool) {
	n.setLink(device, func(k *host.Link) { k.Up, k.Carrier = up, up })
}

func (n *Network) setLink(device string, set func(*host.Link)) {
	n.change(func() {
		for i := range n.links {
			if n.links[i].Name == device {
				set(&n.links[i])
				n.linkLog = append(n.linkLog, host.LinkEvent{Link: n.links[i]})
			}
		}
	})
}

// Put adds an address as somebody else on the host would.
func (n *Network) Put(device string, p netip.Prefix) {
	n.change(func() {
		a := host.Address{Device: device, Prefix: p}
		n.addresses = append(n.addresses, a)
		n.addrLog = append(n.addrLog, host.AddressEvent{Address: a})
	})
}

// Take takes an address away as somebody else on the host would.
func (n *Network) Take(a netip.Addr) {
	n.change(func() { n.drop(func(h host.Address) bool { return h.Prefix.Addr() == a }) })
}

// drop removes addresses; the caller has the lock.
func (n *Network) drop(which func(host.Address) bool) {
	n.addresses = slices.DeleteFunc(n.addresses, func(a host.Address) bool {
		if which(a) {
			n.addrLog = append(n.addrLog, host.AddressEvent{Address: a, Gone: true})
			return true
		}
		return false
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
	now := func() (out []host.LinkEvent) {
		for _, k := range n.links {
			out = append(out, host.LinkEvent{Link: k})
		}
		return out
	}
	return watch(ctx, n, now, &n.linkLog, report)
}

// WatchAddresses reports addresses and their changes.
func (n *Network) WatchAddresses(ctx context.Context, report func(host.AddressEvent)) error {
	now := func() (out []host.AddressEvent) {
		for _, a := range n.addresses {
			out = append(out, host.AddressEvent{Address: a})
		}
		return out
	}
	return watch(ctx, n, now, &n.addrLog, report)
}

// watch reports the present state, then what is added to the log.
func watch[E any](ctx context.Context, n *Network, now func() []E, log *[]E, report func(E)) error {
	if err := n.failure(OpWatch); err != nil {
		return err
	}
	n.mu.Lock()
	events, seen := now(), len(*log)
	n.mu.Unlock()
	for ctx.Err() == nil {
		for _, e := range events {
			report(e)
		}
		n.mu.Lock()
		events, seen = slices.Clone((*log)[seen:]), len(*log)
		if n.changed == nil {
			n.changed = make(chan struct{})
		}
		changed := n.changed
		n.mu.Unlock()
		if len(events) == 0 {
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
	return nil
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
	n.change(func() { n.drop(func(a host.Address) bool { return a == host.Address{Device: device, Prefix: p} }) })
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

// claim is one call of Claim.
type claim struct {
	a   netip.Addr
	mac net.HardwareAddr
}

// Claim lets somebody else say that the address is his.
func (n *Network) Claim(a netip.Addr, mac net.HardwareAddr) {
	n.change(func() { n.claimLog = append(n.claimLog, claim{a, mac}) })
}

// WatchClaims reports what Claim says from now on.
func (n *Network) WatchClaims(ctx context.Context, device string, a netip.Addr, report func(net.HardwareAddr)) error {
	if err := n.exists(device); err != nil {
		return err
	}
	nothing := func() []claim { return nil }
	return watch(ctx, n, nothing, &n.claimLog, func(c claim) {
		if c.a == a {
			report(c.mac)
		}
	})
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

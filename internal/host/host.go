// Package host is the only door to the kernel's network: links, addresses,
// address probes, announcements and pings. Linux is the real one, hosttest
// holds a fake. Changes are told by the kernel; nothing here polls.
package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// Link is one network interface as the kernel has it now.
type Link struct {
	Index   int
	Name    string
	MAC     net.HardwareAddr // empty where the device has none
	Up      bool             // an administrator wants it up
	Carrier bool             // it is up and the physical layer has a link; not the operational state
	NoARP   bool             // nobody can be asked or told about addresses on it
}

// LinkEvent is the state of a link at the start of a watch and after each
// change.
type LinkEvent struct {
	Link Link
	Gone bool // the interface does not exist any more; Link is its last state
}

// Address is one address on an interface of this host.
type Address struct {
	Device string
	Prefix netip.Prefix // the address with the length of its subnet
}

// AddressEvent is an address at the start of a watch and after each change.
type AddressEvent struct {
	Address Address
	Gone    bool
}

// Network is what the rest of the program may do with the network of its host.
// All methods may be called at the same time.
type Network interface {
	// Links lists the interfaces in the order of their indexes.
	Links() ([]Link, error)
	// WatchLinks calls report for every link that exists, then for each change
	// in its order, always from the calling goroutine, until ctx ends; then it
	// returns nil. If changes were lost on the way, it lists again and reports
	// what differs. An error means that it cannot watch at all.
	WatchLinks(ctx context.Context, report func(LinkEvent)) error

	// Addresses lists the addresses of all interfaces.
	Addresses() ([]Address, error)
	// WatchAddresses is to addresses what WatchLinks is to links.
	WatchAddresses(ctx context.Context, report func(AddressEvent)) error
	// AddAddress puts the address on the interface, usable at once: without
	// duplicate detection by the kernel. An IPv6 address is not chosen as the
	// source of new connections. What is there already is no error.
	AddAddress(device string, p netip.Prefix) error
	// RemoveAddress takes the address off. What is not there is no error.
	RemoveAddress(device string, p netip.Prefix) error
	// InterfaceFor returns the interface whose subnet holds the address, and
	// the length of that subnet's prefix; of several the longest. ErrNoInterface
	// if there is none.
	InterfaceFor(a netip.Addr) (device string, bits int, err error)
	// HasAddress says where on this host the address is.
	HasAddress(a netip.Addr) (at Address, ok bool, err error)

	// Probe asks the link count times within wait whether somebody else uses
	// the address, and returns who said so first, or nil after wait. IPv4 by
	// the ARP probe of RFC 5227, IPv6 by the neighbor solicitation of RFC 4862;
	// somebody who probes for the same address at the same time counts too.
	Probe(ctx context.Context, device string, a netip.Addr, wait time.Duration, count int) (net.HardwareAddr, error)
	// WatchClaims calls report with the MAC of everyone else who says that the
	// address is his, each time, from the calling goroutine until ctx ends; then
	// it returns nil. Who only probes claims nothing yet, and an answer to
	// somebody else's question is not heard. An error means that it cannot
	// watch, or not any more.
	WatchClaims(ctx context.Context, device string, a netip.Addr, report func(net.HardwareAddr)) error
	// Announce tells everyone on the link once that the address is here: by
	// gratuitous ARP in both its forms, or by an unsolicited neighbor
	// advertisement that overrides.
	Announce(device string, a netip.Addr) error
	// Ping sends one echo request and returns the time to its answer. It waits
	// until ctx ends, at most PingLimit.
	Ping(ctx context.Context, a netip.Addr) (time.Duration, error)
}

// PingLimit is the longest that one Ping waits for its answer.
const PingLimit = 5 * time.Second

// Errors of a Network.
var (
	// ErrNoInterface: no subnet of this host holds the address.
	ErrNoInterface = errors.New("no interface of this node has a subnet with the address")
	// ErrNoDevice: no interface has that name.
	ErrNoDevice = errors.New("no such network interface")
	// ErrNoAnswer: a ping was not answered in its time.
	ErrNoAnswer = errors.New("no answer to the ping")
)

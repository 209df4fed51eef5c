package lab

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// place is a network namespace with its door.
type place struct {
	ns *os.File
	nl *netlink.Handle
}

func openPlace(ns *os.File) (*place, error) {
	nl, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &place{ns: ns, nl: nl}, nil
}

func (p *place) close() {
	p.nl.Close()
	p.ns.Close()
}

// bridge makes a bridge that forwards at once; mac may be nil.
func (p *place) bridge(name, alias string, mac net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, mac
	off := false
	b := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
	if err := p.nl.LinkAdd(b); err != nil {
		return fmt.Errorf("make bridge %s: %w", name, err)
	}
	if err := p.nl.LinkSetAlias(b, alias); err != nil {
		return fmt.Errorf("label %s: %w", name, err)
	}
	return p.up(name)
}

// cable makes a veth: one end, a port of a bridge here, the other the
// interface nic of there. The port's end stays down if the cable is pulled.
func (p *place) cable(port, bridge string, there *place, nic string, mac net.HardwareAddr, plugged bool) error {
	br, err := p.nl.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = port, br.Attrs().Index
	v := &netlink.Veth{LinkAttrs: attrs, PeerName: nic, PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(there.ns.Fd())}
	if err := p.nl.LinkAdd(v); err != nil {
		return fmt.Errorf("plug %s into %s: %w", nic, bridge, err)
	}
	if !plugged {
		return nil
	}
	return p.up(port)
}

func (p *place) up(name string) error { return p.set(name, true) }

// set sets a link administratively up or down.
func (p *place) set(name string, up bool) error {
	l, err := p.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if up {
		err = p.nl.LinkSetUp(l)
	} else {
		err = p.nl.LinkSetDown(l)
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// unplug removes a link, and with it the other end of a veth.
func (p *place) unplug(name string) error {
	l, err := p.nl.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = p.nl.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// joinBridge makes a link a port of a bridge of the same namespace.
func (p *place) joinBridge(name, bridge string) error {
	l, err := p.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	b, err := p.nl.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find %s: %w", bridge, err)
	}
	if err := p.nl.LinkSetMaster(l, b); err != nil {
		return fmt.Errorf("plug %s into %s: %w", name, bridge, err)
	}
	return nil
}

// address gives a link its addresses; IPv6 ones are used at once, without
// duplicate detection, since the layout is checked for duplicates.
func (p *place) address(name string, l *Layout, m Machine, n NIC) error {
	link, err := p.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	for _, a := range l.prefixes(m, n) {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := p.nl.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("give %s the address %s: %w", name, a, err)
		}
	}
	return nil
}

// macOf is the hardware address of a NIC, or of the vswitch above it: the same
// at every boot, different from all others of the lab.
func macOf(machine, nic int, vswitch bool) net.HardwareAddr {
	kind := byte(0)
	if vswitch {
		kind = 1
	}
	return net.HardwareAddr{0x02, 0x74, 0x73, kind, byte(machine), byte(nic)}
}

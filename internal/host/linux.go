package host

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Linux is the network of the namespace in which it was made.
type Linux struct {
	handle *netlink.Handle
	ns     netns.NsHandle // open only if made by NewLinuxAt
	sender int            // packet socket that only sends; receives nothing
	rcvbuf int            // of watches, in bytes; 0 is the default; tests make it small
}

var _ Network = (*Linux)(nil)

// requestLimit bounds one request to the kernel; it answers within microseconds.
const requestLimit = 5 * time.Second

// NewLinux opens the network namespace of the calling thread. Close frees it.
func NewLinux() (*Linux, error) { return open(netns.None()) }

// NewLinuxAt opens the network namespace that the file descriptor refers to. It
// keeps a copy of the descriptor.
func NewLinuxAt(fd int) (*Linux, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return open(netns.NsHandle(dup))
}

func open(ns netns.NsHandle) (l *Linux, err error) {
	l = &Linux{ns: ns, sender: -1}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if l.handle, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err = l.handle.SetSocketTimeout(requestLimit); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	err = l.within(func() (err error) {
		l.sender, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	return l, nil
}

// Close frees the sockets. No other method may run or follow.
func (l *Linux) Close() {
	if l.handle != nil {
		l.handle.Close()
	}
	if l.sender >= 0 {
		_ = unix.Close(l.sender) // nothing is buffered in it
	}
	if l.ns.IsOpen() {
		_ = l.ns.Close()
	}
}

// within runs f in the namespace of l, on one thread.
func (l *Linux) within(f func() error) error {
	if !l.ns.IsOpen() {
		return f()
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = home.Close() }()
	if err := netns.Set(l.ns); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = f()
	if back := netns.Set(home); back != nil {
		return errors.Join(err, back) // the thread stays locked: it dies with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// Links lists the interfaces.
func (l *Linux) Links() ([]Link, error) {
	list, err := again(l.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	out := make([]Link, 0, len(list))
	for _, k := range list {
		out = append(out, linkOf(k))
	}
	slices.SortFunc(out, func(a, b Link) int { return a.Index - b.Index })
	return out, nil
}

func linkOf(k netlink.Link) Link {
	a := k.Attrs()
	return Link{
		Index: a.Index, Name: a.Name, MAC: a.HardwareAddr,
		Up: a.RawFlags&unix.IFF_UP != 0,
		// The kernel sets LOWER_UP while the device runs and has its carrier,
		// whatever its operational state.
		Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		NoARP:   a.RawFlags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) != 0 || len(a.HardwareAddr) != 6,
	}
}

// again repeats a listing that a change interrupted, a few times.
func again[T any](list func() ([]T, error)) (out []T, err error) {
	for range 5 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

func (l *Linux) link(device string) (Link, error) {
	k, err := l.handle.LinkByName(device)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return Link{}, fmt.Errorf("%w: %s", ErrNoDevice, device)
	}
	if err != nil {
		return Link{}, fmt.Errorf("look up %s: %w", device, err)
	}
	return linkOf(k), nil
}

// Addresses lists the addresses of all interfaces.
func (l *Linux) Addresses() ([]Address, error) {
	found, err := l.addresses()
	if err != nil {
		return nil, err
	}
	links, err := l.Links()
	if err != nil {
		return nil, err
	}
	names := make(map[int]string, len(links))
	for _, k := range links {
		names[k.Index] = k.Name
	}
	out := make([]Address, 0, len(found))
	for _, a := range found {
		if name := names[a.index]; name != "" {
			out = append(out, Address{Device: name, Prefix: a.prefix})
		}
	}
	return out, nil
}

// place is an address and the index of its interface.
type place struct {
	index  int
	prefix netip.Prefix
}

func (l *Linux) addresses() ([]place, error) {
	list, err := again(func() ([]netlink.Addr, error) { return l.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make([]place, 0, len(list))
	for _, a := range list {
		if p, ok := prefixOf(a); ok {
			out = append(out, place{index: a.LinkIndex, prefix: p})
		}
	}
	return out, nil
}

func prefixOf(a netlink.Addr) (netip.Prefix, bool) {
	if a.IPNet == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(a.IP)
	bits, _ := a.Mask.Size()
	if a.Peer != nil {
		bits, _ = a.Peer.Mask.Size()
	}
	return netip.PrefixFrom(ip.Unmap(), bits), ok
}

// AddAddress puts the address on the interface.
func (l *Linux) AddAddress(device string, p netip.Prefix) error {
	k, err := l.link(device)
	if err != nil {
		return err
	}
	a := addressOf(k.Index, p)
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
		a.ValidLft = math.MaxUint32 // for ever; a preferred lifetime of 0 keeps it from being a source
	}
	if err := l.handle.AddrAdd(nil, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add %s to %s: %w", p, device, err)
	}
	return nil
}

// RemoveAddress takes the address off the interface.
func (l *Linux) RemoveAddress(device string, p netip.Prefix) error {
	k, err := l.link(device)
	if errors.Is(err, ErrNoDevice) {
		return nil
	}
	if err != nil {
		return err
	}
	err = l.handle.AddrDel(nil, addressOf(k.Index, p))
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s from %s: %w", p, device, err)
	}
	return nil
}

func addressOf(index int, p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{
		LinkIndex: index,
		IPNet: &net.IPNet{
			IP:   p.Addr().AsSlice(),
			Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
		},
	}
}

// InterfaceFor returns the interface whose subnet holds the address.
func (l *Linux) InterfaceFor(a netip.Addr) (string, int, error) {
	list, err := l.Addresses()
	if err != nil {
		return "", 0, err
	}
	return Choose(list, a)
}

// Choose returns the interface among the addresses of a host whose subnet holds
// a, and the length of the subnet's prefix; ErrNoInterface if there is none. An
// address alone in its subnet does not count, nor do link-local subnets, which
// every interface has.
func Choose(list []Address, a netip.Addr) (device string, bits int, err error) {
	for _, have := range list {
		p := have.Prefix
		if p.IsSingleIP() || p.Addr() == a || a.Is6() && a.IsLinkLocalUnicast() {
			continue
		}
		if p.Contains(a) && p.Bits() > bits {
			device, bits = have.Device, p.Bits()
		}
	}
	if device == "" {
		return "", 0, fmt.Errorf("%w: %s", ErrNoInterface, a)
	}
	return device, bits, nil
}

// HasAddress says where the address is.
func (l *Linux) HasAddress(a netip.Addr) (Address, bool, error) {
	list, err := l.addresses()
	if err != nil {
		return Address{}, false, err
	}
	for _, have := range list {
		if have.prefix.Addr() != a {
			continue
		}
		k, err := l.handle.LinkByIndex(have.index)
		if err != nil {
			return Address{}, false, fmt.Errorf("look up interface %d: %w", have.index, err)
		}
		return Address{Device: k.Attrs().Name, Prefix: have.prefix}, true, nil
	}
	return Address{}, false, nil
}

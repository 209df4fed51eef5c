package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// watchBuffer is the receive buffer of a watch, in bytes: room for some
	// thousand changes while report is busy. What does not fit is listed again.
	watchBuffer = 1 << 20
	// retryAfter is the pause before a subscription that failed is made again.
	retryAfter = 100 * time.Millisecond
	// The kernel tells of changes of carriers at most once a second, over all
	// links together (net/core/link_watch.c). So for lookFor after it told of
	// one, a watch of links lists them every lookEvery.
	lookFor   = 1100 * time.Millisecond
	lookEvery = 40 * time.Millisecond
)

// WatchLinks reports links and their changes.
func (l *Linux) WatchLinks(ctx context.Context, report func(LinkEvent)) error {
	known := map[int]Link{}
	set := func(k Link) {
		if old, ok := known[k.Index]; !ok || !sameLink(old, k) {
			known[k.Index] = k
			report(LinkEvent{Link: k})
		}
	}
	drop := func(index int) {
		if old, ok := known[index]; ok {
			delete(known, index)
			report(LinkEvent{Link: old, Gone: true})
		}
	}
	relist := func() error {
		links, err := l.Links()
		if err != nil {
			return err
		}
		now := make(map[int]bool, len(links))
		for _, k := range links {
			now[k.Index] = true
		}
		for index := range known {
			if !now[index] {
				drop(index)
			}
		}
		for _, k := range links {
			set(k)
		}
		return nil
	}
	apply := func(m syscall.NetlinkMessage) {
		k, ok := parseLink(m)
		switch {
		case !ok:
		case m.Header.Type == unix.RTM_NEWLINK:
			set(k)
		case m.Header.Type == unix.RTM_DELLINK:
			drop(k.Index)
		}
	}
	return l.watch(ctx, watcher{relist: relist, apply: apply, look: true}, unix.RTNLGRP_LINK)
}

func sameLink(a, b Link) bool {
	return a.Name == b.Name && a.Up == b.Up && a.Carrier == b.Carrier && a.NoARP == b.NoARP &&
		string(a.MAC) == string(b.MAC)
}

// parseLink reads a message about a link. Messages of a family are about
// something else: RTM_DELLINK of AF_BRIDGE says that a port left its bridge.
func parseLink(m syscall.NetlinkMessage) (Link, bool) {
	if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
		return Link{}, false
	}
	header := unix.NlMsghdr(m.Header)
	k, err := netlink.LinkDeserialize(&header, m.Data)
	if err != nil {
		return Link{}, false
	}
	return linkOf(k), true
}

// WatchAddresses reports addresses and their changes.
func (l *Linux) WatchAddresses(ctx context.Context, report func(AddressEvent)) error {
	known := map[place]string{}
	set := func(p place) {
		if _, ok := known[p]; ok {
			return
		}
		k, err := l.handle.LinkByIndex(p.index)
		if err != nil {
			return // gone already, with its addresses
		}
		known[p] = k.Attrs().Name
		report(AddressEvent{Address: Address{Device: known[p], Prefix: p.prefix}})
	}
	drop := func(p place) {
		if name, ok := known[p]; ok {
			delete(known, p)
			report(AddressEvent{Address: Address{Device: name, Prefix: p.prefix}, Gone: true})
		}
	}
	relist := func() error {
		list, err := l.addresses()
		if err != nil {
			return err
		}
		now := make(map[place]bool, len(list))
		for _, p := range list {
			now[p] = true
		}
		for p := range known {
			if !now[p] {
				drop(p)
			}
		}
		for _, p := range list {
			set(p)
		}
		return nil
	}
	apply := func(m syscall.NetlinkMessage) {
		p, ok := parseAddress(m.Data)
		switch {
		case !ok:
		case m.Header.Type == unix.RTM_NEWADDR:
			set(p)
		case m.Header.Type == unix.RTM_DELADDR:
			drop(p)
		}
	}
	return l.watch(ctx, watcher{relist: relist, apply: apply}, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
}

// parseAddress reads the body of a message about an address. IPv4 gives the
// address as IFA_LOCAL, IPv6 as IFA_ADDRESS unless the link is point to point.
func parseAddress(b []byte) (place, bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return place{}, false
	}
	msg := nl.DeserializeIfAddrmsg(b)
	// Attributes fill words of 4 bytes; the last one may be cut short.
	rest := append(slices.Clone(b[unix.SizeofIfAddrmsg:]), 0, 0, 0)
	attrs, err := nl.ParseRouteAttr(rest[:len(rest)&^3])
	if err != nil {
		return place{}, false
	}
	var value net.IP
	for _, a := range attrs {
		if a.Attr.Type == unix.IFA_LOCAL || a.Attr.Type == unix.IFA_ADDRESS && value == nil {
			value = a.Value
		}
	}
	ip, ok := netip.AddrFromSlice(value)
	p := netip.PrefixFrom(ip.Unmap(), int(msg.Prefixlen))
	return place{index: int(msg.Index), prefix: p}, ok && p.IsValid()
}

// watcher is what a watch does with what it gets.
type watcher struct {
	relist func() error                 // compare with the kernel's list and report
	apply  func(syscall.NetlinkMessage) // report the change in one message
	look   bool                         // list again for some time after a message
}

// watch subscribes, lists, and applies messages until ctx ends. A subscription
// that lost messages or died is made anew, and everything is listed again.
func (l *Linux) watch(ctx context.Context, w watcher, groups ...uint) error {
	for first := true; ; first = false {
		err := l.watchOnce(ctx, w, groups)
		if ctx.Err() != nil {
			return nil
		}
		if first && errors.Is(err, errSubscribe) {
			return err
		}
		if errors.Is(err, unix.ENOBUFS) {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryAfter):
		}
	}
}

var errSubscribe = errors.New("cannot watch the network")

func (l *Linux) watchOnce(ctx context.Context, w watcher, groups []uint) error {
	s, err := nl.SubscribeAt(l.ns, netns.None(), unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return fmt.Errorf("%w: %w", errSubscribe, os.NewSyscallError("netlink", err))
	}
	defer s.Close()
	defer context.AfterFunc(ctx, s.Close)()
	size, force := watchBuffer, true
	if l.rcvbuf != 0 {
		size, force = l.rcvbuf, false
	}
	_ = s.SetReceiveBufferSize(size, force) // a smaller one only means listing again sooner
	if err := w.relist(); err != nil {
		return err
	}
	lookUntil := time.Now().Add(lookFor)
	for {
		var wait unix.Timeval // 0 is for ever
		if w.look && time.Now().Before(lookUntil) {
			wait = unix.NsecToTimeval(lookEvery.Nanoseconds())
		}
		_ = s.SetReceiveTimeout(&wait) // never fails
		messages, from, err := s.Receive()
		switch {
		case errors.Is(err, unix.EAGAIN):
			if err := w.relist(); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		case from.Pid != nl.PidKernel:
			continue
		}
		lookUntil = time.Now().Add(lookFor)
		for _, m := range messages {
			w.apply(m)
		}
	}
}

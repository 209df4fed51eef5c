package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	probing "github.com/prometheus-community/pro-bing"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Probe asks the link whether somebody else uses the address.
func (l *Linux) Probe(ctx context.Context, device string, a netip.Addr, wait time.Duration, count int) (net.HardwareAddr, error) {
	k, err := l.link(device)
	if err != nil || k.NoARP {
		return nil, err
	}
	frame, err := probeFrame(k.MAC, a)
	if err != nil {
		return nil, err
	}
	conn, err := l.listen(k, a, false)
	if err != nil {
		return nil, fmt.Errorf("probe for %s on %s: %w", a, device, err)
	}
	// Closing waits for the kernel's readers, some milliseconds: not our caller's.
	defer func() { go conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()

	count = max(count, 1)
	start := time.Now()
	for i := range count {
		if err := l.send(k, frame); err != nil {
			return nil, fmt.Errorf("probe for %s on %s: %w", a, device, err)
		}
		until := start.Add(wait * time.Duration(i+1) / time.Duration(count))
		mac, err := hear(ctx, conn, k.MAC, a, until, false)
		if mac != nil || err != nil {
			return mac, err
		}
	}
	return nil, nil
}

// WatchClaims reports who else says that the address is his.
func (l *Linux) WatchClaims(ctx context.Context, device string, a netip.Addr, report func(net.HardwareAddr)) error {
	k, err := l.link(device)
	if err != nil {
		return err
	}
	if k.NoARP {
		<-ctx.Done()
		return nil
	}
	conn, err := l.listen(k, a, true)
	if err != nil {
		return fmt.Errorf("watch for %s on %s: %w", a, device, err)
	}
	defer func() { go conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	for ctx.Err() == nil {
		mac, err := hear(ctx, conn, k.MAC, a, time.Time{}, true)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("watch for %s on %s: %w", a, device, err)
		}
		if mac != nil {
			report(mac)
		}
	}
	return nil
}

// listen opens a socket that hears the claims to the address on the link;
// claimsOnly leaves probes out where that is easy.
func (l *Linux) listen(k Link, a netip.Addr, claimsOnly bool) (*packet.Conn, error) {
	protocol, filter := unix.ETH_P_ARP, []bpf.Instruction{bpf.RetConstant{Val: 1 << 16}}
	if a.Is4() && claimsOnly {
		filter = senderFilter(a)
	}
	if a.Is6() {
		protocol, filter = unix.ETH_P_IPV6, neighborFilter
	}
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return nil, err
	}
	var conn *packet.Conn
	err = l.within(func() (err error) {
		conn, err = packet.Listen(&net.Interface{Index: k.Index, Name: k.Name, HardwareAddr: k.MAC},
			packet.Raw, protocol, &packet.Config{Filter: raw})
		return err
	})
	if err != nil {
		return nil, err
	}
	if a.Is6() {
		// Others who probe for the same address send to its solicited-node group.
		if err := conn.JoinGroup(multicastMAC(solicitedNode(a))); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// senderFilter lets ARP of one sender address pass, which is at offset 14+14.
func senderFilter(a netip.Addr) []bpf.Instruction {
	b := a.As4()
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 28, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(b[:]), SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	}
}

// neighborFilter lets neighbor solicitations (135) and advertisements (136)
// pass: next header ICMPv6 at offset 14+6, its type at 14+40.
var neighborFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 20, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 58, SkipTrue: 4},
	bpf.LoadAbsolute{Off: 54, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 135, SkipTrue: 2},
	bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 136, SkipTrue: 1},
	bpf.RetConstant{Val: 1 << 16},
	bpf.RetConstant{Val: 0},
}

// hear reads frames until one claims the address for a MAC that is not own, or
// until the time is over; the zero time is never. Probes count if not held.
func hear(ctx context.Context, conn *packet.Conn, own net.HardwareAddr, a netip.Addr, until time.Time, held bool) (net.HardwareAddr, error) {
	buf := make([]byte, 2048)
	if err := conn.SetReadDeadline(until); err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("listen for answers: %w", err)
		}
		if c, ok := parseClaim(buf[:n]); ok && c.addr == a && !bytes.Equal(c.mac, own) && !(held && c.probe) {
			return bytes.Clone(c.mac), nil
		}
	}
	return nil, ctx.Err()
}

// Announce tells everyone on the link that the address is here.
func (l *Linux) Announce(device string, a netip.Addr) error {
	k, err := l.link(device)
	if err != nil || k.NoARP {
		return err
	}
	frames, err := announceFrames(k.MAC, a, a.Is6() && l.forwards(device))
	if err != nil {
		return err
	}
	for _, f := range frames {
		if err := l.send(k, f); err != nil {
			return fmt.Errorf("announce %s on %s: %w", a, device, err)
		}
	}
	return nil
}

// forwards says whether the interface routes IPv6: hosts drop a default router
// that calls itself none.
func (l *Linux) forwards(device string) bool {
	var b []byte
	_ = l.within(func() (err error) {
		b, err = os.ReadFile("/proc/sys/net/ipv6/conf/" + device + "/forwarding")
		return err
	})
	return len(b) > 0 && b[0] == '1'
}

func (l *Linux) send(k Link, frame []byte) error {
	to := &unix.SockaddrLinklayer{Ifindex: k.Index, Halen: 6}
	copy(to.Addr[:], frame[:6])
	return unix.Sendto(l.sender, frame, 0, to)
}

// Ping sends one echo request.
func (l *Linux) Ping(ctx context.Context, a netip.Addr) (time.Duration, error) {
	p := probing.New("")
	p.SetIPAddr(&net.IPAddr{IP: a.Unmap().AsSlice(), Zone: a.Zone()})
	p.SetPrivileged(true)
	p.SetLogger(probing.NoopLogger{})
	p.Count, p.Timeout, p.RecordRtts = 1, PingLimit, false
	answer := make(chan time.Duration, 1)
	p.OnRecv = func(got *probing.Packet) {
		select {
		case answer <- got.Rtt:
		default:
		}
	}
	ended := make(chan error, 1)
	// It ends up to 100 ms after the answer; nobody needs to wait for that.
	go func() { ended <- l.within(func() error { return p.RunWithContext(ctx) }) }()
	select {
	case rtt := <-answer:
		return rtt, nil
	case err := <-ended:
		select {
		case rtt := <-answer:
			return rtt, nil
		default:
		}
		if err != nil && ctx.Err() == nil {
			return 0, fmt.Errorf("ping %s: %w", a, err)
		}
		return 0, fmt.Errorf("ping %s: %w", a, ErrNoAnswer)
	}
}

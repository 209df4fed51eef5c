package chaos_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"

	"github.com/tasuki-ha/tasuki/internal/lab"
)

const etherARP = 0x0806

// ear asks the public network who has the floating address and hears who says
// so. It asks with a hardware and an IP address of its own, which nobody else
// has, so that no machine's and not even the client's neighbor table changes.
type ear struct {
	conn *packet.Conn
	want netip.Addr
	ask  []byte
}

// listen opens an ear on the client's cable.
func listen(at *lab.Namespace, want netip.Addr) (e *ear, err error) {
	e = &ear{want: want}
	err = at.Do(func() error {
		nic, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if e.conn, err = packet.Listen(nic, packet.Raw, etherARP, nil); err != nil {
			return err
		}
		return e.conn.SetPromiscuous(true)
	})
	if err != nil {
		return nil, fmt.Errorf("listen on the client's cable: %w", err)
	}
	own := net.HardwareAddr{0x02, 0x74, 0x73, 0xff, 0, 1}
	four := want.As4()
	mine := [4]byte{four[0], four[1], four[2], 251}
	// Ethernet, then RFC 826: Ethernet, IPv4, sizes 6 and 4, a request.
	e.ask = append(e.ask, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	e.ask = append(e.ask, own...)
	e.ask = append(e.ask, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	e.ask = append(e.ask, own...)
	e.ask = append(e.ask, mine[:]...)
	e.ask = append(e.ask, 0, 0, 0, 0, 0, 0)
	e.ask = append(e.ask, four[:]...)
	return e, nil
}

func (e *ear) close() { e.conn.Close() }

// shout asks until ctx ends. A question that cannot be sent is lost, as on any
// network.
func (e *ear) shout(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	all := &packet.Addr{HardwareAddr: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for {
		select {
		case <-tick.C:
			e.conn.WriteTo(e.ask, all)
		case <-ctx.Done():
			return
		}
	}
}

// hear tells of everyone who says that the address is his, until the ear is
// closed.
func (e *ear) hear(tell func(mac string, at time.Time)) {
	buf := make([]byte, 128)
	for {
		n, _, err := e.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if n < 42 || binary.BigEndian.Uint16(buf[12:]) != etherARP {
			continue
		}
		if sender, _ := netip.AddrFromSlice(buf[28:32]); sender == e.want {
			tell(net.HardwareAddr(buf[22:28]).String(), time.Now())
		}
	}
}

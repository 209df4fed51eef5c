package heartbeat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// networkHeader is where a filter of a socket finds the IP header
// (SKF_NET_OFF of linux/filter.h).
const networkHeader = 0xfff00000

// newFilter returns a program that lets datagrams from the addresses of one
// family pass. What it drops never fills the buffer of the socket, so a flood
// from elsewhere costs no heartbeat. It protects nothing else: sources are
// easily forged.
func newFilter(from []netip.Addr, six bool) ([]bpf.RawInstruction, error) {
	pass, drop := bpf.RetConstant{Val: 1 << 16}, bpf.RetConstant{Val: 0}
	var prog []bpf.Instruction
	if !six {
		prog = append(prog, bpf.LoadAbsolute{Off: networkHeader + 12, Size: 4})
	}
	for _, a := range from {
		if a = a.Unmap(); a.Is6() != six {
			continue
		}
		b := a.AsSlice()
		for at := 0; at < len(b); at += 4 {
			if six {
				prog = append(prog, bpf.LoadAbsolute{Off: networkHeader + 8 + uint32(at), Size: 4})
			}
			skip := uint8((len(b)-at-4)/4*2 + 1) // what is left of this address
			prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(b[at:]), SkipFalse: skip})
		}
		prog = append(prog, pass)
	}
	raw, err := bpf.Assemble(append(prog, drop))
	if err != nil {
		return nil, fmt.Errorf("a filter for heartbeats: %w", err)
	}
	return raw, nil
}

// attach puts the program in the place of an earlier one.
func attach(c syscall.RawConn, prog []bpf.RawInstruction) error {
	list := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		list[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
			Len: uint16(len(list)), Filter: &list[0],
		})
	})
	if err != nil {
		return err
	}
	return failed
}

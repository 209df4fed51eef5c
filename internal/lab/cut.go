package lab

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Cut keeps frames between two machines from arriving.
type Cut struct {
	A       string       `json:"a"`
	B       string       `json:"b"`
	Network netip.Prefix `json:"network,omitzero"`  // only NICs with an address in it; zero: all
	OneWay  bool         `json:"one_way,omitempty"` // only what A sends to B is lost
}

// same says whether a cut is between these two, whichever way.
func (c Cut) between(a, b string) bool {
	return c.A == a && c.B == b || c.A == b && c.B == a
}

// sight is an interface that addresses are on, and its hardware address.
type sight struct {
	device string
	mac    net.HardwareAddr
	nic    NIC
}

// sights returns the interfaces of a machine that carry its addresses: the
// vswitches of a host, the NICs of everything else.
func (s *supervisor) sights(name string) []sight {
	i := slices.IndexFunc(s.all, func(m *unit) bool { return m.spec.Name == name })
	m := s.all[i]
	var out []sight
	for j, n := range m.spec.NICs {
		v := sight{device: n.Name, mac: macOf(i, j, false), nic: n}
		if m.kind == KindHost {
			v = sight{device: n.VSwitch, mac: macOf(i, j, true), nic: n}
		}
		out = append(out, v)
	}
	return out
}

func (v sight) in(network netip.Prefix) bool {
	return !network.IsValid() || slices.ContainsFunc(v.nic.Addresses, network.Contains)
}

// loses returns the hardware addresses whose frames a machine loses, by its
// device.
func (s *supervisor) loses(name string) map[string][]net.HardwareAddr {
	lost := map[string][]net.HardwareAddr{}
	for _, c := range s.cuts {
		var from string
		switch {
		case c.B == name:
			from = c.A
		case c.A == name && !c.OneWay:
			from = c.B
		default:
			continue
		}
		for _, mine := range s.sights(name) {
			for _, theirs := range s.sights(from) {
				if mine.in(c.Network) && theirs.in(c.Network) {
					lost[mine.device] = append(lost[mine.device], theirs.mac)
				}
			}
		}
	}
	return lost
}

// filter makes the rules of a running machine what the cuts say. A frame is
// dropped where it comes in, by the hardware address that it comes from: so
// ARP, every IP version and floating addresses are cut alike, and the sender
// gets no error, as with a real network. A paused machine gets no frame at all:
// its kernel is this machine's, which is not paused and would answer.
func (s *supervisor) filter(m *unit) error {
	lost := s.loses(m.spec.Name)
	policy := nftables.ChainPolicyAccept
	if m.state == Paused {
		policy = nftables.ChainPolicyDrop
		for _, v := range s.sights(m.spec.Name) {
			lost[v.device] = nil
		}
	}
	if len(lost) == 0 && !m.filtered {
		return nil
	}
	conn, err := nftables.New(nftables.WithNetNSFd(int(m.net.ns.Fd())))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Name: "lab", Family: nftables.TableFamilyNetdev})
	conn.DelTable(table)
	if len(lost) > 0 {
		conn.AddTable(table)
	}
	for device, macs := range lost {
		chain := conn.AddChain(&nftables.Chain{
			Name: "in-" + device, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Device: device, Policy: &policy,
		})
		for _, mac := range macs {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: mac},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("cut the network of %s: %w", m.spec.Name, err)
	}
	m.filtered = len(lost) > 0
	return nil
}

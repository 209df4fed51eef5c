package chaos_test

import (
	"context"
	"encoding/binary"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const tableName = "chaos"

// The families of rules; one fault at a time has each.
const (
	ipv4 = nftables.TableFamilyIPv4
	arp  = nftables.TableFamilyARP
)

// rules fills a table, which is new.
type rules func(conn *nftables.Conn, t *nftables.Table)

// filters makes a fault of rules.
func (c *chaos) filters(f *fault, family nftables.TableFamily, fill rules) {
	f.begin = func(ctx context.Context) error { return c.filter(ctx, f.member, family, fill) }
	f.end = func(ctx context.Context) error { return c.filter(ctx, f.member, family, nil) }
}

// filter replaces the rules in a machine's own packet filter; nil removes them.
func (c *chaos) filter(ctx context.Context, member int, family nftables.TableFamily, fill rules) error {
	return c.Lab.Do(ctx, c.members[member], func() error {
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer ns.Close()
		conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
		if err != nil {
			return err
		}
		t := conn.AddTable(&nftables.Table{Name: tableName, Family: family})
		conn.DelTable(t)
		if fill != nil {
			fill(conn, conn.AddTable(t))
		}
		return conn.Flush()
	})
}

// hooks are where packets for the machine and from it pass.
var hooks = []struct {
	name string
	hook *nftables.ChainHook
}{{"in", nftables.ChainHookInput}, {"out", nftables.ChainHookOutput}}

func chain(conn *nftables.Conn, t *nftables.Table, name string, hook *nftables.ChainHook) *nftables.Chain {
	return conn.AddChain(&nftables.Chain{
		Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter,
	})
}

// rejects answers what comes from a peer with "port unreachable".
func (c *chaos) rejects(peer int, r rolled) rules {
	nics := []string{r.nic}
	if r.all {
		nics = []string{"eth0", "eth1"}
	}
	return func(conn *nftables.Conn, t *nftables.Table) {
		in := chain(conn, t, "in", nftables.ChainHookInput)
		for _, nic := range nics {
			conn.AddRule(&nftables.Rule{Table: t, Chain: in, Exprs: []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, // the source
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: c.address(peer, nic).AsSlice()},
				&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}, // port unreachable (RFC 792)
			}})
		}
	}
}

// blackHole loses what is larger than 1400 bytes, both ways, and tells nobody.
func blackHole(conn *nftables.Conn, t *nftables.Table) {
	for _, h := range hooks {
		conn.AddRule(&nftables.Rule{Table: t, Chain: chain(conn, t, h.name, h.hook), Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyLEN, Register: 1},
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: binary.BigEndian.AppendUint32(nil, 1400)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
}

// some is true for so many percent of the packets, at random.
func some(percent int) []expr.Any {
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: 100, Type: unix.NFT_NG_RANDOM},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binary.BigEndian.AppendUint32(nil, uint32(percent))},
	}
}

// loses drops packets in both directions.
func loses(percent int) rules {
	return func(conn *nftables.Conn, t *nftables.Table) {
		for _, h := range hooks {
			conn.AddRule(&nftables.Rule{Table: t, Chain: chain(conn, t, h.name, h.hook), Exprs: append(some(percent), &expr.Verdict{Kind: expr.VerdictDrop})})
		}
	}
}

// corrupts changes two bytes of the content of what arrives. Between namespaces
// nobody checks checksums, so the program gets it.
func corrupts(percent int) rules {
	return func(conn *nftables.Conn, t *nftables.Table) {
		conn.AddRule(&nftables.Rule{Table: t, Chain: chain(conn, t, "in", nftables.ChainHookInput), Exprs: append(some(percent),
			&expr.Immediate{Register: 1, Data: []byte{0x55, 0xaa}},
			&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 40, Len: 2},
		)})
	}
}

// repeats sends everything for the other members twice.
func (c *chaos) repeats(member int) rules {
	return func(conn *nftables.Conn, t *nftables.Table) {
		out := chain(conn, t, "out", nftables.ChainHookOutput)
		for i := range c.members {
			for _, nic := range []string{"eth0", "eth1"} {
				to := c.address(i, nic).AsSlice()
				if i == member {
					continue
				}
				conn.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: []expr.Any{
					&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, // the destination
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: to},
					&expr.Immediate{Register: 1, Data: to},
					&expr.Dup{RegAddr: 1},
				}})
			}
		}
	}
}

// mute drops all ARP.
func mute(conn *nftables.Conn, t *nftables.Table) {
	for name, hook := range map[string]nftables.ChainHook{"in": 0, "out": 1} { // NF_ARP_IN, NF_ARP_OUT
		conn.AddRule(&nftables.Rule{Table: t, Chain: chain(conn, t, name, &hook), Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
	}
}

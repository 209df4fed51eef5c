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

// rules fills a table of family ip, which is new.
type rules func(conn *nftables.Conn, t *nftables.Table)

// filter replaces the rules in a machine's own packet filter; nil removes them.
func (c *chaos) filter(ctx context.Context, member int, fill rules) error {
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
		t := conn.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4})
		conn.DelTable(t)
		if fill != nil {
			fill(conn, conn.AddTable(t))
		}
		return conn.Flush()
	})
}

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
	for name, hook := range map[string]*nftables.ChainHook{"in": nftables.ChainHookInput, "out": nftables.ChainHookOutput} {
		conn.AddRule(&nftables.Rule{Table: t, Chain: chain(conn, t, name, hook), Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyLEN, Register: 1},
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: binary.BigEndian.AppendUint32(nil, 1400)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
}

package app

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/client"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

// answersWithin is how long an address of another node may take to say that it is
// there, before the next one is tried.
const answersWithin = 2 * time.Second

// onNode calls f with the API of another node, at its first address that answers.
// The call is this node's, which may do there what root may.
func (d *Daemon) onNode(ctx context.Context, name cluster.NodeName, f func(*client.Client) error) error {
	file := d.file()
	n := file.Node(name)
	if n == nil {
		return &api.Error{Code: "no-such-node", Message: fmt.Sprintf("there is no node %q", name), Hint: "tasuki node list"}
	}
	cas, err := identity.ParseCertificates(d.id.CAPEM())
	if err != nil {
		return err
	}
	var why []string
	for _, a := range n.Addresses {
		at := netip.AddrPortFrom(a, file.PortOf(n))
		c := client.TLS(at.String(), d.id.APITLS(cas, file.Cluster, name))
		defer c.Close()
		if err := answers(ctx, c); err != nil {
			why = append(why, err.Error())
			continue
		}
		return f(c)
	}
	return &api.Error{Code: client.CodeUnreachable, Message: fmt.Sprintf("node %s does not answer: %s", name, strings.Join(why, "; ")), Hint: "tasuki status shows which nodes are up; or ask on that node"}
}

func answers(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	return c.Do(ctx, "GET", "/v1/ping", nil, nil)
}

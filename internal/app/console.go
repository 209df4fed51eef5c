package app

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/console"
)

// consoleDoor opens the door for browsers and returns what serves it until ctx
// ends. A node whose console cannot be opened is a node all the same: the log says
// so, and nil is returned.
func (d *Daemon) consoleDoor(ctx context.Context, handler http.Handler, errors *log.Logger) func() error {
	port := console.Port(int(d.port))
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		go d.record(ctx, api.Event{Level: cluster.LevelWarn, Module: "apisv", Code: "no-console",
			Text: fmt.Sprintf("This node does not serve the console: tcp port %d cannot be opened: %v.", port, err)})
		return func() error { return nil }
	}
	c := console.New(console.Options{API: handler, Cluster: forConsole{d}, Version: d.opt.Version, Port: port})
	s := &http.Server{
		Handler: c, TLSConfig: d.id.BrowserTLS(d.browsedAt), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: errors,
	}
	return func() error { return serveUntil(ctx, s, func() error { return s.ServeTLS(l, "", "") }) }
}

// browsedAt returns the addresses by which a browser may come to this node: its
// own, and those that groups may bring here.
func (d *Daemon) browsedAt() []netip.Addr {
	f := d.file()
	var out []netip.Addr
	if n := f.Node(d.node); n != nil {
		out = append(out, n.Addresses...)
		out = append(out, n.Public)
	}
	for _, g := range f.Groups {
		for _, r := range g.Resources {
			if r.FloatingIP != nil {
				out = append(out, r.FloatingIP.Address)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// forConsole is what the console must know of a daemon.
type forConsole struct{ *Daemon }

// Vouch signs a statement for the other nodes.
func (c forConsole) Vouch(purpose string, statement []byte) (string, error) {
	return c.id.Vouch(purpose, statement)
}

// Vouched returns what a node that the cluster file still has has signed.
func (c forConsole) Vouched(purpose, voucher string) ([]byte, cluster.NodeName, error) {
	statement, by, err := c.id.Vouched(purpose, voucher)
	if err != nil {
		return nil, "", err
	}
	if c.file().Node(by) == nil {
		return nil, "", notInFile(c.file(), by)
	}
	return statement, by, nil
}

// TurnedAway tells the operator's log of somebody who was not let in.
func (c forConsole) TurnedAway(ctx context.Context, what string, from netip.Addr, why string) {
	c.away.tell(ctx, what, mapped(from), why)
}

// Consoles returns the consoles of the other nodes: first of those that can run
// groups, which hold more than a witness does.
func (c forConsole) Consoles() []console.Elsewhere {
	f := c.file()
	var first, last []console.Elsewhere
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.Name == c.node {
			continue
		}
		port := strconv.Itoa(console.Port(int(f.PortOf(n))))
		e := console.Elsewhere{Node: n.Name, Origin: "https://" + net.JoinHostPort(n.Public.String(), port)}
		if n.Witness {
			last = append(last, e)
		} else {
			first = append(first, e)
		}
	}
	return append(first, last...)
}

// Names returns the names of the cluster and of this node.
func (c forConsole) Names() (cluster.Name, cluster.NodeName) { return c.id.Cluster(), c.node }

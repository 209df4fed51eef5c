package chaos_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// site is one installation: the machines of a layout and their cluster file.
type site struct {
	members     []string // of the cluster, the witness w too
	owners      int      // how many of them, from the first on, can own the group
	net         string   // what all addresses begin with
	shape       string   // the shipped layout
	doubles     doubles
	hosted      bool // the owners are guests of one host, which forces them off before a takeover
	unwatched   bool // no watchdog
	arbitration string
}

// doubles says when there may be two owners for as long as a fault lasts.
type doubles string

const (
	never   doubles = ""
	byPing  doubles = "both reach the target" // the nodes lose each other and both still reach it
	bySplit doubles = "they lose each other"
	byPause doubles = "a machine wakes" // and its processes run before its daemon does
)

// wakes bounds two owners by byPause.
const wakes = 100 * time.Millisecond

// gate is a machine on the public network that is no member: the target of
// pings, and the stranger that takes the floating address.
const gate = "gate"

// hypervisor is the machine under the guests of a hosted site, a cluster of its own.
const hypervisor = "h"

func (s site) floating() netip.Addr { return netip.MustParseAddr(s.net + ".1.50") }

// networks of a site, by the interface that leads to it.
func (s site) network(nic string) netip.Prefix {
	third := map[string]string{"eth0": "1", "eth1": "2"}[nic]
	return netip.MustParsePrefix(fmt.Sprintf("%s.%s.0/24", s.net, third))
}

// address is the own address of a member.
func (s site) address(member int, nic string) netip.Addr {
	a := s.network(nic).Addr()
	for range member + 1 {
		a = a.Next()
	}
	return a
}

var sites = map[string]site{
	"witness":       {members: []string{"n1", "n2", "w"}, owners: 2, net: "10.20", shape: "witness", hosted: true},
	"three":         {members: []string{"n1", "n2", "n3"}, owners: 3, net: "10.10", shape: "three", hosted: true},
	"witness-lease": {members: []string{"n1", "n2", "w"}, owners: 2, net: "10.20", shape: "witness", doubles: byPause},
	"three-lease":   {members: []string{"n1", "n2", "n3"}, owners: 3, net: "10.10", shape: "three", doubles: byPause},
	// For faults that do not make a daemon stand still.
	"unwatched": {members: []string{"n1", "n2", "w"}, owners: 2, net: "10.20", shape: "witness", unwatched: true},
	"pair-none": {members: []string{"n1", "n2"}, owners: 2, net: "10.20", shape: "witness", doubles: bySplit, arbitration: "none"},
	"pair-ping": {members: []string{"n1", "n2"}, owners: 2, net: "10.20", shape: "witness", doubles: byPing, arbitration: "{ping: {targets: [10.20.1.254]}}"},
}

func siteNames() string { return strings.Join(slices.Sorted(maps.Keys(sites)), ", ") }

// file is the cluster file.
func (s site) file() []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, "cluster: chaos\nnodes:\n")
	for i, m := range s.members {
		more := ""
		switch {
		case i >= s.owners:
			more = ", witness: true"
		case s.hosted:
			more = ", fence: [[{device: host}]]"
		}
		fmt.Fprintf(&b, "  %s: {addresses: [%s, %s]%s}\n", m, s.address(i, "eth1"), s.address(i, "eth0"), more)
	}
	if s.hosted {
		fmt.Fprint(&b, "takeover: fence\nfences:\n  host: {link: host, timeout: 5s}\n")
	}
	if s.arbitration != "" {
		fmt.Fprintf(&b, "arbitration: [%s]\n", s.arbitration)
	}
	if !s.unwatched {
		fmt.Fprint(&b, "monitors:\n  userw: {kind: userspace, method: keepalive}\n")
	}
	fmt.Fprintf(&b, "groups:\n  g:\n    nodes: [%s]\n    resources:\n      ip: {kind: floating-ip, address: %s}\n      web: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}\n",
		strings.Join(s.members[:s.owners], ", "), s.floating())
	return b.Bytes()
}

// hostFile is the cluster file of the host.
func (s site) hostFile() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "cluster: host\nnodes:\n  %s: {addresses: [%s.2.253, %s.1.253]}\nguests:\n", hypervisor, s.net, s.net)
	for _, m := range s.members[:s.owners] {
		fmt.Fprintf(&b, "  %s: {lab: %s}\n", m, m)
	}
	return b.Bytes()
}

// layout is the shipped one with the members of the site, and the gate.
func (s site) layout() (*lab.Layout, error) {
	l, err := lab.Shipped(s.shape)
	if err != nil {
		return nil, err
	}
	l.Machines = slices.DeleteFunc(l.Machines, func(m lab.Machine) bool { return !slices.Contains(s.members, m.Name) })
	l.Machines = append(l.Machines, lab.Machine{Name: gate, NICs: []lab.NIC{
		{Name: "eth0", Switch: "public", Addresses: []netip.Addr{netip.MustParseAddr(s.net + ".1.254")}},
	}})
	if s.hosted {
		s.underHost(l)
	}
	return l, nil
}

// underHost makes guests of the owners, whose NICs lead to the same switches
// through those of the host.
func (s site) underHost(l *lab.Layout) {
	l.Hosts = []lab.Machine{{Name: hypervisor, NICs: []lab.NIC{
		{Name: "eth0", Switch: "public", VSwitch: "v-public", Addresses: []netip.Addr{netip.MustParseAddr(s.net + ".1.253")}},
		{Name: "eth1", Switch: "interconnect", VSwitch: "v-interconnect", Addresses: []netip.Addr{netip.MustParseAddr(s.net + ".2.253")}},
	}}}
	l.Machines = slices.DeleteFunc(l.Machines, func(m lab.Machine) bool {
		if !slices.Contains(s.members[:s.owners], m.Name) {
			return false
		}
		m.Host = hypervisor
		for i := range m.NICs {
			m.NICs[i].Switch, m.NICs[i].VSwitch = "", "v-"+m.NICs[i].Switch
		}
		l.Guests = append(l.Guests, m)
		return true
	})
}

// link makes a cluster of the host, and lets the members' cluster have it power
// the guests off.
func (c *chaos) link(ctx context.Context) error {
	if err := c.Cluster(ctx, c.hostFile(), func(string) {}, hypervisor); err != nil {
		return err
	}
	token, err := c.Do(ctx, hypervisor, "tasuki", "link", "invite", "chaos", "--verbs", "fence", "--guests", strings.Join(c.members[:c.owners], ","))
	if err != nil {
		return err
	}
	if _, err := c.Do(ctx, c.members[0], "tasuki", "link", "add", strings.TrimSpace(token)); err != nil {
		return err
	}
	return c.Until(ctx, "every member can have the others forced off", func() (bool, error) {
		for _, m := range c.members[:c.owners] {
			if _, err := c.Do(ctx, m, "tasuki", "fence", "check"); err != nil {
				return false, nil
			}
		}
		return true, nil
	})
}

// The example's Apache, with a lock around it. The file is one per node and on
// a directory that all machines share, so taking it never fails: whether two
// are held at a time is for the observer to say.
const (
	startScript = `#!/bin/bash
# Takes the node's lock, by a process that stays, then starts the business.
LOCK=@dir@/$(hostname)
PID=/run/chaos-lock.pid
if flock -n "$LOCK" true; then
	setsid flock -F "$LOCK" sleep infinity </dev/null >/dev/null 2>&1 &
	echo $! >$PID
	end=$((SECONDS + 5))
	while flock -n "$LOCK" true; do
		[ $SECONDS -ge $end ] && exit 1
		sleep 0.01
	done
fi
exec /etc/tasuki/scripts/g/web/apache-start.sh
`
	stopScript = `#!/bin/bash
# Stops the business, then lets go of the node's lock.
LOCK=@dir@/$(hostname)
PID=/run/chaos-lock.pid
/etc/tasuki/scripts/g/web/apache-stop.sh || exit 1
[ -s $PID ] && kill -KILL "$(cat $PID)" 2>/dev/null
end=$((SECONDS + 5))
until flock -n "$LOCK" true; do
	[ $SECONDS -ge $end ] && exit 1
	sleep 0.01
done
rm -f $PID
`
)

// chaos is one run.
type chaos struct {
	site
	*demo.Stage
	t     *testing.T
	locks string // the directory with a lock file for each member
	seen  *observer
	rolls *roller

	rounds  []*round
	failed  []string    // what must not be and was seen
	stopped atomic.Bool // an operator has stopped the group
}

// build starts a lab with the site's cluster and an observer.
func build(t *testing.T, s site) *chaos {
	t.Helper()
	ctx := t.Context()
	l, err := s.layout()
	must(t, err)
	up, err := lab.Start(ctx, lab.Options{Layout: l, Name: fmt.Sprintf("chaos%d", os.Getpid()), Binary: program, StateSize: stateSize, Attached: true})
	must(t, err)
	c := &chaos{t: t, site: s, Stage: &demo.Stage{Lab: up, Guests: s.members, Client: "client", Group: "g", Resource: "web"}}
	t.Cleanup(func() {
		if err := up.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	// The machines see the outer /mnt, read-only: enough for flock(2).
	c.locks, err = os.MkdirTemp("/mnt", "tasuki-chaos")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(c.locks) })
	must(t, os.Chmod(c.locks, 0o755))
	for _, m := range s.members {
		must(t, os.WriteFile(filepath.Join(c.locks, m), nil, 0o644))
		must(t, c.install(ctx, m))
	}
	must(t, c.Cluster(ctx, s.file(), func(string) {}, s.members...))
	must(t, c.Until(ctx, "the group is active", func() (bool, error) {
		return c.Active(ctx, s.members[0]) != "" && c.allUp(ctx), nil
	}))
	if s.hosted {
		must(t, c.link(ctx))
	}
	c.seen, err = observe(ctx, c)
	must(t, err)
	t.Cleanup(c.seen.stop)
	c.rolls = newRoller(s, *seed, *minutes, *only)
	return c
}

func (c *chaos) install(ctx context.Context, m string) error {
	if err := c.Scripts(ctx, m); err != nil {
		return err
	}
	const dir = "/etc/tasuki/scripts/g/web/"
	for _, s := range []string{"start", "stop"} {
		if _, err := c.Do(ctx, m, "mv", dir+s+".sh", dir+"apache-"+s+".sh"); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"start.sh": startScript, "stop.sh": stopScript} {
		if err := c.Lab.WriteFile(ctx, m, dir+name, 0o755, []byte(strings.ReplaceAll(text, "@dir@", c.locks))); err != nil {
			return err
		}
	}
	return nil
}

// allUp says whether the program itself says that all nodes are up.
func (c *chaos) allUp(ctx context.Context) bool {
	for _, m := range c.members {
		st, err := c.Status(ctx, m)
		if err != nil {
			return false
		}
		for _, n := range st.Nodes {
			if n.State != "up" || !n.Voter {
				return false
			}
		}
	}
	return true
}

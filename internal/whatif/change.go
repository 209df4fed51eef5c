package whatif

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Change is one thing that happens, or is asked for; exactly one field is set.
type Change struct {
	Kill  cluster.NodeName // its power is gone, and does not come back
	Leave cluster.NodeName // its daemon is stopped by plan
	Fence *Order
	Cut   *Cut
	Pull  *Pull
	Fail  *Fail
	Ask   *admission.Ask
}

// Order is an operator's order, given at By, to force a node off.
type Order struct{ Node, By cluster.NodeName }

// Cut is what one node sends to another on a path and does not arrive any more.
type Cut struct {
	From, To cluster.NodeName
	Path     int // index of the address; AllPaths: all of them
}

// AllPaths stands for all networks where one is expected.
const AllPaths = -1

// Pull is a cable that is pulled at a node.
type Pull struct {
	Node   cluster.NodeName
	Device string // "": nothing that watches the carrier sees it
	Paths  []int  // indexes of the node's addresses that are behind it
	// Targets are the ping targets of arbitration that the node reaches by it.
	Targets []netip.Addr
}

// Fail is something that goes wrong on a node by itself.
type Fail struct {
	Node     cluster.NodeName     // "": where the group runs that it is about
	Resource cluster.ResourceName // it ends; or
	Monitor  cluster.MonitorName  // the monitor finds what it watches bad, for good
	Rehearse bool                 // nothing fails, but the monitor's recovery is rehearsed
	Text     string
}

// Suppose is how a step of a resource goes.
type Suppose struct {
	Takes time.Duration
	Fails int  // so many times from now on; -1: always
	Hangs bool // no word of it ever
}

// Step names a step of a resource for Suppose.
type Step struct {
	Resource cluster.ResourceName
	What     string
}

// The steps of a resource.
const (
	Start   = "start"
	Stop    = "stop"
	Force   = "force"   // of a stop that failed
	Isolate = "isolate" // it always takes no time
)

// check says what of a change does not exist in the file, or nil.
func (c Change) check(f *config.File) *api.Error {
	node := func(n cluster.NodeName) *api.Error {
		if f.Node(n) == nil {
			return &api.Error{Code: "no-such-node", Message: fmt.Sprintf("there is no node %q", n), Hint: "tasuki node list"}
		}
		return nil
	}
	switch {
	case c.Kill != "":
		return node(c.Kill)
	case c.Leave != "":
		return node(c.Leave)
	case c.Fence != nil:
		return node(c.Fence.Node)
	case c.Pull != nil:
		return node(c.Pull.Node)
	case c.Cut != nil:
		if no := node(c.Cut.From); no != nil {
			return no
		}
		return node(c.Cut.To)
	case c.Fail != nil:
		return c.Fail.check(f)
	}
	return nil
}

func (c *Fail) check(f *config.File) *api.Error {
	if c.Node != "" && f.Node(c.Node) == nil {
		return Change{Kill: c.Node}.check(f)
	}
	if c.Resource != "" {
		if f.GroupOf(c.Resource) == nil {
			return &api.Error{Code: "no-such-resource", Message: fmt.Sprintf("no group has a resource %q", c.Resource), Hint: "tasuki group list"}
		}
		return nil
	}
	m := f.Monitor(c.Monitor)
	if m == nil {
		return &api.Error{Code: "no-such-monitor", Message: fmt.Sprintf("there is no monitor %q", c.Monitor), Hint: "tasuki monitor list"}
	}
	if c.Node != "" && !slices.Contains(m.Nodes, c.Node) {
		return &api.Error{Code: "no-such-node", Message: fmt.Sprintf("monitor %s does not watch on %s", m.Name, c.Node), Hint: "tasuki monitor list"}
	}
	return nil
}

// about returns the group that it is about, or nil.
func (c *Fail) about(f *config.File) *config.Group {
	if c.Resource != "" {
		return f.GroupOf(c.Resource)
	}
	t := f.Monitor(c.Monitor).Target
	if g := f.Group(t.Group); g != nil {
		return g
	}
	return f.GroupOf(t.Resource)
}

// String tells people what happens.
func (c Change) String() string {
	switch {
	case c.Kill != "":
		return fmt.Sprintf("%s loses its power", c.Kill)
	case c.Leave != "":
		return fmt.Sprintf("the daemon of %s is stopped by plan", c.Leave)
	case c.Fence != nil:
		return fmt.Sprintf("%s is forced off by its fence", c.Fence.Node)
	case c.Cut != nil && c.Cut.Path == AllPaths:
		return fmt.Sprintf("nothing that %s sends to %s arrives any more", c.Cut.From, c.Cut.To)
	case c.Cut != nil:
		return fmt.Sprintf("nothing that %s sends to %s on network %d arrives any more", c.Cut.From, c.Cut.To, c.Cut.Path+1)
	case c.Pull != nil && c.Pull.Device != "":
		return fmt.Sprintf("the cable of %s is pulled at %s (%s)", c.Pull.Device, c.Pull.Node, networks(c.Pull.Paths))
	case c.Pull != nil:
		return fmt.Sprintf("%s is cut from %s", c.Pull.Node, networks(c.Pull.Paths))
	case c.Fail != nil && c.Fail.Resource != "":
		return fmt.Sprintf("resource %s fails on %s", c.Fail.Resource, c.Fail.Node)
	case c.Fail != nil && c.Fail.Rehearse:
		return fmt.Sprintf("the recovery of monitor %s is rehearsed on %s", c.Fail.Monitor, c.Fail.Node)
	case c.Fail != nil:
		return fmt.Sprintf("monitor %s finds what it watches bad on %s", c.Fail.Monitor, c.Fail.Node)
	case c.Ask != nil && c.Ask.Kind == admission.ConfigApply:
		return "another cluster file is put in force"
	case c.Ask != nil:
		return asked(c.Ask)
	}
	return "nothing happens"
}

// networks names networks as people count them.
func networks(paths []int) string {
	if len(paths) == 0 {
		return "no network of the cluster"
	}
	text := "network"
	for i, p := range paths {
		switch {
		case i == 0:
			text = fmt.Sprintf("network %d", p+1)
		default:
			text += fmt.Sprintf(" and %d", p+1)
		}
	}
	return text
}

// done is what is asked for, as people say it of a group.
var done = map[admission.Kind]string{
	admission.GroupMove: "moved", admission.GroupFailover: "failed over", admission.GroupStop: "stopped", admission.GroupStart: "started", admission.GroupRestart: "restarted",
}

func asked(a *admission.Ask) string {
	verb := done[a.Kind]
	switch {
	case verb == "":
		return fmt.Sprintf("%s is asked for", a.Kind)
	case a.To == "":
		return fmt.Sprintf("group %s is %s", a.Group, verb)
	case a.Kind == admission.GroupStart:
		return fmt.Sprintf("group %s is %s on %s", a.Group, verb, a.To)
	}
	return fmt.Sprintf("group %s is %s to %s", a.Group, verb, a.To)
}

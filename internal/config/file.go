package config

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// File is a cluster file after every check: names resolve, relations hold,
// defaults are filled in.
type File struct {
	Cluster     cluster.Name
	Comment     string
	Port        uint16 // tcp API and requests, udp heartbeats, of nodes that name no other; default 29002
	Nodes       []Node // in file order, which is the order of preference; 1 to 32
	Arbitration []Arbitrator
	Fences      []Fence
	FenceCheck  time.Duration // how often the fence devices of the other nodes are tried; 0: never
	Takeover    Takeover
	Timing      Timing
	Quarantine  Quarantine
	Groups      []Group
	Monitors    []Monitor
	Outlets     []Outlet // in file order
	Requests    Requests
	Guests      []Guest // of the one node, in file order
	// LibvirtSocket is where the guests' libvirt listens: an absolute path, ""
	// where there are no guests.
	LibvirtSocket string

	warnings []Problem
}

// Node is one machine of the cluster.
type Node struct {
	Name      cluster.NodeName
	Addresses []netip.Addr  // by priority, the interconnect first; 1 to 8
	Public    netip.Addr    // where clients and administrators reach it; default: the last address
	Port      uint16        // 0: the port of the cluster; see PortOf
	Witness   bool          // a vote without groups
	Fence     [][]FenceStep // levels in order; empty: it cannot be forced off
}

// FenceStep is one device of a level. All steps of a level must succeed.
type FenceStep struct {
	Device string // a name of File.Fences
	Plug   string // what the device calls the node
	Delay  time.Duration
}

// Fence is a device that can force nodes off from outside. It is an agent or a
// link.
type Fence struct {
	Name    string
	Comment string
	Agent   string            // a program of fence-agents, without its directory
	Options map[string]string // for the agent; may hold secrets
	Link    cluster.LinkName  // a linked cluster that does it
	Timeout time.Duration     // of switching off and of seeing that it is off
	Verify  bool              // off counts only when the device says that it is
}

// Takeover says what a cluster with a majority waits for before the groups of a
// silent node start elsewhere.
type Takeover string

// The proofs of a takeover. TakeoverFence wants the lease to have run out and
// the node to be confirmed off.
const (
	TakeoverLease Takeover = "lease"
	TakeoverFence Takeover = "fence"
)

// Arbitrator is one way to decide who goes on when no majority is left.
type Arbitrator struct {
	Kind    ArbitratorKind
	Targets []netip.Addr // ping: who reaches enough of these goes on
	Need    int          // ping: how many that is, 1 to all
}

// ArbitratorKind names a way of arbitration.
type ArbitratorKind string

// The ways of arbitration. ArbitrateFence goes on when the other is confirmed to
// be off, and leaves the ruling to the next of the list when that fails. With
// ArbitrateNone both sides go on.
const (
	ArbitrateFence ArbitratorKind = "fence"
	ArbitratePing  ArbitratorKind = "ping"
	ArbitrateNone  ArbitratorKind = "none"
)

// Timing holds the intervals of membership. A profile sets all of them;
// single values override it.
type Timing struct {
	Profile   string        // steady, default, fast
	Heartbeat time.Duration // between two heartbeats
	Lease     time.Duration // how long an acknowledged heartbeat lets a node run groups
	Isolate   time.Duration // the part of the lease that is kept for isolating
	StartWait time.Duration // how long a starting node waits for the others
}

// Quarantine says when a node that keeps failing is given no groups.
type Quarantine struct {
	Failures int           // so many within Within; 0: never
	Within   time.Duration //
	For      time.Duration // from its return on
}

// Hold says when a group that keeps failing over is held where it is.
type Hold struct {
	Failovers int           // so many within Within; 0: never
	Within    time.Duration //
}

// Startup, Failover, Failback of a group: auto or manual.
const (
	Auto   = "auto"
	Manual = "manual"
)

// Group is what fails over as one.
type Group struct {
	Name      cluster.GroupName
	Comment   string
	Nodes     []cluster.NodeName // order of preference; default: all nodes that are no witness
	Startup   string
	Failover  string
	Failback  string
	Forget    time.Duration // failures older than this are forgotten while it runs; 0: never
	Hold      Hold
	Resources []Resource // in file order
}

// Resource is one part of a group.
type Resource struct {
	Name         cluster.ResourceName
	Kind         ResourceKind
	Comment      string
	After        []cluster.ResourceName // started after these, stopped before them
	Activation   Activation
	Deactivation Deactivation
	StartTimeout time.Duration
	StopTimeout  time.Duration
	FloatingIP   *FloatingIP // set where Kind is KindFloatingIP
	Exec         *Exec       // set where Kind is KindExec
	MirrorDisk   *MirrorDisk // set where Kind is KindMirrorDisk
}

// ResourceKind names a kind of resource.
type ResourceKind string

// The kinds of resources.
const (
	KindFloatingIP ResourceKind = "floating-ip"
	KindExec       ResourceKind = "exec"
)

// Activation says what happens when a resource does not start.
type Activation struct {
	Retries     int // 0 to 99
	Failovers   int // how often the group is then tried on another node; AsManyAsNodes
	FinalAction cluster.FinalAction
}

// AsManyAsNodes as a number of failovers means as many as there are nodes.
const AsManyAsNodes = -1

// Deactivation says what happens when a resource does not stop.
type Deactivation struct {
	Retries     int // 0 to 99
	FinalAction cluster.FinalAction
}

// FloatingIP is an address that follows its group.
type FloatingIP struct {
	Address        netip.Addr
	Prefix         int           // 0: from the interface whose subnet holds the address
	Device         string        // "": the interface whose subnet holds the address
	DuplicateCheck time.Duration // how long to probe before activation; 0 switches it off
	AnnounceEvery  time.Duration // between repeated announcements while active
	AnnounceCount  int           // announcements in the burst at activation
	TakeoverWait   time.Duration // how long a start after a failure waits for another user of the address to give it up
	OnConflict     string        // ConflictClaim or ConflictFail
}

// What a start does when a node of the cluster whose right has ended still
// answers for the floating address.
const (
	ConflictClaim = "claim" // take the address and defend it
	ConflictFail  = "fail"  // wait, then fail, as if it were any machine
)

// Exec is a start script and a stop script.
type Exec struct {
	Start     string // absolute, or relative to scripts/GROUP/RESOURCE of the configuration directory
	Stop      string // "": nothing to do at stop beyond ending the supervised process
	Mode      string // ExecSync or ExecAsync
	LogFile   string // "": GROUP-RESOURCE.log in the log directory
	LogSizeMB int    // rotated at this size, one old file kept
}

// Modes of an exec resource.
const (
	ExecSync  = "sync"  // active when the start script has ended with 0
	ExecAsync = "async" // active while the process lives; its death is a failure
)

// Monitor watches one thing. It never decides; its verdict climbs the ladder.
type Monitor struct {
	Name     cluster.MonitorName
	Kind     MonitorKind
	Comment  string
	Nodes    []cluster.NodeName // who watches; default: all nodes that are no witness
	Interval time.Duration      // kinds that poll
	Timeout  time.Duration      // of one check
	Retries  int                // bad results in a row before the verdict is bad, less one
	Wait     time.Duration      // before the first check
	When     string             // WhenAlways, or WhenActive: only while the target group is active here
	Target   Target
	Recovery Recovery
	NICLink  *NICLink
	Custom   *Custom
	UserSp   *Userspace
	Mirror   *MirrorWatch // of KindMirror and KindMirrorConnect
}

// MonitorKind names a kind of monitor.
type MonitorKind string

// The kinds of monitors.
const (
	KindNICLink   MonitorKind = "nic-link"
	KindCustom    MonitorKind = "custom"
	KindUserspace MonitorKind = "userspace"
)

// When a monitor watches.
const (
	WhenAlways = "always"
	WhenActive = "active"
)

// Target is what a recovery acts on: one group, one resource, or the whole
// cluster, which means every group active on the node that saw the fault.
type Target struct {
	Cluster  bool
	Group    cluster.GroupName
	Resource cluster.ResourceName
}

// Recovery is the ladder: script, restarts, failovers, final action.
type Recovery struct {
	Scripts     int // recovery script runs before the first restart
	Restarts    int // reactivations of the target
	Failovers   int
	FinalAction cluster.FinalAction
	// Programs that run before a rung; "" is none. Absolute, or relative to
	// scripts/monitor.s/MONITOR of the configuration directory.
	Script, BeforeRestart, BeforeFailover, BeforeFinal string
	ScriptTimeout                                      time.Duration
}

// NICLink watches the carrier of an interface.
type NICLink struct {
	Device   string
	PerNode  map[cluster.NodeName]string // overrides Device
	Debounce time.Duration               // the link must be down this long
}

// Custom runs an administrator's script.
type Custom struct {
	Script    string
	Mode      string // ExecSync: exit code judged; ExecAsync: must stay alive
	Normal    []int  // exit codes that are good; default 0
	LogFile   string
	LogSizeMB int
}

// Userspace watches the daemon itself.
type Userspace struct {
	Method  string        // MethodWatchdog, MethodSoftdog, MethodIPMI, MethodKeepalive, MethodNone
	Device  string        // default /dev/watchdog
	Timeout time.Duration // no progress for this long resets the node
}

// Methods of a userspace monitor.
const (
	MethodWatchdog  = "watchdog"
	MethodSoftdog   = "softdog"
	MethodIPMI      = "ipmi"
	MethodKeepalive = "keepalive"
	MethodNone      = "none"
)

// Requests says what other clusters may have this one run.
type Requests struct {
	ScriptDirectory string
	ScriptTimeout   time.Duration
}

// Guest is a virtual machine on the only node of a cluster, which can take the
// power from it.
type Guest struct {
	Name   cluster.GuestName
	Kind   GuestKind
	Target string // the domain, the path of the socket, the machine: see Kind
}

// GuestKind names who has a guest's power switch.
type GuestKind string

// The kinds of guests: a domain of libvirt, a QEMU by the socket of its
// monitor (QMP), a machine of a lab.
const (
	GuestLibvirt GuestKind = "libvirt"
	GuestQMP     GuestKind = "qmp"
	GuestLab     GuestKind = "lab"
)

// PortOf returns the port on which a node listens, tcp and udp.
func (f *File) PortOf(n *Node) uint16 { return cmp.Or(n.Port, f.Port) }

// Node returns the node of that name, or nil.
func (f *File) Node(n cluster.NodeName) *Node {
	for i := range f.Nodes {
		if f.Nodes[i].Name == n {
			return &f.Nodes[i]
		}
	}
	return nil
}

// Fence returns the fence device of that name, or nil.
func (f *File) Fence(name string) *Fence {
	for i := range f.Fences {
		if f.Fences[i].Name == name {
			return &f.Fences[i]
		}
	}
	return nil
}

// Group returns the group of that name, or nil.
func (f *File) Group(g cluster.GroupName) *Group {
	for i := range f.Groups {
		if f.Groups[i].Name == g {
			return &f.Groups[i]
		}
	}
	return nil
}

// Monitor returns the monitor of that name, or nil.
func (f *File) Monitor(m cluster.MonitorName) *Monitor {
	for i := range f.Monitors {
		if f.Monitors[i].Name == m {
			return &f.Monitors[i]
		}
	}
	return nil
}

// Guest returns the guest of that name, or nil.
func (f *File) Guest(g cluster.GuestName) *Guest {
	for i := range f.Guests {
		if f.Guests[i].Name == g {
			return &f.Guests[i]
		}
	}
	return nil
}

// OutletsOf returns the outlets of a node, in file order.
func (f *File) OutletsOf(n cluster.NodeName) []Outlet {
	var out []Outlet
	for _, o := range f.Outlets {
		if slices.Contains(o.Nodes, n) {
			out = append(out, o)
		}
	}
	return out
}

// GroupOf returns the group that holds the resource, or nil.
func (f *File) GroupOf(r cluster.ResourceName) *Group {
	for i := range f.Groups {
		if f.Groups[i].Resource(r) != nil {
			return &f.Groups[i]
		}
	}
	return nil
}

// Resource returns the resource of that name, or nil.
func (g *Group) Resource(r cluster.ResourceName) *Resource {
	for i := range g.Resources {
		if g.Resources[i].Name == r {
			return &g.Resources[i]
		}
	}
	return nil
}

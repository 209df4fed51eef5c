package engine

import (
	"net/netip"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/plan"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Event is something that happened outside of the machine; exactly one field
// is set. The zero Event only lets time pass.
type Event struct {
	Beat         *BeatIn
	Peer         *PeerIn
	Ask          *admission.Ask
	OpDone       *OpDone
	Checked      *Checked
	Failed       *Failed
	Exposed      *Exposed
	Probe        *Probe
	Script       *ScriptDone
	Pinged       *Pinged
	Fenced       *Fenced
	Alone        *Alone
	Fence        *Fence
	Log          *api.Event // a line from outside; id, node and time are filled in
	Rehearse     *Rehearse
	Mirror       *MirrorAsk
	MirrorStatus *MirrorStatus
	Leave        bool // stop by plan: groups move away, then Effects.Exit
}

// BeatIn is a heartbeat that arrived and was authenticated.
type BeatIn struct {
	From    cluster.NodeName
	Path    int // index of the sender's address
	Payload []byte
}

// PeerIn is a message of another node's machine.
type PeerIn struct {
	From cluster.NodeName
	Data []byte
}

// OpDone is what came of one Op.
type OpDone struct {
	Group cluster.GroupName
	Epoch cluster.Epoch
	Op    plan.Op
	Why   string // "" if it succeeded
	How   string // of a stop by force that succeeded: what it took
	Took  time.Duration
}

// Checked answers Effects.Check.
type Checked struct {
	Group    cluster.GroupName
	Epoch    cluster.Epoch
	Inactive map[cluster.ResourceName]string // why each that is not active is not
}

// Failed says that an active resource failed by itself.
type Failed struct {
	Group    cluster.GroupName
	Resource cluster.ResourceName
	Epoch    cluster.Epoch
	Why      string
}

// Exposed says that a group could not be isolated in its time: it is harmless
// only when it is stopped, or the node is reset.
type Exposed struct{ Group cluster.GroupName }

// Probe is one observation of a monitor.
type Probe struct {
	Monitor cluster.MonitorName
	Good    bool
	Code    int
	Text    string
}

// Rehearse lets a monitor's real ladder run as if the monitor had turned bad.
type Rehearse struct {
	Monitor cluster.MonitorName
	Cause   cluster.EventID
}

// ScriptDone is what came of a ScriptRun.
type ScriptDone struct {
	Monitor cluster.MonitorName
	Run     uint64
	Exit    int
	Why     string // "" if it ended with exit code 0
	Took    time.Duration
}

// Pinged says whether enough of the arbitration's ping targets answered.
type Pinged struct{ Reached bool }

// Fenced is what came of a FenceRun. Off only if the node was seen to be off.
type Fenced struct {
	Node cluster.NodeName
	Run  uint64
	Off  bool
	Why  string // why it is not known to be off
	Took time.Duration
}

// Alone is an operator's order to go on without the others, who were made sure
// to be off by other means than this program's.
type Alone struct {
	Author string
	Reason string
}

// Fence is an operator's order to force another node off.
type Fence struct {
	Node  cluster.NodeName
	Why   string
	Cause cluster.EventID
}

// Effects is what a Step wants done, in the order of the fields.
type Effects struct {
	Persist *Persist // durably, before anything below happens

	Sends  []Send
	Beats  []BeatOut
	Events []api.Event // for the operator's log

	Runs     *Runs           // what this node runs has changed; to be kept like Lease, before any of it is begun
	Config   *config.File    // a new cluster file is in force; addresses and monitors follow it
	Mirrors  []MirrorTold    // for the copies on this node, before any of Ops
	Refused  []MirrorRefused // asks of the copies on this node
	Isolate  []Task          // make harmless at once
	Restore  []Task
	Announce []Task // tell the network again where these are
	Ops      []Operation
	Checks   []Task
	Scripts  []ScriptRun
	Ping     *PingRun   // ping targets to ask; answer with one Pinged
	Fences   []FenceRun // force these nodes off; answer each with Fenced
	Final    *Final
	Replies  []Reply
	Lease    cluster.Instant // until when this node may run groups; to be kept where a restart of the daemon finds it, a boot does not
	Guard    cluster.Instant // something here must be made harmless by then; 0: nothing. A watchdog is fed only while its time-out ends before
	Changed  bool            // what is agreed on has changed, or who leads
	Exit     bool            // everything is handed over: the daemon may end
	WakeAt   cluster.Instant // step again no later than this
}

// Persist is one durable write.
type Persist struct {
	Reset     bool // forget log and snapshot first
	HardState *raftpb.HardState
	Entries   []*raftpb.Entry
	Snapshot  *raftpb.Snapshot
	Meta      []byte // nil: unchanged
}

// Send is one message for another node's machine.
type Send struct {
	To   cluster.NodeName
	Bulk bool
	Data []byte
}

// BeatOut is one heartbeat and the paths that it goes over.
type BeatOut struct {
	To      cluster.NodeName
	Paths   []int
	Payload []byte
}

// Task is a group's part on this node.
type Task struct {
	Group    config.Group
	Epoch    cluster.Epoch
	Factor   cluster.Factor
	Event    string // START, FAILOVER, RECOVER
	Previous cluster.NodeName
	Cause    cluster.EventID
	Ended    []cluster.NodeName // of a start: nodes that provably have no right to the group any more and may not know it
	Life     uint32             // of a step: as MirrorTold.Life
	Down     []cluster.NodeName // of a start: nodes that are down or have left, with or without such proof
	Handed   bool               // of a start: the resource was active on Previous, which has confirmed its stop in the same plan

	Mirrors map[cluster.ResourceName]state.Mirror `json:",omitempty"` // of a step: what is agreed on about the group's mirror disks
}

// Runs is what a node runs, or may run: for a daemon that starts after another
// one, or cannot.
type Runs struct {
	Guarded bool // others may take it over once the lease has ended
	Groups  []Task
}

// Operation is one step for a resource's driver; answer with OpDone.
type Operation struct {
	Task
	Op plan.Op
}

// ScriptRun is a script of a monitor's ladder; answer with ScriptDone.
type ScriptRun struct {
	Monitor  cluster.MonitorName
	Run      uint64
	Path     string
	Action   string // CLP_ACTION
	Scripts  int    // CLP_RECOVERYCOUNT, CLP_RESTARTCOUNT, CLP_FAILOVERCOUNT
	Restarts int
	Failover int
	Timeout  time.Duration
	Cause    cluster.EventID
}

// PingRun asks whether as many as Need of the targets answer.
type PingRun struct {
	Targets []netip.Addr
	Need    int
}

// FenceRun asks for a node to be forced off by its fence devices.
type FenceRun struct {
	Node cluster.NodeName
	Run  uint64
	Why  string
	// Cause is the event that told of the fence when it began.
	Cause cluster.EventID
}

// Final is a final action that ends this node's part.
type Final struct {
	Action cluster.FinalAction
	Why    string
}

// Reply answers an Ask that came from this node.
type Reply struct {
	ID     cluster.RequestID
	Answer state.Answer
	Err    *api.Error
}

package api

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// GroupOp asks for something to be done with a group.
type GroupOp struct {
	ID    cluster.RequestID `json:"id,omitempty"` // the same id sent twice acts once; "" is a new one
	To    cluster.NodeName  `json:"to,omitempty"` // where to; "" is by the failover policy
	Cause cluster.EventID   `json:"cause,omitempty"`
}

// Begun says what an operation has set in motion.
type Begun struct {
	Text string `json:"text"`
	Plan string `json:"plan,omitempty"` // to wait for, if there is one
	// Files is what a look at the copy of a mirror disk has found.
	Files *MirrorFiles `json:"files,omitempty"`
}

// PlanResult is how a plan ended, or that it has not yet.
type PlanResult struct {
	ID    string            `json:"id"`
	Group cluster.GroupName `json:"group"`
	Ended bool              `json:"ended"`
	OK    bool              `json:"ok"`
	Text  string            `json:"text"`
}

// NodeOp asks for a node to leave by plan, to return, to be released from its
// quarantine, to start without the others, or to be forced off.
type NodeOp struct {
	ID     cluster.RequestID `json:"id,omitempty"`     // the same id sent twice acts once; "" is a new one
	Reason string            `json:"reason,omitempty"` // start-alone and fence: for the log
	Cause  cluster.EventID   `json:"cause,omitempty"`
}

// MaintenanceOp begins or ends the maintenance of a node, a group or the cluster,
// of which one is named.
type MaintenanceOp struct {
	ID      cluster.RequestID `json:"id,omitempty"` // the same id sent twice acts once; "" is a new one
	Node    cluster.NodeName  `json:"node,omitempty"`
	Group   cluster.GroupName `json:"group,omitempty"`
	Cluster bool              `json:"cluster,omitempty"`
	Reason  string            `json:"reason,omitempty"` // to begin one
	For     time.Duration     `json:"for,omitempty" doc:"how long at most, in nanoseconds; 0: 8 hours"`
	Drain   bool              `json:"drain,omitempty"` // of a node: its groups move away
	Cause   cluster.EventID   `json:"cause,omitempty"`
}

// GuestOp asks for something to be done with a guest's power.
type GuestOp struct {
	Cause cluster.EventID `json:"cause,omitempty"`
}

// MonitorOp names the node whose monitor is meant; "" is all that watch.
type MonitorOp struct {
	Node  cluster.NodeName `json:"node,omitempty"`
	Cause cluster.EventID  `json:"cause,omitempty"`
}

// LogLine is a line for the operator's log.
type LogLine struct {
	Text   string          `json:"text"`
	Level  cluster.Level   `json:"level,omitempty"`
	Module string          `json:"module,omitempty"`
	Number int             `json:"number,omitempty"` // -i of clplogcmd
	Cause  cluster.EventID `json:"cause,omitempty"`
}

// Logged is the id of a line that was written.
type Logged struct {
	ID cluster.EventID `json:"id"`
}

// ConfigText is a cluster file as its author wrote it.
type ConfigText struct {
	ConfigVersion
	Text string `json:"text"`
}

// ConfigChange is a cluster file that is to take the place of version Base.
type ConfigChange struct {
	ID   cluster.RequestID `json:"id,omitempty"` // the same id sent twice acts once; "" is a new one
	Text string            `json:"text"`
	Base uint64            `json:"base"` // 0: whatever is in force
	Note string            `json:"note,omitempty"`
}

// ConfigPlan is what a change of the cluster file would do.
type ConfigPlan struct {
	Base     uint64   `json:"base"`
	Changes  []string `json:"changes"`
	Warnings []string `json:"warnings,omitempty"`
	Refused  *Error   `json:"refused,omitempty"` // why it cannot be applied now
}

// TokenRequest asks for a one-time token.
type TokenRequest struct {
	Purpose string              `json:"purpose"` // join, link
	Subject string              `json:"subject"` // the node that may join, the cluster that may link
	Verbs   []cluster.Verb      `json:"verbs,omitempty"`
	Groups  []cluster.GroupName `json:"groups,omitempty"`
	Scripts []string            `json:"scripts,omitempty"`
	Guests  []cluster.GuestName `json:"guests,omitempty"` // that may be powered off; empty: none
	TTL     time.Duration       `json:"ttl,omitempty" doc:"how long it is good, in nanoseconds; 0: one hour"`
}

// TokenText is a token, for the one who may use it.
type TokenText struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// JoinRequest redeems a token for joining.
type JoinRequest struct {
	TokenID string           `json:"token_id"`
	Secret  string           `json:"secret"`
	Node    cluster.NodeName `json:"node"`
	CSR     string           `json:"csr"` // PEM
}

// JoinReply makes a machine a node. PEM texts.
type JoinReply struct {
	Certificate string `json:"certificate"`
	CA          string `json:"ca"`
	CAKey       string `json:"ca_key,omitempty"` // not for a witness
	Config      string `json:"config"`
}

// LinkRequest redeems a token for linking: the asking cluster shows itself.
type LinkRequest struct {
	TokenID string       `json:"token_id"`
	Secret  string       `json:"secret"`
	Cluster cluster.Name `json:"cluster"`
	CA      string       `json:"ca"` // PEM
}

// LinkReply is the cluster that may now be asked.
type LinkReply struct {
	Cluster cluster.Name `json:"cluster"`
	CA      string       `json:"ca"` // PEM
	Nodes   []LinkNode   `json:"nodes"`
}

// LinkToken is a token for linking, to be redeemed by the local daemon.
type LinkToken struct {
	Token string `json:"token"`
}

// FenceCheck asks for a check of the fence devices of a node; "" is every other
// node.
type FenceCheck struct {
	Node cluster.NodeName `json:"node,omitempty"`
}

// NodeFence is how a node can be forced off.
type NodeFence struct {
	Node  cluster.NodeName `json:"node"`
	Fence []FenceState     `json:"fence"`
}

// EventFilter chooses events; zero fields choose all.
type EventFilter struct {
	After  cluster.EventID
	Since  time.Time
	Node   cluster.NodeName
	Group  cluster.GroupName
	Newest bool // the latest Limit of them instead of the first; still in order
	Limit  int
}

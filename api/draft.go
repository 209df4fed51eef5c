package api

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Answers are what the set-up wizard asks, as somebody typed it.
type Answers struct {
	Cluster string       `json:"cluster,omitempty"`
	Nodes   []NodeAnswer `json:"nodes,omitempty" maxItems:"32" doc:"the nodes that can run groups, in the order of preference"`
	Third   ThirdAnswer  `json:"third,omitzero"`
	Group   *GroupAnswer `json:"group,omitempty"`
}

// NodeAnswer is one machine.
type NodeAnswer struct {
	Name      string   `json:"name,omitempty"`
	Addresses []string `json:"addresses,omitempty" maxItems:"8" doc:"one in each network, in the same order for all nodes"`
}

// ThirdAnswer is what decides, beside the nodes, who goes on when they lose each
// other.
type ThirdAnswer struct {
	Kind    Third         `json:"kind,omitempty" doc:"none, ping, fence, witness or node"`
	Node    *NodeAnswer   `json:"node,omitempty" doc:"of witness and node"`
	Targets []string      `json:"targets,omitempty" maxItems:"8" doc:"of ping: addresses of a router or a switch"`
	Fences  []FenceAnswer `json:"fences,omitempty" maxItems:"64" doc:"of fence: how each node is forced off"`
}

// Third names a third thing.
type Third string

// The third things. ThirdNone lets both of two nodes go on.
const (
	ThirdNone    Third = "none"
	ThirdPing    Third = "ping"
	ThirdFence   Third = "fence"
	ThirdWitness Third = "witness"
	ThirdNode    Third = "node"
)

// FenceAnswer is how one node is forced off.
type FenceAnswer struct {
	Node    string            `json:"node,omitempty"`
	Agent   string            `json:"agent,omitempty" doc:"a program of fence-agents, for example fence_ipmilan"`
	Plug    string            `json:"plug,omitempty" doc:"what the device calls the node, if not by its name"`
	Options map[string]string `json:"options,omitempty" doc:"for the agent, for example ip, username, password_script"`
}

// GroupAnswer is a group with at most one resource of each kind.
type GroupAnswer struct {
	Name    string         `json:"name,omitempty"`
	Address *AddressAnswer `json:"address,omitempty"`
	Mirror  *MirrorAnswer  `json:"mirror,omitempty"`
	Program *ProgramAnswer `json:"program,omitempty"`
}

// AddressAnswer is a floating IP.
type AddressAnswer struct {
	Address string `json:"address,omitempty"`
	Prefix  int    `json:"prefix,omitempty" doc:"0: that of the interface whose subnet holds the address"`
	Device  string `json:"device,omitempty" doc:"empty: the interface whose subnet holds the address"`
}

// MirrorAnswer is a mirror disk, whose partitions have the same names on both
// nodes.
type MirrorAnswer struct {
	Data  string `json:"data,omitempty"`
	Meta  string `json:"meta,omitempty"`
	Mount string `json:"mount,omitempty"`
	FS    string `json:"fs,omitempty" doc:"ext3, ext4, xfs; empty: ext4"`
}

// ProgramAnswer is what the group is for.
type ProgramAnswer struct {
	Start string `json:"start,omitempty" doc:"a start script, or without a stop script a program that stays"`
	Stop  string `json:"stop,omitempty"`
}

// Draft is the cluster file that answers come to. It is in force nowhere.
type Draft struct {
	Text     string             `json:"text,omitempty"` // "" where answers are refused
	Refused  []AnswerProblem    `json:"refused,omitempty"`
	Warnings []string           `json:"warnings,omitempty"` // of the file, as tasuki config check tells them
	Setups   []Setup            `json:"setups,omitempty"`   // what each third thing buys; the one that was chosen among them
	Join     []cluster.NodeName `json:"join,omitempty"`     // who has to join still
}

// AnswerProblem is an answer that is refused.
type AnswerProblem struct {
	Field string `json:"field"` // the answer, for example nodes[1].addresses[0]
	What  string `json:"what"`
	Hint  string `json:"hint,omitempty"`
}

// Setup is the cluster with one of the third things, and which faults it survives.
type Setup struct {
	Third    Third     `json:"third"`
	Chosen   bool      `json:"chosen,omitempty"`
	Survives int       `json:"survives"` // as of Status
	Why      string    `json:"why"`
	Bounds   []string  `json:"bounds"` // what the lease rule comes to, for people
	Faults   []Outcome `json:"faults"`
}

// Outcome is what becomes of a group in one fault.
type Outcome struct {
	Fault  Fault         `json:"fault"`
	Is     OutcomeKind   `json:"is"`
	Within time.Duration `json:"within,omitempty"` // the worst case until it starts elsewhere, or goes on; without the time that stop and start take
}

// Fault names something that happens to a cluster, which is well but for that.
type Fault string

// The faults of the table.
const (
	FaultOwner     Fault = "owner"      // the node that runs the group dies
	FaultOther     Fault = "other"      // another node dies
	FaultNetwork   Fault = "network"    // the first network fails, with all that is on it
	FaultLink      Fault = "link"       // the nodes do not hear each other, on no network
	FaultCutOff    Fault = "cut-off"    // the node that runs the group is cut off from everything
	FaultThird     Fault = "third"      // the third thing fails
	FaultThirdLink Fault = "third-link" // it has failed, and the nodes lose each other
	FaultPaused    Fault = "paused"     // the node that runs the group stands still as a whole, and goes on later
)

// OutcomeKind says what becomes of the group.
type OutcomeKind string

// What can become of a group.
const (
	OutcomeUntouched OutcomeKind = "untouched" // it goes on
	OutcomePause     OutcomeKind = "pause"     // it goes on where it is, after a pause
	OutcomeTakeover  OutcomeKind = "takeover"  // it goes on on another node
	OutcomeRisk      OutcomeKind = "risk"      // so, but a node that wakes has it too, until it finds out
	OutcomeBoth      OutcomeKind = "both"      // two nodes run it
	OutcomeStops     OutcomeKind = "stops"     // nobody runs it
)

// DraftStart is what the set-up wizard begins with.
type DraftStart struct {
	Answers Answers  `json:"answers"`        // as the file in force gives them
	Lost    []string `json:"lost,omitempty"` // what the file in force has that is not among the answers
}

// String returns `field: what; hint`.
func (p AnswerProblem) String() string {
	s := p.Field + ": " + p.What
	if p.Hint != "" {
		s += "; " + p.Hint
	}
	return s
}

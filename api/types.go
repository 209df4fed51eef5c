package api

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Event is one line of the operator's log.
type Event struct {
	ID     cluster.EventID   `json:"id"`               // NODE/SEQ, unique in the cluster
	Time   time.Time         `json:"time"`             // the writing node's wall clock
	Node   cluster.NodeName  `json:"node"`             // who wrote it
	Level  cluster.Level     `json:"level"`            //
	Module string            `json:"module"`           // rm, logcmd, apisv, rc, rs, nm, cf, …; at most 6 letters
	Code   string            `json:"code"`             // stable name, for example "group-start-begun"
	Text   string            `json:"text"`             // the sentence for people
	Cause  cluster.EventID   `json:"cause,omitempty"`  // the event that led to this one; may be another cluster's
	Fields map[string]string `json:"fields,omitempty"` // group, resource, node, took_ms, …
}

// Error is what every failed call answers with.
type Error struct {
	Code    string `json:"code"`    // stable name, for example "standby-down"
	Message string `json:"message"` // lower case, one sentence
	Hint    string `json:"hint,omitempty"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Status is the whole cluster as one node sees it.
type Status struct {
	Cluster     cluster.Name       `json:"cluster"`
	Node        cluster.NodeName   `json:"node"`   // who answers
	Leader      cluster.NodeName   `json:"leader"` // "" if there is none
	Generation  cluster.Generation `json:"generation"`
	Solo        bool               `json:"solo"`     // consensus runs with this node alone
	Quorum      bool               `json:"quorum"`   // a majority (or a solo node) can decide
	Survives    int                `json:"survives"` // how many more faults can be survived
	Why         string             `json:"why"`      // the sentence behind Survives
	Config      ConfigVersion      `json:"config"`
	Nodes       []Node             `json:"nodes"`
	Groups      []Group            `json:"groups"`
	Monitors    []Monitor          `json:"monitors"`
	Mirrors     []Mirror           `json:"mirrors,omitempty"`
	Links       []Link             `json:"links"`
	Maintenance []Maintenance      `json:"maintenance,omitempty"`
	Networks    []Network          `json:"networks,omitempty"`
	Outlets     []Outlet           `json:"outlets,omitempty"` // of the node that answers
	Time        *Timekeeping       `json:"time,omitempty"`    // of the node that answers
	Version     string             `json:"version"`
}

// ConfigVersion names one state of the cluster file.
type ConfigVersion struct {
	Version uint64    `json:"version"`
	Author  string    `json:"author,omitempty"`
	Time    time.Time `json:"time"`
	Note    string    `json:"note,omitempty"`
}

// Node is one node.
type Node struct {
	Name       cluster.NodeName  `json:"name"`
	State      cluster.NodeState `json:"state"`
	Self       bool              `json:"self"`
	Witness    bool              `json:"witness,omitempty"`
	Voter      bool              `json:"voter"`
	Lease      bool              `json:"lease"` // only of the node that answers: it may run groups
	Addresses  []Path            `json:"addresses"`
	Since      time.Time         `json:"since"`
	Heard      *time.Time        `json:"heard,omitempty"` // its latest heartbeat that arrived at the node that answers
	Why        string            `json:"why,omitempty"`
	Quarantine *Quarantine       `json:"quarantine,omitempty"`
	Fence      []FenceState      `json:"fence,omitempty"` // how it can be forced off; of the node that answers itself it is not checked
}

// Maintenance is a time in which somebody works on a node, a group, or where both
// are empty on the whole cluster.
type Maintenance struct {
	Node        cluster.NodeName  `json:"node,omitempty"`
	Group       cluster.GroupName `json:"group,omitempty"`
	What        string            `json:"what"` // for people
	Owner       string            `json:"owner"`
	Reason      string            `json:"reason"`
	Since       time.Time         `json:"since"`
	Until       time.Time         `json:"until"`
	Drain       bool              `json:"drain,omitempty"` // the node's groups move away
	Unprotected string            `json:"unprotected"`     // what is not done meanwhile
}

// Quarantine is why a node is given no groups, unless no other node can run them.
// One without an end lasts until the node is released, and then it is given none
// at all.
type Quarantine struct {
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"`
}

// FenceState is one step of a node's fence, as the node that answers has checked
// it.
type FenceState struct {
	Level    int       `json:"level"` // from 1; all steps of a level must succeed
	Device   string    `json:"device"`
	Plug     string    `json:"plug"`
	By       string    `json:"by"`                // the agent, or the link
	Verified time.Time `json:"verified,omitzero"` // the latest good check; zero: there was none
	Why      string    `json:"why,omitempty"`     // the latest check was bad
}

// Path is one network to a node.
type Path struct {
	Address string `json:"address"`
	Up      bool   `json:"up"` // heartbeats arrive from there
}

// Network is one network of the cluster, the n-th addresses of its nodes, with
// each direction between two nodes that are up.
type Network struct {
	Number     int         `json:"number"` // from 1
	Directions []Direction `json:"directions"`
}

// Timekeeping is how well a node came to what was due, in the last hour at most.
type Timekeeping struct {
	Since       time.Time    `json:"since"`
	WorstMS     int64        `json:"worst_ms"` // how late it came at most
	WorstAt     time.Time    `json:"worst_at,omitzero"`
	OldestAckMS int64        `json:"oldest_ack_ms"` // how old the acknowledgements got that its lease stood on
	Late        []LateBucket `json:"late"`
	Profile     string       `json:"profile"` // of the cluster file
	Bears       string       `json:"bears"`   // the fastest profile that bears twice the worst; "" is none
}

// LateBucket counts what came late by less than UnderMS, and not by less than
// half of that.
type LateBucket struct {
	UnderMS int64  `json:"under_ms"` // 0: the rest
	Count   uint64 `json:"count"`
}

// Direction is whether heartbeats of one node reach another on a network.
type Direction struct {
	From   cluster.NodeName `json:"from"`
	To     cluster.NodeName `json:"to"`
	State  string           `json:"state"`             // DirectionOK, DirectionLost or DirectionUnknown
	OneWay bool             `json:"one_way,omitempty"` // it is lost and the opposite direction works
	Since  time.Time        `json:"since,omitzero"`    // by the clock of the receiver
}

// States of a direction.
const (
	DirectionOK      = "ok"
	DirectionLost    = "lost"
	DirectionUnknown = "unknown" // the receiver has not told for a while
)

// Group is one group.
type Group struct {
	Name      cluster.GroupName  `json:"name"`
	Comment   string             `json:"comment,omitempty"`
	Phase     cluster.Phase      `json:"phase"`
	Owner     cluster.NodeName   `json:"owner,omitempty"`
	Epoch     cluster.Epoch      `json:"epoch"`
	Plan      *Plan              `json:"plan,omitempty"`
	Nodes     []cluster.NodeName `json:"nodes"`
	Startup   string             `json:"startup"`
	Failover  string             `json:"failover"`
	Failback  string             `json:"failback"`
	Failovers int                `json:"failovers"`          // used since the counters were cleared
	Counters  []Counter          `json:"counters,omitempty"` // what Failovers is made of
	Excluded  []string           `json:"excluded,omitempty"`
	Held      *Held              `json:"held,omitempty"` // no failure of its resources or monitors moves it
	Why       string             `json:"why,omitempty"`  // why it is where it is
	Resources []Resource         `json:"resources"`
}

// Counter is how often a resource or monitor has moved its group, or restarted it
// (NAME/restart).
type Counter struct {
	Name   string    `json:"name"`
	Count  int       `json:"count"`
	Latest time.Time `json:"latest,omitzero"` // zero: not known
}

// Held is why a group is held where it is.
type Held struct {
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
}

// Plan is the move, start or stop that a group is in the middle of.
type Plan struct {
	ID     string           `json:"id"`
	Action string           `json:"action"` // start, stop, move, failover, takeover
	From   cluster.NodeName `json:"from,omitempty"`
	To     cluster.NodeName `json:"to,omitempty"`
	Why    string           `json:"why"`
	Cause  cluster.EventID  `json:"cause,omitempty"`
}

// Resource is one resource of a group.
type Resource struct {
	Name    cluster.ResourceName  `json:"name"`
	Kind    string                `json:"kind"`
	Comment string                `json:"comment,omitempty"`
	State   cluster.ResourceState `json:"state"`
	Why     string                `json:"why,omitempty"`
	Rung    string                `json:"rung,omitempty"` // of a stop: stop, force or final-action; where it stands or had to climb
	Next    string                `json:"next,omitempty"` // of a stop under way: what follows if this rung fails
}

// Monitor is one monitor, with its state on each node that watches.
type Monitor struct {
	Name    cluster.MonitorName  `json:"name"`
	Kind    string               `json:"kind"`
	Comment string               `json:"comment,omitempty"`
	Verdict cluster.Verdict      `json:"verdict"`          // the worst of all nodes
	Mirror  cluster.ResourceName `json:"mirror,omitempty"` // the mirror disk that it watches
	Nodes   []MonitorOnNode      `json:"nodes"`
}

// MonitorOnNode is what one node's monitor knows.
type MonitorOnNode struct {
	Node      cluster.NodeName `json:"node"`
	Verdict   cluster.Verdict  `json:"verdict"`
	Text      string           `json:"text,omitempty"`
	Scripts   int              `json:"scripts,omitempty"`
	Restarts  int              `json:"restarts,omitempty"`
	Failovers int              `json:"failovers,omitempty"`
}

// Link is another cluster that this one asks, or is asked by.
type Link struct {
	Name    cluster.LinkName    `json:"name"`
	Asks    bool                `json:"asks"` // it may ask us
	Verbs   []cluster.Verb      `json:"verbs,omitempty"`
	Groups  []cluster.GroupName `json:"groups,omitempty"`
	Scripts []string            `json:"scripts,omitempty"`
	Guests  []cluster.GuestName `json:"guests,omitempty"` // that it may power off
	Asked   bool                `json:"asked"`            // we may ask it
	Nodes   []LinkNode          `json:"nodes,omitempty"`
}

// LinkNode is one node of a linked cluster, with every address it is known by.
type LinkNode struct {
	Name      cluster.NodeName `json:"name"`
	Addresses []string         `json:"addresses"`
	Reachable bool             `json:"reachable"`
}

// Request is what one cluster asks another.
type Request struct {
	ID       cluster.RequestID    `json:"id"`
	Verb     cluster.Verb         `json:"verb"`
	Group    cluster.GroupName    `json:"group,omitempty"`
	Resource cluster.ResourceName `json:"resource,omitempty"`
	Script   string               `json:"script,omitempty"`
	Guest    cluster.GuestName    `json:"guest,omitempty"`  // fence
	Action   cluster.PowerAction  `json:"action,omitempty"` // fence: off, or status
	Cause    cluster.EventID      `json:"cause,omitempty"`
	Chain    []Event              `json:"chain,omitempty"` // the asker's events that led here, the oldest first; at most 16
}

// Answer is what a request came to. A request that is refused answers with an
// Error instead.
type Answer struct {
	ID       cluster.RequestID `json:"id"`
	Text     string            `json:"text"`
	Plan     string            `json:"plan,omitempty"`      // GRP_FAILOVER: the plan that was made
	ExitCode int               `json:"exit_code,omitempty"` // EXEC_SCRIPT
	Power    cluster.Power     `json:"power,omitempty"`     // fence: as it was found after the action
	Event    cluster.EventID   `json:"event,omitempty"`
}

// SendRequest asks the local daemon to ask other clusters.
type SendRequest struct {
	Request
	Hosts []string      `json:"hosts"` // addresses or node names of linked clusters
	Wait  time.Duration `json:"wait,omitempty" doc:"for answers, in nanoseconds; 0: 10 s"`
}

// HostAnswer is what one host answered.
type HostAnswer struct {
	Host   string  `json:"host"`
	Via    string  `json:"via,omitempty"` // the address that was used
	Answer *Answer `json:"answer,omitempty"`
	Error  *Error  `json:"error,omitempty"`
}

// Guest is a virtual machine on the node that answers.
type Guest struct {
	Name  cluster.GuestName `json:"name"`
	By    string            `json:"by"`              // libvirt, qmp or lab, and what the guest is called there
	Power cluster.Power     `json:"power,omitempty"` // "": not known, see Error
	Error *Error            `json:"error,omitempty"`
}

package api

import (
	"encoding/json"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Snapshot is all that is needed to ask what the cluster would do: what its nodes
// agree on, and what the node that answers sees beside it.
type Snapshot struct {
	Time       time.Time          `json:"time"` // by the clock of the node that answers
	Status     Status             `json:"status"`
	Generation cluster.Generation `json:"generation"` // of this life of consensus
	Began      cluster.NodeName   `json:"began"`      // who began it
	Voters     []cluster.NodeName `json:"voters"`
	Learners   []cluster.NodeName `json:"learners,omitempty"`
	Config     string             `json:"config"` // the cluster file in force; no secret is in it
	State      json.RawMessage    `json:"state"`  // without the cluster file; of Status.Version, others may read it differently
}

// SimulateRequest asks what would follow if all of this happened at once. The texts
// are those that tasuki simulate takes.
type SimulateRequest struct {
	Kill    []cluster.NodeName `json:"kill,omitempty" maxItems:"64" doc:"nodes that lose their power"`
	Pull    []string           `json:"pull,omitempty" maxItems:"64" doc:"NODE:DEVICE, a cable is pulled; or NODE:NUMBER, a network is cut"`
	Leave   []cluster.NodeName `json:"leave,omitempty" maxItems:"64" doc:"nodes whose daemon is stopped by plan"`
	Move    string             `json:"move,omitempty" doc:"GROUP or GROUP=NODE, a group is moved"`
	Fail    string             `json:"fail,omitempty" doc:"RESOURCE or MONITOR, or one of them @NODE: it fails there"`
	Apply   string             `json:"apply,omitempty" doc:"the text of another cluster file, which is put in force first"`
	Suppose []string           `json:"suppose,omitempty" maxItems:"64" doc:"WHO:WHAT=HOW, how a step goes"`
}

// Simulation is what the cluster would do about a change, found by the shipped
// core on a copy of its state. Times count from the change.
type Simulation struct {
	Cluster  cluster.Name `json:"cluster"`
	Time     time.Time    `json:"time"`   // of the state that it began with
	Change   []string     `json:"change"` // what is assumed to happen, for people
	Assumed  []string     `json:"assumed,omitempty"`
	Bounds   []string     `json:"bounds,omitempty"`  // what the lease rule comes to, for people
	Refused  *Error       `json:"refused,omitempty"` // what was asked for is not done, and nothing changes by it
	Steps    []SimStep    `json:"steps"`             // in order of time
	Groups   []SimGroup   `json:"groups"`
	Nodes    []SimNode    `json:"nodes"`
	Before   SimFaults    `json:"before"`
	After    SimFaults    `json:"after"`
	Config   *ConfigPlan  `json:"config,omitempty"` // of a new cluster file
	Complete bool         `json:"complete"`         // nothing is under way any more at the end
}

// SimStep is one line that the operator's log would get.
type SimStep struct {
	After    time.Duration        `json:"after"`
	Node     cluster.NodeName     `json:"node"` // who would write it
	Level    cluster.Level        `json:"level"`
	Code     string               `json:"code"`
	Group    cluster.GroupName    `json:"group,omitempty"`
	Resource cluster.ResourceName `json:"resource,omitempty"`
	Text     string               `json:"text"`
	Why      string               `json:"why,omitempty"`
	Took     time.Duration        `json:"took,omitempty"` // of a step of a resource
	// Limit is how long a start or a stop may take; Known says that the time
	// assumed for it is how long it took last.
	Limit time.Duration `json:"limit,omitempty"`
	Known bool          `json:"known,omitempty"`
}

// SimGroup is what becomes of one group.
type SimGroup struct {
	Name   cluster.GroupName `json:"name"`
	Before cluster.NodeName  `json:"before,omitempty"` // where it ran
	After  cluster.NodeName  `json:"after,omitempty"`
	Phase  cluster.Phase     `json:"phase"`
	Wanted bool              `json:"wanted"` // it should run somewhere
	Served bool              `json:"served"` // all of it is active on one node at the end
	// Outage is for how long in all it is not active as a whole; of one that is
	// not Served it goes on.
	Outage time.Duration      `json:"outage"`
	Both   []cluster.NodeName `json:"both,omitempty"`   // it is active on several nodes at the end
	Why    string             `json:"why,omitempty"`    // why it is where it is, or cannot run
	Others []string           `json:"others,omitempty"` // why each other node could not take it at the end
	Spare  []cluster.NodeName `json:"spare,omitempty"`  // who could take it
}

// SimNode is what becomes of one node.
type SimNode struct {
	Name  cluster.NodeName  `json:"name"`
	State cluster.NodeState `json:"state"`         // as the others see it at the end
	On    bool              `json:"on"`            // its daemon runs
	End   string            `json:"end,omitempty"` // what ended it: a final action, a fence
	Why   string            `json:"why,omitempty"`
}

// SimFaults is how many more faults can be survived, and why so many.
type SimFaults struct {
	Survives int    `json:"survives"`
	Why      string `json:"why"`
}

// Outage says whether a group that ran, or should, is not active at the end.
func (s *Simulation) Outage() bool {
	for _, g := range s.Groups {
		if !g.Served && (g.Wanted || g.Before != "") {
			return true
		}
	}
	return false
}

// Group returns what becomes of the group of that name, or nil.
func (s *Simulation) Group(g cluster.GroupName) *SimGroup {
	for i := range s.Groups {
		if s.Groups[i].Name == g {
			return &s.Groups[i]
		}
	}
	return nil
}

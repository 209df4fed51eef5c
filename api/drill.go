package api

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Drill is what was done for real, what was foreseen of it and what came. Times
// count from the moment in which it was done, by the clock of the node that the
// drill ran on; each line has the time of the node that wrote it.
type Drill struct {
	Cluster  cluster.Name     `json:"cluster"`
	Node     cluster.NodeName `json:"node"` // on which the drill ran
	Began    time.Time        `json:"began"`
	Change   []string         `json:"change"`
	Reason   string           `json:"reason,omitempty"`
	Event    cluster.EventID  `json:"event"`  // that told of it
	Did      []string         `json:"did"`    // what the drill itself did, in order
	Agrees   bool             `json:"agrees"` // every group is where it was foreseen to be, and came there in that order
	Phases   []DrillPhase     `json:"phases"`
	Groups   []DrillGroup     `json:"groups"`
	Back     []string         `json:"back,omitempty"` // how to bring back what the drill does not
	Foreseen Simulation       `json:"foreseen"`
	Came     []SimStep        `json:"came"`
}

// DrillPhase is one part of what happened and how long it took.
type DrillPhase struct {
	Name     string         `json:"name"` // detected, decided and done: from the beginning; stop and start of a resource: by itself
	Foreseen *time.Duration `json:"foreseen,omitempty"`
	Came     *time.Duration `json:"came,omitempty"`
}

// DrillGroup is what became of one group.
type DrillGroup struct {
	Name     cluster.GroupName `json:"name"`
	Before   cluster.NodeName  `json:"before,omitempty"`
	Foreseen cluster.NodeName  `json:"foreseen,omitempty"`
	Came     cluster.NodeName  `json:"came,omitempty"` // where it is active at the end
	Agrees   bool              `json:"agrees"`
}

// Package quorum decides who goes on when no majority is left, and who stays
// when two went on apart.
package quorum

import (
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Incarnation names one life of consensus: the generation, and the node that
// began it by going on alone. The first life has generation 1 and the node
// that made the cluster. The zero value is a node that has no state.
type Incarnation struct {
	Generation cluster.Generation `json:"g"`
	Node       cluster.NodeName   `json:"n"`
}

// Blank says that there is no state.
func (i Incarnation) Blank() bool { return i.Generation == 0 }

// String returns for example "3/CLP-1".
func (i Incarnation) String() string { return fmt.Sprintf("%d/%s", i.Generation, i.Node) }

// Yields says whether a node of incarnation i must give up its state for that
// of the other: the higher generation stays; of two nodes that went on alone at
// the same time, the one that the file lists first.
func (i Incarnation) Yields(to Incarnation, f *config.File) bool {
	if to.Blank() || i == to {
		return false
	}
	if i.Generation != to.Generation {
		return i.Generation < to.Generation
	}
	return rank(f, to.Node) < rank(f, i.Node)
}

// Order returns a number of 32 bits that is higher for a life to which others
// yield. It tells lives apart whose generations are less than 2^24 away from each
// other.
func (i Incarnation) Order(f *config.File) uint32 {
	return uint32(i.Generation)<<8 | uint32(255-min(rank(f, i.Node), 255))
}

func rank(f *config.File, n cluster.NodeName) int {
	for i := range f.Nodes {
		if f.Nodes[i].Name == n {
			return i
		}
	}
	return len(f.Nodes)
}

// Ping is what the ping targets say.
type Ping int

// What is known of the ping targets.
const (
	PingUnknown Ping = iota // not asked, or no answer yet
	PingReached
	PingLost
)

// Ruling is what arbitration says to a node that lost its majority.
type Ruling int

// The rulings.
const (
	Wait Ruling = iota // not yet: a fact is still missing
	Stop               // isolate and stop
	GoOn               // go on alone
)

// Fence is what came of forcing the other node off.
type Fence int

// What is known of the fence.
const (
	FenceUnknown Fence = iota // not tried, or being tried
	FenceDone                 // the other is confirmed to be off
	FenceFailed
)

// Facts are what arbitration rules by.
type Facts struct {
	Ping  Ping
	Fence Fence
}

// Arbitrate rules for a node of a pair that hears nothing of the other. The
// first arbitrator of the file that can rule decides; a fence that fails leaves
// it to the next. Without one nobody goes on.
func Arbitrate(list []config.Arbitrator, f Facts) (Ruling, string) {
	if len(list) == 0 {
		return Stop, "no majority is left and no arbitration is configured"
	}
	switch list[0].Kind {
	case config.ArbitrateNone:
		return GoOn, "arbitration none: both sides go on"
	case config.ArbitratePing:
		switch f.Ping {
		case PingReached:
			return GoOn, "arbitration ping: a ping target answers here"
		case PingLost:
			return Stop, "arbitration ping: no ping target answers here"
		}
		return Wait, "arbitration ping: waiting for the ping targets"
	case config.ArbitrateFence:
		switch {
		case f.Fence == FenceDone:
			return GoOn, "arbitration fence: the other node is confirmed to be off"
		case f.Fence == FenceUnknown:
			return Wait, "arbitration fence: waiting for the fence device"
		case len(list) == 1:
			return Stop, "arbitration fence: the other node could not be forced off"
		}
		return Arbitrate(list[1:], f)
	}
	return Stop, fmt.Sprintf("arbitration %q is not known here", list[0].Kind)
}

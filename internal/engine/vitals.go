package engine

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Vitals is what a node knows of its own standing, for those who measure it.
type Vitals struct {
	Term       uint64        // of consensus; 0 while the node has no state
	Applied    uint64        // index of the latest entry of the log that is part of the state
	Committed  uint64        // index of the latest entry that is agreed on, as far as is known here
	Leading    bool          // this node is the leader
	Isolated   bool          // its groups are harmless: the lease ended, or is about to
	Lease      time.Duration // until it ends; 0: none is held
	Votes      int           // of the present life of consensus
	VotesThere int           // of those, how many are alive as seen from here
}

// Vitals looks at the node at an instant, which is not before the latest Step.
func (m *Machine) Vitals(now cluster.Instant) Vitals {
	v := Vitals{Applied: m.applied, Leading: m.leading(), Isolated: m.isolated}
	if end, held := m.leaseEnd(); held {
		v.Lease = max(end.Sub(now), 0)
	}
	if m.raft == nil {
		return v
	}
	hs := m.raft.BasicStatus().HardState
	v.Term, v.Committed = hs.GetTerm(), hs.GetCommit()
	for _, n := range m.voters() {
		v.Votes++
		if m.member(n) {
			v.VotesThere++
		}
	}
	return v
}

// BeatSent returns when a heartbeat was sent, on the clock of its sender; false
// for what is none.
func BeatSent(payload []byte) (cluster.Instant, bool) {
	for len(payload) > 0 {
		field, kind, n := protowire.ConsumeTag(payload)
		if n < 0 {
			return 0, false
		}
		payload = payload[n:]
		if field == 5 && kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(payload)
			return cluster.Instant(v), n > 0 && v > 0 && v < 1<<63
		}
		if n = protowire.ConsumeFieldValue(field, kind, payload); n < 0 {
			return 0, false
		}
		payload = payload[n:]
	}
	return 0, false
}

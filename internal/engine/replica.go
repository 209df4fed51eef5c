package engine

import (
	"encoding/json"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/quorum"
	"github.com/tasuki-ha/tasuki/internal/recovery"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Life is a life of consensus and who belongs to it.
type Life struct {
	Incarnation quorum.Incarnation
	Voters      []cluster.NodeName // in file order
	Learners    []cluster.NodeName // likewise; who is to get a vote, or more than can have one
}

// Life returns the life of consensus that this node is part of. Its Incarnation
// is blank where the node has no state.
func (m *Machine) Life() Life {
	return Life{Incarnation: m.meta.Incarnation, Voters: m.voters(), Learners: m.names(m.conf.GetLearners())}
}

// Snapshot returns all that is needed to ask what the cluster would do: the state
// without what nobody needs for that, tokens and answers above all. The cluster
// file is as it was written, with its secrets.
func (m *Machine) Snapshot() (api.Snapshot, error) {
	l := m.Life()
	kept := state.State{
		Config: m.st.Config, Nodes: m.st.Nodes, Groups: m.st.Groups, Suspends: m.st.Suspends, Maintenance: m.st.Maintenance,
		PlanSeq: m.st.PlanSeq, Mirrors: m.st.Mirrors, MirrorSeq: m.st.MirrorSeq,
	}
	kept.Config.Text = ""
	data, err := kept.Marshal()
	if err != nil {
		return api.Snapshot{}, fmt.Errorf("write the replicated state: %w", err)
	}
	return api.Snapshot{Time: m.wall, Status: m.Status(), Generation: l.Incarnation.Generation, Began: l.Incarnation.Node,
		Voters: l.Voters, Learners: l.Learners, Config: m.st.Config.Text, State: data}, nil
}

// Replica returns what a node has persisted that is a part of that life and has
// that state and nothing newer: machines that start from it, one a node, are a
// copy of the cluster. The state is not kept.
func Replica(st *state.State, l Life) (*Persist, error) {
	data, err := st.Marshal()
	if err != nil {
		return nil, fmt.Errorf("write the replicated state: %w", err)
	}
	rec, err := json.Marshal(meta{Incarnation: l.Incarnation})
	if err != nil {
		return nil, fmt.Errorf("write the node's own record: %w", err)
	}
	first := uint64(1)
	snap := &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		ConfState: &raftpb.ConfState{Voters: raftIDs(l.Voters), Learners: raftIDs(l.Learners)}, Index: &first, Term: &first,
	}}
	return &Persist{Reset: true, Snapshot: snap, HardState: &raftpb.HardState{Term: &first, Commit: &first}, Meta: rec}, nil
}

func raftIDs(names []cluster.NodeName) []uint64 {
	var ids []uint64
	for _, n := range names {
		ids = append(ids, raftID(n))
	}
	return ids
}

// Recall gives a machine that starts from a replica what its node knows beside
// it: that the nodes have waited for each other already, and how far the ladders
// of its monitors are climbed.
func (m *Machine) Recall(monitors []api.Monitor) {
	m.waitOver = true
	for _, x := range monitors {
		w := m.watches[x.Name]
		for _, on := range x.Nodes {
			if w != nil && on.Node == m.self {
				w.ladder.Recall(recovery.Counters{Scripts: on.Scripts, Restarts: on.Restarts, Failovers: on.Failovers})
			}
		}
	}
}

package whatif

import (
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Fresh returns the snapshot of a cluster that has just begun with a cluster
// file: all nodes are up and hear each other, all is well, both copies of every
// mirror disk are complete, and its groups start.
func Fresh(text string, at time.Time) (api.Snapshot, error) {
	st := state.New()
	st.Apply(state.Entry{Commands: []state.Command{{Config: &state.SetConfig{Text: text, Author: "nobody", Time: at}}}})
	f := st.File()
	if st.Config.Version == 0 {
		_, errs := config.Parse("cluster file", []byte(text))
		return api.Snapshot{}, &api.Error{Code: "config-invalid", Message: errs.Error(), Hint: "tasuki config check FILE shows the same"}
	}
	snap := api.Snapshot{Time: at, Generation: 1, Began: f.Nodes[0].Name, Config: text}
	s := &snap.Status
	s.Cluster, s.Node, s.Leader, s.Quorum, s.Config = f.Cluster, snap.Began, snap.Began, true, st.Config.ConfigVersion
	for i := range f.Nodes {
		n := &f.Nodes[i]
		st.Apply(state.Entry{Commands: []state.Command{{Node: &state.SetNode{Name: n.Name, State: cluster.NodeUp, Boot: "first", Daemon: "first", Time: at}}}})
		is := api.Node{Name: n.Name, State: cluster.NodeUp}
		for _, a := range n.Addresses {
			is.Addresses = append(is.Addresses, api.Path{Address: a.String(), Up: true})
		}
		s.Nodes = append(s.Nodes, is)
		if len(snap.Voters) < config.MaxVoters {
			snap.Voters = append(snap.Voters, n.Name)
		} else {
			snap.Learners = append(snap.Learners, n.Name)
		}
	}
	for i := range f.Monitors {
		m := &f.Monitors[i]
		is := api.Monitor{Name: m.Name, Kind: string(m.Kind), Verdict: cluster.VerdictGood}
		for _, n := range m.Nodes {
			is.Nodes = append(is.Nodes, api.MonitorOnNode{Node: n, Verdict: cluster.VerdictGood})
		}
		s.Monitors = append(s.Monitors, is)
	}
	for i := range f.Groups {
		for _, r := range f.Groups[i].Mirrors() {
			st.Mirror(r.Name).InSync = slices.Sorted(slices.Values(f.Groups[i].Nodes))
		}
	}
	st.Config.Text = ""
	var err error
	snap.State, err = st.Marshal()
	return snap, err
}

package engine

import (
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Whose right has ended is proven by a majority or a fence; not where the other
// side of a cut may go on as well.
func TestEnded(t *testing.T) {
	for _, tc := range []struct {
		voters      []cluster.NodeName
		arbitration config.ArbitratorKind
		want        []cluster.NodeName
	}{
		{[]cluster.NodeName{"a", "b", "c"}, "", []cluster.NodeName{"b", "d"}},
		{[]cluster.NodeName{"a"}, config.ArbitrateFence, []cluster.NodeName{"b", "d"}},
		{[]cluster.NodeName{"a"}, config.ArbitratePing, nil},
		{[]cluster.NodeName{"a"}, "", nil},
		{[]cluster.NodeName{"a"}, config.ArbitrateNone, nil},
		{[]cluster.NodeName{"a", "b"}, config.ArbitrateNone, []cluster.NodeName{"b", "d"}},
	} {
		m := &Machine{self: "a", st: state.New(), seed: &config.File{}, conf: &raftpb.ConfState{}}
		if tc.arbitration != "" {
			m.seed.Arbitration = []config.Arbitrator{{Kind: tc.arbitration}}
		}
		for _, v := range tc.voters {
			m.conf.Voters = append(m.conf.Voters, raftID(v))
		}
		m.st.Nodes = map[cluster.NodeName]*state.Node{
			"a": {State: cluster.NodeDown}, "b": {State: cluster.NodeDown}, "c": {State: cluster.NodeUp}, "d": {State: cluster.NodeLeft}, "e": {State: cluster.NodeUnknown},
		}
		if got := m.ended(); !slices.Equal(got, tc.want) {
			t.Errorf("%v, arbitration %q: %v, want %v", tc.voters, tc.arbitration, got, tc.want)
		}
	}
}

// What follows is said for as long as something can follow.
func TestRung(t *testing.T) {
	r := &config.Resource{Deactivation: config.Deactivation{FinalAction: cluster.ActionWatchdogReset}}
	for _, tc := range []struct {
		now       state.Resource
		at, after string
	}{
		{state.Resource{State: cluster.ResourceOnline}, "", ""},
		{state.Resource{State: cluster.ResourceStopping}, "stop", "force, then isolate, then watchdog reset"},
		{state.Resource{State: cluster.ResourceStopping, Rung: cluster.RungForce}, "force", "isolate, then watchdog reset"},
		{state.Resource{State: cluster.ResourceOffline, Rung: cluster.RungForce}, "force", ""},
		{state.Resource{State: cluster.ResourceStopFailed, Rung: cluster.RungFinal}, "final-action", ""},
	} {
		if at, after := rung(r, tc.now); at != tc.at || after != tc.after {
			t.Errorf("%+v: %q %q, want %q %q", tc.now, at, after, tc.at, tc.after)
		}
	}
	r.Deactivation.FinalAction = cluster.ActionNone
	if _, after := rung(r, state.Resource{State: cluster.ResourceStopping}); after != "force, then it stays as it is" {
		t.Errorf("final action none: %q", after)
	}
}

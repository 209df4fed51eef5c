package console_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/console"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

// fresh is a cluster that was just made: one node, and nothing that fails over.
func fresh() *httpapitest.Backend {
	now := time.Now()
	v := api.ConfigVersion{Version: 1, Time: now, Author: "tasuki init"}
	return &httpapitest.Backend{
		State: api.Status{Cluster: "web", Node: "alpha", Leader: "alpha", Quorum: true, Why: "1 of 1 votes are here, 1 are needed", Config: v,
			Nodes: []api.Node{{Name: "alpha", State: cluster.NodeUp, Self: true, Voter: true, Since: now,
				Addresses: []api.Path{{Address: "192.168.10.1", Up: true}, {Address: "10.0.0.1", Up: true}}}}},
		Versions: []api.ConfigText{{ConfigVersion: v, Text: "cluster: web\nnodes:\n  alpha: {addresses: [192.168.10.1, 10.0.0.1]}\n"}},
		Changes:  []string{"nodes.beta: new"},
	}
}

// The set-up wizard takes a new cluster to a file in the editor, with a keyboard,
// on a desk and on a phone, in both languages.
func TestSetup(t *testing.T) {
	need(t)
	b := fresh()
	c := console.New(console.Options{API: httpapi.New(b, "v1"), Cluster: alone{}, Version: "v1", Port: 29003})
	s := httptest.NewUnstartedServer(c)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.CloseClientConnections)
	joined := func(argv []string) error { // the file is in force, and beta has not been seen yet
		st := fresh().State
		st.Nodes = append(st.Nodes, api.Node{Name: "beta", State: cluster.NodeUnknown}, api.Node{Name: "gamma", State: cluster.NodeUnknown, Witness: true})
		b.Change(st)
		return nil
	}
	drive(t, "setup.mjs", "URL="+s.URL, "CONTROL="+control(t, joined), "NAME=ann", "PASSWORD="+password)
}

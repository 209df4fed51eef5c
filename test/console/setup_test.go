package console_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/console"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
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

// A real cluster of one node becomes one of two, by what the wizard and the overview
// show: their commands are typed on the other machine as they stand.
func TestSetupInLab(t *testing.T) {
	need(t)
	l := up(t)
	s := demo.Reference(l, "CLP-1")
	file, err := s.Do(t.Context(), "CLP-1", "tasuki", "config", "new", "--cluster", "VMcluster", "--node", "CLP-1=192.168.10.1,10.2.102.51")
	must(t, err)
	must(t, s.Cluster(t.Context(), []byte(file), func(string) {}, "CLP-1"))
	addUser(t, l, "CLP-1", "ann")
	from, err := l.Namespace(t.Context(), "client")
	must(t, err)
	typed := func(argv []string) error {
		command := strings.Join(argv[1:], "/") // of which a token may have some
		if !strings.HasPrefix(command, "tasuki join ") {
			return fmt.Errorf("%q is not what joins", command)
		}
		if _, err := s.Do(t.Context(), argv[0], strings.Fields(command)...); err != nil {
			return err
		}
		_, err := l.Service(t.Context(), argv[0], "start")
		return err
	}
	drive(t, "begin.mjs", "PROXY="+proxy(t, from.DialContext), "CONTROL="+control(t, typed), "NAME=ann", "PASSWORD="+password, "URL=https://10.2.102.51:29003")
}

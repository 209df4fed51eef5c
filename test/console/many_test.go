package console_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/console"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

// alone is a cluster whose other nodes have no console, and which lets in whoever
// knows the password.
type alone struct{}

const password = "correct horse"

func (alone) SignIn(ctx context.Context, name cluster.UserName, given string) (api.User, error) {
	if given != password {
		return api.User{}, &api.Error{Code: "sign-in-refused", Message: "the name or the password is wrong"}
	}
	return alone{}.User(ctx, name)
}

func (alone) User(_ context.Context, name cluster.UserName) (api.User, error) {
	return api.User{Name: name, Roles: cluster.Roles()}, nil
}

func (alone) Vouch(string, []byte) (string, error) { return "a ticket", nil }
func (alone) Vouched(string, string) ([]byte, cluster.NodeName, error) {
	return nil, "", errors.New("not signed")
}
func (alone) Record(context.Context, api.Event) cluster.EventID      { return "" }
func (alone) TurnedAway(context.Context, string, netip.Addr, string) {}
func (alone) Consoles() []console.Elsewhere                          { return nil }
func (alone) Names() (cluster.Name, cluster.NodeName)                { return "big", "n0" }

// big is a cluster of that many nodes, groups and monitors.
func big(nodes, groups, monitors int) api.Status {
	now := time.Now()
	s := api.Status{Cluster: "big", Node: "n0", Leader: "n1", Quorum: true, Survives: 3, Why: "three more nodes can be lost", Config: api.ConfigVersion{Version: 7, Time: now}, Links: []api.Link{}}
	name := func(i int) cluster.NodeName { return cluster.NodeName(fmt.Sprintf("n%d", i%nodes)) }
	for i := range nodes {
		s.Nodes = append(s.Nodes, api.Node{Name: name(i), State: cluster.NodeUp, Self: i == 0, Voter: i < 7, Since: now,
			Addresses: []api.Path{{Address: fmt.Sprintf("192.168.10.%d", i+1), Up: true}, {Address: fmt.Sprintf("10.2.102.%d", i+1), Up: i != 5}}})
	}
	for i := range groups {
		g := api.Group{Name: cluster.GroupName(fmt.Sprintf("g%d", i)), Phase: cluster.PhaseOnline, Owner: name(i), Nodes: []cluster.NodeName{name(i), name(i + 1)},
			Startup: "auto", Failover: "auto", Failback: "manual", Why: "started where it stands first"}
		for _, kind := range []string{"floating-ip", "exec"} {
			g.Resources = append(g.Resources, api.Resource{Name: cluster.ResourceName(fmt.Sprintf("%s-%d", kind, i)), Kind: kind, State: cluster.ResourceOnline})
		}
		s.Groups = append(s.Groups, g)
	}
	for i := range monitors {
		m := api.Monitor{Name: cluster.MonitorName(fmt.Sprintf("m%d", i)), Kind: "custom", Verdict: cluster.VerdictGood, Nodes: []api.MonitorOnNode{{Node: name(i), Verdict: cluster.VerdictGood}}}
		if i%400 == 7 {
			m.Verdict, m.Nodes[0].Verdict, m.Nodes[0].Text = cluster.VerdictBad, cluster.VerdictBad, "exit code 1"
		}
		s.Monitors = append(s.Monitors, m)
	}
	return s
}

// The console stays usable with 32 nodes, 500 groups and 2,000 monitors.
func TestMany(t *testing.T) {
	need(t)
	b := &httpapitest.Backend{State: big(32, 500, 2000)}
	c := console.New(console.Options{API: httpapi.New(b, "v1"), Cluster: alone{}, Version: "v1", Port: 29003})
	s := httptest.NewUnstartedServer(c)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.CloseClientConnections)
	drive(t, "many.mjs", "URL="+s.URL, "NAME=ann", "PASSWORD="+password)
}

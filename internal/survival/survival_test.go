package survival_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/lease"
	"github.com/tasuki-ha/tasuki/internal/survival"
)

// answers is so many nodes with addresses in so many networks.
func answers(nodes, networks int) api.Answers {
	a := api.Answers{Cluster: "web"}
	for i := range nodes {
		n := api.NodeAnswer{Name: fmt.Sprintf("node%d", i+1)}
		for k := range networks {
			n.Addresses = append(n.Addresses, fmt.Sprintf("10.0.%d.%d", k, i+1))
		}
		a.Nodes = append(a.Nodes, n)
	}
	return a
}

// table is what becomes of the group in each fault, one line for each third thing.
func table(t *testing.T, a api.Answers) []string {
	t.Helper()
	d, err := survival.Draft(a, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range d.Setups {
		line := fmt.Sprintf("%s %d:", s.Third, s.Survives)
		for _, f := range s.Faults {
			line += fmt.Sprintf(" %s=%s", f.Fault, f.Is)
		}
		out = append(out, line)
	}
	return out
}

// The table says what docs/reliability.md says of each set-up.
func TestSetups(t *testing.T) {
	for _, tt := range []struct {
		nodes, networks int
		want            []string
	}{
		{1, 1, []string{"none 0: owner=stops paused=stops"}},
		{2, 2, []string{
			"none 1: owner=takeover other=untouched network=untouched link=both cut-off=both paused=risk",
			"ping 1: owner=takeover other=untouched network=untouched link=both cut-off=takeover third=untouched third-link=stops paused=risk",
			"fence 1: owner=takeover other=pause network=untouched link=pause cut-off=takeover third=untouched third-link=stops paused=takeover",
			"witness 1: owner=takeover other=untouched network=untouched link=untouched cut-off=takeover third=untouched third-link=stops paused=risk",
			"node 1: owner=takeover other=untouched network=untouched link=untouched cut-off=takeover third=untouched third-link=stops paused=risk",
		}},
		{2, 1, []string{
			"none 1: owner=takeover other=untouched network=both link=both cut-off=both paused=risk",
			"ping 1: owner=takeover other=untouched network=stops link=both cut-off=takeover third=untouched third-link=stops paused=risk",
			"fence 1: owner=takeover other=pause network=stops link=pause cut-off=takeover third=untouched third-link=stops paused=takeover",
			"witness 1: owner=takeover other=untouched network=stops link=untouched cut-off=takeover third=untouched third-link=stops paused=risk",
			"node 1: owner=takeover other=untouched network=stops link=untouched cut-off=takeover third=untouched third-link=stops paused=risk",
		}},
		{3, 2, []string{ // a fourth vote is of no use
			"none 1: owner=takeover other=untouched network=untouched link=takeover cut-off=takeover paused=risk",
			"fence 1: owner=takeover other=untouched network=untouched link=takeover cut-off=takeover third=untouched third-link=stops paused=takeover",
			"witness 1: owner=takeover other=untouched network=untouched link=stops cut-off=takeover third=untouched third-link=stops paused=risk",
			"node 1: owner=takeover other=untouched network=untouched link=stops cut-off=takeover third=untouched third-link=stops paused=risk",
		}},
		{4, 2, []string{ // a fifth one is
			"none 1: owner=takeover other=untouched network=untouched link=takeover cut-off=takeover paused=risk",
			"fence 1: owner=takeover other=untouched network=untouched link=takeover cut-off=takeover third=untouched third-link=stops paused=takeover",
			"witness 2: owner=takeover other=untouched network=untouched link=takeover cut-off=takeover third=untouched third-link=takeover paused=risk",
			"node 2: owner=takeover other=untouched network=untouched link=takeover cut-off=takeover third=untouched third-link=takeover paused=risk",
		}},
	} {
		if got := table(t, answers(tt.nodes, tt.networks)); !slices.Equal(got, tt.want) {
			t.Errorf("%d nodes, %d networks:\n%s", tt.nodes, tt.networks, strings.Join(got, "\n"))
		}
	}
}

// A time of the table is the worst case that tasuki config check tells of the file.
func TestTimesAreTheWorstCase(t *testing.T) {
	a := answers(2, 2)
	a.Third = api.ThirdAnswer{Kind: api.ThirdFence, Fences: []api.FenceAnswer{{Node: "node1", Agent: "fence_ipmilan"}, {Node: "node2", Agent: "fence_ipmilan"}}}
	d, err := survival.Draft(a, time.Unix(1e9, 0))
	if err != nil || d.Refused != nil {
		t.Fatal(err, d.Refused)
	}
	f, errs := config.Parse("f", []byte(d.Text))
	if errs != nil {
		t.Fatal(errs)
	}
	w := lease.Worst(f)
	for _, s := range d.Setups {
		if s.Chosen != (s.Third == api.ThirdFence) {
			t.Error("chosen:", s.Third)
		}
		if s.Chosen && (s.Faults[0].Within != w.Latest+w.Fencing || w.Fencing == 0 || !slices.Equal(s.Bounds, w.Sentences())) {
			t.Errorf("%+v, and the file says %+v", s, w)
		}
	}
}

// What is not yet answered, or not well, leaves the table as it is.
func TestTableDoesNotWaitForGoodAnswers(t *testing.T) {
	want := table(t, answers(2, 2))
	for name, change := range map[string]func(*api.Answers){
		"a third thing": func(a *api.Answers) { a.Third = api.ThirdAnswer{Kind: api.ThirdWitness} },
		"a bad witness": func(a *api.Answers) {
			a.Third = api.ThirdAnswer{Kind: api.ThirdWitness, Node: &api.NodeAnswer{Name: "-"}}
		},
		"no name":               func(a *api.Answers) { a.Cluster = "" },
		"a bad address":         func(a *api.Answers) { a.Nodes[1].Addresses[0] = "10.0.0." },
		"names that are no two": func(a *api.Answers) { a.Nodes[1].Name = "node1" },
		"an empty group":        func(a *api.Answers) { a.Group = &api.GroupAnswer{} },
		"IPv6": func(a *api.Answers) {
			for i := range a.Nodes {
				a.Nodes[i].Addresses[0] = fmt.Sprintf("fd00::%d", i+1)
			}
		},
		"a name that is made up": func(a *api.Answers) { a.Nodes[1].Name = "third" },
	} {
		a := answers(2, 2)
		change(&a)
		if got := table(t, a); !slices.Equal(got, want) {
			t.Errorf("%s:\n%s", name, strings.Join(got, "\n"))
		}
	}
}

// Of a big cluster only what was chosen is asked.
func TestBigCluster(t *testing.T) {
	a := answers(8, 2)
	if got := table(t, a); len(got) != 1 || !strings.HasPrefix(got[0], "none 3: owner=takeover") {
		t.Error(got)
	}
}

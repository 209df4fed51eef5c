package journal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func caused(e api.Event, by string, fields ...string) api.Event {
	e.Cause = cluster.EventID(by)
	for i := 0; i+1 < len(fields); i += 2 {
		if e.Fields == nil {
			e.Fields = map[string]string{}
		}
		e.Fields[fields[i]] = fields[i+1]
	}
	return e
}

// The reference scenario: the host's events travel with its request.
func TestChainAcrossClusters(t *testing.T) {
	j := open(t, t.TempDir(), "CLP-1", Options{Cluster: "VMcluster"})
	noise := event("CLP-1", 1, "noise")
	appendEvents(t, j, noise)
	detected := event("bay7-esx", 20, "Detected an error in monitoring miiw-vmnic1.")
	detected.Level = cluster.LevelError
	sent := caused(event("bay7-esx", 21, "Send Failover Request to CLP-1"), "bay7-esx/20")
	fresh, err := j.MergeForeign("bay7", []api.Event{detected, sent})
	if err != nil || len(fresh) != 2 {
		t.Fatalf("%v %v", fresh, err)
	}
	if again, _ := j.MergeForeign("bay7", []api.Event{detected, sent}); len(again) != 0 {
		t.Error("taken twice")
	}
	asked := caused(event("CLP-1", 2, "There was a request to move group(failover)"), "bay7-esx/21", "plan", "p1")
	stop := caused(event("CLP-1", 3, "Stopping group failover has started."), "CLP-1/2", "group", "failover")
	moved := caused(event("CLP-2", 1, "Activating group failover has started."), "CLP-1/3", "group", "failover")
	moved.Time = noon.Add(-time.Hour) // a clock that is wrong
	done := caused(event("CLP-2", 2, "Activating group failover has completed."), "CLP-2/1", "group", "failover")
	done.Time = noon.Add(-time.Hour + time.Second)
	appendEvents(t, j, asked, stop)
	j.Merge([]api.Event{done, moved})

	want := "bay7-esx/20 bay7-esx/21 CLP-1/2 CLP-1/3 CLP-2/1 CLP-2/2"
	for _, id := range strings.Fields(want) {
		if got := ids(j.Chain(cluster.EventID(id))); got != want {
			t.Errorf("from %s: %s\nwant %s", id, got, want)
		}
	}
	if got := ids(j.Chain("CLP-1/1")); got != "CLP-1/1" {
		t.Errorf("noise: %s", got)
	}
	if got := j.Chain("CLP-9/1"); len(got) != 0 {
		t.Errorf("unknown: %v", got)
	}
	in := j.Incidents(5)
	if len(in) != 1 || in[0].Root.ID != "bay7-esx/20" || in[0].Level != cluster.LevelError || !in[0].Plan ||
		in[0].Events != 6 || fmt.Sprint(in[0].Groups) != "[failover]" {
		t.Errorf("incidents: %+v", in)
	}
}

// A node of the other cluster may have the same name as one of ours.
func TestSameNodeNameInAnotherCluster(t *testing.T) {
	j := open(t, t.TempDir(), "node1", Options{Cluster: "ours"})
	appendEvents(t, j, event("node1", 1, "our own"), event("node1", 2, "our own"))
	their := caused(event("node1", 2, "their second"), "node1/1")
	if _, err := j.MergeForeign("theirs", []api.Event{event("node1", 1, "their first"), their}); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, j, caused(event("node1", 3, "asked"), "node1/2", FieldCauseCluster, "theirs"))
	var texts []string
	for _, e := range j.Chain("node1/3") {
		texts = append(texts, e.Text)
	}
	if got := strings.Join(texts, ", "); got != "their first, their second, asked" {
		t.Errorf("chain: %s", got)
	}
	if got, _ := j.MergeForeign("ours", []api.Event{event("node1", 9, "our own again")}); len(got) != 0 {
		t.Error("an event of this cluster was taken as another's")
	}
	if e, ok := j.Get("node1/1"); !ok || e.Text != "our own" {
		t.Errorf("get: %v", e)
	}
}

func TestCirclesEnd(t *testing.T) {
	j := open(t, t.TempDir(), "CLP-1", Options{})
	j.Merge([]api.Event{
		caused(event("x", 1, "a"), "x/3"), caused(event("x", 2, "b"), "x/1"), caused(event("x", 3, "c"), "x/2"),
		caused(event("x", 4, "d"), "x/4"), caused(event("x", 5, "tail"), "x/2"),
	})
	if got := len(j.Chain("x/5")); got != 4 {
		t.Errorf("%d events in the circle's chain", got)
	}
	if got := ids(j.Chain("x/4")); got != "x/4" {
		t.Errorf("own cause: %s", got)
	}
}

func TestForeignIsBounded(t *testing.T) {
	j := open(t, t.TempDir(), "CLP-1", Options{})
	var many []api.Event
	for i := range uint64(100) {
		many = append(many, event("h", i+1, "x"))
	}
	got, err := j.MergeForeign("host", many)
	if err != nil || len(got) != maxForeign || got[len(got)-1].ID != "h/100" {
		t.Errorf("%d events, %v", len(got), err)
	}
	if _, err := j.MergeForeign("a:b", nil); err == nil {
		t.Error("a bad name of a cluster was taken")
	}
}

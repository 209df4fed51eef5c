package state

import (
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func maintain(m Maintenance) Command {
	return Command{Maintain: &Maintain{Key: m.Key(), Set: &m}}
}

func TestMaintenance(t *testing.T) {
	s := online(t, "a")
	m := Maintenance{Group: "web", Owner: "root", Reason: "patches", Since: noon, Until: noon.Add(time.Hour)}
	longer, warned := m, m
	longer.Until, warned.Warned = noon.Add(2*time.Hour), true
	apply(s, maintain(warned))
	if len(s.Maintenance) > 0 {
		t.Error("a warning has begun it")
	}
	apply(s, maintain(m), maintain(warned))
	if is := s.Maintenance[m.Key()]; is != warned {
		t.Errorf("%+v", is)
	}
	apply(s, maintain(longer), maintain(warned))
	if is := s.Maintenance[m.Key()]; is != longer {
		t.Errorf("the warning of the old end came after the change: %+v", is)
	}
	if apply(s, Command{Maintain: &Maintain{Key: m.Key(), Until: m.Until}}); s.Suspended("web") == "" {
		t.Error("the old end has ended the longer one")
	}
	if why := s.Suspended("web"); !strings.Contains(why, "root: patches") || s.Suspended("db") != "" {
		t.Errorf("web: %q, db: %q", why, s.Suspended("db"))
	}
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Unmarshal(data); err != nil || again.Suspended("web") == "" {
		t.Errorf("it does not outlive a snapshot: %v", err)
	}
	apply(s, Command{Maintain: &Maintain{Key: m.Key(), Until: longer.Until}})
	stands(t, s, "web", cluster.PhaseOnline, "a")
	apply(s, maintain(Maintenance{Owner: "root", Until: noon}))
	if s.Suspended("db") == "" || s.Suspended("web") == "" {
		t.Error("the cluster's is not that of every group")
	}
}

func TestMaintenanceThatDoesNotFit(t *testing.T) {
	s := fresh(t)
	before := text(t, s)
	wrong := maintain(Maintenance{Node: "a"})
	wrong.Maintain.Key = "cluster"
	apply(s, wrong, maintain(Maintenance{Node: "z"}), maintain(Maintenance{Group: "mail"}), Command{Maintain: &Maintain{Key: "node/a", Until: noon}})
	if after := text(t, s); after != before {
		t.Errorf("it changed something: %s", after)
	}
	apply(s, maintain(Maintenance{Node: "c"}), maintain(Maintenance{Group: "db"}), maintain(Maintenance{Node: "b"}))
	head, _, _ := strings.Cut(strings.Replace(clusterFile, "  c: {addresses: [10.0.0.3]}\n", "", 1), "  db:")
	if apply(s, setConfig(1, head)); len(s.Maintenances()) != 1 || s.Maintenances()[0].Node != "b" {
		t.Errorf("after a file without them: %+v", s.Maintenances())
	}
}

func TestRecheck(t *testing.T) {
	m := Maintenance{Group: "web", Until: noon}
	end := Command{Maintain: &Maintain{Key: m.Key(), Until: noon, Time: noon}}
	fails := func(server cluster.ResourceState) *State {
		s := online(t, "a")
		apply(s, maintain(m), Command{Report: &Report{Group: "web", Epoch: s.Groups["web"].Epoch, Node: "a", Step: StepFailed, Why: "so",
			Resources: map[cluster.ResourceName]Resource{"ip": {State: cluster.ResourceOnline}, "server": {State: server}}}}, end)
		return s
	}
	checks := func(s *State, server cluster.ResourceState) {
		apply(s, Command{Report: &Report{Group: "web", Epoch: s.Groups["web"].Epoch, Node: "a", Step: StepChecked,
			Resources: map[cluster.ResourceName]Resource{"ip": {State: cluster.ResourceOnline}, "server": {State: server}}}})
	}
	for _, st := range []cluster.ResourceState{cluster.ResourceStartFailed, cluster.ResourceStopFailed, cluster.ResourceOffline} {
		s := fails(st)
		if checks(s, cluster.ResourceOnline); !s.Groups["web"].Recheck.IsZero() || s.Groups["web"].Phase != cluster.PhaseFailed {
			t.Errorf("%s: looked at anew: %+v", st, s.Groups["web"])
		}
	}
	s := fails(cluster.ResourceFailed)
	if !s.Groups["web"].Recheck.Equal(noon) {
		t.Fatalf("%+v", s.Groups["web"])
	}
	checks(s, cluster.ResourceFailed)
	stands(t, s, "web", cluster.PhaseFailed, "a")
	s = fails(cluster.ResourceFailed)
	checks(s, cluster.ResourceOnline)
	stands(t, s, "web", cluster.PhaseOnline, "a")
	for name, then := range map[string]func(*State){
		"a plan":      func(s *State) { begin(s, "web", Plan{Action: ActionRestart, From: "a", To: "a"}) },
		"its release": func(s *State) { report(s, "web", StepReleased) },
	} {
		s = fails(cluster.ResourceFailed)
		if then(s); !s.Groups["web"].Recheck.IsZero() {
			t.Errorf("it outlives %s", name)
		}
	}
}

package lab_test

import (
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab"
)

// direction returns the state of a direction in a status, on any network.
func direction(st api.Status, from, to cluster.NodeName) (states []api.Direction) {
	for _, n := range st.Networks {
		for _, d := range n.Directions {
			if d.From == from && d.To == to {
				states = append(states, d)
			}
		}
	}
	return states
}

// What one node sends to another is lost: the others see which direction it is,
// and nothing moves. Then the active node hears nobody, while everybody hears it:
// another takes over, and only that one answers.
func TestOneWay(t *testing.T) {
	s := built(t, "witness", witnessFile, "n1", "n2", "w")
	first := string(s.Active(t.Context(), "n1"))
	other := map[string]string{"n1": "n2", "n2": "n1"}[first]
	must(t, s.Lab.Cut(t.Context(), first, other, lab.OneWay()))
	must(t, s.Until(t.Context(), "w shows the lost direction", func() (bool, error) {
		st, err := s.Status(t.Context(), "w")
		if err != nil {
			return false, nil
		}
		lost := direction(st, cluster.NodeName(first), cluster.NodeName(other))
		for _, d := range lost {
			if !d.OneWay {
				return false, nil
			}
		}
		return len(lost) > 0, nil
	}))
	told(t, s, first, "path-one-way", first+" is not heard by "+other)
	stays(t, s, first, time.Second)
	must(t, s.Lab.HealAll(t.Context()))
	told(t, s, first, "path-up", first+" is heard by "+other+" again")

	client := ask(t, s, "http://10.20.1.50/")
	must(t, s.Lab.Cut(t.Context(), other, first, lab.OneWay()))
	must(t, s.Lab.Cut(t.Context(), "w", first, lab.OneWay()))
	cut := time.Now()
	activeOn(t, s, other)
	t.Logf("taken over %v after the cut", time.Since(cut))
	told(t, s, other, "node-down", "it is heard, but hears nothing")
	if _, err := client.Await(t.Context(), 50); err != nil {
		t.Error(err)
	}
	must(t, s.Lab.HealAll(t.Context()))
	must(t, s.Until(t.Context(), first+" is standby", func() (bool, error) {
		st, err := s.Status(t.Context(), first)
		return err == nil && string(owner(st, "g")) == other && everyNode(st, isUp), nil
	}))
	oneAtATime(t, client.stop(), first, other)
}

package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Run is one pull of a cable.
type Run struct {
	NIC   string // of the host
	Start string // where the group is at the start; "" is where it is
}

// calm is how long the client asks before the cable is pulled, so that what is
// measured is the pull.
const calm = 500 * time.Millisecond

// Play plays the scenario once on a stage that is built and says what happened.
func (s *Stage) Play(ctx context.Context, run Run) (*Report, error) {
	first := s.Guests[0]
	if run.Start != "" && string(s.Active(ctx, first)) != run.Start {
		if _, err := s.Do(ctx, first, "tasuki", "group", "move", s.Group, "--to", run.Start); err != nil {
			return nil, err
		}
	}
	from := s.Active(ctx, first)
	c := Cast{Host: cluster.NodeName(s.Host), NIC: run.NIC, Group: cluster.GroupName(s.Group), Active: from, Standby: s.other(from)}
	ns, err := s.Lab.Namespace(ctx, s.Client)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	p := &Prober{URL: s.URL, Dial: ns.DialContext}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(asking) }()
	var w *Writing
	if s.Mirror {
		if w, err = s.Write(ctx, lanes, ns.DialContext); err != nil {
			return nil, err
		}
		defer w.Close()
	}
	if _, err := p.Await(ctx, int(calm/Every)); err != nil {
		return nil, err
	}
	pulled := time.Now()
	if err := s.Lab.Pull(ctx, s.Host, run.NIC); err != nil {
		return nil, err
	}
	if err := s.Until(ctx, "the service runs on "+string(c.Standby), func() (bool, error) {
		samples := p.Samples()
		i := slices.IndexFunc(samples, func(x Sample) bool { return x.Sent.After(pulled) && x.Node == string(c.Standby) })
		return i >= 0 && len(samples) > i+20 && s.Active(ctx, string(c.Standby)) == c.Standby, nil
	}); err != nil {
		return nil, err
	}
	stop()
	if err := <-ended; err != nil {
		return nil, err
	}
	events, err := s.story(ctx, string(c.Standby))
	if err != nil {
		return nil, err
	}
	r, err := NewReport(c, pulled, p.Samples(), events, []string{s.Resource})
	if err == nil && w != nil {
		r.Writes, err = w.Stop(ctx, pulled)
	}
	return r, err
}

func (s *Stage) other(n cluster.NodeName) cluster.NodeName {
	for _, g := range s.Guests {
		if g != string(n) {
			return cluster.NodeName(g)
		}
	}
	return ""
}

// story joins the logs of both clusters, each event once.
func (s *Stage) story(ctx context.Context, guest string) ([]api.Event, error) {
	var all []api.Event
	seen := map[cluster.EventID]bool{}
	for _, machine := range []string{guest, s.Host} {
		events, err := s.Events(ctx, machine)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if !seen[e.ID] {
				seen[e.ID] = true
				all = append(all, e)
			}
		}
	}
	return all, nil
}

// Reset plugs the cable in again and waits until both clusters are well.
func (s *Stage) Reset(ctx context.Context, nic string) error {
	if err := s.Lab.Plug(ctx, s.Host, nic); err != nil {
		return err
	}
	return s.Until(ctx, "all networks work again", func() (bool, error) {
		for _, g := range s.Guests {
			st, err := s.Status(ctx, g)
			if err != nil || !allUp(&st) || !mirrored(&st) {
				return false, nil
			}
			for _, n := range st.Nodes {
				if slices.ContainsFunc(n.Addresses, func(p api.Path) bool { return !p.Up }) {
					return false, nil
				}
			}
		}
		st, err := s.Status(ctx, s.Host)
		if err != nil {
			return false, nil
		}
		for _, m := range st.Monitors {
			if m.Verdict == cluster.VerdictBad {
				return false, nil
			}
		}
		return true, nil
	})
}

// Median returns the middle of own times of several runs, in milliseconds.
func Median(reports []*Report, of func(*Report) float64) float64 {
	if len(reports) == 0 {
		return 0
	}
	v := make([]float64, len(reports))
	for i, r := range reports {
		v[i] = of(r)
	}
	slices.Sort(v)
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

// Summary is what several runs come to.
type Summary struct {
	*Report
	Runs         int       `json:"runs"`
	MedianOwnMS  float64   `json:"median_own_ms"`
	MedianOutage float64   `json:"median_outage_ms"`
	OwnMSOfRuns  []float64 `json:"own_ms_of_runs"`
}

// Summarize returns the last run's report with the medians of all, and the
// writes of all.
func Summarize(reports []*Report) (*Summary, error) {
	if len(reports) == 0 {
		return nil, fmt.Errorf("nothing was run")
	}
	s := &Summary{Report: reports[len(reports)-1], Runs: len(reports),
		MedianOwnMS:  Median(reports, func(r *Report) float64 { return r.OwnMS }),
		MedianOutage: Median(reports, func(r *Report) float64 { return r.OutageMS })}
	last := *s.Report
	last.Writes = nil
	for _, r := range reports {
		s.OwnMSOfRuns = append(s.OwnMSOfRuns, r.OwnMS)
		last.Writes = last.Writes.add(r.Writes)
	}
	s.Report = &last
	return s, nil
}

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// detects says whether a line of that code tells that something is wrong.
func detects(code string) bool {
	return slices.Contains([]string{"node-silent", "node-down", "fence-done", "monitor-bad", "monitor-rehearsal", "isolated", "resource-failed"}, code)
}

// decides says whether a line of that code tells that something is done about it.
func decides(code string) bool {
	return strings.HasPrefix(code, "group-") && strings.HasSuffix(code, "-begun")
}

// ends says whether a line of that code tells that a group has come to its end.
func ends(code string) bool {
	return strings.HasPrefix(code, "group-") && strings.HasSuffix(code, "-done")
}

// measure compares what came with what was foreseen.
func (d *drilling) measure(s *api.Status) {
	steps := d.out.Came
	if !d.until.IsZero() { // what followed its end is another story
		steps = slices.DeleteFunc(slices.Clone(steps), func(s api.SimStep) bool { return s.After > d.until.Sub(d.began) })
	}
	foreseen, came := phasesOf(d.will.Steps), phasesOf(steps)
	for _, f := range foreseen {
		is := api.DrillPhase{Name: f.name}
		if f.took > 0 { // of a step of which it is known
			is.Foreseen = &f.took
		}
		if i := slices.IndexFunc(came, func(c phase) bool { return c.name == f.name }); i >= 0 {
			took := came[i].took
			is.Came = &took
			came = slices.Delete(came, i, i+1)
		}
		d.out.Phases = append(d.out.Phases, is)
	}
	for _, c := range came {
		d.out.Phases = append(d.out.Phases, api.DrillPhase{Name: c.name, Came: &c.took})
	}
	d.out.Agrees = slices.Equal(orderOf(d.will.Steps), orderOf(steps))
	for _, g := range d.will.Groups {
		is := api.DrillGroup{Name: g.Name, Before: g.Before, Foreseen: g.After}
		for _, now := range s.Groups {
			if now.Name == g.Name && now.Phase == cluster.PhaseOnline {
				is.Came = now.Owner
			}
		}
		is.Agrees = is.Came == g.After || !g.Served && is.Came == ""
		d.out.Agrees = d.out.Agrees && is.Agrees
		d.out.Groups = append(d.out.Groups, is)
		if is.Came != g.Before && g.Before != "" {
			d.out.Back = append(d.out.Back, fmt.Sprintf("tasuki group move %s --to %s", g.Name, g.Before))
		}
	}
}

// phase is one part of what happened.
type phase struct {
	name string
	took time.Duration
}

// phasesOf sorts steps into phases: detected, decided, each stop and start, done.
func phasesOf(steps []api.SimStep) (out []phase) {
	first := func(name string, is func(string) bool) {
		if i := slices.IndexFunc(steps, func(s api.SimStep) bool { return is(s.Code) }); i >= 0 {
			out = append(out, phase{name, steps[i].After})
		}
	}
	first("detected", detects)
	first("decided", decides)
	for _, s := range steps {
		if verb := map[string]string{"resource-stopped": "stop", "resource-forced": "force", "resource-started": "start"}[s.Code]; verb != "" {
			out = append(out, phase{fmt.Sprintf("%s %s on %s", verb, s.Resource, s.Node), s.Took})
		}
	}
	if i := lastOf(steps); i >= 0 {
		out = append(out, phase{"done", steps[i].After})
	}
	return out
}

func lastOf(steps []api.SimStep) int {
	for i := len(steps) - 1; i >= 0; i-- {
		if ends(steps[i].Code) {
			return i
		}
	}
	return -1
}

// orderOf lists what is done to resources, by group and resource: which of two
// that do not depend on each other is first is chance.
func orderOf(steps []api.SimStep) (out []string) {
	for _, s := range steps {
		if strings.HasPrefix(s.Code, "resource-") {
			out = append(out, fmt.Sprintf("%s %s %s", s.Resource, s.Code, s.Node))
		}
	}
	slices.SortStableFunc(out, func(a, b string) int {
		return cmp.Compare(strings.Fields(a)[0], strings.Fields(b)[0])
	})
	return out
}

// text is the report for people.
func (d *drilling) text() string {
	var b strings.Builder
	o := &d.out
	fmt.Fprintf(&b, "\ndrill in cluster %s, run on %s, %s\n", o.Cluster, o.Node, o.Began.Local().Format("2006/01/02 15:04:05"))
	fmt.Fprintf(&b, "  %s\n", strings.Join(o.Change, ", and "))
	if o.Reason != "" {
		fmt.Fprintf(&b, "  reason: %s\n", o.Reason)
	}
	outcome := "what came is what was foreseen"
	if !o.Agrees {
		outcome = "what came is not what was foreseen"
	}
	fmt.Fprintf(&b, "  %s\n\n%-32s %12s %12s\n", outcome, "times", "foreseen", "came")
	show := func(t *time.Duration) string {
		if t == nil {
			return "-"
		}
		return fmt.Sprintf("%.3f s", t.Seconds())
	}
	for _, x := range o.Phases {
		fmt.Fprintf(&b, "  %-30s %12s %12s\n", x.Name, show(x.Foreseen), show(x.Came))
	}
	fmt.Fprintln(&b, "\ngroups")
	for _, g := range o.Groups {
		word := "as foreseen"
		if !g.Agrees {
			word = "foreseen on " + cmp.Or(string(g.Foreseen), "no node")
		}
		fmt.Fprintf(&b, "  %-16s %s -> %s, %s\n", g.Name, cmp.Or(string(g.Before), "nowhere"), cmp.Or(string(g.Came), "nowhere"), word)
	}
	list := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(&b, "\n%s\n  %s\n", title, strings.Join(lines, "\n  "))
		}
	}
	list("what the drill did", o.Did)
	list("how to bring things back", o.Back)
	fmt.Fprintln(&b, "\nwhat the log says")
	for _, s := range o.Came {
		fmt.Fprintf(&b, "%8.3f s  %-10s %s\n", s.After.Seconds(), s.Node, s.Text)
	}
	return b.String()
}

// Package plan carries out one half of a plan on one node: it starts or stops
// the resources of a group along their graph, independent ones together, with
// the retries of the file. A stop that fails climbs a ladder: its tries, then
// force; what comes after that ends the node and is the engine's. It is a value
// machine: it says what to do next, and is told what came of it.
package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Op is one step for a resource's driver.
type Op struct {
	Resource cluster.ResourceName
	Start    bool // else stop
	Force    bool // of a stop whose tries have failed: kill or remove what is left, and verify
	Attempt  int  // from 1
}

// ForceWithin bounds the rung after the tries of a stop: SIGTERM, SIGKILL, and a
// look whether it helped.
const ForceWithin = 10 * time.Second

// Limit is how long a step may take.
func (op Op) Limit(res *config.Resource) time.Duration {
	switch {
	case op.Start:
		return res.StartTimeout
	case op.Force:
		return ForceWithin
	}
	return res.StopTimeout
}

// Runner drives one group in one direction. Create it with Start or Stop.
type Runner struct {
	group   *config.Group
	items   map[cluster.ResourceName]*item
	start   bool
	goal    map[cluster.ResourceName]bool // the resources that are to be driven
	failed  cluster.ResourceName
	why     string
	halted  bool // a failure whose final action does not go on
	running int
}

type item struct {
	state    cluster.ResourceState
	why      string
	attempts int
	busy     bool
	op       Op   // the one under way, if busy
	cleaning bool // a failed start is being cleaned up before the next try
	rung     cluster.Rung
	given    bool // given up
}

// Start returns a runner that brings every resource that is not online yet
// online.
func Start(g *config.Group, now map[cluster.ResourceName]state.Resource) *Runner {
	r := newRunner(g, now)
	r.start = true
	for n, it := range r.items {
		if it.state != cluster.ResourceOnline {
			r.goal[n] = true
			it.state, it.why = cluster.ResourceOffline, ""
		}
	}
	return r
}

// Stop returns a runner that brings resources offline: only the named one and
// what depends on it, or all if only is "".
func Stop(g *config.Group, now map[cluster.ResourceName]state.Resource, only cluster.ResourceName) *Runner {
	r := newRunner(g, now)
	for n := range r.items {
		// A resource that was never started, or whose state is not known, is
		// stopped as well: stopping what is inactive succeeds.
		if only == "" || n == only || r.dependsOn(n, only) {
			r.goal[n] = true
		}
	}
	return r
}

func newRunner(g *config.Group, now map[cluster.ResourceName]state.Resource) *Runner {
	r := &Runner{group: g, items: map[cluster.ResourceName]*item{}, goal: map[cluster.ResourceName]bool{}}
	for i := range g.Resources {
		n := g.Resources[i].Name
		it := &item{state: cluster.ResourceOffline}
		if s, ok := now[n]; ok {
			it.state, it.why = s.State, s.Why
		}
		r.items[n] = it
	}
	return r
}

// dependsOn says whether n comes, directly or not, after m.
func (r *Runner) dependsOn(n, m cluster.ResourceName) bool {
	res := r.group.Resource(n)
	if res == nil {
		return false
	}
	return slices.ContainsFunc(res.After, func(a cluster.ResourceName) bool {
		return a == m || r.dependsOn(a, m)
	})
}

// Next returns the steps that can be taken now, in file order (reversed when
// stopping). Each is returned once; Done must follow for each.
func (r *Runner) Next() []Op {
	var ops []Op
	for i := range r.group.Resources {
		if !r.start {
			i = len(r.group.Resources) - 1 - i
		}
		res := &r.group.Resources[i]
		it := r.items[res.Name]
		if !r.goal[res.Name] || it.busy || it.given || r.halted {
			continue
		}
		op := Op{Resource: res.Name, Start: r.start, Attempt: it.attempts + 1}
		switch {
		case it.cleaning:
			op.Start = false
		case it.rung == cluster.RungForce && it.state == cluster.ResourceStopping:
			op.Force, op.Attempt = true, 1
		case r.start && (it.state == cluster.ResourceOnline || !r.afterOnline(res)):
			continue
		case !r.start && (it.state == cluster.ResourceOffline && it.attempts > 0 || !r.dependentsOffline(res.Name)):
			continue
		}
		it.busy, it.op = true, op
		r.running++
		if op.Start {
			it.state = cluster.ResourceStarting
		} else if !it.cleaning {
			it.state = cluster.ResourceStopping
		}
		ops = append(ops, op)
	}
	return ops
}

func (r *Runner) afterOnline(res *config.Resource) bool {
	for _, a := range res.After {
		it := r.items[a]
		if it == nil || it.state != cluster.ResourceOnline && !it.given {
			return false
		}
	}
	return true
}

func (r *Runner) dependentsOffline(n cluster.ResourceName) bool {
	for i := range r.group.Resources {
		res := &r.group.Resources[i]
		it := r.items[res.Name]
		if r.goal[res.Name] && slices.Contains(res.After, n) && !it.given &&
			(it.state != cluster.ResourceOffline || it.attempts == 0) {
			return false
		}
	}
	return true
}

// Done tells what came of a step; why is "" if it succeeded. Words about a step
// that is not under way do not count.
func (r *Runner) Done(op Op, why string) {
	it := r.items[op.Resource]
	res := r.group.Resource(op.Resource)
	if it == nil || res == nil || !it.busy || it.op != op {
		return
	}
	it.busy = false
	r.running--
	defer r.settle()
	switch {
	case r.start && !op.Start: // the clean-up after a failed start
		it.cleaning = false
		if why != "" {
			r.giveUp(it, res.Name, cluster.ResourceStartFailed, fmt.Sprintf("%s; and cleaning up failed: %s", it.why, why), false)
		}
	case r.start && why == "":
		it.state, it.why = cluster.ResourceOnline, ""
	case r.start:
		it.attempts++
		it.why = why
		if it.attempts <= res.Activation.Retries {
			it.state, it.cleaning = cluster.ResourceOffline, true
			return
		}
		r.giveUp(it, res.Name, cluster.ResourceStartFailed, why, res.Activation.FinalAction == cluster.ActionContinue)
	case why == "":
		it.attempts++
		it.state, it.why = cluster.ResourceOffline, ""
	case op.Force:
		r.giveUp(it, res.Name, cluster.ResourceStopFailed, fmt.Sprintf("%s; and force did not help: %s", it.why, why),
			res.Deactivation.FinalAction == cluster.ActionContinue)
	default:
		it.attempts++
		it.why = why
		if it.attempts > res.Deactivation.Retries {
			it.rung = cluster.RungForce
		}
	}
}

// settle names what a halted run leaves half done.
func (r *Runner) settle() {
	if !r.halted || r.running > 0 {
		return
	}
	for n := range r.goal {
		switch it := r.items[n]; {
		case it.cleaning:
			it.state = cluster.ResourceStartFailed
		case it.state == cluster.ResourceStopping:
			it.state = cluster.ResourceStopFailed
		}
	}
}

func (r *Runner) giveUp(it *item, n cluster.ResourceName, st cluster.ResourceState, why string, goOn bool) {
	it.state, it.why, it.given = st, why, true
	if goOn && r.start {
		return
	}
	if r.failed == "" {
		r.failed, r.why = n, why
	}
	if !goOn {
		r.halted = true
	}
}

// Outcome returns what came of it all, once nothing runs any more and nothing
// can be done.
func (r *Runner) Outcome() (step state.Step, failed cluster.ResourceName, why string, ended bool) {
	if r.running > 0 {
		return "", "", "", false
	}
	if r.failed == "" {
		for n := range r.goal {
			it := r.items[n]
			reached := it.given || r.start && it.state == cluster.ResourceOnline ||
				!r.start && it.state == cluster.ResourceOffline && it.attempts > 0
			if !reached {
				return "", "", "", false
			}
		}
	} else if !r.halted && r.unfinished() {
		return "", "", "", false
	}
	switch {
	case r.start && r.failed == "":
		return state.StepStarted, "", "", true
	case r.start:
		return state.StepStartFailed, r.failed, r.why, true
	case r.failed == "":
		return state.StepStopped, "", "", true
	}
	return state.StepStopFailed, r.failed, r.why, true
}

// unfinished says whether some resource can still be driven after a failure
// that goes on.
func (r *Runner) unfinished() bool {
	for n := range r.goal {
		it := r.items[n]
		if !it.given && (it.state != cluster.ResourceOffline || it.attempts == 0) && r.dependentsOffline(n) {
			return true
		}
	}
	return false
}

// Resources returns the state of every resource, for a report.
func (r *Runner) Resources() map[cluster.ResourceName]state.Resource {
	m := make(map[cluster.ResourceName]state.Resource, len(r.items))
	for n, it := range r.items {
		m[n] = state.Resource{State: it.state, Why: it.why, Rung: it.rung}
	}
	return m
}

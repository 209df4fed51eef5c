package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/plan"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// overrun is how much longer than its limit a step may take before nothing is
// expected of it any more. It covers what ending a script in time takes.
const overrun = 5 * time.Second

// nearLimit is the share of its limit from which on a stop is warned of.
const nearLimit = 0.8

// step is one step of a resource that is under way.
type step struct {
	op   plan.Op
	due  cluster.Instant // then it is late
	late bool            // and was found so; at the next due it has hung
}

// hearOut is how long the word of a late step may still be on its way: this
// node itself may have stood still.
const hearOut = time.Second

// drive gives the group a new runner.
func (l *localGroup) drive(r *plan.Runner, stopping bool) {
	l.runner, l.stopping = r, stopping
	l.steps, l.began = map[cluster.ResourceName]step{}, map[cluster.ResourceName]cluster.Instant{}
	l.lines = map[cluster.ResourceName]cluster.EventID{}
}

// because returns the cause of a line about a resource: the latest failure of
// one of its steps, or that of the whole.
func (l *localGroup) because(r cluster.ResourceName) cluster.EventID {
	if id := l.lines[r]; id != "" {
		return id
	}
	return l.cause
}

// begin hands out one step.
func (m *Machine) begin(name cluster.GroupName, l *localGroup, op plan.Op) {
	res := l.config.Resource(op.Resource)
	l.steps[op.Resource] = step{op: op, due: m.now.Add(op.Limit(res) + overrun)}
	if _, known := l.began[op.Resource]; !known {
		l.began[op.Resource] = m.now
	}
	task := l.task(&l.config)
	task.Mirrors, task.Life = m.mirrorsOf(&l.config), m.meta.Incarnation.Order(m.file())
	if op.Start {
		task.Ended, task.Down, task.Handed = m.ended(), m.down(), slices.Contains(l.handed, op.Resource)
	}
	m.eff.Ops = append(m.eff.Ops, Operation{Task: task, Op: op})
	if !op.Force {
		return
	}
	after := m.now.Sub(l.began[op.Resource])
	l.lines[op.Resource] = m.event(cluster.LevelError, "rs", "resource-stop-force", l.because(op.Resource), resourceFields(name, op.Resource, after),
		"Stopping %s has failed after %s: it is stopped by force now.", op.Resource, seconds(after))
	if !l.orphan {
		l.resources = l.runner.Resources()
		m.report(name, l, state.Report{Step: state.StepClimbed})
	}
}

// ended returns the nodes that are declared down: a majority let their leases run
// out, or they were forced off. A node of a pair that goes on alone by ping
// targets, by no rule or by an order has no such proof: the other may do so too.
func (m *Machine) ended() (names []cluster.NodeName) {
	list := m.file().Arbitration
	guess := func(a config.Arbitrator) bool { return a.Kind != config.ArbitrateFence }
	if m.soleVoter() && (len(list) == 0 || slices.ContainsFunc(list, guess)) {
		return nil
	}
	return m.down()
}

// down returns the other nodes that are down or have left.
func (m *Machine) down() (names []cluster.NodeName) {
	for _, n := range sortedKeys(m.st.Nodes) {
		if s := m.st.Nodes[n].State; n != m.self && (s == cluster.NodeDown || s == cluster.NodeLeft) {
			names = append(names, n)
		}
	}
	return names
}

// stepsOverdue gives up waiting for steps that hang. What becomes of them
// afterwards no longer counts.
func (m *Machine) stepsOverdue() {
	for _, l := range m.groups.byName {
		if len(l.steps) == 0 {
			continue
		}
		for _, r := range sortedKeys(l.steps) {
			s, pending := l.steps[r]
			if !pending || l.runner == nil || m.now < s.due {
				continue
			}
			if !s.late {
				s.late, s.due = true, m.now.Add(hearOut)
				l.steps[r] = s
				continue
			}
			limit := s.op.Limit(l.config.Resource(r))
			m.takeOpDone(OpDone{Group: l.name, Epoch: l.epoch, Op: s.op, Took: limit + overrun,
				Why: fmt.Sprintf("it hangs: no word of it within %s", limit+overrun)})
		}
	}
}

// nextStepDue returns when the first step under way would have hung.
func (m *Machine) nextStepDue(sooner func(cluster.Instant)) {
	for _, l := range m.groups.byName {
		for _, s := range l.steps {
			sooner(s.due)
		}
	}
}

// narrateStop writes the lines of a stop that succeeded in an unusual way.
func (m *Machine) narrateStop(d OpDone, l *localGroup) {
	limit := d.Op.Limit(l.config.Resource(d.Op.Resource))
	switch {
	case d.Op.Force:
		how := ""
		if d.How != "" {
			how = ": " + d.How
		}
		m.event(cluster.LevelWarn, "rs", "resource-forced", l.because(d.Op.Resource), resourceFields(d.Group, d.Op.Resource, d.Took),
			"Resource %s has been stopped by force (%d ms)%s.", d.Op.Resource, d.Took.Milliseconds(), how)
	case !d.Op.Start && d.Took > time.Duration(nearLimit*float64(limit)):
		m.event(cluster.LevelWarn, "rs", "stop-near-limit", l.cause, resourceFields(d.Group, d.Op.Resource, d.Took),
			"Stopping %s took %s of the %s that stop_timeout allows: a slower stop will be ended by force.", d.Op.Resource, seconds(d.Took), seconds(limit))
	}
}

// stopFailed ends the ladder of a resource that force did not stop either: its
// group is isolated and the final action of the file taken. The group stays here
// until the node is surely off.
func (m *Machine) stopFailed(name cluster.GroupName, l *localGroup, r *state.Report) {
	res := l.config.Resource(r.Resource)
	action := res.Deactivation.FinalAction
	if !endsNode(action) {
		return
	}
	l.resources = maps.Clone(l.resources)
	l.resources[r.Resource] = state.Resource{State: cluster.ResourceStopFailed, Why: r.Why, Rung: cluster.RungFinal}
	m.eff.Isolate = append(m.eff.Isolate, l.task(&l.config))
	cause := m.event(cluster.LevelError, "rm", "group-isolated", l.because(r.Resource), map[string]string{"group": string(name)},
		"Group %s is isolated on %s: resource %s could not be stopped, also not by force.", name, m.self, r.Resource)
	m.final(action, fmt.Sprintf("resource %s of group %s did not stop: %s", r.Resource, name, r.Why), cause)
}

// endsNode says whether the final action of a stop ends this node's part.
func endsNode(a cluster.FinalAction) bool {
	switch a {
	case cluster.ActionContinue, cluster.ActionNone, cluster.ActionStopGroup, "":
		return false
	}
	return true
}

// rung returns where the stop of a resource stands and what follows if that
// fails too; "" for one that is not being stopped.
func rung(r *config.Resource, s state.Resource) (now, next string) {
	last := "it stays as it is"
	if a := r.Deactivation.FinalAction; endsNode(a) {
		last = "isolate, then " + strings.ReplaceAll(string(a), "-", " ")
	}
	switch {
	case s.Rung == cluster.RungFinal:
		return string(s.Rung), ""
	case s.State == cluster.ResourceStopping && s.Rung == cluster.RungForce:
		return string(s.Rung), last
	case s.State == cluster.ResourceStopping:
		return "stop", "force, then " + last
	}
	return string(s.Rung), ""
}

func resourceFields(g cluster.GroupName, r cluster.ResourceName, d time.Duration) map[string]string {
	return map[string]string{"group": string(g), "resource": string(r), "took_ms": took(d)}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

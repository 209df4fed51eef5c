package engine

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/recovery"
	"github.com/tasuki-ha/tasuki/internal/state"
	"github.com/tasuki-ha/tasuki/internal/verdict"
)

// tellEvery is how often a node tells the others what its monitors know even
// if nothing changed.
const tellEvery = 5 * time.Second

// watch is one monitor on this node.
type watch struct {
	config   config.Monitor
	tracker  *verdict.Tracker
	ladder   *recovery.Ladder
	known    cluster.Verdict // as last logged and told
	cause    cluster.EventID // of the trouble, or of the rehearsal
	decision recovery.Decision
	run      uint64                     // of the script that is under way; 0: none
	asked    map[cluster.RequestID]bool // asks of the rung that have no reply yet
	groups   []cluster.GroupName        // the rung is done when none of these has a plan
	climbing bool                       // a rung is under way beyond its script
	refused  string
	curbs    []cluster.GroupName // in maintenance or held since it was to act on them
}

// verdictOf is what one node tells the others of one monitor.
type verdictOf struct {
	Monitor cluster.MonitorName `json:"m"`
	api.MonitorOnNode
}

// rewatch follows a new cluster file. Monitors that did not change keep what
// they know.
func (m *Machine) rewatch() {
	f := m.file()
	keep := map[cluster.MonitorName]bool{}
	for i := range f.Monitors {
		c := f.Monitors[i]
		if !slices.Contains(c.Nodes, m.self) {
			continue
		}
		keep[c.Name] = true
		if w := m.watches[c.Name]; w != nil && reflect.DeepEqual(w.config, c) {
			continue
		}
		s := verdict.Settings{Retries: c.Retries, Wait: c.Wait}
		if c.NICLink != nil {
			s.Debounce = c.NICLink.Debounce
		}
		m.watches[c.Name] = &watch{
			config: c, tracker: verdict.New(m.now, s), known: cluster.VerdictUnknown,
			ladder: recovery.New(recovery.Settings{Monitor: c.Name, Target: c.Target, Recovery: c.Recovery, Nodes: len(f.Nodes)}),
		}
	}
	maps.DeleteFunc(m.watches, func(n cluster.MonitorName, _ *watch) bool { return !keep[n] })
}

func (m *Machine) takeProbe(p Probe) {
	w := m.watches[p.Monitor]
	if w == nil || !m.watching(w) {
		return
	}
	changed := w.tracker.Probe(m.now, p.Good, p.Code, p.Text)
	switch {
	case changed:
		m.judged(w)
	case w.tracker.Verdict() == cluster.VerdictBad && !p.Good && m.withheld(w) == "":
		m.act(w, w.ladder.Step(m.now, recovery.Event{Kind: recovery.Bad, Code: w.tracker.Code(), Text: w.tracker.Text()}))
	}
}

// watching says whether the monitor's probes count now.
func (m *Machine) watching(w *watch) bool {
	if w.config.When != config.WhenActive {
		return true
	}
	targets := m.targets(w)
	return slices.ContainsFunc(targets, func(g cluster.GroupName) bool {
		gs := m.st.Groups[g]
		return gs != nil && gs.Owner == m.self && gs.Phase == cluster.PhaseOnline
	})
}

// targets returns the groups on which the monitor's recovery acts.
func (m *Machine) targets(w *watch) []cluster.GroupName {
	t := w.config.Target
	switch {
	case t.Group != "":
		return []cluster.GroupName{t.Group}
	case t.Resource != "":
		if g := m.file().GroupOf(t.Resource); g != nil {
			return []cluster.GroupName{g.Name}
		}
		return nil
	}
	return m.st.OwnedBy(m.self)
}

// judged follows a verdict that may have changed.
func (m *Machine) judged(w *watch) {
	name, now := w.config.Name, w.tracker.Verdict()
	was := w.known
	if now == was {
		return
	}
	w.known = now
	m.tellVerdicts()
	fields := map[string]string{"monitor": string(name)}
	switch {
	case now == cluster.VerdictBad:
		w.cause = m.event(cluster.LevelError, recovery.Module, recovery.CodeDetected, "", fields, "%s",
			recovery.Detected(name, w.tracker.Code(), w.tracker.Text()))
		if why := m.withheld(w); why != "" {
			m.event(cluster.LevelWarn, recovery.Module, "recovery-withheld", w.cause, fields, "The recovery of %s is withheld: %s.", name, reason(why))
			return
		}
		m.act(w, w.ladder.Step(m.now, recovery.Event{Kind: recovery.Bad, Code: w.tracker.Code(), Text: w.tracker.Text()}))
	case now == cluster.VerdictGood && !w.ladderGood():
		m.event(cluster.LevelInfo, recovery.Module, recovery.CodeReturned, w.cause, fields, "%s", recovery.Returned(name))
		w.cause = ""
		m.act(w, w.ladder.Step(m.now, recovery.Event{Kind: recovery.Good}))
	case now == cluster.VerdictSuspended:
		m.event(cluster.LevelInfo, recovery.Module, recovery.CodeSuspended, "", fields, "%s", recovery.Suspended(name))
	}
	if was == cluster.VerdictSuspended {
		m.event(cluster.LevelInfo, recovery.Module, recovery.CodeResumed, "", fields, "%s", recovery.Resumed(name))
	}
}

// ladderGood says whether the ladder has nothing to be told: it never saw the
// trouble that has ended.
func (w *watch) ladderGood() bool { return w.cause == "" }

func (m *Machine) rehearse(r Rehearse) {
	w := m.watches[r.Monitor]
	if w == nil {
		return
	}
	w.cause = m.event(cluster.LevelWarn, recovery.Module, recovery.CodeRehearsal, r.Cause,
		map[string]string{"monitor": string(r.Monitor)}, "%s", recovery.Rehearsed(r.Monitor))
	m.act(w, w.ladder.Step(m.now, recovery.Event{Kind: recovery.Rehearse}))
}

// act carries a decision of the ladder out, its script first.
func (m *Machine) act(w *watch, d recovery.Decision) {
	if d.Do == recovery.Nothing {
		return
	}
	w.decision, w.refused = d, ""
	m.event(cluster.LevelWarn, recovery.Module, recovery.CodeRung, w.cause, map[string]string{"monitor": string(w.config.Name)}, "%s", d.Text(w.config.Name))
	if d.Script == "" {
		m.climb(w)
		return
	}
	m.runs++
	w.run = m.runs
	m.eff.Scripts = append(m.eff.Scripts, ScriptRun{
		Monitor: w.config.Name, Run: w.run, Path: d.Script, Action: d.Do.Action(), Timeout: d.Timeout, Cause: w.cause,
		Scripts: d.Counters.Scripts, Restarts: d.Counters.Restarts, Failover: d.Counters.Failovers,
	})
}

func (m *Machine) takeScript(s ScriptDone) {
	w := m.watches[s.Monitor]
	if w == nil || w.run == 0 || w.run != s.Run {
		return
	}
	w.run = 0
	fields := map[string]string{"monitor": string(s.Monitor), "took_ms": took(s.Took)}
	if s.Why == "" {
		m.event(cluster.LevelInfo, recovery.Module, "script-done", w.cause, fields, "Script %s of %s has ended (%s ms).", w.decision.Script, s.Monitor, fields["took_ms"])
	} else {
		m.event(cluster.LevelError, recovery.Module, "script-failed", w.cause, fields, "Script %s of %s has failed: %s.", w.decision.Script, s.Monitor, reason(s.Why))
	}
	if w.decision.Do == recovery.RunScript {
		m.rungDone(w)
		return
	}
	m.climb(w)
}

// climb does what a rung is for, after its script.
func (m *Machine) climb(w *watch) {
	d := w.decision
	kind := admission.GroupRestart
	switch d.Do {
	case recovery.FailoverTarget:
		kind = admission.GroupFailover
	case recovery.FinalAction:
		switch d.Final {
		case cluster.ActionNone, "":
			m.rungDone(w)
			return
		case cluster.ActionStopGroup, cluster.ActionStopResource:
			kind = admission.GroupStop
		default:
			if why := m.spared(w); why != "" {
				m.refuseRung(w, why)
			} else {
				m.final(d.Final, d.Why, w.cause)
			}
			m.rungDone(w)
			return
		}
	}
	w.groups = slices.DeleteFunc(m.targets(w), func(g cluster.GroupName) bool { return m.st.Suspended(g) != "" })
	w.asked, w.climbing = map[cluster.RequestID]bool{}, true
	for _, g := range w.groups {
		a := m.newAsk(kind, d.Why, w.cause)
		a.Group, a.Auto = g, true
		switch kind {
		case admission.GroupRestart:
			a.Resource = w.config.Target.Resource
		case admission.GroupFailover:
			a.Count = string(w.config.Name)
		}
		w.asked[a.ID] = true
		m.ask(a, false)
		m.outbox[a.ID].monitor = w.config.Name
	}
	m.checkRung(w)
}

// rungReply takes the reply to what a rung asked for.
func (m *Machine) rungReply(p *pending, err *api.Error) {
	w := m.watches[p.monitor]
	if w == nil || !w.asked[p.ask.ID] {
		return
	}
	delete(w.asked, p.ask.ID)
	if err != nil {
		m.refuseRung(w, err.Message)
	}
	m.checkRung(w)
}

func (m *Machine) refuseRung(w *watch, why string) {
	w.refused = why
	m.event(cluster.LevelError, recovery.Module, "recovery-refused", w.cause, map[string]string{"monitor": string(w.config.Name)},
		"The recovery of %s was refused: %s.", w.config.Name, reason(why))
}

// checkRung ends a rung whose plans have all ended.
func (m *Machine) checkRung(w *watch) {
	if !w.climbing || len(w.asked) > 0 {
		return
	}
	for _, g := range w.groups {
		if gs := m.st.Groups[g]; gs != nil && gs.Plan != nil {
			return
		}
	}
	m.rungDone(w)
}

func (m *Machine) rungDone(w *watch) {
	moved := w.decision.Do == recovery.FailoverTarget && w.refused == "" && m.gone(w.groups)
	w.climbing, w.groups = false, nil
	// A kind that watches events sends no second probe of the same trouble.
	byEvents := w.config.Kind == config.KindNICLink || w.config.Kind == config.KindUserspace
	m.act(w, w.ladder.Step(m.now, recovery.Event{
		Kind: recovery.Done, Refused: w.refused, Still: byEvents && !moved && w.tracker.Verdict() == cluster.VerdictBad,
	}))
	m.tellVerdicts()
}

// gone says whether there are groups and none of them belongs to this node any
// more: then the failover has done what it was for, and the rungs that are left
// are for the next time.
func (m *Machine) gone(groups []cluster.GroupName) bool {
	return len(groups) > 0 && !slices.ContainsFunc(groups, func(g cluster.GroupName) bool {
		gs := m.st.Groups[g]
		return gs != nil && gs.Owner == m.self
	})
}

// checkMonitors lets time pass for every monitor.
func (m *Machine) checkMonitors() {
	for _, name := range sortedKeys(m.watches) {
		w := m.watches[name]
		suspended := m.st.Suspends[state.SuspendKey(name, m.self)]
		if suspended != (w.tracker.Verdict() == cluster.VerdictSuspended) {
			if suspended {
				w.tracker.Suspend()
			} else {
				w.tracker.Resume(m.now)
			}
			m.judged(w)
		}
		if w.tracker.Tick(m.now) {
			m.judged(w)
		}
		w.ladder.Tick(m.now)
		m.checkCurbed(w)
		m.checkRung(w)
	}
	if m.now >= m.tellAt {
		m.tellVerdicts()
	}
}

func (m *Machine) ownVerdict(w *watch) api.MonitorOnNode {
	c := w.ladder.Counters()
	return api.MonitorOnNode{Node: m.self, Verdict: w.tracker.Verdict(), Text: w.tracker.Text(),
		Scripts: c.Scripts, Restarts: c.Restarts, Failovers: c.Failovers}
}

// tellVerdicts tells the other nodes what the monitors here know.
func (m *Machine) tellVerdicts() {
	m.tellAt = m.now.Add(tellEvery)
	if len(m.watches) == 0 {
		return
	}
	var vs []verdictOf
	for _, name := range sortedKeys(m.watches) {
		vs = append(vs, verdictOf{Monitor: name, MonitorOnNode: m.ownVerdict(m.watches[name])})
	}
	for _, n := range sortedKeys(m.peers) {
		if m.alive(n) {
			m.send(n, false, message{Verdicts: vs})
		}
	}
}

func (m *Machine) takeVerdicts(from cluster.NodeName, vs []verdictOf) {
	m.peer(from).verdicts = vs
}

func (m *Machine) monitorStatus(c *config.Monitor) api.Monitor {
	out := api.Monitor{Name: c.Name, Kind: string(c.Kind), Comment: c.Comment, Verdict: cluster.VerdictUnknown}
	if c.Mirror != nil {
		out.Mirror = c.Mirror.Resource
	}
	for _, n := range c.Nodes {
		on := api.MonitorOnNode{Node: n, Verdict: cluster.VerdictUnknown}
		if w := m.watches[c.Name]; n == m.self && w != nil {
			on = m.ownVerdict(w)
		} else if p := m.peers[n]; p != nil && m.alive(n) {
			for _, v := range p.verdicts {
				if v.Monitor == c.Name {
					on = v.MonitorOnNode
					on.Node = n
				}
			}
		}
		out.Nodes = append(out.Nodes, on)
		if worse(on.Verdict, out.Verdict) {
			out.Verdict = on.Verdict
		}
	}
	return out
}

// worse orders verdicts for a summary of several nodes.
func worse(a, b cluster.Verdict) bool {
	order := []cluster.Verdict{cluster.VerdictUnknown, cluster.VerdictGood, cluster.VerdictSuspended, cluster.VerdictSuspect, cluster.VerdictBad}
	return slices.Index(order, a) > slices.Index(order, b)
}

// Package recovery is the ladder that a monitor climbs while the thing it
// watches is bad: recovery scripts, restarts of the target, failovers of the
// target, the script before the final action, the final action. There is one
// ladder per monitor and node. It reads no clock and does nothing itself: Step
// takes an event and returns a decision with its reason.
//
// The rules:
//
//   - One rung at a time. The next one is decided when the monitor is bad after
//     the last one is done.
//   - The script before the final action runs even where the final action is none.
//   - After the final action nothing more is done until the monitor is good
//     again; the next trouble after that reaches it again.
//   - The counters of scripts, restarts and failovers outlive a short good
//     spell, so that trouble that comes and goes climbs on. They return to zero
//     when the monitor was good for the whole of Heal, or by Clear.
//   - A rehearsal climbs from the foot of the ladder to its top as if the
//     monitor stayed bad, with every rung real, and leaves the counters as they
//     were. Real trouble that comes meanwhile takes the climb over.
package recovery

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// DefaultHeal is how long a monitor must be good before its counters return to
// zero.
const DefaultHeal = 10 * time.Minute

// Rung is one step of the ladder.
type Rung string

// The rungs, from the foot to the top.
const (
	Nothing        Rung = ""
	RunScript      Rung = "script"
	RestartTarget  Rung = "restart"
	FailoverTarget Rung = "failover"
	FinalAction    Rung = "final-action"
)

// Action returns the word that a rung's script gets as CLP_ACTION.
func (r Rung) Action() string {
	switch r {
	case RunScript:
		return "RECOVERY"
	case RestartTarget:
		return "RESTART"
	case FailoverTarget:
		return "FAILOVER"
	case FinalAction:
		return "FINALACTION"
	}
	return ""
}

// Settings are the parts of a monitor's settings that its ladder needs.
type Settings struct {
	Monitor  cluster.MonitorName
	Target   config.Target
	Recovery config.Recovery
	Nodes    int           // how many failovers config.AsManyAsNodes means
	Heal     time.Duration // 0: DefaultHeal
}

// Kind says what happened.
type Kind int

// The kinds of events.
const (
	// Bad: the verdict turned bad, or another bad probe came while it is.
	Bad Kind = iota + 1
	// Good: the verdict turned good.
	Good
	// Done: the rung that was decided last is done, however it ended.
	Done
	// Rehearse: climb as if the monitor had turned bad.
	Rehearse
	// EndRehearsal: stop a rehearsal after the rung that is under way.
	EndRehearsal
)

// Event is what a ladder is told.
type Event struct {
	Kind Kind
	// Of Bad: what is wrong.
	Code int
	Text string
	// Of Done. Still says that the monitor is known to be bad after the rung,
	// so that the next one is due at once; without it the next Bad decides.
	// Refused says why the rung could not be carried out at all.
	Still   bool
	Refused string
}

// Counters are how often each rung was used.
type Counters struct {
	Scripts, Restarts, Failovers int
	FinalDone                    bool
}

// Decision is what to do now. Unless Do is Nothing, the caller answers with
// Done when Script and then the rung itself have ended.
type Decision struct {
	Do        Rung
	Script    string              // of RunScript the rung itself, else what runs before it; "" is none
	Timeout   time.Duration       // of Script; as in the file
	Counters  Counters            // this rung included: the counts for the script
	Target    config.Target       // what is restarted or failed over
	Final     cluster.FinalAction // set where Do is FinalAction; ActionNone if only the script runs
	Rehearsal bool                // nothing is really wrong
	Why       string              // lower case, no full stop; also set when Do is Nothing
}

// Ladder is the ladder of one monitor on one node.
type Ladder struct {
	set       Settings
	count     Counters
	bad       bool
	trouble   Event // the latest Bad
	running   Rung
	counted   bool   // running is still in count
	refused   string // why no failover is tried again before the monitor is good
	goodSince cluster.Instant
	healing   bool // good, with counters that are not zero
	rehearsal bool
	kept      Counters // as they were before the rehearsal
}

// New returns a ladder at its foot.
func New(s Settings) *Ladder {
	if s.Heal == 0 {
		s.Heal = DefaultHeal
	}
	return &Ladder{set: s}
}

// Recall sets how often each rung of a new ladder counts as used.
func (l *Ladder) Recall(c Counters) { l.count = c }

// Step takes an event and decides. Instants must not go back.
func (l *Ladder) Step(now cluster.Instant, ev Event) Decision {
	l.Tick(now)
	switch ev.Kind {
	case Bad:
		return l.takeBad(ev)
	case Good:
		return l.takeGood(now)
	case Done:
		return l.takeDone(ev)
	case Rehearse:
		return l.rehearse()
	case EndRehearsal:
		return l.endRehearsal()
	}
	return l.nothing("there is no such event")
}

// Tick lets time pass: counters return to zero when the monitor was good for
// long enough. It says whether they did.
func (l *Ladder) Tick(now cluster.Instant) (healed bool) {
	if when, ok := l.Next(); !ok || now < when {
		return false
	}
	l.healing = false
	if l.rehearsal {
		l.kept = Counters{}
	} else {
		l.count, l.counted = Counters{}, false
	}
	return true
}

// Next returns when Tick is due, if it is.
func (l *Ladder) Next() (when cluster.Instant, ok bool) {
	return l.goodSince.Add(l.set.Heal), l.healing
}

// Counters returns how often each rung was used.
func (l *Ladder) Counters() Counters { return l.count }

// Running returns the rung that is under way.
func (l *Ladder) Running() Rung { return l.running }

// Rehearsal says whether a rehearsal is under way.
func (l *Ladder) Rehearsal() bool { return l.rehearsal }

// Clear sets the counters to zero: the next trouble starts at the foot.
func (l *Ladder) Clear() {
	l.count, l.kept = Counters{}, Counters{}
	l.refused, l.healing, l.counted = "", false, false
}

func (l *Ladder) takeBad(ev Event) Decision {
	l.bad, l.healing, l.trouble, l.rehearsal = true, false, ev, false
	if l.running != Nothing {
		return l.nothing("%s is bad; the %s is under way, the next rung waits for its end", l.set.Monitor, l.running.noun())
	}
	return l.climb()
}

func (l *Ladder) takeGood(now cluster.Instant) Decision {
	if l.bad || l.goodSince == 0 {
		l.goodSince = now
	}
	l.bad, l.refused = false, ""
	if l.rehearsal {
		l.kept.FinalDone = false
		l.healing = l.kept != Counters{}
	} else {
		l.count.FinalDone = false
		l.healing = l.count != Counters{}
	}
	if l.healing {
		return l.nothing("%s is good; its counters return to zero if it stays so for %v", l.set.Monitor, l.set.Heal)
	}
	return l.nothing("%s is good", l.set.Monitor)
}

func (l *Ladder) takeDone(ev Event) Decision {
	done := l.running
	l.running = Nothing
	if done == Nothing {
		return l.nothing("no rung of %s is under way", l.set.Monitor)
	}
	if done == FailoverTarget && ev.Refused != "" {
		l.refused = ev.Refused
		if l.counted {
			l.count.Failovers--
		}
	}
	switch {
	case l.rehearsal && done == FinalAction:
		return l.endRehearsal()
	case l.rehearsal:
		return l.climb()
	case !l.bad:
		return l.nothing("%s is good after the %s", l.set.Monitor, done.noun())
	case !ev.Still:
		return l.nothing("the %s of %s is done; the next probe decides whether to go on", done.noun(), l.set.Monitor)
	}
	return l.climb()
}

func (l *Ladder) rehearse() Decision {
	switch {
	case l.bad:
		return l.nothing("%s is bad already: its ladder is climbed in earnest", l.set.Monitor)
	case l.rehearsal || l.running != Nothing:
		return l.nothing("a rung of %s is still under way", l.set.Monitor)
	}
	l.rehearsal, l.kept, l.count = true, l.count, Counters{}
	return l.climb()
}

func (l *Ladder) endRehearsal() Decision {
	if !l.rehearsal {
		return l.nothing("no rehearsal of %s is under way", l.set.Monitor)
	}
	l.rehearsal, l.count, l.refused, l.counted = false, l.kept, "", false
	return l.nothing("the rehearsal of %s has ended", l.set.Monitor)
}

// climb decides the next rung and counts it.
func (l *Ladder) climb() Decision {
	r := l.set.Recovery
	failovers := r.Failovers
	if failovers == config.AsManyAsNodes {
		failovers = l.set.Nodes
	}
	switch {
	case l.count.FinalDone:
		return l.nothing("%s; the ladder is used up, nothing more is done until it is good again", l.reason())
	case r.Script != "" && l.count.Scripts < r.Scripts:
		l.count.Scripts++
		return l.rung(RunScript, r.Script, "recovery script %d of %d", l.count.Scripts, r.Scripts)
	case l.count.Restarts < r.Restarts:
		l.count.Restarts++
		return l.rung(RestartTarget, r.BeforeRestart, "restart %d of %d of %s", l.count.Restarts, r.Restarts, words(l.set.Target))
	case l.refused == "" && l.count.Failovers < failovers:
		l.count.Failovers++
		return l.rung(FailoverTarget, r.BeforeFailover, "failover %d of %d of %s", l.count.Failovers, failovers, words(l.set.Target))
	}
	return l.final(failovers)
}

func (l *Ladder) final(failovers int) Decision {
	r := l.set.Recovery
	l.count.FinalDone = true
	action := r.FinalAction
	if action == "" || action == cluster.ActionContinue {
		action = cluster.ActionNone
	}
	used := l.used(failovers)
	if r.BeforeFinal == "" && action == cluster.ActionNone {
		d := l.nothing("%s; %s, and there is no final action", l.reason(), used)
		l.endRehearsal()
		return d
	}
	script := "no script"
	if r.BeforeFinal != "" {
		script = "the script " + r.BeforeFinal
	}
	d := l.rung(FinalAction, r.BeforeFinal, "%s, so %s and then the final action %s", used, script, action)
	d.Final = action
	return d
}

func (l *Ladder) rung(do Rung, script, format string, args ...any) Decision {
	l.running, l.counted = do, true
	d := l.nothing("%s; "+format, append([]any{l.reason()}, args...)...)
	d.Do, d.Script, d.Timeout, d.Target = do, script, l.set.Recovery.ScriptTimeout, l.set.Target
	return d
}

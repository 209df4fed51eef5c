package recovery

import (
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Module is the module of every event below.
const Module = "rm"

// Codes of the events whose texts are below.
const (
	CodeDetected  = "monitor-bad"
	CodeReturned  = "monitor-good"
	CodeSuspended = "monitor-suspended"
	CodeResumed   = "monitor-resumed"
	CodeRehearsal = "monitor-rehearsal"
	CodeRung      = "monitor-recovery"
	CodeCleared   = "monitor-cleared"
)

// Detected is the event's text when a verdict turns bad, in the words that log
// watchers of CLUSTERPRO look for.
func Detected(m cluster.MonitorName, code int, text string) string {
	return fmt.Sprintf("Detected an error in monitoring %s. (%d : %s)", m, code, text)
}

// Returned is the event's text when a verdict that was bad turns good.
func Returned(m cluster.MonitorName) string {
	return fmt.Sprintf("Monitoring %s has returned to normal.", m)
}

// Suspended is the event's text when a monitor is suspended.
func Suspended(m cluster.MonitorName) string {
	return fmt.Sprintf("Monitoring %s has been suspended.", m)
}

// Resumed is the event's text when a monitor is resumed.
func Resumed(m cluster.MonitorName) string {
	return fmt.Sprintf("Monitoring %s has been resumed.", m)
}

// Rehearsed is the event's text when a rehearsal begins.
func Rehearsed(m cluster.MonitorName) string {
	return fmt.Sprintf("A rehearsal of an error in monitoring %s has started. The recovery that follows is real.", m)
}

// Cleared is the event's text when somebody cleared the counters.
func Cleared(m cluster.MonitorName) string {
	return fmt.Sprintf("The recovery counters of %s have been cleared.", m)
}

// Text is the event's text of a decision.
func (d Decision) Text(m cluster.MonitorName) string {
	mark := ""
	if d.Rehearsal {
		mark = " (rehearsal)"
	}
	if d.Do == Nothing {
		return fmt.Sprintf("No recovery of %s%s: %s.", m, mark, d.Why)
	}
	return fmt.Sprintf("Recovery of %s%s by %s: %s.", m, mark, d.Do.noun(), d.Why)
}

func (r Rung) noun() string {
	switch r {
	case RunScript:
		return "recovery script"
	case FinalAction:
		return "final action"
	case Nothing:
		return "nothing"
	}
	return string(r)
}

func (l *Ladder) nothing(format string, args ...any) Decision {
	return Decision{Counters: l.count, Rehearsal: l.rehearsal, Why: fmt.Sprintf(format, args...)}
}

// reason says why the ladder is climbed.
func (l *Ladder) reason() string {
	switch {
	case l.rehearsal:
		return fmt.Sprintf("%s is rehearsed", l.set.Monitor)
	case l.trouble.Text == "":
		return fmt.Sprintf("%s is bad", l.set.Monitor)
	}
	return fmt.Sprintf("%s is bad (%d : %s)", l.set.Monitor, l.trouble.Code, l.trouble.Text)
}

// used says what of the ladder is used up.
func (l *Ladder) used(failovers int) string {
	r, c := l.set.Recovery, l.count
	if l.refused != "" {
		return fmt.Sprintf("no failover is possible (%s)", l.refused)
	}
	if c.Scripts+c.Restarts+c.Failovers == 0 {
		return "the file asks for no restart and no failover"
	}
	return fmt.Sprintf("used up are %d of %d recovery scripts, %d of %d restarts, %d of %d failovers",
		c.Scripts, r.Scripts, c.Restarts, r.Restarts, c.Failovers, failovers)
}

func words(t config.Target) string {
	switch {
	case t.Resource != "":
		return "resource " + string(t.Resource)
	case t.Group != "":
		return "group " + string(t.Group)
	}
	return "every group on this node"
}

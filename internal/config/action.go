package config

import (
	"slices"
	"strconv"
	"strings"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// role is who holds a final action; the same number can mean different things.
type role int

const (
	ofActivation role = iota
	ofDeactivation
	ofMonitor
)

// roles are the words of the `of` tag.
var roles = map[string]role{"activation": ofActivation, "deactivation": ofDeactivation, "monitor": ofMonitor}

// offered lists the final actions of a role, in the order of their numbers.
func (r role) offered() []cluster.FinalAction {
	switch r {
	case ofActivation:
		return []cluster.FinalAction{
			cluster.ActionContinue, cluster.ActionNone, cluster.ActionStopGroup, cluster.ActionStopDaemon,
			cluster.ActionShutdown, cluster.ActionReboot, cluster.ActionPanic, cluster.ActionWatchdogReset,
		}
	case ofDeactivation:
		return []cluster.FinalAction{
			cluster.ActionContinue, cluster.ActionNone, cluster.ActionStopDaemon,
			cluster.ActionShutdown, cluster.ActionReboot, cluster.ActionPanic, cluster.ActionWatchdogReset,
		}
	}
	return []cluster.FinalAction{
		cluster.ActionNone, cluster.ActionStopGroup, cluster.ActionStopDaemon,
		cluster.ActionShutdown, cluster.ActionReboot, cluster.ActionPanic, cluster.ActionWatchdogReset, cluster.ActionStopResource,
	}
}

func (r role) words() []string {
	var out []string
	for _, a := range r.offered() {
		out = append(out, string(a))
	}
	return out
}

// codes are the numbers of CLUSTERPRO's files.
var codes = map[int]cluster.FinalAction{
	0: cluster.ActionContinue, 1: cluster.ActionNone, 2: cluster.ActionStopGroup, 3: cluster.ActionStopDaemon, 4: cluster.ActionShutdown,
	5: cluster.ActionReboot, 8: cluster.ActionPanic, 9: cluster.ActionWatchdogReset, 16: cluster.ActionStopResource,
}

// code returns what a number means, or "". A monitor has no next resource to go
// on with, so 0 is nothing there.
func (r role) code(n int) cluster.FinalAction {
	if r == ofMonitor && n == 0 {
		return cluster.ActionNone
	}
	return codes[n]
}

// notOffered are final actions of CLUSTERPRO that Tasuki does not have.
var notOffered = map[string]string{
	"10": "watchdog panic", "11": "BMC reset", "12": "BMC power off", "13": "BMC power cycle", "14": "BMC NMI",
	"watchdog-panic": "watchdog panic", "bmc-reset": "BMC reset", "bmc-off": "BMC power off", "bmc-cycle": "BMC power cycle", "bmc-nmi": "BMC NMI",
}

// action gives a final action its meaning, or tells why it has none.
func (p *problems) action(where src, text string, r role) cluster.FinalAction {
	words := r.words()
	hint := "offered: " + strings.Join(words, ", ")
	if name, ok := notOffered[text]; ok {
		p.add(where, hint, "the final action %s (%s) is not offered", text, name)
		return ""
	}
	meaning := cluster.FinalAction(text)
	if n, err := strconv.Atoi(text); err == nil {
		meaning = r.code(n)
	}
	if slices.Contains(r.offered(), meaning) {
		return meaning
	}
	switch {
	case meaning == cluster.ActionStopResource:
		p.add(where, hint, "the final action %s is for monitors only", text)
	case meaning == cluster.ActionContinue:
		p.add(where, hint, "the final action %s is for resources only", text)
	case meaning == cluster.ActionStopGroup:
		p.add(where, hint, "the final action %s makes no sense here: the group is being stopped already", text)
	default:
		if near := didYouMean(text, words); strings.HasPrefix(near, "did") {
			hint = near
		}
		p.add(where, hint, "unknown final action %q", short(text))
	}
	return ""
}

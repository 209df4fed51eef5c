package config

import (
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

// offered lists the final actions of a role, in the order of their numbers.
func (r role) offered() []cluster.FinalAction {
	switch r {
	case ofActivation:
		return []cluster.FinalAction{cluster.ActionContinue, cluster.ActionNone, cluster.ActionStopGroup, cluster.ActionStopDaemon,
			cluster.ActionShutdown, cluster.ActionReboot, cluster.ActionPanic, cluster.ActionWatchdogReset}
	case ofDeactivation:
		return []cluster.FinalAction{cluster.ActionContinue, cluster.ActionNone, cluster.ActionStopDaemon,
			cluster.ActionShutdown, cluster.ActionReboot, cluster.ActionPanic, cluster.ActionWatchdogReset}
	}
	return []cluster.FinalAction{cluster.ActionNone, cluster.ActionStopGroup, cluster.ActionStopDaemon,
		cluster.ActionShutdown, cluster.ActionReboot, cluster.ActionPanic, cluster.ActionWatchdogReset, cluster.ActionStopResource}
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

// notOffered are final actions of CLUSTERPRO that Tasuki does not have.
var notOffered = map[string]string{
	"10": "watchdog panic", "11": "BMC reset", "12": "BMC power off", "13": "BMC power cycle", "14": "BMC NMI",
	"watchdog-panic": "watchdog panic", "bmc-reset": "BMC reset", "bmc-off": "BMC power off", "bmc-cycle": "BMC power cycle", "bmc-nmi": "BMC NMI",
}

// action gives a written final action its meaning, or tells why it has none.
func (p *problems) action(a rawAction, r role) cluster.FinalAction {
	if a.text == "" {
		return ""
	}
	words := r.words()
	hint := "offered: " + strings.Join(words, ", ")
	if name, ok := notOffered[a.text]; ok {
		p.add(a.src, hint, "the final action %s (%s) is not offered", a.text, name)
		return ""
	}
	meaning := cluster.FinalAction(a.text)
	if n, err := strconv.Atoi(a.text); err == nil {
		meaning = codes[n]
		if r == ofMonitor && n == 0 {
			meaning = cluster.ActionNone
		}
	}
	for _, o := range r.offered() {
		if o == meaning {
			return meaning
		}
	}
	switch {
	case meaning == cluster.ActionStopResource:
		p.add(a.src, hint, "the final action %s is for monitors only", a.text)
	case meaning == cluster.ActionContinue:
		p.add(a.src, "write none; "+hint, "the final action %s is for resources only", a.text)
	case meaning == cluster.ActionStopGroup:
		p.add(a.src, hint, "the final action %s makes no sense here: the group is being stopped already", a.text)
	default:
		if near := didYouMean(a.text, words); strings.HasPrefix(near, "did") {
			hint = near
		}
		p.add(a.src, hint, "unknown final action %q", a.text)
	}
	return ""
}

package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// scope collects the settings of one element.
type scope struct {
	all    *settings
	path   string // of the element; "" at the top
	effect func(old, new string) Effect
}

func always(kind EffectKind, g cluster.GroupName, m cluster.MonitorName, format string, args ...any) func(string, string) Effect {
	e := Effect{Kind: kind, Group: g, Monitor: m, Text: fmt.Sprintf(format, args...)}
	return func(string, string) Effect { return e }
}

func quietly(format string, args ...any) func(string, string) Effect {
	return always(EffectNone, "", "", format, args...)
}

// set adds a setting with the effect of its scope. Zero values of optional
// settings are no settings.
func (s scope) set(key string, value any) { s.but(key, value, s.effect) }

// but adds a setting with an effect of its own.
func (s scope) but(key string, value any, effect func(string, string) Effect) {
	s.all.put(setting{path: join(s.path, key), parent: s.path, value: words(value), effect: effect})
}

// comment adds a comment, which touches nothing.
func (s scope) comment(text string) { s.but("comment", text, quietly("a note, nothing else changes")) }

// element adds an element below this one and returns its scope; inside is the
// effect of its settings.
func (s scope) element(list, name, is string, effect, inside func(string, string) Effect) scope {
	if strings.Contains(name, ".") {
		name = strconv.Quote(name)
	}
	path := join(join(s.path, list), name)
	s.all.put(setting{path: path, parent: s.path, value: is, element: true, effect: effect})
	return scope{s.all, path, inside}
}

// needed says how many ping targets must answer, where that is not any of them.
func needed(a Arbitrator) string {
	if a.Need <= 1 {
		return ""
	}
	return fmt.Sprintf(" (%d must answer)", a.Need)
}

// words shows a value; a list without its brackets.
func words(v any) string {
	text := fmt.Sprint(v)
	if text == "invalid IP" {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
}

func (f *File) settings() *settings {
	all := &settings{at: map[string]int{}}
	top := scope{all: all}
	top.but("cluster", f.Cluster, always(EffectRefused, "", "", "the name of a cluster cannot change; make a new cluster instead"))
	top.comment(f.Comment)
	top.but("port", f.Port, quietly("a node uses the port from the next start of its daemon: stop them all, then start them"))
	f.nodeSettings(top)
	for i, a := range f.Arbitration {
		key := fmt.Sprintf("arbitration.%d", i+1)
		top.but(key, strings.TrimSpace(string(a.Kind)+" "+words(a.Targets)+needed(a)), quietly("applied at once; it decides when the nodes lose each other next time"))
	}
	f.fenceSettings(top)
	top.effect = quietly("applied at once on every node")
	top.set("timing.profile", f.Timing.Profile)
	top.set("timing.heartbeat", f.Timing.Heartbeat)
	top.set("timing.lease", f.Timing.Lease)
	top.set("timing.isolate", f.Timing.Isolate)
	top.but("timing.start_wait", f.Timing.StartWait, quietly("used when a daemon starts next time"))
	top.effect = quietly("used when a node is lost or returns next time; a quarantine that runs keeps its end")
	top.set("quarantine.failures", f.Quarantine.Failures)
	top.set("quarantine.within", f.Quarantine.Within)
	top.set("quarantine.for", f.Quarantine.For)
	for i := range f.Groups {
		f.Groups[i].settings(top)
	}
	for i := range f.Monitors {
		f.Monitors[i].settings(top)
	}
	f.outletSettings(top)
	top.effect = quietly("used from the next request on")
	top.set("requests.script_directory", f.Requests.ScriptDirectory)
	top.set("requests.script_timeout", f.Requests.ScriptTimeout)
	top.effect = quietly("used the next time that a guest's power is asked for")
	top.set("libvirt_socket", f.LibvirtSocket)
	for _, g := range f.Guests {
		top.element("guests", string(g.Name), fmt.Sprintf("%s %s", g.Kind, g.Target), top.effect, top.effect).set(string(g.Kind), g.Target)
	}
	return all
}

// port shows a port of a node; none where it is that of the cluster.
func port(p uint16) string {
	if p == 0 {
		return ""
	}
	return fmt.Sprint(p)
}

func (f *File) nodeSettings(top scope) {
	var order []cluster.NodeName
	for i := range f.Nodes {
		n := &f.Nodes[i]
		order = append(order, n.Name)
		s := top.element("nodes", string(n.Name), words(n.Addresses), func(old, _ string) Effect {
			if old == "" {
				return Effect{Kind: EffectNone, Text: fmt.Sprintf("node %s can join", n.Name)}
			}
			return Effect{Kind: EffectStopGroup, Text: fmt.Sprintf("node %s is no longer part of the cluster; refused while it is up, it must leave first", n.Name)}
		}, quietly("the other nodes talk to %s over these addresses at once", n.Name))
		s.set("addresses", n.Addresses)
		s.but("public", n.Public, quietly("only shown to people"))
		s.but("port", port(n.Port), quietly("the others look for %s there at once, its daemon uses it from its next start: restart that one", n.Name))
		for i, level := range n.Fence {
			for j, step := range level {
				s.but(fmt.Sprintf("fence.%d.%d", i+1, j+1), step, quietly("used when %s must be forced off next time", n.Name))
			}
		}
		s.but("witness", n.Witness, func(_, now string) Effect {
			if now == "true" {
				return Effect{Kind: EffectStopGroup, Text: fmt.Sprintf("node %s runs no groups any more; refused while one is active there", n.Name)}
			}
			return Effect{Kind: EffectNone, Text: fmt.Sprintf("node %s can run groups", n.Name)}
		})
	}
	top.but("nodes", order, quietly("the order of preference, used by the next decision"))
}

func (g *Group) settings(top scope) {
	var names []cluster.ResourceName
	for _, r := range g.Resources {
		names = append(names, r.Name)
	}
	s := top.element("groups", string(g.Name), strings.TrimSpace("group of "+words(names)), func(old, _ string) Effect {
		if old == "" {
			return Effect{Kind: EffectNone, Group: g.Name, Text: fmt.Sprintf("group %s is new; with startup auto it is started", g.Name)}
		}
		return Effect{Kind: EffectStopGroup, Group: g.Name, Text: fmt.Sprintf("group %s is gone; refused while it is active, stop it first", g.Name)}
	}, quietly("group %s goes on, the next decision uses it", g.Name))
	s.comment(g.Comment)
	s.set("startup", g.Startup)
	s.set("failover", g.Failover)
	s.set("failback", g.Failback)
	s.set("forget_failures", g.Forget)
	s.set("hold.failovers", g.Hold.Failovers)
	s.set("hold.within", g.Hold.Within)
	s.but("nodes", g.Nodes, func(old, now string) Effect {
		for _, n := range strings.Fields(old) {
			if !slices.Contains(strings.Fields(now), n) {
				return Effect{Kind: EffectStopGroup, Group: g.Name, Text: fmt.Sprintf("group %s cannot run on %s any more; refused while it is active there, move it first", g.Name, n)}
			}
		}
		return Effect{Kind: EffectNone, Group: g.Name, Text: fmt.Sprintf("group %s goes on, the next decision uses it", g.Name)}
	})
	restart := always(EffectRestartResource, g.Name, "", "resource of group %s: refused while the group is active; stop it, apply, start it", g.Name)
	for i := range g.Resources {
		g.Resources[i].settings(s, restart)
	}
}

func (r *Resource) settings(group scope, restart func(string, string) Effect) {
	s := group.element("resources", string(r.Name), string(r.Kind), func(old, now string) Effect {
		e := restart(old, now)
		if r.MirrorDisk != nil && now == "" {
			e.Text += fmt.Sprintf(". Which copy of %s is complete is forgotten: if it comes back, whoever starts first counts", r.Name)
		}
		return e
	}, restart)
	s.set("kind", r.Kind)
	s.comment(r.Comment)
	s.set("after", r.After)
	s.set("activation.retries", r.Activation.Retries)
	failovers := words(r.Activation.Failovers)
	if r.Activation.Failovers == AsManyAsNodes {
		failovers = wordNodes
	}
	s.set("activation.failovers", failovers)
	s.set("activation.final_action", r.Activation.FinalAction)
	s.set("deactivation.retries", r.Deactivation.Retries)
	s.set("deactivation.final_action", r.Deactivation.FinalAction)
	s.set("start_timeout", r.StartTimeout)
	s.set("stop_timeout", r.StopTimeout)
	if x := r.FloatingIP; x != nil {
		s.set("address", x.Address)
		if x.Prefix > 0 {
			s.set("prefix", x.Prefix)
		}
		s.set("device", x.Device)
		s.set("duplicate_check", x.DuplicateCheck)
		s.set("announce_count", x.AnnounceCount)
		s.set("announce_every", x.AnnounceEvery)
		s.set("takeover_wait", x.TakeoverWait)
		s.set("on_conflict", x.OnConflict)
	}
	if x := r.Exec; x != nil {
		s.set("start", x.Start)
		s.set("stop", x.Stop)
		s.set("mode", x.Mode)
		s.set("log_file", x.LogFile)
		s.set("log_size_mb", x.LogSizeMB)
	}
	if r.MirrorDisk != nil {
		r.MirrorDisk.settings(s)
	}
}

func (m *Monitor) settings(top scope) {
	restart := always(EffectRestartMonitor, "", m.Name, "monitor %s begins anew, its counters too", m.Name)
	s := top.element("monitors", string(m.Name), string(m.Kind), func(old, _ string) Effect {
		text := "monitor %s is gone and watches no more"
		if old == "" {
			text = "monitor %s is new and begins to watch"
		}
		return Effect{Kind: EffectRestartMonitor, Monitor: m.Name, Text: fmt.Sprintf(text, m.Name)}
	}, restart)
	s.set("kind", m.Kind)
	s.comment(m.Comment)
	s.set("nodes", m.Nodes)
	if x := m.UserSp; x != nil {
		s.set("method", x.Method)
		s.set("device", x.Device)
		s.set("timeout", x.Timeout)
		return
	}
	s.set("wait", m.Wait)
	s.set("when", m.When)
	s.set("target", m.Target)
	if x := m.NICLink; x != nil {
		s.set("device", x.Device)
		for _, n := range slices.Sorted(maps.Keys(x.PerNode)) {
			s.set("per_node."+string(n), x.PerNode[n])
		}
		s.set("debounce", x.Debounce)
	}
	if x := m.Custom; x != nil {
		s.set("interval", m.Interval)
		s.set("timeout", m.Timeout)
		s.set("retries", m.Retries)
		s.set("script", x.Script)
		s.set("mode", x.Mode)
		s.set("normal", x.Normal)
		s.set("log_file", x.LogFile)
		s.set("log_size_mb", x.LogSizeMB)
	}
	if x := m.Mirror; x != nil {
		s.set("resource", x.Resource)
		s.set("interval", m.Interval)
		s.set("timeout", m.Timeout)
		s.set("retries", m.Retries)
	}
	m.Recovery.settings(s)
}

func (r *Recovery) settings(s scope) {
	s.set("recovery.script", r.Script)
	s.set("recovery.scripts", r.Scripts)
	s.set("recovery.restarts", r.Restarts)
	s.set("recovery.failovers", r.Failovers)
	s.set("recovery.final_action", r.FinalAction)
	s.set("recovery.before_restart", r.BeforeRestart)
	s.set("recovery.before_failover", r.BeforeFailover)
	s.set("recovery.before_final", r.BeforeFinal)
	s.set("recovery.script_timeout", r.ScriptTimeout)
}

// String returns the target in words: cluster, group NAME or resource NAME.
func (t Target) String() string {
	switch {
	case t.Cluster:
		return wordCluster
	case t.Group != "":
		return "group " + string(t.Group)
	}
	return "resource " + string(t.Resource)
}

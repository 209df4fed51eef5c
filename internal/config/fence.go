package config

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Defaults of a fence device's time limit.
const (
	agentTimeout = 20 * time.Second
	linkTimeout  = 10 * time.Second
)

func fence(e *entry[rawFence]) Fence {
	r := &e.val
	f := Fence{
		Name: e.name, Comment: r.Comment.val, Agent: r.Agent.val, Link: cluster.LinkName(r.Link.val),
		Timeout: r.Timeout.val, Verify: r.Verify.val,
	}
	if !r.Timeout.ok {
		f.Timeout = agentTimeout
		if r.Link.written() {
			f.Timeout = linkTimeout
		}
	}
	for _, o := range r.Options.items {
		if f.Options == nil {
			f.Options = map[string]string{}
		}
		f.Options[o.name] = o.val.val
	}
	return f
}

func fenceLevels(e *entry[rawNode]) [][]FenceStep {
	var out [][]FenceStep
	for _, l := range e.val.Fence.items {
		var level []FenceStep
		for _, r := range l.items {
			s := FenceStep{Device: r.Device.val, Plug: r.Plug.val, Delay: r.Delay.val}
			if !r.Plug.written() {
				s.Plug = e.name
			}
			level = append(level, s)
		}
		out = append(out, level)
	}
	return out
}

// String returns the step as it could be written.
func (s FenceStep) String() string {
	return fmt.Sprintf("{device: %s, plug: %s, delay: %s}", s.Device, s.Plug, s.Delay)
}

// Secret says whether an option of a fence agent is a secret by itself. The name
// of a program that prints one is none.
func Secret(option string) bool {
	return secretRE.MatchString(option) && !strings.HasSuffix(option, "_script")
}

var (
	secretRE = regexp.MustCompile(`passw|passphrase|secret|token|community|(^|_)api_?key`)
	optionRE = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
)

// reserved are the options that Tasuki itself gives to an agent.
var reserved = map[string]string{
	"action": "remove it: the action is chosen when the agent is run",
	"plug":   "write plug at the node: fence: [[{device: NAME, plug: PLUG}]]",
	"port":   "write plug at the node: fence: [[{device: NAME, plug: PLUG}]]",
}

// checkFences tells devices that cannot work and steps that name none.
func (b *builder) checkFences() {
	for _, e := range b.raw.Fences.items {
		r := &e.val
		switch agent, link := r.Agent.written(), r.Link.written(); {
		case agent && link:
			b.add(r.Link.src, "keep one of them", "fence %s cannot have both agent and link", e.name)
		case !agent && !link:
			b.add(e.src, "write agent: fence_…, or link: CLUSTER", "fence %s has neither agent nor link", e.name)
		case link && len(r.Options.items) > 0:
			b.add(r.Options.src, "remove them", "a link has no options")
		}
		for _, o := range r.Options.items {
			switch hint := reserved[o.name]; {
			case hint != "":
				b.add(o.src, hint, "the option %s is not written here", o.name)
			case !optionRE.MatchString(o.name):
				b.add(o.src, "use lower-case letters, digits and '_', as the meta-data of the agent does", "%q is no option of a fence agent", short(o.name))
			}
		}
	}
	for _, e := range b.raw.Nodes.items {
		for _, level := range e.val.Fence.items {
			b.checkLevel(e.name, level)
		}
	}
	if every := b.raw.FenceCheck; every.ok && every.val > 0 && every.val < time.Second {
		b.add(every.src, "write 5m, or 0 for never", "%q is too often: %s", "fence_check", every.val)
	}
	b.checkFencePair()
	b.checkTakeover()
}

// checkTakeover tells an owner that nobody can force off although its groups
// wait for that, and a cluster in which no majority is left to do it.
func (b *builder) checkTakeover() {
	r := &b.raw.Takeover
	if r.val != string(TakeoverFence) {
		return
	}
	if len(b.raw.Nodes.items) < 3 {
		b.add(r.src, "write arbitration: [fence] for two nodes, or add a witness", "takeover fence is for three votes or more: of %d nodes no majority is left to force one off", len(b.raw.Nodes.items))
		return
	}
	for _, e := range b.raw.Nodes.items {
		if !e.val.Witness.val && len(e.val.Fence.items) == 0 {
			b.add(r.src, fmt.Sprintf("write a fence at node %s, or takeover: lease", e.name), "takeover fence must be able to force each owner off, and node %s has no fence", e.name)
		}
	}
}

func (b *builder) checkLevel(node string, level rawLevel) {
	seen := map[string]bool{}
	for _, s := range level.items {
		if s.Device.val == "" {
			continue
		}
		id := s.Device.val + "\n" + s.Plug.val
		switch {
		case b.f.Fence(s.Device.val) == nil:
			b.add(s.Device.src, b.hint(s.Device.val, names(b.raw.Fences.items)), "there is no fence %q", s.Device.val)
		case seen[id]:
			b.add(s.Device.src, "keep one of them", "%s stands twice in this level of node %s", s.Device.val, node)
		}
		seen[id] = true
	}
}

// checkFencePair tells a node of a pair with arbitration fence that nobody can
// force off.
func (b *builder) checkFencePair() {
	for i := range b.raw.Arbitration.items {
		a := &b.raw.Arbitration.items[i]
		if a.kind != ArbitrateFence {
			continue
		}
		for _, e := range b.raw.Nodes.items {
			if len(e.val.Fence.items) == 0 {
				b.add(a.src, fmt.Sprintf("write a fence at node %s, or choose another arbitration", e.name), "arbitration fence must be able to force each node off, and node %s has no fence", e.name)
			}
		}
		return
	}
}

// adviseFences warns of fences that may not do what they are for.
func (b *builder) adviseFences() {
	used := map[string]bool{}
	for _, n := range b.f.Nodes {
		for _, level := range n.Fence {
			for _, s := range level {
				used[s.Device] = true
			}
		}
	}
	for _, e := range b.raw.Fences.items {
		if !used[e.name] {
			b.warn(e.src, "name it at a node: fence: [[{device: "+e.name+"}]]", "fence %s is for no node", e.name)
		}
		if r := &e.val; !r.Verify.val {
			b.warn(r.Verify.src, "remove it if the device can tell whether a node is off", "fence %s is believed without asking: if it is wrong, a group can run on two nodes", e.name)
		}
		for _, o := range e.val.Options.items {
			if strings.Contains(o.name, "passw") && Secret(o.name) {
				b.warn(o.src, fmt.Sprintf("write %s_script: /PATH/OF/A/PROGRAM that prints it", o.name), "the %s of fence %s stands in the cluster file, which everybody with tasuki config show can read", o.name, e.name)
			}
		}
	}
	if b.f.FenceCheck == 0 && len(used) > 0 {
		b.warn(b.raw.FenceCheck.src, "write fence_check: 5m", "nothing tries the fence devices: one that has failed is found when it is needed")
	}
	b.adviseDelay()
}

// adviseDelay warns of a pair whose nodes could force each other off at the same
// moment.
func (b *builder) adviseDelay() {
	if len(b.f.Arbitration) == 0 || b.f.Arbitration[0].Kind != ArbitrateFence {
		return
	}
	var delays []time.Duration
	for _, n := range b.f.Nodes {
		var sum time.Duration
		for _, s := range n.Fence[0] {
			sum += s.Delay
		}
		delays = append(delays, sum)
	}
	if delays[0] == delays[1] {
		b.warn(b.raw.Arbitration.items[0].src, fmt.Sprintf("write delay: 5s in the fence of the node that should survive, for example %s", b.f.Nodes[0].Name),
			"the fences of both nodes have the same delay: when the nodes lose each other, both may be forced off")
	}
}

func (f *File) fenceSettings(top scope) {
	for i := range f.Fences {
		x := &f.Fences[i]
		now := quietly("used when a node must be forced off next time, and by the next check")
		is := x.Agent
		if x.Link != "" {
			is = "link " + string(x.Link)
		}
		s := top.element("fences", x.Name, is, now, now)
		s.comment(x.Comment)
		s.set("agent", x.Agent)
		s.set("link", x.Link)
		for _, o := range slices.Sorted(maps.Keys(x.Options)) {
			s.set("options."+o, shown(o, x.Options[o]))
		}
		s.set("timeout", x.Timeout)
		s.set("verify", x.Verify)
	}
	top.but("takeover", string(f.Takeover), quietly("decides when a node is lost next time"))
	top.but("fence_check", f.FenceCheck, quietly("used at once on every node"))
}

// shown is the value of an option as people see it in a list of changes. Of a
// secret that is a mark by which another one is told apart; it is too short to
// find the secret by.
func shown(option, value string) string {
	if !Secret(option) {
		return value
	}
	sum := sha256.Sum256([]byte(value))
	return fmt.Sprintf("(secret %x)", sum[:2])
}

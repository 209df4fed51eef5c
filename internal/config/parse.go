package config

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// DefaultPort is the port of a file that names none.
const DefaultPort = 29002

// MaxVoters is how many nodes can have a vote at a time; further ones have a
// copy of the state and run groups.
const MaxVoters = 7

// Parse reads a cluster file. name is what problems call the file; nothing is
// opened. It returns the checked file, or everything that is wrong with it.
// The same bytes give the same result on every node.
func Parse(name string, data []byte) (*File, Errors) {
	p := &problems{file: name}
	top := p.root(data)
	if top == nil {
		return nil, sorted(p.errs)
	}
	var raw rawFile
	d := &decoder{p}
	d.structure(top, reflect.ValueOf(&raw).Elem(), at(top), "", nil, d.hint)
	b := &builder{problems: p, raw: &raw, f: &File{}}
	b.build()
	b.check()
	if len(p.errs) > 0 {
		return nil, sorted(p.errs)
	}
	b.advise()
	b.f.warnings = sorted(p.warns)
	return b.f, nil
}

// Warnings returns what is allowed in the file but risky, sorted by position.
func (f *File) Warnings() []Problem { return f.warnings }

// builder makes the typed file from the raw one, then checks its relations.
// What the decoder refused is zero here and not told again.
type builder struct {
	*problems
	raw *rawFile
	f   *File
}

func (b *builder) build() {
	r, f := b.raw, b.f
	f.Cluster, f.Comment, f.Port = cluster.Name(r.Cluster.val), r.Comment.val, uint16(r.Port.val)
	for _, e := range r.Nodes.items {
		f.Nodes = append(f.Nodes, node(e))
	}
	for _, a := range r.Arbitration.items {
		f.Arbitration = append(f.Arbitration, Arbitrator{Kind: a.kind, Targets: addresses(a.ping.Targets), Need: int(a.ping.Need.val)})
	}
	for _, e := range r.Fences.items {
		f.Fences = append(f.Fences, fence(e))
	}
	f.FenceCheck, f.Takeover = r.FenceCheck.val, Takeover(r.Takeover.val)
	f.Timing = timing(&r.Timing)
	f.Quarantine = Quarantine{Failures: r.Quarantine.Failures.val, Within: r.Quarantine.Within.val, For: r.Quarantine.For.val}
	for _, e := range r.Groups.items {
		f.Groups = append(f.Groups, b.group(e))
	}
	for _, e := range r.Monitors.items {
		f.Monitors = append(f.Monitors, b.monitor(e))
	}
	for _, e := range r.Outlets.items {
		f.Outlets = append(f.Outlets, b.outlet(e))
	}
	f.Requests = Requests{ScriptDirectory: r.Requests.ScriptDirectory.val, ScriptTimeout: r.Requests.ScriptTimeout.val}
	for _, e := range r.Guests.items {
		f.Guests = append(f.Guests, guest(e))
	}
	if len(f.Guests) > 0 {
		f.LibvirtSocket = r.Libvirt.val
	}
}

func guest(e *entry[rawGuest]) Guest {
	g := Guest{Name: cluster.GuestName(e.name), Kind: GuestLibvirt, Target: e.name}
	switch r := &e.val; {
	case r.Libvirt.written():
		g.Target = r.Libvirt.val
	case r.QMP.written():
		g.Kind, g.Target = GuestQMP, r.QMP.val
	case r.Lab.written():
		g.Kind, g.Target = GuestLab, r.Lab.val
	}
	return g
}

func node(e *entry[rawNode]) Node {
	n := Node{Name: cluster.NodeName(e.name), Addresses: addresses(e.val.Addresses), Public: e.val.Public.val, Port: uint16(e.val.Port.val), Witness: e.val.Witness.val, Fence: fenceLevels(e)}
	if !n.Public.IsValid() && len(n.Addresses) > 0 {
		n.Public = n.Addresses[len(n.Addresses)-1]
	}
	return n
}

func addresses(l rawList[rawAddr]) []netip.Addr {
	var out []netip.Addr
	for _, a := range l.items {
		out = append(out, a.val)
	}
	return out
}

// profiles are the sets of times that one word stands for.
var profiles = map[string]Timing{
	"steady":  {Heartbeat: 300 * time.Millisecond, Lease: 3 * time.Second, Isolate: 900 * time.Millisecond},
	"default": {Heartbeat: 100 * time.Millisecond, Lease: time.Second, Isolate: 300 * time.Millisecond},
	"fast":    {Heartbeat: 25 * time.Millisecond, Lease: 250 * time.Millisecond, Isolate: 80 * time.Millisecond},
}

// Profiles returns the names of the profiles, the fastest first.
func Profiles() []string { return []string{"fast", "default", "steady"} }

// ProfileTiming returns the times that a profile stands for.
func ProfileTiming(name string) Timing {
	t := profiles[name]
	t.Profile = name
	return t
}

func timing(r *rawTiming) Timing {
	t := profiles[r.Profile.val]
	t.Profile, t.StartWait = r.Profile.val, r.StartWait.val
	for _, v := range []struct {
		raw *rawDuration
		to  *time.Duration
	}{{&r.Heartbeat, &t.Heartbeat}, {&r.Lease, &t.Lease}, {&r.Isolate, &t.Isolate}} {
		if v.raw.ok {
			*v.to = v.raw.val
		}
	}
	return t
}

func (b *builder) group(e *entry[rawGroup]) Group {
	g := Group{
		Name: cluster.GroupName(e.name), Comment: e.val.Comment.val, Nodes: b.nodeList(&e.val.Nodes),
		Startup: e.val.Startup.val, Failover: e.val.Failover.val, Failback: e.val.Failback.val,
		Forget: e.val.Forget.val, Hold: Hold{Failovers: e.val.Hold.Failovers.val, Within: e.val.Hold.Within.val},
	}
	for _, r := range e.val.Resources.items {
		g.Resources = append(g.Resources, b.resource(r))
	}
	return g
}

// nodeList returns the nodes of a list, or all that are no witness where none
// was written.
func (b *builder) nodeList(l *rawList[rawText]) []cluster.NodeName {
	var out []cluster.NodeName
	for _, n := range l.items {
		out = append(out, cluster.NodeName(n.val))
	}
	if !l.written() {
		for _, n := range b.f.Nodes {
			if !n.Witness {
				out = append(out, n.Name)
			}
		}
	}
	return out
}

func (b *builder) resource(e *entry[rawResource]) Resource {
	r := Resource{Name: cluster.ResourceName(e.name), Kind: ResourceKind(e.val.kind)}
	switch s := e.val.spec.(type) {
	case *rawFloatingIP:
		b.common(&r, &s.resourceKeys)
		r.StartTimeout, r.StopTimeout = s.StartTimeout.val, s.StopTimeout.val
		r.FloatingIP = &FloatingIP{
			Address: s.Address.val, Prefix: s.Prefix.val, Device: s.Device.val,
			DuplicateCheck: s.DuplicateCheck.val, AnnounceEvery: s.AnnounceEvery.val, AnnounceCount: s.AnnounceCount.val,
			TakeoverWait: s.TakeoverWait.val, OnConflict: s.OnConflict.val,
		}
	case *rawExec:
		b.common(&r, &s.resourceKeys)
		r.StartTimeout, r.StopTimeout = s.StartTimeout.val, s.StopTimeout.val
		r.Exec = &Exec{Start: s.Start.val, Stop: s.Stop.val, Mode: s.Mode.val, LogFile: s.LogFile.val, LogSizeMB: s.LogSizeMB.val}
	case *rawMirrorDisk:
		b.common(&r, &s.resourceKeys)
		r.StartTimeout, r.StopTimeout = s.StartTimeout.val, s.StopTimeout.val
		r.MirrorDisk = s.typed()
	}
	return r
}

func (b *builder) common(r *Resource, k *resourceKeys) {
	r.Comment = k.Comment.val
	for _, a := range k.After.items {
		r.After = append(r.After, cluster.ResourceName(a.val))
	}
	r.Activation = Activation{
		Retries: k.Activation.Retries.val, Failovers: k.Activation.Failovers.val,
		FinalAction: k.Activation.FinalAction.val,
	}
	r.Deactivation = Deactivation{Retries: k.Deactivation.Retries.val, FinalAction: k.Deactivation.FinalAction.val}
}

func (b *builder) monitor(e *entry[rawMonitor]) Monitor {
	m := Monitor{Name: cluster.MonitorName(e.name), Kind: MonitorKind(e.val.kind)}
	switch s := e.val.spec.(type) {
	case *rawNICLink:
		b.watch(&m, &s.monitorKeys, &s.ladderKeys)
		m.NICLink = &NICLink{Device: s.Device.val, Debounce: s.Debounce.val}
		for _, p := range s.PerNode.items {
			if m.NICLink.PerNode == nil {
				m.NICLink.PerNode = map[cluster.NodeName]string{}
			}
			m.NICLink.PerNode[cluster.NodeName(p.name)] = p.val.val
		}
	case *rawCustom:
		b.watch(&m, &s.monitorKeys, &s.ladderKeys)
		m.Interval, m.Timeout, m.Retries = s.Interval.val, s.Timeout.val, s.Retries.val
		m.Custom = &Custom{Script: s.Script.val, Mode: s.Mode.val, LogFile: s.LogFile.val, LogSizeMB: s.LogSizeMB.val}
		for _, code := range s.Normal.items {
			m.Custom.Normal = append(m.Custom.Normal, code.val)
		}
		if m.Custom.Normal == nil {
			m.Custom.Normal = []int{0}
		}
	case *rawMirrorWatch:
		b.mirrorWatch(&m, s)
	case *rawUserspace:
		b.watch(&m, &s.monitorKeys, nil)
		m.When, m.Target.Cluster, m.Recovery.FinalAction = WhenAlways, true, cluster.ActionNone
		m.UserSp = &Userspace{Method: s.Method.val, Device: s.Device.val, Timeout: s.Timeout.val}
		if usesDevice(m.UserSp.Method) && m.UserSp.Device == "" {
			m.UserSp.Device = "/dev/watchdog"
		}
		if !s.Timeout.ok {
			m.UserSp.Timeout = b.f.stallTimeout(m.UserSp.Method)
		}
	}
	return m
}

func (b *builder) watch(m *Monitor, k *monitorKeys, l *ladderKeys) {
	m.Comment, m.Nodes = k.Comment.val, b.nodeList(&k.Nodes)
	if l == nil {
		return
	}
	m.Wait, m.When = l.Wait.val, l.When.val
	m.Target = Target{Cluster: l.Target.cluster, Group: cluster.GroupName(l.Target.group.val), Resource: cluster.ResourceName(l.Target.resource.val)}
	r := &l.Recovery
	m.Recovery = Recovery{
		Scripts: r.Scripts.val, Restarts: r.Restarts.val, Failovers: r.Failovers.val,
		FinalAction: r.FinalAction.val, Script: r.Script.val, BeforeRestart: r.BeforeRestart.val,
		BeforeFailover: r.BeforeFailover.val, BeforeFinal: r.BeforeFinal.val, ScriptTimeout: r.ScriptTimeout.val,
	}
	if !r.Scripts.written() && r.Script.val != "" {
		m.Recovery.Scripts = 1
	}
}

func usesDevice(method string) bool {
	return method == MethodWatchdog || method == MethodSoftdog || method == MethodIPMI
}

// stallTimeout is the time-out of a userspace monitor that names none. Where
// another node could take over, a stalled node must be gone when its lease is;
// the kernel's watchdogs count whole seconds.
func (f *File) stallTimeout(method string) time.Duration {
	if !f.canTakeOver() {
		return 90 * time.Second
	}
	if usesDevice(method) {
		return max(time.Second, (f.Timing.Lease + time.Second - 1).Truncate(time.Second))
	}
	return f.Timing.Lease
}

// canTakeOver says whether any group could run on more than one node.
func (f *File) canTakeOver() bool {
	return slices.ContainsFunc(f.Groups, func(g Group) bool { return len(g.Nodes) > 1 })
}

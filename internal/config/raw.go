package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// The raw structs are the cluster file as it is written: its keys, their
// defaults and bounds, and what they mean. The parser, the schema and
// docs/cluster-file.md are all made from these tags; decoder explains them.

type rawFile struct {
	src
	Cluster     rawText                `yaml:"cluster" need:"true" is:"name" doc:"the name of the cluster; it cannot change later"`
	Comment     rawText                `yaml:"comment" is:"line" doc:"a note for people"`
	Port        rawInt                 `yaml:"port" range:"1..65535" default:"29002" doc:"tcp port of the API and of requests, udp port of heartbeats, on every node that names no other"`
	Nodes       rawMap[rawNode]        `yaml:"nodes" need:"true" range:"1..32" doc:"the machines of the cluster by name, in the order of preference; seven of them have a vote at a time"`
	Arbitration rawList[rawArbitrator] `yaml:"arbitration" range:"0..2" doc:"how two nodes without a witness decide who goes on when they lose each other: fence (who has forced the other off goes on; if that fails, the next of the list rules), ping with its targets, or none (both go on)" unless:"nobody goes on alone"`
	Fences      rawMap[rawFence]       `yaml:"fences" range:"0..64" doc:"devices that can force a node off from outside, by name; which of them are for a node is written at the node"`
	FenceCheck  rawDuration            `yaml:"fence_check" range:"0s..24h" default:"5m" doc:"how often every node tries whether the fence devices of the others answer, without switching anything; at least 1s, 0 never"`
	Takeover    rawText                `yaml:"takeover" enum:"lease,fence" default:"lease" doc:"what must have happened before the groups of a silent node start elsewhere: lease (its lease has run out, by when it has made itself harmless), or fence (it was also forced off; without that nothing starts). For a majority of three votes or more; a pair has arbitration"`
	Timing      rawTiming              `yaml:"timing" doc:"how fast a silent node is replaced"`
	Quarantine  rawQuarantine          `yaml:"quarantine" doc:"when a node that keeps failing is given no groups for a while"`
	Groups      rawMap[rawGroup]       `yaml:"groups" range:"0..1000" doc:"what fails over, by name"`
	Monitors    rawMap[rawMonitor]     `yaml:"monitors" range:"0..1000" doc:"what is watched, by name"`
	Outlets     rawMap[rawOutlet]      `yaml:"outlets" range:"0..16" doc:"where the events of the log go, by name (docs/events.md)"`
	Requests    rawRequests            `yaml:"requests" doc:"what other clusters may have this one run"`
	Guests      rawMap[rawGuest]       `yaml:"guests" range:"0..256" doc:"the virtual machines on this host, by name, that their own cluster can have powered off through a link (docs/fencing.md); only in a cluster of one node"`
	Libvirt     rawText                `yaml:"libvirt_socket" is:"abs" default:"/var/run/libvirt/libvirt-sock" doc:"where libvirt listens, for guests that are its domains"`
}

type rawGuest struct {
	src
	Libvirt rawText `yaml:"libvirt" is:"line" doc:"the guest is this domain of libvirt, which must be persistent" unless:"the guest's name, if there is no qmp and no lab"`
	QMP     rawText `yaml:"qmp" is:"abs" doc:"the guest is the QEMU whose monitor (QMP) listens at this socket"`
	Lab     rawText `yaml:"lab" is:"name" doc:"the guest is this machine of the lab; refused outside of a lab"`
}

type rawNode struct {
	src
	Addresses rawList[rawAddr]  `yaml:"addresses" need:"true" range:"1..8" doc:"IP addresses by priority, the interconnect first; the first addresses of all nodes are one network, the second ones another"`
	Public    rawAddr           `yaml:"public" doc:"where clients and administrators reach the node" unless:"the last of addresses"`
	Port      rawInt            `yaml:"port" range:"1..65535" doc:"tcp and udp port of this node, where another daemon or witness on the same machine has that of the cluster" unless:"the port of the cluster"`
	Witness   rawBool           `yaml:"witness" default:"false" doc:"the node has a vote, and never runs a group"`
	Fence     rawList[rawLevel] `yaml:"fence" range:"0..8" each:"1..8" doc:"how the others force this node off: levels in order, each a list of steps; when a step fails, the next level is tried" unless:"it cannot be forced off"`
}

// rawLevel is one level of a node's fence: all its steps must succeed.
type rawLevel = rawList[rawStep]

type rawStep struct {
	src
	Device rawText     `yaml:"device" need:"true" is:"name" doc:"one of fences"`
	Plug   rawText     `yaml:"plug" is:"line" doc:"what the device calls the node: a power socket, the name of a guest" unless:"the name of the node"`
	Delay  rawDuration `yaml:"delay" range:"0s..5m" default:"0s" doc:"how long to wait before it; where each of two nodes may force the other off, the one with the delay survives"`
}

type rawFence struct {
	src
	Comment rawText         `yaml:"comment" is:"line" doc:"a note for people"`
	Agent   rawText         `yaml:"agent" is:"agent" doc:"a program of fence-agents in /usr/sbin, for example fence_ipmilan; it is this or link"`
	Options rawMap[rawText] `yaml:"options" range:"0..50" is:"line" doc:"what the agent needs to know, by the names of its meta-data, for example {ip: 10.0.0.9, username: tasuki, password_script: /etc/tasuki/ipmi-password}"`
	Link    rawText         `yaml:"link" is:"name" doc:"a linked cluster that switches the nodes off for us, for example the host that they are guests of"`
	Timeout rawDuration     `yaml:"timeout" range:"1s..10m" doc:"time limit of switching off and of seeing that it is off; reaching it is a failure" unless:"20s, with link 10s"`
	Verify  rawBool         `yaml:"verify" default:"true" doc:"ask the device whether the node is off before it counts as off"`
}

type rawArbitrator struct {
	src
	kind ArbitratorKind
	ping rawPing
}

type rawPing struct {
	src
	Targets rawList[rawAddr] `yaml:"targets" need:"true" range:"1..8" doc:"addresses that answer to ping, best a router or switch; the node that reaches enough of them goes on"`
	Need    rawInt           `yaml:"need" range:"1..8" default:"1" doc:"how many of the targets must answer: 1 is any of them"`
}

type rawTiming struct {
	src
	Profile   rawText     `yaml:"profile" enum:"steady,default,fast" default:"default" doc:"a set of the three times below: steady (heartbeat 300ms, lease 3s, isolate 900ms) for guests that are snapshotted or migrated, default (100ms, 1s, 300ms), fast (25ms, 250ms, 80ms)"`
	Heartbeat rawDuration `yaml:"heartbeat" range:"5ms..10s" doc:"time between two heartbeats; three must fit into lease less isolate" unless:"by profile"`
	Lease     rawDuration `yaml:"lease" range:"50ms..5m" doc:"how long an answered heartbeat lets a node run its groups, so about the time until a silent node is replaced" unless:"by profile"`
	Isolate   rawDuration `yaml:"isolate" range:"10ms..1m" doc:"the end of the lease that is kept for making the node harmless" unless:"by profile"`
	StartWait rawDuration `yaml:"start_wait" range:"0s..1h" default:"60s" doc:"how long a starting node waits for the others before it goes on with a majority"`
}

type rawQuarantine struct {
	src
	Failures rawInt      `yaml:"failures" range:"0..99" default:"3" doc:"how often a node must be lost, not by a planned leave, to be quarantined when it returns; 0 never"`
	Within   rawDuration `yaml:"within" range:"1m..168h" default:"1h" doc:"the time in which that must happen"`
	For      rawDuration `yaml:"for" range:"1m..720h" default:"2h" doc:"how long it is given no groups then, unless no other node can run them"`
}

type rawHold struct {
	src
	Failovers rawInt      `yaml:"failovers" range:"0..99" default:"3" doc:"after so many failovers by resources and monitors the group is held: none follows until an operator releases it; 0 never"`
	Within    rawDuration `yaml:"within" range:"1s..168h" default:"10m" doc:"the time in which they must happen"`
}

type rawGroup struct {
	src
	Comment   rawText             `yaml:"comment" is:"line" doc:"a note for people"`
	Nodes     rawList[rawText]    `yaml:"nodes" range:"1..32" is:"name" doc:"where the group may run, in the order of preference" unless:"all nodes but witnesses"`
	Startup   rawText             `yaml:"startup" enum:"auto,manual" default:"auto" doc:"who starts the group when the cluster starts"`
	Failover  rawText             `yaml:"failover" enum:"auto,manual" default:"auto" doc:"who moves the group when its node fails"`
	Failback  rawText             `yaml:"failback" enum:"auto,manual" default:"manual" doc:"who moves the group home when a node that it prefers is back"`
	Forget    rawDuration         `yaml:"forget_failures" range:"0s..8760h" default:"24h" doc:"how long after the latest one its failures are forgotten while it runs: the failover counters, and nodes where its activation failed; 0 never"`
	Hold      rawHold             `yaml:"hold" doc:"when a group that keeps failing over stays where it is"`
	Resources rawMap[rawResource] `yaml:"resources" range:"0..200" doc:"the parts of the group, by name; a name is used only once in the whole cluster"`
}

type rawActivation struct {
	src
	Retries     rawInt    `yaml:"retries" range:"0..99" default:"0" doc:"how often the start is tried again on the same node"`
	Failovers   rawCount  `yaml:"failovers" range:"0..99" default:"1" doc:"how often the group is then tried on another node; nodes means as many as there are nodes"`
	FinalAction rawAction `yaml:"final_action" of:"activation" default:"none" doc:"what is done when all that did not help"`
}

type rawDeactivation struct {
	src
	Retries     rawInt    `yaml:"retries" range:"0..99" default:"0" doc:"how often the stop is tried again, before what is left is ended by force"`
	FinalAction rawAction `yaml:"final_action" of:"deactivation" default:"shutdown" doc:"what is done when that did not help; the group starts elsewhere only when it is surely off here"`
}

type resourceKeys struct {
	src
	Comment      rawText          `yaml:"comment" is:"line" doc:"a note for people"`
	After        rawList[rawText] `yaml:"after" range:"0..200" is:"name" doc:"resources of the same group that are started before this one and stopped after it" unless:"depends on none"`
	Activation   rawActivation    `yaml:"activation" doc:"what happens when the resource does not start"`
	Deactivation rawDeactivation  `yaml:"deactivation" doc:"what happens when the resource does not stop"`
}

type rawFloatingIP struct {
	resourceKeys
	Address        rawAddr     `yaml:"address" need:"true" is:"float" doc:"the IPv4 or IPv6 address that follows the group"`
	Prefix         rawInt      `yaml:"prefix" range:"1..128" doc:"its prefix length" unless:"that of the interface whose subnet holds the address"`
	Device         rawText     `yaml:"device" is:"device" doc:"the interface that gets it" unless:"the interface whose subnet holds the address"`
	DuplicateCheck rawDuration `yaml:"duplicate_check" range:"0s..10s" default:"30ms" doc:"how long to ask before activation whether another machine has the address; 0 asks not"`
	AnnounceCount  rawInt      `yaml:"announce_count" range:"1..60" default:"5" doc:"how many announcements (gratuitous ARP, unsolicited NA) are sent at activation"`
	AnnounceEvery  rawDuration `yaml:"announce_every" range:"0s..1h" default:"60s" doc:"time between further announcements while active; 0 sends none"`
	TakeoverWait   rawDuration `yaml:"takeover_wait" range:"0s..10m" default:"10s" doc:"how long a start after a failure waits while another machine has the address; a start that was asked for does not wait"`
	OnConflict     rawText     `yaml:"on_conflict" enum:"claim,fail" default:"claim" doc:"what a start does when a node of the cluster that is declared down still answers for the address: claim takes it at once and defends it, fail waits and then fails; the address of another machine is never taken"`
	StartTimeout   rawDuration `yaml:"start_timeout" range:"100ms..24h" default:"30s" doc:"time limit of one start"`
	StopTimeout    rawDuration `yaml:"stop_timeout" range:"100ms..24h" default:"30s" doc:"time limit of one stop"`
}

type rawExec struct {
	resourceKeys
	Start        rawText     `yaml:"start" need:"true" is:"path" doc:"start script: an absolute path, or a file in scripts/GROUP/RESOURCE of the configuration directory"`
	Stop         rawText     `yaml:"stop" is:"path" doc:"stop script, named in the same way" unless:"only the supervised process is ended"`
	Mode         rawText     `yaml:"mode" enum:"sync,async" default:"sync" doc:"sync: active when the start script has ended with 0; async: active while the started process lives"`
	LogFile      rawText     `yaml:"log_file" is:"path" doc:"where the output of the scripts goes: an absolute path, or a file in the log directory" unless:"GROUP-RESOURCE.log in the log directory"`
	LogSizeMB    rawInt      `yaml:"log_size_mb" range:"1..1024" default:"10" doc:"the log is renamed at this size in MB; one old file is kept"`
	StartTimeout rawDuration `yaml:"start_timeout" range:"100ms..24h" default:"1800s" doc:"time limit of one start"`
	StopTimeout  rawDuration `yaml:"stop_timeout" range:"100ms..24h" default:"1800s" doc:"time limit of one stop"`
}

type monitorKeys struct {
	src
	Comment rawText          `yaml:"comment" is:"line" doc:"a note for people"`
	Nodes   rawList[rawText] `yaml:"nodes" range:"1..32" is:"name" doc:"who watches" unless:"all nodes but witnesses"`
}

type ladderKeys struct {
	Wait     rawDuration `yaml:"wait" range:"0s..1h" default:"0s" doc:"time before the first check"`
	When     rawText     `yaml:"when" enum:"always,active" default:"always" doc:"always, or only while the target is active on the node"`
	Target   rawTarget   `yaml:"target" default:"cluster" doc:"what the recovery acts on: {group: NAME}, {resource: NAME}, or cluster for every group active on the node that saw the fault"`
	Recovery rawRecovery `yaml:"recovery" doc:"what is done when the verdict is bad: script, restarts, failovers, final action, in this order"`
}

type rawNICLink struct {
	monitorKeys
	Device   rawText         `yaml:"device" is:"device" doc:"the interface whose carrier is watched" unless:"per_node names it for every node"`
	PerNode  rawMap[rawText] `yaml:"per_node" range:"1..32" is:"device" doc:"the interface on nodes that have it under another name, for example {CLP-2: ens3}"`
	Debounce rawDuration     `yaml:"debounce" range:"0s..10s" default:"20ms" doc:"the link must be down this long; a real loss lasts longer, because a link takes longer than that to negotiate, while drivers can report bursts"`
	ladderKeys
}

type rawCustom struct {
	monitorKeys
	Script    rawText         `yaml:"script" need:"true" is:"path" doc:"the program: an absolute path, or a file in scripts/monitor.s/MONITOR of the configuration directory"`
	Mode      rawText         `yaml:"mode" enum:"sync,async" default:"sync" doc:"sync: it runs every interval and its exit code is judged; async: it must stay alive"`
	Normal    rawList[rawInt] `yaml:"normal" range:"1..256" each:"0..255" doc:"exit codes that are good" unless:"[0]"`
	Interval  rawDuration     `yaml:"interval" range:"100ms..24h" default:"30s" doc:"time between two checks"`
	Timeout   rawDuration     `yaml:"timeout" range:"100ms..24h" default:"60s" doc:"time limit of one check; reaching it is a bad result"`
	Retries   rawInt          `yaml:"retries" range:"0..99" default:"0" doc:"bad results in a row that are borne before the verdict is bad"`
	LogFile   rawText         `yaml:"log_file" is:"path" doc:"where the output goes: an absolute path, or a file in the log directory" unless:"MONITOR.log in the log directory"`
	LogSizeMB rawInt          `yaml:"log_size_mb" range:"1..1024" default:"10" doc:"the log is renamed at this size in MB; one old file is kept"`
	ladderKeys
}

type rawUserspace struct {
	monitorKeys
	Method  rawText     `yaml:"method" need:"true" enum:"keepalive,softdog,watchdog,ipmi,none" doc:"who resets the node when the daemon makes no progress: keepalive (a helper process of ours), softdog, watchdog or ipmi (a device of the kernel), none"`
	Device  rawText     `yaml:"device" is:"abs" doc:"the watchdog device; not for keepalive and none" unless:"/dev/watchdog"`
	Timeout rawDuration `yaml:"timeout" range:"50ms..5m" doc:"no progress for this long resets the node" unless:"the lease where another node could take over (rounded up to seconds for a device), else 90s"`
}

type rawRecovery struct {
	src
	Script         rawText     `yaml:"script" is:"path" doc:"recovery script: an absolute path, or a file in scripts/monitor.s/MONITOR of the configuration directory"`
	Scripts        rawInt      `yaml:"scripts" range:"0..99" doc:"how often the recovery script is run before the first restart" unless:"1 with a script, else 0"`
	Restarts       rawInt      `yaml:"restarts" range:"0..99" default:"3" doc:"how often the target is stopped and started on its node"`
	Failovers      rawInt      `yaml:"failovers" range:"0..99" default:"1" doc:"how often the target's group is then moved to another node"`
	FinalAction    rawAction   `yaml:"final_action" of:"monitor" default:"none" doc:"what is done when all that did not help"`
	BeforeRestart  rawText     `yaml:"before_restart" is:"path" doc:"program to run before every restart"`
	BeforeFailover rawText     `yaml:"before_failover" is:"path" doc:"program to run before every failover"`
	BeforeFinal    rawText     `yaml:"before_final" is:"path" doc:"program to run before the final action, also where that is none"`
	ScriptTimeout  rawDuration `yaml:"script_timeout" range:"100ms..24h" default:"60s" doc:"time limit of each of these programs"`
}

type rawRequests struct {
	src
	ScriptDirectory rawText     `yaml:"script_directory" is:"path" default:"scripts/requests" doc:"where the scripts are that another cluster may name: an absolute path, or a folder in the configuration directory"`
	ScriptTimeout   rawDuration `yaml:"script_timeout" range:"100ms..24h" default:"60s" doc:"time limit of such a script"`
}

// variant is one kind of resource or monitor with the keys that it has.
type variant struct {
	kind string
	doc  string
	make func() any
}

var resourceKinds = []variant{
	{string(KindFloatingIP), "an address that follows its group", func() any { return new(rawFloatingIP) }},
	{string(KindExec), "a start script and a stop script", func() any { return new(rawExec) }},
	{string(KindMirrorDisk), "a block device of which the two nodes of the group keep a copy each, and the file system on it", func() any { return new(rawMirrorDisk) }},
}

var monitorKinds = []variant{
	{string(KindNICLink), "the carrier of an interface, told by the kernel at once", func() any { return new(rawNICLink) }},
	{string(KindCustom), "a script of the administrator", func() any { return new(rawCustom) }},
	{string(KindUserspace), "the daemon itself: when it makes no progress, the node is reset", func() any { return new(rawUserspace) }},
	{string(KindMirror), "the copy of a mirror disk on its own node: bad when it is out of date, broken or has failed", func() any { return new(rawMirrorWatch) }},
	{string(KindMirrorConnect), "the connection between the two copies of a mirror disk", func() any { return new(rawMirrorWatch) }},
}

const kindDoc = "which kind it is"

// rawResource is one of the structs of resourceKinds; spec is nil where the
// kind was refused.
type rawResource struct {
	kind string
	spec any
}

func (r *rawResource) fill(string) {}

func (r *rawResource) decode(d *decoder, n *yaml.Node, f field) {
	r.kind, r.spec = d.variant(n, f, resourceKinds)
}

// rawMonitor is one of the structs of monitorKinds.
type rawMonitor struct {
	kind string
	spec any
}

func (m *rawMonitor) fill(string) {}

func (m *rawMonitor) decode(d *decoder, n *yaml.Node, f field) {
	m.kind, m.spec = d.variant(n, f, monitorKinds)
}

// variant decodes a mapping whose key `kind` says which other keys it has.
func (d *decoder) variant(n *yaml.Node, f field, list []variant) (string, any) {
	if !d.mapping(n, f.full()) {
		return "", nil
	}
	kinds := make([]string, len(list))
	for i, v := range list {
		kinds[i] = v.kind
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		if key.Value != "kind" {
			continue
		}
		which := slices.Index(kinds, val.Value)
		if which < 0 || val.Kind != yaml.ScalarNode {
			d.add(at(val), d.hint(val.Value, kinds), "unknown kind %s%s", quoted(val), inPath(f.full()))
			return "", nil
		}
		spec := list[which].make()
		v := reflect.ValueOf(spec).Elem()
		setPlace(v, f.at)
		d.structure(n, v, f.at, f.full(), []string{"kind"}, func(key string, known []string) string {
			if len(d.errs) >= MaxProblems {
				return ""
			}
			return foreignKey(key, known, list, which)
		})
		return list[which].kind, spec
	}
	d.add(f.at, oneOf(kinds), "%q is missing in %s", "kind", f.full())
	return "", nil
}

// foreignKey returns the hint for a key that this kind does not have: which
// kinds have it, or which key is near.
func foreignKey(key string, known []string, list []variant, which int) string {
	var others []string
	for i, v := range list {
		has := slices.ContainsFunc(fieldsOf(reflect.TypeOf(v.make()).Elem(), ""), func(f field) bool { return f.key == key })
		if i != which && has {
			others = append(others, v.kind)
		}
	}
	if others == nil {
		return didYouMean(key, known)
	}
	last := len(others) - 1
	if last == 0 {
		return fmt.Sprintf("%s has no such key, %s has it", list[which].kind, others[0])
	}
	return fmt.Sprintf("%s has no such key, %s and %s have it", list[which].kind, strings.Join(others[:last], ", "), others[last])
}

func (r *rawArbitrator) fill(string) {}

func (r *rawArbitrator) decode(d *decoder, n *yaml.Node, f field) {
	r.src = at(n)
	const hint = "write [none], [{ping: {targets: [ADDRESS]}}], or [fence] with one of them after it or alone"
	if n.Kind == yaml.ScalarNode {
		switch n.Value {
		case string(ArbitrateNone), string(ArbitrateFence):
			r.kind = ArbitratorKind(n.Value)
		case string(ArbitratePing):
			d.add(r.src, "write ping: {targets: [ADDRESS]}", "ping needs targets")
		default:
			d.add(r.src, hint, "unknown arbitration %q", n.Value)
		}
		return
	}
	if !d.mapping(n, f.key) {
		return
	}
	for _, p := range d.pairs(n, f.key) {
		if p.key != string(ArbitratePing) {
			d.add(p.at, hint, "unknown arbitration %q", p.key)
			continue
		}
		r.kind = ArbitratePing
		d.value(p.value, reflect.ValueOf(&r.ping).Elem(), field{key: p.key, path: f.key}, p.at)
	}
}

// rawTarget is what a recovery acts on. At most one of the three is set; none
// where it was refused.
type rawTarget struct {
	src
	cluster         bool
	group, resource rawText
}

const wordCluster = "cluster"

func (t *rawTarget) fill(text string) { t.cluster = text == wordCluster }

func (t *rawTarget) decode(d *decoder, n *yaml.Node, f field) {
	t.src = at(n)
	hint := "write cluster, {group: NAME} or {resource: NAME}"
	if n.Kind == yaml.ScalarNode {
		t.cluster = n.Value == wordCluster
		if !t.cluster {
			d.add(t.src, hint, "%q names nothing: %q", f.key, n.Value)
		}
		return
	}
	if !d.mapping(n, f.full()) {
		return
	}
	pairs := d.pairs(n, f.full())
	if len(pairs) != 1 {
		d.add(t.src, hint, "%q must name one thing, not %d", f.key, len(pairs))
		return
	}
	p := pairs[0]
	in := field{key: p.key, path: f.full(), tag: `is:"name"`}
	switch p.key {
	case "group":
		t.group.decode(d, p.value, in)
	case "resource":
		t.resource.decode(d, p.value, in)
	default:
		d.add(p.at, hint, "unknown key %q in %s", p.key, f.full())
	}
}

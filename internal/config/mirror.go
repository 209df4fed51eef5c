package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// KindMirrorDisk is a block device of which two nodes keep a copy each.
const KindMirrorDisk ResourceKind = "mirror-disk"

// Kinds of monitors of a mirror disk: KindMirror watches the copy on its own
// node, KindMirrorConnect the connection between the two copies.
const (
	KindMirror        MonitorKind = "mirror"
	KindMirrorConnect MonitorKind = "mirror-connect"
)

// DefaultMirrorPort is the tcp port of a mirror disk that names none.
const DefaultMirrorPort = 29051

// MirrorDisk is a block device of which the two nodes of its group keep a copy
// each. It is active on one of them; the file system on it is mounted there.
type MirrorDisk struct {
	MirrorDevices                                    // on nodes that PerNode does not name
	PerNode       map[cluster.NodeName]MirrorDevices // an empty path: that of MirrorDevices
	Mount         string                             // the mount point; "" where FS is FSNone
	FS            string                             // FSExt3, FSExt4, FSXFS, FSNone
	Mkfs          bool                               // a file system is made when the mirror is constructed
	MountOptions  string                             // between commas; "": the kernel's own
	MountTimeout  time.Duration                      // of one try
	MountRetries  int                                // tries after the first one
	UmountTimeout time.Duration                      // of one try
	UmountRetries int                                // tries after the first one
	Fsck          string                             // FsckAuto, FsckAlways, FsckNever
	InitialCopy   bool                               // false: the administrator says that both data devices are the same
	Mode          string                             // MirrorSync, MirrorAsync
	Queue         int64                              // of MirrorAsync, in bytes: what the other copy may be behind
	Port          uint16                             // tcp, on both nodes
	Rate          int64                              // of copying, in bytes per second; 0: as fast as it goes
	Compression   string                             // CompressionOff, CompressionZstd
	FrontEnd      string                             // FrontEndAuto, FrontEndFUSE, FrontEndNBD
	SplitBrain    string                             // SplitBrainNone, SplitBrainSurvivor, SplitBrainOlder, SplitBrainSmaller
	PeerTimeout   time.Duration                      // how long a silent other copy is waited for before the cluster is asked
	IOTimeout     time.Duration                      // a local write that takes longer is a failure of the disk
}

// MirrorDevices are what a copy lies on: block devices or files, absolute paths.
type MirrorDevices struct {
	Data string // the data partition
	Meta string // the cluster partition: what may differ, the generations, the flags
}

// On returns the devices of the copy on that node.
func (m *MirrorDisk) On(n cluster.NodeName) MirrorDevices {
	d := m.MirrorDevices
	if own, ok := m.PerNode[n]; ok {
		if own.Data != "" {
			d.Data = own.Data
		}
		if own.Meta != "" {
			d.Meta = own.Meta
		}
	}
	return d
}

// File systems of a mirror disk. With FSNone nothing is mounted: what uses the
// block device is the administrator's.
const (
	FSExt3 = "ext3"
	FSExt4 = "ext4"
	FSXFS  = "xfs"
	FSNone = "none"
)

// When a file system is checked before it is mounted.
const (
	FsckAuto   = "auto" // when it asks for it, or the device was not shut down cleanly
	FsckAlways = "always"
	FsckNever  = "never"
)

// When a write is complete.
const (
	MirrorSync  = "sync"  // when both copies have it
	MirrorAsync = "async" // when the active copy has it, and it is queued for the other one
)

// Compression of what goes to the other copy.
const (
	CompressionOff  = "off"
	CompressionZstd = "zstd"
)

// What gives the kernel the block device.
const (
	FrontEndAuto = "auto" // whichever the kernel has
	FrontEndFUSE = "fuse" // a file of a FUSE mount under a loop device
	FrontEndNBD  = "nbd"  // a network block device
)

// Whose writes are given up when both copies were written apart.
const (
	SplitBrainNone     = "none"     // nobody's, until an operator names the victim
	SplitBrainSurvivor = "survivor" // those of the node whose group was stopped
	SplitBrainOlder    = "older"    // those of the copy that was written last longer ago
	SplitBrainSmaller  = "smaller"  // those of the copy on which fewer blocks changed
)

// MirrorWatch is what monitors of a mirror disk watch.
type MirrorWatch struct {
	Resource cluster.ResourceName // of kind KindMirrorDisk
}

// Mirrors returns the mirror disks of the group, in file order.
func (g *Group) Mirrors() []*Resource {
	var out []*Resource
	for i := range g.Resources {
		if g.Resources[i].MirrorDisk != nil {
			out = append(out, &g.Resources[i])
		}
	}
	return out
}

type rawMirrorDisk struct {
	resourceKeys
	Data          rawText                  `yaml:"data" is:"abs" doc:"the data partition: a block device or a file, the same size on both nodes; what is on it is kept, unless this copy is the one that is copied to" unless:"per_node names it for both nodes"`
	Meta          rawText                  `yaml:"meta" is:"abs" doc:"the cluster partition: a block device or a file of 10 MiB or more that belongs to the mirror disk alone" unless:"per_node names it for both nodes"`
	PerNode       rawMap[rawMirrorDevices] `yaml:"per_node" range:"1..2" doc:"data and meta on nodes that have them under another name, for example {CLP-2: {data: /dev/vdb2}}"`
	Mount         rawText                  `yaml:"mount" is:"abs" doc:"the mount point; it must be written unless fs is none" unless:"nothing is mounted"`
	FS            rawText                  `yaml:"fs" need:"true" enum:"ext3,ext4,xfs,none" doc:"the file system; none: nothing is mounted, and what uses the block device comes after it"`
	Mkfs          rawBool                  `yaml:"mkfs" default:"false" doc:"make the file system when the mirror is constructed, only on a data partition that holds none; false: never"`
	MountOptions  rawText                  `yaml:"mount_options" is:"options" doc:"mount options, separated by commas, for example noatime,data=ordered" unless:"the kernel's own"`
	MountTimeout  rawDuration              `yaml:"mount_timeout" range:"1s..24h" default:"180s" doc:"time limit of one try to mount"`
	MountRetries  rawInt                   `yaml:"mount_retries" range:"0..99" default:"3" doc:"how often mounting is tried again"`
	UmountTimeout rawDuration              `yaml:"umount_timeout" range:"1s..24h" default:"120s" doc:"time limit of one try to unmount"`
	UmountRetries rawInt                   `yaml:"umount_retries" range:"0..99" default:"3" doc:"how often unmounting is tried again"`
	Fsck          rawText                  `yaml:"fsck" enum:"auto,always,never" default:"auto" doc:"when the file system is checked before it is mounted: auto (when it asks for it, or the device was not shut down cleanly; this suits ext3 and ext4), always, or never (this suits xfs, whose log is replayed by mounting it; with auto and always xfs is only looked at, never repaired)"`
	InitialCopy   rawBool                  `yaml:"initial_copy" default:"true" doc:"copy everything that is not zero when the mirror is constructed; false says that both data partitions hold the same bytes already"`
	Mode          rawText                  `yaml:"mode" enum:"sync,async" default:"sync" doc:"sync: a write is complete when both copies have it; async: when the active one has it and it is queued, so a takeover can lose the latest writes"`
	Queue         rawSize                  `yaml:"queue" range:"64KiB..1GiB" default:"2048KiB" doc:"async: how much can be queued; when it is full, writes wait"`
	Port          rawInt                   `yaml:"port" range:"1..65535" default:"29051" doc:"tcp port on both nodes, one for each mirror disk"`
	Rate          rawSize                  `yaml:"rate" range:"64KiB..100GiB" default:"0" doc:"limit of copying to the other node, per second, for example 50MB; 0 is no limit. Writes of the active node are never slowed by it"`
	Compression   rawText                  `yaml:"compression" enum:"off,zstd" default:"off" doc:"compress what goes to the other copy; of use where the network is slower than about 100 MB/s"`
	FrontEnd      rawText                  `yaml:"front_end" enum:"auto,fuse,nbd" default:"auto" doc:"what gives the kernel the block device: auto is the one that this kernel has"`
	SplitBrain    rawText                  `yaml:"split_brain" enum:"none,survivor,older,smaller" default:"none" doc:"whose writes are given up when both copies were written apart: none (nobody's, until an operator names the victim with tasuki mirror resolve), survivor (those of the node whose group was stopped), older (of the copy that was written last longer ago), smaller (of the copy on which fewer blocks changed)"`
	PeerTimeout   rawDuration              `yaml:"peer_timeout" range:"100ms..60s" default:"1s" doc:"how long a silent other copy is waited for, with writes held, before the cluster is asked to go on without it"`
	IOTimeout     rawDuration              `yaml:"io_timeout" range:"1s..10m" default:"30s" doc:"a write to a device of this node that takes longer counts as a failed disk"`
	StartTimeout  rawDuration              `yaml:"start_timeout" range:"1s..24h" default:"1800s" doc:"time limit of one start, with the check of the file system and every try to mount"`
	StopTimeout   rawDuration              `yaml:"stop_timeout" range:"1s..24h" default:"900s" doc:"time limit of one stop, with every try to unmount"`
}

type rawMirrorDevices struct {
	src
	Data rawText `yaml:"data" is:"abs" doc:"the data partition on this node" unless:"that of both nodes"`
	Meta rawText `yaml:"meta" is:"abs" doc:"the cluster partition on this node" unless:"that of both nodes"`
}

// rawMirrorWatch is a monitor of a mirror disk. What it sees is told by the
// mirror disk at once; no restart and no failover makes a copy complete, so its
// ladder does nothing unless that is written.
type rawMirrorWatch struct {
	src
	Comment  rawText           `yaml:"comment" is:"line" doc:"a note for people"`
	Nodes    rawList[rawText]  `yaml:"nodes" range:"1..32" is:"name" doc:"who watches" unless:"the two nodes of the mirror disk"`
	Resource rawText           `yaml:"resource" need:"true" is:"name" doc:"the mirror disk that is watched"`
	Interval rawDuration       `yaml:"interval" range:"100ms..24h" default:"10s" doc:"time between two checks"`
	Timeout  rawDuration       `yaml:"timeout" range:"100ms..24h" default:"60s" doc:"time limit of one check; reaching it is a bad result"`
	Retries  rawInt            `yaml:"retries" range:"0..99" default:"0" doc:"bad results in a row that are borne before the verdict is bad"`
	Wait     rawDuration       `yaml:"wait" range:"0s..1h" default:"0s" doc:"time before the first check"`
	When     rawText           `yaml:"when" enum:"always,active" default:"always" doc:"always, or only while the target is active on the node"`
	Target   rawTarget         `yaml:"target" default:"cluster" doc:"what the recovery acts on: {group: NAME}, {resource: NAME}, or cluster for every group active on the node that saw the fault"`
	Recovery rawMirrorRecovery `yaml:"recovery" doc:"what is done when the verdict is bad: as of every monitor, but without restarts and failovers unless they are written here"`
}

// rawMirrorRecovery is rawRecovery with other defaults.
type rawMirrorRecovery struct {
	src
	Script         rawText     `yaml:"script" is:"path" doc:"recovery script: an absolute path, or a file in scripts/monitor.s/MONITOR of the configuration directory"`
	Scripts        rawInt      `yaml:"scripts" range:"0..99" doc:"how often the recovery script is run before the first restart" unless:"1 with a script, else 0"`
	Restarts       rawInt      `yaml:"restarts" range:"0..99" default:"0" doc:"how often the target is stopped and started on its node"`
	Failovers      rawInt      `yaml:"failovers" range:"0..99" default:"0" doc:"how often the target's group is then moved to another node"`
	FinalAction    rawAction   `yaml:"final_action" of:"monitor" default:"none" doc:"what is done when all that did not help"`
	BeforeRestart  rawText     `yaml:"before_restart" is:"path" doc:"program to run before every restart"`
	BeforeFailover rawText     `yaml:"before_failover" is:"path" doc:"program to run before every failover"`
	BeforeFinal    rawText     `yaml:"before_final" is:"path" doc:"program to run before the final action, also where that is none"`
	ScriptTimeout  rawDuration `yaml:"script_timeout" range:"100ms..24h" default:"60s" doc:"time limit of each of these programs"`
}

func (r *rawMirrorWatch) ladder() *ladderKeys {
	return &ladderKeys{Wait: r.Wait, When: r.When, Target: r.Target, Recovery: rawRecovery(r.Recovery)}
}

func (r *rawMirrorDisk) typed() *MirrorDisk {
	m := &MirrorDisk{
		MirrorDevices: MirrorDevices{Data: r.Data.val, Meta: r.Meta.val},
		Mount:         r.Mount.val, FS: r.FS.val, Mkfs: r.Mkfs.val, MountOptions: r.MountOptions.val,
		MountTimeout: r.MountTimeout.val, MountRetries: r.MountRetries.val,
		UmountTimeout: r.UmountTimeout.val, UmountRetries: r.UmountRetries.val,
		Fsck: r.Fsck.val, InitialCopy: r.InitialCopy.val, Mode: r.Mode.val, Queue: r.Queue.val,
		Port: uint16(r.Port.val), Rate: r.Rate.val, Compression: r.Compression.val, FrontEnd: r.FrontEnd.val,
		SplitBrain: r.SplitBrain.val, PeerTimeout: r.PeerTimeout.val, IOTimeout: r.IOTimeout.val,
	}
	for _, p := range r.PerNode.items {
		if m.PerNode == nil {
			m.PerNode = map[cluster.NodeName]MirrorDevices{}
		}
		m.PerNode[cluster.NodeName(p.name)] = MirrorDevices{Data: p.val.Data.val, Meta: p.val.Meta.val}
	}
	return m
}

// mirrorWatch builds a monitor of a mirror disk. The groups are built already.
func (b *builder) mirrorWatch(m *Monitor, r *rawMirrorWatch) {
	b.watch(m, &monitorKeys{src: r.src, Comment: r.Comment, Nodes: r.Nodes}, r.ladder())
	m.Interval, m.Timeout, m.Retries = r.Interval.val, r.Timeout.val, r.Retries.val
	m.Mirror = &MirrorWatch{Resource: cluster.ResourceName(r.Resource.val)}
	if g := b.f.GroupOf(m.Mirror.Resource); g != nil && !r.Nodes.written() {
		m.Nodes = slices.Clone(g.Nodes)
	}
}

// rawMirror is a mirror disk of the file with the group that it is in.
type rawMirror struct {
	*entry[rawResource]
	raw   *rawMirrorDisk
	is    *MirrorDisk
	group *Group
}

func (b *builder) mirrors() []rawMirror {
	var out []rawMirror
	for i, g := range b.raw.Groups.items {
		for j, r := range g.val.Resources.items {
			if s, ok := r.val.spec.(*rawMirrorDisk); ok {
				out = append(out, rawMirror{r, s, b.f.Groups[i].Resources[j].MirrorDisk, &b.f.Groups[i]})
			}
		}
	}
	return out
}

// use remembers who uses something on a node first: a device, a mount point or
// a port.
type use struct {
	node cluster.NodeName
	what string
}

func (b *builder) checkMirrors() {
	used := map[use]string{}
	for _, n := range b.f.Nodes {
		used[use{n.Name, fmt.Sprintf("tcp port %d", b.f.PortOf(&n))}] = "the daemon itself"
	}
	for _, m := range b.mirrors() {
		b.checkMirror(m)
		b.checkMirrorDevices(m)
		b.checkMirrorUse(m, used)
	}
}

func (b *builder) checkMirror(m rawMirror) {
	if n := len(m.group.Nodes); n != 2 {
		b.add(m.src, fmt.Sprintf("write two nodes at the group: groups.%s.nodes: [NODE, NODE]", m.group.Name),
			"mirror disk %s has a copy on each of two nodes, but group %s has %d", m.name, m.group.Name, n)
	}
	switch mount := m.raw.Mount; {
	case m.is.FS == FSNone && mount.written():
		b.add(mount.src, "remove mount, or write fs: ext4", "%q is of no use with fs: none", "mount")
	case m.is.FS != FSNone && m.is.FS != "" && !mount.written():
		b.add(m.src, "write mount, for example mount: /data, or fs: none", "%q is missing in groups.%s.resources.%s", "mount", m.group.Name, m.name)
	case systemDirectory(m.is.Mount) != "":
		b.add(mount.src, "write a directory of its own, for example /data", "nothing can be mounted at %s: %s is the system's", m.is.Mount, systemDirectory(m.is.Mount))
	}
	if m.is.FS == FSNone {
		for _, t := range []struct {
			key string
			src
		}{
			{"mkfs", m.raw.Mkfs.src}, {"mount_options", m.raw.MountOptions.src}, {"mount_timeout", m.raw.MountTimeout.src}, {"mount_retries", m.raw.MountRetries.src},
			{"umount_timeout", m.raw.UmountTimeout.src}, {"umount_retries", m.raw.UmountRetries.src}, {"fsck", m.raw.Fsck.src},
		} {
			if t.written() {
				b.add(t.src, "remove it", "%q is of no use with fs: none", t.key)
			}
		}
	}
	if m.raw.Queue.written() && m.is.Mode == MirrorSync {
		b.add(m.raw.Queue.src, "remove it, or write mode: async", "%q is of no use with mode: sync: a write waits for both copies", "queue")
	}
	if m.is.Mkfs && !m.is.InitialCopy {
		b.add(m.raw.InitialCopy.src, "write initial_copy: true, or mkfs: false", "a file system that is made on one copy must be copied to the other one")
	}
	b.checkMirrorTimes(m)
}

// checkMirrorTimes tells where the tries of a mount cannot fit into the start.
func (b *builder) checkMirrorTimes(m rawMirror) {
	if m.is.FS == FSNone {
		return
	}
	for _, t := range []struct {
		verb, key string
		limit     rawDuration
		try       rawDuration
		retries   rawInt
	}{
		{"mount", "start_timeout", m.raw.StartTimeout, m.raw.MountTimeout, m.raw.MountRetries},
		{"unmount", "stop_timeout", m.raw.StopTimeout, m.raw.UmountTimeout, m.raw.UmountRetries},
	} {
		need := t.try.val * time.Duration(t.retries.val+1)
		if t.limit.ok && t.try.ok && t.retries.ok && t.limit.val < need {
			where := placeOr(t.limit.src, placeOr(t.try.src, placeOr(t.retries.src, m.src)))
			b.add(where, fmt.Sprintf("write %s: %s, or fewer or shorter tries", t.key, need),
				"%d tries to %s of %s each do not fit into %s (%s)", t.retries.val+1, t.verb, t.try.val, t.key, t.limit.val)
		}
	}
}

// checkMirrorDevices tells nodes without devices, and names that are no node of
// the group.
func (b *builder) checkMirrorDevices(m rawMirror) {
	for _, p := range m.raw.PerNode.items {
		switch n := cluster.NodeName(p.name); {
		case b.f.Node(n) == nil:
			b.add(p.src, b.hint(p.name, names(b.raw.Nodes.items)), "there is no node %q", p.name)
		case !slices.Contains(m.group.Nodes, n):
			b.add(p.src, "add it to the group's nodes, or remove it here", "node %s has no copy of mirror disk %s: it is not in group %s", n, m.name, m.group.Name)
		}
	}
	for _, n := range m.group.Nodes {
		on, node := m.is.On(n), b.perNode(m, n)
		for _, d := range []struct {
			key, path string
			own, both src
		}{{"data", on.Data, node.Data.src, m.raw.Data.src}, {"meta", on.Meta, node.Meta.src, m.raw.Meta.src}} {
			if d.path == "" && !d.own.written() && !d.both.written() {
				b.add(m.src, fmt.Sprintf("write %[1]s, or name it for both nodes in per_node: {%[2]s: {%[1]s: PATH}, …}", d.key, n), "mirror disk %s has no %s on node %s", m.name, d.key, n)
			}
		}
	}
}

func (b *builder) perNode(m rawMirror, n cluster.NodeName) rawMirrorDevices {
	for _, p := range m.raw.PerNode.items {
		if p.name == string(n) {
			return p.val
		}
	}
	return rawMirrorDevices{}
}

// checkMirrorUse tells devices, mount points and ports that something on the
// same node has already.
func (b *builder) checkMirrorUse(m rawMirror, used map[use]string) {
	told := map[string]bool{}
	for _, n := range m.group.Nodes {
		on, node := m.is.On(n), b.perNode(m, n)
		for _, u := range []struct {
			what, who string
			where     src
		}{
			{on.Data, "data of " + m.name, placeOr(node.Data.src, m.raw.Data.src)},
			{on.Meta, "meta of " + m.name, placeOr(node.Meta.src, m.raw.Meta.src)},
			{m.is.Mount, "the mount point of " + m.name, m.raw.Mount.src},
			{fmt.Sprintf("tcp port %d", m.is.Port), "mirror disk " + m.name, placeOr(m.raw.Port.src, m.src)},
		} {
			was, taken := used[use{n, u.what}]
			switch {
			case u.what == "" || !m.raw.Port.ok && strings.HasPrefix(u.what, "tcp"):
			case !taken:
				used[use{n, u.what}] = u.who
			case !told[u.what]: // once, not for both nodes
				told[u.what] = true
				hint := "give every one its own"
				if strings.HasPrefix(u.what, "tcp") {
					hint = fmt.Sprintf("write a port that is free on both nodes, for example port: %d", m.is.Port+1)
				}
				b.add(u.where, hint, "%s cannot have %s on node %s: %s has it", u.who, u.what, n, was)
			}
		}
	}
}

// systemDirectory returns the directory of the system that a mount at that
// point would hide or disturb, or "".
func systemDirectory(mount string) string {
	for _, dir := range []string{"/bin", "/boot", "/etc", "/lib", "/lib64", "/root", "/run", "/sbin", "/tmp", "/usr", "/var", "/var/lib", "/var/log", "/var/run"} {
		if mount == dir {
			return dir
		}
	}
	for _, dir := range []string{"/dev", "/proc", "/sys", "/etc/tasuki", "/run/tasuki", "/var/lib/tasuki", "/var/log/tasuki"} {
		if mount == dir || strings.HasPrefix(mount, dir+"/") {
			return dir
		}
	}
	return ""
}

func (b *builder) checkMirrorWatch(r *rawMirrorWatch, m *Monitor) {
	b.checkNodeList(&r.Nodes, true)
	b.checkLadder(r.ladder(), m)
	g, known := b.f.GroupOf(m.Mirror.Resource), r.Resource.val != ""
	switch {
	case !known:
	case g == nil:
		b.add(r.Resource.src, b.hint(r.Resource.val, b.mirrorNames()), "there is no resource %q", r.Resource.val)
	case g.Resource(m.Mirror.Resource).Kind != KindMirrorDisk:
		b.add(r.Resource.src, b.hint(r.Resource.val, b.mirrorNames()), "resource %s is no mirror disk, it is of kind %s", r.Resource.val, g.Resource(m.Mirror.Resource).Kind)
	default:
		for _, n := range r.Nodes.items {
			if name := cluster.NodeName(n.val); b.f.Node(name) != nil && !slices.Contains(g.Nodes, name) {
				b.add(n.src, "remove it here", "node %s has no copy of mirror disk %s", name, r.Resource.val)
			}
		}
	}
}

func (b *builder) mirrorNames() []string {
	var out []string
	for _, m := range b.mirrors() {
		out = append(out, m.name)
	}
	return out
}

// adviseMirrors warns of mirror disks of which both copies can be written apart,
// and of writes that a takeover loses.
func (b *builder) adviseMirrors() {
	for _, m := range b.mirrors() {
		if list := b.raw.Arbitration.items; len(list) > 0 && list[len(list)-1].kind != ArbitrateFence {
			b.warn(m.src, "better add a witness: any third machine, with witness: true",
				"arbitration %s: when the two nodes lose each other, both can go on and write to their copies of mirror disk %s apart from each other (split brain); the writes of one of them are then lost", list[len(list)-1].kind, m.name)
		}
		if m.is.Mode == MirrorAsync {
			b.warn(m.raw.Mode.src, "write mode: sync where that must not be", "mirror disk %s is async: when its active node fails, up to %s of writes that were acknowledged are lost", m.name, sizeInWords(m.is.Queue))
		}
		if m.is.SplitBrain != SplitBrainNone {
			b.warn(m.raw.SplitBrain.src, "write split_brain: none to decide by hand", "split_brain %s: after a split brain, writes of one copy of mirror disk %s are given up without asking", m.is.SplitBrain, m.name)
		}
	}
}

func (m *MirrorDisk) settings(s scope) {
	s.set("data", m.Data)
	s.set("meta", m.Meta)
	for _, n := range sortedNodes(m.PerNode) {
		s.set("per_node."+string(n)+".data", m.PerNode[n].Data)
		s.set("per_node."+string(n)+".meta", m.PerNode[n].Meta)
	}
	s.set("mount", m.Mount)
	s.set("fs", m.FS)
	s.set("mkfs", m.Mkfs)
	s.set("mount_options", m.MountOptions)
	s.set("mount_timeout", m.MountTimeout)
	s.set("mount_retries", m.MountRetries)
	s.set("umount_timeout", m.UmountTimeout)
	s.set("umount_retries", m.UmountRetries)
	s.set("fsck", m.Fsck)
	s.set("initial_copy", m.InitialCopy)
	s.set("mode", m.Mode)
	s.set("queue", sizeInWords(m.Queue))
	s.set("port", m.Port)
	s.but("rate", sizeInWords(m.Rate), quietly("applied at once, to a copy that is under way too"))
	s.set("compression", m.Compression)
	s.set("front_end", m.FrontEnd)
	s.but("split_brain", m.SplitBrain, quietly("used at the next split brain"))
	s.set("peer_timeout", m.PeerTimeout)
	s.set("io_timeout", m.IOTimeout)
}

func sortedNodes[T any](m map[cluster.NodeName]T) []cluster.NodeName {
	var out []cluster.NodeName
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

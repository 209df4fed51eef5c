package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

const prefix = "tasuki_"

// Family is one metric: its name, what it is and which labels it has.
type Family struct {
	Name   string
	Type   string // gauge, counter or histogram
	Labels []string
	Help   string

	desc *prometheus.Desc
	kind prometheus.ValueType
}

// table is all families, in the order of the documentation.
type table []*Family

func (t *table) add(name, kind, help string, labels ...string) *Family {
	f := &Family{Name: prefix + name, Type: kind, Labels: labels, Help: help, kind: prometheus.GaugeValue}
	if kind == "counter" {
		f.kind = prometheus.CounterValue
	}
	f.desc = prometheus.NewDesc(f.Name, help, labels, nil)
	*t = append(*t, f)
	return f
}

func (t *table) gauge(name, help string, labels ...string) *Family {
	return t.add(name, "gauge", help, labels...)
}

func (t *table) counter(name, help string, labels ...string) *Family {
	return t.add(name, "counter", help, labels...)
}

func (t *table) histogram(name, help string, labels ...string) *Family {
	return t.add(name, "histogram", help, labels...)
}

// families is every family of a Set by what it tells of.
type families struct {
	table

	build, answers                                                       *Family
	leaderKnown, leader, term, applied, committed, generation, solo      *Family
	votes, votesThere, survives, configVersion, maintenance              *Family
	nodeUp, nodeState, nodeVoter, quarantined, silence                   *Family
	directionUp, beatDelay, beatsSent, beatsReceived, beatsDropped       *Family
	leaseHeld, leaseMargin, leaseLeast, lease, isolate, isolated         *Family
	lateness, stateWrite                                                 *Family
	groupPhase, groupOwner, groupFailovers, groupHeld, groupEpoch        *Family
	resourceState, monitorVerdict                                        *Family
	mirrorInSync, mirrorForced, mirrorPaused, mirrorState, mirrorJoined  *Family
	mirrorDirty, mirrorSize, mirrorCopied, mirrorSpeed, mirrorETA        *Family
	mirrorRequests, mirrorBytes, mirrorWaiting, mirrorOldest             *Family
	asked, wasAsked, linkReachable                                       *Family
	events, fenceOK, fenceVerified, certificate                          *Family
	outletUp, outletWaiting, outletDelivered, outletFailed, outletMissed *Family
}

func newFamilies() *families {
	f := &families{}
	f.ofDaemon()
	f.ofCluster()
	f.ofNodes()
	f.ofGroups()
	f.ofMirrors()
	f.ofOutside()
	return f
}

func (f *families) ofDaemon() {
	f.build = f.gauge("build_info", "1, with the version of the daemon.", "version", "node")
	f.answers = f.gauge("engine_answers", "Whether the engine answered this scrape. If not, only what the daemon measures without it is told.")
	f.lateness = f.histogram("engine_lateness_seconds", "How late the engine came to what was due: the stalls of the daemon and its machine.")
	f.stateWrite = f.histogram("state_write_seconds", "How long durable writes of the replicated state took.")
	f.leaseHeld = f.gauge("lease_held", "Whether this node holds its lease: it may run groups.")
	f.leaseMargin = f.gauge("lease_margin_seconds", "Time until the lease of this node ends; 0 if it holds none.")
	f.leaseLeast = f.gauge("lease_margin_least_seconds", "The least that was left of the lease in the last one to two minutes, by the oldest acknowledgement that it stood on.")
	f.lease = f.gauge("lease_seconds", "Length of the lease by the cluster file.")
	f.isolate = f.gauge("lease_isolate_seconds", "The end of the lease that is kept for isolating, by the cluster file.")
	f.isolated = f.gauge("isolated", "Whether this node has isolated its groups.")
	f.certificate = f.gauge("certificate_expiry_timestamp_seconds", "When a certificate ends, in Unix time: that of the node, those of the cluster's authority and of linked clusters.", "certificate")
}

func (f *families) ofCluster() {
	f.leaderKnown = f.gauge("leader_known", "Whether this node knows a leader: the cluster can decide.")
	f.leader = f.gauge("leader", "Whether this node is the leader.")
	f.term = f.gauge("raft_term", "Term of consensus.")
	f.applied = f.gauge("raft_applied_index", "Latest entry of the log that is part of the state of this node.")
	f.committed = f.gauge("raft_committed_index", "Latest entry of the log that is agreed on, as far as this node knows.")
	f.generation = f.gauge("generation", "How often consensus was begun anew by a node that went on alone.")
	f.solo = f.gauge("solo", "Whether this node goes on alone, without a majority.")
	f.votes = f.gauge("votes", "Votes of the cluster.")
	f.votesThere = f.gauge("votes_present", "Votes that are here, as this node sees it.")
	f.survives = f.gauge("faults_survivable", "How many more faults of nodes the cluster can survive.")
	f.configVersion = f.gauge("config_version", "Version of the cluster file in force.")
	f.maintenance = f.gauge("maintenance", "1 while somebody works on a node, a group, or, where both labels are empty, the cluster.", "node", "group")
}

func (f *families) ofNodes() {
	f.nodeUp = f.gauge("node_up", "Whether the node is up, by agreement; the label says whether it is a witness.", "node", "witness")
	f.nodeState = f.gauge("node_state", "1 for the state that the node is in, else 0: unknown, up, left, down.", "node", "state")
	f.nodeVoter = f.gauge("node_voter", "Whether the node has a vote now.", "node")
	f.quarantined = f.gauge("node_quarantined", "Whether the node is quarantined.", "node")
	f.silence = f.gauge("node_silence_seconds", "Time since this node last heard the other one, on any network.", "node")
	f.directionUp = f.gauge("direction_up", "Whether heartbeats of the node arrive at this one on the network.", "from", "to", "network")
	f.beatDelay = f.histogram("heartbeat_delay_seconds", "How much later than the fastest one of the last 10 to 20 seconds a heartbeat arrived.", "from", "to", "network")
	f.beatsSent = f.counter("heartbeats_sent_total", "Heartbeats sent.")
	f.beatsReceived = f.counter("heartbeats_received_total", "Heartbeats received and taken.")
	f.beatsDropped = f.counter("heartbeats_dropped_total", "Heartbeats not sent (send_error, no_key, no_path) or received and not taken (malformed, unknown_key, bad_tag, replayed).", "reason")
	f.fenceOK = f.gauge("fence_ok", "Whether the latest check of the fence device from this node was good. It is not told before the first one.", "node", "level", "device", "plug")
	f.fenceVerified = f.gauge("fence_verified_timestamp_seconds", "When this node's latest good check of the fence device was, in Unix time; 0: there was none.", "node", "level", "device", "plug")
}

func (f *families) ofGroups() {
	f.groupPhase = f.gauge("group_phase", "1 for the phase that the group is in, else 0: offline, starting, online, stopping, failed.", "group", "phase")
	f.groupOwner = f.gauge("group_owner", "1 for the node on which the group is active or is being started or stopped, else 0.", "group", "node")
	f.groupFailovers = f.gauge("group_failovers", "How often resources and monitors have moved the group since the counters were cleared.", "group")
	f.groupHeld = f.gauge("group_held", "Whether the group is held: no failure of its resources or monitors moves it.", "group")
	f.groupEpoch = f.counter("group_epoch_total", "How often the group was assigned to a node.", "group")
	f.resourceState = f.gauge("resource_state", "1, with the state that a resource of a group of this node is in: offline, starting, online, stopping, start-failed, stop-failed, failed.", "group", "resource", "kind", "state")
	f.monitorVerdict = f.gauge("monitor_verdict", "1, with the verdict of this node's monitor: unknown, good, suspect, bad, suspended.", "monitor", "kind", "node", "verdict")
}

func (f *families) ofMirrors() {
	f.mirrorInSync = f.gauge("mirror_in_sync", "Whether the node's copy of the mirror disk is complete, by agreement: it may be promoted.", "mirror", "node")
	f.mirrorForced = f.gauge("mirror_forced", "Whether a copy that may have been out of date was forced and nobody has acknowledged it.", "mirror")
	f.mirrorPaused = f.gauge("mirror_paused", "Whether the mirror is broken by an operator: nothing is copied.", "mirror")
	f.mirrorState = f.gauge("mirror_copy_state", "1 for the state of this node's copy, else 0: in_sync, copying, outdated, split, failed, unknown.", "mirror", "node", "state")
	f.mirrorJoined = f.gauge("mirror_connected", "Whether this node's copy is connected to the other one.", "mirror", "node")
	f.mirrorDirty = f.gauge("mirror_dirty_bytes", "How much of the two copies differs, or may.", "mirror", "node")
	f.mirrorSize = f.gauge("mirror_size_bytes", "Size of the mirror disk.", "mirror", "node")
	f.mirrorCopied = f.gauge("mirror_copied_ratio", "How much of what was to be copied, or compared, is done: 0 to 1. Only meanwhile.", "mirror", "node")
	f.mirrorSpeed = f.gauge("mirror_copy_bytes_per_second", "Speed of copying, or comparing. Only meanwhile.", "mirror", "node")
	f.mirrorETA = f.gauge("mirror_copy_remaining_seconds", "Estimated time until copying, or comparing, is done. Only meanwhile.", "mirror", "node")
	f.mirrorRequests = f.counter("mirror_requests_total", "Requests of the kernel to this node's copy since its process started; op is read or write.", "mirror", "node", "op")
	f.mirrorBytes = f.counter("mirror_bytes_total", "Bytes of these requests.", "mirror", "node", "op")
	f.mirrorWaiting = f.gauge("mirror_requests_waiting", "Requests of the kernel that are under way.", "mirror", "node")
	f.mirrorOldest = f.gauge("mirror_oldest_request_seconds", "How long the oldest of them has waited.", "mirror", "node")
}

func (f *families) ofOutside() {
	f.asked = f.counter("requests_sent_total", "Requests that this node sent to linked clusters, by outcome: ok or the code of the refusal. Without a link: the host was not known.", "link", "verb", "outcome")
	f.wasAsked = f.counter("requests_received_total", "Requests of linked clusters that this node answered, by outcome: ok or the code of the refusal.", "link", "verb", "outcome")
	f.linkReachable = f.gauge("link_reachable", "Whether this node reaches the node of the linked cluster that it may ask.", "link", "node")
	f.events = f.counter("events_total", "Events that this node wrote since its daemon started.", "level", "code")
	f.outletUp = f.gauge("outlet_up", "Whether the latest delivery of this node's outlet worked, or nothing had to be delivered yet.", "outlet", "kind")
	f.outletWaiting = f.gauge("outlet_waiting_events", "Events of this node that the outlet has not passed yet.", "outlet", "kind")
	f.outletDelivered = f.counter("outlet_delivered_events_total", "Events that the outlet of this node delivered since it was made.", "outlet", "kind")
	f.outletFailed = f.counter("outlet_failures_total", "Attempts to deliver that failed since the daemon started.", "outlet", "kind")
	f.outletMissed = f.counter("outlet_missed_events_total", "Events that the outlet could not deliver since it was made: they were dropped from the log before, or the receiver refused them for good.", "outlet", "kind")
}

// Families returns every metric of a daemon's Set, in the order of the
// documentation.
func Families() []Family {
	var out []Family
	for _, f := range newFamilies().table {
		c := *f
		c.Labels = slices.Clone(f.Labels)
		out = append(out, c)
	}
	return out
}

package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/heartbeat"
)

// The values of the labels that stand for a state. Of resources and monitors only
// the one that holds is told: there can be thousands of them.
var (
	nodeStates   = []cluster.NodeState{cluster.NodeUnknown, cluster.NodeUp, cluster.NodeLeft, cluster.NodeDown}
	phases       = []cluster.Phase{cluster.PhaseOffline, cluster.PhaseStarting, cluster.PhaseOnline, cluster.PhaseStopping, cluster.PhaseFailed}
	mirrorStates = []string{api.MirrorInSync, api.MirrorCopying, api.MirrorOutdated, api.MirrorSplit, api.MirrorFailed, api.MirrorUnknown}
)

// looker is the part of a Set that looks at the daemon when it is scraped.
type looker Set

// Describe says nothing: what there is to tell depends on the cluster.
func (l *looker) Describe(chan<- *prometheus.Desc) {}

// Collect tells what a look at the daemon finds.
func (l *looker) Collect(ch chan<- prometheus.Metric) {
	s := (*Set)(l)
	look := s.at()
	t := teller{l.fam, ch}
	t.put(t.f.build, 1, s.opt.Version, string(s.opt.Node))
	t.yes(t.f.answers, look.Answers)
	t.beats(&look.Beats)
	for _, c := range look.Certs {
		t.put(t.f.certificate, float64(c.Expires.Unix()), c.Name)
	}
	for i := range look.Mirrors {
		t.mirrorFigures(&look.Mirrors[i], string(s.opt.Node))
	}
	if !look.Answers {
		return
	}
	t.cluster(&look)
	t.lease(&look)
	for i := range look.Status.Nodes {
		t.node(&look.Status.Nodes[i], look.at)
	}
	t.directions(look.Status.Networks, s.opt.Node)
	for i := range look.Status.Groups {
		t.group(&look.Status.Groups[i], s.opt.Node)
	}
	for i := range look.Status.Monitors {
		t.monitor(&look.Status.Monitors[i], s.opt.Node)
	}
	for i := range look.Status.Mirrors {
		t.mirror(&look.Status.Mirrors[i], s.opt.Node)
	}
	for i := range look.Status.Outlets {
		t.outlet(&look.Status.Outlets[i])
	}
	for _, link := range look.Status.Links {
		for _, n := range link.Nodes {
			t.yes(t.f.linkReachable, n.Reachable, string(link.Name), string(n.Name))
		}
	}
}

// teller writes down metrics.
type teller struct {
	f  *families
	ch chan<- prometheus.Metric
}

func (t teller) put(f *Family, v float64, labels ...string) {
	t.ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...)
}

func (t teller) yes(f *Family, is bool, labels ...string) {
	v := 0.0
	if is {
		v = 1
	}
	t.put(f, v, labels...)
}

// state tells which of the states something is in, the last label.
func state[T ~string](t teller, f *Family, is T, all []T, labels ...string) {
	for _, one := range all {
		t.yes(f, one == is, append(labels[:len(labels):len(labels)], string(one))...)
	}
}

func (t teller) beats(n *heartbeat.Stats) {
	t.put(t.f.beatsSent, float64(n.Sent))
	t.put(t.f.beatsReceived, float64(n.Received))
	for reason, n := range map[string]uint64{"send_error": n.SendErrors, "no_key": n.NoKey, "no_path": n.NoPath,
		"malformed": n.Malformed, "unknown_key": n.UnknownKey, "bad_tag": n.BadTag, "replayed": n.Replayed} {
		t.put(t.f.beatsDropped, float64(n), reason)
	}
}

func (t teller) cluster(l *Look) {
	s, v := &l.Status, &l.Vitals
	t.yes(t.f.leaderKnown, s.Quorum)
	t.yes(t.f.leader, v.Leading)
	t.put(t.f.term, float64(v.Term))
	t.put(t.f.applied, float64(v.Applied))
	t.put(t.f.committed, float64(v.Committed))
	t.put(t.f.generation, float64(s.Generation))
	t.yes(t.f.solo, s.Solo)
	t.put(t.f.votes, float64(v.Votes))
	t.put(t.f.votesThere, float64(v.VotesThere))
	t.put(t.f.survives, float64(s.Survives))
	t.put(t.f.configVersion, float64(s.Config.Version))
	for _, m := range s.Maintenance {
		t.put(t.f.maintenance, 1, string(m.Node), string(m.Group))
	}
}

func (t teller) lease(l *Look) {
	held := l.Vitals.Lease > 0
	t.yes(t.f.leaseHeld, held)
	t.put(t.f.leaseMargin, l.Vitals.Lease.Seconds())
	least := time.Duration(0)
	if held {
		least = min(max(l.Timing.Lease-l.Oldest, 0), l.Vitals.Lease)
	}
	t.put(t.f.leaseLeast, least.Seconds())
	t.put(t.f.lease, l.Timing.Lease.Seconds())
	t.put(t.f.isolate, l.Timing.Isolate.Seconds())
	t.yes(t.f.isolated, l.Vitals.Isolated)
}

func (t teller) node(n *api.Node, now time.Time) {
	name := string(n.Name)
	t.yes(t.f.nodeUp, n.State == cluster.NodeUp, name, strconv.FormatBool(n.Witness))
	state(t, t.f.nodeState, n.State, nodeStates, name)
	t.yes(t.f.nodeVoter, n.Voter, name)
	t.yes(t.f.quarantined, n.Quarantine != nil, name)
	if n.Heard != nil {
		t.put(t.f.silence, max(now.Sub(*n.Heard), 0).Seconds(), name)
	}
	for _, f := range n.Fence {
		labels := []string{name, strconv.Itoa(f.Level), f.Device, f.Plug}
		verified := 0.0
		if !f.Verified.IsZero() {
			verified = float64(f.Verified.Unix())
		}
		if verified > 0 || f.Why != "" {
			t.yes(t.f.fenceOK, f.Why == "", labels...)
		}
		t.put(t.f.fenceVerified, verified, labels...)
	}
}

func (t teller) directions(networks []api.Network, self cluster.NodeName) {
	for _, n := range networks {
		for _, d := range n.Directions {
			if d.To == self && d.State != api.DirectionUnknown {
				t.yes(t.f.directionUp, d.State == api.DirectionOK, string(d.From), string(d.To), strconv.Itoa(n.Number))
			}
		}
	}
}

func (t teller) group(g *api.Group, self cluster.NodeName) {
	name := string(g.Name)
	state(t, t.f.groupPhase, g.Phase, phases, name)
	for _, n := range g.Nodes {
		t.yes(t.f.groupOwner, n == g.Owner, name, string(n))
	}
	t.put(t.f.groupFailovers, float64(g.Failovers), name)
	t.yes(t.f.groupHeld, g.Held != nil, name)
	t.put(t.f.groupEpoch, float64(g.Epoch), name)
	if g.Owner != self {
		return
	}
	for _, r := range g.Resources {
		t.put(t.f.resourceState, 1, name, string(r.Name), r.Kind, string(r.State))
	}
}

func (t teller) monitor(m *api.Monitor, self cluster.NodeName) {
	for _, n := range m.Nodes {
		if n.Node == self {
			t.put(t.f.monitorVerdict, 1, string(m.Name), m.Kind, string(self), string(n.Verdict))
		}
	}
}

func (t teller) mirror(m *api.Mirror, self cluster.NodeName) {
	name := string(m.Name)
	t.yes(t.f.mirrorForced, m.Forced != nil, name)
	t.yes(t.f.mirrorPaused, m.Paused != nil, name)
	for i := range m.Copies {
		c := &m.Copies[i]
		inSync := false
		for _, n := range m.InSync {
			inSync = inSync || n == c.Node
		}
		t.yes(t.f.mirrorInSync, inSync, name, string(c.Node))
		if c.Node == self {
			t.mirrorCopy(c, name)
		}
	}
}

func (t teller) mirrorCopy(c *api.MirrorCopy, mirror string) {
	node := string(c.Node)
	state(t, t.f.mirrorState, c.State, mirrorStates, mirror, node)
	t.yes(t.f.mirrorJoined, c.Connected, mirror, node)
	t.put(t.f.mirrorDirty, float64(c.Dirty), mirror, node)
	t.put(t.f.mirrorSize, float64(c.Size), mirror, node)
	if c.Rate > 0 || c.ETA > 0 {
		t.put(t.f.mirrorCopied, c.Percent/100, mirror, node)
		t.put(t.f.mirrorSpeed, float64(c.Rate), mirror, node)
		t.put(t.f.mirrorETA, c.ETA.Seconds(), mirror, node)
	}
}

func (t teller) mirrorFigures(m *Mirror, node string) {
	name := string(m.Name)
	t.put(t.f.mirrorRequests, float64(m.Reads), name, node, "read")
	t.put(t.f.mirrorRequests, float64(m.Writes), name, node, "write")
	t.put(t.f.mirrorBytes, float64(m.ReadBytes), name, node, "read")
	t.put(t.f.mirrorBytes, float64(m.WrittenBytes), name, node, "write")
	t.put(t.f.mirrorWaiting, float64(m.Waiting), name, node)
	t.put(t.f.mirrorOldest, m.Oldest.Seconds(), name, node)
}

func (t teller) outlet(o *api.Outlet) {
	t.yes(t.f.outletUp, o.Works, o.Name, o.Kind)
	t.put(t.f.outletWaiting, float64(o.Waiting), o.Name, o.Kind)
	t.put(t.f.outletDelivered, float64(o.Delivered), o.Name, o.Kind)
	t.put(t.f.outletFailed, float64(o.Failures), o.Name, o.Kind)
	t.put(t.f.outletMissed, float64(o.Missed), o.Name, o.Kind)
}

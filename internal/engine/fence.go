package engine

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/quorum"
)

// fenceAgain is how long a fence that failed is not tried again.
const fenceAgain = 10 * time.Second

// fence is what this node has done to make sure that another is off.
type fence struct {
	run   uint64 // of the attempt that is under way; 0: none is
	tried cluster.Instant
	off   cluster.Instant // when it was confirmed to be off; 0: it is not known to be
	boot  string          // of the life that was ended; "" if it was never heard
	why   string          // the latest attempt failed
	begun cluster.EventID // that told of it
	told  string          // the failure that was logged: the same one again is not
}

// outcome is what arbitration is told.
func (f *fence) outcome() quorum.Fence {
	switch {
	case f == nil || f.tried == 0:
		return quorum.FenceUnknown
	case f.off > 0:
		return quorum.FenceDone
	case f.run > 0:
		return quorum.FenceUnknown
	}
	return quorum.FenceFailed
}

// fenceOff has the node forced off, unless that is being tried, was done, or has
// just failed.
func (m *Machine) fenceOff(n cluster.NodeName, why string, cause cluster.EventID) {
	f := m.fences[n]
	if f == nil {
		f = &fence{}
		m.fences[n] = f
	}
	if f.run > 0 || f.off > 0 || f.tried > 0 && f.why != "" && m.now.Sub(f.tried) < fenceAgain {
		return
	}
	m.runs++
	f.run, f.tried = m.runs, m.now
	f.boot = m.peer(n).last.Boot
	if f.told == "" {
		f.begun = m.event(cluster.LevelWarn, "nm", "fence-begun", cause, map[string]string{"node": string(n)}, "Forcing %s off: %s.", n, why)
	}
	m.eff.Fences = append(m.eff.Fences, FenceRun{Node: n, Run: f.run, Why: why, Cause: f.begun})
}

func (m *Machine) takeFenced(d Fenced) {
	f := m.fences[d.Node]
	if f == nil || f.run != d.Run {
		return
	}
	f.run, f.why = 0, ""
	fields := map[string]string{"node": string(d.Node), "took_ms": took(d.Took)}
	if !d.Off {
		f.tried, f.why = m.now, d.Why
		if f.told != d.Why {
			f.told = d.Why
			m.event(cluster.LevelError, "nm", "fence-failed", f.begun, fields,
				"Forcing %s off has failed: %s. It may still run. This is tried again every %s.", d.Node, reason(d.Why), fenceAgain)
		}
		return
	}
	f.off = m.now
	if m.peer(d.Node).heard <= f.tried { // else our promise stands, whatever the device says
		m.voter.Release(d.Node)
	}
	m.event(cluster.LevelWarn, "nm", "fence-done", f.begun, fields, "%s has been forced off, which was confirmed (%d ms).", d.Node, d.Took.Milliseconds())
}

// fenced says whether the node was forced off, and nothing was heard of it
// since.
func (m *Machine) fenced(n cluster.NodeName) bool {
	f := m.fences[n]
	return f != nil && f.off > 0
}

// unfence notes that the node is heard again. One that never went off was a lie
// of its fence device: what was decided since, it must undo by the rule for both
// active.
func (m *Machine) unfence(n cluster.NodeName, boot string) {
	f := m.fences[n]
	if f == nil || f.off == 0 {
		return
	}
	if f.boot != "" && f.boot == boot {
		m.event(cluster.LevelError, "nm", "fence-lied", "", map[string]string{"node": string(n)},
			"%s is heard although its fence device confirmed that it is off: do not trust this device.", n)
	}
	delete(m.fences, n)
}

// fenceFirst says whether arbitration begins with forcing the other off, and
// begins with it when its time has come: a node that runs groups goes first, the
// other waits until the lease of the first has run out.
func (m *Machine) fenceFirst(other cluster.NodeName, due bool) {
	list := m.file().Arbitration
	if len(list) == 0 || list[0].Kind != config.ArbitrateFence || !due && !m.active() {
		return
	}
	m.fenceOff(other, "arbitration: it is silent, and two nodes without a third vote cannot tell who is cut off", "")
}

// wantsProof says whether a node must be confirmed off before another has what it
// ran.
func (m *Machine) wantsProof(n cluster.NodeName) bool {
	return m.file().Takeover == config.TakeoverFence && len(m.st.OwnedBy(n)) > 0
}

// fenceLost has the leader force off every owner whose lease has run out, where
// takeovers wait for that. A witness, which can force nobody off, hands
// leadership to a node that can.
func (m *Machine) fenceLost() {
	f := m.file()
	if f.Takeover != config.TakeoverFence || !m.waitOver {
		return
	}
	for i := range f.Nodes {
		n := f.Nodes[i].Name
		if s := m.st.Nodes[n]; n == m.self || s == nil || s.State != cluster.NodeUp || !m.wantsProof(n) || !m.leaseOver(n) {
			continue
		}
		if f.Node(m.self).Witness {
			m.leadByWorker()
			return
		}
		m.fenceOff(n, "it is silent and may still run its groups, which start elsewhere only when it is off (takeover: fence)", "")
	}
}

// fencing says whether a node is being forced off.
func (m *Machine) fencing() bool {
	for _, f := range m.fences {
		if f.run > 0 {
			return true
		}
	}
	return false
}

// orderFence follows an operator's order: it is tried at once, whatever came of
// an earlier attempt.
func (m *Machine) orderFence(o Fence) {
	if f := m.fences[o.Node]; f != nil && f.run == 0 {
		delete(m.fences, o.Node)
	}
	m.fenceOff(o.Node, o.Why, o.Cause)
}

// FenceOf says what came of forcing a node off: whether it is off, whether that is
// still being tried, or why it failed.
func (m *Machine) FenceOf(n cluster.NodeName) (off, busy bool, why string) {
	f := m.fences[n]
	if f == nil {
		return false, false, "it was heard again"
	}
	return f.off > 0, f.run > 0, f.why
}

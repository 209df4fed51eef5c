package mirrordisk

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// roleActive is control.Status.Role of the active copy.
const roleActive = "active"

// take keeps what the process says by itself for tell. It is called by the reader
// of the connection, which must not wait: the engine may be waiting for an answer
// on the same connection, to a freeze above all.
func (m *mirror) take(msg control.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case msg.Ask != nil:
		m.asked, m.ask = msg.Ask, true
	case msg.Notice != nil:
		if len(m.notices) == mostNotices {
			m.d.o.Log.Warn("a line about a mirror disk is lost", "resource", m.name, "text", m.notices[0].Text)
			m.notices = m.notices[1:]
		}
		m.notices = append(m.notices, *msg.Notice)
	case msg.Fail != "":
		m.failure = msg.Fail
	case msg.Status != nil:
		m.status, m.fresh = *msg.Status, true
	}
	m.signal()
}

// note is take of a status that was asked for.
func (m *mirror) note(s control.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status, m.fresh = s, true
	m.signal()
}

// missed notes that no process is reached for longer than a start takes. What the
// kernel asks of an active copy waits meanwhile, so that it has failed in the end.
func (m *mirror) missed(since time.Duration) {
	why := "no process serves it" + m.lastWords()
	m.note(control.Status{Apart: why})
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := m.d.absent
	if m.spec != nil {
		limit += m.spec.IOTimeout // the next process may be waiting for the disk
	}
	if since > limit && !m.absent && m.active != nil {
		m.absent, m.failure = true, why
		m.signal()
	}
}

// tell brings to the daemon what it is to hear of, until ctx ends.
func (m *mirror) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.heard:
		}
		m.mu.Lock()
		ask, fresh, group, failure, notices := m.asked, m.fresh, m.group, m.failure, m.notices
		if !m.ask {
			ask = nil
		}
		active := m.active
		m.ask, m.fresh, m.failure, m.notices = false, false, "", nil
		s, peer := m.status, cluster.NodeName("")
		if m.spec != nil {
			peer = cluster.NodeName(m.spec.Peer)
		}
		m.mu.Unlock()
		for _, n := range notices {
			m.d.notice(group, m.name, cluster.Level(n.Level), n.Code, "", "%s", n.Text)
		}
		if ask != nil {
			m.d.o.Ask(resource.MirrorAsk{Resource: m.name, Epoch: cluster.Epoch(uint32(ask.Epoch)), Base: ask.Rev, InSync: m.names(ask.Set, peer), Why: ask.Why})
		}
		if fresh {
			m.tellStatus(s, peer)
			switch {
			case failure != "" || active == nil || s.PID == 0:
			case s.Role != roleActive || s.Device != active.device:
				failure = m.ended(ctx, active.device)
			case s.Broken != "":
				// It was told of before anybody listened.
				failure = fmt.Sprintf("%s; what is written waits until the group runs on %s", s.Broken, peer)
			}
		}
		if failure != "" {
			m.fail(active, failure)
		}
	}
}

// names returns the nodes of a set.
func (m *mirror) names(s control.Set, peer cluster.NodeName) (names []cluster.NodeName) {
	if s.Self {
		names = append(names, m.d.o.Node)
	}
	if s.Peer {
		names = append(names, peer)
	}
	return names
}

// ended says why an active copy is not active any more, or "". What led to the
// question may have been said before the copy became active.
func (m *mirror) ended(ctx context.Context, device string) string {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	s, err := m.look(ctx)
	if err != nil || s.Role == roleActive && (s.Device == device || s.Device == "") { // "": it is just being taken up
		return ""
	}
	return "the process that served it has ended, and its block device with it"
}

// fail tells of a failure, once in an activation.
func (m *mirror) fail(a *activation, why string) {
	m.mu.Lock()
	first := a != nil && m.active == a
	if first {
		m.active = nil
	}
	m.mu.Unlock()
	if first {
		m.d.o.Failed(resource.Failure{Group: a.group, Resource: m.name, Epoch: a.epoch, Text: why, At: time.Now()})
	}
}

// count is what a rate is computed from.
type count struct {
	at    time.Time
	pid   int
	bytes uint64
	rate  int64
}

// countEvery is the shortest time over which a rate is computed.
const countEvery = 900 * time.Millisecond

// tellStatus passes on what a copy says of itself, where that has changed.
func (m *mirror) tellStatus(s control.Status, peer cluster.NodeName) {
	now := time.Now()
	m.mu.Lock()
	if took := now.Sub(m.counted.at); took >= countEvery || m.counted.pid != s.PID {
		n := count{at: now, pid: s.PID, bytes: s.WriteBytes}
		if m.counted.pid == s.PID && s.WriteBytes >= m.counted.bytes {
			n.rate = int64(float64(s.WriteBytes-m.counted.bytes) / took.Seconds())
		}
		m.counted = n
	}
	c := copyOf(s, peer)
	c.Writes, c.Since = m.counted.rate, now
	if c.State == m.copy.State {
		c.Since = m.copy.Since
	}
	changed := c != m.copy
	m.copy = c
	m.mu.Unlock()
	if changed {
		m.d.o.Status(resource.MirrorStatus{Resource: m.name, Copy: c})
	}
}

// copyOf puts what a copy says of itself into the words of the interface.
func copyOf(s control.Status, peer cluster.NodeName) api.MirrorCopy {
	c := api.MirrorCopy{
		Role: s.Role, Connected: s.Connected, Dirty: s.Dirty, Size: s.Size, Device: s.Device, Generation: s.Generation, Began: s.Since, Written: s.Written,
		State: stateOf(s), Text: textOf(s, peer), Blank: s.PID != 0 && s.Blank, DiskError: s.Failed,
	}
	if s.Total > 0 {
		left := s.Dirty
		if s.Verifying {
			left = s.Left
		}
		c.Percent = 100 * (1 - float64(min(left, s.Total))/float64(s.Total))
		c.Rate, c.ETA = s.Speed, s.ETA
	}
	return c
}

func stateOf(s control.Status) string {
	switch {
	case s.PID == 0: // nobody has said anything
		return api.MirrorUnknown
	case s.Broken != "":
		return api.MirrorFailed
	case s.Split != "":
		return api.MirrorSplit
	case s.Role == roleActive:
		// While a mirror is constructed nothing is agreed on, and there is no other.
		if s.Set.Self || !s.Set.Peer {
			return api.MirrorInSync
		}
		return api.MirrorOutdated
	case s.Target:
		return api.MirrorCopying
	case s.Set.Self:
		return api.MirrorInSync
	case s.Size == 0: // it was never made
		return api.MirrorUnknown
	}
	return api.MirrorOutdated
}

// textOf says what is wrong or being done; "" if nothing is.
func textOf(s control.Status, peer cluster.NodeName) string {
	switch {
	case s.Broken != "":
		return oneLine(s.Broken)
	case s.Split != "":
		return oneLine(s.Split)
	case s.Frozen:
		return "it is frozen until the group may go on"
	case s.Verifying:
		return fmt.Sprintf("it is compared with the copy on %s", peer)
	case s.Role == roleActive && s.Total > 0:
		return fmt.Sprintf("it is copied to %s", peer)
	case s.Target:
		return fmt.Sprintf("it is being copied from %s", peer)
	case s.Failed && s.Role == roleActive:
		return "its disk had an error; that is over when a comparison or a full copy has read all of it"
	case s.Failed:
		return "its disk had an error, and is not copied to before an operator has ordered it"
	case !s.Connected && s.Apart != "":
		return oneLine(s.Apart)
	case s.PID != 0 && s.Role != roleActive && s.Size == 0:
		return "nothing has been copied to it yet"
	}
	return ""
}

// oneLine joins the lines of an error that has several.
func oneLine(text string) string { return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ") }

package serve

import (
	"math/rand/v2"
	"os"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
)

func randomNumber() uint64 { return rand.Uint64() }

// status is what this copy says of itself.
func (s *Server) status() control.Status {
	s.mu.Lock()
	c := s.core.Status()
	speed, eta := s.speed.look(s.now(), c.Total, c.Left)
	s.mu.Unlock()
	d := s.data.Stats()
	st := control.Status{
		Role: c.Role.String(), Phase: c.Phase, Epoch: c.Epoch, Set: control.Set{Self: c.Set.Self, Peer: c.Set.Peer, Rev: c.Set.Rev}, Size: c.Super.Size,
		Connected: c.Connected, Broken: c.Broken, Frozen: c.Frozen, Target: c.Incomplete, Complete: c.Super.Constructed && !c.Incomplete,
		Blank: !c.Super.Constructed, Failed: c.Super.Failed,
		Dirty: c.Marked, Total: c.Total, Left: c.Left, Verifying: c.Verifying, Generation: c.Super.Current.String(),
		Reads: s.reads.Load(), Writes: s.writes.Load(), ReadBytes: s.readBytes.Load(), WriteBytes: s.writeBytes.Load(),
		Waiting: c.Waiting, OldestDisk: d.Oldest, Version: s.opt.Version, PID: os.Getpid(),
	}
	if c.Role == replica.Active && s.active.Load() == 0 {
		st.Role = control.RoleEnding
	}
	if c.Super.Since > 0 {
		st.Since = time.Unix(c.Super.Since, 0)
	}
	if c.Super.Written > 0 {
		st.Written = time.Unix(c.Super.Written, 0)
	}
	for p, to := range map[*string]*string{s.path.Load(): &st.Device, s.split.Load(): &st.Split, s.apart.Load(): &st.Apart} {
		if p != nil {
			*to = *p
		}
	}
	if ses := s.ses.Load(); ses != nil && c.Connected {
		st.Peer, st.Apart = ses.control.Remote().String(), ""
	}
	if c.Role == replica.Active && c.Total > 0 {
		st.Speed, st.ETA = speed, eta
	}
	return st
}

// speedometer knows how fast a copy goes: over the latest seconds, because what it
// did at its beginning says little about its end.
type speedometer struct {
	total, left int64
	at          time.Duration
	speed       int64
}

const speedEvery = 2 * time.Second

func (m *speedometer) look(now time.Duration, total, left int64) (speed int64, eta time.Duration) {
	switch {
	case m.total != total || left > m.left || m.at == 0:
		*m = speedometer{total: total, left: left, at: now}
	case now-m.at >= speedEvery:
		m.speed = int64(float64(m.left-left) / (now - m.at).Seconds())
		m.left, m.at = left, now
	}
	if m.speed > 0 {
		eta = time.Duration(float64(left) / float64(m.speed) * float64(time.Second)).Round(time.Second)
	}
	return m.speed, eta
}

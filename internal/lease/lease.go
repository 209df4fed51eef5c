// Package lease is the right of a node to run groups. Both sides of it are
// values: the holder, who must be harmless when the lease ends, and the voter,
// whose promise outlives it.
//
// The rule is Gray and Cheriton's: the holder counts from the sending of the
// heartbeat that was acknowledged, the voter from the receiving, and the voter
// waits longer by a margin for clock drift, so the holder's end always comes
// first.
package lease

import (
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Margin is how much longer a promise runs than the lease: 5 % for clocks that
// run at different rates.
const Margin = 20 // the promise is lease + lease/Margin

// Promise returns how long a voter's promise runs.
func Promise(lease time.Duration) time.Duration { return lease + lease/Margin }

// Holder is the side of the node that runs groups. The zero value holds no
// lease.
type Holder struct {
	acked map[cluster.NodeName]cluster.Instant
}

// Acked notes that a voter acknowledged a heartbeat that was sent at that
// instant of our own clock.
func (h *Holder) Acked(voter cluster.NodeName, sent cluster.Instant) {
	if h.acked == nil {
		h.acked = map[cluster.NodeName]cluster.Instant{}
	}
	if old, ok := h.acked[voter]; !ok || sent > old {
		h.acked[voter] = sent
	}
}

// Fresh says whether the voter acknowledged something that was sent less than d
// ago.
func (h *Holder) Fresh(voter cluster.NodeName, now cluster.Instant, d time.Duration) bool {
	t, ok := h.acked[voter]
	return ok && now.Sub(t) < d
}

// Forget drops every acknowledgement, for a node that starts anew.
func (h *Holder) Forget() { h.acked = nil }

// Until returns when the lease ends: lease after the latest instant since which
// a majority of the voters, self among them if it is one, has acknowledged.
// held is false if a majority never did.
func (h *Holder) Until(now cluster.Instant, self cluster.NodeName, voters []cluster.NodeName, lease time.Duration) (end cluster.Instant, held bool) {
	var room [8]cluster.Instant // as many as can vote
	times := room[:0]
	for _, v := range voters {
		if v == self {
			times = append(times, now)
		} else if t, ok := h.acked[v]; ok {
			times = append(times, t)
		}
	}
	need := len(voters)/2 + 1
	if len(voters) == 0 || len(times) < need {
		return 0, false
	}
	slices.Sort(times)
	end = times[len(times)-need].Add(lease)
	return end, end > now
}

// Voter is the side that acknowledges. Create it with NewVoter.
type Voter struct {
	started  cluster.Instant
	promised map[cluster.NodeName]cluster.Instant
}

// NewVoter returns a voter that has just started and so does not know what it
// promised before.
func NewVoter(now cluster.Instant) *Voter {
	return &Voter{started: now, promised: map[cluster.NodeName]cluster.Instant{}}
}

// Acknowledged notes that a heartbeat of the node, received at that instant, is
// being acknowledged.
func (v *Voter) Acknowledged(n cluster.NodeName, received cluster.Instant) {
	if received > v.promised[n] {
		v.promised[n] = received
	}
}

// Bound returns until when this voter must not agree to a takeover of the
// node's groups.
func (v *Voter) Bound(n cluster.NodeName, lease time.Duration) cluster.Instant {
	since := v.started
	if t, ok := v.promised[n]; ok && t > since {
		since = t
	}
	return since.Add(Promise(lease))
}

// Release forgets the promise to a node that is known to run nothing: it left,
// or it has booted anew and says so itself.
func (v *Voter) Release(n cluster.NodeName) {
	v.promised[n] = 0
}

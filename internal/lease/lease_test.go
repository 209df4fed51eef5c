package lease

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func at(ms int) cluster.Instant { return cluster.Instant(time.Duration(ms) * time.Millisecond) }

func names(n int) []cluster.NodeName {
	list := make([]cluster.NodeName, n)
	for i := range list {
		list[i] = cluster.NodeName(fmt.Sprintf("n%d", i))
	}
	return list
}

func TestPromiseOutlivesTheLease(t *testing.T) {
	for lease, want := range map[time.Duration]time.Duration{
		250 * time.Millisecond: 262500 * time.Microsecond,
		time.Second:            1050 * time.Millisecond,
		3 * time.Second:        3150 * time.Millisecond,
	} {
		if got := Promise(lease); got != want {
			t.Errorf("a promise for a lease of %s runs %s, want %s", lease, got, want)
		}
	}
}

func TestUntil(t *testing.T) {
	const lease = time.Second
	type acks map[cluster.NodeName]int // ms of sending
	three, five, pair := names(3), names(5), names(2)
	tests := map[string]struct {
		self   cluster.NodeName
		voters []cluster.NodeName
		acked  acks
		now    int
		end    int // ms; -1: a majority never acknowledged
		held   bool
	}{
		"a voter alone holds for ever":               {"n0", names(1), nil, 5000, 6000, true},
		"nobody votes":                               {"n0", nil, acks{"n1": 4900}, 5000, -1, false},
		"nothing was acknowledged yet":               {"n0", three, nil, 5000, -1, false},
		"one of two others is enough":                {"n0", three, acks{"n1": 4900}, 5000, 5900, true},
		"the later of two counts":                    {"n0", three, acks{"n1": 4100, "n2": 4900}, 5000, 5900, true},
		"a pair needs the other":                     {"n0", pair, nil, 5000, -1, false},
		"a pair has the other":                       {"n0", pair, acks{"n1": 4500}, 5000, 5500, true},
		"five need two others":                       {"n0", five, acks{"n1": 4900}, 5000, -1, false},
		"the second latest of five counts":           {"n0", five, acks{"n1": 4900, "n2": 4300, "n3": 4200}, 5000, 5300, true},
		"who is no voter does not count itself":      {"x", three, acks{"n0": 4900}, 5000, -1, false},
		"who is no voter needs a majority of others": {"x", three, acks{"n0": 4900, "n1": 4400}, 5000, 5400, true},
		"who is no voter does not count for another": {"n0", three, acks{"x": 4900, "y": 4900}, 5000, -1, false},
		"a moment before the end":                    {"n0", three, acks{"n1": 4001}, 5000, 5001, true},
		"the end itself is over":                     {"n0", three, acks{"n1": 4000}, 5000, 5000, false},
		"long over":                                  {"n0", three, acks{"n1": 1000, "n2": 1500}, 5000, 2500, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var h Holder
			for v, ms := range tt.acked {
				h.Acked(v, at(ms))
			}
			end, held := h.Until(at(tt.now), tt.self, tt.voters, lease)
			if held != tt.held || tt.end >= 0 && end != at(tt.end) {
				t.Errorf("until %v %v, want %v %v", time.Duration(end), held, time.Duration(at(tt.end)), tt.held)
			}
		})
	}
}

func TestHolderKeepsTheLatestSending(t *testing.T) {
	var h Holder
	if h.Fresh("n1", at(0), time.Hour) {
		t.Error("fresh without an acknowledgement")
	}
	h.Acked("n1", at(900))
	h.Acked("n1", at(300)) // a late answer to an older heartbeat
	if end, _ := h.Until(at(1000), "n0", names(2), time.Second); end != at(1900) {
		t.Errorf("the lease ends at %v, want 1.9s", time.Duration(end))
	}
	if !h.Fresh("n1", at(1000), 101*time.Millisecond) || h.Fresh("n1", at(1000), 100*time.Millisecond) || h.Fresh("n2", at(1000), time.Hour) {
		t.Error("fresh is not: sent less than that ago")
	}
	h.Forget()
	if _, held := h.Until(at(1000), "n0", names(2), time.Second); held || h.Fresh("n1", at(1000), time.Hour) {
		t.Error("a lease after everything was forgotten")
	}
	h.Acked("n1", at(950)) // it can start anew
	if _, held := h.Until(at(1000), "n0", names(2), time.Second); !held {
		t.Error("no lease after starting anew")
	}
}

func TestAcknowledgementBeforeTheClocksFirstTick(t *testing.T) {
	var h Holder
	h.Acked("n1", 0)
	if end, held := h.Until(at(10), "n0", names(2), time.Second); !held || end != at(1000) {
		t.Errorf("until %v %v", time.Duration(end), held)
	}
}

func TestVoterThatRestartedAgreesToNothingForOnePromise(t *testing.T) {
	v := NewVoter(at(5000))
	if got := v.Bound("n1", time.Second); got != at(6050) {
		t.Errorf("bound %v, want 6.05s", time.Duration(got))
	}
	v.Acknowledged("n1", at(5500))
	v.Acknowledged("n1", at(5200)) // handed over late
	if got := v.Bound("n1", time.Second); got != at(6550) {
		t.Errorf("bound %v, want 6.55s", time.Duration(got))
	}
	if got := v.Bound("n2", time.Second); got != at(6050) {
		t.Errorf("bound of another node %v, want 6.05s", time.Duration(got))
	}
}

func TestRelease(t *testing.T) {
	v := NewVoter(at(0))
	v.Acknowledged("n1", at(9000))
	v.Acknowledged("n2", at(9500))
	v.Release("n1")
	if now := at(9600); v.Bound("n1", time.Second) > now || v.Bound("n2", time.Second) != at(10550) {
		t.Errorf("n1 %v, n2 %v", time.Duration(v.Bound("n1", time.Second)), time.Duration(v.Bound("n2", time.Second)))
	}
	v.Acknowledged("n1", at(9700)) // a new life, a new promise
	if got := v.Bound("n1", time.Second); got != at(10750) {
		t.Errorf("bound %v, want 10.75s", time.Duration(got))
	}
	// What it promised in an earlier life it does not know: a release cannot
	// shorten the wait after its own start.
	w := NewVoter(at(9000))
	w.Release("n1")
	if got := w.Bound("n1", time.Second); got != at(10050) {
		t.Errorf("bound after a restart %v, want 10.05s", time.Duration(got))
	}
}

// TestDisjointMajorities: two nodes that are acknowledged by disjoint sets of
// voters never hold a lease both.
func TestDisjointMajorities(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		voters := names(rapid.IntRange(2, 9).Draw(rt, "voters"))
		now := at(10_000)
		var a, b Holder
		for _, v := range voters[2:] {
			sent := at(rapid.IntRange(9_500, 10_000).Draw(rt, "sent"))
			switch rapid.IntRange(0, 2).Draw(rt, "side") {
			case 0:
				a.Acked(v, sent)
			case 1:
				b.Acked(v, sent)
			}
		}
		_, heldA := a.Until(now, voters[0], voters, time.Second)
		_, heldB := b.Until(now, voters[1], voters, time.Second)
		if heldA && heldB {
			rt.Fatalf("two leases among %d voters", len(voters))
		}
	})
}

// clock is one node's own clock: it began at an own instant and runs at an own
// rate, in parts per thousand of real time.
type clock struct{ offset, rate int64 }

func (c clock) at(real int64) cluster.Instant { return cluster.Instant(c.offset + real*c.rate/1000) }

// world is one holder and its voters. Real time is in nanoseconds and goes in
// whole microseconds, so that every clock shows it without rounding.
type world struct {
	lease  time.Duration
	self   cluster.NodeName
	voters []cluster.NodeName
	clocks map[cluster.NodeName]clock
	holder Holder
	voter  map[cluster.NodeName]*Voter
	now    int64
	mail   []beat
}

// beat is a heartbeat under way, or its acknowledgement.
type beat struct {
	voter cluster.NodeName
	sent  cluster.Instant // by the holder's clock
	ack   bool
}

func newWorld(rt *rapid.T) *world {
	w := &world{
		lease:  time.Duration(rapid.SampledFrom([]int{250, 1000, 3000, 777}).Draw(rt, "lease")) * time.Millisecond,
		self:   "holder",
		voters: names(rapid.IntRange(1, 5).Draw(rt, "voters")),
		clocks: map[cluster.NodeName]clock{}, voter: map[cluster.NodeName]*Voter{},
	}
	if rapid.Bool().Draw(rt, "votes itself") {
		w.voters = append(w.voters, w.self)
	}
	// The bound: no clock runs more than 5 % faster than another.
	slow := rapid.Int64Range(800, 1200).Draw(rt, "slow")
	for _, n := range append([]cluster.NodeName{w.self}, w.voters...) {
		rate := slow
		if n != w.self {
			rate = slow + rapid.Int64Range(0, slow/20).Draw(rt, "faster")
		}
		w.clocks[n] = clock{rapid.Int64Range(0, 1e12).Draw(rt, "offset"), rate}
		w.voter[n] = NewVoter(w.clocks[n].at(0))
	}
	return w
}

// step lets one thing happen: time passes, a heartbeat is sent, arrives, is lost
// on its way there or back, or a voter restarts and forgets.
func (w *world) step(rt *rapid.T) {
	w.now += rapid.Int64Range(0, w.lease.Microseconds()/3).Draw(rt, "dt") * 1000
	n := w.voters[rapid.IntRange(0, len(w.voters)-1).Draw(rt, "voter")]
	switch rapid.IntRange(0, 9).Draw(rt, "what") {
	case 0:
		w.voter[n] = NewVoter(w.clocks[n].at(w.now))
	case 1:
		w.now += rapid.Int64Range(0, w.lease.Microseconds()*2).Draw(rt, "pause") * 1000
	case 2, 3, 4:
		for _, v := range w.voters {
			if v != w.self {
				w.mail = append(w.mail, beat{voter: v, sent: w.clocks[w.self].at(w.now)})
			}
		}
	default:
		if len(w.mail) == 0 {
			return
		}
		i := rapid.IntRange(0, len(w.mail)-1).Draw(rt, "mail")
		b := w.mail[i]
		w.mail = append(w.mail[:i], w.mail[i+1:]...)
		switch {
		case rapid.IntRange(0, 5).Draw(rt, "lost") == 0:
		case b.ack:
			w.holder.Acked(b.voter, b.sent)
		default:
			w.voter[b.voter].Acknowledged(w.self, w.clocks[b.voter].at(w.now))
			w.mail = append(w.mail, beat{b.voter, b.sent, true})
		}
	}
}

// check fails if a majority may agree to a takeover while the lease is held.
func (w *world) check(rt *rapid.T) (held bool) {
	mine := w.clocks[w.self].at(w.now)
	end, held := w.holder.Until(mine, w.self, w.voters, w.lease)
	if held && end > mine.Add(w.lease) {
		rt.Fatalf("the lease runs until %v, that is more than a lease from now (%v)", end, mine)
	}
	free := 0
	for _, v := range w.voters {
		if v != w.self && w.clocks[v].at(w.now) >= w.voter[v].Bound(w.self, w.lease) {
			free++
		}
	}
	if held && free > len(w.voters)/2 {
		rt.Fatalf("the lease is held until %v (now %v), yet %d of %d voters are free to take over", end, mine, free, len(w.voters))
	}
	return held
}

// TestHolderEndsBeforeItsVoters is the rule that all safety stands on: whatever
// is lost, late or out of order, whichever voter restarts, and whatever the
// clocks do within the bound, the holder's lease has ended before a majority is
// free of its promise.
func TestHolderEndsBeforeItsVoters(t *testing.T) {
	leases := 0
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			w.step(rt)
			if w.check(rt) {
				leases++
			}
		}
	})
	if leases == 0 {
		t.Error("no world ever had a lease: the property says nothing")
	}
}

// TestLastMoment goes to the edge of the bound, where a random step seldom
// comes: no delay at all, and the voter's clock faster by just 5 %.
func TestLastMoment(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lease := time.Duration(rapid.IntRange(100, 5000).Draw(rt, "lease")) * time.Millisecond
		rate := rapid.Int64Range(45, 55).Draw(rt, "rate") * 20
		holder, voter := clock{0, rate}, clock{7e9, rate + rate/20}
		sent := rapid.Int64Range(0, 1e7).Draw(rt, "sent") * 1e6
		var h Holder
		v := NewVoter(voter.at(0))
		v.Acknowledged("h", voter.at(sent))
		h.Acked("v", holder.at(sent))
		status := func(real int64) (held, free bool) {
			_, held = h.Until(holder.at(real), "h", []cluster.NodeName{"h", "v"}, lease)
			return held, voter.at(real) >= v.Bound("h", lease)
		}
		last := sent + int64(lease)*1000/rate // when the lease ends in real time
		for us := int64(-50); us <= 50; us++ {
			if held, free := status(last + us*1000); held && free {
				rt.Fatalf("%d us from its end the lease of %s is held and the voter is free", us, lease)
			}
		}
		if held, free := status(sent + int64(lease)/2); !held || free {
			rt.Fatalf("in the middle of the lease: held %v, voter free %v", held, free)
		}
		if held, free := status(last + int64(lease)/10); held || !free {
			rt.Fatalf("long after the lease: held %v, voter free %v", held, free)
		}
	})
}

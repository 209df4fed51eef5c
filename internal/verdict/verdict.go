// Package verdict folds the probes of one monitor into what is known about the
// thing it watches: good, suspect or bad. It reads no clock; instants of the
// node's own clock come in with every call.
//
// A bad probe makes the verdict suspect. It becomes bad when more bad probes
// than Retries have come in a row and the first of them is Debounce old. One
// good probe makes it good at once. Trouble that ends while the verdict is only
// suspect is a flap: it is counted and changes nothing else.
package verdict

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Settings are the parts of a monitor's settings that judge its probes.
type Settings struct {
	Retries  int           // bad probes in a row before the verdict is bad, less one
	Debounce time.Duration // bad must hold this long
	Wait     time.Duration // after the start nothing is judged for this long
}

// probe is the latest thing seen.
type probe struct {
	good bool
	code int
	text string
}

// Tracker judges the probes of one monitor on one node. Instants that are given
// to it must not go back.
type Tracker struct {
	set       Settings
	judgeFrom cluster.Instant // end of the wait
	latest    *probe          // nil until the first probe
	held      bool            // latest came during the wait or a suspension and is not judged yet
	verdict   cluster.Verdict // never VerdictSuspended: see suspended
	suspended bool
	bads      int             // bad probes in a row; stops counting above Retries
	badSince  cluster.Instant // of the first of them
	flaps     int
}

// New returns a tracker of a monitor that starts now. Nothing is known yet.
func New(now cluster.Instant, s Settings) *Tracker {
	return &Tracker{set: s, judgeFrom: now.Add(s.Wait), verdict: cluster.VerdictUnknown}
}

// Probe takes one observation and says whether the verdict changed by it. What
// comes during the wait or a suspension is kept and judged at their end, the
// latest only.
func (t *Tracker) Probe(now cluster.Instant, good bool, code int, text string) (changed bool) {
	before := t.Verdict()
	t.release(now) // what was held came first, also when nobody called Tick
	t.latest = &probe{good: good, code: code, text: text}
	if t.suspended || now < t.judgeFrom {
		t.held = true
	} else {
		t.judge(now)
	}
	return t.Verdict() != before
}

// Tick lets time pass and says whether the verdict changed by it.
func (t *Tracker) Tick(now cluster.Instant) (changed bool) {
	before := t.Verdict()
	t.release(now)
	if !t.suspended && t.verdict == cluster.VerdictSuspect {
		t.ripen(now)
	}
	return t.Verdict() != before
}

// Next returns when Tick is due, if it is.
func (t *Tracker) Next() (when cluster.Instant, ok bool) {
	switch {
	case t.suspended:
		return 0, false
	case t.held:
		return t.judgeFrom, true
	case t.verdict == cluster.VerdictSuspect && t.bads > t.set.Retries:
		return t.badSince.Add(t.set.Debounce), true
	}
	return 0, false
}

// Suspend stops judging until Resume. It says whether it was judging before.
func (t *Tracker) Suspend() (changed bool) {
	changed = !t.suspended
	t.suspended = true
	return changed
}

// Resume judges again, beginning anew with the latest probe as if it had come
// now. It says whether the tracker was suspended.
func (t *Tracker) Resume(now cluster.Instant) (changed bool) {
	if !t.suspended {
		return false
	}
	t.suspended = false
	t.verdict, t.bads = cluster.VerdictUnknown, 0
	t.held = t.latest != nil
	t.release(now)
	return true
}

// Verdict returns what is known.
func (t *Tracker) Verdict() cluster.Verdict {
	if t.suspended {
		return cluster.VerdictSuspended
	}
	return t.verdict
}

// Code returns the number of what is wrong by the latest probe; 0 when good.
func (t *Tracker) Code() int {
	if t.latest == nil || t.latest.good {
		return 0
	}
	return t.latest.code
}

// Text returns the sentence about what is wrong by the latest probe; "" when good.
func (t *Tracker) Text() string {
	if t.latest == nil || t.latest.good {
		return ""
	}
	return t.latest.text
}

// Flaps counts the troubles that ended before the verdict was bad.
func (t *Tracker) Flaps() int { return t.flaps }

// release judges what was held once the wait is over, as if it had come now.
func (t *Tracker) release(now cluster.Instant) {
	if !t.held || t.suspended || now < t.judgeFrom {
		return
	}
	t.held = false
	t.judge(now)
}

func (t *Tracker) judge(now cluster.Instant) {
	if t.latest.good {
		if t.verdict == cluster.VerdictSuspect {
			t.flaps++
		}
		t.verdict, t.bads = cluster.VerdictGood, 0
		return
	}
	if t.bads == 0 {
		t.badSince = now
	}
	if t.bads <= t.set.Retries {
		t.bads++
	}
	if t.verdict != cluster.VerdictBad {
		t.verdict = cluster.VerdictSuspect
		t.ripen(now)
	}
}

func (t *Tracker) ripen(now cluster.Instant) {
	if t.bads > t.set.Retries && now >= t.badSince.Add(t.set.Debounce) {
		t.verdict = cluster.VerdictBad
	}
}

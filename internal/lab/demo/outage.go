package demo

import (
	"slices"
	"time"
)

// Outage is the time in which a client got no answer.
type Outage struct {
	From   time.Time // when the last request that was answered before it was sent
	To     time.Time // when the first answer after it was complete
	Before string    // who answered last before
	After  string    // who answered first after
	Failed int       // requests sent in it that got no answer
	Sent   int       // requests sent in it
}

// Length is how long it was, at most: the client's own interval is in it.
func (o Outage) Length() time.Duration { return o.To.Sub(o.From) }

// noise is what the client's interval and one slow answer make.
const noise = 50 * time.Millisecond

// outages returns the times from a request that was answered to the next
// answer that are longer than least, in their order and not yet counted. A success
// that hung is judged by when it was answered: what waits in a queue has no service.
func outages(samples []Sample, least time.Duration) []Outage {
	var good []Sample
	for _, s := range samples {
		if s.OK() {
			good = append(good, s)
		}
	}
	slices.SortFunc(good, func(a, b Sample) int { return a.Done.Compare(b.Done) })
	var out []Outage
	if len(good) == 0 {
		return nil
	}
	last := good[0]     // the success with the latest sending so far
	var floor time.Time // the end of the last gap: the next one is later
	for _, s := range good[1:] {
		o := Outage{From: last.Sent, To: s.Done, Before: last.Node, After: s.Node}
		if o.From.Before(floor) {
			o.From = floor
		}
		if o.Length() > noise {
			floor = o.To
		}
		if o.Length() > least {
			out = append(out, o)
		}
		if s.Sent.After(last.Sent) {
			last = s
		}
	}
	return out
}

func (o *Outage) count(samples []Sample) {
	for _, s := range samples {
		if s.Sent.After(o.From) && s.Sent.Before(o.To) {
			o.Sent++
			if !s.OK() {
				o.Failed++
			}
		}
	}
}

// longest returns the longest outage that ended after at.
func longest(samples []Sample, at time.Time) (longest Outage, found bool) {
	for _, o := range outages(samples, 0) {
		if o.To.After(at) && (!found || o.Length() > longest.Length()) {
			longest, found = o, true
		}
	}
	longest.count(samples)
	return longest, found
}

// others returns the further outages after at that are more than noise: a group
// that moves once makes none.
func others(samples []Sample, at time.Time, than Outage) []Outage {
	var out []Outage
	for _, o := range outages(samples, noise) {
		o.count(samples)
		if o.To.After(at) && o != than && o.Failed > 0 {
			out = append(out, o)
		}
	}
	return out
}

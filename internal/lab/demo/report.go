package demo

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tasuki-ha/tasuki/api"
)

// Report is what happened.
type Report struct {
	OutageMS float64     `json:"outage_ms"` // of the client; see Outage
	OwnMS    float64     `json:"own_ms"`    // outage less the run time of stop and start scripts within it
	Before   string      `json:"owner_before"`
	After    string      `json:"owner_after"`
	Parts    []Part      `json:"parts"` // where the outage went; they add up to it
	Lines    []Line      `json:"lines"` // the original's log beside ours
	Pulled   time.Time   `json:"pulled"`
	From     time.Time   `json:"outage_from"`
	To       time.Time   `json:"outage_to"`
	Requests int         `json:"requests"` // of the client, in the outage
	Failed   int         `json:"failed"`   // of them without an answer
	Others   int         `json:"other_outages"`
	Events   []api.Event `json:"events"`
	*Writes              // nil where the group has no mirror disk
}

// Part is a slice of the outage.
type Part struct {
	Name string  `json:"name"`
	MS   float64 `json:"ms"`
	Own  bool    `json:"own"` // ours, not a script's of the administrator
}

// The parts, in the order of time.
const (
	PartBefore  = "client"        // from its last answered request to the pull
	PartDetect  = "detect"        // to the event of the monitor
	PartAsk     = "ask"           // to the request at the guest cluster
	PartDecide  = "decide"        // to the begin of the stop
	PartStop    = "stop scripts"  //
	PartStart   = "start scripts" //
	PartAddress = "address"       // stop and start of all other resources, and the hand-over
	PartAfter   = "answer"        // from the end of the start to the client's first answer
)

// span is a time from, to.
type span struct{ from, to time.Time }

// within cuts a span to another; what is outside is empty.
func (s span) within(o span) span {
	if s.from.Before(o.from) {
		s.from = o.from
	}
	if s.to.After(o.to) {
		s.to = o.to
	}
	if s.to.Before(s.from) {
		s.to = s.from
	}
	return s
}

func (s span) length() time.Duration { return s.to.Sub(s.from) }

// NewReport judges what a client and the logs of the clusters say about a pull.
// scripts are the names of the resources that are scripts. It is an error if
// there was no outage.
func NewReport(c Cast, pulled time.Time, samples []Sample, events []api.Event, scripts []string) (*Report, error) {
	o, found := longest(samples, pulled)
	if !found {
		return nil, fmt.Errorf("the client was answered by nobody after the cable was pulled")
	}
	if o.Before == o.After {
		return nil, fmt.Errorf("the service did not move: %s answered before and after the cable was pulled", o.After)
	}
	r := &Report{
		OutageMS: ms(o.Length()), Before: o.Before, After: o.After, Pulled: pulled, From: o.From, To: o.To,
		Requests: o.Sent, Failed: o.Failed, Others: len(others(samples, pulled, o)), Lines: compare(c, pulled, events),
	}
	for _, e := range byTime(events) {
		if !e.Time.Before(pulled) {
			r.Events = append(r.Events, e)
		}
	}
	r.split(o, scripts)
	return r, nil
}

// split says where the outage went.
func (r *Report) split(o Outage, scripts []string) {
	whole := span{o.From, o.To}
	stop, start := ran(r.Events, "resource-stopped", scripts, whole), ran(r.Events, "resource-started", scripts, whole)
	r.OwnMS = ms(o.Length() - total(stop) - total(start))
	at := r.From
	upTo := func(name string, t time.Time, out bool) {
		if out || t.Before(at) {
			t = at
		}
		if t.After(r.To) {
			t = r.To
		}
		r.Parts = append(r.Parts, Part{name, ms(t.Sub(at)), true})
		at = t
	}
	upTo(PartBefore, r.Pulled, false)
	for _, p := range []struct {
		name string
		line int // of the original, from 0, that ends the part
	}{{PartDetect, 0}, {PartAsk, 4}, {PartDecide, 5}} {
		l := r.Lines[p.line]
		if l.Missing() {
			upTo(p.name, time.Time{}, true)
			continue
		}
		upTo(p.name, *l.Time, false)
	}
	rest := span{at, r.To}
	stopped, started := total(clip(stop, rest)), total(clip(start, rest))
	answer := time.Duration(0)
	if l := r.Lines[9]; !l.Missing() && l.Time.Before(r.To) {
		answer = span{*l.Time, r.To}.within(rest).length()
	}
	r.Parts = append(r.Parts,
		Part{PartStop, ms(stopped), false},
		Part{PartStart, ms(started), false},
		Part{PartAddress, ms(max(0, rest.length()-stopped-started-answer)), true},
		Part{PartAfter, ms(answer), true})
}

// ran returns when scripts ran, by the events that tell their ends and how long
// they took; overlapping ones are joined.
func ran(events []api.Event, code string, scripts []string, whole span) []span {
	var out []span
	for _, e := range events {
		took, err := strconv.ParseFloat(e.Fields["took_ms"], 64)
		if e.Code != code || !slices.Contains(scripts, e.Fields["resource"]) || err != nil {
			continue
		}
		out = append(out, span{e.Time.Add(-time.Duration(took * float64(time.Millisecond))), e.Time}.within(whole))
	}
	slices.SortFunc(out, func(a, b span) int { return a.from.Compare(b.from) })
	var joined []span
	for _, s := range out {
		if n := len(joined); n > 0 && !s.from.After(joined[n-1].to) {
			if s.to.After(joined[n-1].to) {
				joined[n-1].to = s.to
			}
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

func clip(list []span, to span) []span {
	var out []span
	for _, s := range list {
		out = append(out, s.within(to))
	}
	return out
}

func total(list []span) (d time.Duration) {
	for _, s := range list {
		d += s.length()
	}
	return d
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "2010\tNOW\tAFTER\tNODE\tMODULE\tLINE")
	for _, l := range r.Lines {
		now, after := "-", "MISSING"
		if !l.Missing() {
			now, after = l.Time.Local().Format("15:04:05.000"), fmt.Sprintf("%.1f ms", *l.AfterMS)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Original, now, after, l.Node, l.Module, l.Text)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nThe client was without an answer for %.1f ms (%d of %d requests failed); the original took 24 s.\n", r.OutageMS, r.Failed, r.Requests)
	fmt.Fprintf(w, "%s answered before, %s after. Without the run time of the scripts: %.1f ms.\n\n", r.Before, r.After, r.OwnMS)
	if r.Writes != nil {
		fmt.Fprintf(w, "%s\n\n", r.Writes.text())
	}
	longest := 1.0
	for _, p := range r.Parts {
		longest = max(longest, p.MS)
	}
	for _, p := range r.Parts {
		bar := strings.Repeat("#", int(p.MS/longest*40+0.5))
		if _, err := fmt.Fprintf(w, "  %-13s  %8.1f ms  %s\n", p.Name, p.MS, bar); err != nil {
			return err
		}
	}
	if r.Others > 0 {
		fmt.Fprintf(w, "\nThere were %d further outages.\n", r.Others)
	}
	return nil
}

package demo

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Cast says who plays which part of the scenario.
type Cast struct {
	Host    cluster.NodeName  // whose cable is pulled
	NIC     string            // of the host
	Group   cluster.GroupName // that moves
	Active  cluster.NodeName  // from here
	Standby cluster.NodeName  // to here
}

// The parts, as the lines below name them.
const (
	host    = "bay7-esx"
	active  = "CLP-1"
	standby = "CLP-2"
)

// original is the log of the verification in 2010, with its exact wording and
// its times in seconds of the minute 21:18.
var original = []struct {
	second int
	node   string
	module string
	text   string
}{
	{18, host, "rm", "Detected an error in monitoring miiw-vmnic1. (20 : NIC vmnic1 link was down.)"},
	{18, host, "logcmd", "Send Failover Request to CLP-1"},
	{18, active, "logcmd", "Receive Failover Request from ESX"},
	{18, standby, "logcmd", "Receive Failover Request from ESX"},
	{19, active, "apisv", "There was a request to move group(failover) from the clpgrp command(IP=::ffff:192.168.10.101)."},
	{19, active, "rc", "Stopping group failover has started."},
	{19, standby, "rc", "Moving group failover has started."},
	{31, active, "rc", "Stopping group failover has completed."},
	{31, standby, "rc", "Activating group failover has started."},
	{42, standby, "rc", "Activating group failover has completed."},
	{42, standby, "rc", "Moving group failover has completed."},
}

// Line is one line of the original log beside ours.
type Line struct {
	Original string     `json:"original"` // its time
	Node     string     `json:"node"`     // ours
	Module   string     `json:"module"`
	Text     string     `json:"text"`               // ours; the original's if there is none
	Time     *time.Time `json:"time,omitempty"`     // ours
	AfterMS  *float64   `json:"after_ms,omitempty"` // since the cable was pulled
}

// Missing says that we did not write this line.
func (l Line) Missing() bool { return l.Time == nil }

// pattern turns a line of the original into what ours must look like: the same
// words, with the names of this cast. The monitor's name and what a script of
// the administrator says after its verb are free.
func pattern(text string, c Cast) *regexp.Regexp {
	free := "\x00"
	text = strings.NewReplacer(
		"miiw-vmnic1", free, "vmnic1", c.NIC, "Request to CLP-1", "Request to "+free, "failover", string(c.Group),
		"::ffff:192.168.10.101", free,
	).Replace(text)
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(text), free, `\S+`) + "$")
}

// compare lays our events beside the original's lines: for each line the first
// event that says the same, from the same part, after the pull.
func compare(c Cast, pulled time.Time, events []api.Event) []Line {
	parts := map[string]cluster.NodeName{host: c.Host, active: c.Active, standby: c.Standby}
	events = byTime(events)
	var lines []Line
	for _, o := range original {
		l := Line{
			Original: time.Date(0, 1, 1, 21, 18, o.second, 0, time.UTC).Format(time.TimeOnly),
			Node:     string(parts[o.node]), Module: o.module, Text: o.text,
		}
		want := pattern(o.text, c)
		i := slices.IndexFunc(events, func(e api.Event) bool {
			// Whichever guest got the request first carries it out and says so.
			from := e.Node == parts[o.node] || o.module == "apisv" && e.Node == c.Standby
			return from && e.Module == o.module && !e.Time.Before(pulled) && want.MatchString(e.Text)
		})
		if i >= 0 {
			at, after := events[i].Time, ms(events[i].Time.Sub(pulled))
			l.Node, l.Time, l.AfterMS, l.Text = string(events[i].Node), &at, &after, events[i].Text
		}
		lines = append(lines, l)
	}
	return lines
}

func byTime(events []api.Event) []api.Event {
	out := slices.Clone(events)
	slices.SortStableFunc(out, func(a, b api.Event) int { return a.Time.Compare(b.Time) })
	return out
}

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

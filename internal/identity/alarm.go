package identity

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Alarm says that a certificate ends soon, or has ended. A new alarm is due
// when Days of the same What has changed.
type Alarm struct {
	What    string // "node certificate", "cluster CA", "CA of link NAME"
	Days    int    // the mark that was passed: 30, 7 or 1 days before the end, 0: it has ended
	Expires time.Time
	Level   cluster.Level
	Text    string // lower case, one sentence
	Hint    string
}

// alarmDays are the marks, the nearest first.
var alarmDays = []int{0, 1, 7, 30}

// Alarms looks at the node's own certificate, the cluster's CAs and those of
// the links. The order is stable.
func (id *Identity) Alarms(now time.Time, links ...Trusted) []Alarm {
	m := id.cur.Load()
	var out []Alarm
	add := func(what string, from, to time.Time, after, hint string) {
		if a, due := alarmOf(what, from, to, now); due {
			if a.Days == 0 {
				a.Text += "; " + after
			}
			a.Hint = hint
			out = append(out, a)
		}
	}
	goesOn := "the nodes of this cluster go on with it, other clusters refuse it"
	hint := "this node should have renewed it by itself: is its clock right?"
	if m.caKey == nil {
		hint = "let a node that is no witness sign a new one"
	}
	add("node certificate", m.cert.NotBefore, m.cert.NotAfter, goesOn, hint)
	for _, ca := range m.cas {
		add("cluster CA", ca.NotBefore, ca.NotAfter, goesOn, "replace the CA, then give every linked cluster the new one")
	}
	links = slices.Clone(links)
	slices.SortStableFunc(links, func(a, b Trusted) int { return strings.Compare(string(a.Link), string(b.Link)) })
	for _, t := range links {
		if t.CA == nil {
			continue
		}
		add(fmt.Sprintf("CA of link %s", t.Link), t.CA.NotBefore, t.CA.NotAfter,
			"requests from and to it are refused", fmt.Sprintf("replace the CA of %s there, then link it again", t.Link))
	}
	return out
}

func alarmOf(what string, from, to, now time.Time) (Alarm, bool) {
	left := to.Sub(now)
	for _, days := range alarmDays {
		if left > time.Duration(days)*24*time.Hour {
			continue
		}
		a := Alarm{What: what, Days: days, Expires: to, Level: cluster.LevelWarn}
		a.Text = fmt.Sprintf("the %s expires at %s", what, to.UTC().Format(time.RFC3339))
		if days <= 1 {
			a.Level = cluster.LevelError
		}
		if days == 0 {
			a.Text = fmt.Sprintf("the %s expired at %s", what, to.UTC().Format(time.RFC3339))
		}
		return a, true
	}
	if now.Before(from) {
		return Alarm{What: what, Expires: to, Level: cluster.LevelError,
			Text: fmt.Sprintf("the %s is valid only from %s: this node's clock is behind", what, from.UTC().Format(time.RFC3339))}, true
	}
	return Alarm{}, false
}

package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// backAndForth bounds the time in which no failover and back is possible.
const backAndForth = 500 * time.Millisecond

// outage is a time without an answer, from the sending of the last request that
// was answered before to the sending of the first one after.
type outage struct{ from, to time.Time }

func (o outage) length() time.Duration { return o.to.Sub(o.from) }

// outages returns those in a list of answers in the order of sending; one that
// has not ended is not in it.
func outages(list []answer) (out []outage) {
	last := -1
	for i, a := range list {
		if a.node < 0 {
			continue
		}
		if last >= 0 && i > last+1 && a.sent.Sub(list[last].sent) > outageMin {
			out = append(out, outage{list[last].sent, a.sent})
		}
		last = i
	}
	return out
}

// out is how long the service was away in all since then.
func (o *observer) out(since time.Time) (sum time.Duration) {
	for _, x := range outages(o.sorted(since.Add(-2 * asksFor))) {
		if x.to.After(since) {
			sum += x.length()
		}
	}
	return sum
}

// double is a spell of one view.
type double struct {
	spell
	view  string
	meant bool // the arbitration of the layout is known not to prevent it
}

// healWithin bounds what is left of two owners once they hear each other again.
const healWithin = 10 * time.Second

// meant says whether the layout cannot do without these two owners, for so long.
func (c *chaos) meant(d double, r *round) bool {
	if d.To.After(r.repair.Add(healWithin)) {
		return false
	}
	return c.doubles == byPause && d.Paused && d.length() <= wakes || c.doubles == bySplit || c.doubles == byPing && slices.ContainsFunc(r.faults, splits)
}

// splits says whether a fault can take the nodes from each other while both
// still reach what is not a node.
func splits(r rolled) bool {
	switch r.kind {
	case "cut", "cut one way", "reject", "loss", "corrupt":
		return true
	case "cut off":
		return !r.client
	}
	return false
}

// doubles returns what all views have seen.
func (o *observer) doubles() (out []double) {
	answers := flips{within: backAndForth, last: make([]time.Time, len(o.c.members)), run: -1}
	for _, a := range o.sorted(time.Time{}) {
		if a.node >= 0 {
			answers.saw(a.node, a.sent)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, v := range []*overlap{&o.address, &o.lock} {
		v.set(0, time.Now())
	}
	for _, v := range []struct {
		name   string
		spells []spell
	}{{"http", answers.spells}, {"wire", o.wire.spells}, {"address", o.address.spells}, {"lock", o.lock.spells}} {
		for _, s := range v.spells {
			out = append(out, double{spell: s, view: v.name})
		}
	}
	return out
}

// cause is the round in which a time lies.
func (c *chaos) cause(at time.Time) *round {
	for _, r := range slices.Backward(c.rounds) {
		if !r.began.After(at) {
			return r
		}
	}
	return &round{kind: "none"}
}

// judge sums up and fails the test by what was seen.
func (c *chaos) judge(t *testing.T) {
	doubles := c.seen.doubles()
	for i, d := range doubles {
		r := c.cause(d.From)
		if doubles[i].meant = c.meant(d, r); doubles[i].meant {
			c.say("%s: %s both own it for %v from %s, as the arbitration of this layout has it, after: %s", d.view, c.seen.names(d.Nodes),
				d.length().Round(time.Millisecond), d.From.Format("15:04:05.000"), strings.Join(r.what, "; "))
			continue
		}
		c.fail("%s: %s both own it for %v from %s (%s), after: %s", d.view, c.seen.names(d.Nodes),
			d.length().Round(time.Millisecond), d.From.Format("15:04:05.000"), d.after(), strings.Join(r.what, "; "))
	}
	c.table(t, doubles)
	c.markdown(t, doubles)
	if err := c.seen.broken; err != nil {
		t.Errorf("the observer could not see: %v", err)
	}
	if len(c.failed) > 0 {
		c.save(t, "end")
	}
	for _, f := range c.failed {
		t.Error(f)
	}
}

func (s spell) after() string {
	if s.Paused {
		return "after a standstill"
	}
	return "no standstill"
}

// table prints the summary.
func (c *chaos) table(t *testing.T, doubles []double) {
	all := outages(c.seen.sorted(time.Time{}))
	byKind := map[string][]time.Duration{}
	for _, o := range all {
		k := c.cause(o.to).kind // no round begins before the service is back
		byKind[k] = append(byKind[k], o.length())
	}
	w := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "\nfault\trounds\toutages\tmedian s\tlongest s\tback longest s\t")
	for _, k := range append(kindNames(), "two at once", "none") {
		n, back := 0, time.Duration(0)
		for _, r := range c.rounds {
			if r.kind == k {
				n++
				back = max(back, r.back)
			}
		}
		if n == 0 && len(byKind[k]) == 0 {
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%.2f\t\n", k, n, len(byKind[k]), median(byKind[k]), longest(byKind[k]), back.Seconds())
	}
	fmt.Fprintln(w, "\ntwo owners, seen by\ttimes\tin all ms\tlongest ms\tafter a standstill\t")
	for _, v := range []string{"http", "wire", "address", "lock"} {
		n, paused, sum, most := 0, 0, time.Duration(0), time.Duration(0)
		for _, d := range doubles {
			if d.view == v {
				n, sum, most = n+1, sum+d.length(), max(most, d.length())
				if d.Paused {
					paused++
				}
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t\n", v, n, sum.Milliseconds(), most.Milliseconds(), paused)
	}
	verdict := "ONE OWNER, ALWAYS BACK"
	if len(c.failed) > 0 {
		verdict = fmt.Sprintf("FAILED: %d findings", len(c.failed))
	}
	o := c.seen
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintf(w, "\n%d looks, %d later than %v, the longest %v; %d requests\n", o.looks, o.late, lateAfter, o.longest.Round(time.Millisecond), len(o.answers))
	fmt.Fprintf(w, "layout %s, seed %d: %s\n", *layout, *seed, verdict)
}

// tally is what came of all rounds with one kind of fault.
type tally struct {
	tries, not, lost, wrong, meant int
	double, out                    time.Duration // the longest ones
}

func (c *chaos) tallies(doubles []double) map[string]*tally {
	all := map[string]*tally{}
	for _, k := range kindNames() {
		all[k] = &tally{}
	}
	each := func(at time.Time, f func(*tally)) {
		for _, x := range c.cause(at).faults {
			f(all[x.kind])
		}
	}
	for _, r := range c.rounds {
		for _, f := range r.faults {
			y := all[f.kind]
			y.tries++
			if slices.Contains(r.not, f.kind) {
				y.not++
			}
			if r.notBack {
				y.lost++
			}
		}
	}
	for _, d := range doubles {
		each(d.From, func(y *tally) {
			y.double = max(y.double, d.length())
			if d.meant {
				y.meant++
			} else {
				y.wrong++
			}
		})
	}
	for _, o := range outages(c.seen.sorted(time.Time{})) {
		each(o.to, func(y *tally) { y.out = max(y.out, o.length()) })
	}
	return all
}

func (y *tally) verdict() string {
	switch {
	case y.not == y.tries:
		return "cannot be had on this machine"
	case y.wrong > 0:
		return fmt.Sprintf("TWO OWNERS, %d times", y.wrong)
	case y.lost > 0:
		return fmt.Sprintf("NOT BACK, %d times", y.lost)
	case y.meant > 0:
		return "two owners as the arbitration has it; healed"
	}
	return "one owner, back"
}

// markdown prints the table of faults. A round of two counts for both.
func (c *chaos) markdown(t *testing.T, doubles []double) {
	fmt.Fprintf(t.Output(), "\n| fault | numbers | tried | two owners, longest ms | out, longest s | verdict (%s, seed %d) |\n| --- | --- | --- | --- | --- | --- |\n", *layout, *seed)
	all := c.tallies(doubles)
	for _, k := range kinds {
		if y := all[k.name]; y.tries > 0 {
			fmt.Fprintf(t.Output(), "| %s | %s | %d | %d | %.2f | %s |\n", k.name, k.ids, y.tries, y.double.Milliseconds(), y.out.Seconds(), y.verdict())
		}
	}
}

func longest(list []time.Duration) string {
	if len(list) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", slices.Max(list).Seconds())
}

func median(list []time.Duration) string {
	if len(list) == 0 {
		return "-"
	}
	list = slices.Sorted(slices.Values(list))
	return fmt.Sprintf("%.2f", list[len(list)/2].Seconds())
}

// save keeps everything that a finding can be understood by.
func (c *chaos) save(t *testing.T, name string) {
	dir := filepath.Join(os.TempDir(), "chaos", fmt.Sprintf("%s-%d-%d", *layout, *seed, os.Getpid()), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	keep := func(file string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
			t.Error(err)
		}
	}
	for _, m := range c.members {
		for file, argv := range map[string][]string{
			"events": {"tasuki", "event", "--json", "-n", "0"}, "events.txt": {"tasuki", "event", "-n", "0"},
			"status.txt": {"tasuki", "status"}, "status.json": {"tasuki", "status", "--json"},
			"addresses": {"ip", "address"}, "processes": {"ps", "axjf"},
			"daemon.log": {"cat", "/var/log/tasuki/daemon.log"},
		} {
			r, err := c.Lab.Exec(ctx, m, argv...)
			if err != nil {
				r.Stderr += err.Error()
			}
			keep(m+"-"+file, []byte(r.Stdout+r.Stderr))
		}
	}
	st, _ := c.Lab.Status(ctx)
	data, _ := json.MarshalIndent(st, "", " ")
	keep("lab.json", data)
	c.seen.mu.Lock()
	lines := strings.Join(c.seen.lines, "\n")
	c.seen.mu.Unlock()
	keep("timeline", []byte(lines+"\n"))
	c.say("saved in %s", dir)
}

package sim

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

// TestWhatIf asks, in every story and before everything in it that could have
// been asked about, what would follow, and compares that with what then follows:
// who starts and stops what, in which order, and what is refused.
func TestWhatIf(t *testing.T) {
	if raced {
		t.Skip("all of it is one goroutine, in which the race detector sees nothing; without it this runs")
	}
	files, err := filepath.Glob("../../scenarios/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	compared := map[string]int{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if foresee(t, data, compared) == 0 && !strings.HasSuffix(name, "-lies") { // whose devices nobody can foresee
				t.Error("there is nothing in it that could be asked about")
			}
		})
	}
	t.Logf("compared: %v", compared)
	for verb, least := range map[string]int{"crash": 40, "cut": 20, "cut1": 30, "move": 30, "move!": 5, "link": 5, "probe": 10, "fail": 5, "leave": 4, "stop": 3} {
		if compared[verb] < least {
			t.Errorf("only %d of %s could be compared", compared[verb], verb)
		}
	}
}

// foreseen is one question that was asked in a story, and when.
type foreseen struct {
	line    string
	asked   time.Duration
	lines   int // of the log, before
	answer  api.Simulation
	refused string // the code with which it must be refused; "": it must not be
	until   time.Duration
}

// foresee plays a story and asks on the way; it returns how often.
func foresee(t *testing.T, archive []byte, compared map[string]int) (asked int) {
	s, lines := begun(t, archive)
	var f *foreseen
	for i := 0; i < len(lines); i++ {
		words := strings.Fields(lines[i])
		waits := words[0] == "run" || strings.HasPrefix(words[0], "expect")
		if f != nil && !waits {
			f.compare(t, s.world)
			f = nil
		}
		verb, at := words[0], i
		changes := changesOf(s, words)
		for changes != nil && changes[0].Ask == nil && i+1 < len(lines) { // what happens at the same time
			next := strings.Fields(lines[i+1])
			more := changesOf(s, next)
			if more == nil || more[0].Ask != nil {
				break
			}
			changes, i = append(changes, more...), i+1
		}
		if q, can := question(s, changes); can {
			compared[verb]++
			asked++
			f = ask(t, s.world, lines[at], q)
		}
		for ; at <= i; at++ {
			if err := s.do(strings.Fields(lines[at])); err != nil {
				t.Fatalf("%s: %v", lines[at], err)
			}
		}
	}
	if f != nil {
		f.compare(t, s.world)
	}
	return asked
}

// begun returns a story at its begin and the lines of its script.
func begun(t *testing.T, archive []byte) (*Scenario, []string) {
	s, script, err := staged(archive)
	if err != nil {
		t.Fatal(err)
	}
	return s, slices.DeleteFunc(strings.Split(script, "\n"), func(l string) bool { return l == "" || strings.HasPrefix(l, "#") })
}

// changesOf returns what a line of a script does to the cluster, or nil where it
// is nothing that can be asked about.
func changesOf(s *Scenario, words []string) []whatif.Change {
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	a, b := cluster.NodeName(arg(1)), cluster.NodeName(arg(2))
	switch words[0] {
	case "crash", "pause": // the others cannot tell one from the other
		return []whatif.Change{{Kill: a}}
	case "leave":
		return []whatif.Change{{Leave: a}}
	case "cut", "cut1":
		path := whatif.AllPaths
		if arg(3) != "" {
			path = int(arg(3)[0] - '1')
		}
		cuts := []whatif.Change{{Cut: &whatif.Cut{From: a, To: b, Path: path}}}
		if words[0] == "cut" {
			cuts = append(cuts, whatif.Change{Cut: &whatif.Cut{From: b, To: a, Path: path}})
		}
		return cuts
	case "fail":
		return []whatif.Change{{Fail: &whatif.Fail{Node: a, Resource: cluster.ResourceName(arg(2)), Text: strings.Join(words[3:], " ")}}}
	case "link":
		if m := s.world.file.Monitor(cluster.MonitorName(arg(2))); arg(3) == "down" {
			return []whatif.Change{{Pull: &whatif.Pull{Node: a, Device: m.NICLink.Device}}}
		}
	case "probe":
		if arg(3) == "bad" {
			return []whatif.Change{{Fail: &whatif.Fail{Node: a, Monitor: cluster.MonitorName(arg(2)), Text: strings.Join(words[4:], " ")}}}
		}
	case "move", "move!", "failover", "stop", "start", "start!":
		kind := admission.Kind("group-" + strings.TrimSuffix(words[0], "!"))
		ask := admission.Ask{Kind: kind, Group: cluster.GroupName(arg(1))}
		if to := arg(2); s.world.nodes[cluster.NodeName(to)] != nil {
			ask.To = cluster.NodeName(to)
		}
		return []whatif.Change{{Ask: &ask}}
	}
	return nil
}

// calm is how long nothing must have been said for the cluster to be at rest.
const calm = 90 * time.Millisecond

// question returns what to ask about the changes, if the story is where that
// makes sense: all is at rest, one node leads, and no device lies.
func question(s *Scenario, changes []whatif.Change) (whatif.Question, bool) {
	w := s.world
	q := whatif.Question{Changes: changes, Fate: map[whatif.Step]whatif.Suppose{}, Mute: map[cluster.NodeName][]netip.Addr{}}
	if changes == nil || len(w.Log) == 0 || w.Log[len(w.Log)-1].Time.After(epoch.Add(w.agenda.Now()-calm)) {
		return q, false
	}
	leader := cluster.NodeName("")
	for _, name := range w.names {
		n := w.nodes[name]
		if n.paused || n.on != (n.machine != nil) {
			return q, false
		}
		if n.machine == nil {
			continue
		}
		for _, g := range n.machine.State().Groups {
			if g.Plan != nil {
				return q, false
			}
		}
		if n.machine.Status().Leader == name {
			if leader != "" {
				return q, false
			}
			leader = name
		}
	}
	for _, n := range w.names {
		d := w.fences[n]
		if d.lies {
			return q, false
		}
		f := whatif.Suppose{Takes: max(d.takes, deviceTakes)}
		if d.fails {
			f.Fails = -1
		}
		q.Fate[whatif.FenceOf(n)] = f
	}
	if leader == "" {
		return q, false
	}
	for k, b := range w.behave {
		r, what, _ := strings.Cut(k, " ")
		q.Fate[whatif.Step{Resource: cluster.ResourceName(r), What: what}] = whatif.Suppose{Takes: b.takes, Fails: b.fails, Hangs: b.hangs}
	}
	for n, answers := range w.pings {
		if !answers {
			for _, a := range w.file.Arbitration {
				q.Mute[n] = append(q.Mute[n], a.Targets...)
			}
		}
	}
	var err error
	q.Snapshot, err = w.nodes[leader].machine.Snapshot()
	return q, err == nil
}

func ask(t *testing.T, w *World, line string, q whatif.Question) *foreseen {
	t.Helper()
	f := &foreseen{line: line, asked: w.agenda.Now(), lines: len(w.Log), until: time.Hour}
	var err error
	if f.answer, err = whatif.Ask(q); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	words := strings.Fields(line)
	if strings.HasSuffix(words[0], "!") {
		f.refused = words[len(words)-1]
	}
	if p := q.Changes[0].Fail; p != nil && p.Monitor != "" { // of which the story has one look
		f.until = w.file.Monitor(p.Monitor).Interval - time.Millisecond
	}
	return f
}

// slack is how much earlier or later something may come than was foreseen:
// heartbeats are where they are.
const slack = 600 * time.Millisecond

// compare looks whether what was foreseen has come.
func (f *foreseen) compare(t *testing.T, w *World) {
	t.Helper()
	code := ""
	if f.answer.Refused != nil {
		code = f.answer.Refused.Code
	}
	if code != f.refused {
		t.Errorf("%s: refused with %q, should be %q", f.line, code, f.refused)
	}
	f.until = min(f.until, w.agenda.Now()-f.asked)
	story := told{}
	for _, e := range w.Log[f.lines:] {
		after := e.Time.Sub(epoch) - f.asked
		if e.Code == "fence-done" || e.Code == "final-action" { // here, that node comes back
			f.until = min(f.until, after+bootTakes)
		}
		if after <= f.until {
			story.add(e.Node, e.Code, e.Fields["group"], e.Fields["resource"])
		}
	}
	soon, late := told{}, told{}
	for _, x := range f.answer.Steps {
		if x.After <= f.until-slack {
			soon.add(x.Node, x.Code, string(x.Group), string(x.Resource))
		}
		if x.After <= f.until+slack {
			late.add(x.Node, x.Code, string(x.Group), string(x.Resource))
		}
	}
	for about := range union(story, soon, late) {
		is, least, most := story[about], soon[about], late[about]
		if !prefix(least, is) || !prefix(is, most) {
			t.Errorf("%s: %s: foreseen until %s:\n  %s\nbut it was:\n  %s", f.line, about, f.until, strings.Join(most, "\n  "), strings.Join(is, "\n  "))
		}
	}
}

func prefix(of, all []string) bool { return len(of) <= len(all) && slices.Equal(of, all[:len(of)]) }

func union(of ...told) map[string]bool {
	all := map[string]bool{}
	for _, m := range of {
		for k := range m {
			all[k] = true
		}
	}
	return all
}

// told is what is done to groups: of each group all that happens to its
// resources, wherever that is, and what each node has to say of it. Between two
// nodes the order of the rest is that of their clocks.
type told map[string][]string

func (m told) add(n cluster.NodeName, code, group, resource string) {
	if code == "group-kept" || !strings.HasPrefix(code, "group-") && !strings.HasPrefix(code, "resource-") {
		return
	}
	if resource != "" {
		all := "the resources of " + group
		m[all] = append(m[all], fmt.Sprintf("%s %s %s", n, code, resource))
	}
	here := fmt.Sprintf("group %s on %s", group, n)
	m[here] = append(m[here], strings.TrimSpace(code+" "+resource))
}

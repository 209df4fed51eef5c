package sim

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var findMutants = flag.Bool("mutants", false, "build each deliberate bug and let the hunt find it")

// mutant is a deliberate bug: a text of a file of this module that is replaced
// by another, and the kind of cluster in which the hunt is to find it. What comes
// so seldom that the hunt may not find it is "" and left to the scenarios.
type mutant struct {
	name     string
	file     string // below internal
	old, new string
	nodes    string
}

// mutants are bugs that a change could bring in without any other test seeing it.
var mutants = []mutant{
	{"a voter keeps no promise", "lease/lease.go", "return since.Add(Promise(lease))", "return since", "three"},
	{"a takeover does not wait for the fence", "engine/beats.go", " && (m.fenced(n) || !m.wantsProof(n))", "", "forced"},
	{"a fence device is believed whatever is heard", "engine/beats.go", "return m.leaseOver(n) && (m.fenced(n)", "return m.fenced(n) || m.leaseOver(n) && (false", "lies"},
	{"a promise has no margin for drift", "lease/lease.go", "return lease + lease/Margin", "return lease - lease/Margin", "witness"},
	{"a voter that restarted is bound by nothing", "lease/lease.go", "return &Voter{started: now,", "return &Voter{", "three"},
	{"the lease counts from the answer, not from the sending", "engine/beats.go", "m.holder.Acked(in.From, b.Ack)", "m.holder.Acked(in.From, m.now)", "three"},
	{"a voter agrees to what it promised not to", "engine/consensus.go", "if !free && e.GetIndex() > msg.GetCommit() {", "if !free && false {", ""},
	{"who comes back goes on before it knows what was decided", "engine/beats.go", "return m.applied >= m.agreed }", "return true }", "three"},
	{"a start begins before the stop is confirmed", "state/apply.go", "if p.From != \"\" {\n\t\tg.Phase", "if p.From != \"\" && p.To == \"\" {\n\t\tg.Phase", "three"},
	{"reports of an old assignment count", "state/apply.go", "c.Node == \"\" || g.Epoch != c.Epoch || g.Owner != c.Node", "c.Node == \"\"", "three"},
	{"the solo term does not rise", "engine/solo.go", "Generation: m.meta.Incarnation.Generation + 1, Node", "Generation: m.meta.Incarnation.Generation, Node", "ping"},
	{"a fence that failed counts as one that succeeded", "engine/fence.go", "if !d.Off {", "if d.Off = true; !d.Off {", "fence"},
	{"arbitration does not wait until the other is harmless", "engine/solo.go", "return other, m.now >= m.voter.Bound(other, m.timing().Lease)", "return other, true", "ping"},
	{"ping targets are trusted as soon as they are back", "engine/solo.go", "&& !back", "&& !back && false", "ping"},
	{"a start goes on in isolation", "engine/beats.go", "if l.runner != nil && !l.stopping && !l.orphan {", "if false {", ""},
	{"learners are never promoted", "engine/solo.go", "return confChange(raftpb.ConfChangeAddNode, id)", "return nil", "three"},
	{"a leader that lost its state leads on", "engine/consensus.go", "!m.deaf(m.lead) &&\n\t\tp.last.Incarnation == m.meta.Incarnation", "!m.deaf(m.lead)", "wiped"},
	{"a change of members is tried with every answer", "engine/solo.go", "if m.now < m.voting.change {", "if false {", "wiped"},
	{"what is left of a failed start is forgotten", "engine/groups.go", "l.orphan, l.epoch, l.resources = false, gs.Epoch, nil", "return\n\tl.orphan, l.epoch, l.resources = false, gs.Epoch, nil", ""},
	{"an in-sync set counts whatever it was asked on", "state/mirror.go", "case m.Rev != c.Base:", "case false:", ""},
	{"a copy that is out of date is started", "state/mirror.go", "m != nil && len(m.InSync) > 0 && !m.Has(n) {", "m == nil {", "mirror"},
	{"a copy goes on alone in the old generation", "mirror/replica/core.go", "\tc.bump()\n\tc.sup.Shared = false", "\tc.sup.Shared = false", "mirror-pair"},
	{"a copy goes on alone unasked", "mirror/replica/session.go", "case !c.shared || io.inner:", "case true:", "mirror"},
	{"a crash of the active copy marks nothing", "mirror/replica/core.go", "range o.Log {", "range o.Log[:0] {", "mirror"},
}

// Every mutant still changes the code that it names: once, and to something else.
func TestMutantsFit(t *testing.T) {
	for _, m := range mutants {
		data, err := os.ReadFile(filepath.Join("..", m.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(data), m.old); n != 1 || m.old == m.new {
			t.Errorf("%s: its text stands %d times in %s", m.name, n, m.file)
		}
	}
}

// TestMutants prints which seed finds each deliberate bug (make mutants).
func TestMutants(t *testing.T) {
	if !*findMutants {
		t.Skip("takes minutes: make mutants")
	}
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			found, err := m.hunt(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if found == "" {
				t.Errorf("| %s | %s | not found |", m.name, m.nodes)
				return
			}
			fmt.Printf("| %s | %s | %s |\n", m.name, cmp.Or(m.nodes, "scenarios"), found)
		})
	}
}

// What the hunt says of a story that breaks, and what the test of scenarios does.
var (
	foundRE  = regexp.MustCompile(`(seed \d+), \d+ faults: (?:[0-9hms.]+: )?(.*)`)
	brokenRE = regexp.MustCompile(`--- FAIL: TestScenarios/(\S+) .*\n.*: line \d+ (.*)`)
)

// hunt builds the hunt with the bug and returns what it found, or "".
func (m mutant) hunt(dir string) (string, error) {
	path, err := filepath.Abs(filepath.Join("..", m.file))
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	bad := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(bad, []byte(strings.Replace(string(data), m.old, m.new, 1)), 0o600); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: bad}})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	run := "^TestHunt$"
	if m.nodes == "" {
		run = "^TestScenarios$"
	}
	c := exec.Command("go", "test", "-count=1", "-vet=off", "-overlay", list, "-run", run, "-timeout", "15m", ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "SEEDS=400", "HOURS=0.2", "NODES="+m.nodes, "SEED=")
	out, err := c.CombinedOutput()
	if err == nil {
		return "", nil
	}
	for _, re := range []*regexp.Regexp{foundRE, brokenRE} {
		if f := re.FindSubmatch(out); f != nil {
			return fmt.Sprintf("%s: %s", f[1], f[2]), nil
		}
	}
	if i := strings.Index(string(out), "panic: "); i >= 0 && !strings.Contains(string(out), "test timed out") {
		first, _, _ := strings.Cut(string(out[i:]), "\n")
		return first, nil
	}
	return "", fmt.Errorf("the hunt did not run: %w\n%s", err, out)
}

package sim

import (
	"regexp"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/mutants"
)

// bugs are what a change could bring in without any other test seeing it, each with
// the kind of cluster in which the hunt is to find it. What comes so seldom that the
// hunt may not find it names none and is left to the scenarios.
var bugs = []mutants.Mutant{
	mutants.New("a voter keeps no promise", "../lease/lease.go", "return since.Add(Promise(lease))", "return since", "three"),
	mutants.New("a takeover does not wait for the fence", "../engine/beats.go", " && (m.fenced(n) || !m.wantsProof(n))", "", "forced"),
	mutants.New("a fence device is believed whatever is heard", "../engine/beats.go", "return m.leaseOver(n) && (m.fenced(n)", "return m.fenced(n) || m.leaseOver(n) && (false", "lies"),
	mutants.New("a promise has no margin for drift", "../lease/lease.go", "return lease + lease/Margin", "return lease - lease/Margin", "witness"),
	mutants.New("a voter that restarted is bound by nothing", "../lease/lease.go", "return &Voter{started: now,", "return &Voter{", "three"),
	mutants.New("the lease counts from the answer, not from the sending", "../engine/beats.go", "m.holder.Acked(in.From, b.Ack)", "m.holder.Acked(in.From, m.now)", "three"),
	mutants.New("a voter agrees to what it promised not to", "../engine/consensus.go", "if !free && e.GetIndex() > msg.GetCommit() {", "if !free && false {", ""),
	mutants.New("who comes back goes on before it knows what was decided", "../engine/beats.go", "return m.applied >= m.agreed }", "return true }", "three"),
	mutants.New("a start begins before the stop is confirmed", "../state/apply.go", "if p.From != \"\" {\n\t\tg.Phase", "if p.From != \"\" && p.To == \"\" {\n\t\tg.Phase", "three"),
	mutants.New("reports of an old assignment count", "../state/apply.go", "c.Node == \"\" || g.Epoch != c.Epoch || g.Owner != c.Node", "c.Node == \"\"", "three"),
	mutants.New("the solo term does not rise", "../engine/solo.go", "Generation: m.meta.Incarnation.Generation + 1, Node", "Generation: m.meta.Incarnation.Generation, Node", "ping"),
	mutants.New("a fence that failed counts as one that succeeded", "../engine/fence.go", "if !d.Off {", "if d.Off = true; !d.Off {", "fence"),
	mutants.New("arbitration does not wait until the other is harmless", "../engine/solo.go", "return other, m.now >= m.voter.Bound(other, m.timing().Lease)", "return other, true", "ping"),
	mutants.New("ping targets are trusted as soon as they are back", "../engine/solo.go", "&& !back", "&& !back && false", "ping"),
	mutants.New("a start goes on in isolation", "../engine/beats.go", "if l.runner != nil && !l.stopping && !l.orphan {", "if false {", ""),
	mutants.New("learners are never promoted", "../engine/solo.go", "return confChange(raftpb.ConfChangeAddNode, id)", "return nil", "three"),
	mutants.New("a leader that lost its state leads on", "../engine/consensus.go", "!m.deaf(m.lead) &&\n\t\tp.last.Incarnation == m.meta.Incarnation", "!m.deaf(m.lead)", "wiped"),
	mutants.New("a change of members is tried with every answer", "../engine/solo.go", "if m.now < m.voting.change {", "if false {", "wiped"),
	mutants.New("what is left of a failed start is forgotten", "../engine/groups.go", "l.orphan, l.epoch, l.resources = false, gs.Epoch, map", "return\n\tl.orphan, l.epoch, l.resources = false, gs.Epoch, map", ""),
	mutants.New("an in-sync set counts whatever it was asked on", "../state/mirror.go", "case m.Rev != c.Base:", "case false:", ""),
	mutants.New("a copy that is out of date is started", "../state/mirror.go", "m != nil && len(m.InSync) > 0 && !m.Has(n) {", "m == nil {", "mirror"),
	mutants.New("a copy goes on alone in the old generation", "../mirror/replica/core.go", "\tc.bump()\n\tc.sup.Shared = false", "\tc.sup.Shared = false", "mirror-pair"),
	mutants.New("a copy goes on alone unasked", "../mirror/replica/session.go", "case !c.shared || io.inner:", "case true:", "mirror"),
	mutants.New("a crash of the active copy marks nothing", "../mirror/replica/core.go", "range o.Log {", "range o.Log[:0] {", "mirror"),
}

func TestMutantsFit(t *testing.T) { mutants.Fit(t, bugs) }

// TestMutants prints which seed finds each deliberate bug (make mutants).
func TestMutants(t *testing.T) {
	mutants.Find(t, bugs, mutants.Search{
		Run: func(nodes string) (args, env []string) {
			run := "^TestHunt$"
			if nodes == "" {
				run = "^TestScenarios$"
			}
			return []string{"-run", run, "-timeout", "15m", "."}, []string{"SEEDS=400", "HOURS=0.2", "NODES=" + nodes, "SEED="}
		},
		// What the hunt says of a story that breaks, and what the test of scenarios does.
		Marks: []*regexp.Regexp{
			regexp.MustCompile(`(seed \d+), \d+ faults: (?:[0-9hms.]+: )?(.*)`),
			regexp.MustCompile(`--- FAIL: TestScenarios/(\S+) .*\n.*: line \d+ (.*)`),
		},
		By: "scenarios",
	})
}

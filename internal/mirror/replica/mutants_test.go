package replica_test

import (
	"cmp"
	"regexp"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/mutants"
)

// bugs are what a change could bring in. What names a test is found by that, the
// others by the stories.
var bugs = []mutants.Mutant{
	mutants.New("a write is complete before the other copy has confirmed it", "path.go", "case io.Op == Read, c.shared && !c.opt.Async:", "case io.Op == Read:", ""),
	mutants.New("writes go on alone without asking", "session.go", "case !c.shared || io.inner:", "case true:", ""),
	mutants.New("going on alone begins no generation", "core.go", "\tc.bump()\n\tc.sup.Shared = false", "\tc.sup.Shared = false", "TestSplit"),
	mutants.New("an earlier wish to let the other copy in may still count", "core.go", "if !c.fenced { // an", "if false { // an", "TestAloneIsAskedForAnew"),
	mutants.New("unflushed ranges are forgotten when a flush begins", "path.go", "c.older, c.fresh = c.fresh, c.older[:0]", "c.older, c.fresh = c.older[:0], c.fresh[:0]", "TestLossDuringAFlush"),
	mutants.New("a flush of an earlier session promises something in the next", "path.go", "if c.rinsing != io {", "if c.rinsing == nil {", "TestFlushOfAnEarlierSession"),
	mutants.New("what was confirmed and not flushed is not marked at a loss", "session.go", "\tc.spoil()\n\tif was == joined", "\tif was == joined", ""),
	mutants.New("what is under way is not marked at a loss", "session.go", "c.mark(io.Off, io.end())\n\t\t\tdiffers", "differs", ""),
	mutants.New("a write begins before its extent is in the log", "path.go", "if !c.log.durable(io.extents) {", "if false {", ""),
	mutants.New("extents of the log are not counted after a crash", "core.go", "range o.Log {", "range o.Log[:0] {", ""),
	mutants.New("what was damaged is forgotten when the log is written anew", "core.go", "if o.Worn {", "if false {", "TestDamageIsWrittenDown"),
	mutants.New("pages are not written before their extents leave the log", "core.go", "m.Pages = c.takePages()", "m.Pages = nil", ""),
	mutants.New("pages of a failed write are forgotten", "core.go", "c.pages.Touch(c.pages.Blocks(int64(p.No)))", "_ = p", "TestMetaDeviceFailsForAWhile"),
	mutants.New("the other copy gets the generation before it is flushed", "session.go", "c.flushInner(func(good bool) {", "func(f func(bool)) { f(true) }(func(good bool) {", ""),
	mutants.New("the other copy counts before it has what was completed without it", "session.go", "if io.done && io.peer == wanted && !c.opt.Async {", "if false {", ""),
	mutants.New("what the other copy has marked is not copied", "session.go", "c.mark(start*b, min(end*b, c.sup.Size))", "_ = b", ""),
	mutants.New("overlapping writes are not ordered", "path.go", "if (o.Op.changes() || o.Op == Copy || o.Op == Sum) && o.overlaps(io) {", "if (o.Op == Copy || o.Op == Sum) && o.overlaps(io) {", ""),
	mutants.New("a range is copied while it is written", "run.go", "if !c.collides(io, 0) {\n\t\t\t\tlink", "if true {\n\t\t\t\tlink", ""),
	mutants.New("frames of an earlier assignment are carried out", "standby.go", "case h.Epoch < c.epoch:", "case false:", "TestEarlierAssignment"),
	mutants.New("reads are answered before it is known what counts", "path.go", "if io.Op == Read && c.shared && c.phase != joined && !c.marks.Empty() {", "if false {", ""),
	mutants.New("a flush that met no session waits for ever", "session.go", "if io.peer == wanted && io.link == 0 {\n\t\t\tc.send(io)", "if false {\n\t\t\tc.send(io)", ""),
	mutants.New("a copy that was taken out stays joined", "core.go", "if !s.Peer && c.phase == joined {", "if false {", ""),
	mutants.New("a copy in the middle of being copied to becomes active", "core.go", "case c.sup.Inconsistent && !force:", "case false:", "TestUnfinishedCopyRefuses"),
	mutants.New("a forced copy begins no generation", "core.go", "\t\t\tc.bump()\n\t\t}\n", "\t\t}\n", "TestForced"),
	mutants.New("a policy gives up a copy of another device", "session.go", "if h.Device != c.sup.Device {\n\t\treturn Neither", "if false {\n\t\treturn Neither", "TestForeignDevice"),
	mutants.New("a policy gives up a copy that has everything", "session.go", "if c.relation == Ahead {", "if false {", "TestAheadIsNoSplit"),
	mutants.New("an active copy that is behind goes on", "session.go", "if rel == Ahead && !h.Inconsistent && c.yield(why) {", "if false {", "TestAheadIsNoSplit"),
	mutants.New("a stop does not wait for a copy that is on its way back", "core.go", "if c.handBy == 0 || c.returning() {", "if c.handBy == 0 {", "TestHandOver"),
	mutants.New("a disk that had an error counts as sound before all of it was read", "run.go", "if !good || !c.sup.Failed", "if !c.sup.Failed", "TestDiskProvesItself"),
}

func TestMutantsFit(t *testing.T) { mutants.Fit(t, bugs) }

// TestMutants prints what finds each deliberate bug (make mutants).
func TestMutants(t *testing.T) {
	mutants.Find(t, bugs, mutants.Search{
		Run: func(test string) (args, env []string) {
			return []string{"-run", "^" + cmp.Or(test, "TestStories") + "$", "-timeout", "10m", ".", "-args", "-pair-seeds", "600"}, nil
		},
		Marks:    []*regexp.Regexp{regexp.MustCompile(`(seed \d+): [0-9hms.]+: (.*)`)}, // of a story that breaks
		By:       "stories",
		Parallel: true,
	})
}

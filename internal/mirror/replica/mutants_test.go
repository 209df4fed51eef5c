package replica_test

import (
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

var findMutants = flag.Bool("mutants", false, "build each deliberate bug and let the tests find it")

// mutant is a deliberate bug: a text of a file of this package that is replaced by
// another. What names a test in by is found by that, the others by the stories.
type mutant struct {
	name     string
	file     string
	old, new string
	by       string
}

// mutants are bugs that a change could bring in.
var mutants = []mutant{
	{"a write is complete before the other copy has confirmed it", "path.go", "case io.Op == Read, c.shared && !c.opt.Async:", "case io.Op == Read:", ""},
	{"writes go on alone without asking", "session.go", "case !c.shared || io.inner:", "case true:", ""},
	{"going on alone begins no generation", "core.go", "\tc.bump()\n\tc.sup.Shared = false", "\tc.sup.Shared = false", "TestSplit"},
	{"an earlier wish to let the other copy in may still count", "core.go", "if !c.fenced { // an", "if false { // an", "TestAloneIsAskedForAnew"},
	{"unflushed ranges are forgotten when a flush begins", "path.go", "c.older, c.fresh = c.fresh, c.older[:0]", "c.older, c.fresh = c.older[:0], c.fresh[:0]", ""},
	{"a flush of an earlier session promises something in the next", "path.go", "if c.rinsing != io {", "if c.rinsing == nil {", "TestFlushOfAnEarlierSession"},
	{"what was confirmed and not flushed is not marked at a loss", "session.go", "\tc.spoil()\n\tif was == joined", "\tif was == joined", ""},
	{"what is under way is not marked at a loss", "session.go", "c.mark(io.Off, io.end())\n\t\t\tdiffers", "differs", ""},
	{"a write begins before its extent is in the log", "path.go", "if !c.log.durable(io.extents) {", "if false {", ""},
	{"extents of the log are not counted after a crash", "core.go", "range o.Log {", "range o.Log[:0] {", ""},
	{"pages are not written before their extents leave the log", "core.go", "m.Pages = c.takePages()", "m.Pages = nil", ""},
	{"pages of a failed write are forgotten", "core.go", "c.pages.Touch(c.pages.Blocks(int64(p.No)))", "_ = p", "TestMetaDeviceFailsForAWhile"},
	{"the other copy gets the generation before it is flushed", "session.go", "c.flushInner(func(good bool) {", "func(f func(bool)) { f(true) }(func(good bool) {", ""},
	{"the other copy counts before it has what was completed without it", "session.go", "if io.done && io.peer == wanted && !c.opt.Async {", "if false {", ""},
	{"what the other copy has marked is not copied", "session.go", "c.mark(start*b, min(end*b, c.sup.Size))", "_ = b", ""},
	{"overlapping writes are not ordered", "path.go", "if (o.Op.changes() || o.Op == Copy || o.Op == Sum) && o.overlaps(io) {", "if (o.Op == Copy || o.Op == Sum) && o.overlaps(io) {", ""},
	{"a range is copied while it is written", "run.go", "if !c.collides(io, 0) {\n\t\t\t\tlink", "if true {\n\t\t\t\tlink", ""},
	{"frames of an earlier assignment are carried out", "standby.go", "case h.Epoch < c.epoch:", "case false:", "TestEarlierAssignment"},
	{"reads are answered before it is known what counts", "path.go", "if io.Op == Read && c.shared && c.phase != joined && !c.marks.Empty() {", "if false {", ""},
	{"a flush that met no session waits for ever", "session.go", "if io.peer == wanted && io.link == 0 {\n\t\t\tc.send(io)", "if false {\n\t\t\tc.send(io)", ""},
	{"a copy that was taken out stays joined", "core.go", "if !s.Peer && c.phase == joined {", "if false {", ""},
	{"a copy in the middle of being copied to becomes active", "core.go", "case c.sup.Inconsistent && !force:", "case false:", "TestUnfinishedCopyRefuses"},
	{"a forced copy begins no generation", "core.go", "\t\t\tc.bump()\n\t\t}\n", "\t\t}\n", "TestForced"},
	{"a policy gives up a copy of another device", "session.go", "if h.Device != c.sup.Device {\n\t\treturn Neither", "if false {\n\t\treturn Neither", "TestForeignDevice"},
}

// Every mutant still changes the code that it names: once, and to something else.
func TestMutantsFit(t *testing.T) {
	for _, m := range mutants {
		data, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(data), m.old); n != 1 || m.old == m.new {
			t.Errorf("%s: its text stands %d times in %s", m.name, n, m.file)
		}
	}
}

// TestMutants prints what finds each deliberate bug (make mutants).
func TestMutants(t *testing.T) {
	if !*findMutants {
		t.Skip("takes minutes: make mutants")
	}
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			found, err := m.tell(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if found == "" {
				t.Errorf("| %s | not found |", m.name)
				return
			}
			fmt.Printf("| %s | %s |\n", m.name, found)
		})
	}
}

// What the stories say of one that breaks.
var foundRE = regexp.MustCompile(`(seed \d+): [0-9hms.]+: (.*)`)

// tell builds the tests with the bug and returns what they found, or "".
func (m mutant) tell(dir string) (string, error) {
	data, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	path, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	bad, list := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: bad}})
	if err != nil {
		return "", err
	}
	for file, data := range map[string][]byte{bad: []byte(strings.Replace(string(data), m.old, m.new, 1)), list: overlay} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return "", err
		}
	}
	run := "^TestStories$"
	if m.by != "" {
		run = "^" + m.by + "$"
	}
	c := exec.Command("go", "test", "-count=1", "-vet=off", "-overlay", list, "-run", run, "-timeout", "10m", ".", "-args", "-pair-seeds", "600")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	if err == nil {
		return "", nil
	}
	if f := foundRE.FindSubmatch(out); f != nil {
		return fmt.Sprintf("%s: %s", f[1], f[2]), nil
	}
	if m.by != "" && strings.Contains(string(out), "--- FAIL: "+m.by) {
		return "`" + m.by + "`", nil
	}
	if i := strings.Index(string(out), "panic: "); i >= 0 && !strings.Contains(string(out), "test timed out") {
		first, _, _ := strings.Cut(string(out[i:]), "\n")
		return first, nil
	}
	return "", fmt.Errorf("the tests did not run: %w\n%s", err, out)
}

// Package mutants builds deliberate bugs into this module and lets tests find
// them. A test that no bug makes fail says nothing: so the packages that tell
// stories of random faults have a list of bugs each, and make mutants shows which
// story, or which test, finds which.
package mutants

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

var find = flag.Bool("mutants", false, "build each deliberate bug and let the tests find it")

// Mutant is a deliberate bug: a text of a file of this module that is replaced by
// another. Create it with New.
type Mutant struct {
	name     string
	file     string
	from, to string
	by       string
}

// New returns the bug that has the text from, which stands once in the file,
// replaced by another one. The file is named as seen from the package of the test.
// What by says is handed to Search.Run.
func New(name, file, from, to, by string) Mutant { return Mutant{name, file, from, to, by} }

// Search is how the tests of a package look for a bug.
type Search struct {
	// Run returns the arguments of go test after those that all searches have, and
	// what is added to the environment, for a bug with that by.
	Run      func(by string) (args, env []string)
	Marks    []*regexp.Regexp // of what the tests print about a bug: where, and what
	By       string           // what finds the bugs that name nothing, for the table
	Parallel bool             // several bugs are looked for at a time
}

// Fit fails the test unless every mutant still changes the code that it names:
// once, and to something else.
func Fit(t *testing.T, list []Mutant) {
	t.Helper()
	for _, m := range list {
		data, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(data), m.from); n != 1 || m.from == m.to {
			t.Errorf("%s: its text stands %d times in %s", m.name, n, m.file)
		}
	}
}

// Find looks for each mutant and prints a line of a table with what found it. It
// skips the test unless -mutants is given: it takes minutes.
func Find(t *testing.T, list []Mutant, s Search) {
	t.Helper()
	if !*find {
		t.Skip("takes minutes: make mutants")
	}
	for _, m := range list {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			if s.Parallel {
				t.Parallel()
			}
			found, err := s.look(m, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			by := cmp.Or(m.by, s.By)
			if found == "" {
				t.Errorf("| %s | %s | not found |", m.name, by)
				return
			}
			fmt.Printf("| %s | %s | %s |\n", m.name, by, found)
		})
	}
}

// testRE is what a test that fails prints.
var testRE = regexp.MustCompile(`--- FAIL: (Test\w+)`)

// look builds the tests with the bug and returns what they found, or "".
func (s *Search) look(m Mutant, dir string) (string, error) {
	overlay, err := m.overlay(dir)
	if err != nil {
		return "", err
	}
	args, env := s.Run(m.by)
	c := exec.Command("go", append([]string{"test", "-count=1", "-vet=off", "-overlay", overlay}, args...)...)
	c.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	out, err := c.CombinedOutput()
	if err == nil {
		return "", nil
	}
	return s.told(string(out), err)
}

// told returns what tests that have failed found.
func (s *Search) told(out string, err error) (string, error) {
	for _, re := range s.Marks {
		if f := re.FindStringSubmatch(out); f != nil {
			return f[1] + ": " + f[2], nil
		}
	}
	i := strings.Index(out, "panic: ")
	switch f := testRE.FindStringSubmatch(out); {
	case strings.Contains(out, "test timed out"):
	case i >= 0:
		first, _, _ := strings.Cut(out[i:], "\n")
		return first, nil
	case f != nil:
		return "`" + f[1] + "`", nil
	}
	return "", fmt.Errorf("the tests did not run: %w\n%s", err, out)
}

// overlay writes the changed file, and the list that has the compiler read it in
// place of the one in the tree; it returns the list's path.
func (m Mutant) overlay(dir string) (string, error) {
	path, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	bad, list := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(bad, []byte(strings.Replace(string(data), m.from, m.to, 1)), 0o600); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{path: bad}})
	if err != nil {
		return "", err
	}
	return list, os.WriteFile(list, text, 0o600)
}

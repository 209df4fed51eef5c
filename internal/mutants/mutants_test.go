package mutants

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the tests print about a bug is told apart from tests that did not run.
func TestTold(t *testing.T) {
	s := Search{Marks: []*regexp.Regexp{regexp.MustCompile(`(seed \d+): (.*)`)}}
	for out, want := range map[string]string{
		"x\nseed 7: it is lost\n--- FAIL: TestStories (0.1s)": "seed 7: it is lost",
		"--- FAIL: TestSplit (0.1s)\nFAIL":                    "`TestSplit`",
		"panic: index out of range\n--- FAIL: TestSplit":      "panic: index out of range",
		"panic: test timed out after 10m\n--- FAIL: TestX":    "",
		"./core.go:7:2: undefined: x\nFAIL [build failed]":    "",
	} {
		got, err := s.told(out, errors.New("exit status 1"))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", out, got, err)
		}
	}
}

// The compiler reads the changed file in place of the one in the tree.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	list, err := New("a bug", "mutants.go", "package mutants", "package others", "").overlay(dir)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := os.ReadFile(filepath.Join(dir, "mutants.go"))
	if err != nil || !strings.Contains(string(bad), "\npackage others\n") {
		t.Errorf("%v: %.300s", err, bad)
	}
	here, err := filepath.Abs("mutants.go")
	if data, fails := os.ReadFile(list); err != nil || fails != nil || !strings.Contains(string(data), here) {
		t.Errorf("%s: %v, %v", data, err, fails)
	}
}

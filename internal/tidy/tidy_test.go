package tidy

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestLaws checks this tree.
func TestLaws(t *testing.T) {
	tree, err := Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.code) < 20 {
		t.Fatalf("only %d Go files: this is not the tree", len(tree.code))
	}
	for _, f := range tree.Check() {
		t.Error(f)
	}
}

// fixture is a tree that keeps every law, plus the files of a txtar archive.
func fixture(t *testing.T, archive string) *Tree {
	t.Helper()
	fsys := fstest.MapFS{
		"LICENSE": {Data: []byte("Apache License\n")},
		"go.mod":  {Data: []byte("module " + module + "\n")},
	}
	for _, f := range txtar.Parse([]byte(archive)).Files {
		fsys[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	tree, err := Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestEachLawCanFail(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/breaks.txtar")
	if err != nil {
		t.Fatal(err)
	}
	broken := map[string]bool{}
	for _, f := range archive.Files {
		law, _, _ := strings.Cut(f.Name, "/")
		name := strings.TrimPrefix(f.Name, law+"/")
		t.Run(f.Name, func(t *testing.T) {
			want := wanted(t, f.Data)
			data := strings.NewReplacer("@module@", module, "@leftover@", "TO"+"DO", "@place@", "/wo"+"rk/x").Replace(string(f.Data))
			got := fixture(t, "-- "+name+" --\n"+data).Check()
			var texts []string
			for _, g := range got {
				texts = append(texts, g.String())
				broken[g.Law] = true
				if g.Law != law {
					t.Errorf("breaks another law: %s", g)
				}
			}
			all := strings.Join(texts, "\n")
			if want == "nothing" && len(got) > 0 || want != "nothing" && (len(got) != 1 || !strings.Contains(all, want)) {
				t.Errorf("want %q, got:\n%s", want, all)
			}
		})
	}
	for _, law := range []string{"layers", "pure", "globals", "background", "programs", "channels", "sleep", "package-comment", "documented", "leftovers", "place"} {
		if !broken[law] {
			t.Errorf("no example breaks %s", law)
		}
	}
}

// wanted returns what follows "want:" in a fixture: a part of the one finding,
// or "nothing".
func wanted(t *testing.T, data []byte) string {
	t.Helper()
	_, after, ok := strings.Cut(string(data), "want: ")
	if !ok {
		t.Fatal("the example does not say what it wants")
	}
	line, _, _ := strings.Cut(after, "\n")
	return line
}

func TestLength(t *testing.T) {
	long := "-- internal/script/a.go --\n// Package script is long.\npackage script\n\nfunc (s *S[T]) F() {\n" +
		strings.Repeat("\tx()\n", maxFunction-1) + "}\n"
	got := fixture(t, long).Check()
	if len(got) != 1 || !strings.Contains(got[0].String(), "internal/script.S.F has 71 lines") {
		t.Errorf("got %v", got)
	}
	tree := fixture(t, long)
	tree.long = map[string]string{"internal/script.S.F": "a table"}
	if got := tree.Check(); len(got) != 0 {
		t.Errorf("with an exception: %v", got)
	}
	tree = fixture(t, strings.Replace(long, "\tx()\n", "", 1))
	tree.long = map[string]string{"internal/script.S.F": "a table"}
	if got := tree.Check(); len(got) != 1 || !strings.Contains(got[0].Text, "not needed any more") {
		t.Errorf("a stale exception: %v", got)
	}
}

func TestTreeAsAWhole(t *testing.T) {
	got := fixture(t, "-- docs/big.md --\n"+strings.Repeat("x\n", maxFile/2+1)).Check()
	if len(got) != 1 || got[0].Law != "size" {
		t.Errorf("size: %v", got)
	}
	got = fixture(t, "-- LICENSE --\nnone\n-- go.mod --\nmodule example.com/x\n").Check()
	if len(got) != 2 || got[0].Law != "module" || got[1].Law != "module" {
		t.Errorf("module: %v", got)
	}
	if got := fixture(t, "-- bin/x.go --\nnot Go\n-- out/y --\n"+strings.Repeat("z\n", maxFile)).Check(); len(got) != 0 {
		t.Errorf("build products are looked at: %v", got)
	}
}

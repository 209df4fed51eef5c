package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/tasuki-ha/tasuki/internal/config"
)

var update = flag.Bool("update", false, "write what the tests got as what they want")

// Each file is one defect of a cluster file and all that must be told about it:
// errors, or warnings where the file is accepted.
func TestDefects(t *testing.T) {
	files, err := filepath.Glob("testdata/defects/*.txtar")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d defects are too few (%v)", len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil || len(ar.Files) != 2 {
				t.Fatalf("want two files in it: %v", err)
			}
			got := problemsOf(t, ar.Files[0].Data)
			if got == "" {
				t.Error("nothing is told about it")
			}
			if *update {
				ar.Files[1].Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(ar.Files[1].Data), got); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

// problemsOf returns the problems of a file, one a line.
func problemsOf(t *testing.T, data []byte) string {
	t.Helper()
	f, errs := config.Parse("cluster.yaml", data)
	var out strings.Builder
	if len(errs) > 0 {
		if f != nil {
			t.Error("a refused file must not be returned")
		}
		out.WriteString(errs.Error() + "\n")
		return out.String()
	}
	for _, w := range f.Warnings() {
		out.WriteString("warning: " + w.String() + "\n")
	}
	return out.String()
}

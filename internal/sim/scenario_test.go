package sim

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the events of the scenarios anew")

// TestScenarios plays every story in scenarios/ and compares the log.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("../../scenarios/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			log, err := Play(data)
			if err != nil {
				t.Fatalf("%v\n%s", err, log)
			}
			a := txtar.Parse(data)
			for i := range a.Files {
				f := &a.Files[i]
				if f.Name != "events" {
					continue
				}
				if *update {
					f.Data = []byte(log)
					if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
						t.Fatal(err)
					}
				} else if diff := cmp.Diff(string(f.Data), log); diff != "" {
					t.Errorf("the log differs (go test -update writes it anew):\n%s", diff)
				}
				return
			}
			t.Error("the scenario has no file events")
		})
	}
}

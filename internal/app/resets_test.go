package app

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCountResets(t *testing.T) {
	dir := t.TempDir()
	for _, life := range []struct {
		boot, mark string
		want       int
	}{
		{"a", "", 0},
		{"b", "30\n", 1},
		{"b", "30\n", 1}, // the daemon starts anew: a boot counts once
		{"c", "30\n", 2},
		{"d", "3600\n", 1}, // it was well for an hour
		{"e", "", 0},       // it ended in another way
		{"f", "", 0},
		{"g", "\x00", 1}, // the power went while it was written
	} {
		if life.mark != "" {
			if err := os.WriteFile(filepath.Join(dir, fileMark), []byte(life.mark), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := countResets(dir, life.boot); err != nil || got != life.want {
			t.Errorf("boot %s: %d, %v, not %d", life.boot, got, err, life.want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, fileResets), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := countResets(dir, "h"); err != nil || got != 0 {
		t.Errorf("a count that was cut off: %d, %v", got, err)
	}
}

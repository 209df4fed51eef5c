package lab_test

import (
	"strings"
	"testing"
	"time"
)

func TestConfigApply(t *testing.T) {
	s := plain(t, "CLP-1")
	original := do(t, s, "CLP-1", "tasuki", "config", "show")
	put := func(from, to string) string {
		t.Helper()
		text := strings.Replace(original, from, to, 1)
		if text == original {
			t.Fatalf("the file has no %q:\n%s", from, original)
		}
		must(t, s.Lab.WriteFile(t.Context(), "CLP-1", "/root/new.yaml", 0o644, []byte(text)))
		return text
	}
	everywhere := func(text string) {
		t.Helper()
		for _, g := range s.Guests {
			must(t, s.Until(t.Context(), g+" has the file", func() (bool, error) {
				got, err := s.Do(t.Context(), g, "tasuki", "config", "show")
				return got == text, err
			}))
		}
	}
	// What touches nothing that runs is put in force on all nodes.
	changed := put("failback: manual", "failback: auto")
	do(t, s, "CLP-1", "tasuki", "config", "apply", "--yes", "/root/new.yaml")
	everywhere(changed)
	// A file with errors shows all of them, with their places, and changes nothing.
	put("failback: manual", "failback: sometimes\n    colour: red")
	code, said := fails(t, s, "CLP-1", "tasuki", "config", "apply", "--yes", "/root/new.yaml")
	if strings.Count(said, "/root/new.yaml:") != 2 || code == 2 {
		t.Errorf("two errors at their places are expected, exit code %d:\n%s", code, said)
	}
	// What would change a resource under a running group is refused.
	put("10.2.102.50", "10.2.102.60")
	if _, said := fails(t, s, "CLP-1", "tasuki", "config", "apply", "--yes", "/root/new.yaml"); !strings.Contains(said, "failover") {
		t.Errorf("it does not say what is in the way:\n%s", said)
	}
	everywhere(changed)
	// And not with the other node alone: all or none.
	if n := strings.Count(do(t, s, "CLP-2", "tasuki", "config", "history"), "\n"); n < 2 {
		t.Errorf("the history has %d lines", n)
	}
	do(t, s, "CLP-2", "tasuki", "config", "rollback", "1", "--yes")
	everywhere(original)
	stays(t, s, "CLP-1", 500*time.Millisecond)
	if n := count(t, s, "CLP-1", "group-stop-begun"); n != 0 {
		t.Errorf("a change of the file stopped the group %d times", n)
	}
	// Stopped, the group may be changed.
	put("10.2.102.50", "10.2.102.60")
	do(t, s, "CLP-1", "tasuki", "group", "stop", "failover")
	do(t, s, "CLP-1", "tasuki", "config", "apply", "--yes", "/root/new.yaml")
	do(t, s, "CLP-2", "tasuki", "group", "start", "failover")
	client := ask(t, s, "http://10.2.102.60/")
	client.stop()
}

package custom

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/monitor"
	"github.com/tasuki-ha/tasuki/internal/script"
)

// real runs a script with that text once, as in production.
func real(t *testing.T, ctx context.Context, text string) (Result, string, error) {
	t.Helper()
	dir := t.TempDir()
	path, log := filepath.Join(dir, "Genw.sh"), filepath.Join(dir, "genw.log")
	if text != "" {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := Scripts{Product: script.ThisProduct("0.0.0")}
	res, err := s.Run(ctx, Run{
		Env: monitor.Env{Cluster: "bay7-esx", Node: "bay7-esx"}, Monitor: config.Monitor{Name: "genw-CLP1"},
		Path: path, LogFile: log, LogSize: 1 << 20,
	})
	out, _ := os.ReadFile(log)
	return res, string(out), err
}

func TestRealScript(t *testing.T) {
	res, log, err := real(t, t.Context(), "echo $CLP_MONITORNAME; echo the guest is gone; exit 3\n")
	if err != nil || res.Exit != 3 || res.Signal != "" || res.LastLine != "the guest is gone" {
		t.Errorf("%+v %v", res, err)
	}
	if !strings.Contains(log, "genw-CLP1\nthe guest is gone\n") {
		t.Errorf("log %q", log)
	}
	if res, _, err := real(t, t.Context(), "kill -TERM $$\n"); err != nil || res.Signal != "terminated" {
		t.Errorf("%+v %v", res, err)
	}
}

func TestRealScriptThatHangs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := real(t, ctx, "exec sleep 60\n"); err == nil {
		t.Error("it ended well")
	}
}

func TestRealScriptThatIsNotThere(t *testing.T) {
	if _, _, err := real(t, t.Context(), ""); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

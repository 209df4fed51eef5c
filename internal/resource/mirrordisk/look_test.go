package mirrordisk

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/look"
)

var parted = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// tool has the driver run programs that print an answer, and returns what it ran.
func (n *node) tool(answer string) *[]string {
	var ran []string
	n.o.Tool = func(args ...string) *exec.Cmd {
		ran = append(ran, strings.Join(args, " "))
		return exec.Command("echo", answer)
	}
	return &ran
}

// A standby copy that nobody writes to is looked at on its data device, an active one
// where it is mounted, and a minute more than since they parted.
func TestFilesOfACopy(t *testing.T) {
	n := newNode(t, nil)
	f := &fakeSystem{}
	n.sys = f
	p := n.serve(func(p *process) { p.status.Since = parted })
	n.follow()
	ran := n.tool(`{"files": [{"path": "dir/"}], "more": 3}`)
	data := n.file.Groups[0].Resources[0].MirrorDisk.Data
	got, err := n.Look(t.Context(), "md")
	want := strings.Join(look.Args(data, parted.Add(-time.Minute)), " ")
	if err != nil || got.Node != "a" || len(got.Files) != 1 || got.More != 3 || !slices.Equal(*ran, []string{want}) {
		t.Errorf("%+v %v, ran %q", got, err, *ran)
	}
	if err := n.Start(t.Context(), n.task(nil)); err != nil {
		t.Fatal(err)
	}
	p.set(func(s *control.Status) { s.Since = time.Time{} })
	if got, err = n.Look(t.Context(), "md"); err != nil || len(got.Files) != 1 || (*ran)[1] != strings.Join(look.Args(n.point(), time.Time{}), " ") {
		t.Errorf("%+v %v, ran %q", got, err, *ran)
	}
	f.mu.Lock()
	f.at = nil
	f.mu.Unlock()
	if got, err = n.Look(t.Context(), "md"); err != nil || !strings.Contains(got.Text, "no file system of it is mounted") || len(*ran) != 2 {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := n.Look(t.Context(), "other"); !errors.Is(err, ErrNoCopy) {
		t.Error(err)
	}
}

// Nothing is mounted that is being written to.
func TestCopiesThatAreNotLookedAt(t *testing.T) {
	n := newNode(t, nil)
	p := n.serve(nil)
	n.follow()
	ran := n.tool("{}")
	for want, s := range map[string]control.Status{
		"there is nothing on it": {Role: "standby", PID: 1},
		"being copied to":        {Role: "standby", PID: 1, Size: 1, Target: true, Connected: true},
		"the other copy writes":  {Role: "standby", PID: 1, Size: 1, Connected: true, Set: control.Set{Self: true}},
	} {
		p.set(func(is *control.Status) { *is = s })
		if got, err := n.Look(t.Context(), "md"); err != nil || !strings.Contains(got.Text, want) || len(*ran) > 0 {
			t.Errorf("%q: %+v %v, ran %q", want, got, err, *ran)
		}
	}
	p.set(func(is *control.Status) { *is = control.Status{Role: "standby", PID: 1, Size: 1, Connected: true} }) // the other one knocks
	n.o.Tool = func(...string) *exec.Cmd { return exec.Command("false") }
	if got, err := n.Look(t.Context(), "md"); err != nil || got.Text != "exit status 1" {
		t.Errorf("%+v %v", got, err)
	}
}

func TestACopyIsKept(t *testing.T) {
	n := newNode(t, nil)
	n.o.State = t.TempDir()
	p := n.serve(func(p *process) { p.status.Generation = "7" })
	n.follow()
	ran := n.tool(`{"id": "20260102T120000Z", "what": "all of it"}`)
	if text, err := n.Keep(t.Context(), "md"); err != nil || !strings.HasPrefix(text, "all of it is kept on a as 20260102T120000Z") {
		t.Errorf("%q %v", text, err)
	}
	if want := "mirror save " + n.mirror("md").dir + " " + n.o.State + "/mirror/md"; (*ran)[0] != want || !slices.Contains(n.said(), "mirror-copy-kept") {
		t.Errorf("ran %q, not %q; said %q", *ran, want, n.said())
	}
	// Somebody writes to it while it is being kept.
	n.o.Tool = func(...string) *exec.Cmd {
		p.set(func(s *control.Status) { s.Target = true })
		return exec.Command("echo", `{"id": "x"}`)
	}
	if _, err := n.Keep(t.Context(), "md"); err == nil || !strings.Contains(err.Error(), "meanwhile") {
		t.Error(err)
	}
	ran = n.tool("{}")
	for want, s := range map[string]control.Status{
		"active": {Role: "active", PID: 1, Size: 1}, "being copied to": {Role: "standby", PID: 1, Size: 1, Target: true},
		"": {Role: "standby", PID: 1, Size: 1, Connected: true, Set: control.Set{Self: true}}, // it has what the other one has
	} {
		p.set(func(is *control.Status) { *is = s })
		if text, err := n.Keep(t.Context(), "md"); (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) || len(*ran) > 0 {
			t.Errorf("%q: %q %v, ran %q", want, text, err, *ran)
		}
	}
}

package clp

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/api"
)

func TestMirrorStat(t *testing.T) {
	_, socket := daemon(t, "mirror")
	var all strings.Builder
	for _, line := range []string{"clpstat", "clpstat -m", "clpmdstat -l", "clpmdstat --mirror md", "clpmdstat -m mdfar", "clpmdstat -m mdoff", "clpmdstat -m mdnew", "clpmdstat --active mdfar", "clpmdstat --active mdnew"} {
		code, out, errs := command(t, socket, line)
		if code != exitOK || errs != "" {
			t.Errorf("%s: %d %s", line, code, errs)
		}
		all.WriteString("$ " + line + "\n" + out)
	}
	golden := filepath.Join("testdata", "mirror.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(all.String(), "\n")); diff != "" {
		t.Errorf("(go test -update writes it anew):\n%s", diff)
	}
}

func TestMirrorForms(t *testing.T) {
	force := `mirror force mdoff by=root node=CLP-1 reason="clpmdctrl --force" confirm=VMcluster thorough=false no-snapshot=false`
	for _, c := range []struct {
		line  string
		calls []string
	}{
		{"clpmdctrl --active md", nil}, // it is active here
		{"clpmdctrl --active mdoff", []string{"group start off to=CLP-1"}},
		{"clpmdctrl --active -f mdoff", []string{force, "group start off to=CLP-1"}},
		{"clpmdctrl --active -f mdnew", []string{"group start new to=CLP-1"}},
		{"clpmdctrl --break md", []string{`mirror break md by=root node= reason="clpmdctrl --break" confirm= thorough=false no-snapshot=false`}},
		{"clpmdctrl --force mdoff", []string{force}},
		{"clpmdctrl --recovery md", []string{`mirror copy md by=root node= reason="" confirm= thorough=false no-snapshot=false`}},
		{"clpmdctrl --recovery mdfar", nil}, // both are complete
		{"clpmdctrl --recovery mdoff", []string{`mirror resume mdoff by=root node= reason="" confirm= thorough=false no-snapshot=false`, `mirror copy mdoff by=root node= reason="" confirm= thorough=false no-snapshot=false`}},
		{"clpmdctrl --rwait mdfar -timeout 5", nil},
		{"clpmdctrl --rwait mdfar", nil},
	} {
		b, socket := daemon(t, "mirror")
		code, _, errs := command(t, socket, c.line)
		calls := slices.DeleteFunc(b.Calls(), func(s string) bool { return s == "status" || strings.HasPrefix(s, "plan ") })
		if d := cmp.Diff(c.calls, calls); code != exitOK || errs != "" || len(c.calls)+len(calls) > 0 && d != "" {
			t.Errorf("%s: %d %s%s", c.line, code, errs, d)
		}
	}
}

func TestRefusedMirrorForms(t *testing.T) {
	for _, c := range []struct {
		line string
		code int
		why  string
	}{
		{"clpmdstat", exitUsage, "cannot be read"},
		{"clpmdstat -l -m md", exitUsage, "cannot be read"},
		{"clpmdstat -m mdx", exitFail, `no mirror disk "mdx"`},
		{"clpmdctrl", exitUsage, "cannot be read"},
		{"clpmdctrl --break", exitUsage, "cannot be read"},
		{"clpmdctrl --break --force md", exitUsage, "cannot be read"},
		{"clpmdctrl --rwait md -timeout -1", exitUsage, "cannot be read"},
		{"clpmdctrl --break mdx", exitFail, `no mirror disk "mdx"`},
		{"clpmdctrl --active mdfar", exitFail, "active on CLP-2"},
		{"clpmdctrl --rwait mdoff -timeout 60", exitFail, "broken"},
		{"clpmdctrl --rwait mdsplit -timeout 60", exitFail, "written apart"},
		{"clpmdctrl --rwait mdlate -timeout 1", exitFail, "not the same yet"},
	} {
		b, socket := daemon(t, "mirror")
		code, _, errs := command(t, socket, c.line)
		if code != c.code || !strings.HasPrefix(errs, "error: ") || !strings.Contains(errs, c.why) || !strings.Contains(errs, "hint: ") {
			t.Errorf("%s: %d %q", c.line, code, errs)
		}
		for _, call := range b.Calls() {
			if call != "status" {
				t.Errorf("%s did %s", c.line, call)
			}
		}
	}
}

// What the cluster refuses ends the command, before the next step of it.
func TestRefusedForce(t *testing.T) {
	b, socket := daemon(t, "mirror")
	b.Refusal = &api.Error{Code: "group-active", Message: "group off is active on CLP-2", Hint: "stop it first"}
	code, _, errs := command(t, socket, "clpmdctrl --active -f mdoff")
	if code != exitFail || !strings.Contains(errs, "active on CLP-2") || slices.Contains(b.Calls(), "group start off to=CLP-1") {
		t.Errorf("%d %s%q", code, errs, b.Calls())
	}
}

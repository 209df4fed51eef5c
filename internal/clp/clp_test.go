package clp

import (
	"bytes"
	"encoding/json"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

var update = flag.Bool("update", false, "write the expected output anew")

// daemon serves a daemon of values in that state and returns its door.
func daemon(t *testing.T, state string) (*httpapitest.Backend, string) {
	t.Helper()
	b := &httpapitest.Backend{Result: api.PlanResult{Ended: true, OK: true, Text: "done"}}
	data, err := os.ReadFile(filepath.Join("testdata", state+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &b.State); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := httpapi.New(b, "test")
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(httpapi.WithCaller(r.Context(), httpapi.Caller{Kind: httpapi.Local, Name: "root"})))
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return b, path
}

// command splits a command line at blanks; '_' stands for a blank.
func command(t *testing.T, socket, line string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	argv := strings.Fields(line)
	for i := range argv {
		argv[i] = strings.ReplaceAll(argv[i], "_of_", " of ")
	}
	code = Main(t.Context(), argv, &o, &e, socket)
	return code, o.String(), e.String()
}

// The layout is what scripts and eyes of CLUSTERPRO parse.
func TestStat(t *testing.T) {
	for _, state := range []string{"healthy", "degraded", "single"} {
		_, socket := daemon(t, state)
		var all strings.Builder
		for _, form := range []string{"", "-s", "-g", "-m", "-n", "-i", "--long", "--rsc fip", "--mon userw", "--hb lankhb1", "-h 10.2.102.51"} {
			code, out, errs := command(t, socket, "clpstat "+form)
			if code != exitOK || errs != "" {
				t.Errorf("clpstat %s: %d %s", form, code, errs)
			}
			all.WriteString("$ clpstat " + form + "\n" + out)
		}
		golden := filepath.Join("testdata", state+".txt")
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
			t.Errorf("%s (go test -update writes it anew):\n%s", state, diff)
		}
	}
}

// What the columns must be, whatever the golden files say.
func TestStatColumns(t *testing.T) {
	_, socket := daemon(t, "healthy")
	_, out, _ := command(t, socket, "clpstat")
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	frame := lines[0] + lines[len(lines)-1]
	if len(lines[0]) != width || len(lines[len(lines)-1]) != width || strings.Trim(frame, " =CLUSTERA") != "" {
		t.Errorf("the frame is %q and %q", lines[0], lines[len(lines)-1])
	}
	for _, l := range lines[2 : len(lines)-1] {
		if !strings.HasPrefix(l, "  <") && strings.IndexByte(l, ':') != colon-1 {
			t.Errorf("the colon of %q is in column %d", l, strings.IndexByte(l, ':')+1)
		}
	}
	own := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "   *CLP-1 ") })
	if own < 0 || !strings.HasPrefix(lines[own], "   *CLP-1 ...........: Online           Primary server") {
		t.Errorf("the own server is not shown as it must be:\n%s", out)
	}
}

func TestForms(t *testing.T) {
	for _, c := range []struct{ line, call string }{
		{"clptrnreq -t GRP_FAILOVER -r exec -h 10.2.102.51,10.2.102.52", "send GRP_FAILOVER [10.2.102.51 10.2.102.52] group= resource=exec script= id="},
		{"clptrnreq -t GRP_FAILOVER -g failover -h CLP-1 -w 5", "send GRP_FAILOVER [CLP-1] group=failover resource= script= id="},
		{"clptrnreq -t EXEC_SCRIPT -h 10.2.102.51,10.2.102.52 -s failover_message.sh", "send EXEC_SCRIPT [10.2.102.51 10.2.102.52] group= resource= script=failover_message.sh id="},
		{"clprexec --failover failover -h 10.2.102.51", "send GRP_FAILOVER [10.2.102.51] group=failover resource= script= id="},
		{"clprexec --script s.sh -h 10.2.102.51", "send EXEC_SCRIPT [10.2.102.51] group= resource= script=s.sh id="},
		{"clplogcmd -m end_of_day", "log info end of day"},
		{"clplogcmd -m x -l warn", "log warn x"}, {"clplogcmd -m x -l WAR", "log warn x"}, {"clplogcmd -m x -l ERROR", "log error x"},
		{"clplogcmd -l err -i 7 --alert --syslog --mail --trap -m x", "log error x"}, {"clplogcmd -m x -l Info", "log info x"},
		{"clpgrp -s off", "group start off to="}, {"clpgrp -s off -h CLP-2", "group start off to=CLP-2"}, {"clpgrp -s off -h 10.2.102.52", "group start off to=CLP-2"},
		{"clpgrp -t failover", "group stop failover to="}, {"clpgrp -t failover -h CLP-1 -f", "group stop failover to="},
		{"clpgrp -m failover", "group move failover to="}, {"clpgrp -m failover -a CLP-2", "group move failover to=CLP-2"},
		{"clpgrp -s", "group start off to="}, {"clpgrp -t", "group stop failover to="},
	} {
		b, socket := daemon(t, "healthy")
		code, _, errs := command(t, socket, c.line)
		if code != exitOK || errs != "" || !slices.Contains(b.Calls(), c.call) {
			t.Errorf("%s: %d %s%q", c.line, code, errs, b.Calls())
		}
	}
}

// Whatever is refused says why, changes nothing and ends with a code that is
// not zero.
func TestRefusedForms(t *testing.T) {
	for _, c := range []struct {
		line string
		code int
		why  string
	}{
		{"clptrnreq", exitUsage, "no host"},
		{"clptrnreq -t GRP_FAILOVER -h h", exitUsage, "resource or a group"},
		{"clptrnreq -t GRP_FAILOVER -g g -r r -h h", exitUsage, "resource or a group"},
		{"clptrnreq -t EXEC_SCRIPT -h h", exitUsage, "script"},
		{"clptrnreq -t REBOOT -h h", exitUsage, `"REBOOT" is no type of request`},
		{"clptrnreq -t EXEC_SCRIPT -h h -s s extra", exitUsage, "extra"},
		{"clptrnreq -t EXEC_SCRIPT -h h -s s -w -1", exitUsage, "-w -1"},
		{"clprexec --failover g", exitUsage, "--failover g"}, {"clprexec --failover g --script s -h h", exitUsage, "cannot be read"},
		{"clplogcmd", exitUsage, "no text"}, {"clplogcmd -m x -l loud", exitUsage, `"loud" is no level`},
		{"clpgrp", exitUsage, "cannot be read"}, {"clpgrp -s -t failover", exitUsage, "cannot be read"}, {"clpgrp -n", exitUsage, "needs a group"},
		{"clpgrp -n off", exitFail, "not active"}, {"clpgrp -s nothing", exitFail, `no group "nothing"`},
		{"clpgrp -t failover -h CLP-2", exitFail, "active on CLP-2"}, {"clpgrp -m failover -a CLP-9", exitFail, `no node "CLP-9"`},
		{"clpstat -x", exitUsage, "cannot be read"}, {"clpstat -h 1.2.3.4", exitFail, `no node "1.2.3.4"`},
	} {
		b, socket := daemon(t, "healthy")
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

func TestWhere(t *testing.T) {
	_, socket := daemon(t, "healthy")
	if code, out, _ := command(t, socket, "clpgrp -n failover"); code != exitOK || out != "CLP-1\n" {
		t.Error(code, out)
	}
}

// A host that refuses makes the command fail, and the others are shown.
func TestAnswersOfHosts(t *testing.T) {
	b, socket := daemon(t, "healthy")
	b.Answers = []api.HostAnswer{{Host: "a", Answer: &api.Answer{Text: "ended with exit code 0"}}, {Host: "b", Error: &api.Error{Code: "x", Message: "not allowed"}}}
	code, out, errs := command(t, socket, "clptrnreq -t EXEC_SCRIPT -h a,b -s s.sh")
	if code != exitFail || out != "a: ended with exit code 0\nb: not allowed\n" || !strings.Contains(errs, "not allowed") {
		t.Error(code, out, errs)
	}
	b.Answers = []api.HostAnswer{{Host: "a", Answer: &api.Answer{Text: "ended with exit code 3", ExitCode: 3}}}
	if code, _, _ := command(t, socket, "clptrnreq -t EXEC_SCRIPT -h a -s s.sh"); code != exitFail {
		t.Error("a script that failed is no success")
	}
}

func TestLinkNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "opt/nec/clusterpro/bin")
	paths, err := LinkNames(dir, false)
	if err != nil || len(paths) != len(names) {
		t.Fatal(paths, err)
	}
	if again, err := LinkNames(dir, false); err != nil || len(again) != len(names) {
		t.Error(again, err)
	}
	if gone, err := LinkNames(dir, true); err != nil || len(gone) != len(names) {
		t.Error(gone, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Error(left)
	}
	theirs := filepath.Join(dir, "clpstat")
	if err := os.WriteFile(theirs, []byte("CLUSTERPRO's own"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := LinkNames(dir, false); err == nil {
		t.Error("what is not ours was replaced")
	}
	LinkNames(dir, true)
	if _, err := os.Stat(theirs); err != nil {
		t.Error("what is not ours was removed")
	}
}

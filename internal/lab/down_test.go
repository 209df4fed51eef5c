package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// traces is what a lab left on the real machine, beside what other tests do at
// the same time there.
func traces(t *testing.T, name string) []string {
	t.Helper()
	d, err := dirOf(name)
	must(t, err)
	var out []string
	for _, pid := range marked(d) {
		out = append(out, fmt.Sprint("process ", pid))
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, string(d)) {
			out = append(out, "mount "+line)
		}
	}
	links, err := net.Interfaces()
	must(t, err)
	for _, l := range links {
		if ours.MatchString(l.Name) {
			out = append(out, "link "+l.Name)
		}
	}
	if _, err := os.Stat(string(d)); err == nil {
		out = append(out, "directory "+string(d))
	}
	for _, l := range loops(t, d) {
		out = append(out, "loop device over "+l)
	}
	if g := labCgroup(string(d)); g != "" {
		if _, err := os.Stat(string(g)); err == nil {
			out = append(out, "cgroup "+string(g))
		}
	}
	return out
}

// ours are the interfaces that a lab makes outside of machines.
var ours = regexp.MustCompile(`^(v?port\d+\.\d+|switch\d+)$`)

// members returns every process of a lab: those that share a namespace with its
// supervisor or an init. Nothing else holds the namespaces.
func members(t *testing.T, st *Status) (pids []int) {
	t.Helper()
	var spaces []string
	for _, m := range append([]MachineInfo{{PID: st.Supervisor}}, st.Machines...) {
		for _, kind := range []string{"net", "mnt"} {
			ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", m.PID, kind))
			must(t, err)
			spaces = append(spaces, ns)
		}
	}
	found, err := filepath.Glob("/proc/[0-9]*/ns/*")
	must(t, err)
	for _, f := range found {
		if ns, err := os.Readlink(f); err == nil && slices.Contains(spaces, ns) {
			pid, err := strconv.Atoi(strings.Split(f, "/")[2])
			must(t, err)
			pids = append(pids, pid)
		}
	}
	return slices.Compact(pids)
}

// startFree starts a lab that does not end with the test.
func startFree(t *testing.T, layout string) *Lab {
	t.Helper()
	lay, err := Load(layout)
	must(t, err)
	l, err := Start(t.Context(), Options{Layout: lay, Name: nameOf(t)})
	must(t, err)
	return l
}

func TestDownLeavesNothing(t *testing.T) {
	needRoot(t)
	name := nameOf(t)
	for _, c := range []struct {
		what string
		harm func(l *Lab, st *Status)
	}{
		{"nothing", func(*Lab, *Status) {}},
		{"supervisor", func(_ *Lab, st *Status) { kill(t, st.Supervisor) }},
		{"a host", func(_ *Lab, st *Status) { kill(t, st.Machines[0].PID) }},
		{"all inits", func(_ *Lab, st *Status) {
			for _, m := range st.Machines {
				syscall.Kill(m.PID, syscall.SIGKILL)
			}
		}},
		{"supervisor, with a machine paused", func(l *Lab, st *Status) {
			must(t, l.Pause(t.Context(), st.Machines[1].Name))
			kill(t, st.Supervisor)
		}},
		{"supervisor, stopped", func(_ *Lab, st *Status) { must(t, syscall.Kill(st.Supervisor, syscall.SIGSTOP)) }},
	} {
		before := traces(t, name)
		l := startFree(t, "reference")
		st, err := l.Status(t.Context())
		must(t, err)
		must(t, startSleeper(t, l))
		pids := members(t, st)
		if want := 1 + len(st.Machines) + 1; len(pids) != want || len(traces(t, name)) == len(before) {
			t.Fatalf("this test sees %d processes of the lab, not %d", len(pids), want)
		}
		c.harm(l, st)
		must(t, Down(t.Context(), name))
		for _, pid := range pids {
			if state := processState(pid); state != 0 && state != 'Z' { // a zombie waits for a parent that is not ours
				t.Errorf("%s killed: process %d is left", c.what, pid)
			}
		}
		if d := cmp.Diff(before, traces(t, name)); d != "" {
			t.Errorf("%s killed: -before +after\n%s", c.what, d)
		}
	}
	if err := Down(t.Context(), name); err == nil || !strings.Contains(err.Error(), "no lab") {
		t.Errorf("down of nothing: %v", err)
	}
}

// startSleeper starts something in a machine that survives its starter.
func startSleeper(t *testing.T, l *Lab) error {
	r, err := l.Exec(t.Context(), "CLP-1", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%+v", r)
	}
	return err
}

func kill(t *testing.T, pid int) {
	t.Helper()
	must(t, syscall.Kill(pid, syscall.SIGKILL))
}

// startAct runs this test program as another process.
func startAct(t *testing.T, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{"act"}, args...)...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	return cmd, bufio.NewReader(out)
}

func TestDownAfterKillHalfWayUp(t *testing.T) {
	needRoot(t)
	name := nameOf(t)
	before := traces(t, name)
	for _, after := range []time.Duration{0, 3, 8, 15, 25, 40, 60, 90} {
		cmd, _ := startAct(t, "up", name, "free")
		<-time.After(after * time.Millisecond)
		kill(t, cmd.Process.Pid)
		cmd.Wait()
		if err := Down(t.Context(), name); err != nil && !strings.Contains(err.Error(), "no lab") {
			t.Errorf("killed after %d ms: %v", after, err)
		}
		if d := cmp.Diff(before, traces(t, name)); d != "" {
			t.Errorf("killed after %d ms: -before +after\n%s", after, d)
		}
	}
}

func TestAttachedLabEndsWithItsStarter(t *testing.T) {
	needRoot(t)
	name := nameOf(t)
	before := traces(t, name)
	cmd, out := startAct(t, "up", name, "attached")
	line, err := out.ReadString('\n')
	if err != nil || line != "up "+name+"\n" {
		t.Fatal(line, err)
	}
	kill(t, cmd.Process.Pid)
	cmd.Wait()
	until(t, "the lab is gone without a trace", func() bool { return cmp.Equal(before, traces(t, name)) })
}

func TestSecondUp(t *testing.T) {
	l := start(t, "single")
	if _, err := Start(t.Context(), Options{Name: l.Name()}); err == nil || !strings.Contains(err.Error(), "up already") {
		t.Errorf("two labs of one name: %v", err)
	}
	o, err := Open(t.Context(), l.Name())
	must(t, err)
	if r, err := o.Exec(t.Context(), "n1", "true"); err != nil || r.Code != 0 {
		t.Error(r, err)
	}
	if _, err := Open(t.Context(), "nosuch"); err == nil {
		t.Error("opened nothing")
	}
}

func TestUpOverADeadLab(t *testing.T) {
	needRoot(t)
	before := traces(t, nameOf(t))
	l := startFree(t, "single")
	st, err := l.Status(t.Context())
	must(t, err)
	kill(t, st.Supervisor)
	l2 := startFree(t, "reference")
	if r, err := l2.Exec(t.Context(), "CLP-1", "hostname"); err != nil || r.Stdout != "CLP-1\n" {
		t.Error(r, err)
	}
	must(t, l2.Down(t.Context()))
	if d := cmp.Diff(before, traces(t, nameOf(t))); d != "" {
		t.Error(d)
	}
}

func TestFailedUpLeavesNothing(t *testing.T) {
	needRoot(t)
	before := traces(t, nameOf(t))
	if _, err := Start(t.Context(), Options{Name: nameOf(t), Binary: "/bin/true"}); err == nil {
		t.Error("started with a program that is none of ours")
	}
	if _, err := Start(t.Context(), Options{Name: nameOf(t), Binary: "/nosuch"}); err == nil {
		t.Error("started without a program")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Options{Name: nameOf(t)}); err == nil {
		t.Error("started without time")
	}
	if d := cmp.Diff(before, traces(t, nameOf(t))); d != "" {
		t.Error(d)
	}
}

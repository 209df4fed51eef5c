package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// traces is what a lab could leave on the real machine.
func traces(t *testing.T, name string) []string {
	t.Helper()
	d, err := dirOf(name)
	must(t, err)
	var out []string
	for _, pid := range marked(d) {
		out = append(out, fmt.Sprint("process ", pid))
	}
	f, err := os.Open("/proc/self/mountinfo")
	must(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		out = append(out, "mount "+fields[4])
	}
	links, err := net.Interfaces()
	must(t, err)
	for _, l := range links {
		out = append(out, "link "+l.Name)
	}
	if _, err := os.Stat(string(d)); err == nil {
		out = append(out, "directory "+string(d))
	}
	if g := labCgroup(string(d)); g != "" {
		if _, err := os.Stat(string(g)); err == nil {
			out = append(out, "cgroup "+string(g))
		}
	}
	return append(out, namespaces(t)...)
}

// namespaces returns the network namespaces that processes are in.
func namespaces(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/ns/net")
	must(t, err)
	seen := map[string]bool{}
	for _, f := range found {
		if ns, err := os.Readlink(f); err == nil {
			seen["namespace "+ns] = true
		}
	}
	var out []string
	for ns := range seen {
		out = append(out, ns)
	}
	slices.Sort(out)
	return out
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
		c.harm(l, st)
		must(t, Down(t.Context(), name))
		if d := cmp.Diff(before, traces(t, name)); d != "" {
			t.Errorf("%s killed: -before +after\n%s", c.what, d)
		}
	}
	if err := Down(t.Context(), name); err == nil || !strings.Contains(err.Error(), "no lab") {
		t.Errorf("down of nothing: %v", err)
	}
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

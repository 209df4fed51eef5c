package guest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// asQEMU is in the environment of a copy of this test that plays a QEMU: how it
// behaves, and its socket.
const asQEMU = "TASUKI_TEST_QEMU"

func TestMain(m *testing.M) {
	if how, socket, yes := strings.Cut(os.Getenv(asQEMU), " "); yes {
		fmt.Fprintln(os.Stderr, playQEMU(how, socket))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func playQEMU(how, socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	fmt.Println("listens")
	if how == "hang" { // connections are never taken
		select {}
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go monitor(c, how)
	}
}

// monitor speaks as QEMU 8 does.
func monitor(c net.Conn, how string) {
	defer c.Close()
	if how == "echo" {
		io.Copy(c, c)
		return
	}
	if how == "chat" {
		fmt.Fprintln(c, "hello")
		return
	}
	fmt.Fprint(c, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 8}, "package": ""}, "capabilities": ["oob"]}}`+"\r\n")
	able := false
	for lines := bufio.NewScanner(c); lines.Scan(); {
		switch {
		case strings.Contains(lines.Text(), "qmp_capabilities"):
			able = true
			fmt.Fprint(c, `{"return": {}}`+"\r\n")
		case !able:
			fmt.Fprint(c, `{"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}`+"\r\n")
		case strings.Contains(lines.Text(), "query-status") && how != "mute":
			fmt.Fprint(c, `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RTC_CHANGE", "data": {"offset": 0}}`+"\r\n")
			fmt.Fprintf(c, `{"return": {"status": %q, "running": %v}}`+"\r\n", how, how == "running")
		}
	}
}

// program returns a copy of this test under another name.
func program(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	path := filepath.Join(t.TempDir(), name)
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, self); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// qemu starts a process that plays a QEMU and returns its switch.
func qemu(t *testing.T, path, how string) (*Switch, *exec.Cmd, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "qmp.sock")
	cmd := exec.Command(path)
	cmd.Env = []string{asQEMU + "=" + how + " " + socket}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	return qmpSwitch(t, socket), cmd, socket
}

func qmpSwitch(t *testing.T, socket string) *Switch {
	t.Helper()
	s, err := New(config.Guest{Name: "CLP-1", Kind: config.GuestQMP, Target: socket}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestQMP(t *testing.T) {
	path := program(t, "qemu-system-test")
	for _, how := range []string{"running", "paused", "shutdown", "internal-error"} {
		s, cmd, _ := qemu(t, path, how)
		if got, err := do(t, s, cluster.PowerStatus, soon); err != nil || got != cluster.On {
			t.Fatalf("%s: %q, %v", how, got, err)
		}
		if got, err := do(t, s, cluster.PowerOn, soon); err != nil || got != cluster.On {
			t.Fatalf("%s, on: %q, %v", how, got, err)
		}
		if got, err := do(t, s, cluster.PowerOff, soon); err != nil || got != cluster.Off {
			t.Fatalf("%s, off: %q, %v", how, got, err)
		}
		if cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("%s: it ended by %v", how, cmd.ProcessState)
		}
		for _, a := range []cluster.PowerAction{cluster.PowerStatus, cluster.PowerOff} {
			if got, err := do(t, s, a, soon); err != nil || got != cluster.Off {
				t.Errorf("%s, when it is off, %s: %q, %v", how, a, got, err)
			}
		}
		if got, err := do(t, s, cluster.PowerOn, soon); err == nil || got != "" {
			t.Errorf("%s, on when it is off: %q, %v", how, got, err)
		}
	}
}

// A QEMU that hangs is not known to be off, and can be powered off.
func TestQMPHangs(t *testing.T) {
	path := program(t, "qemu-system-test")
	for _, how := range []string{"hang", "mute"} {
		s, _, _ := qemu(t, path, how)
		if got, err := do(t, s, cluster.PowerStatus, 100*time.Millisecond); err == nil || got != "" {
			t.Errorf("%s: %q, %v", how, got, err)
		}
		if got, err := do(t, s, cluster.PowerOff, soon); err != nil || got != cluster.Off {
			t.Errorf("%s, off: %q, %v", how, got, err)
		}
	}
}

// Who is no QEMU is left alone, and what is no socket says nothing.
func TestQMPDoubts(t *testing.T) {
	s, cmd, _ := qemu(t, program(t, "libvirtd"), "running")
	if got, err := do(t, s, cluster.PowerOff, soon); err == nil || got != "" || !strings.Contains(err.Error(), "no QEMU") {
		t.Errorf("libvirt behind the socket: %q, %v", got, err)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("it was killed: %v", err)
	}
	for _, how := range []string{"echo", "chat"} {
		s, _, _ := qemu(t, program(t, "qemu-kvm"), how)
		if got, err := do(t, s, cluster.PowerStatus, 100*time.Millisecond); err == nil || got != "" {
			t.Errorf("%s: %q, %v", how, got, err)
		}
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{plain, plain + ".gone", t.TempDir()} {
		for _, a := range []cluster.PowerAction{cluster.PowerStatus, cluster.PowerOff} {
			if got, err := do(t, qmpSwitch(t, path), a, soon); err == nil || got != "" {
				t.Errorf("%s %s: %q, %v", a, path, got, err)
			}
		}
	}
}

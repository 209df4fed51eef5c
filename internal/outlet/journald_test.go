package outlet

import (
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// inside is set in the process that has the directory of journald's socket for
// itself.
const inside = "TASUKI_TEST_OWN_RUN"

// The place of journald's socket is fixed, so the test has a /run of its own.
func TestJournald(t *testing.T) {
	if os.Getenv(inside) != "" {
		journaldInside(t)
		return
	}
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("only root can give a process a /run of its own")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestJournald$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// journaldInside delivers to a journald that is not there, reads, stands still and
// is there again.
func journaldInside(t *testing.T) {
	const socket = "/run/systemd/journal/socket"
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	n := start(t, t.TempDir(), nil)
	n.follow(with(t, "{log: {kind: journald, timeout: 200ms}}"))
	works := func(want bool) func() bool { return func() bool { return n.outlets.States()[0].Works == want } }
	n.happen(2)
	until(t, "it is not there", works(false))
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	read := func() map[string]string {
		t.Helper()
		if err := l.SetReadDeadline(time.Now().Add(soon)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64<<10)
		size, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return native(t, string(buf[:size]))
	}
	for _, id := range []string{"a/1", "a/2"} {
		if got := read(); got["TASUKI_EVENT"] != id {
			t.Errorf("%s instead of %s", got["TASUKI_EVENT"], id)
		}
	}
	until(t, "it is there", works(true))
	e := api.Event{Level: cluster.LevelError, Module: "rc", Code: "group-failed", Cause: "b/9", Text: "two\nlines", Fields: map[string]string{"group": "web", "late_ms": "7", "Ünï": "x"}}
	n.record(t.Context(), e)
	got := read()
	for k, want := range map[string]string{"MESSAGE": "two\nlines", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "tasuki", "TASUKI_EVENT": "a/3", "TASUKI_CLUSTER": "c", "TASUKI_NODE": "a",
		"TASUKI_MODULE": "rc", "TASUKI_CODE": "group-failed", "TASUKI_CAUSE": "b/9", "TASUKI_NUMBER": "3", "TASUKI_FIELD_GROUP": "web", "TASUKI_FIELD_LATE_MS": "7", "TASUKI_FIELD__N_": "x"} {
		if got[k] != want {
			t.Errorf("%s is %q, not %q", k, got[k], want)
		}
	}
	// It stands still: the queue of its socket is full sooner or later.
	n.happen(700)
	until(t, "it stands still", works(false))
	if why := n.outlets.States()[0].Why; !strings.Contains(why, "journald") {
		t.Error(why)
	}
	last := ""
	for last != "a/703" {
		id := read()["TASUKI_EVENT"]
		if last != "" && id != last && len(id) <= len(last) && id < last {
			t.Fatalf("%s came after %s", id, last)
		}
		last = id
	}
}

// native reads a message of journald's own protocol.
func native(t *testing.T, msg string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for msg != "" {
		line, rest, _ := strings.Cut(msg, "\n")
		key, value, plain := strings.Cut(line, "=")
		if !plain {
			size := binary.LittleEndian.Uint64([]byte(rest[:8]))
			value, rest = rest[8:8+size], rest[8+size+1:]
		}
		out[key], msg = value, rest
	}
	return out
}

package cli_test

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tasuki-ha/tasuki/internal/cli"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

// typing is a terminal on which somebody answers each question with the next
// line. The questions come by another way than the terminal's own echo, which is
// kept.
type typing struct {
	ctrl  *os.File
	lines []string
	asked bytes.Buffer
}

func (y *typing) Write(b []byte) (int, error) {
	y.asked.Write(b)
	if bytes.HasSuffix(b, []byte(": ")) && len(y.lines) > 0 {
		_, _ = io.WriteString(y.ctrl, y.lines[0]+"\n")
		y.lines = y.lines[1:]
	}
	return len(b), nil
}

// A password is asked for twice and not shown.
func TestPasswordFromTheTerminal(t *testing.T) {
	for _, tt := range []struct {
		lines []string
		code  int
	}{
		{[]string{"correct horse battery", "correct horse battery"}, cli.ExitOK},
		{[]string{"correct horse battery", "correct horse buttery"}, cli.ExitFailed},
	} {
		b := &httpapitest.Backend{}
		daemon(t, b)
		ctrl, tty := terminal(t)
		asks := &typing{ctrl: ctrl, lines: tt.lines}
		var out bytes.Buffer
		code := cli.Main(t.Context(), []string{"user", "add", "ann", "--roles", "read"}, tty, &out, asks, cli.Hooks{})
		if code != tt.code || slices.Contains(b.Calls(), "user-add ann roles=[read] by=root") != (code == cli.ExitOK) {
			t.Errorf("%d: %s %v", code, asks.asked.String(), b.Calls())
		}
		tty.Close()
		shown, _ := io.ReadAll(ctrl)
		if strings.Contains(string(shown)+asks.asked.String()+out.String(), "horse") {
			t.Errorf("the password was shown: %q %q", shown, asks.asked.String())
		}
	}
}

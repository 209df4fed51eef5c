package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cli"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

// terminal returns both ends of a pseudo terminal; what is written to tty comes
// out of the first.
func terminal(t *testing.T) (ctrl, tty *os.File) {
	t.Helper()
	ctrl, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ctrl.Close() })
	if err := unix.IoctlSetPointerInt(int(ctrl.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ctrl.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return ctrl, tty
}

// onTerminal runs a command whose output is a terminal and returns what that
// showed.
func onTerminal(t *testing.T, args ...string) string {
	t.Helper()
	ctrl, tty := terminal(t)
	shown := make(chan string)
	go func() {
		text, _ := io.ReadAll(ctrl) // ends with an error when the other end is closed
		shown <- string(text)
	}()
	var errs bytes.Buffer
	if code := cli.Main(t.Context(), args, strings.NewReader(""), tty, &errs, cli.Hooks{}); code != cli.ExitOK {
		t.Fatal(code, errs.String())
	}
	tty.Close()
	return strings.ReplaceAll(<-shown, "\r\n", "\n")
}

// daemon starts a daemon of values for commands of this process.
func daemon(t *testing.T, b httpapi.Backend) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	stop, err := listen(path, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	t.Setenv("TASUKI_SOCKET", path)
	t.Setenv("NO_COLOR", "")
}

// A terminal gets colors, and the columns stand as without.
func TestStatusInColor(t *testing.T) {
	b := &httpapitest.Backend{}
	state, err := os.ReadFile("testdata/status-color.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(state, &b.State); err != nil {
		t.Fatal(err)
	}
	daemon(t, b)
	got := onTerminal(t, "status")
	const golden = "testdata/status-color.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if !strings.Contains(got, "\x1b[31m") || !strings.Contains(got, "\x1b[32m") {
		t.Error("no red, or no green")
	}
	t.Setenv("NO_COLOR", "1")
	plain := onTerminal(t, "status")
	if strings.Contains(plain, "\x1b") {
		t.Errorf("NO_COLOR, and yet %q", plain)
	}
	if bare := strings.NewReplacer("\x1b[31m", "", "\x1b[32m", "", "\x1b[m", "").Replace(got); bare != plain {
		t.Errorf("with color %q\nwithout %q", bare, plain)
	}
}

// An open pipe that says nothing is refused, not waited for; a terminal where
// nobody answers is left when the command is interrupted.
func TestNobodyConfirms(t *testing.T) {
	b, err := backend(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	daemon(t, b)
	file := filepath.Join(t.TempDir(), "good.yaml")
	if err := os.WriteFile(file, []byte("cluster: one\nnodes: {n1: {addresses: [10.0.0.1]}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	var errs bytes.Buffer
	if code := cli.Main(t.Context(), []string{"config", "apply", file}, r, io.Discard, &errs, cli.Hooks{}); code != cli.ExitFailed || !strings.Contains(errs.String(), "--yes") {
		t.Error(code, errs.String())
	}
	_, tty := terminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := &screen{on: func(text string) {
		if strings.Contains(text, "apply?") {
			cancel()
		}
	}}
	errs.Reset()
	if code := cli.Main(ctx, []string{"config", "apply", file}, tty, out, &errs, cli.Hooks{}); code != cli.ExitFailed || !strings.Contains(errs.String(), "nothing was applied") {
		t.Error(code, errs.String())
	}
	for _, c := range b.Calls() {
		if strings.HasPrefix(c, "apply") {
			t.Error(c)
		}
	}
}

// screen is an output that tells of each new text. It must not be written to by
// two at once: the race detector watches.
type screen struct {
	text string
	on   func(text string)
}

func (s *screen) Write(b []byte) (int, error) {
	s.text += string(b)
	s.on(s.text)
	return len(b), nil
}

// early is a daemon where things happen while its log is read.
type early struct {
	*httpapitest.Backend
	once sync.Once
}

func (b *early) Events(ctx context.Context, f api.EventFilter) ([]api.Event, error) {
	b.once.Do(func() { b.Happen(event(2)) })
	got, err := b.Backend.Events(ctx, f)
	b.Happen(event(3))
	return got, err
}

func event(n int) api.Event {
	return api.Event{ID: cluster.EventID(fmt.Sprintf("n1/%d", n)), Node: "n1", Module: "rm", Time: time.Unix(int64(n), 0), Text: fmt.Sprintf("event <%d>", n)}
}

// What happens before, while and after the log is read is shown once each.
func TestEventFollow(t *testing.T) {
	values := &httpapitest.Backend{}
	values.Happen(event(0))
	values.Happen(event(1))
	daemon(t, &early{Backend: values})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var later sync.Once
	out := &screen{on: func(text string) {
		if strings.Contains(text, "<3>") {
			later.Do(func() { values.Happen(event(4)) })
		}
		if strings.Contains(text, "<4>") {
			cancel()
		}
	}}
	var errs bytes.Buffer
	if code := cli.Main(ctx, []string{"event", "-f", "-n", "2"}, nil, out, &errs, cli.Hooks{}); code != cli.ExitOK {
		t.Error(code, errs.String())
	}
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(out.text), "\n") {
		got = append(got, line[strings.Index(line, "<"):])
	}
	if text := strings.Join(got, ""); text != "<1><2><3><4>" {
		t.Error(text)
	}
}

// A call gives 10,000 at most; who asks for more gets more.
func TestMoreEventsThanOneCallGives(t *testing.T) {
	b := &httpapitest.Backend{MostEvents: 10_000}
	for n := range 10_050 {
		b.Happen(event(n))
	}
	daemon(t, b)
	for _, tt := range []struct {
		args  []string
		lines int
		first string
	}{
		{[]string{"event", "-n", "0"}, 10_050, "<0>"},
		{[]string{"event", "-n", "10040"}, 10_040, "<10>"},
		{[]string{"event"}, 50, "<10000>"},
	} {
		var out, errs bytes.Buffer
		if code := cli.Main(t.Context(), tt.args, nil, &out, &errs, cli.Hooks{}); code != cli.ExitOK {
			t.Fatal(code, errs.String())
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != tt.lines || !strings.HasSuffix(lines[0], tt.first) || !strings.HasSuffix(lines[len(lines)-1], "<10049>") {
			t.Errorf("%v: %d lines from %q to %q", tt.args, len(lines), lines[0], lines[len(lines)-1])
		}
	}
}

// The lines of the log and the outcome come from one hand, also where the log
// goes on while the plan ends.
func TestMoveWritesInOrder(t *testing.T) {
	b := &httpapitest.Backend{Result: api.PlanResult{Ended: true, OK: true, Text: "it runs on n2"}}
	done := make(chan struct{})
	var busy sync.WaitGroup
	happen := func(n int) {
		e := event(n)
		e.Fields = map[string]string{"group": "g"}
		b.Happen(e)
	}
	b.Begins = func() {
		happen(0)
		busy.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
					happen(n)
				}
			}
		})
	}
	daemon(t, b)
	out := &screen{on: func(string) {}}
	var errs bytes.Buffer
	code := cli.Main(t.Context(), []string{"group", "move", "g"}, nil, out, &errs, cli.Hooks{})
	close(done)
	busy.Wait()
	if code != cli.ExitOK || strings.Count(out.text, "event <0>") != 1 || !strings.HasSuffix(out.text, "group g: it runs on n2\n") {
		t.Error(code, errs.String(), out.text)
	}
}

// deaf is a daemon whose stream of events never has any.
type deaf struct{ *httpapitest.Backend }

func (deaf) Follow(context.Context) <-chan api.Event { return make(chan api.Event) }

// A line that is late is shown before the outcome all the same, and what was
// there before is not.
func TestMoveShowsTheLastLines(t *testing.T) {
	b, err := backend(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b.Happen(api.Event{ID: "n1/1", Node: "n1", Text: "Of old.", Fields: map[string]string{"group": "g"}})
	daemon(t, deaf{b})
	var out, errs bytes.Buffer
	code := cli.Main(t.Context(), []string{"group", "move", "g"}, nil, &out, &errs, cli.Hooks{})
	lines := strings.Split(out.String(), "\n")
	if code != cli.ExitOK || len(lines) != 3 || !strings.HasSuffix(lines[0], "Moving group g has started.") || lines[1] != "group g: it runs on n2" {
		t.Error(code, errs.String(), out.String())
	}
}

// Who is interrupted is not told that no daemon answers.
func TestInterrupted(t *testing.T) {
	b := &httpapitest.Backend{Result: api.PlanResult{Text: "asked for"}}
	daemon(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	b.Begins = cancel
	var errs bytes.Buffer
	if code := cli.Main(ctx, []string{"group", "stop", "g"}, nil, io.Discard, &errs, cli.Hooks{}); code != cli.ExitFailed || errs.String() != "error: interrupted\nhint: what was begun goes on: tasuki status\n" {
		t.Error(code, errs.String())
	}
}

// A refusal that came without a hint gets one.
func TestNoErrorWithoutHint(t *testing.T) {
	daemon(t, &httpapitest.Backend{Refusal: &api.Error{Code: "busy", Message: "not now"}})
	var errs bytes.Buffer
	if code := cli.Main(t.Context(), []string{"node", "leave", "n1"}, nil, io.Discard, &errs, cli.Hooks{}); code != cli.ExitFailed || errs.String() != "error: not now\nhint: tasuki node leave --help shows what it needs\n" {
		t.Error(code, errs.String())
	}
}

// A shell does not wait for a daemon that hangs, and shows nothing of it.
func TestCompletionDoesNotWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("TASUKI_SOCKET", path)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out bytes.Buffer
	if code := cli.Main(ctx, []string{"__complete", "group", "move", ""}, nil, &out, io.Discard, cli.Hooks{}); code != cli.ExitOK || out.String() != ":4\n" || ctx.Err() != nil {
		t.Error(code, out.String(), ctx.Err())
	}
}

// Every command says what it does and how it is typed: the texts are its manual
// page.
func TestEveryCommandIsExplained(t *testing.T) {
	var all func(c *cobra.Command)
	all = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		if c.Short == "" || c.Long == "" {
			t.Errorf("%s: what does it do?", c.CommandPath())
		}
		if !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: no example of it", c.CommandPath())
		}
		for _, line := range strings.Split(c.Long+"\n"+c.Example, "\n") {
			if len(line) > 110 {
				t.Errorf("%s: a line of %d characters", c.CommandPath(), len(line))
			}
		}
		for _, sub := range c.Commands() {
			all(sub)
		}
	}
	all(cli.Root())
}

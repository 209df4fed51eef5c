package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cli"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

// display is what was written to a terminal so far.
type display struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *display) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// take returns what was written and forgets it.
func (s *display) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

// shows waits until something was written, since the latest that was waited for.
func (s *display) shows(t *testing.T, part string, within time.Duration) {
	t.Helper()
	all := ""
	for end := time.Now().Add(within); !strings.Contains(all, part); {
		if all += s.take(); time.Now().After(end) && !strings.Contains(all, part) {
			t.Fatalf("%q is not shown within %s, but\n%q", part, within, all)
		}
		select {
		case <-t.Context().Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// watching is a daemon of values with a status, at a socket where it can go away.
func watching(t *testing.T) (b *httpapitest.Backend, serve func() (stop func())) {
	t.Helper()
	b = &httpapitest.Backend{}
	text, err := os.ReadFile("testdata/status-color.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &b.State); err != nil {
		t.Fatal(err)
	}
	b.Happen(api.Event{ID: "n1/1", Node: "n1", Module: "rc", Text: "Something was before.", Fields: map[string]string{"group": string(b.State.Groups[0].Name)}})
	path := filepath.Join(t.TempDir(), "api.sock")
	t.Setenv("TASUKI_SOCKET", path)
	return b, func() func() {
		stop, err := listen(path, b)
		if err != nil {
			t.Fatal(err)
		}
		return stop
	}
}

// changed returns the status with its first group elsewhere.
func changed(b *httpapitest.Backend, why string) api.Status {
	s := b.State
	s.Groups = append([]api.Group(nil), s.Groups...)
	s.Groups[0].Why = why
	return s
}

// soon is by when a change must be seen. It is 300 ms; a machine that does much
// else meanwhile gets more.
const soon = 2 * time.Second

func TestWatch(t *testing.T) {
	b, serve := watching(t)
	stop := serve()
	ctrl, tty := terminal(t)
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 60, Col: 120}); err != nil {
		t.Fatal(err)
	}
	var s display
	go io.Copy(&s, ctrl)
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Main(context.Background(), []string{"status", "-w"}, tty, tty, &s, cli.Hooks{})
	}()
	s.shows(t, "Something was before.", 5*time.Second)
	b.Change(changed(b, "it moved for a test"))
	began := time.Now()
	s.shows(t, "moved for a test", soon)
	t.Logf("a change was seen after %s", time.Since(began))
	b.Happen(api.Event{ID: "n1/2", Node: "n1", Module: "rc", Level: cluster.LevelError, Text: "Something new."})
	s.shows(t, "Something new.", soon)
	for range 30 {
		ctrl.WriteString("\x1b[B") // down to the latest event
	}
	ctrl.WriteString("e")
	s.shows(t, "esc back", soon)
	ctrl.WriteString("\x1b")
	s.shows(t, "e explain", soon)
	stop()
	s.shows(t, "does not answer", soon)
	stop = serve()
	defer stop()
	b.Change(changed(b, "BACK-AGAIN"))
	s.shows(t, "BACK-AGAIN", 5*time.Second)
	ctrl.WriteString("q")
	select {
	case code := <-ended:
		if code != cli.ExitOK {
			t.Error(code)
		}
	case <-time.After(10 * time.Second):
		t.Error("q does not end it")
	}
}

// Without a terminal the text is written again after each change.
func TestWatchPlain(t *testing.T) {
	b, serve := watching(t)
	defer serve()()
	for _, flag := range []string{"-w", "-wv"} {
		ctx, cancel := context.WithCancel(t.Context())
		var s display
		ended := make(chan int, 1)
		go func() {
			ended <- cli.Main(ctx, []string{"status", flag}, strings.NewReader(""), &s, &s, cli.Hooks{})
		}()
		s.shows(t, "can survive", 5*time.Second)
		b.Change(changed(b, "for "+flag))
		s.shows(t, "(for "+flag+")", soon)
		cancel()
		if code := <-ended; code != cli.ExitOK {
			t.Error(code)
		}
		if text := s.take(); strings.Contains(text, "\x1b") {
			t.Errorf("it is colored: %q", text)
		}
	}
	if code := cli.Main(t.Context(), []string{"status", "-w", "--socket", "nowhere"}, strings.NewReader(""), io.Discard, io.Discard, cli.Hooks{}); code != cli.ExitUnreachable {
		t.Errorf("without a daemon it ends with %d", code)
	}
}

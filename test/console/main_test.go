// Package console_test drives the web console with a browser: a big cluster of
// values, and the reference scenario in a lab.
package console_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// web is the folder of the console's sources.
const web = "../../web"

// need fails the test in CI, and skips it elsewhere, if something is not there
// that a browser test takes. Where make has found no Node.js that can build the
// console, there is none to be tested.
func need(t *testing.T) {
	t.Helper()
	if node, told := os.LookupEnv("NODE"); told && node == "" {
		t.Skip("needs Node.js 20.19 or later")
	}
	for what, path := range map[string]string{
		"node, the packages of web/ (make web)":    filepath.Join(web, "node_modules/playwright-core/package.json"),
		"the console in the binary (make web)":     "../../internal/console/dist/index.html.gz",
		"Debian's chromium (apt install chromium)": "/usr/bin/chromium",
	} {
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("needs %s: CI must run the browser tests", what)
			}
			t.Skipf("needs %s", what)
		}
	}
}

// drive runs a script of web/e2e to its end. What it prints is the test's log,
// screenshots are left in out/. With an empty MEASURE nothing is expected of times.
func drive(t *testing.T, script string, env ...string) {
	t.Helper()
	out, err := filepath.Abs("../../out/console")
	if err != nil {
		t.Fatal(err)
	}
	within := 3 * time.Minute
	if measure, told := os.LookupEnv("MEASURE"); told && measure == "" {
		within = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	c := exec.CommandContext(ctx, "node", filepath.Join("e2e", script))
	c.Dir, c.Env, c.WaitDelay = web, append(append(os.Environ(), "OUT="+out), env...), time.Second
	r, w := io.Pipe()
	c.Stdout, c.Stderr = w, w
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			t.Log(lines.Text())
		}
		_, _ = io.Copy(io.Discard, r)
	}()
	err = c.Run()
	w.Close()
	<-read
	if err != nil {
		t.Errorf("%s: %v", script, err)
	}
}

// proxy is how a browser of this machine reaches the addresses of a lab: it dials
// from one of its machines.
func proxy(t *testing.T, dial func(ctx context.Context, network, address string) (net.Conn, error)) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		defer cancel()
		far, err := dial(ctx, "tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer far.Close()
		near, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer near.Close()
		if _, err := io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		ended := make(chan struct{}, 2)
		pipe := func(to io.Writer, from io.Reader) {
			_, _ = io.Copy(to, from)
			ended <- struct{}{}
		}
		go pipe(far, buffered)
		go pipe(near, far)
		<-ended
	}))
	t.Cleanup(s.CloseClientConnections)
	return s.URL
}

// control is how a script asks for something: POST /VERB/ARGUMENT/….
func control(t *testing.T, do func(argv []string) error) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		argv := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if err := do(argv); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "done")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

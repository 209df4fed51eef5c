package cli_test

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cli"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

var update = flag.Bool("update", false, "write the expected output anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tasuki": func() {
			os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, cli.Hooks{Version: "v0.0.0"}))
		},
	})
}

// TestScripts runs the command line against a daemon of values. A script has a
// file state.json, the status, and may have events.json, answers.json,
// guests.json, files.json and refusal.json; `calls` prints what the daemon was asked.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			b, err := backend(env.WorkDir)
			if err != nil {
				return err
			}
			env.Values["backend"] = b
			if err := errands(env.WorkDir, b); err != nil {
				return err
			}
			env.Setenv("TASUKI_SOCKET", filepath.Join(env.WorkDir, "api.sock"))
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", cmp.Or(os.Getenv("GORACE"), "atexit_sleep_ms=0")) // else each command ends a second late
			return serve(env, b)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"calls": func(ts *testscript.TestScript, _ bool, _ []string) {
				for _, c := range ts.Value("backend").(*httpapitest.Backend).Calls() {
					fmt.Fprintln(ts.Stdout(), c)
				}
			},
			"exits": exits,
		},
	})
}

// exits CODE COMMAND… runs a command that must end with that code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		exit, is := err.(interface{ ExitCode() int })
		if !is {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, not %s", code, args[0])
	}
}

func backend(dir string) (*httpapitest.Backend, error) {
	b := &httpapitest.Backend{
		Versions: []api.ConfigText{
			{ConfigVersion: api.ConfigVersion{Version: 1, Author: "root", Note: "tasuki init", Time: time.Unix(0, 0)}, Text: "cluster: one\n"},
			{ConfigVersion: api.ConfigVersion{Version: 2, Author: "root", Note: "b.yaml", Time: time.Unix(3600, 0)}, Text: "cluster: two\n"},
		},
		Changes: []string{"groups.g.failback: manual -> auto (group g goes on)"},
		Result:  api.PlanResult{ID: "p1", Group: "g", Ended: true, OK: true, Text: "it runs on n2"},
	}
	var events []api.Event
	for name, into := range map[string]any{"state.json": &b.State, "events.json": &events, "answers.json": &b.Answers, "refusal.json": &b.Refusal, "result.json": &b.Result, "guests.json": &b.GuestList, "users.json": &b.UserList, "accesses.json": &b.AccessList, "files.json": &b.FileList} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if err := json.Unmarshal(data, into); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, e := range events {
		b.Happen(e)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "inforce.yaml")); err == nil {
		if b.Snap, err = whatif.Fresh(string(text), time.Unix(1_000_000, 0)); err != nil {
			return nil, err
		}
	}
	b.Begins = func() {
		b.Happen(api.Event{ID: "n1/99", Node: "n1", Module: "rc", Level: cluster.LevelInfo, Text: "Moving group g has started.", Fields: map[string]string{"group": "g"}})
	}
	return b, nil
}

// errands makes of each NAME.asked what a daemon hands on with that question.
func errands(dir string, b *httpapitest.Backend) error {
	asked, err := filepath.Glob(filepath.Join(dir, "*.asked"))
	if err != nil {
		return err
	}
	for _, file := range asked {
		e := whatif.Errand{Snapshot: b.Snap}
		if e.Log, err = b.Events(context.Background(), api.EventFilter{}); err != nil {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &e.Asked); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := os.WriteFile(strings.TrimSuffix(file, ".asked")+".json", data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func serve(env *testscript.Env, b *httpapitest.Backend) error {
	stop, err := listen(filepath.Join(env.WorkDir, "api.sock"), b)
	if err == nil {
		env.Defer(stop)
	}
	return err
}

// listen serves the API at a socket as to root, until stop is called.
func listen(path string, b httpapi.Backend) (stop func(), err error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	h := httpapi.New(b, "test")
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(httpapi.WithCaller(r.Context(), httpapi.Caller{Kind: httpapi.Local, Name: "root"})))
	})}
	go s.Serve(l)
	return func() { s.Close() }, nil
}

package fence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/script"
)

const (
	// maxMetadata bounds what is kept of an agent's standard output, in bytes.
	maxMetadata = 256 << 10
	// agentGrace is how long an agent whose time is over may take to end.
	agentGrace = 300 * time.Millisecond
)

// agentEnv is the whole environment of an agent.
var agentEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}

// Exit codes of the action status.
const (
	exitOn  = 0
	exitOff = 2
)

// agent is one device that a program of fence-agents works.
type agent struct {
	path    string
	options map[string]string
	known   *agents
}

// Off implements Device. It returns when the agent says that it is done.
func (a *agent) Off(ctx context.Context, plug string) error {
	m, err := a.known.metadata(ctx, a)
	if err != nil {
		return err
	}
	return a.done(a.run(ctx, m, "off", plug))
}

// Status implements Device.
func (a *agent) Status(ctx context.Context, plug string) (Power, error) {
	m, err := a.known.metadata(ctx, a)
	if err != nil {
		return PowerUnknown, err
	}
	if !m.status {
		return PowerUnknown, ErrNoStatus
	}
	r, err := a.run(ctx, m, "status", plug)
	switch {
	case err == nil && r.ExitCode == exitOn:
		return PowerOn, nil
	case err == nil && r.ExitCode == exitOff && !failedToRun(r):
		return PowerOff, nil
	}
	return PowerUnknown, a.done(r, err)
}

// failedToRun tells an agent that says off from an interpreter that ends with the
// same exit code because it could not run the agent: agents that have a complaint
// also print the status.
func failedToRun(r script.Result) bool {
	return r.LastLine() != "" && len(bytes.TrimSpace(r.Stdout)) == 0
}

// Check implements Device: the options are those that the agent knows, and its
// action monitor succeeds, if it has one.
func (a *agent) Check(ctx context.Context) error {
	m, err := a.known.metadata(ctx, a)
	if err != nil {
		return err
	}
	for _, o := range slices.Sorted(maps.Keys(a.options)) {
		if !m.options[o] {
			return fmt.Errorf("%s has no option %s", filepath.Base(a.path), o)
		}
	}
	if !m.monitor {
		return nil
	}
	return a.done(a.run(ctx, m, "monitor", ""))
}

// run runs the agent once. What it must know goes to its standard input, where
// no other process sees it.
func (a *agent) run(ctx context.Context, m metadata, action, plug string) (script.Result, error) {
	var in bytes.Buffer
	fmt.Fprintf(&in, "action=%s\n", action)
	if action != "metadata" {
		for _, o := range slices.Sorted(maps.Keys(a.options)) {
			fmt.Fprintf(&in, "%s=%s\n", o, a.options[o])
		}
	}
	if m.plug != "" && plug != "" {
		fmt.Fprintf(&in, "%s=%s\n", m.plug, plug)
	}
	if err := a.trusted(); err != nil {
		return script.Result{ExitCode: -1}, err
	}
	return script.Run(ctx, script.Spec{Path: a.path, Env: agentEnv, Input: in.Bytes(), Stdout: maxMetadata, Grace: agentGrace})
}

// trusted says whether nobody but root could have written what will run: the
// agent, and programs that it is told to run.
func (a *agent) trusted() error {
	if err := script.Check(a.path); err != nil {
		return err
	}
	for _, o := range slices.Sorted(maps.Keys(a.options)) {
		if strings.HasSuffix(o, "_script") {
			if err := script.Check(a.options[o]); err != nil {
				return fmt.Errorf("%s: %w", o, err)
			}
		}
	}
	return nil
}

// done is nil if the agent has succeeded, and else says why not and what it
// complained about last.
func (a *agent) done(r script.Result, err error) error {
	if err == nil {
		err = r.Err()
	}
	if err == nil {
		return nil
	}
	line := a.complaint(r)
	if line == "" {
		return fmt.Errorf("%s: %w", filepath.Base(a.path), trimPath(err, a.path))
	}
	return fmt.Errorf("%s: %w (%s)", filepath.Base(a.path), trimPath(err, a.path), line)
}

// maxComplaint bounds what is told of an agent's last line, in bytes.
const maxComplaint = 300

// complaint is the last line that the agent complained with, without secrets.
func (a *agent) complaint(r script.Result) string {
	line := r.LastLine()
	for o, value := range a.options {
		if config.Secret(o) && value != "" {
			line = strings.ReplaceAll(line, value, "***")
		}
	}
	if len(line) > maxComplaint {
		return "a line too long to show"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, line)
}

// trimPath takes the path of the agent, which the caller names, out of an error
// of script.Run.
func trimPath(err error, path string) error {
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), path+": ") {
		return inner
	}
	return err
}

// agents remembers the meta-data of agents, so that it need not be asked for
// when a node must be forced off at once.
type agents struct {
	mu    sync.Mutex
	cache map[string]knownAgent // by path
}

type knownAgent struct {
	changed time.Time // of the file
	size    int64
	metadata
}

func (k *agents) metadata(ctx context.Context, a *agent) (metadata, error) {
	info, err := os.Stat(a.path)
	if errors.Is(err, os.ErrNotExist) {
		return metadata{}, fmt.Errorf("the fence agent %s is not installed on this node", a.path)
	}
	if err != nil {
		return metadata{}, fmt.Errorf("look at the fence agent: %w", err)
	}
	k.mu.Lock()
	got, ok := k.cache[a.path]
	k.mu.Unlock()
	if ok && got.changed.Equal(info.ModTime()) && got.size == info.Size() {
		return got.metadata, nil
	}
	r, err := a.run(ctx, metadata{}, "metadata", "")
	if err := a.done(r, err); err != nil {
		return metadata{}, fmt.Errorf("ask for the meta-data: %w", err)
	}
	m, err := decodeMetadata(r.Stdout)
	if err != nil {
		return metadata{}, fmt.Errorf("%s: %w", filepath.Base(a.path), err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cache[a.path] = knownAgent{changed: info.ModTime(), size: info.Size(), metadata: m}
	return m, nil
}

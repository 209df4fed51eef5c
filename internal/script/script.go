// Package script runs the administrator's programs: exactly the environment that
// it is given, a session of its own (and a control group where the system has
// version 2), no input but what it is given, output to a log file that does not
// grow without end, and a time limit at which everything that the program started
// is ended.
//
// A program that ends by itself may leave a daemon behind; that lives on, keeps
// its log file, and delays nothing.
package script

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/host/priority"
)

// Defaults and bounds.
const (
	// DefaultGrace is how long a program may take to end after SIGTERM.
	DefaultGrace = 2 * time.Second
	// TailSize is the most of the output that a Result holds, in bytes.
	TailSize = 4096
	// killLimit is how long ending waits after SIGKILL. What lives on then is
	// held by the kernel, for example by a disk that does not answer.
	killLimit = time.Second
	// busyTries at busyPause: how long a file that is just being written is
	// tried again.
	busyTries = 10
	busyPause = 5 * time.Millisecond
)

// Spec says what to run.
type Spec struct {
	Path    string        // absolute
	Args    []string      // without the name of the program
	Env     []string      // all of it; nothing is inherited
	Dir     string        // default "/", so that no mount is kept busy
	Timeout time.Duration // 0: as long as the context allows
	Grace   time.Duration // between SIGTERM and SIGKILL; 0: DefaultGrace
	Log     Log
	Input   []byte // what it reads; nil: nothing. No other process sees it in passing, as it would arguments
	Stdout  int    // not 0: standard output goes to Result.Stdout alone, of which the last so many bytes are kept

	noCgroup bool // tests: as if the system had no control groups
}

// Log is where output goes, standard output and errors alike. Without a path the
// output goes nowhere but into Result.Tail, and a daemon left behind loses it
// when this process ends.
type Log struct {
	Path    string
	MaxSize int64 // bytes; 0: DefaultLogSize. One old file, PATH.1, is kept
}

// DefaultLogSize is the size at which a log file is rotated, in bytes.
const DefaultLogSize = 1 << 20

// Result is how a program ended.
type Result struct {
	ExitCode int            // -1 if a signal ended it or it is not known
	Signal   syscall.Signal // that ended it, or 0
	TimedOut bool           // it was ended because its time was over
	Took     time.Duration
	Tail     []byte // the end of its output, at most TailSize bytes
	Stdout   []byte // the end of its standard output, if Spec.Stdout asks for it
	Cgroup   string // the control group that it and all that it left behind ran in; "" is none
	LogError error  // the log file could not be used; the program ran all the same
}

// Err is nil if the program succeeded, and else says how it ended.
func (r Result) Err() error {
	switch {
	case r.TimedOut:
		return fmt.Errorf("%w after %v", ErrTimedOut, r.Took.Round(time.Millisecond))
	case r.Signal != 0:
		return fmt.Errorf("ended by signal %d (%v)", r.Signal, r.Signal)
	case r.ExitCode < 0:
		return errors.New("ended; its exit code is not known")
	case r.ExitCode > 0:
		return fmt.Errorf("ended with exit code %d", r.ExitCode)
	}
	return nil
}

// LastLine is the last line of the output that is not empty, for messages.
func (r Result) LastLine() string {
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(r.Tail), "?")), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// Errors of Run, Start and Stop. A program that is missing is fs.ErrNotExist,
// one without the permission to be executed is fs.ErrPermission.
var (
	ErrTimedOut    = errors.New("did not end in its time and was stopped")
	ErrFormat      = errors.New("is not a program: the first line of a script must name its interpreter, like #!/bin/sh")
	ErrInterpreter = errors.New("names an interpreter that does not exist")
	ErrStillRuns   = errors.New("still runs after SIGKILL: the kernel holds it, perhaps waiting for a disk")
)

// Run runs the program to its end. An exit code other than 0 is no error of Run;
// see Result.Err. If ctx ends or the time is over first, everything that the
// program started is ended, which takes the grace and killLimit at most.
// The error is then ErrTimedOut or that of ctx.
func Run(ctx context.Context, s Spec) (Result, error) {
	if s.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Timeout)
		defer cancel()
	}
	p, err := Start(ctx, s)
	if err != nil {
		return Result{ExitCode: -1}, err
	}
	select {
	case <-p.Done():
		return p.Result(), nil
	case <-ctx.Done():
	}
	timedOut := errors.Is(ctx.Err(), context.DeadlineExceeded)
	err = p.end(p.grace, nil)
	r := p.Result()
	r.TimedOut = timedOut
	switch {
	case err != nil:
		return r, fmt.Errorf("%s: %w", s.Path, err)
	case timedOut:
		return r, fmt.Errorf("%s: %w", s.Path, r.Err())
	}
	return r, fmt.Errorf("%s was stopped: %w", s.Path, ctx.Err())
}

// Start starts the program and returns. ctx bounds the start alone; the program
// then runs until it ends or Stop ends it. Spec.Timeout does not count.
func Start(ctx context.Context, s Spec) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s was not started: %w", s.Path, err)
	}
	if !filepath.IsAbs(s.Path) {
		return nil, fmt.Errorf("%s: the path of a program must be absolute", s.Path)
	}
	in, err := openInput(s.Input)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Path, err)
	}
	defer func() { _ = in.Close() }()
	out, err := openOutput(s.Log, TailSize)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Path, err)
	}
	stdout := out
	if s.Stdout > 0 {
		if stdout, err = openOutput(Log{}, s.Stdout); err != nil {
			out.started()
			out.finish()
			return nil, fmt.Errorf("start %s: %w", s.Path, err)
		}
	}
	p := &Process{
		done: make(chan struct{}), began: time.Now(), out: out, stdout: stdout, grace: s.Grace, log: s.Log,
	}
	if p.grace <= 0 {
		p.grace = DefaultGrace
	}
	err = p.launch(ctx, s, in)
	out.started()
	if stdout != out {
		stdout.started()
	}
	if err != nil {
		p.finish()
		return nil, explain(s.Path, err)
	}
	go p.wait()
	return p, nil
}

// launch forks and executes, in a control group if there are any.
func (p *Process) launch(ctx context.Context, s Spec, in *os.File) error {
	attr := &os.ProcAttr{
		Dir: s.Dir, Env: s.Env, Files: []*os.File{in, p.stdout.child, p.out.child},
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if attr.Dir == "" {
		attr.Dir = "/"
	}
	if attr.Env == nil {
		attr.Env = []string{}
	}
	argv := append([]string{s.Path}, s.Args...)
	var err error
	if dir := newCgroup(s.noCgroup); dir != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
		p.proc, err = startProcess(ctx, s.Path, argv, attr)
		_ = dir.Close()
		if err == nil {
			p.group.cgroup = dir.Name()
		} else {
			dropCgroup(dir.Name())
			attr.Sys.UseCgroupFD = false
		}
	}
	// Also after a failure with the control group: that may be the reason.
	if p.proc == nil {
		if p.proc, err = startProcess(ctx, s.Path, argv, attr); err != nil {
			return err
		}
	}
	p.group.pid = p.proc.Pid
	resetOOM(p.proc.Pid)
	return nil
}

// startProcess tries a file again that somebody is still writing.
func startProcess(ctx context.Context, path string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	for try := 1; ; try++ {
		var p *os.Process
		err := priority.Ordinary(func() (err error) {
			p, err = os.StartProcess(path, argv, attr)
			return err
		})
		if !errors.Is(err, unix.ETXTBSY) || try == busyTries {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(busyPause):
		}
	}
}

// explain turns what exec says into what the administrator can do.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%s %w", path, ErrFormat)
	case errors.Is(err, fs.ErrNotExist):
		if interpreter := interpreterOf(path); interpreter != "" {
			return fmt.Errorf("%s %w: %q", path, ErrInterpreter, interpreter)
		}
		return fmt.Errorf("%s does not exist: %w", path, fs.ErrNotExist)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is not executable (try chmod +x): %w", path, fs.ErrPermission)
	}
	return fmt.Errorf("start %s: %w", path, err)
}

// interpreterOf is what the first line of an existing script names.
func interpreterOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 256) // the kernel reads no more (BINPRM_BUF_SIZE)
	n, _ := f.Read(head)
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	name, ok := strings.CutPrefix(line, "#!")
	if !ok {
		return "its program loader"
	}
	name, _, _ = strings.Cut(strings.TrimLeft(name, " \t"), " ")
	return name
}

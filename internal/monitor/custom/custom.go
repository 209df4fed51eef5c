// Package custom watches by an administrator's script. In mode sync the script
// runs again and again, and its exit code says whether things are good. In mode
// async it runs all the time, and its end is bad.
package custom

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/monitor"
	"github.com/tasuki-ha/tasuki/internal/paths"
)

// The codes of what is wrong.
const (
	CodeExit      = 40 // the exit code is not one of the normal ones
	CodeTimeout   = 41 // it did not end in time
	CodeSignal    = 42 // a signal ended it
	CodeCannotRun = 43
	CodeEnded     = 44 // async: it ended
)

// Where the file does not say.
const (
	defaultInterval = time.Minute
	defaultTimeout  = 2 * time.Minute
)

// settle is how long an asynchronous script must be alive to be good.
const settle = time.Second

// Run is one run of a script.
type Run struct {
	Env     monitor.Env
	Monitor config.Monitor
	Path    string // absolute
	// Output goes to LogFile, which is rotated at LogSize bytes; absolute.
	LogFile string
	LogSize int64
}

// Result is how a script ended.
type Result struct {
	Exit   int    // exit code; of no meaning where Signal is set
	Signal string // the signal that ended it, as the system names it; "" is none
	// LastLine is the last line of its output, for the administrator.
	LastLine string
}

// Runner runs scripts.
type Runner interface {
	// Run returns when the script and what it left in its process group have
	// ended. When ctx ends first it ends them and returns soon, with ctx's
	// error. Any other error means that the script could not be run.
	Run(ctx context.Context, r Run) (Result, error)
}

// Driver is the kind custom.
type Driver struct {
	runner Runner
	dirs   paths.Dirs
}

// New returns the kind custom. Scripts and log files that are not absolute are
// found in dirs.
func New(r Runner, dirs paths.Dirs) *Driver { return &Driver{runner: r, dirs: dirs} }

// Watch runs the script until ctx ends, first after the monitor's wait. Runs do
// not overlap; the interval lies between the end of one and the start of the
// next. In mode async a script that ended is started again after the interval.
func (d *Driver) Watch(ctx context.Context, env monitor.Env, m config.Monitor, report func(monitor.Probe)) error {
	if m.Custom == nil || m.Custom.Script == "" {
		return fmt.Errorf("monitor %s names no script", m.Name)
	}
	run := Run{
		Env: env, Monitor: m, Path: d.dirs.MonitorScript(string(m.Name), m.Custom.Script),
		LogFile: d.logFile(m), LogSize: int64(m.Custom.LogSizeMB) << 20,
	}
	look := d.once
	if m.Custom.Mode == config.ExecAsync {
		look = d.alive
	}
	for pause := m.Wait; wait(ctx, pause); pause = or(m.Interval, defaultInterval) {
		look(ctx, run, report)
	}
	return nil
}

// once is one check in mode sync.
func (d *Driver) once(ctx context.Context, run Run, report func(monitor.Probe)) {
	m, begin := run.Monitor, time.Now()
	limit := or(m.Timeout, defaultTimeout)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	res, err := d.runner.Run(limited, run)
	if ctx.Err() != nil {
		return // ended by us: says nothing
	}
	switch {
	case limited.Err() != nil && err != nil:
		tell(report, m, begin, CodeTimeout, "Script %s did not end within %v.", m.Custom.Script, limit)
	case err != nil:
		tell(report, m, begin, CodeCannotRun, "Script %s cannot be run: %v.", m.Custom.Script, err)
	case res.Signal != "":
		tell(report, m, begin, CodeSignal, "Script %s was ended by a signal (%s).", m.Custom.Script, res.Signal)
	case !normal(m.Custom.Normal, res.Exit):
		tell(report, m, begin, CodeExit, "Script %s ended with exit code %d%s.", m.Custom.Script, res.Exit, said(res))
	default:
		tell(report, m, begin, 0, "")
	}
}

// alive is one life of the script in mode async.
func (d *Driver) alive(ctx context.Context, run Run, report func(monitor.Probe)) {
	type end struct {
		res Result
		err error
	}
	m, begin := run.Monitor, time.Now()
	ended := make(chan end, 1)
	go func() {
		res, err := d.runner.Run(ctx, run)
		ended <- end{res, err}
	}()
	settled := time.NewTimer(settle)
	defer settled.Stop()
	var e end
	select {
	case e = <-ended:
	case <-settled.C:
		tell(report, m, begin, 0, "")
		e = <-ended
	}
	switch {
	case ctx.Err() != nil: // ended by us
	case e.err != nil:
		tell(report, m, begin, CodeCannotRun, "Script %s cannot be run: %v.", m.Custom.Script, e.err)
	case e.res.Signal != "":
		tell(report, m, begin, CodeEnded, "Script %s must keep running but was ended by a signal (%s).", m.Custom.Script, e.res.Signal)
	default:
		tell(report, m, begin, CodeEnded, "Script %s must keep running but ended with exit code %d%s.", m.Custom.Script, e.res.Exit, said(e.res))
	}
}

func (d *Driver) logFile(m config.Monitor) string {
	file := m.Custom.LogFile
	if file == "" {
		file = string(m.Name) + ".log"
	}
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(d.dirs.Log, file)
}

// mostSaid bounds what a script says into an event, in characters.
const mostSaid = 200

func said(r Result) string {
	line := []rune(r.LastLine)
	switch {
	case len(line) == 0:
		return ""
	case len(line) > mostSaid:
		line = append(line[:mostSaid], '…')
	}
	return ": " + strings.TrimRight(string(line), ".")
}

func normal(codes []int, exit int) bool {
	if len(codes) == 0 {
		return exit == 0
	}
	return slices.Contains(codes, exit)
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// tell reports; no text is good.
func tell(report func(monitor.Probe), m config.Monitor, begin time.Time, code int, format string, args ...any) {
	now := time.Now()
	report(monitor.Probe{Monitor: m.Name, Good: format == "", Code: code, Text: fmt.Sprintf(format, args...), Took: now.Sub(begin), At: now})
}

// wait returns false if ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}

package custom

import (
	"context"
	"log/slog"

	"github.com/tasuki-ha/tasuki/internal/script"
)

// Scripts is the Runner of production.
type Scripts struct {
	Product script.Product
	Log     *slog.Logger
}

// Run refuses scripts that others than root could have written: see
// script.Check.
func (s Scripts) Run(ctx context.Context, r Run) (Result, error) {
	if err := script.Check(r.Path); err != nil {
		return Result{}, err
	}
	res, err := script.Run(ctx, script.Spec{
		Path: r.Path,
		Env:  s.Product.EnvForMonitor(script.MonitorRun{Cluster: r.Env.Cluster, Node: r.Env.Node, Monitor: r.Monitor.Name}),
		Log:  script.Log{Path: r.LogFile, MaxSize: r.LogSize},
	})
	if res.LogError != nil && s.Log != nil {
		s.Log.Warn("the output of a monitor's script is lost", "monitor", r.Monitor.Name, "error", res.LogError)
	}
	if err != nil {
		return Result{}, err
	}
	out := Result{Exit: res.ExitCode, LastLine: res.LastLine()}
	if res.Signal != 0 {
		out.Signal = res.Signal.String()
	}
	return out, nil
}

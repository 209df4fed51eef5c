package app

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/paths"
	"github.com/tasuki-ha/tasuki/internal/script"
)

// ladderScript runs a script of a monitor's ladder.
func ladderScript(ctx context.Context, p script.Product, dirs paths.Dirs, c cluster.Name, n cluster.NodeName, s engine.ScriptRun) engine.ScriptDone {
	done := engine.ScriptDone{Monitor: s.Monitor, Run: s.Run}
	path := dirs.MonitorScript(string(s.Monitor), s.Path)
	if err := script.Check(path); err != nil {
		done.Exit, done.Why = -1, err.Error()
		return done
	}
	r, err := script.Run(ctx, script.Spec{
		Path: path, Timeout: s.Timeout,
		Log: script.Log{Path: filepath.Join(dirs.Log, string(s.Monitor)+"-"+filepath.Base(path)+".log")},
		Env: p.EnvForMonitor(script.MonitorRun{
			Cluster: c, Node: n, Monitor: s.Monitor, Action: s.Action,
			Recoveries: s.Scripts, Restarts: s.Restarts, Failovers: s.Failover, Cause: s.Cause,
		}),
	})
	if err == nil {
		err = r.Err()
	}
	done.Exit, done.Took = r.ExitCode, r.Took
	if err != nil {
		done.Why = err.Error()
		if line := r.LastLine(); line != "" {
			done.Why = fmt.Sprintf("%s (%s)", done.Why, line)
		}
	}
	return done
}

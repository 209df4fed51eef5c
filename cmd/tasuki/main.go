// Command tasuki is the whole of Tasuki: daemon, command line, lab, and the
// clp names under another argv[0].
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/internal/app"
	"github.com/tasuki-ha/tasuki/internal/cli"
	"github.com/tasuki-ha/tasuki/internal/clp"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/labcli"
	"github.com/tasuki-ha/tasuki/internal/lab/machine"
	"github.com/tasuki-ha/tasuki/internal/mirror/serve"
	"github.com/tasuki-ha/tasuki/internal/paths"
	"github.com/tasuki-ha/tasuki/internal/watchdog"
	"github.com/tasuki-ha/tasuki/internal/witness"
)

// version is set when the binary is built.
var version = "devel"

func main() { os.Exit(run()) }

func run() int {
	if len(os.Args) > 1 && os.Args[1] == watchdog.HelperCommand {
		return watchdog.HelperMain(os.Args[2:])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dirs := paths.At(os.Getenv("TASUKI_ROOT"))
	if clp.Is(os.Args[0]) {
		return clp.Main(ctx, os.Args, os.Stdout, os.Stderr, dirs.Socket())
	}
	if was, err := lab.Hidden(ctx, os.Args[1:]); was {
		return ended(err)
	}
	level := slog.LevelInfo
	if os.Getenv("TASUKI_DEBUG") != "" {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if was, err := serve.Hidden(ctx, os.Args[1:], version, log); was {
		return ended(err)
	}
	return cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, cli.Hooks{
		Version: version,
		Daemon: func(ctx context.Context, d paths.Dirs) error {
			o := app.Options{Dirs: d, Version: version, Log: log}
			if os.Getenv(machine.InLab) != "" {
				o.OnlyInNamespace, o.LabPower = true, machine.PowerSocket
			}
			return app.Run(ctx, o)
		},
		Init: func(d paths.Dirs, file string, n cluster.NodeName) (*config.File, error) {
			return app.Init(d, file, n, log)
		},
		Join: func(ctx context.Context, d paths.Dirs, token string, n cluster.NodeName) (*config.File, error) {
			return app.Join(ctx, d, token, n, log)
		},
		Witness: func(ctx context.Context, d paths.Dirs) error {
			return witness.Run(ctx, witness.Options{Dirs: d, Log: log, Serve: func(ctx context.Context, d paths.Dirs, log *slog.Logger) error {
				return app.Run(ctx, app.Options{Dirs: d, Version: version, Log: log, Witness: true})
			}})
		},
		JoinWitness: func(ctx context.Context, d paths.Dirs, token string, n cluster.NodeName) (*config.File, error) {
			return app.JoinWitness(ctx, d, token, n, log)
		},
		LinkNames: clp.LinkNames,
		Lab:       []*cobra.Command{labcli.Command()},
	})
}

// ended is how a command ends that only other parts of Tasuki start.
func ended(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return cli.ExitFailed
	}
	return cli.ExitOK
}

// Command tasuki is the whole of Tasuki: daemon, command line, lab, and the
// clp names under another argv[0].
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/tasuki-ha/tasuki/internal/app"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/paths"
	"github.com/tasuki-ha/tasuki/internal/watchdog"
)

var version = "devel"

func main() {
	if len(os.Args) > 1 && os.Args[1] == watchdog.HelperCommand {
		os.Exit(watchdog.HelperMain(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	dirs := paths.At(os.Getenv("TASUKI_ROOT"))
	_ = filepath.Join
	var err error
	switch os.Args[1] {
	case "daemon":
		err = app.Run(ctx, app.Options{Dirs: dirs, Version: version, Log: log})
	case "init":
		_, err = app.Init(dirs, os.Args[2], cluster.NodeName(os.Args[3]), log)
	case "join":
		_, err = app.Join(ctx, dirs, os.Args[2], cluster.NodeName(os.Args[3]), log)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

package keep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Options of Run.
type Options struct {
	// Command makes the process anew for each start. Run adds to its files and
	// environment what Dial needs.
	Command func() *exec.Cmd
	Log     *slog.Logger
}

const (
	firstPause = 50 * time.Millisecond
	longPause  = 5 * time.Second
	healthy    = 10 * time.Second // who ran that long is started again at once
	firstFile  = 3                // of exec.Cmd.ExtraFiles
)

// Run keeps a process, and what it has asked to be held, until the process ends
// with status 0 or the context ends, which is told to the process by SIGTERM. A
// process that ends in another way is started again, after a pause that doubles
// from 50 ms to 5 s unless it ran for 10 s. The next one is started when the last
// one is gone with all of its threads, so that none of its writes comes late.
// Processes are started by the calling goroutine, which matters to a death signal.
func Run(ctx context.Context, o Options) error {
	held := &Held{}
	defer held.Close()
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		began := time.Now()
		err := held.once(ctx, o)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if time.Since(began) >= healthy {
			pause = firstPause
		}
		o.Log.Warn("the process of the mirror disk ended and is started again", "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// once runs the process one time.
func (h *Held) once(ctx context.Context, o Options) error {
	ours, theirs, err := pair()
	if err != nil {
		return err
	}
	cmd := o.Command()
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, variable+"="+strconv.Itoa(firstFile+len(cmd.ExtraFiles)))
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	err = cmd.Start()
	_ = theirs.Close() // the process has its own
	if err != nil {
		_ = ours.Close()
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	alive, dead := context.WithCancel(context.WithoutCancel(ctx)) // it is told to end before, and asks until it has
	go func() {
		if err := h.serve(alive, ours); err != nil {
			o.Log.Warn("the channel to the process of the mirror disk broke", "error", err)
		}
	}()
	stop := context.AfterFunc(ctx, func() {
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			o.Log.Warn("the process of the mirror disk was not told to end", "error", err)
		}
	})
	err = cmd.Wait()
	stop()
	dead()
	_ = ours.Close() // ends serve, unless a call of the dead process still waits for the next one
	if err := h.lost(); err != nil {
		o.Log.Warn("a connection that nobody uses was not ended", "error", err)
	}
	return err
}

package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/host/priority"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/discarded"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
	"github.com/tasuki-ha/tasuki/internal/mirror/look"
)

// Hidden runs the commands that only the daemon starts, and says whether it was one
// of them: mirror keep DIR holds what must outlive the serving process and starts
// that, mirror serve DIR is the serving process, mirror look PATH SECONDS looks at
// the files of a copy, mirror save DIR TO keeps a copy that is to be discarded.
func Hidden(ctx context.Context, args []string, version string, log *slog.Logger) (was bool, err error) {
	if len(args) < 3 || args[0] != "mirror" {
		return false, nil
	}
	switch args[1] {
	case "keep":
		return true, keeper(ctx, args[2], log)
	case "serve":
		return true, process(ctx, args[2], version, log)
	case look.Command:
		return true, look.Main(ctx, args[2:], os.Stdout)
	case discarded.Command:
		if len(args) != 4 {
			return true, errors.New("two directories are wanted")
		}
		return true, save(ctx, args[2], args[3], os.Stdout)
	}
	return false, nil
}

// keeper is the process that does nothing but hold and start. A second one for the
// same directory ends at once.
func keeper(ctx context.Context, dir string, log *slog.Logger) error {
	lock := flock.New(filepath.Join(dir, control.FileKeeper))
	ours, err := lock.TryLock()
	if err != nil {
		return fmt.Errorf("keep the mirror disk of %s: %w", dir, err)
	}
	if !ours {
		log.Info("the mirror disk is kept by another process", "directory", dir)
		return nil
	}
	// The kernel means the thread that started a process when it speaks of its parent;
	// and what harden says of memory that is freed is of a thread, and of the processes
	// that it starts: so all threads of the serving process have it.
	runtime.LockOSThread()
	harden(log)
	return keep.Run(ctx, keep.Options{Log: log, Command: func() *exec.Cmd {
		c := exec.Command("/proc/self/exe", "mirror", "serve", dir)
		c.Stderr = os.Stderr
		c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL} // nobody else would start it again
		return c
	}})
}

// Go's runtime counts a goroutine that is in the kernel as at work on one of its
// processors until a thread of its own, which looks every 20 µs at first, sees that
// it waits; whoever finds all of them taken waits for that look. Here a dozen
// goroutines and more wait in the kernel at any time: so there are more processors
// than that, and that thread may sleep for longer, because the looks alone took a
// third of what a write of 4 KiB costs.
const (
	processors = 32
	patience   = time.Millisecond
)

func process(ctx context.Context, dir, version string, log *slog.Logger) error {
	k, err := keep.Dial()
	if err != nil {
		return err
	}
	defer k.Close()
	Prepare(log)
	err = Run(ctx, Options{Dir: dir, Keeper: k, Log: log, Version: version})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Prepare makes this process one that serves a block device.
func Prepare(log *slog.Logger) {
	runtime.GOMAXPROCS(max(processors, runtime.NumCPU()))
	harden(log)
	if err := priority.Patient(patience); err != nil {
		log.Warn("this process costs more than it has to", "error", err)
	}
}

// harden keeps this process out of what it is needed for: memory is freed by
// writing to disks, which may be this one.
func harden(log *slog.Logger) {
	for what, err := range map[string]error{
		"lock the memory":                     unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT),
		"count as one that frees memory":      unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0),
		"be exempt from the memory killer":    os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0),
		"take precedence over other programs": unix.Setpriority(unix.PRIO_PROCESS, 0, -15),
	} {
		if err != nil {
			log.Warn("this process could not "+what, "error", err)
		}
	}
}

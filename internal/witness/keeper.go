package witness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/google/renameio/v2"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/paths"
)

const (
	lookEvery  = 2 * time.Second // for clusters that were joined or left
	backoffMin = time.Second     // between attempts to serve one
	backoffMax = time.Minute
	longEnough = time.Minute // who ran for so long begins with the shortest backoff again
)

// fileFailure is what the latest attempt to serve a cluster came to, in its run
// directory.
const fileFailure = "failure.json"

// Options of Run. All must be set.
type Options struct {
	Dirs paths.Dirs // of the machine
	Log  *slog.Logger
	// Serve runs the witness of one cluster until ctx ends.
	Serve func(ctx context.Context, dirs paths.Dirs, log *slog.Logger) error
}

// Failure says why the witness of a cluster could not be served.
type Failure struct {
	Time  time.Time `json:"time"`
	Error api.Error `json:"error"`
}

// Run serves every cluster that this machine has joined as a witness, also those
// that it joins later, until ctx ends and all have left by plan.
func Run(ctx context.Context, o Options) error {
	unlock, err := lock(o.Dirs)
	if err != nil {
		return err
	}
	defer unlock()
	k := &keeper{Options: o, running: map[cluster.Name]*kept{}}
	defer k.wg.Wait()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	told := ""
	for {
		if err := k.follow(ctx); err != nil && err.Error() != told {
			told = err.Error()
			o.Log.Error("it cannot be seen which clusters were joined; trying on", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// lock makes sure that one process serves the clusters of a machine.
func lock(d paths.Dirs) (unlock func(), err error) {
	dir := filepath.Join(d.Run, "witness")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run directory of the witness: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the witness: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, &api.Error{Code: "running", Message: "tasuki witness run runs on this machine already", Hint: "tasuki witness list shows what it serves"}
	}
	return func() { _ = f.Close() }, nil
}

type keeper struct {
	Options
	running map[cluster.Name]*kept
	wg      sync.WaitGroup
}

// kept is one cluster that is served.
type kept struct {
	stop context.CancelFunc
	done chan struct{}
}

// follow begins to serve the clusters that were joined, and ends those that are
// gone. One that is still ending is served again only afterwards.
func (k *keeper) follow(ctx context.Context) error {
	names, err := Joined(k.Dirs)
	if err != nil {
		return err
	}
	for name, r := range k.running {
		select {
		case <-r.done:
			delete(k.running, name)
		default:
			if !slices.Contains(names, name) {
				r.stop()
			}
		}
	}
	for _, name := range names {
		if k.running[name] != nil || ctx.Err() != nil {
			continue
		}
		one, stop := context.WithCancel(ctx)
		r := &kept{stop: stop, done: make(chan struct{})}
		k.running[name] = r
		k.wg.Go(func() {
			defer close(r.done)
			defer stop()
			k.keep(one, name)
		})
	}
	return nil
}

// keep serves one cluster until ctx ends, again and again if it fails.
func (k *keeper) keep(ctx context.Context, name cluster.Name) {
	dirs, log := k.Dirs.Witness(name), k.Log.With("witness_of", name)
	backoff := backoffMin
	for {
		began := time.Now()
		err := k.Serve(ctx, dirs, log)
		if ctx.Err() != nil {
			if err != nil {
				log.Error("the witness did not end well", "error", err)
			}
			return
		}
		if err == nil {
			err = errors.New("it has ended by itself")
		}
		if time.Since(began) > longEnough {
			backoff = backoffMin
		}
		log.Error("the witness of this cluster does not run; the others go on", "error", err, "again_in", backoff)
		if err := keepFailure(dirs, err); err != nil {
			log.Error("the reason could not be kept", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, backoffMax)
	}
}

func keepFailure(dirs paths.Dirs, why error) error {
	f := Failure{Time: time.Now(), Error: api.Error{Code: "failed", Message: why.Error()}}
	if e := new(api.Error); errors.As(why, &e) {
		f.Error = *e
	}
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("write the reason: %w", err)
	}
	if err := os.MkdirAll(dirs.Run, 0o755); err != nil {
		return fmt.Errorf("make the run directory: %w", err)
	}
	return renameio.WriteFile(filepath.Join(dirs.Run, fileFailure), data, 0o600)
}

// Joined returns the clusters that the machine is a witness of, sorted.
func Joined(d paths.Dirs) ([]cluster.Name, error) {
	list, err := os.ReadDir(filepath.Dir(d.Witness("x").Etc))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for clusters: %w", err)
	}
	var names []cluster.Name
	for _, e := range list {
		name := cluster.Name(e.Name())
		if cluster.CheckName(e.Name()) != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(d.Witness(name).Etc, "identity", "node.pem")); err == nil {
			names = append(names, name)
		}
	}
	return names, nil
}

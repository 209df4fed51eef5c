package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/host"
	"github.com/tasuki-ha/tasuki/internal/plan"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/resource/exec"
	"github.com/tasuki-ha/tasuki/internal/resource/floatingip"
	"github.com/tasuki-ha/tasuki/internal/resource/mirrordisk"
	"github.com/tasuki-ha/tasuki/internal/state"
	"github.com/tasuki-ha/tasuki/internal/store"
	"github.com/tasuki-ha/tasuki/internal/watchdog"
)

// Files in the run directory that tell of an earlier daemon.
const (
	fileRuns  = "runs"  // what this node runs
	fileEnded = "ended" // why the latest daemon could not go on
)

// runs is what a daemon that cannot read the replicated state needs to know to
// end what an earlier one has started.
type runs struct {
	Cluster cluster.Name
	Node    cluster.NodeName
	engine.Runs
}

func readRuns(run string) (r runs, err error) {
	data, err := os.ReadFile(filepath.Join(run, fileRuns))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return runs{}, fmt.Errorf("read what this node runs: %w", err)
	}
	return r, nil
}

func writeRuns(run string, r runs) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = renameio.WriteFile(filepath.Join(run, fileRuns), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep what this node runs: %w", err)
	}
	return nil
}

// abandon ends what this node still runs when its daemon cannot start or go on:
// nobody renews the lease, so others take the groups over. What it cannot end it
// leaves to the watchdog. It does nothing while another daemon is at work, and
// where nobody else can have the groups.
func (d *Daemon) abandon(why error) {
	if errors.Is(why, store.ErrLocked) {
		return
	}
	r, err := readRuns(d.dirs.Run)
	if err == nil && (len(r.Groups) == 0 || !r.Guarded) {
		return
	}
	if err == nil {
		if d.leaseGoesOn() {
			return
		}
		d.log.Error("this daemon cannot go on: what this node runs is stopped", "error", why)
		err = d.endAll(r)
	}
	if err == nil {
		err = writeRuns(d.dirs.Run, runs{})
	}
	if err == nil {
		err = d.dogs().DisarmLeftover()
	}
	if err != nil {
		d.log.Error("what this node runs could not all be ended", "error", err)
		return
	}
	if err := os.WriteFile(filepath.Join(d.dirs.Run, fileEnded), []byte(why.Error()), 0o600); err != nil {
		d.log.Error("why this daemon ended is not kept for the next one", "error", err)
	}
}

// isolateLeftover is what a daemon without its cluster file keeps of a lease for
// isolating: as much as the default.
const isolateLeftover = 300 * time.Millisecond

func (d *Daemon) dogs() watchdog.Opener {
	return watchdog.Opener{Run: d.dirs.Run, Mark: filepath.Join(d.dirs.State, fileMark), OnlyInNamespace: d.opt.OnlyInNamespace, Log: d.log}
}

// leaseGoesOn waits until it is time to isolate what an earlier daemon runs, and
// says whether another one has gone on with it meanwhile.
func (d *Daemon) leaseGoesOn() bool {
	until := func() cluster.Instant {
		l, t, err := openLease(d.dirs.Run)
		if err != nil {
			return 0
		}
		_ = l.f.Close()
		return t
	}
	t := until()
	time.Sleep(t.Add(-isolateLeftover).Sub(engine.Now()))
	return until() > t
}

// endAll isolates all groups, and then stops them.
func (d *Daemon) endAll(r runs) error {
	network, err := host.NewLinux()
	if err != nil {
		return err
	}
	defer network.Close()
	a := d.lastActor(r, network)
	for _, t := range r.Groups {
		a.isolate(t, isolateLeftover)
	}
	ended := make(chan error, len(r.Groups))
	for _, t := range r.Groups {
		go func() { ended <- a.stopGroup(t) }()
	}
	var errs []error
	for range r.Groups {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// lastActor acts for a daemon that has ended, or never began.
func (d *Daemon) lastActor(r runs, network host.Network) *actor {
	a := &actor{cluster: r.Cluster, node: r.Node, log: d.log, ctx: context.Background(), lanes: map[cluster.ResourceName]*lane{}}
	a.drivers = map[config.ResourceKind]resource.Driver{
		config.KindFloatingIP: floatingip.New(floatingip.Options{Network: network, Log: d.log}),
		config.KindExec:       exec.New(exec.Options{Dirs: d.dirs, Product: d.product, Log: d.log}),
		config.KindMirrorDisk: mirrordisk.New(mirrordisk.Options{Node: r.Node, Run: d.dirs.Run, Logs: d.dirs.Log, Log: d.log}),
	}
	return a
}

// stopGroup stops a group to its end, without anybody to report to.
func (a *actor) stopGroup(t engine.Task) error {
	runner := plan.Stop(&t.Group, map[cluster.ResourceName]state.Resource{}, "")
	done := make(chan engine.OpDone, len(t.Group.Resources))
	for {
		for _, op := range runner.Next() {
			go func() { done <- a.step(engine.Operation{Task: t, Op: op}) }()
		}
		if step, failed, why, ended := runner.Outcome(); ended {
			if step == state.StepStopFailed {
				return fmt.Errorf("stop resource %s of group %s: %s", failed, t.Group.Name, why)
			}
			return nil
		}
		d := <-done
		runner.Done(d.Op, d.Why)
	}
}

// lastEnd returns why the daemon before this one could not go on, once; "" if it
// could.
func lastEnd(run string, log *slog.Logger) string {
	path := filepath.Join(run, fileEnded)
	why, err := os.ReadFile(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("the end of the daemon before this one cannot be told of", "error", err)
	}
	return string(why)
}

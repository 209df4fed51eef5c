package app

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/paths"
)

// witnessLeaves bounds a planned stop of a witness. Nothing has to be handed
// over, so it need not wait for a cluster that cannot answer.
const witnessLeaves = 10 * time.Second

func endAfter(life context.Context, d time.Duration, end context.CancelFunc) {
	select {
	case <-time.After(d):
		end()
	case <-life.Done():
	}
}

// onlyVotes refuses, for a daemon that does nothing else, a file in which the
// node is no witness.
func (d *Daemon) onlyVotes(f *config.File) error {
	if !d.opt.Witness {
		return nil
	}
	return isWitness(f, d.node)
}

func isWitness(f *config.File, node cluster.NodeName) error {
	switch n := f.Node(node); {
	case n == nil:
		return notInFile(f, node)
	case !n.Witness:
		return &api.Error{Code: "no-witness", Message: fmt.Sprintf("node %s of cluster %s is no witness", node, f.Cluster),
			Hint: "write witness: true at it in the cluster file, or join with tasuki join"}
	}
	return nil
}

// contained runs the engine. That of a witness shares its process with those of
// other clusters, which a defect in one of them must not end.
func (d *Daemon) contained(run func() error) (err error) {
	if d.opt.Witness {
		defer func() {
			if r := recover(); r != nil {
				d.log.Error("the engine has ended itself", "why", r, "stack", string(debug.Stack()))
				err = fmt.Errorf("the engine has ended itself: %v", r)
			}
		}()
	}
	return run()
}

// actAsWitness refuses what only nodes with groups do, so that nobody waits for
// it.
func (d *Daemon) actAsWitness(eff engine.Effects) {
	for _, f := range eff.Fences {
		go d.post(engine.Event{Fenced: &engine.Fenced{Node: f.Node, Run: f.Run, Why: "a witness forces nobody off"}})
	}
	if eff.Ping != nil {
		go d.post(engine.Event{Pinged: &engine.Pinged{}})
	}
	if eff.Final != nil && eff.Final.Action == cluster.ActionStopDaemon {
		go d.post(engine.Event{Leave: true})
	}
}

// JoinWitness makes this machine the witness of the cluster that a token is for,
// in directories of that cluster below dirs.
func JoinWitness(ctx context.Context, dirs paths.Dirs, token string, node cluster.NodeName, log *slog.Logger) (*config.File, error) {
	j, err := redeemJoin(ctx, token, node)
	if err != nil {
		return nil, err
	}
	if err := isWitness(j.file, node); err != nil {
		return nil, err
	}
	j.reply.CAKey = "" // a witness signs nothing
	return j.file, j.settle(dirs.Witness(j.file.Cluster), log)
}

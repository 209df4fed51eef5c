package witness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/client"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/paths"
)

// answerWithin bounds how long the witness of one cluster is waited for.
const answerWithin = 2 * time.Second

// Seen is one cluster as its witness here sees it.
type Seen struct {
	Cluster cluster.Name `json:"cluster"`
	Status  *api.Status  `json:"status,omitempty"` // nil: its witness does not answer
	Failure *Failure     `json:"failure,omitempty"`
}

// Self returns the witness itself, or nil.
func (s *Seen) Self() *api.Node {
	if s.Status == nil {
		return nil
	}
	i := slices.IndexFunc(s.Status.Nodes, func(n api.Node) bool { return n.Self })
	if i < 0 {
		return nil
	}
	return &s.Status.Nodes[i]
}

// Counts says whether the vote counts: the witness is a voter and there is a
// leader with a majority.
func (s *Seen) Counts() bool {
	self := s.Self()
	return self != nil && self.Voter && s.Status.Quorum
}

// LastContact returns when another node of the cluster was heard last; zero: not
// since the witness has started.
func (s *Seen) LastContact() (last time.Time) {
	if s.Status == nil {
		return
	}
	for _, n := range s.Status.Nodes {
		if !n.Self && n.Heard != nil && n.Heard.After(last) {
			last = *n.Heard
		}
	}
	return last
}

// List returns all clusters that the machine is a witness of, sorted by name.
func List(ctx context.Context, d paths.Dirs) ([]Seen, error) {
	names, err := Joined(d)
	if err != nil {
		return nil, err
	}
	out := make([]Seen, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { out[i] = look(ctx, d.Witness(name), name) })
	}
	wg.Wait()
	return out, nil
}

func look(ctx context.Context, d paths.Dirs, name cluster.Name) Seen {
	s := Seen{Cluster: name}
	within, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	c := client.Unix(d.Socket())
	defer c.Close()
	if st, err := c.Status(within); err == nil {
		s.Status = &st
		return s
	}
	data, err := os.ReadFile(filepath.Join(d.Run, fileFailure))
	if f := new(Failure); err == nil && json.Unmarshal(data, f) == nil {
		s.Failure = f
	}
	return s
}

// leaveWithin bounds how long Leave waits for the witness to end.
const leaveWithin = 30 * time.Second

// Leave ends the witness of a cluster by plan and removes its directories. With
// force, it does not matter whether the cluster can be told.
func Leave(ctx context.Context, d paths.Dirs, name cluster.Name, force bool) error {
	names, err := Joined(d)
	if err != nil {
		return err
	}
	if !slices.Contains(names, name) {
		return &api.Error{Code: "no-such-cluster", Message: fmt.Sprintf("this machine is not the witness of a cluster %q", name), Hint: "tasuki witness list shows of which it is"}
	}
	dirs := d.Witness(name)
	if s := look(ctx, dirs, name); !force && (s.Status == nil || !s.Status.Quorum) {
		return &api.Error{Code: "not-told", Message: fmt.Sprintf("cluster %s cannot be told: its witness does not run, or sees no leader", name),
			Hint: "tasuki witness list shows why; with --force the directories are removed all the same, and the vote counts as lost until the cluster file has the witness no more"}
	}
	// Without its identity the cluster is no longer served.
	if err := os.RemoveAll(filepath.Join(dirs.Etc, "identity")); err != nil {
		return fmt.Errorf("remove the identity: %w", err)
	}
	if err := ended(ctx, dirs); err != nil {
		return err
	}
	for _, dir := range []string{dirs.Etc, dirs.State, dirs.Log, dirs.Run} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove what the witness had: %w", err)
		}
	}
	return nil
}

// ended waits until nobody has the state in these directories open.
func ended(ctx context.Context, d paths.Dirs) error {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for inUse(filepath.Join(d.State, "raft.db")) {
		select {
		case <-again.C:
		case <-ctx.Done():
			return &api.Error{Code: "timed-out", Message: "the witness has not ended in time", Hint: "it has no identity any more: restart tasuki witness run, then remove " + d.State}
		}
	}
	return nil
}

// inUse says whether a process holds the lock on a file.
func inUse(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

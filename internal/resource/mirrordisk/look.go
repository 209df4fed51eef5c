package mirrordisk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/look"
)

// lookMargin is how long before a copy went on alone a change counts too: what was
// written shortly before may have stayed in memory, and reached this copy alone.
const lookMargin = time.Minute

// ErrNoCopy: this node has no copy of the mirror disk.
var ErrNoCopy = errors.New("there is no copy on this node")

// Look says which files of the copy on this node have changed since it went on
// alone, by its own clock. Where they cannot be looked at Text says why. It takes
// 10 s at most, beside what the process of the copy needs to answer.
func (d *Driver) Look(ctx context.Context, r cluster.ResourceName) (api.MirrorFiles, error) {
	m, s, err := d.ofHere(ctx, r)
	if err != nil {
		return api.MirrorFiles{}, err
	}
	out := api.MirrorFiles{Node: d.o.Node, Files: []api.MirrorFile{}}
	path, why := m.lookable(s)
	if why != "" {
		out.Text = why
		return out, nil
	}
	since := s.Since
	if !since.IsZero() {
		since = since.Add(-lookMargin)
	}
	ctx, cancel := context.WithTimeout(ctx, look.Limit)
	defer cancel()
	found := make(chan api.MirrorFiles, 1)
	if err := m.looks.call(ctx, look.Limit, func() error {
		var f api.MirrorFiles
		err := control.Once(ctx, d.o.Tool(look.Args(path, since)...), &f)
		found <- f
		return err
	}); err != nil {
		out.Since, out.Text = since, oneLine(err.Error())
		return out, nil
	}
	out = <-found
	out.Node = d.o.Node
	return out, nil
}

// ofHere returns a mirror disk that has a copy here, and what that says of itself.
func (d *Driver) ofHere(ctx context.Context, r cluster.ResourceName) (*mirror, control.Status, error) {
	d.mu.Lock()
	m := d.mirrors[r]
	d.mu.Unlock()
	if m == nil || m.wanted() == nil {
		return nil, control.Status{}, ErrNoCopy
	}
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	s, err := m.look(ctx)
	if err != nil {
		return nil, s, fmt.Errorf("ask the process of mirror disk %s: %w", r, err)
	}
	return m, s, nil
}

// lookable returns where the files of a copy can be seen, or why they cannot.
func (m *mirror) lookable(s control.Status) (path, why string) {
	if s.Role != roleActive {
		switch {
		case s.Size == 0:
			return "", "there is nothing on it"
		case s.Target:
			return "", "it is being copied to, so its file system does not hold together"
		case writtenTo(s):
			return "", "the other copy writes to it"
		}
		return m.wanted().Data, ""
	}
	was, err := m.whatStarted()
	switch {
	case err != nil:
		return "", oneLine(err.Error())
	case was == nil || was.Mount == "":
		return "", "it is active, and no file system of it is mounted"
	}
	at, err := m.d.sys.mounted(was.Mount)
	switch {
	case err != nil:
		return "", oneLine(err.Error())
	case at == nil || at.number != was.Number:
		return "", "it is active, and no file system of it is mounted"
	}
	return was.Mount, ""
}

// writtenTo says whether what is written on the other copy may reach a standby one. One
// that is not complete is not written to unless it is being copied to, although the
// other copy knocks again and again.
func writtenTo(s control.Status) bool { return s.Target || s.Connected && s.Set.Self }

package mirrordisk

import (
	"context"
	"errors"
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/discarded"
)

// Keep keeps what is on the copy of this node, before it is discarded, until an
// operator deletes it, and says what that is: see package discarded. It may take
// minutes. Of a copy that has nothing of its own nothing is kept.
func (d *Driver) Keep(ctx context.Context, r cluster.ResourceName) (text string, err error) {
	m, s, err := d.ofHere(ctx, r)
	if err != nil {
		return "", err
	}
	switch {
	case s.Role != "standby":
		return "", errors.New("it is active")
	case s.Target:
		return "", errors.New("it is being copied to already, and does not hold together")
	case s.Size == 0:
		return "nothing was on it", nil
	case writtenTo(s):
		return "nothing is on it that the other one lacks", nil
	}
	select {
	case m.saving <- struct{}{}:
	default:
		return "", errors.New("it is just being kept for somebody else who asked")
	}
	defer func() { <-m.saving }()
	to := discarded.Dir(d.o.State, string(r))
	var kept discarded.Saved
	if err := control.Once(ctx, d.o.Tool("mirror", discarded.Command, m.dir, to), &kept); err != nil {
		return "", err
	}
	// What was written to meanwhile holds no state that ever was.
	_, now, err := d.ofHere(ctx, r)
	if err == nil && (now.Role != s.Role || writtenTo(now) || now.Generation != s.Generation) {
		err = errors.New("it was written to meanwhile")
	}
	if err != nil {
		k, gone := discarded.Find(to, kept.ID)
		if gone == nil {
			gone = k.Delete(ctx, nil)
		}
		return "", errors.Join(err, gone)
	}
	d.notice(m.groupName(), r, cluster.LevelInfo, "mirror-copy-kept", "", "The copy of mirror disk %s on %s is kept as %s, before it may be discarded: %s.", r, d.o.Node, kept.ID, kept.What)
	return fmt.Sprintf("%s is kept on %s as %s: tasuki mirror discarded list %s", kept.What, d.o.Node, kept.ID, r), nil
}

package mirrordisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// serveLimit is how long a start waits for a process that is just being started.
const serveLimit = 30 * time.Second

// fileMkfs is there from the construction of a mirror disk until it has the file
// system that the cluster file wants made: only in between one is made.
const fileMkfs = "mkfs"

// Start makes the copy on this node the active one, attaches the block device,
// checks the file system and mounts it.
func (d *Driver) Start(ctx context.Context, t resource.Task) error {
	md := t.Resource.MirrorDisk
	if md == nil {
		return fmt.Errorf("resource %s is no mirror disk", t.Resource.Name)
	}
	if err := d.mayStart(t); err != nil {
		return err
	}
	m := d.mirror(t.Resource.Name)
	s, err := m.await(ctx)
	if err != nil {
		return err
	}
	if s.Frozen && s.Role == roleActive {
		return fmt.Errorf("mirror disk %s is still frozen since it was isolated: it has to be stopped first", m.name)
	}
	if err := errors.Join(m.forget(control.FileFrozen), m.thaw(ctx)); err != nil {
		return err
	}
	// From here on a stop has something to do, also where no answer comes.
	is := started{Group: t.Group.Name, Epoch: t.Epoch, Mount: md.Mount}
	if was, err := m.whatStarted(); err != nil {
		return err
	} else if was != nil {
		is.Device, is.Number = was.Device, was.Number
	}
	if err := m.keepStarted(is); err != nil {
		return err
	}
	if is.Device, err = m.activate(ctx, t); err != nil {
		return err
	}
	m.guard(is)
	if is.Number, err = d.sys.device(is.Device); err != nil {
		return err
	}
	if err := errors.Join(m.keepStarted(is), d.link(m.name, is.Device)); err != nil {
		return err
	}
	if md.FS == config.FSNone {
		return nil
	}
	return d.mount(ctx, m, t, is.Device, is.Number)
}

// mayStart refuses what is known to be of no use before anything is begun.
func (d *Driver) mayStart(t resource.Task) error {
	r, md, is := t.Resource.Name, t.Resource.MirrorDisk, t.Mirror
	switch {
	case is == nil:
		return fmt.Errorf("nothing is agreed on about mirror disk %s yet: the cluster file that names it is not in force everywhere", r)
	case len(is.InSync) > 0 && !is.Has(t.Node):
		return fmt.Errorf("the copy of mirror disk %s on %s is out of date, the complete one is on %s: start the group there, or wait until it is copied; "+
			"if that copy is lost for good, tasuki mirror force %s makes this one count", r, t.Node, is.InSync[0], r)
	}
	on := md.On(t.Node)
	for what, path := range map[string]string{"data": on.Data, "meta": on.Meta} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("the %s device of mirror disk %s on %s is not there: attach it, or correct its name in the cluster file: %w", what, r, t.Node, err)
		}
	}
	return nil
}

// await waits until the process is there and goes by the file in force.
func (m *mirror) await(ctx context.Context) (s control.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, serveLimit)
	defer cancel()
	for {
		m.mu.Lock()
		ready := m.client != nil && m.spec != nil && m.settled == m.spec
		m.mu.Unlock()
		if ready {
			return m.look(ctx)
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("the process of mirror disk %s does not come up%s: %w", m.name, m.lastWords(), ctx.Err())
		case <-time.After(firstPause / 5):
		}
	}
}

// activate makes the copy the active one, and returns the block device.
func (m *mirror) activate(ctx context.Context, t resource.Task) (device string, err error) {
	self, peer, is := t.Node, otherOf(t.Group.Nodes, t.Node), t.Mirror
	r := control.Request{
		Do: control.Activate, Epoch: epochOf(t.Life, t.Epoch), Set: &control.Set{Self: is.Has(self), Peer: is.Has(peer), Rev: is.Rev},
		// Who handed the group over has stopped it, and its copy goes on receiving.
		PeerDown:  slices.Contains(t.Down, peer) && !t.Handed,
		Construct: len(is.InSync) == 0,
		// A copy that was forced begins a generation of its own, or what only the other
		// one has would look like a part of the same history. Once the other one is
		// complete again that is past.
		Force: is.Forced != nil && is.Forced.Node == self && !is.Has(peer),
	}
	if r.Construct && t.Resource.MirrorDisk.Mkfs {
		if err := renameio.WriteFile(m.file(fileMkfs), nil, 0o600); err != nil {
			return "", fmt.Errorf("keep that a file system is to be made: %w", err)
		}
	}
	a, err := m.do(ctx, r)
	if err != nil {
		return "", refusal(m.name, self, peer, err)
	}
	if a.Path == "" {
		return "", fmt.Errorf("the process of mirror disk %s names no block device", m.name)
	}
	return a.Path, nil
}

// refusal puts into words why a copy does not become active, and what to do about
// it.
func refusal(r cluster.ResourceName, self, peer cluster.NodeName, err error) error {
	switch control.CodeOf(err) {
	case control.OutOfDate:
		return fmt.Errorf("the copy of mirror disk %s on %s may not become active: %w; start the group on %s, or tasuki mirror force %s if the copy there is lost for good", r, self, err, peer, r)
	case control.Blank:
		return fmt.Errorf("there is nothing on the meta device of mirror disk %s on %s, although its copy was complete: %w; if the disk was replaced, tasuki mirror invalidate %s --node %s and start the group on %s",
			r, self, err, r, self, peer)
	case control.Failed:
		return fmt.Errorf("the disk of mirror disk %s on %s has failed: %w; start the group on %s and replace it", r, self, err, peer)
	case control.OldEpoch:
		return fmt.Errorf("mirror disk %s is not started: the group has been assigned anew meanwhile: %w", r, err)
	}
	return fmt.Errorf("mirror disk %s does not become active: %w", r, err)
}

// link makes the device found under the name of the resource.
func (d *Driver) link(r cluster.ResourceName, device string) error {
	err := os.MkdirAll(d.o.Links, 0o755)
	if err == nil {
		err = renameio.Symlink(device, filepath.Join(d.o.Links, string(r)))
	}
	if err != nil {
		return fmt.Errorf("link the block device of mirror disk %s: %w", r, err)
	}
	return nil
}

// unlink undoes link, unless the name leads to another device by now.
func (d *Driver) unlink(r cluster.ResourceName, device string) error {
	path := filepath.Join(d.o.Links, string(r))
	if to, err := os.Readlink(path); err != nil || to != device {
		return nil // not ours
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the link to the block device of mirror disk %s: %w", r, err)
	}
	return nil
}

// Check says whether the copy is active, and its file system mounted.
func (d *Driver) Check(ctx context.Context, t resource.Task) (bool, error) {
	m := d.mirror(t.Resource.Name)
	was, err := m.whatStarted()
	if err != nil || was == nil {
		return false, err
	}
	s, err := m.look(ctx)
	switch {
	case err != nil:
		return false, fmt.Errorf("mirror disk %s: %w", m.name, err)
	case s.Role != roleActive || s.Device != was.Device:
		return false, nil
	case s.Frozen || m.isFrozen():
		return false, fmt.Errorf("mirror disk %s was isolated by an earlier daemon", m.name)
	case uint32(s.Epoch) > uint32(t.Epoch):
		return false, fmt.Errorf("mirror disk %s is active in epoch %d, and the group is in %d", m.name, uint32(s.Epoch), t.Epoch)
	case s.Broken != "":
		return false, fmt.Errorf("the copy of mirror disk %s has failed: %s", m.name, s.Broken)
	}
	if was.Mount != "" {
		at, err := d.sys.mounted(was.Mount)
		if err != nil || at == nil || at.number != was.Number {
			return false, err
		}
	}
	m.guard(started{Group: t.Group.Name, Epoch: t.Epoch, Device: was.Device})
	return true, nil
}

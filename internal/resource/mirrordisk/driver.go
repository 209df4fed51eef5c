// Package mirrordisk is the resource kind mirror-disk: the daemon's side of a block
// device of which two nodes keep a copy each. The copies are served by processes of
// their own (see internal/mirror), one for each mirror disk and node, active or
// not. This package starts them, speaks with them, brings what they ask for to the
// cluster and what was agreed on to them; and on the active node it has the block
// device attached, checks and mounts the file system, and takes both away again.
//
// The processes outlive the daemon. One that starts anew finds them by their
// directories, see control.Dir, and takes them over without touching them.
package mirrordisk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// DefaultLinks is where the links to the block devices of active mirror disks are,
// by the names of their resources.
const DefaultLinks = "/dev/tasuki"

// Options is what a Driver needs. The functions and Log may be nil; the functions
// are called from goroutines of the driver and may wait, as long as the daemon
// lives.
type Options struct {
	Node     cluster.NodeName
	Run      string // the directory for running state
	State    string // the directory for what outlives a boot
	Logs     string // the directory of the processes' logs
	Identity string // the directory of the node's identity
	Links    string // "": DefaultLinks
	Lab      bool   // faults of the disks may be asked for
	// Keeper makes the command that serves the mirror disk of a directory until the
	// process there is told to quit: tasuki mirror keep DIR. nil: none is started,
	// for who only ends what is there.
	Keeper func(dir string) *exec.Cmd
	// Tool makes the command of tasuki with such arguments, for what is done once in a
	// process of its own; nil: nothing is.
	Tool   func(args ...string) *exec.Cmd
	Log    *slog.Logger
	Ask    func(resource.MirrorAsk)
	Status func(resource.MirrorStatus)
	Failed func(resource.Failure)
	Notice func(resource.Notice)
}

// Driver is the resource.Driver of mirror disks. Create it with New.
type Driver struct {
	o        Options
	sys      system
	patience time.Duration // with a process that does not answer
	absent   time.Duration // see absentAfter

	mu      sync.Mutex
	mirrors map[cluster.ResourceName]*mirror
}

var (
	_ resource.Driver   = (*Driver)(nil)
	_ resource.Follower = (*Driver)(nil)
	_ resource.Mirrorer = (*Driver)(nil)
)

// New returns a driver that follows nothing yet.
func New(o Options) *Driver {
	if o.Links == "" {
		o.Links = DefaultLinks
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Ask == nil {
		o.Ask = func(resource.MirrorAsk) {}
	}
	if o.Status == nil {
		o.Status = func(resource.MirrorStatus) {}
	}
	if o.Failed == nil {
		o.Failed = func(resource.Failure) {}
	}
	if o.Notice == nil {
		o.Notice = func(resource.Notice) {}
	}
	return &Driver{o: o, sys: linux{}, patience: answerLimit, absent: absentAfter, mirrors: map[cluster.ResourceName]*mirror{}}
}

// mirror returns what is known about a mirror disk, be it for the first time.
func (d *Driver) mirror(r cluster.ResourceName) *mirror {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.mirrors[r]
	if m == nil {
		m = &mirror{
			d: d, name: r, dir: control.Dir(d.o.Run, string(r)), wake: make(chan struct{}, 1), heard: make(chan struct{}, 1),
			ice: make(chan struct{}, 1), kernel: make(slow, 1), looks: make(slow, 1), saving: make(chan struct{}, 1),
		}
		d.mirrors[r] = m
	}
	return m
}

// Follow has every mirror disk of this node served, and ends the processes of
// those that are not in the file any more, once they are not active.
func (d *Driver) Follow(ctx context.Context, f *config.File) {
	named := map[cluster.ResourceName]bool{}
	for i := range f.Groups {
		g := &f.Groups[i]
		if !slices.Contains(g.Nodes, d.o.Node) {
			continue
		}
		for _, r := range g.Mirrors() {
			s, err := d.specOf(f, g, r)
			if err != nil {
				d.o.Log.Error("a mirror disk cannot be served", "resource", r.Name, "error", err)
				continue
			}
			named[r.Name] = true
			d.mirror(r.Name).follow(ctx, g.Name, &s)
		}
	}
	for _, r := range d.known() {
		if !named[r] {
			d.mirror(r).follow(ctx, "", nil)
		}
	}
}

// known returns the mirror disks that this or an earlier daemon has followed.
func (d *Driver) known() (names []cluster.ResourceName) {
	dirs, err := os.ReadDir(filepath.Dir(control.Dir(d.o.Run, "any")))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.o.Log.Error("the mirror disks of an earlier daemon cannot be found", "error", err)
	}
	for _, e := range dirs {
		names = append(names, cluster.ResourceName(e.Name()))
	}
	return names
}

// specOf returns what the process of a mirror disk of the file needs to know.
func (d *Driver) specOf(f *config.File, g *config.Group, r *config.Resource) (control.Spec, error) {
	peer := otherOf(g.Nodes, d.o.Node)
	here, there := f.Node(d.o.Node), f.Node(peer)
	if here == nil || there == nil {
		return control.Spec{}, fmt.Errorf("group %s has not two nodes", g.Name)
	}
	md := r.MirrorDisk
	on := md.On(d.o.Node)
	return control.Spec{
		Resource: string(r.Name), Node: string(d.o.Node), Peer: string(peer), Data: on.Data, Meta: on.Meta, Identity: d.o.Identity,
		Addresses: here.Addresses, PeerAddresses: there.Addresses, Port: md.Port,
		Async: md.Mode == config.MirrorAsync, Queue: md.Queue, PeerTimeout: md.PeerTimeout, IOTimeout: md.IOTimeout, Rate: md.Rate,
		Compress: md.Compression == config.CompressionZstd, InitialCopy: md.InitialCopy, SplitBrain: md.SplitBrain, FrontEnd: md.FrontEnd, Lab: d.o.Lab,
	}, nil
}

// otherOf returns the other node of a group of two, or "".
func otherOf(nodes []cluster.NodeName, n cluster.NodeName) cluster.NodeName {
	i := slices.IndexFunc(nodes, func(x cluster.NodeName) bool { return x != n })
	if i < 0 {
		return ""
	}
	return nodes[i]
}

// Told implements resource.Mirrorer: it is passed on to the process, again
// whenever that starts anew.
func (d *Driver) Told(r cluster.ResourceName, s state.Mirror, life uint32) {
	m := d.mirror(r)
	m.mu.Lock()
	m.told, m.life = &s, life
	m.mu.Unlock()
	m.stir()
}

// Refused implements resource.Mirrorer: what waits for the agreement can never
// complete. The resource has failed, and its stop gives up what waits.
func (d *Driver) Refused(r cluster.ResourceName, why string) {
	d.o.Log.Warn("the cluster does not agree to what a mirror disk asked for", "resource", r, "why", why)
	m := d.mirror(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.asked; a != nil && !(a.Self && a.Peer) { // with both, nothing waits
		m.lost = true
		m.failure = "the cluster does not agree that its copy goes on alone: " + why
		m.signal()
	}
}

// Copy returns what the copy of a mirror disk on this node said of itself last;
// false where nothing is known.
func (d *Driver) Copy(r cluster.ResourceName) (api.MirrorCopy, bool) {
	d.mu.Lock()
	m := d.mirrors[r]
	d.mu.Unlock()
	if m == nil {
		return api.MirrorCopy{}, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.copy, m.copy.State != ""
}

// Leave ends the processes of copies that are not active, for a daemon that leaves
// by plan. The context of Follow has ended. Without it they go on receiving.
func (d *Driver) Leave(ctx context.Context) error {
	d.mu.Lock()
	var all []*mirror
	for _, m := range d.mirrors {
		all = append(all, m)
	}
	d.mu.Unlock()
	var errs []error
	for _, m := range all {
		errs = append(errs, m.leave(ctx))
	}
	return errors.Join(errs...)
}

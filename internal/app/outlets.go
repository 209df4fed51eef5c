package app

import (
	"path/filepath"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/outlet"
)

// dirOutlets is where it is noted how far each outlet is, below the state.
const dirOutlets = "outlets"

// newOutlets makes what brings this node's events to the outside. A witness has
// none: it runs in the process of a machine that is not the cluster's.
func (d *Daemon) newOutlets() {
	d.outlets = outlet.New(outlet.Options{
		Cluster: d.id.Cluster(), Node: d.node, Dir: filepath.Join(d.dirs.State, dirOutlets), Journal: d.journal, Record: d.record, Log: d.log,
	})
	d.tasks = append(d.tasks, d.outlets.Run)
}

// outletStates returns how the outlets of this node do.
func (d *Daemon) outletStates() []api.Outlet {
	if d.outlets == nil {
		return nil
	}
	return d.outlets.States()
}

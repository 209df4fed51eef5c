package app

import (
	"context"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
)

// Snapshot returns all that is needed to ask what the cluster would do, without
// secrets: whoever may read may ask.
func (d *Daemon) Snapshot(ctx context.Context) (s api.Snapshot, err error) {
	var failed error
	if err := d.inspect(ctx, func(m *engine.Machine) { s, failed = m.Snapshot() }); err != nil {
		return s, err
	}
	if failed != nil {
		return api.Snapshot{}, failed
	}
	s.Time = time.Now()
	for i := range s.Status.Nodes {
		s.Status.Nodes[i].Fence = d.fences.States(s.Status.Nodes[i].Name)
	}
	s.Config, err = config.Masked(s.Config)
	return s, err
}

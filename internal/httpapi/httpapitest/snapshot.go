package httpapitest

import (
	"context"

	"github.com/tasuki-ha/tasuki/api"
)

// Snapshot returns Snap.
func (b *Backend) Snapshot(context.Context) (api.Snapshot, error) { return b.Snap, nil }

// Foresee returns Foreseen.
func (b *Backend) Foresee(_ context.Context, q api.SimulateRequest) (api.Simulation, error) {
	b.called("simulate %+v", q)
	return b.Foreseen, nil
}

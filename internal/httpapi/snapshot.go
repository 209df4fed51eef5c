package httpapi

import (
	"context"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Snapshots is what a question about the cluster begins with.
type Snapshots interface {
	Snapshot(ctx context.Context) (api.Snapshot, error)
	// Foresee answers one. It ends with ctx, and takes a minute at most.
	Foresee(ctx context.Context, q api.SimulateRequest) (api.Simulation, error)
}

func (s *server) foreseeing() {
	type none struct{}
	register(s, needs(cluster.RoleRead), "GET", "/v1/snapshot", "snapshot", "What the nodes agree on, to ask elsewhere what they would do", func(ctx context.Context, _ *none) (*body[api.Snapshot], error) {
		return answer(s.b.Snapshot(ctx))
	})
	register(s, needs(cluster.RoleRead), "POST", "/v1/simulate", "simulate", "What the cluster would do if; nothing is done", func(ctx context.Context, i *in[api.SimulateRequest]) (*body[api.Simulation], error) {
		return answer(s.b.Foresee(ctx, i.Body))
	})
}

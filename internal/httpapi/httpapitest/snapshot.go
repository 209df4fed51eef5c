package httpapitest

import (
	"context"

	"github.com/tasuki-ha/tasuki/api"
)

// Snapshot returns Snap.
func (b *Backend) Snapshot(context.Context) (api.Snapshot, error) { return b.Snap, nil }

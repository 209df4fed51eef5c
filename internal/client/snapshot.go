package client

import (
	"context"

	"github.com/tasuki-ha/tasuki/api"
)

// Snapshot returns what is needed to ask what the cluster would do.
func (c *Client) Snapshot(ctx context.Context) (s api.Snapshot, err error) {
	return s, c.Do(ctx, "GET", "/v1/snapshot", nil, &s)
}

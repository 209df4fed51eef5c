package client

import "time"

// SetPatience sets how long a call may take.
func (c *Client) SetPatience(d time.Duration) { c.patience = d }

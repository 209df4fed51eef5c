package api

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Outlet is one way by which the events that a node writes leave the cluster, on
// the node that answers.
type Outlet struct {
	Name      string          `json:"name"`
	Kind      string          `json:"kind"`             // journald, syslog, webhook, command, otlp
	To        string          `json:"to,omitempty"`     // where to
	Works     bool            `json:"works"`            // the latest delivery did, or nothing had to be delivered yet
	Since     time.Time       `json:"since,omitzero"`   // of Works
	Why       string          `json:"why,omitempty"`    // the latest attempt failed
	Waiting   int             `json:"waiting"`          // events of this node that it has not passed yet
	Latest    cluster.EventID `json:"latest,omitempty"` // that was delivered
	Delivered uint64          `json:"delivered"`        // since it was made
	Missed    uint64          `json:"missed,omitempty"` // that could not be delivered, since it was made
	Failures  uint64          `json:"failures"`         // attempts, since the daemon started
}

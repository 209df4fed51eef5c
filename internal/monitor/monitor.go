// Package monitor is the contract between the engine's edge and the kinds of
// monitors. A monitor turns the outside into probes; it never decides.
package monitor

import (
	"context"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Probe is one observation.
type Probe struct {
	Monitor cluster.MonitorName
	Good    bool
	Code    int           // the kind's number for what is wrong, for example 20 of nic-link
	Text    string        // the sentence in the parentheses of the event; empty when good
	Took    time.Duration // how long the check ran
	At      time.Time
}

// Env is what a driver needs beside its own settings.
type Env struct {
	Cluster cluster.Name
	Node    cluster.NodeName
}

// Driver watches one monitor of its kind.
type Driver interface {
	// Watch reports probes until ctx ends. Event-driven kinds report every
	// change and the state at the start; timed kinds report every interval.
	// Debounce and retries are not its business. An error means that it cannot
	// watch at all, and says why in words for the administrator.
	Watch(ctx context.Context, env Env, m config.Monitor, report func(Probe)) error
}

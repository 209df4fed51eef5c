package cluster

import "time"

// Instant is a moment on one node's own clock that also counts suspension
// (CLOCK_BOOTTIME): the time since that clock's start. Instants of different
// nodes cannot be compared.
type Instant time.Duration

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns how much later i is than j.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

package sim

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// pace is how a node's clock runs. The zero pace is that of the world.
type pace struct {
	off    float64       // its rate less 1, at all times
	swing  float64       // its rate wanders by so much to both sides
	period time.Duration // of the wandering, a sine; 0: none
	phase  float64       // where the sine begins, in radians
}

// anyPace returns a clock whose rate is at one end of what is allowed, or
// wanders between both: as a crystal does that warms up and cools down.
func anyPace(rng *rand.Rand, drift float64) pace {
	end := drift / 2 * float64(2*rng.IntN(2)-1)
	if rng.IntN(2) == 0 {
		return pace{off: end}
	}
	return pace{swing: drift / 2, period: 5*time.Second + time.Duration(rng.Int64N(int64(10*time.Minute))), phase: 2 * math.Pi * rng.Float64()}
}

// shows returns what the clock shows at a time of the world: the integral of its
// rate.
func (p pace) shows(at time.Duration) cluster.Instant {
	ahead := p.off * float64(at)
	if p.period > 0 {
		w := 2 * math.Pi / float64(p.period)
		ahead += p.swing / w * (math.Cos(p.phase) - math.Cos(w*float64(at)+p.phase))
	}
	return cluster.Instant(time.Hour + at + time.Duration(ahead))
}

// takes returns how long the world needs from then on until the clock has moved
// on by d.
func (p pace) takes(at, d time.Duration) time.Duration {
	if p == (pace{}) || d <= 0 {
		return d
	}
	end, took := p.shows(at).Add(d), d
	for range 4 { // each round leaves a twentieth of the error
		took += end.Sub(p.shows(at + took))
	}
	return took
}

// clock returns what a node's clock shows.
func (w *World) clock(n *Node) cluster.Instant { return n.pace.shows(w.agenda.Now()) }

// lasts returns how long d of a node's clock is in the world.
func (w *World) lasts(n *Node, d time.Duration) time.Duration { return n.pace.takes(w.agenda.Now(), d) }

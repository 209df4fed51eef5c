package sim

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A clock never runs faster or slower than is allowed over any time, whatever its
// pace, and takes is the inverse of shows.
func TestPaceStaysInBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	wandering := 0
	for range 200 {
		p := anyPace(rng, drift)
		if p.period > 0 {
			wandering++
		}
		for range 50 {
			at, d := time.Duration(rng.Int64N(int64(time.Hour))), time.Duration(1+rng.Int64N(int64(20*time.Second)))
			got := p.shows(at + d).Sub(p.shows(at))
			if off := float64(got-d) / float64(d); d > time.Millisecond && (off > drift/2+1e-5 || off < -drift/2-1e-5) {
				t.Fatalf("%+v: %v of the world are %v at %v", p, d, got, at)
			}
			took := p.takes(at, d)
			if wrong := p.shows(at+took).Sub(p.shows(at)) - d; wrong < -time.Microsecond || wrong > time.Microsecond {
				t.Fatalf("%+v: %v of the clock are said to take %v at %v, which is %v off", p, d, took, at, wrong)
			}
		}
	}
	if wandering < 50 || wandering > 150 {
		t.Errorf("%d of 200 clocks wander", wandering)
	}
}

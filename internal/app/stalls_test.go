package app

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// timekeeper is a stalls with clocks of its own: two nodes, default timing, a step
// due every 100 ms.
type timekeeper struct {
	*stalls
	file     *config.File
	at       cluster.Instant
	mono     time.Duration
	wall     time.Time
	counters counters
}

func newTimekeeper() *timekeeper {
	k := &timekeeper{at: cluster.Instant(time.Hour), mono: time.Hour, wall: time.Date(2026, 1, 2, 3, 59, 0, 0, time.UTC),
		file: &config.File{Nodes: make([]config.Node, 2), Timing: config.ProfileTiming("default")}}
	k.stalls = &stalls{begun: k.wall, read: func() counters { return k.counters }}
	return k
}

// pass lets a step come so long after the one before.
func (k *timekeeper) pass(after, asleep time.Duration) *api.Event {
	k.at, k.mono, k.wall = k.at.Add(after), k.mono+after-asleep, k.wall.Add(after)
	return k.step(pass{at: k.at, mono: k.mono, wake: k.at.Add(100 * time.Millisecond), lease: k.at.Add(900 * time.Millisecond)}, k.wall, k.file)
}

const tms = time.Millisecond

func TestAStallIsToldWithItsCause(t *testing.T) {
	tests := map[string]struct {
		do   func(k *timekeeper) *api.Event
		want string // "" is no line
	}{
		"in time":        {func(k *timekeeper) *api.Event { return k.pass(100*tms, 0) }, ""},
		"early":          {func(k *timekeeper) *api.Event { return k.pass(3*tms, 0) }, ""},
		"a little late":  {func(k *timekeeper) *api.Event { return k.pass(449*tms, 0) }, ""},
		"paused":         {func(k *timekeeper) *api.Event { return k.pass(520*tms, 0) }, "the daemon, or the whole machine, was paused"},
		"suspended":      {func(k *timekeeper) *api.Event { return k.pass(520*tms, 300*tms) }, "the machine was suspended (300 ms)"},
		"a slow disk":    {func(k *timekeeper) *api.Event { k.wrote(400 * tms); return k.pass(520*tms, 0) }, "the disk took 400 ms to write the replicated state"},
		"a slow step":    {func(k *timekeeper) *api.Event { k.carried(300 * tms); return k.pass(520*tms, 0) }, "carrying out a decision took 300 ms"},
		"the hypervisor": {func(k *timekeeper) *api.Event { k.counters.stolen = 400 * tms; return k.pass(520*tms, 0) }, "the hypervisor gave its processors to others (400 ms)"},
		"other programs": {func(k *timekeeper) *api.Event { k.counters.waited = 250 * tms; return k.pass(520*tms, 0) }, "other programs had the processors (250 ms of waiting)"},
		"one node alone": {func(k *timekeeper) *api.Event { k.file.Nodes = k.file.Nodes[:1]; return k.pass(520*tms, 0) }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k := newTimekeeper()
			k.pass(0, 0)
			e := tt.do(k)
			switch {
			case tt.want == "" && e != nil:
				t.Errorf("it was told: %s", e.Text)
			case tt.want != "" && (e == nil || e.Text != "This node stood still for 420 ms: "+tt.want+". Its lease bears less than 700 ms."):
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestStallsAreToldOnceAMinute(t *testing.T) {
	k := newTimekeeper()
	k.pass(0, 0)
	var told []string
	for range 130 { // 65 s
		if e := k.pass(500*tms, 0); e != nil {
			told = append(told, e.Text)
		}
	}
	if len(told) != 2 || !strings.HasSuffix(told[1], "There were 119 more since the last such line.") {
		t.Errorf("told %q", told)
	}
}

func TestTheLastHourIsReported(t *testing.T) {
	k := newTimekeeper()
	k.pass(0, 0)
	k.pass(5100*tms, 0) // 5 s late
	began := k.wall
	for range 10 {
		k.pass(100*tms, 0)
	}
	k.pass(160*tms, 0)
	r := k.report(k.wall, k.file.Timing)
	if r.WorstMS != 5000 || !r.WorstAt.Equal(began) || r.Bears != "" || r.Profile != "default" || r.OldestAckMS != 5200 {
		t.Errorf("%+v", r)
	}
	want := map[int64]uint64{1: 10, 64: 1, 0: 1}
	got := map[int64]uint64{}
	for _, b := range r.Late {
		if b.Count > 0 {
			got[b.UnderMS] = b.Count
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for range 60 { // an hour later
		k.at, k.wall = k.at.Add(time.Minute), k.wall.Add(time.Minute)
		k.last.at, k.last.wake, k.last.lease = k.at, k.at.Add(100*tms), k.at.Add(900*tms)
		k.pass(140*tms, 0)
	}
	r = k.report(k.wall, k.file.Timing)
	if r.WorstMS != 40 || r.Bears != "fast" || r.OldestAckMS != 240 {
		t.Errorf("an hour later: %+v", r)
	}
}

func TestKernelCounters(t *testing.T) {
	if got := column("cpu  1 2 3 4 5 6 7 8 9 10", stealColumn); got != 8 {
		t.Errorf("steal %d", got)
	}
	if got := column("123456 789 12\n", delayColumn); got != 789 {
		t.Errorf("delay %d", got)
	}
	if column("cpu 1", stealColumn) != 0 || column("a b", delayColumn) != 0 {
		t.Error("a column that is not there")
	}
	if c := readCounters(); c.stolen < 0 || c.waited < 0 {
		t.Errorf("%+v", c)
	}
}

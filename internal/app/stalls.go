package app

import (
	"context"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
)

const (
	sampleEvery  = 3 * time.Second // how often the kernel's counters are read
	stallSeldom  = time.Minute     // at most one line of the log in that time
	minutesKept  = 60
	lateBuckets  = 14 // under 1 ms, 2 ms, 4 ms, … 4096 ms, and the rest
	clockTick    = 10 * time.Millisecond
	stealColumn  = 8 // of the first line of /proc/stat; proc(5)
	delayColumn  = 1 // of /proc/PID/task/TID/schedstat, in nanoseconds
	worthALook   = 2 // a cause that explains half of a stall is named
	ackTolerance = time.Millisecond
)

// stalls measures how late the engine comes to what is due, and how old the
// acknowledgements get that its lease stands on. A lease bears a stall of less
// than lease less isolate; one of half of that is worth a line of the log, since
// it is the answer to "why did it fail over".
type stalls struct {
	read func() counters
	// What is told of each step and of each write of the state; nil: nobody listens.
	late, took func(time.Duration)

	mu      sync.Mutex
	begun   time.Time
	minutes [minutesKept]minute // by the minute of the hour
	base    counters            // as read last, at most sampleEvery ago
	last    pass
	saved   time.Duration // the latest write of the state, if it belongs to the pass under way
	told    time.Time     // when the log was told last
	untold  int           // stalls since then
}

// pass is one step of the engine.
type pass struct {
	at    cluster.Instant
	mono  time.Duration // CLOCK_MONOTONIC, which does not count suspension
	wake  cluster.Instant
	lease cluster.Instant // when the lease ends; 0: there is none
	took  time.Duration   // carrying out what it decided
}

// minute is what a minute held.
type minute struct {
	begun   time.Time
	late    [lateBuckets]uint32
	worst   time.Duration
	worstAt time.Time
	oldest  time.Duration // acknowledgement
}

// counters are the kernel's.
type counters struct {
	stolen time.Duration // the processors that the hypervisor gave to others, summed
	waited time.Duration // the threads of this process were ready to run and did not
}

func newStalls(wall time.Time) *stalls {
	return &stalls{read: readCounters, begun: wall, base: readCounters()}
}

// Run reads the kernel's counters now and then, for a stall to be compared with.
func (s *stalls) Run(ctx context.Context) error {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			c := s.read()
			s.mu.Lock()
			s.base = c
			s.mu.Unlock()
		}
	}
}

// wrote notes how long the engine's state took to write.
func (s *stalls) wrote(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = d
	if s.took != nil {
		s.took(d)
	}
}

// step notes a step of the engine, before it is carried out. It returns a line
// for the log if it came too late, else nil.
func (s *stalls) step(p pass, wall time.Time, f *config.File) *api.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, saved := s.last, s.saved
	s.last, s.saved = p, 0
	if was.at == 0 {
		return nil
	}
	m := s.minute(wall)
	late := max(p.at.Sub(was.wake), 0)
	m.late[min(bits.Len64(uint64(late/time.Millisecond)), lateBuckets-1)]++
	if late > m.worst {
		m.worst, m.worstAt = late, wall
	}
	if s.late != nil {
		s.late(late)
	}
	t := f.Timing
	// Who votes alone renews its lease with every step: there is nothing to be old.
	if sent := was.lease.Add(-t.Lease); was.lease > 0 && was.at.Sub(sent) > ackTolerance && was.lease > was.at {
		m.oldest = max(m.oldest, p.at.Sub(sent))
	}
	if len(f.Nodes) < 2 || late < (t.Lease-t.Isolate)/2 {
		return nil
	}
	s.untold++
	if !s.told.IsZero() && wall.Sub(s.told) < stallSeldom {
		return nil
	}
	more := ""
	if s.untold > 1 {
		more = fmt.Sprintf(" There were %d more since the last such line.", s.untold-1)
	}
	s.told, s.untold = wall, 0
	return &api.Event{Level: cluster.LevelWarn, Module: "nm", Code: "stalled",
		Fields: map[string]string{"late_ms": strconv.FormatInt(late.Milliseconds(), 10)},
		Text: fmt.Sprintf("This node stood still for %d ms: %s. Its lease bears less than %d ms.%s",
			late.Milliseconds(), s.cause(was, p, late, saved), (t.Lease - t.Isolate).Milliseconds(), more)}
}

// carried notes how long carrying out the latest step took.
func (s *stalls) carried(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last.took = d
}

// cause names what explains at least half of a stall.
func (s *stalls) cause(was, now pass, late, saved time.Duration) string {
	enough := late / worthALook
	asleep := now.at.Sub(was.at) - (now.mono - was.mono)
	c := s.read()
	stolen, waited := c.stolen-s.base.stolen, c.waited-s.base.waited
	s.base = c
	switch {
	case asleep >= enough:
		return fmt.Sprintf("the machine was suspended (%d ms)", asleep.Milliseconds())
	case saved >= enough:
		return fmt.Sprintf("the disk took %d ms to write the replicated state", saved.Milliseconds())
	case was.took >= enough:
		return fmt.Sprintf("carrying out a decision took %d ms", was.took.Milliseconds())
	case stolen >= enough:
		return fmt.Sprintf("the hypervisor gave its processors to others (%d ms)", stolen.Milliseconds())
	case waited >= enough:
		return fmt.Sprintf("other programs had the processors (%d ms of waiting)", waited.Milliseconds())
	}
	return "the daemon, or the whole machine, was paused"
}

// minute returns the current minute, a new one if need be.
func (s *stalls) minute(wall time.Time) *minute {
	m := &s.minutes[wall.Minute()]
	if begun := wall.Truncate(time.Minute); !m.begun.Equal(begun) {
		*m = minute{begun: begun}
	}
	return m
}

// oldestAck returns how old the acknowledgements got that the lease stood on, in
// this minute and the one before.
func (s *stalls) oldestAck(wall time.Time) (oldest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.minutes {
		if m := &s.minutes[i]; !m.begun.IsZero() && wall.Sub(m.begun) < 2*time.Minute && !m.begun.After(wall) {
			oldest = max(oldest, m.oldest)
		}
	}
	return oldest
}

// report tells of the last hour.
func (s *stalls) report(wall time.Time, now config.Timing) *api.Timekeeping {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &api.Timekeeping{Since: wall.Add(-minutesKept * time.Minute), Profile: now.Profile}
	if s.begun.After(r.Since) {
		r.Since = s.begun
	}
	var worst, oldest time.Duration
	var late [lateBuckets]uint64
	for i := range s.minutes {
		m := &s.minutes[i]
		if m.begun.IsZero() || wall.Sub(m.begun) >= minutesKept*time.Minute || m.begun.After(wall) {
			continue
		}
		for b, n := range m.late {
			late[b] += uint64(n)
		}
		if m.worst > worst {
			worst, r.WorstAt = m.worst, m.worstAt
		}
		oldest = max(oldest, m.oldest)
	}
	for b, n := range late {
		under := int64(1) << b
		if b == lateBuckets-1 {
			under = 0
		}
		r.Late = append(r.Late, api.LateBucket{UnderMS: under, Count: n})
	}
	r.WorstMS, r.OldestAckMS = worst.Milliseconds(), oldest.Milliseconds()
	for _, name := range config.Profiles() {
		if t := config.ProfileTiming(name); worst < (t.Lease-t.Isolate)/2 {
			r.Bears = name
			break
		}
	}
	return r
}

// monotonic returns CLOCK_MONOTONIC.
func monotonic() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// readCounters reads what the kernel offers; what it does not is 0.
func readCounters() counters {
	var c counters
	if text, err := os.ReadFile("/proc/stat"); err == nil {
		line, _, _ := strings.Cut(string(text), "\n")
		c.stolen = time.Duration(column(line, stealColumn)) * clockTick
	}
	threads, err := filepath.Glob("/proc/self/task/*/schedstat")
	if err != nil {
		return c
	}
	for _, path := range threads {
		if text, err := os.ReadFile(path); err == nil {
			c.waited += time.Duration(column(string(text), delayColumn))
		}
	}
	return c
}

// column returns the number in a column of a line, from 0; 0 if there is none.
func column(line string, n int) int64 {
	words := strings.Fields(line)
	if n >= len(words) {
		return 0
	}
	v, err := strconv.ParseInt(words[n], 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// keepTime measures one step of the engine.
func (d *Daemon) keepTime(eff engine.Effects) {
	p := pass{at: engine.Now(), mono: monotonic(), wake: eff.WakeAt, lease: eff.Lease}
	if e := d.stalls.step(p, time.Now(), d.file()); e != nil {
		d.loop.Offer(engine.Event{Log: e})
	}
}

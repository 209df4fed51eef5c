package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Ports is what the loop drives; internal/app implements it. Do must return
// soon: what takes time runs elsewhere and comes back as an event.
type Ports interface {
	// Persist writes durably. An error ends the daemon: a node that cannot
	// write must not act, so what it runs is isolated first.
	Persist(*Persist) error
	// Do carries out everything else, in the order of the fields.
	Do(Effects)
}

// Loop drives one machine in production.
type Loop struct {
	machine *Machine
	ports   Ports
	events  chan posted
	calls   chan func(*Machine)
}

// queueLength bounds what waits for the machine; senders wait beyond it.
const queueLength = 1024

// NewLoop returns a loop that Run starts.
func NewLoop(m *Machine, p Ports) *Loop {
	return &Loop{machine: m, ports: p, events: make(chan posted, queueLength), calls: make(chan func(*Machine))}
}

// posted is an event on its way, and where its effects are told to, if anywhere.
type posted struct {
	Event
	told chan Effects // capacity 1, or nil
}

// Now returns the node's own clock, which also counts suspension.
func Now() cluster.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("engine: the kernel has no CLOCK_BOOTTIME: %v", err))
	}
	return cluster.Instant(ts.Nano())
}

// Post hands an event to the machine. It waits while the queue is full, and
// says false if ctx ended first.
func (l *Loop) Post(ctx context.Context, ev Event) bool {
	select {
	case l.events <- posted{Event: ev}:
		return true
	case <-ctx.Done():
		return false
	}
}

// Offer hands over an event that may be lost, as a heartbeat may: it never
// waits.
func (l *Loop) Offer(ev Event) {
	select {
	case l.events <- posted{Event: ev}:
	default:
	}
}

// Step hands an event over and returns its effects, after they were persisted
// and given to the ports.
func (l *Loop) Step(ctx context.Context, ev Event) (Effects, error) {
	told := make(chan Effects, 1)
	select {
	case l.events <- posted{ev, told}:
	case <-ctx.Done():
		return Effects{}, fmt.Errorf("tell the engine: %w", ctx.Err())
	}
	select {
	case eff := <-told:
		return eff, nil
	case <-ctx.Done():
		return Effects{}, fmt.Errorf("wait for the engine: %w", ctx.Err())
	}
}

// Inspect runs f between two steps; f must not keep what it sees.
func (l *Loop) Inspect(ctx context.Context, f func(*Machine)) error {
	done := make(chan struct{})
	select {
	case l.calls <- func(m *Machine) { f(m); close(done) }:
		<-done
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ask the engine: %w", ctx.Err())
	}
}

// Run steps the machine until it has left by plan, ctx ends, or a write fails.
func (l *Loop) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var ev posted
		select {
		case <-ctx.Done():
			l.ports.Do(l.machine.Harmless()) // another part of the daemon has failed
			return nil
		case ev = <-l.events:
		case f := <-l.calls:
			f(l.machine)
			continue
		case <-timer.C:
		}
		now := Now()
		eff := l.machine.Step(now, time.Now(), ev.Event)
		if eff.Persist != nil {
			late, err := persist(l.ports, l.machine, eff.Persist)
			if err != nil {
				l.ports.Do(l.machine.Harmless())
				return fmt.Errorf("write the replicated state: %w", err)
			}
			if late > 0 {
				l.afterStall(ctx, &eff, late)
			}
		}
		l.ports.Do(eff)
		if ev.told != nil {
			ev.told <- eff
		}
		if eff.Exit {
			return nil
		}
		timer.Reset(max(eff.WakeAt.Sub(now), time.Millisecond))
	}
}

// holder is what a write that takes too long makes harmless.
type holder interface {
	HarmlessWithin(now cluster.Instant) (left time.Duration, guarded bool)
	Harmless() Effects
}

// persist writes. If that takes until what runs here must be isolated, it is
// isolated meanwhile; late is then how long the write took, else 0.
func persist(to Ports, h holder, p *Persist) (late time.Duration, err error) {
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- to.Persist(p) }()
	left, guarded := h.HarmlessWithin(Now())
	if !guarded {
		return 0, <-done
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case err = <-done:
		return 0, err
	case <-timer.C:
	}
	to.Do(h.Harmless())
	err = <-done
	return time.Since(began), err
}

// afterStall takes out of effects what must not be done any more after a write
// during which this node was isolated: the starts fail, and what was to be put
// back stays isolated. The next step sees whether the lease has come back.
func (l *Loop) afterStall(ctx context.Context, eff *Effects, took time.Duration) {
	why := fmt.Sprintf("the node's disk stood still for %s", took.Round(time.Millisecond))
	late := []Event{{Log: &api.Event{Level: cluster.LevelError, Module: "nm", Code: "disk-stalled",
		Text: fmt.Sprintf("A write of the cluster's state took %s on this node's disk. What runs here was isolated meanwhile.", took.Round(time.Millisecond))}}}
	eff.Restore = nil
	eff.Ops = slices.DeleteFunc(eff.Ops, func(op Operation) bool {
		if !op.Op.Start {
			return false
		}
		late = append(late, Event{OpDone: &OpDone{Group: op.Group.Name, Epoch: op.Epoch, Op: op.Op, Why: why}})
		return true
	})
	go func() {
		for _, ev := range late {
			l.Post(ctx, ev)
		}
	}()
}

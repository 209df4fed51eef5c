package outlet

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

const (
	batch      = 32 // events that are read from the journal at a time
	refuseTrys = 3  // how often a receiver must refuse an event to be believed
)

// pump is one outlet at work.
type pump struct {
	x    *Outlets
	c    config.Outlet
	sink sink
	wake chan struct{} // capacity 1: there may be something to deliver
	end  context.CancelFunc
	done chan struct{}

	// What only the goroutine of run uses.
	saved  cursor
	due    time.Time     // when cur must be written, if it is not saved
	told   time.Time     // when a failure was told last
	open   bool          // a failure was told, and not yet that it is over
	failed time.Time     // since when it fails; zero: it works
	pause  time.Duration // before the next attempt, while it fails
	left   int           // events that the receiver refused and that were not told yet
	leftAt time.Time     // when such were told last
	// The receiver did not confirm what it was given when it was asked last.
	unsettled bool

	mu    sync.Mutex
	cur   cursor
	state api.Outlet // all but what cur says
}

// begin starts an outlet.
func (x *Outlets) begin(ctx context.Context, c config.Outlet) *pump {
	ctx, end := context.WithCancel(ctx)
	p := &pump{x: x, c: c, sink: x.make(c), wake: make(chan struct{}, 1), end: end, done: make(chan struct{}),
		state: api.Outlet{Name: c.Name, Kind: string(c.Kind), To: c.String(), Works: true, Since: time.Now()}}
	lost := p.load()
	go p.run(ctx, lost)
	p.poke()
	return p
}

// load reads where the outlet stood. It returns why that is not known where it
// should be.
func (p *pump) load() error {
	now := p.x.o.Journal.Next() - 1
	cur, err := readCursor(p.x.o.Dir, p.c.Name)
	if isNew(err) {
		p.cur, err = cursor{Passed: now}, nil
	} else if err != nil {
		p.cur = cursor{Passed: now}
	} else if p.cur = cur; cur.Passed > now { // the journal was lost, and numbers anew
		p.cur.Passed, p.cur.Holes = now, nil
	}
	p.write() // where it begins must be known however soon the node dies
	return err
}

// stop ends the outlet and waits for that.
func (p *pump) stop() {
	p.end()
	<-p.done
}

// poke says that there may be something to deliver.
func (p *pump) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run delivers until ctx ends.
func (p *pump) run(ctx context.Context, lost error) {
	defer close(p.done)
	defer p.sink.close()
	defer p.save(ctx)
	if lost != nil {
		p.tell(ctx, cluster.LevelWarn, "outlet-gap", fmt.Sprintf("Outlet %s begins anew with the next event, because its cursor is lost: %v.", p.c.Name, lost))
	}
	for ctx.Err() == nil {
		events := p.next(ctx)
		for i := range events {
			if !p.take(ctx, &events[i]) {
				return
			}
		}
		if len(events) > 0 {
			continue
		}
		p.rest(ctx)
	}
}

// rest waits for more to do, and notes what was done when that is due.
func (p *pump) rest(ctx context.Context) {
	var due <-chan time.Time
	if !p.due.IsZero() {
		due = time.After(time.Until(p.due))
	}
	select {
	case <-ctx.Done():
	case <-p.wake:
	case <-due:
		p.save(ctx)
	}
}

// next returns the events to deliver next, the ones that came back late first.
func (p *pump) next(ctx context.Context) []api.Event {
	j, self := p.x.o.Journal, p.x.o.Node
	_, floor := j.Behind(self, 0)
	p.mu.Lock()
	missed := p.cur.skip(floor)
	passed, total := p.cur.Passed, p.cur.Missed
	var late []journal.Range
	for _, h := range p.cur.Holes {
		late = append(late, journal.Range{Origin: self, Span: h})
	}
	p.mu.Unlock()
	if missed > 0 {
		p.tell(ctx, cluster.LevelWarn, "outlet-gap", fmt.Sprintf(
			"Outlet %s could not deliver up to %d events before the log dropped them (%d since it was made).", p.c.Name, missed, total))
	}
	if events := j.Pick(late, batch); len(events) > 0 {
		return events
	}
	return j.Since(self, passed, batch)
}

// take delivers one event, however long that takes; false: ctx has ended first.
func (p *pump) take(ctx context.Context, e *api.Event) bool {
	_, seq, err := journal.ParseID(e.ID)
	if err != nil {
		return true // the journal holds none
	}
	if choosy, is := p.sink.(chooser); !heavy(e.Level, p.c.Level) || is && !choosy.wants(e) {
		p.passed(ctx, seq, nil)
		return true
	}
	d := &Delivery{Cluster: p.x.o.Cluster, Outlet: p.c.Name, From: p.x.o.Node, Number: p.cur.Number + 1, Missed: p.cur.Missed - p.cur.Told, Event: *e}
	for refused := 0; ; {
		err := p.try(ctx, d)
		if ctx.Err() != nil && err != nil {
			return false
		}
		if errors.Is(err, errRefused) {
			refused++
		}
		if err == nil || refused >= refuseTrys {
			p.passed(ctx, seq, &outcome{e, err})
			p.works(ctx, err)
			return true
		}
		p.fails(ctx, err)
		p.saveIfDue(ctx)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(p.pause):
		}
	}
}

// outcome is what came of a delivery.
type outcome struct {
	e   *api.Event
	err error // nil: it was taken
}

// passed notes that an event is done with; o is nil of one that is not for this
// outlet.
func (p *pump) passed(ctx context.Context, seq uint64, o *outcome) {
	p.mu.Lock()
	p.cur.pass(seq)
	switch {
	case o == nil:
	case o.err == nil:
		p.cur.delivered(o.e)
	default:
		p.cur.Missed++
	}
	p.mu.Unlock()
	p.saveIfDue(ctx)
}

func (p *pump) try(ctx context.Context, d *Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, p.c.Timeout)
	defer cancel()
	return p.sink.deliver(ctx, d)
}

// heavy says whether an event has the weight or more.
func heavy(l, least cluster.Level) bool {
	weight := map[cluster.Level]int{cluster.LevelWarn: 1, cluster.LevelError: 2}
	return weight[l] >= weight[least]
}

// fails notes a failed attempt, and tells of it when it has gone on for long.
func (p *pump) fails(ctx context.Context, err error) {
	now := time.Now()
	p.pause = min(max(2*p.pause, p.x.wait.first), p.x.wait.most)
	p.mu.Lock()
	p.state.Failures++
	p.state.Why = err.Error()
	if p.state.Works {
		p.state.Works, p.state.Since = false, now
	}
	p.mu.Unlock()
	if p.failed.IsZero() {
		p.failed = now
		p.x.o.Log.Warn("an outlet cannot deliver", "outlet", p.c.Name, "error", err)
	}
	if p.open || now.Sub(p.failed) < p.x.wait.tell || !p.told.IsZero() && now.Sub(p.told) < p.x.wait.again {
		return
	}
	p.open, p.told = true, now
	p.tell(ctx, cluster.LevelWarn, "outlet-failing", fmt.Sprintf("Outlet %s cannot deliver events: %v. They wait in the log of %s.", p.c.Name, err, p.x.o.Node))
}

// works notes that the receiver answers; refused says that it did not want the
// event.
func (p *pump) works(ctx context.Context, refused error) {
	p.mu.Lock()
	if !p.state.Works {
		p.state.Works, p.state.Since = true, time.Now()
	}
	p.state.Why = ""
	p.mu.Unlock()
	p.failed, p.pause = time.Time{}, 0
	if p.open {
		p.open = false
		p.tell(ctx, cluster.LevelInfo, "outlet-works", fmt.Sprintf("Outlet %s delivers events again.", p.c.Name))
	}
	if refused == nil {
		return
	}
	// It may refuse this line too, so there must not be one for each.
	if p.left++; p.leftAt.IsZero() || time.Since(p.leftAt) >= p.x.wait.again {
		p.tell(ctx, cluster.LevelWarn, "outlet-refused", fmt.Sprintf("The receiver of outlet %s did not take %d events, which were left out. The latest: %v.", p.c.Name, p.left, refused))
		p.left, p.leftAt = 0, time.Now()
	}
}

// tell writes a line of the operator's log. It is delivered like any other, so no
// line is written for each event that is not.
func (p *pump) tell(ctx context.Context, level cluster.Level, code, text string) {
	p.x.o.Record(ctx, api.Event{Level: level, Module: "outlet", Code: code, Fields: map[string]string{"outlet": p.c.Name}, Text: text})
}

// saveIfDue writes the cursor when it was not written for long enough.
func (p *pump) saveIfDue(ctx context.Context) {
	if p.due.IsZero() {
		p.due = time.Now().Add(p.x.wait.save)
	}
	if !time.Now().Before(p.due) {
		p.save(ctx)
	}
}

// save writes the cursor, if the receiver surely has all that it says; else that is
// due later. Where the disk fails, the outlet goes on: after a restart it repeats
// what it did since.
func (p *pump) save(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, p.c.Timeout)
	defer cancel()
	if err := p.sink.settle(within); err != nil {
		if ctx.Err() == nil {
			p.unsettled = true
			p.fails(ctx, err)
			p.due = time.Now().Add(max(p.pause, p.x.wait.save))
		}
		return
	}
	p.due = time.Time{}
	if p.unsettled {
		p.unsettled = false
		p.works(ctx, nil)
	}
	if !reflect.DeepEqual(p.cur, p.saved) {
		p.write()
	}
}

// write makes the cursor durable.
func (p *pump) write() {
	cur := p.cur
	cur.Holes = slices.Clone(cur.Holes)
	if err := cur.write(p.x.o.Dir, p.c.Name); err != nil {
		p.x.o.Log.Error("what an outlet has delivered cannot be noted", "error", err)
		return
	}
	p.saved = cur
}

// look returns how the outlet does.
func (p *pump) look() api.Outlet {
	p.mu.Lock()
	s, cur := p.state, p.cur
	p.mu.Unlock()
	s.Delivered, s.Missed, s.Latest = cur.Number, cur.Missed, cluster.EventID(cur.Latest)
	s.Waiting, _ = p.x.o.Journal.Behind(p.x.o.Node, cur.Passed)
	return s
}

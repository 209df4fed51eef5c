package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	backWithin   = 30 * time.Second // the service, after the last fault is undone
	giveUpAfter  = 60 * time.Second // more; then the run ends
	repairWithin = 30 * time.Second
)

// round is one or two faults and what followed.
type round struct {
	kind    string // of its fault; "two at once"
	faults  []rolled
	what    []string
	not     []string // kinds that cannot be had here
	began   time.Time
	repair  time.Time // from when on nothing is broken any more
	back    time.Duration
	notBack bool
}

func (c *chaos) say(format string, args ...any) {
	fmt.Fprintf(c.t.Output(), "%s "+format+"\n", append([]any{time.Now().Format("15:04:05.000")}, args...)...)
	c.seen.say(format, args...)
}

// say writes a line of the timeline.
func (o *observer) say(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note(time.Now(), "* "+format, args...)
}

// play makes faults for a time. It ends early if the service does not come back.
func (c *chaos) play(t *testing.T, d time.Duration) {
	ctx := t.Context()
	c.say("chaos: layout %s, seed %d, %v", *layout, *seed, d)
	if _, err := c.seen.awaitService(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		if !c.round(ctx, t, c.rolls.round()) {
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, backWithin)
	defer cancel()
	for !c.allUp(ctx) {
		if wait(ctx, 100*time.Millisecond) != nil {
			c.fail("not all nodes are up %v after the last fault", backWithin)
			return
		}
	}
}

// fail remembers what must not be.
func (c *chaos) fail(format string, args ...any) {
	c.failed = append(c.failed, fmt.Sprintf(format, args...))
	c.say("FAILED: "+format, args...)
}

// round makes the faults of one round, undoes them, and waits for the service.
// It says whether to go on.
func (c *chaos) round(ctx context.Context, t *testing.T, p roundPlan) bool {
	r := &round{kind: p.faults[0].kind, faults: p.faults, began: time.Now()}
	if len(p.faults) > 1 {
		r.kind = "two at once"
	}
	c.rounds = append(c.rounds, r)
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, f := range p.faults {
		all.Go(func() {
			what, err := c.happen(ctx, t, f)
			mu.Lock()
			defer mu.Unlock()
			r.what = append(r.what, what)
			if errors.Is(err, errNotHere) {
				r.not = append(r.not, f.kind)
			}
		})
	}
	all.Wait()
	if err := c.repairAll(ctx); err != nil {
		c.fail("the lab cannot be repaired: %v", err)
		return false
	}
	r.repair = time.Now()
	c.release(ctx)
	back, err := c.await(ctx, r.repair, backWithin)
	if err != nil {
		r.notBack = true
		c.fail("the service is not back %v after: %s", backWithin, strings.Join(r.what, "; "))
		c.save(t, fmt.Sprintf("round-%d", len(c.rounds)))
		if back, err = c.await(ctx, r.repair, giveUpAfter); err != nil {
			c.say("it is not back after %v more either: this is the end", giveUpAfter)
			return false
		}
	}
	r.back = back.Sub(r.repair)
	c.say("  by %s %.1f s after the end of it, out for %.2f s in all", c.members[c.seen.owner()], r.back.Seconds(), c.seen.out(r.began).Seconds())
	return wait(ctx, p.calm) == nil
}

// release does what an administrator does who has repaired something: failures
// are counted as if they were rare, and faults are not rare here.
func (c *chaos) release(ctx context.Context) {
	for _, m := range c.members[:c.owners] {
		if _, err := c.Do(ctx, m, "tasuki", "group", "clear", "g"); err == nil {
			break
		}
	}
	for _, m := range c.members[:c.owners] {
		_, _ = c.Do(ctx, m, "tasuki", "node", "release", m) // refused where it is not in quarantine
	}
}

func (c *chaos) await(ctx context.Context, since time.Time, most time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return c.seen.awaitService(ctx, since)
}

// happen makes one fault and undoes it. It returns what it was, and why it did
// not begin.
func (c *chaos) happen(ctx context.Context, t *testing.T, r rolled) (what string, failed error) {
	if wait(ctx, r.after) != nil {
		return "", ctx.Err()
	}
	f := c.fault(r)
	c.say("%d. %s", len(c.rounds), f.what)
	if failed = f.begin(ctx); failed != nil {
		c.say("  %s: not so: %v", f.kind, failed)
		f.what += " (failed)"
	}
	if f.end == nil || wait(ctx, f.length) != nil {
		return f.what, failed
	}
	if err := f.end(ctx); err != nil {
		c.say("  undo %s: %v", f.kind, err)
	}
	return f.what, failed
}

// repairAll repairs until it succeeds: a machine may just be booting.
func (c *chaos) repairAll(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, repairWithin)
	defer cancel()
	for {
		if err = c.repair(ctx); err == nil {
			return nil
		}
		if late := wait(ctx, 200*time.Millisecond); late != nil {
			return errors.Join(late, err)
		}
	}
}

// Package userspace watches the daemon itself: it feeds a watchdog only while
// the daemon's main loop makes progress. When the loop stands still, or the
// whole program does, nobody feeds and the node is reset.
//
// Of the monitor's timeout, a quarter is how old the latest progress may be for
// a feed, and three quarters are the watchdog's own timeout. So a standstill
// that is shorter than three quarters of the timeout never resets the node, and
// one that is longer than the timeout always does.
package userspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/monitor"
	"github.com/tasuki-ha/tasuki/internal/watchdog"
)

// The codes of what is wrong.
const (
	CodeNotArmed   = 30 // the watchdog cannot be had, or stopped taking feeds
	CodeStandstill = 31 // the main loop makes no progress
)

// ErrKeepArmed as the cause of a context's end makes Watch leave the watchdog
// armed: for a daemon that must end in a reset because something could not be
// stopped in its bound.
var ErrKeepArmed = errors.New("the watchdog stays armed")

// retryArm is how often arming is tried again where the monitor has no interval.
const retryArm = 10 * time.Second

// Options is what the driver works with.
type Options struct {
	// Open opens a watchdog; watchdog.Opener.Open.
	Open func(method, device string, timeout time.Duration) (watchdog.Dog, error)
	// Progress returns when the main loop last passed, with the monotonic
	// reading of time.Now. It is called from another goroutine. The zero time
	// means that the loop has not begun: nothing is armed before.
	Progress func() time.Time
	// Passed, if not nil, receives something after passes of the main loop, so
	// that feeding costs no waking of its own. Capacity 1; may miss some.
	Passed <-chan struct{}
	// Guard, if not nil, returns how long from now on something here may do harm:
	// a dog that can is fed for so long only, and none after it. guarded is false
	// where there is nothing such.
	Guard func() (left time.Duration, guarded bool)
	Log   *slog.Logger
}

// Driver is the kind userspace.
type Driver struct{ o Options }

// New returns the kind userspace.
func New(o Options) *Driver { return &Driver{o: o} }

// Watch feeds until ctx ends, and then disarms. It reports good when the
// watchdog is armed, and bad while it cannot be armed or fed or the main loop
// stands still.
func (d *Driver) Watch(ctx context.Context, _ monitor.Env, m config.Monitor, report func(monitor.Probe)) error {
	if m.UserSp == nil {
		return fmt.Errorf("monitor %s has no method", m.Name)
	}
	w := &watch{o: d.o, m: m, fresh: m.UserSp.Timeout / 4, report: report}
	defer w.release(ctx)
	soon := max(w.fresh/2, 10*time.Millisecond)
	late := soon
	if d.o.Passed != nil {
		late = max(w.fresh, 10*time.Millisecond)
	}
	timer := time.NewTimer(late)
	defer timer.Stop()
	for {
		w.pass()
		fed := time.Now()
		timer.Reset(late)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return nil
			case <-d.o.Passed:
				waiting = time.Since(fed) < soon && !w.guarded()
			case <-timer.C:
				waiting = false
			}
		}
	}
}

// guarded says whether every pass of the main loop may have moved the end to
// which the dog counts.
func (w *watch) guarded() bool {
	if w.o.Guard == nil {
		return false
	}
	_, guarded := w.o.Guard()
	return guarded
}

// watch is one run of Watch.
type watch struct {
	o       Options
	m       config.Monitor
	fresh   time.Duration
	report  func(monitor.Probe)
	dog     watchdog.Dog // nil until opened
	armed   bool
	retryAt time.Time
	last    monitor.Probe // as reported
	told    bool
}

// pass feeds once, if there is a reason to.
func (w *watch) pass() {
	progress := w.o.Progress()
	if progress.IsZero() {
		return
	}
	if age := time.Since(progress); age > w.fresh {
		if age > w.m.UserSp.Timeout/2 { // before that it may just be idle, or have waited for its turn
			w.tell(CodeStandstill, "The main loop of the daemon makes no progress.", "age", age)
		}
		return
	}
	var err error
	switch {
	case w.armed:
		left, ok := w.left()
		if !ok {
			return
		}
		err = w.dog.Feed(left)
	case time.Now().Before(w.retryAt):
		return
	default:
		err = w.arm()
	}
	w.armed = err == nil
	if err != nil {
		w.retryAt = time.Now().Add(w.retry())
		w.tell(CodeNotArmed, fmt.Sprintf("The watchdog is not armed: %v.", err))
		return
	}
	w.tell(0, "")
}

// left returns for how long the dog is fed now; not ok: it must not be fed.
func (w *watch) left() (time.Duration, bool) {
	most := w.dog.Timeout()
	if w.o.Guard == nil {
		return most, true
	}
	left, guarded := w.o.Guard()
	if !guarded {
		return most, true
	}
	return min(left, most), left > 0
}

// arm opens and arms. A dog that failed is opened anew: what it needs may have
// come or gone meanwhile.
func (w *watch) arm() error {
	if w.dog == nil {
		dog, err := w.o.Open(w.m.UserSp.Method, w.m.UserSp.Device, w.m.UserSp.Timeout-w.fresh)
		if err != nil {
			return err
		}
		w.dog = dog
	}
	return w.dog.Arm()
}

// retry is short after a watchdog that was armed was lost: the node may be
// unguarded, or about to be reset.
func (w *watch) retry() time.Duration {
	if w.told && w.last.Good {
		return 0
	}
	if w.m.Interval > 0 {
		return w.m.Interval
	}
	return retryArm
}

// tell reports what changed. Text says what is wrong; "" is good.
func (w *watch) tell(code int, text string, attrs ...any) {
	if w.told && w.last.Code == code && w.last.Text == text {
		return
	}
	w.last = monitor.Probe{Monitor: w.m.Name, Good: text == "", Code: code, Text: text, At: time.Now()}
	w.told = true
	if text != "" && w.o.Log != nil {
		w.o.Log.Warn("the watchdog monitor is bad", append([]any{"monitor", w.m.Name, "text", text}, attrs...)...)
	}
	w.report(w.last)
}

func (w *watch) release(ctx context.Context) {
	if w.dog == nil {
		return
	}
	end := w.dog.Disarm
	if errors.Is(context.Cause(ctx), ErrKeepArmed) {
		end = w.dog.Close
	}
	if err := end(); err != nil && w.o.Log != nil {
		w.o.Log.Error("the watchdog was not disarmed", "monitor", w.m.Name, "error", err)
	}
}

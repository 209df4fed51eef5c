package userspace

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/monitor"
	"github.com/tasuki-ha/tasuki/internal/watchdog"
)

// fakeDog bites by the bubble's clock.
type fakeDog struct {
	timeout time.Duration
	bite    *time.Timer // nil while not armed
	bitten  time.Duration
	start   time.Time
	armErr  error
	feedErr error
	arms    int
	feeds   int
	closed  bool
}

func (d *fakeDog) Arm() error {
	d.arms++
	if d.armErr != nil {
		return d.armErr
	}
	d.feedErr = nil
	d.bite = time.AfterFunc(d.timeout, func() { d.bitten = time.Since(d.start) })
	return nil
}

func (d *fakeDog) Feed(within time.Duration) error {
	if d.feedErr != nil {
		d.bite.Stop()
		return d.feedErr
	}
	d.feeds++
	d.bite.Reset(min(within, d.timeout))
	return nil
}

func (d *fakeDog) Disarm() error {
	if d.bite != nil {
		d.bite.Stop()
		d.bite = nil
	}
	return nil
}

func (d *fakeDog) Close() error           { d.closed = true; return nil }
func (d *fakeDog) Timeout() time.Duration { return d.timeout }

// bench is a monitor with a timeout of 8 s, its dog and its main loop.
type bench struct {
	dog     fakeDog
	openErr error
	loop    atomic.Pointer[time.Time] // latest pass
	guard   atomic.Pointer[time.Time] // by when what runs here must be harmless; nil: nothing runs
	probes  []string
	cancel  context.CancelCauseFunc
	err     error
}

// passes lets the main loop pass every 100 ms for so long.
func (b *bench) passes(d time.Duration) {
	synctest.Wait()
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(100 * time.Millisecond)
		now := time.Now()
		b.loop.Store(&now)
	}
	synctest.Wait()
}

func run(t *testing.T, story func(b *bench)) *bench {
	t.Helper()
	b := &bench{}
	synctest.Test(t, func(t *testing.T) {
		var ctx context.Context
		ctx, b.cancel = context.WithCancelCause(t.Context())
		b.dog.start = time.Now()
		d := New(Options{
			Open: func(method, device string, timeout time.Duration) (watchdog.Dog, error) {
				if method != "keepalive" || device != "/dev/x" {
					t.Errorf("opened %s %s", method, device)
				}
				b.dog.timeout = timeout
				return &b.dog, b.openErr
			},
			Progress: func() time.Time {
				if p := b.loop.Load(); p != nil {
					return *p
				}
				return time.Time{}
			},
			Guard: func() (time.Duration, bool) {
				if g := b.guard.Load(); g != nil {
					return time.Until(*g), true
				}
				return 0, false
			},
		})
		m := config.Monitor{Name: "userw", Interval: 3 * time.Second, UserSp: &config.Userspace{Method: "keepalive", Device: "/dev/x", Timeout: 8 * time.Second}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.err = d.Watch(ctx, monitor.Env{}, m, func(p monitor.Probe) {
				if p.Good != (p.Text == "") || p.Good != (p.Code == 0) || p.Monitor != "userw" || p.At.IsZero() {
					t.Errorf("%+v", p)
				}
				b.probes = append(b.probes, p.Text)
			})
		}()
		story(b)
		synctest.Wait()
		b.cancel(nil)
		<-done
	})
	return b
}

func (b *bench) saw(t *testing.T, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, b.probes); d != "" {
		t.Error(d)
	}
}

const standstill = "The main loop of the daemon makes no progress."

func TestFedWhileTheLoopPasses(t *testing.T) {
	b := run(t, func(b *bench) {
		b.passes(time.Minute)
		if b.dog.bite == nil {
			t.Error("not armed")
		}
	})
	b.saw(t, "")
	if b.err != nil || b.dog.bitten != 0 || b.dog.bite != nil || b.dog.arms != 1 || b.dog.feeds < 50 || b.dog.timeout != 6*time.Second {
		t.Errorf("%v %+v", b.err, &b.dog)
	}
}

func TestNotArmedBeforeTheLoopBegins(t *testing.T) {
	b := run(t, func(*bench) { <-time.After(time.Minute) })
	if b.saw(t); b.dog.arms != 0 {
		t.Error("armed before the first pass")
	}
}

func TestStandstillResetsWithinTheTimeout(t *testing.T) {
	b := run(t, func(b *bench) {
		b.passes(10 * time.Second)
		<-time.After(time.Minute)
	})
	b.saw(t, "", standstill)
	if still := b.dog.bitten - 10*time.Second; still < 6*time.Second || still > 8*time.Second {
		t.Errorf("reset %v after the last pass, want between 6 s and 8 s", still)
	}
}

func TestShortStandstillIsForgiven(t *testing.T) {
	b := run(t, func(b *bench) {
		b.passes(10 * time.Second)
		<-time.After(5 * time.Second)
		b.passes(10 * time.Second)
	})
	b.saw(t, "", standstill, "")
	if b.dog.bitten != 0 {
		t.Errorf("reset after %v", b.dog.bitten)
	}
}

func TestMethodThatTheHostCannotOffer(t *testing.T) {
	b := run(t, func(b *bench) {
		synctest.Wait()
		b.openErr = errors.New("softdog: /dev/watchdog does not exist")
		b.passes(7 * time.Second)
		b.openErr = nil // an administrator loads the module
		b.passes(3 * time.Second)
	})
	b.saw(t, "The watchdog is not armed: softdog: /dev/watchdog does not exist.", "")
	if b.dog.arms != 1 {
		t.Errorf("armed %d times", b.dog.arms)
	}
}

func TestLostDogIsArmedAgainAtOnce(t *testing.T) {
	b := run(t, func(b *bench) {
		b.passes(5 * time.Second)
		b.dog.feedErr = errors.New("keepalive: the helper is gone")
		b.passes(2 * time.Second)
		if b.dog.arms != 2 {
			t.Errorf("armed %d times within 2 s", b.dog.arms)
		}
	})
	b.saw(t, "", "The watchdog is not armed: keepalive: the helper is gone.", "")
}

func TestKeepArmed(t *testing.T) {
	b := run(t, func(b *bench) {
		b.passes(5 * time.Second)
		b.cancel(ErrKeepArmed)
	})
	if !b.dog.closed || b.dog.bite == nil {
		t.Errorf("%+v", &b.dog)
	}
}

func TestWithoutMethod(t *testing.T) {
	if New(Options{}).Watch(t.Context(), monitor.Env{}, config.Monitor{Name: "userw"}, nil) == nil {
		t.Error("a monitor without a method watches")
	}
}

// While something runs under a lease, the dog counts to the end of the lease: a
// loop that passes, but does not renew it, does not put the end off.
func TestGuardIsTheEnd(t *testing.T) {
	b := run(t, func(b *bench) {
		b.passes(time.Second)
		by := time.Now().Add(2 * time.Second)
		b.guard.Store(&by)
		b.passes(5 * time.Second)
	})
	if b.dog.bitten < 2900*time.Millisecond || b.dog.bitten > 3*time.Second {
		t.Errorf("reset after %v, want 3 s", b.dog.bitten)
	}
}

func TestNothingToGuard(t *testing.T) {
	b := run(t, func(b *bench) {
		by := time.Now().Add(2 * time.Second)
		b.guard.Store(&by)
		b.passes(time.Second)
		b.guard.Store(nil) // isolated
		b.passes(10 * time.Second)
	})
	if b.dog.bitten != 0 {
		t.Errorf("reset after %v", b.dog.bitten)
	}
}

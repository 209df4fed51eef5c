package mirrordisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

const (
	busyShort     = 2 * time.Second  // that something like udev may have the device open in passing
	busyLong      = 15 * time.Second // until a stop gives up
	defaultUmount = 2 * time.Minute  // where the file does not say
	forceStep     = 10 * time.Second // of Force: one try of what the kernel may not come back from
	forceLook     = 2 * time.Second  // of Force: until a process that does not answer is killed
)

// ending is a stop under way.
type ending struct {
	*mirror
	t      resource.Task
	was    *started
	gone   bool // no process serves it, and none will
	active bool
	off    bool     // it was told not to be active any more, and is not
	given  bool     // what waits was given up: everything fails
	met    []holder // who was ended
}

// Stop unmounts the file system and takes the block device away. Processes that use
// it are ended. What was frozen, or can never complete, is given up first, or
// unmounting would wait for it for ever.
func (d *Driver) Stop(ctx context.Context, t resource.Task) error {
	e, err := d.begin(ctx, t, serveLimit)
	if err != nil || e == nil {
		return err
	}
	if err := d.unmountAll(ctx, e); err != nil {
		return err
	}
	if err := d.detach(ctx, e); err != nil {
		return err
	}
	return d.finish(ctx, e)
}

// begin looks at what there is to stop, for as long as limit, and gives up what can
// never complete. nil: nothing is active.
func (d *Driver) begin(ctx context.Context, t resource.Task, limit time.Duration) (*ending, error) {
	e := &ending{mirror: d.mirror(t.Resource.Name), t: t}
	e.unguard()
	var err error
	if e.was, err = e.whatStarted(); err != nil {
		return nil, err
	}
	e.mu.Lock()
	if e.absent { // it was waited for already
		limit = min(limit, forceLook)
	}
	e.mu.Unlock()
	looking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := e.look(looking)
	e.gone = errors.Is(err, errGone)
	if err != nil && !e.gone {
		return nil, fmt.Errorf("stop mirror disk %s: %w", e.name, err)
	}
	e.active = !e.gone && s.Role == roleActive
	if e.was == nil && !e.active {
		return nil, d.finish(ctx, e)
	}
	if e.was == nil {
		e.was = &started{Group: t.Group.Name}
		if md := t.Resource.MirrorDisk; md != nil {
			e.was.Mount = md.Mount
		}
	}
	if e.was.Device == "" && s.Device != "" {
		e.was.Device = s.Device
		if e.was.Number, err = d.sys.device(s.Device); err != nil {
			return nil, err
		}
	}
	if e.active && e.never(s) {
		return e, e.giveUp(ctx)
	}
	return e, nil
}

// never says whether what waits in an active copy can never complete.
func (m *mirror) never(s control.Status) bool {
	m.mu.Lock()
	lost := m.lost
	m.mu.Unlock()
	return lost || s.Frozen || s.Broken != "" || m.isFrozen()
}

// Unblock gives up what can never complete, be it with the keeper of a process that
// was waited for in vain. Those who wait for a disk cannot even be killed.
func (d *Driver) Unblock(ctx context.Context, t resource.Task) error {
	e := &ending{mirror: d.mirror(t.Resource.Name), t: t}
	e.mu.Lock()
	absent := e.absent
	e.mu.Unlock()
	if absent {
		return e.endKeeper(ctx)
	}
	s, err := e.look(ctx)
	switch {
	case errors.Is(err, errGone):
		return nil
	case err != nil:
		return fmt.Errorf("look whether mirror disk %s can go on: %w", e.name, err)
	case s.Role == roleActive && e.never(s):
		return e.giveUp(ctx)
	}
	return nil
}

// giveUp makes everything fail that waits or will be asked for. The block device
// stays while it is in use.
func (e *ending) giveUp(ctx context.Context) error {
	_, err := e.do(ctx, control.Request{Do: control.Deactivate, Force: true})
	e.given = true
	switch code := control.CodeOf(err); {
	case err == nil, code == control.NotActive:
		e.off = true
	case errors.Is(err, errGone):
		e.gone = true
	case code != control.Busy:
		return fmt.Errorf("give up what waits in mirror disk %s: %w", e.name, err)
	}
	return nil
}

// unmountAll unmounts the file system, as often as the file says.
func (d *Driver) unmountAll(ctx context.Context, e *ending) error {
	if e.was.Mount == "" {
		return nil
	}
	limit, retries := defaultUmount, 0
	if md := e.t.Resource.MirrorDisk; md != nil && md.UmountTimeout > 0 {
		limit, retries = md.UmountTimeout, md.UmountRetries
	}
	var err error
	for try := 0; try <= retries; try++ {
		if try > 0 && !wait(ctx, againAfter) {
			break
		}
		if err = d.unmountOnce(ctx, e, limit); err == nil {
			return nil
		}
		d.o.Log.Warn("a mirror disk could not be unmounted", "resource", e.name, "mount", e.was.Mount, "try", try+1, "error", err)
	}
	return fmt.Errorf("unmount mirror disk %s from %s: %w%s", e.name, e.was.Mount, err, d.who(e, err))
}

// who names those that keep it in use, for an error that says that it is.
func (d *Driver) who(e *ending, err error) string {
	if !errors.Is(err, unix.EBUSY) && control.CodeOf(err) != control.Busy {
		return ""
	}
	hs, err := d.users(e)
	if err != nil {
		return ""
	}
	return "; it is held by " + naming(hs)
}

// unmountOnce tries to unmount, and again after its users were asked to end, and
// after they were killed.
func (d *Driver) unmountOnce(ctx context.Context, e *ending, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, step := range []struct {
		signal unix.Signal
		limit  time.Duration
	}{{unix.SIGTERM, termAfter}, {unix.SIGKILL, killAfter}, {}} {
		err := e.kernel.call(ctx, limit, func() error { return d.unmounted(e, 0) })
		if !errors.Is(err, unix.EBUSY) || step.signal == 0 {
			return err
		}
		if err := d.clear(ctx, e, step.signal, step.limit); err != nil {
			return err
		}
	}
	return nil
}

// clear sends a signal to those who hold the device, and waits for them.
func (d *Driver) clear(ctx context.Context, e *ending, s unix.Signal, limit time.Duration) error {
	met, _, err := d.evict(ctx, e, s, limit)
	how := "SIGTERM"
	if s == unix.SIGKILL {
		how = "SIGKILL"
	}
	ours := slices.DeleteFunc(slices.Clone(met), func(h holder) bool { return h.what == "" })
	d.tellEvicted(e.t, ours, how)
	e.met = append(e.met, ours...)
	return err
}

// unmounted unmounts until the device is not mounted any more at its mount point.
func (d *Driver) unmounted(e *ending, flags int) error {
	for {
		at, err := d.sys.mounted(e.was.Mount)
		if err != nil {
			return err
		}
		if at == nil || at.number != e.was.Number {
			return nil
		}
		if err := d.sys.unmount(e.was.Mount, flags); err != nil {
			return err
		}
	}
}

// detach has the block device taken away.
func (d *Driver) detach(ctx context.Context, e *ending) error {
	if e.off || e.gone { // also what is not active is told: it may be about to become so
		return nil
	}
	signals := []unix.Signal{unix.SIGTERM, unix.SIGKILL}
	next := time.Now().Add(busyShort)
	for until := time.Now().Add(busyLong); ; {
		_, err := e.do(ctx, control.Request{Do: control.Deactivate, Force: e.given})
		switch code := control.CodeOf(err); {
		case err == nil, code == control.NotActive, errors.Is(err, errGone):
			return nil
		case code != control.Busy:
			return fmt.Errorf("take away the block device of mirror disk %s: %w", e.name, err)
		case time.Now().After(until):
			return fmt.Errorf("take away the block device of mirror disk %s: %w%s", e.name, err, d.who(e, err))
		}
		if len(signals) > 0 && time.Now().After(next) {
			if err := d.clear(ctx, e, signals[0], termAfter); err != nil {
				return err
			}
			signals = signals[1:]
		}
		if !wait(ctx, holderLook) {
			return fmt.Errorf("take away the block device of mirror disk %s: %w%s", e.name, ctx.Err(), d.who(e, err))
		}
	}
}

// finish forgets what was started.
func (d *Driver) finish(ctx context.Context, e *ending) error {
	if e.was != nil {
		if err := d.unlink(e.name, e.was.Device); err != nil {
			return err
		}
	}
	frozen := e.isFrozen()
	if err := errors.Join(e.forget(fileStarted), e.forget(control.FileFrozen)); err != nil {
		return err
	}
	e.stir() // what the file wants otherwise comes into force now
	if !frozen || e.gone {
		return nil
	}
	return e.thaw(ctx)
}

// Force ends everything that uses the mirror disk, unmounts it, be it in name only,
// and has the block device taken away, after everything that waited has failed. Where
// its process does not come to that in half of the time, the keeper is killed: with it
// ends what the kernel waits for.
func (d *Driver) Force(ctx context.Context, t resource.Task) (string, error) {
	half := forceStep
	if at, ok := ctx.Deadline(); ok {
		half = time.Until(at) / 2
	}
	soon, cancel := context.WithTimeout(ctx, half)
	defer cancel()
	how, err := d.forceOff(soon, t)
	if err == nil {
		return how, nil
	}
	e := &ending{mirror: d.mirror(t.Resource.Name), t: t, gone: true, given: true}
	d.o.Log.Error("a mirror disk cannot be stopped by its process, and its keeper is killed", "resource", e.name, "error", err)
	if killed := e.endKeeper(ctx); killed != nil {
		return "", fmt.Errorf("stop mirror disk %s by force: %w; %w", e.name, err, killed)
	}
	if e.was, err = e.whatStarted(); err != nil {
		return "", err
	}
	if e.was == nil {
		e.was = &started{}
	}
	how, err = d.takeOff(ctx, e)
	return "its keeper was killed, " + how, err
}

// forceOff is Force with the help of the process.
func (d *Driver) forceOff(ctx context.Context, t resource.Task) (string, error) {
	e, err := d.begin(ctx, t, forceLook)
	if err != nil {
		// Its process does not answer. The one that takes its place may.
		d.o.Log.Error("the process of a mirror disk does not answer and is killed", "resource", t.Resource.Name, "error", err)
		if err := d.mirror(t.Resource.Name).kill(ctx); err != nil {
			return "", fmt.Errorf("stop mirror disk %s by force: %w", t.Resource.Name, err)
		}
		e, err = d.begin(ctx, t, forceLook)
	}
	if err != nil {
		return "", err
	}
	if e == nil {
		return "it was not active", nil
	}
	if e.active && !e.given {
		if err := e.giveUp(ctx); err != nil {
			return "", err
		}
	}
	return d.takeOff(ctx, e)
}

// takeOff takes the mirror disk away from those that use it, and then itself.
func (d *Driver) takeOff(ctx context.Context, e *ending) (string, error) {
	if err := d.clear(ctx, e, unix.SIGKILL, killAfter); err != nil {
		return "", err
	}
	lazy, err := d.unmountByForce(ctx, e)
	if err != nil {
		return "", err
	}
	if err := d.detach(ctx, e); err != nil {
		return "", err
	}
	if err := d.surelyGone(ctx, e); err != nil {
		return "", err
	}
	return e.how(lazy), d.finish(ctx, e)
}

// how puts into words what Force took.
func (e *ending) how(lazy bool) string {
	did := []string{"what waited in it has failed"}
	switch n := len(e.met); n {
	case 0:
	case 1:
		did = append(did, "1 process was killed")
	default:
		did = append(did, fmt.Sprintf("%d processes were killed", n))
	}
	if lazy {
		did = append(did, "the file system was detached")
	}
	return strings.Join(did, ", ")
}

// unmountByForce unmounts, be it that the file system is only taken out of sight
// until nobody uses it any more.
func (d *Driver) unmountByForce(ctx context.Context, e *ending) (lazy bool, err error) {
	if e.was.Mount == "" {
		return false, nil
	}
	err = e.kernel.call(ctx, forceStep, func() error { return d.unmounted(e, 0) })
	if err == nil {
		return false, nil
	}
	if err = e.kernel.call(ctx, forceStep, func() error { return d.unmounted(e, unix.MNT_DETACH) }); err != nil {
		return false, fmt.Errorf("unmount mirror disk %s by force: %w", e.name, err)
	}
	return true, nil
}

// surelyGone says why the block device may still be there.
func (d *Driver) surelyGone(ctx context.Context, e *ending) error {
	if e.gone {
		return nil
	}
	s, err := e.look(ctx)
	switch {
	case errors.Is(err, errGone):
		return nil
	case err != nil:
		return fmt.Errorf("look whether mirror disk %s is gone: %w", e.name, err)
	case s.Role == roleActive:
		return fmt.Errorf("mirror disk %s is still active, although it was told not to be", e.name)
	}
	return nil
}

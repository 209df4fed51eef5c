package floatingip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/tasuki-ha/tasuki/internal/host"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// Gaps between the announcements of a burst: each twice the one before.
const (
	firstGap = 20 * time.Millisecond
	lastGap  = time.Second
	// idle is how long Run sleeps at most.
	idle = time.Hour
)

// schedule says when an address is announced next.
type schedule struct {
	count int           // of a burst
	every time.Duration // after the burst; 0 is never
	left  int           // of this burst
	gap   time.Duration
	next  time.Time // zero: never
}

// newSchedule begins a burst now.
func newSchedule(now time.Time, count int, every time.Duration) schedule {
	return schedule{count: max(count, 1), every: every}.again(now)
}

// again begins a new burst now.
func (s schedule) again(now time.Time) schedule {
	s.left, s.gap, s.next = s.count, firstGap, now
	return s
}

// sent notes that one was sent now.
func (s *schedule) sent(now time.Time) {
	if s.left > 0 {
		s.left--
	}
	switch {
	case s.left > 0:
		s.next = now.Add(s.gap)
		s.gap = min(2*s.gap, lastGap)
	case s.every > 0:
		s.next = now.Add(s.every)
	default:
		s.next = time.Time{}
	}
}

// Run announces and watches the addresses that are active here until ctx ends.
// The addresses stay. An error means that it cannot watch.
func (d *Driver) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- d.net.WatchAddresses(ctx, d.addressChanged) }()
	go func() { ended <- d.net.WatchLinks(ctx, d.carrierWatch()) }()
	announcing := make(chan struct{})
	go func() {
		defer close(announcing)
		d.announceAll(ctx)
	}()
	first := <-ended // at once if it cannot watch, else with ctx
	cancel()
	err := errors.Join(first, <-ended)
	<-announcing
	d.unguardAll()
	if err != nil {
		return fmt.Errorf("watch floating addresses: %w", err)
	}
	return nil
}

// unguardAll ends the watches; the addresses stay.
func (d *Driver) unguardAll() {
	d.mu.Lock()
	d.ended = true
	for _, h := range d.held {
		h.unguard()
	}
	d.mu.Unlock()
	d.guards.Wait()
}

// announceAll sends what is due until ctx ends.
func (d *Driver) announceAll(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
		failures, next := d.announceDue(time.Now())
		for _, f := range failures {
			d.failed(f)
		}
		timer.Reset(time.Until(next))
	}
}

// announceDue sends what is due now and says when the next is. Nothing is
// announced that is not here any more.
func (d *Driver) announceDue(now time.Time) (failures []resource.Failure, next time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next = now.Add(idle)
	for _, h := range d.held {
		if h.isolated || h.plan.next.IsZero() {
			continue
		}
		if !h.plan.next.After(now) {
			if f := d.verify(h); f != nil {
				failures = append(failures, *f)
				continue
			}
			h.plan.sent(now)
			if err := d.net.Announce(h.at.Device, h.at.Prefix.Addr()); err != nil {
				d.log.Warn("an announcement failed", "address", h.at.Prefix.Addr(), "err", err)
			}
		}
		if at := h.plan.next; !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return failures, next
}

// verify looks whether the address is still here; if not, it is let go and the
// failure returned. The caller has the lock.
func (d *Driver) verify(h *holding) *resource.Failure {
	at, here, err := d.net.HasAddress(h.at.Prefix.Addr())
	if err != nil {
		d.log.Warn("cannot look for an address", "address", h.at.Prefix.Addr(), "err", err)
		return nil
	}
	if here {
		h.at = at
		return nil
	}
	d.letGo(h.resource)
	return &resource.Failure{
		Group: h.group, Resource: h.resource, Epoch: h.epoch, At: time.Now(),
		Text: fmt.Sprintf("the address %s was taken from %s", h.at.Prefix.Addr(), h.at.Device),
	}
}

// addressChanged tells of a held address that somebody took away. The event may
// be older than what we did since, so what counts is a look under the lock.
func (d *Driver) addressChanged(e host.AddressEvent) {
	if !e.Gone {
		return
	}
	if f := d.lost(e.Address.Prefix.Addr()); f != nil {
		d.failed(*f)
	}
}

func (d *Driver) lost(a netip.Addr) *resource.Failure {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.held {
		if !h.isolated && h.at.Prefix.Addr() == a {
			return d.verify(h)
		}
	}
	return nil
}

// carrierWatch begins a new burst for the addresses of a link whose carrier came
// back: what is behind the cable may have forgotten them.
func (d *Driver) carrierWatch() func(host.LinkEvent) {
	without := map[string]bool{}
	return func(e host.LinkEvent) {
		if !e.Gone && !e.Link.Carrier {
			without[e.Link.Name] = true
			return
		}
		came := without[e.Link.Name] && !e.Gone
		delete(without, e.Link.Name)
		if !came {
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, h := range d.held {
			if h.at.Device == e.Link.Name {
				h.plan = h.plan.again(time.Now())
			}
		}
		d.poke()
	}
}

package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Power switches guests of one kind. name is config.Guest.Target: what the
// guest is called where it runs. All return at the latest when ctx ends.
type Power interface {
	// Off takes the power from a guest; from one that is off, nothing. That it
	// returns no error is no proof: Status is asked after it.
	Off(ctx context.Context, name string) error
	// On gives a guest power; one that is on keeps it.
	On(ctx context.Context, name string) error
	// Status says whether a guest has power. It is never answered from memory.
	Status(ctx context.Context, name string) (on bool, err error)
}

// Options of New.
type Options struct {
	Libvirt string // the socket of libvirt
	Lab     string // the socket of the lab's power switches; "" outside of a lab
}

// Switch is the power switch of one guest.
type Switch struct {
	guest config.Guest
	power Power
}

// New returns the switch of a guest. A guest of a lab outside of one is
// refused.
func New(g config.Guest, o Options) (*Switch, error) {
	s := &Switch{guest: g}
	switch g.Kind {
	case config.GuestLibvirt:
		s.power = &libvirtPower{socket: o.Libvirt}
	case config.GuestQMP:
		s.power = qmpPower{}
	case config.GuestLab:
		if o.Lab == "" {
			return nil, &api.Error{Code: "not-in-a-lab", Message: fmt.Sprintf("guest %s is a machine of a lab, but this host is none of a lab", g.Name),
				Hint: "write libvirt or qmp for it in the cluster file"}
		}
		s.power = labPower{socket: o.Lab}
	default:
		return nil, fmt.Errorf("nothing here has the power switch of a guest of kind %q", g.Kind)
	}
	return s, nil
}

// confirmEvery is the pause between two looks at a guest that should be off.
const confirmEvery = 50 * time.Millisecond

// Do carries out an action and returns what was found after it. The error says
// that the guest is not as wanted, or that nobody knows.
func (s *Switch) Do(ctx context.Context, a cluster.PowerAction) (cluster.Power, error) {
	name := s.guest.Target
	want := cluster.Off
	switch a {
	case cluster.PowerStatus:
		return s.look(ctx)
	case cluster.PowerOff:
		if err := s.power.Off(ctx, name); err != nil {
			return "", s.explain(err)
		}
	case cluster.PowerOn:
		want = cluster.On
		if err := s.power.On(ctx, name); err != nil {
			return "", s.explain(err)
		}
	default:
		return "", &api.Error{Code: "unknown-verb", Message: fmt.Sprintf("a guest cannot be asked to %.32q", a), Hint: "off, on, status"}
	}
	for {
		got, err := s.look(ctx)
		if err != nil || got == want {
			return got, err
		}
		timer := time.NewTimer(confirmEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return got, &api.Error{Code: "guest-not-" + string(want), Message: fmt.Sprintf("guest %s is still %s", s.guest.Name, got),
				Hint: "look at the host itself: a process that is stuck in the kernel cannot be ended"}
		}
	}
}

func (s *Switch) look(ctx context.Context) (cluster.Power, error) {
	on, err := s.power.Status(ctx, s.guest.Target)
	switch {
	case err != nil:
		return "", s.explain(err)
	case on:
		return cluster.On, nil
	}
	return cluster.Off, nil
}

// explain makes an error one that says what is not known.
func (s *Switch) explain(err error) error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	return &api.Error{Code: "guest-unknown", Message: fmt.Sprintf("the power of guest %s (%s %s) is not known: %v", s.guest.Name, s.guest.Kind, s.guest.Target, err),
		Hint: "tasuki guest list on the host shows the same; nothing counts as off before it is confirmed"}
}

// within returns what f gives, or the end of ctx if that comes first. f goes
// on, and must end soon after ctx.
func within[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		val T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.val, r.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("no answer in time: %w", ctx.Err())
	}
}

package guest

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/digitalocean/go-libvirt"
)

// libvirtPower switches domains of the libvirt that listens at a socket. Each
// call has a connection of its own: they are rare, and a connection that was
// kept could be a dead one in the moment that counts.
type libvirtPower struct{ socket string }

// Off destroys a domain, which is libvirt's word for taking the power away.
func (p *libvirtPower) Off(ctx context.Context, name string) error {
	return p.call(ctx, func(l *libvirt.Libvirt) error {
		dom, on, err := state(l, name)
		if err != nil || !on {
			return err
		}
		if err := l.DomainDestroy(dom); err != nil {
			return fmt.Errorf("destroy domain %s: %w", name, err)
		}
		return nil
	})
}

// On starts a domain.
func (p *libvirtPower) On(ctx context.Context, name string) error {
	return p.call(ctx, func(l *libvirt.Libvirt) error {
		dom, on, err := state(l, name)
		if err != nil || on {
			return err
		}
		if err := l.DomainCreate(dom); err != nil {
			return fmt.Errorf("start domain %s: %w", name, err)
		}
		return nil
	})
}

// Status asks libvirt.
func (p *libvirtPower) Status(ctx context.Context, name string) (on bool, err error) {
	return within(ctx, func() (on bool, err error) {
		err = p.connect(ctx, func(l *libvirt.Libvirt) error {
			_, on, err = state(l, name)
			return err
		})
		return on, err
	})
}

func (p *libvirtPower) call(ctx context.Context, f func(*libvirt.Libvirt) error) error {
	_, err := within(ctx, func() (struct{}, error) { return struct{}{}, p.connect(ctx, f) })
	return err
}

// connect calls f with a connection that breaks when ctx ends.
func (p *libvirtPower) connect(ctx context.Context, f func(*libvirt.Libvirt) error) error {
	l := libvirt.NewWithDialer(dialer{ctx, p.socket})
	if err := l.Connect(); err != nil {
		return fmt.Errorf("ask libvirt at %s: %w", p.socket, err)
	}
	err := f(l)
	// What was done is known; that the other end does not hear of our leaving
	// changes nothing.
	_ = l.Disconnect()
	return err
}

type dialer struct {
	ctx    context.Context
	socket string
}

func (d dialer) Dial() (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(d.ctx, "unix", d.socket)
	if err != nil {
		return nil, err
	}
	// A passed deadline is a temporary error to the library, so the end of ctx
	// closes the connection instead.
	stop := context.AfterFunc(d.ctx, func() { c.Close() })
	return &closing{Conn: c, stop: stop}, nil
}

// closing is a connection that lets go of its context when it is closed.
type closing struct {
	net.Conn
	stop func() bool
}

func (c *closing) Close() error {
	c.stop()
	return c.Conn.Close()
}

// state returns the domain of that name and whether it has power. Only a
// domain that is shut off here and nowhere else is off.
func state(l *libvirt.Libvirt, name string) (libvirt.Domain, bool, error) {
	dom, err := l.DomainLookupByName(name)
	if libvirt.IsNotFound(err) {
		return dom, false, fmt.Errorf("libvirt has no domain %q here: it is written wrongly, undefined, transient, or on another host", name)
	}
	if err != nil {
		return dom, false, fmt.Errorf("look for domain %s: %w", name, err)
	}
	st, reason, err := l.DomainGetState(dom, 0)
	if err != nil {
		return dom, false, fmt.Errorf("ask for the state of domain %s: %w", name, err)
	}
	switch libvirt.DomainState(st) {
	case libvirt.DomainShutoff:
	case libvirt.DomainRunning, libvirt.DomainBlocked, libvirt.DomainPaused, libvirt.DomainShutdown, libvirt.DomainCrashed, libvirt.DomainPmsuspended:
		return dom, true, nil
	default:
		return dom, false, fmt.Errorf("libvirt does not know the state of domain %s (%d)", name, st)
	}
	if libvirt.DomainShutoffReason(reason) == libvirt.DomainShutoffMigrated {
		return dom, false, fmt.Errorf("domain %s was migrated: it may run on another host", name)
	}
	saved, err := l.DomainHasManagedSaveImage(dom, 0)
	if err != nil && !errors.Is(err, libvirt.ErrUnsupported) {
		return dom, false, fmt.Errorf("ask whether domain %s is saved: %w", name, err)
	}
	if saved != 0 || libvirt.DomainShutoffReason(reason) == libvirt.DomainShutoffSaved {
		return dom, false, fmt.Errorf("domain %s is saved, not off: started, it would go on where it was (virsh managedsave-remove)", name)
	}
	return dom, false, nil
}

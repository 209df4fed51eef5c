package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/lab"
)

// fault is one that happens: its ends are called once, begin first.
type fault struct {
	rolled
	member int
	what   string // for people
	begin  func(context.Context) error
	end    func(context.Context) error // nil: it is over at once
}

func (c *chaos) other(member, peer int) int { return (member + peer) % len(c.members) }

// fault makes of what was rolled what is to be done now.
func (c *chaos) fault(r rolled) *fault {
	f := &fault{rolled: r, member: r.member}
	owner := c.seen.owner()
	switch r.who {
	case roleOwner:
		f.member = owner
	case roleOther:
		f.member = (owner + 1) % c.owners
	}
	name := c.members[f.member]
	f.what = r.kind + " " + name
	switch r.kind {
	case "kill daemon":
		f.begin = func(ctx context.Context) error { _, err := c.signal(ctx, name, "KILL"); return err }
	case "stop daemon":
		c.stopDaemon(f, name)
	case "power off", "reboot":
		c.powerOff(f, name)
	case "pause":
		c.pause(f, name)
	case "cut", "cut one way", "cut off":
		c.cut(f)
	case "pull":
		f.what += " " + r.nic
		f.begin = func(ctx context.Context) error { return c.Lab.Pull(ctx, name, r.nic) }
		f.end = func(ctx context.Context) error { return c.Lab.Plug(ctx, name, r.nic) }
	case "reject":
		peer := c.other(f.member, r.peer)
		f.what += " what comes from " + c.members[peer]
		f.begin = func(ctx context.Context) error { return c.filter(ctx, f.member, c.rejects(peer, r)) }
		f.end = func(ctx context.Context) error { return c.filter(ctx, f.member, nil) }
	case "mtu":
		f.what += ": frames of more than 1400 bytes are lost"
		f.begin = func(ctx context.Context) error { return c.filter(ctx, f.member, blackHole) }
		f.end = func(ctx context.Context) error { return c.filter(ctx, f.member, nil) }
	case "address":
		f.what += " loses its own on " + r.nic
		f.begin = func(ctx context.Context) error { return c.ownAddress(ctx, f.member, r.nic, false) }
		f.end = func(ctx context.Context) error { return c.ownAddress(ctx, f.member, r.nic, true) }
	case "cpu":
		c.starve(f, name)
	}
	if f.end != nil {
		f.what += fmt.Sprintf(" for %.1f s", r.length.Seconds())
	}
	return f
}

// signal sends a signal to a machine's daemon, which it returns.
func (c *chaos) signal(ctx context.Context, m, sig string) (pid int, err error) {
	svc, err := c.Lab.Service(ctx, m, "status")
	if err != nil {
		return 0, err
	}
	if svc.PID == 0 {
		return 0, errors.New("the daemon does not run")
	}
	_, err = c.Do(ctx, m, "kill", "-"+sig, strconv.Itoa(svc.PID))
	return svc.PID, err
}

func (c *chaos) stopDaemon(f *fault, name string) {
	pid := 0
	f.begin = func(ctx context.Context) (err error) {
		pid, err = c.signal(ctx, name, "STOP")
		return err
	}
	f.end = func(ctx context.Context) error {
		svc, err := c.Lab.Service(ctx, name, "status")
		if err != nil || svc.PID != pid {
			return err // the watchdog was faster
		}
		_, err = c.signal(ctx, name, "CONT")
		return err
	}
}

func (c *chaos) powerOff(f *fault, name string) {
	f.begin = func(ctx context.Context) error { return c.Lab.Kill(ctx, name) }
	boot := func(ctx context.Context) error {
		c.seen.pause(f.member, false)
		return c.Lab.Boot(ctx, name)
	}
	if f.kind == "power off" {
		f.end = boot
		return
	}
	f.begin = func(ctx context.Context) error {
		if err := c.Lab.Kill(ctx, name); err != nil {
			return err
		}
		return boot(ctx)
	}
}

func (c *chaos) pause(f *fault, name string) {
	f.begin = func(ctx context.Context) error {
		err := c.Lab.Pause(ctx, name)
		if err == nil {
			c.seen.pause(f.member, true)
		}
		return err
	}
	f.end = func(ctx context.Context) error {
		c.seen.pause(f.member, false) // from the first moment on it counts again
		return c.Lab.Resume(ctx, name)
	}
}

// cut loses frames between the member and a peer, or everybody.
func (c *chaos) cut(f *fault) {
	name, peers := c.members[f.member], []string{c.members[c.other(f.member, f.peer)]}
	var options []lab.CutOption
	if f.kind == "cut off" {
		peers = nil
		for i := 1; i < len(c.members); i++ {
			peers = append(peers, c.members[c.other(f.member, i)])
		}
		if f.client {
			peers = append(peers, c.Client)
		}
	} else if !f.all {
		options = append(options, lab.On(c.network(f.nic)))
	}
	if f.oneWay {
		options = append(options, lab.OneWay())
	}
	f.what += " from " + strings.Join(peers, ", ")
	if len(options) > 0 && !f.all {
		f.what += " on " + f.nic
	}
	if f.oneWay {
		f.what += map[bool]string{true: " (it does not hear)", false: " (it is not heard)"}[f.away]
	}
	f.begin = func(ctx context.Context) error {
		var errs []error
		for _, p := range peers {
			a, b := name, p
			if f.oneWay && f.away {
				a, b = p, name
			}
			errs = append(errs, c.Lab.Cut(ctx, a, b, options...))
		}
		return errors.Join(errs...)
	}
	f.end = func(ctx context.Context) error {
		var errs []error
		for _, p := range peers {
			errs = append(errs, c.Lab.Heal(ctx, name, p))
		}
		return errors.Join(errs...)
	}
}

// ownAddress takes a machine's own address off, or puts it back.
func (c *chaos) ownAddress(ctx context.Context, member int, nic string, on bool) error {
	own := &netlink.Addr{IPNet: &net.IPNet{IP: c.address(member, nic).AsSlice(), Mask: net.CIDRMask(24, 32)}}
	return c.Lab.Do(ctx, c.members[member], func() error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer nl.Close()
		link, err := nl.LinkByName(nic)
		if err != nil {
			return err
		}
		if !on {
			return nl.AddrDel(link, own)
		}
		if err := nl.AddrAdd(link, own); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return nil
	})
}

// starve keeps every processor busy from within the machine.
func (c *chaos) starve(f *fault, name string) {
	var busy []*lab.Process
	f.begin = func(ctx context.Context) error {
		for range 4 {
			p, err := c.Lab.ExecStart(context.WithoutCancel(ctx), name, "sh", "-c", "while :; do :; done")
			if err != nil {
				return err
			}
			busy = append(busy, p)
		}
		return nil
	}
	f.end = func(context.Context) error {
		for _, p := range busy {
			p.Kill() // it may have ended with its machine
			p.Wait()
		}
		return nil
	}
}

// repair makes all machines and networks well, whatever the faults and their
// ends have left.
func (c *chaos) repair(ctx context.Context) error {
	errs := []error{c.Lab.HealAll(ctx)}
	for i, m := range c.members {
		errs = append(errs, c.repairMachine(ctx, i, m))
	}
	return errors.Join(errs...)
}

func (c *chaos) repairMachine(ctx context.Context, i int, m string) error {
	info, err := c.Lab.Machine(ctx, m)
	if err != nil {
		return err
	}
	if info.State == lab.Off && time.Since(info.Since) < time.Second { // it may be on its way up
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
		if info, err = c.Lab.Machine(ctx, m); err != nil {
			return err
		}
	}
	switch info.State {
	case lab.Off:
		err = c.Lab.Boot(ctx, m)
	case lab.Paused:
		c.seen.pause(i, false)
		err = c.Lab.Resume(ctx, m)
	}
	c.seen.pause(i, false)
	errs := []error{err, c.filter(ctx, i, nil)}
	for _, n := range info.NICs {
		if !n.Plugged {
			errs = append(errs, c.Lab.Plug(ctx, m, n.Name))
		}
		errs = append(errs, c.ownAddress(ctx, i, n.Name, true))
	}
	if _, err := c.signal(ctx, m, "CONT"); err != nil && info.State == lab.Up {
		c.seen.say("repair %s: %v", m, err) // it may just be restarting
	}
	return errors.Join(errs...)
}

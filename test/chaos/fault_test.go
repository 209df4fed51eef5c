package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/host"
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
	case "kill again":
		c.again(f, killEvery, func(ctx context.Context) error { _, err := c.signal(ctx, name, "KILL"); return err })
	case "power off", "reboot", "shut down":
		c.powerOff(f, name)
	case "one returns", "all off":
		c.allOff(f, name)
	case "pause":
		c.pause(f, name)
	case "cut", "cut one way", "cut off":
		c.cut(f)
	case "reject":
		peer := c.other(f.member, r.peer)
		f.what += " what comes from " + c.members[peer]
		c.filters(f, ipv4, c.rejects(peer, r))
	case "mtu":
		f.what += ": frames of more than 1400 bytes are lost"
		c.filters(f, ipv4, blackHole)
	case "loss":
		f.what += fmt.Sprintf(" of %d %% of all packets", r.part)
		c.filters(f, ipv4, loses(r.part))
	case "rate":
		c.throttle(f, name)
	case "corrupt":
		f.what += fmt.Sprintf(": %d %% of all packets", r.part)
		c.filters(f, ipv4, corrupts(r.part))
	case "twice":
		f.what += ": all that it sends to the other nodes"
		c.filters(f, ipv4, c.repeats(f.member))
	case "arp":
		f.what += ": what it asks, answers and announces is lost"
		c.filters(f, arp, mute)
	case "pull", "flap", "address":
		c.unplug(f, name)
	case "cpu":
		c.starve(f, name)
	case "stranger":
		c.stranger(f)
	case "memory", "files", "processes", "disk full", "read-only":
		c.sicken(f, name)
	case "move", "stop and start", "apply":
		c.operator(f, name)
	}
	if f.end != nil {
		f.what += fmt.Sprintf(" for %.1f s", r.length.Seconds())
	}
	return f
}

// throttle lets a machine send so little that heartbeats wait up to a second in
// a queue, and are lost when that is full.
func (c *chaos) throttle(f *fault, name string) {
	rate := fmt.Sprintf("%dkbit", 5*f.part)
	f.what += " sends at most " + rate + "/s"
	f.begin = func(ctx context.Context) error {
		_, err := c.Do(ctx, name, "sh", "-c", `for n in eth0 eth1; do tc qdisc replace dev $n root tbf rate "$1" burst 4kb latency 1s || exit 1; done`, "sh", rate)
		return err
	}
	f.end = func(ctx context.Context) error { return c.cure(ctx, name) }
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
	switch f.kind {
	case "power off":
		f.end = boot
		return
	case "shut down":
		f.begin = func(ctx context.Context) error {
			if _, err := c.Lab.Service(ctx, name, "stop"); err != nil {
				return err
			}
			return c.Lab.Kill(ctx, name)
		}
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
			peers = append(peers, c.Client, gate)
			if c.hosted {
				peers = append(peers, hypervisor)
			}
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

// again does something at once and then every so often, until the end.
func (c *chaos) again(f *fault, every time.Duration, do func(context.Context) error) {
	var over context.CancelFunc
	done := make(chan struct{})
	f.begin = func(ctx context.Context) error {
		ctx, over = context.WithCancel(ctx)
		err := do(ctx)
		go func() {
			defer close(done)
			for wait(ctx, every) == nil {
				if err := do(ctx); err != nil && ctx.Err() == nil {
					c.seen.say("  %s: %v", f.kind, err)
				}
			}
		}()
		return err
	}
	f.end = func(context.Context) error {
		over()
		<-done
		return nil
	}
}

const (
	killEvery = 2 * time.Second
	flapEvery = 300 * time.Millisecond
)

// unplug takes a machine's interface away for a time, or over and over, or only
// its address.
func (c *chaos) unplug(f *fault, name string) {
	f.what += " " + f.nic
	switch f.kind {
	case "pull":
		f.begin = func(ctx context.Context) error { return c.Lab.Pull(ctx, name, f.nic) }
		f.end = func(ctx context.Context) error { return c.Lab.Plug(ctx, name, f.nic) }
		return
	case "address":
		f.what += " loses its own address"
		f.begin = func(ctx context.Context) error { return c.ownAddress(ctx, f.member, f.nic, false) }
		f.end = func(ctx context.Context) error { return c.ownAddress(ctx, f.member, f.nic, true) }
		return
	}
	in := true
	c.again(f, flapEvery, func(ctx context.Context) error {
		if in = !in; in {
			return c.Lab.Plug(ctx, name, f.nic)
		}
		return c.Lab.Pull(ctx, name, f.nic)
	})
}

// allOff takes the power from all members at once. They all return at the end,
// or one of them before.
func (c *chaos) allOff(f *fault, name string) {
	off := c.members
	f.what = f.kind + ": all members are off"
	if f.kind == "one returns" {
		off = c.members[:c.owners]
		f.what = fmt.Sprintf("%s: %s are off, %s is first", f.kind, strings.Join(off, ", "), name)
	}
	each := func(do func(m string) error) error {
		errs := make(chan error, len(off))
		for _, m := range off {
			go func() { errs <- do(m) }()
		}
		var all []error
		for range off {
			all = append(all, <-errs)
		}
		return errors.Join(all...)
	}
	boot := func(ctx context.Context, m string) error {
		c.seen.pause(slices.Index(c.members, m), false)
		if info, err := c.Lab.Machine(ctx, m); err != nil || info.State != lab.Off {
			return err
		}
		return c.Lab.Boot(ctx, m)
	}
	f.begin = func(ctx context.Context) error {
		err := each(func(m string) error { return c.Lab.Kill(ctx, m) })
		if f.kind != "one returns" || !slices.Contains(off, name) {
			return err
		}
		return errors.Join(err, wait(ctx, f.length/4), boot(ctx, name))
	}
	f.end = func(ctx context.Context) error {
		return each(func(m string) error { return boot(ctx, m) })
	}
}

// stranger lets a machine that is none of ours have the floating address.
func (c *chaos) stranger(f *fault) {
	f.what = "stranger: " + gate + " has the floating address"
	f.begin = func(ctx context.Context) error { return c.claim(ctx, true) }
	f.end = func(ctx context.Context) error { return c.claim(ctx, false) }
}

// claim gives the floating address to the gate, and says so, or takes it away.
func (c *chaos) claim(ctx context.Context, on bool) error {
	return c.Lab.Do(ctx, gate, func() error {
		if err := setAddress("eth0", c.floating(), on); err != nil || !on {
			return err
		}
		network, err := host.NewLinux()
		if err != nil {
			return err
		}
		defer network.Close()
		return network.Announce("eth0", c.floating())
	})
}

// ownAddress takes a machine's own address off, or puts it back.
func (c *chaos) ownAddress(ctx context.Context, member int, nic string, on bool) error {
	return c.Lab.Do(ctx, c.members[member], func() error { return setAddress(nic, c.address(member, nic), on) })
}

// setAddress takes an address off in the caller's namespace, or puts it there;
// either may be so already.
func setAddress(nic string, a netip.Addr, on bool) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName(nic)
	if err != nil {
		return err
	}
	addr, do, already := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}, nl.AddrDel, unix.EADDRNOTAVAIL
	if on {
		do, already = nl.AddrAdd, unix.EEXIST
	}
	if err := do(link, addr); !errors.Is(err, already) {
		return err
	}
	return nil
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
	errs := []error{c.Lab.HealAll(ctx), c.claim(ctx, false)}
	for i, m := range c.members {
		errs = append(errs, c.repairMachine(ctx, i, m))
	}
	return errors.Join(append(errs, c.startAgain(ctx))...)
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
	errs := []error{err, c.filter(ctx, i, ipv4, nil), c.filter(ctx, i, arp, nil), c.cure(ctx, m)}
	for _, n := range info.NICs {
		if !n.Plugged {
			errs = append(errs, c.Lab.Plug(ctx, m, n.Name))
		}
		errs = append(errs, c.ownAddress(ctx, i, n.Name, true))
	}
	if svc, err := c.Lab.Service(ctx, m, "status"); err == nil && !svc.Running && svc.Crashes == 0 {
		_, err = c.Lab.Service(ctx, m, "start")
		errs = append(errs, err)
	}
	if _, err := c.signal(ctx, m, "CONT"); err != nil && info.State == lab.Up {
		c.seen.say("repair %s: %v", m, err) // it may just be restarting
	}
	return errors.Join(errs...)
}

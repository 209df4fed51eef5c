// Package floatingip is the resource kind floating-ip: an address that follows
// its group. It asks the network for other users of the address before it takes
// it, tells the network at once where the address is now, goes on telling while
// it is active, and notices when somebody takes the address away.
package floatingip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/host"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// probes is how often the network is asked within the duplicate check (RFC 5227
// asks three times).
const probes = 3

// Options is what a Driver needs. Network must be set.
type Options struct {
	Network host.Network
	Log     *slog.Logger
	Failed  func(resource.Failure) // called from Run, not under any lock; must not block
	Notice  func(resource.Notice)  // called from any goroutine, not under any lock
	Nodes   func() []config.Node   // of the cluster file in force
}

// Driver is the resource.Driver of floating addresses. Run must run beside it:
// announcements after the first and the watch are done there.
type Driver struct {
	net    host.Network
	log    *slog.Logger
	failed func(resource.Failure)
	tell   func(resource.Notice)
	nodes  func() []config.Node
	guards sync.WaitGroup
	wake   chan struct{} // capacity 1: something in held changed

	mu    sync.Mutex // held over every change of an address and every announcement
	held  map[cluster.ResourceName]*holding
	ended bool // Run has: nothing is watched any more
}

var _ resource.Driver = (*Driver)(nil)

// holding is an address that is active here, or was until it was isolated.
type holding struct {
	group    cluster.GroupName
	resource cluster.ResourceName
	epoch    cluster.Epoch
	at       host.Address
	isolated bool
	plan     schedule
	guarded  host.Address // as at was in the beginning
	unguard  context.CancelFunc
	ask      time.Duration // how long the guard asks for others when it begins; 0: that was done
}

// New returns a driver that holds nothing yet.
func New(o Options) *Driver {
	d := &Driver{
		net: o.Network, log: o.Log, failed: o.Failed, tell: o.Notice, nodes: o.Nodes,
		wake: make(chan struct{}, 1), held: map[cluster.ResourceName]*holding{},
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.failed == nil {
		d.failed = func(resource.Failure) {}
	}
	if d.tell == nil {
		d.tell = func(resource.Notice) {}
	}
	if d.nodes == nil {
		d.nodes = func() []config.Node { return nil }
	}
	return d
}

// Start takes the address and announces it. An address that is on this node
// already is announced only. One that another node has just handed over is
// taken at once, and the network asked for other users while it is active.
func (d *Driver) Start(ctx context.Context, t resource.Task) error {
	fip, err := settings(t)
	if err != nil {
		return err
	}
	at, here, err := d.net.HasAddress(fip.Address)
	if err != nil {
		return err
	}
	var rival net.HardwareAddr
	if !here {
		if at, err = d.choose(fip); err != nil {
			return err
		}
		if !t.Handed {
			rival, err = d.free(ctx, t, at.Device)
		}
		if err != nil {
			return err
		}
	}
	return d.take(ctx, t, at, rival)
}

// Stop takes the address off and makes sure that it is off.
func (d *Driver) Stop(_ context.Context, t resource.Task) error {
	fip, err := settings(t)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// Also if the removal fails: what is to go must not be announced again.
	d.letGo(t.Resource.Name)
	return d.remove(fip.Address)
}

// Force tries again to take the address off every interface, whatever single
// removals come to; what counts is that it is nowhere at the end.
func (d *Driver) Force(ctx context.Context, t resource.Task) (string, error) {
	for {
		err := d.Stop(ctx, t)
		if err == nil {
			return "the address is on no interface of this node any more", nil
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(forceEvery):
		}
	}
}

// forceEvery is how often Force tries to take an address off.
const forceEvery = 200 * time.Millisecond

// Check says whether the address is on this node. If it is, it is announced and
// watched from now on.
func (d *Driver) Check(ctx context.Context, t resource.Task) (bool, error) {
	fip, err := settings(t)
	if err != nil {
		return false, err
	}
	at, here, err := d.net.HasAddress(fip.Address)
	if err != nil || !here {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.held[t.Resource.Name]; h != nil && !h.isolated {
		h.epoch = t.Epoch
		return true, nil
	}
	d.hold(ctx, t, at, nil)
	return true, nil
}

// Isolate takes the address off at once; the watch does not take that for a
// failure.
func (d *Driver) Isolate(_ context.Context, t resource.Task) error {
	fip, err := settings(t)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.held[t.Resource.Name]; h != nil {
		h.isolated = true
		h.unguard()
	}
	return d.remove(fip.Address)
}

// Restore puts the address back where it was and announces it, without asking
// the network first: nobody else was allowed to take it.
func (d *Driver) Restore(ctx context.Context, t resource.Task) error {
	fip, err := settings(t)
	if err != nil {
		return err
	}
	d.mu.Lock()
	h := d.held[t.Resource.Name]
	d.mu.Unlock()
	if h != nil {
		return d.take(ctx, t, h.at, nil)
	}
	at, err := d.choose(fip)
	if err != nil {
		return err
	}
	return d.take(ctx, t, at, nil)
}

func settings(t resource.Task) (*config.FloatingIP, error) {
	fip := t.Resource.FloatingIP
	if fip == nil || !fip.Address.IsValid() {
		return nil, fmt.Errorf("resource %s has no address", t.Resource.Name)
	}
	return fip, nil
}

// choose says where the address goes.
func (d *Driver) choose(fip *config.FloatingIP) (host.Address, error) {
	list, err := d.net.Addresses()
	if err != nil {
		return host.Address{}, err
	}
	if fip.Device != "" {
		list = slices.DeleteFunc(list, func(a host.Address) bool { return a.Device != fip.Device })
	}
	device, bits, err := host.Choose(list, fip.Address)
	if err != nil && (fip.Device == "" || fip.Prefix == 0) {
		return host.Address{}, noSubnet(fip)
	}
	if fip.Device != "" {
		device = fip.Device
	}
	if fip.Prefix != 0 {
		bits = fip.Prefix
	}
	return host.Address{Device: device, Prefix: netip.PrefixFrom(fip.Address, bits)}, d.usable(device)
}

func noSubnet(fip *config.FloatingIP) error {
	e := &api.Error{
		Code:    "no-subnet",
		Message: fmt.Sprintf("no interface of this node has a subnet with the address %s", fip.Address),
		Hint:    "give this node an address of that subnet, or name the device and the prefix of the floating IP in the cluster file",
	}
	if fip.Device != "" {
		e.Message = fmt.Sprintf("the interface %s has no subnet with the address %s", fip.Device, fip.Address)
		e.Hint = "set the prefix of the floating IP in the cluster file, or leave its device out"
	}
	return e
}

// usable refuses an interface that is missing or switched off. One without a
// carrier will do: the cable may come back, and a monitor judges that.
func (d *Driver) usable(device string) error {
	links, err := d.net.Links()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(links, func(k host.Link) bool { return k.Name == device })
	switch {
	case i < 0:
		return &api.Error{
			Code: "no-device", Message: fmt.Sprintf("this node has no interface %s", device),
			Hint: "ip link shows the names of the interfaces",
		}
	case !links[i].Up:
		return &api.Error{
			Code: "device-down", Message: fmt.Sprintf("the interface %s is switched off", device),
			Hint: fmt.Sprintf("switch it on: ip link set %s up", device),
		}
	case !links[i].Carrier:
		d.log.Warn("the interface of a floating address has no carrier", "device", device)
	}
	return nil
}

// take puts the address on the interface, announces it, and holds it from now
// on, against a rival if there is one.
func (d *Driver) take(ctx context.Context, t resource.Task, at host.Address, rival net.HardwareAddr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.net.AddAddress(at.Device, at.Prefix); err != nil {
		return err
	}
	h := d.hold(ctx, t, at, rival)
	h.plan.sent(time.Now())
	if err := d.net.Announce(at.Device, at.Prefix.Addr()); err != nil {
		d.log.Warn("an announcement failed; more follow", "address", at.Prefix.Addr(), "err", err)
	}
	return nil
}

// hold begins to announce and watch the address. The caller has the lock.
func (d *Driver) hold(ctx context.Context, t resource.Task, at host.Address, rival net.HardwareAddr) *holding {
	d.letGo(t.Resource.Name)
	ctx, unguard := context.WithCancel(context.WithoutCancel(ctx)) // it outlives the step
	fip := t.Resource.FloatingIP
	h := &holding{
		group: t.Group.Name, resource: t.Resource.Name, epoch: t.Epoch, at: at,
		plan: newSchedule(time.Now(), fip.AnnounceCount, fip.AnnounceEvery), guarded: at, unguard: unguard,
	}
	d.held[t.Resource.Name] = h
	if t.Handed {
		h.ask = fip.DuplicateCheck
	}
	if !d.ended {
		d.guards.Go(func() { d.guard(ctx, h, rival) })
	}
	d.poke()
	return h
}

// letGo ends announcing and watching an address, if it is held. The caller has
// the lock.
func (d *Driver) letGo(name cluster.ResourceName) {
	if h := d.held[name]; h != nil {
		h.unguard()
		delete(d.held, name)
	}
}

func (d *Driver) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// remove takes the address off every interface that has it. The caller has the
// lock, so nothing announces the address meanwhile or after.
func (d *Driver) remove(a netip.Addr) error {
	const most = 8 // interfaces that could have it; one is usual
	for range most {
		at, here, err := d.net.HasAddress(a)
		if err != nil {
			return err
		}
		if !here {
			return nil
		}
		if err := d.net.RemoveAddress(at.Device, at.Prefix); err != nil {
			return err
		}
	}
	return errors.New("the address is still there after its removal: " + a.String())
}

package floatingip

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/host"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// Times of a conflict about an address.
const (
	// askEvery is how often a start that waits asks again.
	askEvery = 500 * time.Millisecond
	// knowWithin bounds the question which node has a MAC.
	knowWithin = 100 * time.Millisecond
	// defendEvery is how often an active address that somebody else claims too
	// is announced, and the other asked for. RFC 5227, 2.4 (c) lets a host
	// defend an address for good; it asks for at least some rest in between.
	defendEvery = time.Second
	// defendAsk is how long the other is given to answer.
	defendAsk = 200 * time.Millisecond
	// quietAfter is how long nothing may be heard of the other until the conflict
	// is over.
	quietAfter = 3 * time.Second
	// watchAgain is the pause after a watch that failed: an interface that was
	// switched off, for example.
	watchAgain = time.Second
)

// free makes sure that nobody who may use the address does. It returns the MAC
// of a node whose right to it has ended, and that still answers: the address is
// to be taken and defended. A start after a failure waits for others.
func (d *Driver) free(ctx context.Context, t resource.Task, device string) (net.HardwareAddr, error) {
	fip := t.Resource.FloatingIP
	if fip.DuplicateCheck <= 0 {
		return nil, ctx.Err()
	}
	until := time.Now()
	if t.Event == "FAILOVER" {
		until = until.Add(fip.TakeoverWait)
	}
	for told := false; ; told = true {
		mac, err := d.net.Probe(ctx, device, fip.Address, fip.DuplicateCheck, probes)
		if err != nil {
			return nil, fmt.Errorf("ask for other users of the address: %w", err)
		}
		if mac == nil {
			return nil, nil
		}
		node := d.nodeOf(ctx, device, mac)
		if node != "" && slices.Contains(t.Ended, node) && fip.OnConflict == config.ConflictClaim {
			d.notice(t.Group.Name, t.Resource.Name, t.Cause, cluster.LevelWarn, "address-claimed",
				"The address %s is still answered by %s, whose right to it has ended: it is taken and defended.", fip.Address, who(mac, node))
			return mac, nil
		}
		left := time.Until(until)
		if left <= 0 {
			return nil, inUse(fip, device, mac, node)
		}
		if !told {
			d.notice(t.Group.Name, t.Resource.Name, t.Cause, cluster.LevelWarn, "address-wait",
				"The address %s is in use by %s: the start waits up to %s for it.", fip.Address, who(mac, node), fip.TakeoverWait)
		}
		select {
		case <-time.After(min(askEvery, left)):
		case <-ctx.Done():
			return nil, inUse(fip, device, mac, node)
		}
	}
}

func inUse(fip *config.FloatingIP, device string, mac net.HardwareAddr, node cluster.NodeName) error {
	e := &api.Error{
		Code:    "address-in-use",
		Message: fmt.Sprintf("the address %s is in use by %s, seen on %s", fip.Address, who(mac, node), device),
		Hint:    "find the machine with that hardware address, or choose another floating IP",
	}
	if node != "" {
		e.Hint = fmt.Sprintf("take the address off on %s (ip address del), or switch that node off", node)
	}
	return e
}

// who names the other user of an address.
func who(mac net.HardwareAddr, node cluster.NodeName) string {
	if node == "" {
		return mac.String() + " (no known node of this cluster)"
	}
	return fmt.Sprintf("%s (node %s)", mac, node)
}

// nodeOf returns the node that answers with that MAC for one of its own
// addresses on the network of the device, or "".
func (d *Driver) nodeOf(ctx context.Context, device string, mac net.HardwareAddr) cluster.NodeName {
	var mu sync.Mutex
	var found cluster.NodeName
	var wg sync.WaitGroup
	for _, n := range d.nodes() {
		for _, a := range n.Addresses {
			if on, _, err := d.net.InterfaceFor(a); err != nil || on != device {
				continue
			}
			wg.Go(func() {
				got, err := d.net.Probe(ctx, device, a, knowWithin, 1)
				if err != nil || !bytes.Equal(got, mac) {
					return
				}
				mu.Lock()
				found = n.Name
				mu.Unlock()
			})
		}
	}
	wg.Wait()
	return found
}

func (d *Driver) notice(g cluster.GroupName, r cluster.ResourceName, cause cluster.EventID, level cluster.Level, code, format string, args ...any) {
	d.tell(resource.Notice{Level: level, Code: code, Text: fmt.Sprintf(format, args...), Group: g, Resource: r, Cause: cause})
}

// rival is somebody else who claims an address that is active here.
type rival struct {
	mac      net.HardwareAddr // nil: nobody does
	heard    time.Time
	defended time.Time
	told     []net.HardwareAddr // at most mostRivals
}

// mostRivals is how many others a conflict names.
const mostRivals = 8

// guard watches for others who claim the address, and defends it against them,
// until ctx ends. A first rival may be known from the start.
func (d *Driver) guard(ctx context.Context, h *holding, first net.HardwareAddr) {
	claims := make(chan net.HardwareAddr, 1) // what does not fit comes again
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		d.watchClaims(ctx, h.guarded, claims)
	}()
	now := time.Now()
	r := rival{mac: first, heard: now, defended: now}
	if first != nil {
		r.told = append(r.told, first)
	}
	if h.ask > 0 {
		d.askFirst(ctx, h, &r)
	}
	tick := time.NewTicker(defendEvery)
	defer tick.Stop()
	for {
		if r.mac == nil {
			tick.Stop()
		}
		select {
		case <-ctx.Done():
			<-watched
			return
		case mac := <-claims:
			if r.mac == nil {
				tick.Reset(defendEvery)
			}
			d.claimed(ctx, h, &r, mac)
		case <-tick.C:
			d.contend(ctx, h, &r)
		}
	}
}

// askFirst asks for other users of an address that was taken without asking.
func (d *Driver) askFirst(ctx context.Context, h *holding, r *rival) {
	mac, err := d.net.Probe(ctx, h.guarded.Device, h.guarded.Prefix.Addr(), h.ask, probes)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		d.log.Warn("nobody asked for other users of an address", "address", h.guarded.Prefix.Addr(), "err", err)
	case mac != nil:
		d.claimed(ctx, h, r, mac)
	}
}

// watchClaims passes on what others claim until ctx ends.
func (d *Driver) watchClaims(ctx context.Context, at host.Address, claims chan<- net.HardwareAddr) {
	for ctx.Err() == nil {
		err := d.net.WatchClaims(ctx, at.Device, at.Prefix.Addr(), func(mac net.HardwareAddr) {
			select {
			case claims <- mac:
			default:
			}
		})
		if err == nil {
			continue
		}
		d.log.Warn("nobody watches for other users of an address", "address", at.Prefix.Addr(), "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// claimed takes in that somebody else says that the address is his.
func (d *Driver) claimed(ctx context.Context, h *holding, r *rival, mac net.HardwareAddr) {
	if d.own(mac) {
		return
	}
	now := time.Now()
	r.heard = now
	if now.Sub(r.defended) >= defendEvery {
		r.defended = now
		d.defend(h)
	}
	r.mac = mac
	known := func(m net.HardwareAddr) bool { return bytes.Equal(m, mac) }
	if len(r.told) == mostRivals || slices.ContainsFunc(r.told, known) {
		return
	}
	r.told = append(r.told, mac)
	d.notice(h.group, h.resource, "", cluster.LevelError, "address-conflict",
		"The address %s of resource %s is also claimed by %s: clients may reach either; this node announces it every %s.",
		h.guarded.Prefix.Addr(), h.resource, who(mac, d.nodeOf(ctx, h.guarded.Device, mac)), defendEvery)
}

// contend asks whether the rival is still there, and answers it.
func (d *Driver) contend(ctx context.Context, h *holding, r *rival) {
	mac, err := d.net.Probe(ctx, h.guarded.Device, h.guarded.Prefix.Addr(), defendAsk, 1)
	now := time.Now()
	switch {
	case ctx.Err() != nil:
	case err == nil && mac != nil && !d.own(mac):
		r.heard, r.defended = now, now
		d.defend(h)
	case now.Sub(r.heard) >= quietAfter:
		d.notice(h.group, h.resource, "", cluster.LevelInfo, "address-conflict-over",
			"The address %s of resource %s is claimed by nobody else any more.", h.guarded.Prefix.Addr(), h.resource)
		*r = rival{}
		d.again(h)
	}
}

// own says whether an interface of this node has the MAC.
func (d *Driver) own(mac net.HardwareAddr) bool {
	links, err := d.net.Links()
	return err == nil && slices.ContainsFunc(links, func(k host.Link) bool { return bytes.Equal(k.MAC, mac) })
}

// defend announces the address, if it is still active here.
func (d *Driver) defend(h *holding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held[h.resource] != h || h.isolated {
		return
	}
	if err := d.net.Announce(h.guarded.Device, h.guarded.Prefix.Addr()); err != nil {
		d.log.Warn("an announcement failed", "address", h.guarded.Prefix.Addr(), "err", err)
	}
}

// Announce begins a new burst of announcements, if the address is active here:
// others may have heard of another owner meanwhile.
func (d *Driver) Announce(t resource.Task) {
	d.mu.Lock()
	h := d.held[t.Resource.Name]
	d.mu.Unlock()
	if h != nil && !h.isolated {
		d.again(h)
	}
}

// again begins a new burst of announcements.
func (d *Driver) again(h *holding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h.plan = h.plan.again(time.Now())
	d.poke()
}

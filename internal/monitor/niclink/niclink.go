// Package niclink watches the carrier of a network interface. It is told by the
// kernel about every change and does not poll.
package niclink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/monitor"
)

// The codes of what is wrong. CodeDown is the number that CLUSTERPRO gives.
const (
	CodeDown    = 20
	CodeMissing = 21
)

// LinkWatcher tells about network interfaces.
type LinkWatcher interface {
	// WatchLinks calls back for every interface that exists at the start and
	// for every later change, until ctx ends. exists is false when an interface
	// was removed or renamed.
	WatchLinks(ctx context.Context, changed func(name string, carrier, exists bool)) error
}

// settle is how long after the start an interface that nobody told about is
// missing.
const settle = time.Second

// repeatEvery is how often a bad state is reported again where the monitor has
// retries but no interval.
const repeatEvery = time.Second

// Driver is the kind nic-link.
type Driver struct {
	links LinkWatcher
}

// New returns the kind nic-link.
func New(links LinkWatcher) *Driver { return &Driver{links: links} }

// link is one state of the interface.
type link struct{ carrier, exists bool }

// Watch reports the state at the start and every change of it. Where the
// monitor has retries, a bad state is reported again every interval, so that
// there is something to count.
func (d *Driver) Watch(ctx context.Context, env monitor.Env, m config.Monitor, report func(monitor.Probe)) error {
	device := deviceOn(env, m)
	if device == "" {
		return fmt.Errorf("monitor %s names no device on node %s", m.Name, env.Node)
	}
	watching, cancel := context.WithCancel(ctx)
	changes, ended := make(chan link), make(chan struct{})
	var err error // of the watcher; to be read after ended
	go func() {
		defer close(ended)
		err = d.links.WatchLinks(watching, func(name string, carrier, exists bool) {
			if name != device {
				return
			}
			select {
			case changes <- link{carrier: carrier && exists, exists: exists}:
			case <-watching.Done():
			}
		})
	}()
	follow(ctx, device, m, changes, ended, report)
	cancel()
	<-ended
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = errors.New("the kernel's link events ended")
	}
	return fmt.Errorf("watch the link of %s: %w", device, err)
}

// follow reports until ctx or the watching of links ends.
func follow(ctx context.Context, device string, m config.Monitor, changes <-chan link, ended <-chan struct{}, report func(monitor.Probe)) {
	var now link
	known := false
	alarm := time.NewTimer(settle)
	defer alarm.Stop()
	tell := func() {
		report(probe(m, device, now))
		alarm.Stop()
		if m.Retries > 0 && !now.carrier {
			alarm.Reset(every(m))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			return
		case next := <-changes:
			if known && next == now {
				continue
			}
			now, known = next, true
			tell()
		case <-alarm.C:
			known = true // silence until now means that it is missing
			tell()
		}
	}
}

func every(m config.Monitor) time.Duration {
	if m.Interval > 0 {
		return m.Interval
	}
	return repeatEvery
}

func probe(m config.Monitor, device string, l link) monitor.Probe {
	p := monitor.Probe{Monitor: m.Name, Good: l.carrier, At: time.Now()}
	switch {
	case !l.exists:
		p.Code, p.Text = CodeMissing, fmt.Sprintf("NIC %s does not exist.", device)
	case !l.carrier:
		p.Code, p.Text = CodeDown, fmt.Sprintf("NIC %s link was down.", device)
	}
	return p
}

// deviceOn returns the device that the monitor watches on this node.
func deviceOn(env monitor.Env, m config.Monitor) string {
	if m.NICLink == nil {
		return ""
	}
	if own, ok := m.NICLink.PerNode[env.Node]; ok {
		return own
	}
	return m.NICLink.Device
}

// Package mirror has the two monitors of a mirror disk. Kind mirror watches the copy
// on its own node: it is bad while that copy could not take the group over. Kind
// mirror-connect watches the connection between the two copies. Neither asks
// anybody: the processes that serve the copies say how they are, and say so at once.
//
// The codes and sentences, which stay as they are:
//
//	kind            code  verdict  sentence
//	mirror          0     good     (none) or: The copy of mirror disk R on this node is being brought up to date (P %).
//	                               or: The disk of the copy of mirror disk R on this node had an error.
//	mirror          50    bad      The copy of mirror disk R on this node is out of date.
//	mirror          51    bad      The two copies of mirror disk R were written apart from each other (split brain).
//	mirror          52    bad      The copy of mirror disk R on this node has failed: why.
//	mirror          53    bad      Nothing is known about the copy of mirror disk R on this node: why.
//	mirror-connect  0     good     (none)
//	mirror-connect  55    bad      The two copies of mirror disk R are not connected: why.
//	mirror-connect  53    bad      as of kind mirror
package mirror

import (
	"context"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/monitor"
)

// The codes of what is wrong.
const (
	CodeOutdated = 50
	CodeSplit    = 51
	CodeFailed   = 52
	CodeUnknown  = 53
	CodeApart    = 55
)

const (
	defaultInterval = 10 * time.Second // of a monitor that names none
	// settle is how long nothing may be known after the start of the daemon without
	// being told, and settleEvery how often it is looked meanwhile: the process that
	// serves the copy may only just have been started.
	settle      = 5 * time.Second
	settleEvery = 100 * time.Millisecond
)

// Copies returns what the copy of a mirror disk on this node said of itself last;
// false where nothing is known. It must not wait.
type Copies func(cluster.ResourceName) (api.MirrorCopy, bool)

// Driver is one of the two kinds.
type Driver struct {
	copies Copies
	judge  func(cluster.ResourceName, api.MirrorCopy) monitor.Probe
}

// New returns the kind mirror.
func New(c Copies) *Driver { return &Driver{c, ofCopy} }

// NewConnect returns the kind mirror-connect.
func NewConnect(c Copies) *Driver { return &Driver{c, ofConnection} }

// Watch reports what is known at every interval, first as soon as something is.
func (d *Driver) Watch(ctx context.Context, _ monitor.Env, m config.Monitor, report func(monitor.Probe)) error {
	if m.Mirror == nil || m.Mirror.Resource == "" {
		return fmt.Errorf("monitor %s names no mirror disk", m.Name)
	}
	every := m.Interval
	if every <= 0 {
		every = defaultInterval
	}
	d.await(ctx, m.Mirror.Resource)
	if ctx.Err() != nil {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		c := d.look(m.Mirror.Resource)
		p := d.judge(m.Mirror.Resource, c)
		p.Monitor, p.At = m.Name, time.Now()
		report(p)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (d *Driver) look(r cluster.ResourceName) api.MirrorCopy {
	if c, known := d.copies(r); known {
		return c
	}
	return api.MirrorCopy{State: api.MirrorUnknown}
}

// await waits until something is known, or long enough.
func (d *Driver) await(ctx context.Context, r cluster.ResourceName) {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for d.look(r).State == api.MirrorUnknown {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ofCopy judges the copy on this node.
func ofCopy(r cluster.ResourceName, c api.MirrorCopy) monitor.Probe {
	switch c.State {
	case api.MirrorInSync:
		p := monitor.Probe{Good: true}
		if c.DiskError {
			p.Text = fmt.Sprintf("The disk of the copy of mirror disk %s on this node had an error.", r)
		}
		return p
	case api.MirrorCopying:
		return monitor.Probe{Good: true, Text: fmt.Sprintf("The copy of mirror disk %s on this node is being brought up to date (%.0f %%).", r, c.Percent)}
	case api.MirrorOutdated:
		return bad(CodeOutdated, "The copy of mirror disk %s on this node is out of date.", r)
	case api.MirrorSplit:
		return bad(CodeSplit, "The two copies of mirror disk %s were written apart from each other (split brain).", r)
	case api.MirrorFailed:
		return bad(CodeFailed, "The copy of mirror disk %s on this node has failed%s.", r, why(c))
	}
	return unknown(r, c)
}

// ofConnection judges the connection.
func ofConnection(r cluster.ResourceName, c api.MirrorCopy) monitor.Probe {
	switch {
	case c.State == api.MirrorUnknown && !c.Connected:
		return unknown(r, c)
	case !c.Connected:
		return bad(CodeApart, "The two copies of mirror disk %s are not connected%s.", r, why(c))
	}
	return monitor.Probe{Good: true}
}

func unknown(r cluster.ResourceName, c api.MirrorCopy) monitor.Probe {
	return bad(CodeUnknown, "Nothing is known about the copy of mirror disk %s on this node%s.", r, why(c))
}

func bad(code int, format string, args ...any) monitor.Probe {
	return monitor.Probe{Code: code, Text: fmt.Sprintf(format, args...)}
}

func why(c api.MirrorCopy) string {
	if c.Text == "" {
		return ""
	}
	return ": " + c.Text
}

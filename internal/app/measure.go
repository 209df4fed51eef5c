package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/metrics"
	"github.com/tasuki-ha/tasuki/internal/resource/mirrordisk"
)

// measure makes what Prometheus can scrape of this daemon.
func (d *Daemon) measure() {
	d.metrics = metrics.New(metrics.Options{Cluster: d.id.Cluster(), Node: d.node, Version: d.opt.Version, Look: d.look})
	d.stalls.late, d.stalls.took = d.metrics.Late, d.metrics.Wrote
}

// refusalOf returns an error in the form that is counted by its code.
func refusalOf(err error) *api.Error {
	var no *api.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &no):
		return no
	}
	return &api.Error{Code: "failed", Message: err.Error()}
}

// Metrics answers a scrape.
func (d *Daemon) Metrics(w http.ResponseWriter, r *http.Request) { d.metrics.ServeHTTP(w, r) }

// look looks at the daemon for a scrape, and does without what does not answer.
func (d *Daemon) look(within time.Duration) metrics.Look {
	ctx, cancel := context.WithTimeout(d.ctx, within)
	defer cancel()
	l := metrics.Look{Timing: d.file().Timing, Oldest: d.stalls.oldestAck(time.Now()), Beats: d.beats.Stats()}
	var err error
	if l.Status, err = d.Status(ctx); err == nil {
		err = d.inspect(ctx, func(m *engine.Machine) { l.Vitals = m.Vitals(engine.Now()) })
	}
	l.Answers = err == nil
	if l.Answers {
		l.Certs = d.certificates()
	}
	if m, is := d.mirrorDisks(); is {
		for _, f := range m.Figures(ctx) {
			l.Mirrors = append(l.Mirrors, metrics.Mirror(f))
		}
	}
	return l
}

// mirrorDisks returns the driver of mirror disks, if this daemon runs groups.
func (d *Daemon) mirrorDisks() (*mirrordisk.Driver, bool) {
	if d.actor == nil {
		return nil, false
	}
	m, is := d.actor.drivers[config.KindMirrorDisk].(*mirrordisk.Driver)
	return m, is
}

// certificates returns when those end that this node depends on.
func (d *Daemon) certificates() []metrics.Certificate {
	out := []metrics.Certificate{{Name: "node", Expires: d.id.Certificate().NotAfter}}
	number := map[string]int{}
	add := func(name string, ends time.Time) {
		if number[name]++; number[name] > 1 { // an authority that is being replaced has two
			name = fmt.Sprintf("%s %d", name, number[name])
		}
		out = append(out, metrics.Certificate{Name: name, Expires: ends})
	}
	if own, err := identity.ParseCertificates(d.id.CAPEM()); err == nil {
		for _, ca := range own {
			add("authority", ca.NotAfter)
		}
	}
	for _, t := range d.trust() {
		add("authority of link "+string(t.Link), t.CA.NotAfter)
	}
	return out
}

package app

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// lookAtCertificates is how often the certificates are looked at: those of
// nodes are renewed a third of their validity before the end, which leaves many
// looks.
const lookAtCertificates = 6 * time.Hour

// tendCertificates renews this node's certificate in time and warns of those
// that it cannot renew.
func (d *Daemon) tendCertificates(ctx context.Context) error {
	told := map[string]int{}
	every := time.NewTicker(lookAtCertificates)
	defer every.Stop()
	for {
		d.renewCertificate(ctx)
		for _, a := range d.id.Alarms(time.Now(), d.trust()...) {
			if days, known := told[a.What]; known && days == a.Days {
				continue
			}
			told[a.What] = a.Days
			d.record(ctx, api.Event{Level: a.Level, Module: "cert", Code: "certificate-ends", Fields: map[string]string{"certificate": a.What},
				Text: fmt.Sprintf("Certificates: %s (%s).", a.Text, a.Hint)})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

func (d *Daemon) renewCertificate(ctx context.Context) {
	renewed, err := d.id.Renew(time.Now())
	if err != nil {
		d.log.Warn("the certificate of this node could not be renewed", "error", err) // its alarm is an event
		return
	}
	if !renewed {
		return
	}
	if err := d.id.Save(filepath.Join(d.dirs.Etc, dirIdentity)); err != nil {
		d.log.Error("the new certificate could not be saved", "error", err)
	}
	d.record(ctx, api.Event{Level: cluster.LevelInfo, Module: "cert", Code: "certificate-renewed",
		Text: fmt.Sprintf("The certificate of this node has been renewed; it is valid until %s.", d.id.Certificate().NotAfter.UTC().Format(time.RFC3339))})
}

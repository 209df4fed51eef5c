package outlet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Delivery is what a receiver gets: one event and where it comes from. This is the
// JSON that webhooks and commands get.
type Delivery struct {
	Cluster cluster.Name     `json:"cluster"`
	Outlet  string           `json:"outlet"`
	From    cluster.NodeName `json:"from"`             // the node that delivers, which wrote the event
	Number  uint64           `json:"number"`           // from 1, of this outlet of this node; the same when it comes again
	Missed  uint64           `json:"missed,omitempty"` // events before this one that could not be delivered
	Event   api.Event        `json:"event"`
}

// id is the same whenever the event comes again, and no other event's.
func (d *Delivery) id() string { return string(d.Cluster) + "/" + string(d.Event.ID) }

func (d *Delivery) json() ([]byte, error) {
	data, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write event %s: %w", d.Event.ID, err)
	}
	return data, nil
}

// sink is one kind of receiver. Its methods are called from one goroutine.
type sink interface {
	// deliver returns nil when the receiver has the event, an error with errRefused
	// when it will never take this one, and any other error when it may take it later.
	// It returns soon after ctx has ended.
	deliver(ctx context.Context, d *Delivery) error
	// settle returns nil when the receiver surely has all that was delivered. Until
	// then the sink keeps it, and settle delivers it again where it must.
	settle(ctx context.Context) error
	close()
}

// chooser is a sink that does not take every event.
type chooser interface{ wants(e *api.Event) bool }

// errRefused is said of an event that the receiver understood and does not want.
var errRefused = errors.New("the receiver refuses the event for good")

func newSink(c config.Outlet, j Journal) sink {
	switch c.Kind {
	case config.OutletJournald:
		return &journald{}
	case config.OutletSyslog:
		return newSyslog(c)
	case config.OutletWebhook:
		return &webhook{c: c}
	case config.OutletCommand:
		return &command{argv: c.Command}
	case config.OutletOTLP:
		return &otlp{c: c, journal: j}
	}
	return unknown{kind: c.Kind}
}

// unknown is a kind of a later version.
type unknown struct {
	sure
	kind config.OutletKind
}

func (u unknown) deliver(context.Context, *Delivery) error {
	return fmt.Errorf("this version of Tasuki has no outlets of kind %s", u.kind)
}

func (unknown) close() {}

// sure is for sinks whose receivers have an event when deliver returns.
type sure struct{}

func (sure) settle(context.Context) error { return nil }

package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/guest"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// guestWithin bounds one action on a guest's power, with its confirmation.
const guestWithin = 30 * time.Second

// lookWithin bounds one look at a guest's power.
const lookWithin = 5 * time.Second

// maxSwitching bounds the actions under way, and apart from them the looks: a
// fence does not wait for those who only look. Further ones wait.
const maxSwitching = 16

// power does something with a guest's power and returns what was found after
// it. It is looked at each time, never remembered.
func (d *Daemon) power(ctx context.Context, name cluster.GuestName, a cluster.PowerAction) (cluster.Power, *api.Error) {
	f := d.file()
	g := f.Guest(name)
	if g == nil {
		return "", noSuchGuest(name)
	}
	if d.opt.Witness {
		return "", &api.Error{Code: "witness", Message: "a witness switches no guests", Hint: "ask a node that runs groups"}
	}
	limit, slots := guestWithin, d.switching
	if a == cluster.PowerStatus {
		limit, slots = lookWithin, d.looking
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return "", &api.Error{Code: "timed-out", Message: fmt.Sprintf("%d other guests are being switched or looked at, and did not end in time", maxSwitching), Hint: "ask again"}
	}
	sw, err := guest.New(*g, guest.Options{Libvirt: f.LibvirtSocket, Lab: d.opt.LabPower})
	var p cluster.Power
	if err == nil {
		p, err = sw.Do(ctx, a)
	}
	if err == nil {
		return p, nil
	}
	var e *api.Error
	if !errors.As(err, &e) {
		e = &api.Error{Code: "guest-unknown", Message: err.Error()}
	}
	return "", e
}

// checkGuests says whether the guests of a cluster file can be those of this
// host.
func (d *Daemon) checkGuests(f *config.File) *api.Error {
	for _, g := range f.Guests {
		_, err := guest.New(g, guest.Options{Libvirt: f.LibvirtSocket, Lab: d.opt.LabPower})
		var no *api.Error
		switch {
		case errors.As(err, &no):
			return no
		case err != nil:
			return &api.Error{Code: "config-invalid", Message: err.Error(), Hint: "tasuki config check FILE shows the same"}
		}
	}
	return nil
}

func noSuchGuest(name cluster.GuestName) *api.Error {
	return &api.Error{Code: "no-such-guest", Message: fmt.Sprintf("there is no guest %.64q in the cluster file of this host", name), Hint: "on the host: tasuki guest list, and guests in its cluster file"}
}

// Guests returns the guests of this node with their power as it is now.
func (d *Daemon) Guests(ctx context.Context) ([]api.Guest, error) {
	list := d.file().Guests
	out := make([]api.Guest, len(list))
	var wg sync.WaitGroup
	for i, g := range list {
		wg.Go(func() {
			out[i] = guestOf(g)
			out[i].Power, out[i].Error = d.power(ctx, g.Name, cluster.PowerStatus)
		})
	}
	wg.Wait()
	return out, nil
}

func guestOf(g config.Guest) api.Guest {
	return api.Guest{Name: g.Name, By: fmt.Sprintf("%s %s", g.Kind, g.Target)}
}

// Guest does what an operator wants with a guest's power.
func (d *Daemon) Guest(ctx context.Context, name cluster.GuestName, action string, op api.GuestOp) (api.Guest, error) {
	a := cluster.PowerAction(action)
	g := d.file().Guest(name)
	if g == nil {
		return api.Guest{}, noSuchGuest(name)
	}
	out := guestOf(*g)
	if a != cluster.PowerOff && a != cluster.PowerOn {
		var no *api.Error
		out.Power, no = d.power(ctx, name, a)
		return out, orNil(no)
	}
	var no *api.Error
	out.Power, _, no = d.switchGuest(name, a, op.Cause, map[string]string{}, "the tasuki guest command")
	return out, orNil(no)
}

// switchGuest switches a guest on or off and tells of it. It goes on if the
// asker goes away: whoever looks at the log must find how it ended.
func (d *Daemon) switchGuest(name cluster.GuestName, a cluster.PowerAction, cause cluster.EventID, fields map[string]string, who string) (cluster.Power, cluster.EventID, *api.Error) {
	fields["guest"] = string(name)
	cause = d.record(d.ctx, api.Event{Level: cluster.LevelWarn, Module: "guest", Code: "guest-" + string(a) + "-asked", Cause: cause, Fields: fields,
		Text: fmt.Sprintf("There was a request to power %s guest(%s) from %s.", a, name, who)})
	began := time.Now()
	p, no := d.power(d.ctx, name, a)
	took := time.Since(began).Milliseconds()
	if no != nil {
		d.record(d.ctx, api.Event{Level: cluster.LevelError, Module: "guest", Code: "guest-not-" + string(a), Cause: cause, Fields: fields,
			Text: fmt.Sprintf("Guest %s is not confirmed to be %s (%d ms): %s.", name, a, took, strings.TrimSuffix(no.Message, "."))})
		return "", cause, no
	}
	d.record(d.ctx, api.Event{Level: cluster.LevelInfo, Module: "guest", Code: "guest-" + string(a), Cause: cause, Fields: fields,
		Text: fmt.Sprintf("Guest %s is confirmed to be %s (%d ms).", name, p, took)})
	return p, cause, nil
}

// fence does what the cluster of a guest asks of the guest's power. What is not
// named in the link is not allowed.
func (d *Daemon) fence(ctx context.Context, c httpapi.Caller, link *state.Link, r api.Request) (api.Answer, *api.Error) {
	if r.Action != cluster.PowerOff && r.Action != cluster.PowerStatus {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "action-not-allowed", "a link can ask for off and status; tasuki guest on is for the operator of the host",
			"%s may not ask for a guest's power to be %.32q", c.Link, r.Action)
	}
	if r.Guest == "" && r.Action == cluster.PowerStatus {
		return d.fenceCheck(ctx, c, link, r)
	}
	if !slices.Contains(link.Guests, r.Guest) {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "guest-not-allowed", "on that host: tasuki link list shows the guests; tasuki link invite --guests names others",
			"%s may not ask for the power of guest %.64q", c.Link, r.Guest)
	}
	if d.file().Guest(r.Guest) == nil {
		no := noSuchGuest(r.Guest)
		return api.Answer{}, d.refuseRequest(ctx, c, r, no.Code, no.Hint, "%s", no.Message)
	}
	a := api.Answer{ID: r.ID}
	var no *api.Error
	if r.Action == cluster.PowerStatus {
		a.Power, no = d.power(ctx, r.Guest, r.Action)
	} else {
		a.Power, a.Event, no = d.switchGuest(r.Guest, r.Action, r.Cause, requestFields(c, r), fmt.Sprintf("%s (IP=%s)", c.Link, mapped(c.Addr)))
	}
	a.Text = fmt.Sprintf("guest %s is %s", r.Guest, a.Power)
	return a, no
}

// fenceCheck says whether all guests of a link could be asked for now.
func (d *Daemon) fenceCheck(ctx context.Context, c httpapi.Caller, link *state.Link, r api.Request) (api.Answer, *api.Error) {
	if len(link.Guests) == 0 {
		return api.Answer{}, d.refuseRequest(ctx, c, r, "guest-not-allowed", "on that host: tasuki link invite --guests names them", "%s may not ask for the power of any guest", c.Link)
	}
	var all []string
	for _, g := range link.Guests {
		p, no := d.power(ctx, g, cluster.PowerStatus)
		if no != nil {
			return api.Answer{}, no
		}
		all = append(all, fmt.Sprintf("%s is %s", g, p))
	}
	return api.Answer{ID: r.ID, Text: strings.Join(all, ", ")}, nil
}

package request

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Host is a linked cluster of one node that is the fence device of the guests
// on it. What cannot be confirmed is an error.
type Host struct {
	sender *Sender
	link   cluster.LinkName
}

// Host returns the fence device behind a link. Whether there is such a link is
// looked at when it is used.
func (s *Sender) Host(link cluster.LinkName) *Host { return &Host{s, link} }

// Off has a guest powered off, and returns nil only if the host answers that it
// has looked after that and found it off. cause and chain are the events that
// led to it, for the host's log. It takes until the deadline of ctx at the most,
// or the Sender's Wait if there is none.
func (h *Host) Off(ctx context.Context, guest cluster.GuestName, cause cluster.EventID, chain []api.Event) error {
	_, err := h.power(ctx, api.Request{Verb: cluster.VerbFence, Guest: guest, Action: cluster.PowerOff, Cause: cause, Chain: chain})
	return err
}

// Status says whether a guest has power, as its host finds it now.
func (h *Host) Status(ctx context.Context, guest cluster.GuestName) (cluster.Power, error) {
	return h.power(ctx, api.Request{Verb: cluster.VerbFence, Guest: guest, Action: cluster.PowerStatus})
}

// Check says whether the host can be asked, allows it, and knows the power of
// every guest that it would power off for this cluster.
func (h *Host) Check(ctx context.Context) error {
	_, err := h.ask(ctx, api.Request{Verb: cluster.VerbFence, Action: cluster.PowerStatus})
	return err
}

// power asks and takes only a plain answer.
func (h *Host) power(ctx context.Context, r api.Request) (cluster.Power, error) {
	a, err := h.ask(ctx, r)
	switch {
	case err != nil:
		return "", err
	case a.Power == cluster.Off, a.Power == cluster.On && r.Action != cluster.PowerOff:
		return a.Power, nil
	}
	return "", refuse("bad-answer", "are both of neighboring versions?", "asked for guest %s to be %s, %s answers power %.16q", r.Guest, r.Action, h.link, a.Power)
}

// ask sends a request with an id of its own to every address of the host.
func (h *Host) ask(ctx context.Context, r api.Request) (*api.Answer, error) {
	r.ID = cluster.RequestID(rand.Text())
	req := api.SendRequest{Request: r, Wait: h.sender.o.Wait}
	if end, ok := ctx.Deadline(); ok {
		req.Wait = max(time.Until(end), 1)
	}
	for _, l := range h.sender.o.Links() {
		for _, n := range l.Nodes {
			if l.Name == h.link {
				req.Hosts = append(req.Hosts, fmt.Sprintf("%s/%s", l.Name, n.Name))
			}
		}
	}
	if len(req.Hosts) == 0 {
		return nil, refuse("no-such-link", "on the host: tasuki link invite; here: tasuki link add; tasuki link list shows the links", "this cluster may not ask %q: there is no such link", h.link)
	}
	for _, a := range h.sender.Send(ctx, req) {
		switch {
		case a.Error != nil:
			return nil, a.Error
		case a.Answer != nil:
			return a.Answer, nil
		}
	}
	return nil, refuse("no-answer", mayAct, "%s did not answer", h.link)
}

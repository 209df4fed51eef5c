package journal

import (
	"context"

	"github.com/tasuki-ha/tasuki/api"
)

// Update is what a subscriber receives: an event, or the news that some were
// left out because it was too slow. After Resync it asks Query for what it
// missed; events may then reach it twice.
type Update struct {
	Event  api.Event
	Resync bool
}

// subscriberBuffer is how many updates wait for a subscriber.
const subscriberBuffer = 256

type subscriber struct {
	ch   chan Update
	lost bool // Resync is in the channel, nothing follows until it is taken
	stop func() bool
}

func (s *subscriber) close() {
	s.stop()
	close(s.ch)
}

// Subscribe returns a channel with every event that this node appends or
// learns from now on. It is closed when ctx or the journal ends.
func (j *Journal) Subscribe(ctx context.Context) <-chan Update {
	s := &subscriber{ch: make(chan Update, subscriberBuffer+1)}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		close(s.ch)
		return s.ch
	}
	j.subs[s] = struct{}{}
	s.stop = context.AfterFunc(ctx, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if _, ok := j.subs[s]; ok {
			delete(j.subs, s)
			close(s.ch)
		}
	})
	return s.ch
}

// publish tells all subscribers without waiting for any. The last place of a
// channel is kept for Resync.
func (j *Journal) publish(e api.Event) {
	for s := range j.subs {
		if s.lost && len(s.ch) > 0 {
			continue
		}
		s.lost = len(s.ch) >= subscriberBuffer
		if s.lost {
			s.ch <- Update{Resync: true}
			continue
		}
		s.ch <- Update{Event: e}
	}
}

package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

const (
	gossipEvery = 5 * time.Second
	gossipBatch = 200         // events in one message
	keepWithin  = time.Second // how long others wait for what is brought to the disk here first
)

// gossip keeps every node's journal complete: new events are sent at once, and
// digests are compared now and then for what was lost on the way.
//
// A node tells again, when it is back after a crash, what entries of the agreed log
// have changed, as far as its own journal does not hold those lines. So others hear
// of such a line when it is on the disk here, or they would have it twice.
type gossip struct {
	journal *journal.Journal
	peers   func() []cluster.NodeName
	send    func(to cluster.NodeName, data []byte)
	log     *slog.Logger
	unkept  chan []api.Event // lines that wait for the disk; what does not fit is found by digests
}

// gossipMessage has one field set, or Sum alone.
type gossipMessage struct {
	Events []api.Event     `json:"events,omitempty"`
	Sum    uint64          `json:"sum,omitempty"`    // of the sender's digest
	Digest journal.Digest  `json:"digest,omitempty"` // what the sender holds
	Want   []journal.Range `json:"want,omitempty"`
}

func (g *gossip) tell(to cluster.NodeName, m gossipMessage) {
	data, err := json.Marshal(m)
	if err != nil {
		g.log.Error("an event could not be written for the other nodes", "error", err)
		return
	}
	g.send(to, data)
}

// spread sends new events of this node to all others. It does not wait.
func (g *gossip) spread(events []api.Event) {
	var now, kept []api.Event
	for _, e := range events {
		if e.Fields[engine.FieldEntry] == "" {
			now = append(now, e)
		} else {
			kept = append(kept, e)
		}
	}
	g.tellAll(now)
	if len(kept) > 0 {
		select {
		case g.unkept <- kept:
		default:
		}
	}
}

// runKept sends what has waited for the disk, until ctx ends. A disk that hangs
// holds it up for a moment only: then others may hear it twice, not never.
func (g *gossip) runKept(ctx context.Context) {
	var synced chan struct{} // nil: nothing is being brought to the disk
	for {
		var events []api.Event
		select {
		case <-ctx.Done():
			return
		case events = <-g.unkept:
		}
		if synced == nil {
			synced = make(chan struct{})
			go func() {
				defer close(synced)
				if err := g.journal.Sync(); err != nil {
					g.log.Error("the journal could not be written before others are told", "error", err)
				}
			}()
		}
		select {
		case <-synced:
			synced = nil
		case <-time.After(keepWithin):
		}
		g.tellAll(events)
	}
}

func (g *gossip) tellAll(events []api.Event) {
	if len(events) == 0 {
		return
	}
	for _, n := range g.peers() {
		g.tell(n, gossipMessage{Events: events})
	}
}

// run compares digests until ctx ends.
func (g *gossip) run(ctx context.Context) {
	t := time.NewTicker(gossipEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			sum := g.journal.Digest().Sum()
			for _, n := range g.peers() {
				g.tell(n, gossipMessage{Sum: sum})
			}
		}
	}
}

// take handles a message of another node. It may wait for the disk.
func (g *gossip) take(from cluster.NodeName, data []byte) {
	var m gossipMessage
	if json.Unmarshal(data, &m) != nil {
		return
	}
	switch {
	case len(m.Events) > 0:
		g.journal.Merge(m.Events)
	case len(m.Want) > 0:
		if err := g.journal.Sync(); err != nil {
			g.log.Error("the journal could not be written before others are told", "error", err)
		}
		if events := g.journal.Pick(m.Want, gossipBatch); len(events) > 0 {
			g.tell(from, gossipMessage{Events: events})
		}
	case m.Digest != nil:
		if want := g.journal.Missing(m.Digest, gossipBatch); len(want) > 0 {
			g.tell(from, gossipMessage{Want: want})
		}
	case m.Sum != 0 && m.Sum != g.journal.Digest().Sum():
		g.tell(from, gossipMessage{Digest: g.journal.Digest()})
	}
}

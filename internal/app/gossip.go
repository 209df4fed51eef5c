package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

const (
	gossipEvery = 5 * time.Second
	gossipBatch = 200 // events in one message
)

// gossip keeps every node's journal complete: new events are sent at once, and
// digests are compared now and then for what was lost on the way.
type gossip struct {
	journal *journal.Journal
	peers   func() []cluster.NodeName
	send    func(to cluster.NodeName, data []byte)
	log     *slog.Logger
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

// spread sends new events of this node to all others.
func (g *gossip) spread(events []api.Event) {
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

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

// What a node would tell again after a crash others hear only once its own disk has
// it: when it is sent, when it is asked for, and at once all the same.
func TestOthersHearWhatIsKept(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir, "n1", journal.Options{SyncEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	type sent struct {
		gossipMessage
		onDisk []byte
	}
	out := make(chan sent, 10)
	g := &gossip{journal: j, log: slog.New(slog.DiscardHandler), unkept: make(chan []api.Event, 1),
		peers: func() []cluster.NodeName { return []cluster.NodeName{"n2"} },
		send: func(_ cluster.NodeName, data []byte) {
			var s sent
			if err := json.Unmarshal(data, &s.gossipMessage); err != nil {
				t.Error(err)
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*"))
			for _, f := range files {
				text, _ := os.ReadFile(f)
				s.onDisk = append(s.onDisk, text...)
			}
			out <- s
		}}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { g.runKept(ctx); close(ended) }()
	defer func() { end(); <-ended }()

	line := func(n uint64, text, entry string) api.Event {
		e := api.Event{ID: journal.MakeID("n1", n), Node: "n1", Level: cluster.LevelInfo, Code: "x", Text: text, Time: time.Now()}
		if entry != "" {
			e.Fields = map[string]string{engine.FieldEntry: entry}
		}
		if err := j.Append(e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	first, second := line(1, "told at once", ""), line(2, "told when kept", "1/n1/7")
	g.spread([]api.Event{second, first})
	if s := <-out; len(s.Events) != 1 || s.Events[0].ID != first.ID {
		t.Errorf("the first to be sent is %v", s.Events)
	}
	if s := <-out; len(s.Events) != 1 || s.Events[0].ID != second.ID || !bytes.Contains(s.onDisk, []byte(second.Text)) {
		t.Errorf("sent is %v, on the disk %s", s.Events, s.onDisk)
	}
	third := line(3, "asked for", "1/n1/8")
	ask, err := json.Marshal(gossipMessage{Want: []journal.Range{{Origin: "n1", Span: journal.Span{From: 3, To: 3}}}})
	if err != nil {
		t.Fatal(err)
	}
	g.take("n2", ask)
	if s := <-out; len(s.Events) != 1 || s.Events[0].ID != third.ID || !bytes.Contains(s.onDisk, []byte(third.Text)) {
		t.Errorf("sent is %v, on the disk %s", s.Events, s.onDisk)
	}
}

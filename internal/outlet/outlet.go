package outlet

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

// Journal is the part of a journal.Journal that an outlet reads.
type Journal interface {
	Next() uint64
	Since(origin cluster.NodeName, seq uint64, limit int) []api.Event
	Pick(ranges []journal.Range, limit int) []api.Event
	Behind(origin cluster.NodeName, seq uint64) (held int, floor uint64)
	Query(f journal.Filter) []api.Event
	Chain(id cluster.EventID) []api.Event
	Subscribe(ctx context.Context) <-chan journal.Update
}

// Options of New. All must be set.
type Options struct {
	Cluster cluster.Name
	Node    cluster.NodeName // whose events are delivered
	Dir     string           // where the cursors are kept; it is made
	Journal Journal
	// Record writes a line of the operator's log. It may wait.
	Record func(ctx context.Context, e api.Event) cluster.EventID
	Log    *slog.Logger
}

// Outlets is all outlets of a node. Its methods may be called from any goroutine.
type Outlets struct {
	o    Options
	make func(config.Outlet) sink
	wait waits

	following sync.Mutex // held by who starts and stops them
	last      bool       // Run has ended: nothing is started any more

	mu  sync.Mutex
	all []*pump // in the order of the file
}

// waits is how long things are waited for.
type waits struct {
	first, most time.Duration // before a failed delivery is tried again: the first time, and doubled up to this
	save        time.Duration // the longest that a cursor is not written
	tell        time.Duration // how long an outlet must fail to be worth a line of the log
	again       time.Duration // before the same is told again
}

// New returns outlets that are none before Follow.
func New(o Options) *Outlets {
	return &Outlets{o: o, make: func(c config.Outlet) sink { return newSink(c, o.Journal) }, wait: waits{first: 500 * time.Millisecond, most: time.Minute, save: time.Second, tell: time.Minute, again: 10 * time.Minute}}
}

// Follow lets the outlets be those of the cluster file, until ctx ends. One that
// is new begins with the next event; one that stays the same is not disturbed; of
// one that is gone nothing is kept. It waits for the disk, and for outlets that
// end.
func (x *Outlets) Follow(ctx context.Context, f *config.File) {
	x.following.Lock()
	defer x.following.Unlock()
	if x.last {
		return
	}
	wanted := f.OutletsOf(x.o.Node)
	var all []*pump
	for _, p := range x.list() {
		if !slices.ContainsFunc(wanted, func(c config.Outlet) bool { return reflect.DeepEqual(c, p.c) }) {
			p.stop()
			continue
		}
		all = append(all, p)
	}
	for _, c := range wanted {
		if slices.ContainsFunc(all, func(p *pump) bool { return p.c.Name == c.Name }) {
			continue
		}
		all = append(all, x.begin(ctx, c))
	}
	place := func(p *pump) int {
		return slices.IndexFunc(wanted, func(c config.Outlet) bool { return c.Name == p.c.Name })
	}
	slices.SortFunc(all, func(a, b *pump) int { return place(a) - place(b) })
	x.mu.Lock()
	x.all = all
	x.mu.Unlock()
	x.sweep(all)
}

func (x *Outlets) list() []*pump {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.all
}

// sweep removes the cursors of outlets that are gone.
func (x *Outlets) sweep(all []*pump) {
	files, err := os.ReadDir(x.o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		x.o.Log.Warn("the cursors of outlets cannot be listed", "error", err)
	}
	for _, f := range files {
		name, ours := strings.CutSuffix(f.Name(), cursorSuffix)
		if !ours || slices.ContainsFunc(all, func(p *pump) bool { return p.c.Name == name }) {
			continue
		}
		if err := os.Remove(filepath.Join(x.o.Dir, f.Name())); err != nil {
			x.o.Log.Warn("the cursor of an outlet that is gone cannot be removed", "outlet", name, "error", err)
		}
	}
}

// Run tells the outlets of new events until ctx ends; then it waits until all have
// ended and their cursors are written.
func (x *Outlets) Run(ctx context.Context) error {
	news := x.o.Journal.Subscribe(ctx)
	x.poke() // there may have been events before that
	for u := range news {
		if u.Resync || u.Event.Node == x.o.Node {
			x.poke()
		}
	}
	<-ctx.Done() // the journal may end first
	x.following.Lock()
	defer x.following.Unlock()
	x.last = true
	for _, p := range x.list() {
		p.stop()
	}
	return nil
}

func (x *Outlets) poke() {
	for _, p := range x.list() {
		p.poke()
	}
}

// States returns how the outlets do, in the order of the file.
func (x *Outlets) States() []api.Outlet {
	var out []api.Outlet
	for _, p := range x.list() {
		out = append(out, p.look())
	}
	return out
}

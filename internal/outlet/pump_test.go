package outlet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

// quick is as patient as a test can be.
var quick = waits{first: time.Millisecond, most: 4 * time.Millisecond, save: time.Millisecond, tell: time.Minute, again: time.Minute}

// soon bounds what a test waits for.
const soon = 10 * time.Second

// until waits until something holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(soon)
	for !holds() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not in %s", what, soon)
		}
	}
}

// receiver is a sink that a test commands.
type receiver struct {
	mu   sync.Mutex
	got  []Delivery
	says func(*Delivery) error // nil: it takes everything
	hang bool
}

func (r *receiver) deliver(ctx context.Context, d *Delivery) error {
	r.mu.Lock()
	hang, says := r.hang, r.says
	r.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if says != nil {
		if err := says(d); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, *d)
	return nil
}

func (r *receiver) settle(context.Context) error { return nil }

func (r *receiver) close() {}

func (r *receiver) set(hang bool, says func(*Delivery) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hang, r.says = hang, says
}

func (r *receiver) deliveries() []Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// events returns the numbers of the events in the order of their deliveries,
// without those about outlets.
func (r *receiver) events() (out []uint64) {
	for _, d := range r.deliveries() {
		if d.Event.Module == "outlet" {
			continue
		}
		_, seq, _ := journal.ParseID(d.Event.ID)
		out = append(out, seq)
	}
	return out
}

// node is a journal and its outlets, which can be killed and started again.
type node struct {
	t       *testing.T
	dir     string
	opt     journal.Options
	journal *journal.Journal
	makes   func(config.Outlet) sink
	wait    waits

	outlets *Outlets
	stop    func()
}

// start starts a node a; makes nil are the real sinks.
func start(t *testing.T, dir string, makes func(config.Outlet) sink) *node {
	n := &node{t: t, dir: dir, makes: makes, wait: quick, opt: journal.Options{SyncEvery: time.Millisecond}}
	n.open()
	return n
}

func (n *node) open() {
	n.t.Helper()
	j, err := journal.Open(filepath.Join(n.dir, "events"), "a", n.opt)
	if err != nil {
		n.t.Fatal(err)
	}
	n.journal = j
	n.outlets = New(Options{Cluster: "c", Node: "a", Dir: filepath.Join(n.dir, "outlets"), Journal: j, Record: n.record, Log: slog.New(slog.DiscardHandler)})
	n.outlets.wait = n.wait
	if n.makes != nil {
		n.outlets.make = n.makes
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.outlets.Run(ctx) })
	wg.Go(func() { _ = j.Run(ctx) })
	n.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := j.Close(); err != nil {
			n.t.Error(err)
		}
	})
	n.t.Cleanup(n.stop)
}

// restart ends the node as a daemon ends, and starts it again.
func (n *node) restart(f *config.File) {
	n.stop()
	n.open()
	n.follow(f)
}

func (n *node) follow(f *config.File) { n.outlets.Follow(n.t.Context(), f) }

func (n *node) record(_ context.Context, e api.Event) cluster.EventID {
	n.t.Helper()
	e.ID, e.Time = journal.MakeID("a", n.journal.Next()), time.Now()
	if err := n.journal.Append(e); err != nil {
		n.t.Error(err)
	}
	return e.ID
}

// happen writes so many events.
func (n *node) happen(count int) {
	for range count {
		n.record(n.t.Context(), api.Event{Level: cluster.LevelInfo, Module: "rc", Code: "x", Text: "something has happened"})
	}
}

// with is a cluster file with these outlets, on one node a.
func with(t *testing.T, outlets string) *config.File {
	t.Helper()
	f, errs := config.Parse("f", []byte("cluster: c\nnodes: {a: {addresses: [192.0.2.1]}}\noutlets: "+outlets+"\n"))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return f
}

// numbers is what a receiver wants: from, from+1, …, to.
func numbers(from, to uint64) (out []uint64) {
	for n := from; n <= to; n++ {
		out = append(out, n)
	}
	return out
}

// wantNumbered checks that what one outlet delivered is numbered without a gap.
func wantNumbered(t *testing.T, got []Delivery) {
	t.Helper()
	for i, d := range got {
		if d.Number != uint64(i+1) || d.Cluster != "c" || d.From != "a" {
			t.Fatalf("delivery %d: %+v", i+1, d)
		}
	}
}

const journalOnly = "{log: {kind: journald}}"

func TestInOrder(t *testing.T) {
	r := &receiver{}
	n := start(t, t.TempDir(), func(config.Outlet) sink { return r })
	n.happen(3) // before there was an outlet
	f := with(t, journalOnly)
	n.follow(f)
	n.happen(100)
	until(t, "100 events", func() bool { return len(r.deliveries()) == 100 })
	n.restart(f) // by plan: nothing comes twice
	n.happen(2)
	until(t, "2 more", func() bool { return len(r.deliveries()) >= 102 })
	if d := cmp.Diff(numbers(4, 105), r.events()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	wantNumbered(t, r.deliveries())
	s := n.outlets.States()
	if len(s) != 1 || !s[0].Works || s[0].Waiting != 0 || s[0].Delivered != 102 || s[0].Latest != "a/105" || s[0].Missed != 0 {
		t.Errorf("%+v", s)
	}
}

// A node that dies right after it got its first outlet still knows where that began.
func TestBeginIsKept(t *testing.T) {
	r := &receiver{hang: true}
	n := start(t, t.TempDir(), func(config.Outlet) sink { return r })
	n.outlets.wait.save = time.Hour
	f := with(t, journalOnly)
	n.follow(f) // before the first event ever
	if c, err := readCursor(n.outlets.o.Dir, "log"); err != nil || c.Passed != 0 {
		t.Fatal(c, err)
	}
	n.happen(3)
	if err := n.journal.Sync(); err != nil {
		t.Fatal(err)
	}
	r.set(false, nil)
	n.restart(f)
	until(t, "3 events", func() bool { return len(r.deliveries()) == 3 })
}

// After a crash what was delivered since the cursor was written comes again, with
// the same numbers, and nothing is left out.
func TestAtLeastOnce(t *testing.T) {
	r := &receiver{}
	n := start(t, t.TempDir(), func(config.Outlet) sink { return r })
	f := with(t, journalOnly)
	n.follow(f)
	n.happen(10)
	until(t, "the cursor", func() bool {
		c, err := readCursor(filepath.Join(n.dir, "outlets"), "log")
		return err == nil && c.Number == 10
	})
	old, err := os.ReadFile(cursorFile(filepath.Join(n.dir, "outlets"), "log"))
	if err != nil {
		t.Fatal(err)
	}
	n.happen(10)
	until(t, "20 events", func() bool { return len(r.deliveries()) == 20 })
	n.stop()
	if err := os.WriteFile(cursorFile(filepath.Join(n.dir, "outlets"), "log"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	n.open()
	n.follow(f)
	n.happen(1)
	until(t, "the rest", func() bool { e := r.events(); return e[len(e)-1] == 21 })
	if d := cmp.Diff(slices.Concat(numbers(1, 20), numbers(11, 21)), r.events()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	wantNumbered(t, r.deliveries()[:20])
	for i, d := range r.deliveries()[20:] {
		if d.Number != uint64(11+i) {
			t.Errorf("%s came again as %d", d.Event.ID, d.Number)
		}
	}
}

// One that hangs, and one that fails, hold up nobody, and get everything when they
// are back.
func TestDeadOutlets(t *testing.T) {
	rs := map[string]*receiver{"hangs": {hang: true}, "fails": {says: func(*Delivery) error { return errors.New("no") }}, "works": {}}
	n := start(t, t.TempDir(), func(c config.Outlet) sink { return rs[c.Name] })
	n.follow(with(t, "{hangs: {kind: journald, timeout: 100ms}, fails: {kind: journald}, works: {kind: journald}}"))
	n.happen(50)
	until(t, "the one that works", func() bool { return len(rs["works"].deliveries()) == 50 })
	until(t, "all are tried", func() bool {
		s := n.outlets.States()
		return !s[0].Works && !s[1].Works && s[2].Works
	})
	for _, s := range n.outlets.States()[:2] {
		if s.Waiting != 50 || s.Why == "" || s.Failures == 0 || s.Delivered != 0 {
			t.Errorf("%+v", s)
		}
	}
	rs["hangs"].set(false, nil)
	rs["fails"].set(false, nil)
	for name, r := range rs {
		until(t, name, func() bool { return len(r.deliveries()) == 50 })
		if d := cmp.Diff(numbers(1, 50), r.events()); d != "" {
			t.Errorf("%s (-want +got)\n%s", name, d)
		}
		wantNumbered(t, r.deliveries())
	}
	for _, s := range n.outlets.States() {
		if !s.Works || s.Why != "" || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// What the journal dropped before it was delivered is counted and told, in the log
// and to the receiver.
func TestGap(t *testing.T) {
	r := &receiver{hang: true}
	n := start(t, t.TempDir(), func(config.Outlet) sink { return r })
	n.stop()
	n.opt.MaxEvents = 64
	n.open()
	n.follow(with(t, journalOnly))
	for range 50 {
		n.happen(4)
		if err := n.journal.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	_, floor := n.journal.Behind("a", 0)
	if floor < 100 {
		t.Fatalf("the journal has dropped only %d", floor)
	}
	n.follow(with(t, "{}"))
	r.set(false, nil)
	// As a daemon that starts after a long time finds it.
	if err := (&cursor{}).write(n.outlets.o.Dir, "log"); err != nil {
		t.Fatal(err)
	}
	n.follow(with(t, journalOnly))
	until(t, "the line of the log", func() bool {
		got := r.deliveries()
		return len(got) > 0 && got[len(got)-1].Event.Code == "outlet-gap"
	})
	got := r.deliveries()
	if got[0].Missed != floor || got[1].Missed != 0 {
		t.Errorf("the first says that %d are missed, the second %d; %d are", got[0].Missed, got[1].Missed, floor)
	}
	if d := cmp.Diff(numbers(floor+1, 200), r.events()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	last := got[len(got)-1].Event
	if last.Level != cluster.LevelWarn || last.Fields["outlet"] != "log" || !strings.Contains(last.Text, fmt.Sprintf("up to %d events", floor)) {
		t.Errorf("%+v", last)
	}
	if s := n.outlets.States()[0]; s.Missed != floor {
		t.Errorf("%+v", s)
	}
}

// What a crash took from the node's disk is delivered when another node brings it
// back.
func TestComesBackLate(t *testing.T) {
	r := &receiver{}
	n := start(t, t.TempDir(), func(config.Outlet) sink { return r })
	f := with(t, journalOnly)
	n.follow(f)
	n.happen(3)
	until(t, "3 events", func() bool { return len(r.deliveries()) == 3 })
	// 4 to 6 were lost in a crash; numbering went on at 100.
	later := api.Event{ID: "a/100", Time: time.Now(), Level: cluster.LevelInfo, Text: "the daemon is back"}
	if err := n.journal.Append(later); err != nil {
		t.Fatal(err)
	}
	until(t, "the one after", func() bool { return len(r.deliveries()) == 4 })
	n.restart(f) // the hole is remembered
	var back []api.Event
	for _, seq := range []uint64{5, 4, 6} {
		back = append(back, api.Event{ID: journal.MakeID("a", seq), Node: "a", Time: time.Now(), Level: cluster.LevelInfo, Text: "it came back"})
	}
	n.journal.Merge(back)
	until(t, "those that came back", func() bool { return len(r.deliveries()) == 7 })
	if err := n.journal.Append(api.Event{ID: "a/101", Time: time.Now(), Level: cluster.LevelInfo, Text: "on it goes"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the next", func() bool { return len(r.deliveries()) == 8 })
	if d := cmp.Diff([]uint64{1, 2, 3, 100, 4, 5, 6, 101}, r.events()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	wantNumbered(t, r.deliveries())
}

// An outlet begins with the next event when it is new, or new again.
func TestComesAndGoes(t *testing.T) {
	r := &receiver{}
	n := start(t, t.TempDir(), func(config.Outlet) sink { return r })
	n.follow(with(t, "{log: {kind: journald, level: warn}}"))
	n.happen(5) // too light
	n.record(t.Context(), api.Event{Level: cluster.LevelWarn, Text: "heavy"})
	n.record(t.Context(), api.Event{Level: cluster.LevelError, Text: "heavier"})
	until(t, "2 heavy ones", func() bool { return len(r.deliveries()) == 2 })
	wantNumbered(t, r.deliveries())
	n.follow(with(t, "{log: {kind: journald, level: info}}")) // changed: it goes on
	n.happen(1)
	until(t, "1 more", func() bool { return len(r.deliveries()) == 3 })
	n.follow(with(t, "{}"))
	if _, err := readCursor(filepath.Join(n.dir, "outlets"), "log"); !isNew(err) {
		t.Errorf("its cursor is still there: %v", err)
	}
	n.happen(4) // nobody is there
	n.follow(with(t, journalOnly))
	n.happen(1)
	until(t, "1 after that", func() bool { return len(r.deliveries()) == 4 })
	if d := cmp.Diff([]uint64{6, 7, 8, 13}, r.events()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if last := r.deliveries()[3]; last.Number != 1 {
		t.Errorf("an outlet that is new began with number %d", last.Number)
	}
}

// A receiver that never takes one event gets the others; however many it refuses,
// the log gets one line in a while.
func TestRefused(t *testing.T) {
	var asked sync.Map
	r := &receiver{says: func(d *Delivery) error {
		n, _ := asked.LoadOrStore(d.Event.ID, new(int))
		*n.(*int)++
		if d.Event.Text == "bad" || d.Event.Module == "outlet" {
			return fmt.Errorf("%w: 400", errRefused)
		}
		return nil
	}}
	n := start(t, t.TempDir(), func(config.Outlet) sink { return r })
	n.follow(with(t, journalOnly))
	n.happen(1)
	n.record(t.Context(), api.Event{Level: cluster.LevelInfo, Text: "bad"})
	n.happen(1)
	until(t, "the one after", func() bool { return len(r.deliveries()) == 2 })
	until(t, "all are passed", func() bool { return n.outlets.States()[0].Waiting == 0 })
	if tries, _ := asked.Load(cluster.EventID("a/2")); *tries.(*int) != refuseTrys {
		t.Errorf("it was tried %d times", *tries.(*int))
	}
	lines := 0
	for _, e := range n.journal.Query(journal.Filter{Code: "outlet-refused"}) {
		lines++
		if !strings.Contains(e.Text, "400") {
			t.Errorf("%+v", e)
		}
	}
	if s := n.outlets.States()[0]; lines != 1 || s.Missed != 2 || s.Delivered != 2 { // the line itself was refused too
		t.Errorf("%d lines, %+v", lines, s)
	}
}

// That an outlet fails is told when it has gone on for long, once, and that it is
// over.
func TestFailingIsTold(t *testing.T) {
	r := &receiver{says: func(*Delivery) error { return errors.New("connection refused") }}
	n := start(t, t.TempDir(), func(config.Outlet) sink { return r })
	n.outlets.wait.tell = 20 * time.Millisecond
	n.follow(with(t, journalOnly))
	n.happen(2)
	codes := func() (out []string) {
		for _, e := range n.journal.Query(journal.Filter{Module: "outlet"}) {
			out = append(out, e.Code)
		}
		return out
	}
	until(t, "it is told", func() bool { return len(codes()) == 1 })
	failures := n.outlets.States()[0].Failures
	until(t, "it goes on", func() bool { return n.outlets.States()[0].Failures > failures+5 })
	r.set(false, nil)
	until(t, "all are delivered", func() bool { return n.outlets.States()[0].Waiting == 0 && len(codes()) == 2 })
	if got := codes(); !slices.Equal(got, []string{"outlet-failing", "outlet-works"}) {
		t.Errorf("%v", got)
	}
}

// A cursor that cannot be read does not stop its outlet, and is told.
func TestDamagedCursor(t *testing.T) {
	r := &receiver{}
	n := start(t, t.TempDir(), func(config.Outlet) sink { return r })
	n.happen(3)
	dir := filepath.Join(n.dir, "outlets")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cursorFile(dir, "log"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.follow(with(t, journalOnly))
	until(t, "the line of the log", func() bool { return len(r.deliveries()) == 1 })
	if e := r.deliveries()[0].Event; e.Code != "outlet-gap" {
		t.Errorf("%+v", e)
	}
}

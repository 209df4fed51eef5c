package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Options of Open. Zero values mean the defaults.
type Options struct {
	Cluster   cluster.Name  // the own cluster: its events that come back from another are not taken
	MaxEvents int           // kept at the most, 100,000
	MaxBytes  int64         // of all segments, 64 MiB
	SyncEvery time.Duration // how long an event may wait for the disk, 200 ms
	Log       *slog.Logger  // diagnostics; nil: none
}

// maxPending bounds the bytes that wait for the disk. What does not fit is not
// kept on this node; it comes back from the others when the disk is well.
const maxPending = 4 << 20

// Journal is the open log. Its methods may be called from any goroutine, and
// none of them waits for the disk except where its comment says so.
type Journal struct {
	dir  string
	self cluster.NodeName
	opt  Options
	wake chan struct{} // capacity 1: there is something to write

	flushing sync.Mutex // held by the one who writes

	mu       sync.Mutex
	x        *index
	segs     []*segment // the last one is being appended to
	buf      []byte     // lines for the last segment, not being written yet
	bufAt    int64      // where buf begins in it
	writing  chunk      // lines on their way to the disk
	next     uint64     // own number to use next
	reserved uint64     // own numbers below this may be used
	dropped  int        // events that did not fit into memory since the last flush
	subs     map[*subscriber]struct{}
	closed   bool
}

// chunk is a run of bytes for one segment.
type chunk struct {
	seg  *segment
	at   int64
	data []byte
}

// Open opens or creates the journal in dir. A line that a crash left
// unfinished is cut off, damaged ones are skipped; both are logged.
func Open(dir string, self cluster.NodeName, opt Options) (*Journal, error) {
	if err := cluster.CheckName(string(self)); err != nil {
		return nil, err
	}
	if opt.MaxEvents <= 0 {
		opt.MaxEvents = 100_000
	}
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = 64 << 20
	}
	if opt.SyncEvery <= 0 {
		opt.SyncEvery = 200 * time.Millisecond
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	j := &Journal{
		dir: dir, self: self, opt: opt, wake: make(chan struct{}, 1),
		x: newIndex(), subs: map[*subscriber]struct{}{},
	}
	if err := j.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", dir, err), j.closeFiles())
	}
	return j, nil
}

func (j *Journal) load() error {
	nums, err := segmentNumbers(j.dir)
	if err != nil {
		return err
	}
	for i, num := range nums {
		if err := j.loadSegment(num, i == len(nums)-1); err != nil {
			return err
		}
	}
	next, damaged, err := readReserve(j.dir)
	if err != nil {
		return err
	}
	if damaged {
		j.opt.Log.Warn("the number of the next event was unreadable", "dir", j.dir)
	}
	if st := j.x.streams[j.x.numbers[string(j.self)]]; st != nil {
		highest := st.floor
		if n := len(st.seqs); n > 0 {
			highest = max(highest, st.seqs[n-1])
		}
		if damaged {
			highest += reserveBlock
		}
		next = max(next, highest+1)
	}
	j.next = next
	if len(j.segs) == 0 {
		j.segs = []*segment{{num: 1}}
		j.buf = j.x.headerLine()
	}
	return j.reserve()
}

func (j *Journal) loadSegment(num uint32, last bool) error {
	f, err := os.OpenFile(segmentPath(j.dir, num), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s := &segment{num: num, file: f}
	j.segs = append(j.segs, s)
	good, bad, err := j.x.load(s)
	if err != nil {
		return err
	}
	if bad > 0 {
		j.opt.Log.Warn("skipped damaged lines of the journal", "file", f.Name(), "lines", bad)
	}
	if s.size, err = f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	if last && good < s.size {
		j.opt.Log.Warn("cut off the unfinished end of the journal", "file", f.Name(), "bytes", s.size-good)
		if err := f.Truncate(good); err != nil {
			return err
		}
		s.size = good
	}
	j.bufAt = s.size
	return nil
}

// reserve makes the next block of numbers usable; it waits for the disk.
func (j *Journal) reserve() error {
	upTo := j.next + reserveBlock
	if err := writeReserve(j.dir, upTo); err != nil {
		return err
	}
	j.reserved = upTo
	return nil
}

// Next returns the number that the next own event must have at least. Numbers
// may be left out.
func (j *Journal) Next() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

// Append takes one own event. Its ID is the caller's: MakeID of this node and
// a number not below Next. What is too long is cut. It waits for the disk only
// where a whole block of numbers was used up within one SyncEvery.
func (j *Journal) Append(e api.Event) error {
	node, seq, err := ParseID(e.ID)
	if err != nil {
		return err
	}
	if e.Node == "" {
		e.Node = node
	}
	trim(&e)
	if err := check(&e); err != nil {
		return err
	}
	if node != j.self || e.Fields[FieldFromCluster] != "" {
		return fmt.Errorf("event %s is not this node's", e.ID)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errors.New("the journal is closed")
	}
	if seq < j.next {
		return fmt.Errorf("event %s: the next number is %d", e.ID, j.next)
	}
	j.next = seq + 1
	if j.next > j.reserved {
		if err := j.reserve(); err != nil {
			return err
		}
	}
	j.put(e)
	j.wakeUp()
	return nil
}

// Merge takes events of other nodes, and own ones that come back, and returns
// those that were new, in the given order. Malformed ones are left out.
func (j *Journal) Merge(events []api.Event) []api.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	var fresh []api.Event
	for _, e := range events {
		if err := check(&e); err != nil {
			j.opt.Log.Warn("an event from another node is not taken", "why", err)
			continue
		}
		_, seq, _ := ParseID(e.ID)
		origin := originOf(&e)
		ours := e.Fields[FieldFromCluster] == string(j.opt.Cluster) && j.opt.Cluster != ""
		if j.closed || ours || j.x.known(origin, seq) {
			continue
		}
		if len(e.Fields) == 0 {
			e.Fields = nil
		}
		if origin == j.self && seq >= j.next {
			j.next = seq + 1 // our numbering was lost; the others remember
		}
		if j.put(e) {
			fresh = append(fresh, e)
		}
	}
	if len(fresh) > 0 {
		j.wakeUp()
	}
	return fresh
}

// maxForeign bounds the events that one request brings.
const maxForeign = 16

// MergeForeign keeps the events of another cluster that came with its request,
// so that a chain can be told to its first cause. They are marked with
// FieldFromCluster; of more than 16 the last ones count.
func (j *Journal) MergeForeign(from cluster.Name, chain []api.Event) ([]api.Event, error) {
	if err := cluster.CheckName(string(from)); err != nil {
		return nil, err
	}
	if len(chain) > maxForeign {
		chain = chain[len(chain)-maxForeign:]
	}
	marked := make([]api.Event, 0, len(chain))
	for _, e := range chain {
		fields := map[string]string{FieldFromCluster: string(from)}
		for k, v := range e.Fields { // a chain through several clusters keeps its marks
			fields[k] = v
		}
		e.Fields = fields
		marked = append(marked, e)
	}
	return j.Merge(marked), nil
}

// put adds an event to the index and to what is to be written, and tells the
// subscribers. It returns false where nothing more fits into memory.
func (j *Journal) put(e api.Event) bool {
	e.Time = time.Unix(0, e.Time.UnixNano()).UTC()
	j.publish(e)
	if len(j.buf)+len(j.writing.data) > maxPending {
		j.dropped++
		return false
	}
	s := j.segs[len(j.segs)-1]
	at := len(j.buf)
	j.buf = appendLine(j.buf, &e)
	j.x.add(&e, s.num, uint32(j.bufAt+int64(at)), uint32(len(j.buf)-at))
	s.recs++
	return true
}

func (j *Journal) wakeUp() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Run writes to the disk what was appended, within SyncEvery, until ctx ends;
// then it writes the rest. It sleeps while nothing is appended.
func (j *Journal) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case <-ctx.Done():
			return j.Sync()
		case <-j.wake:
		}
		timer.Reset(j.opt.SyncEvery)
		select {
		case <-ctx.Done():
			return j.Sync()
		case <-timer.C:
		}
		if err := j.Sync(); err != nil {
			j.opt.Log.Error("the journal could not be written", "err", err)
			j.wakeUp()
		}
	}
}

// Close writes the rest and notes the clean end; it waits for the disk.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	for s := range j.subs {
		s.close()
	}
	clear(j.subs)
	j.mu.Unlock()
	err := j.Sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		err = writeReserve(j.dir, j.next)
	}
	return errors.Join(err, j.closeFiles())
}

func (j *Journal) closeFiles() error {
	var err error
	for _, s := range j.segs {
		if s.file != nil {
			err = errors.Join(err, s.file.Close())
		}
	}
	return err
}

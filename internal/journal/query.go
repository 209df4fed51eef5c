package journal

import (
	"bytes"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Filter says which events Query returns. Zero values do not restrict.
type Filter struct {
	Since  time.Time         // not before
	Until  time.Time         // before
	After  cluster.EventID   // behind this one in the order; unknown: all
	Node   cluster.NodeName  // who wrote it
	Group  cluster.GroupName // field "group"
	Level  cluster.Level     // this weight or more
	Module string
	Code   string
	Text   string // is in the text, whatever the case
	Newest bool   // the last ones instead of the first ones, where Limit cuts
	Limit  int    // 0: 1,000; 10,000 at the most
}

const (
	defaultLimit = 1000
	maxLimit     = 10_000
)

// ref is where an event can be read without the lock.
type ref struct {
	file *os.File
	off  int64
	line []byte // where the line is not in the file yet
	size int
}

// ref must be called with the lock held.
func (j *Journal) ref(r *rec) ref {
	last := j.segs[len(j.segs)-1]
	off := int64(r.off)
	if r.seg == last.num && off >= j.bufAt {
		return ref{line: j.buf[off-j.bufAt:][:r.size]}
	}
	if w := j.writing; w.seg != nil && r.seg == w.seg.num && off >= w.at {
		return ref{line: w.data[off-w.at:][:r.size]}
	}
	s := j.segs[sort.Search(len(j.segs), func(i int) bool { return j.segs[i].num >= r.seg })]
	return ref{file: s.file, off: off, size: int(r.size)}
}

// read returns the event, or false where retention removed it meanwhile or the
// disk damaged it. It waits for the disk.
func (r ref) read() (api.Event, bool) {
	line := r.line
	if line == nil {
		line = make([]byte, r.size)
		if _, err := r.file.ReadAt(line, r.off); err != nil {
			return api.Event{}, false
		}
	}
	body, err := openLine(bytes.TrimSuffix(line, []byte("\n")))
	if err != nil {
		return api.Event{}, false
	}
	e, err := parseEvent(body)
	return e, err == nil
}

func readAll(refs []ref, keep func(*api.Event) bool, limit int) []api.Event {
	out := make([]api.Event, 0, min(len(refs), limit))
	for _, r := range refs {
		if len(out) == limit {
			break
		}
		if e, ok := r.read(); ok && keep(&e) {
			out = append(out, e)
		}
	}
	return out
}

func anyEvent(*api.Event) bool { return true }

// Query returns the events that match, ordered by time, then node, then number.
// It waits for the disk.
func (j *Journal) Query(f Filter) []api.Event {
	if f.Limit <= 0 {
		f.Limit = defaultLimit
	}
	f.Limit = min(f.Limit, maxLimit)
	text := strings.ToLower(f.Text)
	keep := func(e *api.Event) bool {
		return (f.Module == "" || e.Module == f.Module) && (f.Code == "" || e.Code == f.Code) &&
			(text == "" || strings.Contains(strings.ToLower(e.Text), text))
	}
	out := readAll(j.match(f), keep, f.Limit)
	if f.Newest {
		slices.Reverse(out)
	}
	return out
}

// match finds what the index can tell, in order, or backwards for the newest.
func (j *Journal) match(f Filter) []ref {
	most := f.Limit
	if f.Module != "" || f.Code != "" || f.Text != "" {
		most = maxInt // reading decides
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	x := j.x
	order := x.byTime()
	if num, ok := x.find(f.After); ok {
		i, _ := slices.BinarySearchFunc(order, num, x.compare)
		order = order[i+1:]
	}
	if !f.Since.IsZero() {
		since := f.Since.UnixNano()
		order = order[sort.Search(len(order), func(i int) bool { return x.rec(order[i]).time >= since }):]
	}
	if !f.Until.IsZero() {
		until := f.Until.UnixNano()
		order = order[:sort.Search(len(order), func(i int) bool { return x.rec(order[i]).time >= until })]
	}
	level := levelNumber(f.Level)
	var out []ref
	for i := range order {
		num := order[i]
		if f.Newest {
			num = order[len(order)-1-i]
		}
		r := x.rec(num)
		if r.level < level || f.Group != "" && x.words[r.group] != string(f.Group) ||
			f.Node != "" && x.nodeOf(r) != string(f.Node) {
			continue
		}
		if out = append(out, j.ref(r)); len(out) == most {
			break
		}
	}
	return out
}

const maxInt = int(^uint(0) >> 1)

// nodeOf returns the name of the node that wrote the event.
func (x *index) nodeOf(r *rec) string {
	w := x.words[r.origin]
	return w[strings.IndexByte(w, ':')+1:]
}

// Get returns one event. It waits for the disk.
func (j *Journal) Get(id cluster.EventID) (api.Event, bool) {
	j.mu.Lock()
	num, ok := j.x.find(id)
	var r ref
	if ok {
		r = j.ref(j.x.rec(num))
	}
	j.mu.Unlock()
	if !ok {
		return api.Event{}, false
	}
	return r.read()
}

// Have returns the highest number that is held of each origin.
func (j *Journal) Have() map[cluster.NodeName]uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	have := map[cluster.NodeName]uint64{}
	for origin, st := range j.x.streams {
		if n := len(st.seqs); n > 0 {
			have[cluster.NodeName(j.x.words[origin])] = st.seqs[n-1]
		}
	}
	return have
}

// Since returns at most limit events of one origin with numbers above seq, in
// the order of their numbers. It waits for the disk.
func (j *Journal) Since(origin cluster.NodeName, seq uint64, limit int) []api.Event {
	return j.Pick([]Range{{origin, Span{seq + 1, 1<<63 - 1}}}, limit)
}

// Pick returns what is held of the ranges, at most limit events: the answer to
// another node's Missing. It waits for the disk.
func (j *Journal) Pick(ranges []Range, limit int) []api.Event {
	limit = min(limit, maxLimit)
	var refs []ref
	j.mu.Lock()
	for _, rg := range ranges {
		st := j.x.streams[j.x.numbers[string(rg.Origin)]]
		if st == nil {
			continue
		}
		i, _ := slices.BinarySearch(st.seqs, rg.From)
		for ; i < len(st.seqs) && st.seqs[i] <= rg.To && len(refs) < limit; i++ {
			refs = append(refs, j.ref(j.x.rec(st.recs[i])))
		}
	}
	j.mu.Unlock()
	return readAll(refs, anyEvent, limit)
}

// Digest says what this node holds, to be sent to the others.
func (j *Journal) Digest() Digest {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.x.digest(false)
}

// Missing returns what another node claims to hold and this one lacks, at most
// limit events: the question to send to it. What retention dropped here is not
// asked for again.
func (j *Journal) Missing(theirs Digest, limit int) []Range {
	j.mu.Lock()
	known := j.x.digest(true)
	j.mu.Unlock()
	return known.Missing(theirs.valid(), uint64(max(limit, 0)))
}

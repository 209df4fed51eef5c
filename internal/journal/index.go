package journal

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// rec is what is in memory of one event.
type rec struct {
	time         int64 // ns since 1970
	seq          uint64
	cause        uint64 // sequence number of the cause, 0: none
	origin       uint32 // the following are numbers of interned words
	causeNode    uint32
	causeCluster uint32
	group        uint32
	seg          uint32 // where the line is
	off          uint32
	size         uint32
	level        uint8
	plan         bool
}

// stream is what is held of one origin.
type stream struct {
	seqs  []uint64 // ascending
	recs  []uint64 // numbers of the records, parallel to seqs
	held  Spans
	floor uint64 // numbers up to this were dropped by retention, or are held
}

// index holds the records in the order of their arrival. A record's number
// counts from the first one ever; base is that of recs[0].
type index struct {
	recs    []rec
	base    uint64
	words   []string
	numbers map[string]uint32
	streams map[uint32]*stream
	foreign map[uint32][]uint32 // node name -> origins of that name in other clusters
	order   []uint64            // record numbers by time, origin and sequence number
	sorted  bool
}

func newIndex() *index {
	x := &index{numbers: map[string]uint32{}, streams: map[uint32]*stream{}, foreign: map[uint32][]uint32{}, sorted: true}
	x.intern("")
	return x
}

func (x *index) intern(s string) uint32 {
	if n, ok := x.numbers[s]; ok {
		return n
	}
	n := uint32(len(x.words))
	x.words = append(x.words, strings.Clone(s))
	x.numbers[x.words[n]] = n
	return n
}

// originOf returns the origin under which an event is kept.
func originOf(e *api.Event) cluster.NodeName {
	if c := e.Fields[FieldFromCluster]; c != "" {
		return cluster.NodeName(c + ":" + string(e.Node))
	}
	return e.Node
}

func (x *index) stream(origin cluster.NodeName) *stream {
	n := x.intern(string(origin))
	st := x.streams[n]
	if st == nil {
		st = &stream{}
		x.streams[n] = st
		if _, node, ok := strings.Cut(string(origin), ":"); ok {
			k := x.intern(node)
			x.foreign[k] = append(x.foreign[k], n)
		}
	}
	return st
}

// known says whether an event is held or was dropped by retention.
func (x *index) known(origin cluster.NodeName, seq uint64) bool {
	st := x.streams[x.numbers[string(origin)]]
	return st != nil && (seq <= st.floor || st.held.Contains(seq))
}

// add puts an event that is not known into the index.
func (x *index) add(e *api.Event, seg, off, size uint32) {
	_, seq, _ := ParseID(e.ID)
	origin := originOf(e)
	st := x.stream(origin)
	r := rec{
		time: e.Time.UnixNano(), seq: seq, origin: x.intern(string(origin)), group: x.intern(e.Fields[FieldGroup]),
		seg: seg, off: off, size: size, level: levelNumber(e.Level), plan: e.Fields[FieldPlan] != "",
	}
	if node, n, err := ParseID(e.Cause); err == nil {
		r.cause, r.causeNode, r.causeCluster = n, x.intern(string(node)), x.intern(e.Fields[FieldCauseCluster])
	}
	num := x.base + uint64(len(x.recs))
	x.recs = append(x.recs, r)
	i, _ := slices.BinarySearch(st.seqs, seq)
	st.seqs, st.recs = slices.Insert(st.seqs, i, seq), slices.Insert(st.recs, i, num)
	st.held = st.held.Add(seq)
	if n := len(x.order); x.sorted && n > 0 && x.compare(x.order[n-1], num) > 0 {
		x.sorted = false
	}
	x.order = append(x.order, num)
}

func levelNumber(l cluster.Level) uint8 {
	switch l {
	case cluster.LevelError:
		return 2
	case cluster.LevelWarn:
		return 1
	}
	return 0
}

func (x *index) rec(num uint64) *rec { return &x.recs[num-x.base] }

// compare orders two records by time, then origin, then sequence number.
func (x *index) compare(a, b uint64) int {
	p, q := x.rec(a), x.rec(b)
	if c := cmp.Compare(p.time, q.time); c != 0 {
		return c
	}
	if c := cmp.Compare(x.words[p.origin], x.words[q.origin]); c != 0 {
		return c
	}
	return cmp.Compare(p.seq, q.seq)
}

// byTime returns the record numbers in order. The caller must not keep it.
func (x *index) byTime() []uint64 {
	if !x.sorted {
		slices.SortFunc(x.order, x.compare)
		x.sorted = true
	}
	return x.order
}

// lookup finds a record by origin and sequence number.
func (x *index) lookup(origin uint32, seq uint64) (uint64, bool) {
	st := x.streams[origin]
	if st == nil {
		return 0, false
	}
	i, ok := slices.BinarySearch(st.seqs, seq)
	if !ok {
		return 0, false
	}
	return st.recs[i], true
}

// find finds an event by what its id says, in this cluster first.
func (x *index) find(id cluster.EventID) (uint64, bool) {
	node, seq, err := ParseID(id)
	if err != nil {
		return 0, false
	}
	n, ok := x.numbers[string(node)]
	if !ok {
		return 0, false
	}
	return x.resolve(n, 0, 0, seq)
}

// cause finds the record of what led to r.
func (x *index) cause(r *rec) (uint64, bool) {
	if r.cause == 0 {
		return 0, false
	}
	home := uint32(0)
	if c, _, ok := strings.Cut(x.words[r.origin], ":"); ok {
		home = x.numbers[c]
	}
	return x.resolve(r.causeNode, r.causeCluster, home, r.cause)
}

// resolve looks in the named cluster, then in the one that the asking event
// came from, then in this one, then in all others.
func (x *index) resolve(node, named, home uint32, seq uint64) (uint64, bool) {
	for _, c := range []uint32{named, home} {
		if x.words[c] == "" {
			continue
		}
		origin, ok := x.numbers[x.words[c]+":"+x.words[node]]
		if !ok {
			continue
		}
		if num, ok := x.lookup(origin, seq); ok {
			return num, true
		}
	}
	if num, ok := x.lookup(node, seq); ok {
		return num, true
	}
	for _, origin := range x.foreign[node] {
		if num, ok := x.lookup(origin, seq); ok {
			return num, true
		}
	}
	return 0, false
}

// drop forgets the oldest n records and keeps in mind that they were known.
func (x *index) drop(n int) {
	for i := range n {
		r := &x.recs[i]
		st := x.streams[r.origin]
		st.floor = max(st.floor, r.seq)
	}
	x.recs = slices.Clone(x.recs[n:])
	x.base += uint64(n)
	for _, st := range x.streams {
		*st = stream{floor: st.floor}
	}
	x.order = x.order[:0]
	for i := range x.recs {
		r := &x.recs[i]
		st := x.streams[r.origin]
		j, _ := slices.BinarySearch(st.seqs, r.seq)
		st.seqs, st.recs = slices.Insert(st.seqs, j, r.seq), slices.Insert(st.recs, j, x.base+uint64(i))
		st.held = st.held.Add(r.seq)
		x.order = append(x.order, x.base+uint64(i))
	}
	x.sorted = false
}

// digest returns what is held; known adds what was dropped.
func (x *index) digest(known bool) Digest {
	d := make(Digest, len(x.streams))
	for origin, st := range x.streams {
		spans := slices.Clone(st.held)
		if !known && len(spans) > maxDigestSpans {
			spans = spans[len(spans)-maxDigestSpans:]
		}
		if known && st.floor > 0 {
			spans = append(Spans{{1, st.floor}}, Spans(spans).Minus(Spans{{1, st.floor}})...)
		}
		if len(spans) > 0 {
			d[cluster.NodeName(x.words[origin])] = spans
		}
	}
	return d
}

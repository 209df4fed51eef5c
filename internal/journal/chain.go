package journal

import (
	"cmp"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// maxChain bounds how many events of one chain are told.
const maxChain = 10_000

// Incident is everything that one cause led to, where that was more than
// information: a warning, an error, or a plan.
type Incident struct {
	Root   api.Event           // the first cause
	First  time.Time           // of the earliest event
	Last   time.Time           // of the latest
	Level  cluster.Level       // the heaviest
	Groups []cluster.GroupName // that it touched, by name
	Plan   bool                // a plan was made
	Events int
}

// forest is the causes of all records: parent[i] is the place of the cause of
// record i, or -1.
type forest struct {
	x      *index
	parent []int32
	root   []int32 // of the tree that i belongs to
}

// causes works the forest out. The lock must be held.
func (x *index) causes() *forest {
	f := &forest{x: x, parent: make([]int32, len(x.recs)), root: make([]int32, len(x.recs))}
	for i := range x.recs {
		f.parent[i], f.root[i] = -1, -1
		if num, ok := x.cause(&x.recs[i]); ok {
			f.parent[i] = int32(num - x.base)
		}
	}
	var path []int32
	for i := range f.root {
		path = path[:0]
		at := int32(i)
		for f.root[at] == -1 {
			f.root[at] = -2 // on the path
			path = append(path, at)
			if f.parent[at] == -1 {
				break
			}
			at = f.parent[at]
			if f.root[at] == -2 { // a circle, which only a liar can make: cut it here
				f.parent[path[len(path)-1]] = -1
				at = path[len(path)-1]
				break
			}
		}
		top := f.root[at]
		if top < 0 {
			top = at
		}
		for _, p := range path {
			f.root[p] = top
		}
	}
	return f
}

// inOrder returns the members of a tree by time, but each after its cause and
// after what its own node wrote before, also where clocks disagree. It merges
// the nodes' own sequences.
func (f *forest) inOrder(members []int32) []int32 {
	recs := f.x.recs
	slices.SortFunc(members, func(a, b int32) int {
		if c := cmp.Compare(recs[a].origin, recs[b].origin); c != 0 {
			return c
		}
		return cmp.Compare(recs[a].seq, recs[b].seq)
	})
	var queues [][]int32 // what is left of each node's events
	for i, m := range members {
		if i == 0 || recs[m].origin != recs[members[i-1]].origin {
			queues = append(queues, nil)
		}
		queues[len(queues)-1] = append(queues[len(queues)-1], m)
	}
	told := make(map[int32]bool, len(members))
	out := make([]int32, 0, len(members))
	for len(out) < len(members) {
		best, bestReady := -1, false
		for q, rest := range queues {
			if len(rest) == 0 {
				continue
			}
			up := f.parent[rest[0]]
			ready := up < 0 || told[up]
			if best < 0 || ready && !bestReady || ready == bestReady && f.earlier(rest[0], queues[best][0]) {
				best, bestReady = q, ready
			}
		}
		m := queues[best][0]
		queues[best] = queues[best][1:]
		told[m] = true
		out = append(out, m)
	}
	return out
}

func (f *forest) earlier(a, b int32) bool {
	return f.x.compare(f.x.base+uint64(a), f.x.base+uint64(b)) < 0
}

// Chain returns everything that belongs to an event: its causes up to the first
// one and all that this one led to, in the order of time, a cause before its
// effects. Events that are not held, or are unknown, leave it shorter. It waits
// for the disk.
func (j *Journal) Chain(id cluster.EventID) []api.Event {
	return readAll(j.chain(id), anyEvent, maxChain)
}

func (j *Journal) chain(id cluster.EventID) []ref {
	j.mu.Lock()
	defer j.mu.Unlock()
	num, ok := j.x.find(id)
	if !ok {
		return nil
	}
	f := j.x.causes()
	top := f.root[num-j.x.base]
	var members []int32
	for i, r := range f.root {
		if r == top {
			members = append(members, int32(i))
		}
	}
	var refs []ref
	for _, i := range f.inOrder(members) {
		refs = append(refs, j.ref(&j.x.recs[i]))
	}
	return refs
}

// Incidents returns the last limit incidents, the newest first. It waits for
// the disk.
func (j *Journal) Incidents(limit int) []Incident {
	found, roots := j.incidents(limit)
	out := found[:0]
	for i, in := range found {
		if e, ok := roots[i].read(); ok {
			in.Root = e
			out = append(out, in)
		}
	}
	return out
}

type tally struct {
	top         int32
	first, last int64
	level       uint8
	plan        bool
	events      int
	groups      []uint32
}

func (j *Journal) incidents(limit int) ([]Incident, []ref) {
	j.mu.Lock()
	defer j.mu.Unlock()
	x := j.x
	f := x.causes()
	byTop := map[int32]*tally{}
	var all []*tally
	for i := range x.recs {
		r := &x.recs[i]
		t := byTop[f.root[i]]
		if t == nil {
			t = &tally{top: f.root[i], first: r.time, last: r.time}
			byTop[t.top] = t
			all = append(all, t)
		}
		t.first, t.last = min(t.first, r.time), max(t.last, r.time)
		t.level, t.plan, t.events = max(t.level, r.level), t.plan || r.plan, t.events+1
		if r.group != 0 && !slices.Contains(t.groups, r.group) {
			t.groups = append(t.groups, r.group)
		}
	}
	all = slices.DeleteFunc(all, func(t *tally) bool { return t.level == 0 && !t.plan })
	slices.SortFunc(all, func(a, b *tally) int {
		if c := cmp.Compare(b.first, a.first); c != 0 {
			return c
		}
		return x.compare(x.base+uint64(b.top), x.base+uint64(a.top))
	})
	var out []Incident
	var roots []ref
	for _, t := range all[:min(len(all), max(limit, 0))] {
		in := Incident{
			First: time.Unix(0, t.first).UTC(), Last: time.Unix(0, t.last).UTC(),
			Level: levelOf(t.level), Plan: t.plan, Events: t.events,
		}
		for _, g := range t.groups {
			in.Groups = append(in.Groups, cluster.GroupName(x.words[g]))
		}
		slices.Sort(in.Groups)
		out, roots = append(out, in), append(roots, j.ref(&x.recs[t.top]))
	}
	return out, roots
}

func levelOf(n uint8) cluster.Level {
	return []cluster.Level{cluster.LevelInfo, cluster.LevelWarn, cluster.LevelError}[n]
}

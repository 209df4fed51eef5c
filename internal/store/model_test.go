package store

import (
	"path/filepath"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// world is a store beside raft's own storage in memory, which says what the
// store must hold.
type world struct {
	t     *rapid.T
	path  string
	s     *Store
	ref   *raft.MemoryStorage
	meta  map[string][]byte
	term  uint64
	asked uint64 // highest commit
}

func (w *world) bounds() (first, last uint64) {
	first, _ = w.ref.FirstIndex()
	last, _ = w.ref.LastIndex()
	return first, last
}

func (w *world) save(b Batch) {
	if err := w.s.Save(b); err != nil {
		w.t.Fatalf("save: %v", err)
	}
}

func (w *world) append(t *rapid.T) {
	first, last := w.bounds()
	low := max(first, w.asked+1)
	from := rapid.Uint64Range(min(low, last+1), last+1).Draw(t, "from")
	n := rapid.Uint64Range(1, 20).Draw(t, "n")
	if from <= last {
		w.term++ // only another leader rewrites
	}
	w.term = max(w.term, 1)
	ents := entries(w.term, from, from+n-1)
	if err := w.ref.Append(ents); err != nil {
		t.Fatal(err)
	}
	w.save(Batch{Entries: ents})
}

func (w *world) vote(t *rapid.T) {
	_, last := w.bounds()
	w.asked = rapid.Uint64Range(w.asked, max(last, w.asked)).Draw(t, "commit")
	w.term += rapid.Uint64Range(0, 1).Draw(t, "newer")
	hs := hard(max(w.term, 1), rapid.Uint64Range(0, 3).Draw(t, "vote"), w.asked)
	if err := w.ref.SetHardState(hs); err != nil {
		t.Fatal(err)
	}
	w.save(Batch{HardState: hs})
}

func (w *world) compact(t *rapid.T) {
	first, last := w.bounds()
	if w.asked < first || first > last {
		t.Skip("nothing to compact")
	}
	i := rapid.Uint64Range(first, w.asked).Draw(t, "index")
	confState := snapshot(0, 0, "", 1, 2).GetMetadata().GetConfState()
	snap, err := w.ref.CreateSnapshot(i, confState, rapid.SliceOfN(rapid.Byte(), 0, 9000).Draw(t, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.ref.Compact(i); err != nil {
		t.Fatal(err)
	}
	w.save(Batch{Snapshot: snap})
}

func (w *world) receive(t *rapid.T) {
	_, last := w.bounds()
	w.term++
	i := last + rapid.Uint64Range(1, 50).Draw(t, "ahead")
	snap := snapshot(w.term, i, "from the leader", 1, 2, 3)
	hs := hard(w.term, 0, i)
	w.asked = i
	if err := w.ref.ApplySnapshot(snap); err != nil {
		t.Fatal(err)
	}
	if err := w.ref.SetHardState(hs); err != nil {
		t.Fatal(err)
	}
	w.save(Batch{Snapshot: snap, HardState: hs})
}

func (w *world) reset(*rapid.T) {
	w.ref, w.asked = raft.NewMemoryStorage(), 0
	w.save(Batch{Reset: true})
}

func (w *world) name(t *rapid.T) {
	k := rapid.SampledFrom([]string{"generation", "blank", "promise/CLP-1"}).Draw(t, "key")
	v := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "value")
	if rapid.Bool().Draw(t, "delete") {
		delete(w.meta, k)
		w.save(Batch{Meta: map[string][]byte{k: nil}})
		return
	}
	w.meta[k] = v
	w.save(Batch{Meta: map[string][]byte{k: v}})
}

func (w *world) reopen(t *rapid.T) {
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.s, err = Open(w.path, Options{}); err != nil {
		t.Fatal(err)
	}
}

// check compares what Load returns with raft's storage.
func (w *world) check(t *rapid.T) {
	got, err := w.s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Meta) != len(w.meta) {
		t.Fatalf("%d named values, want %d", len(got.Meta), len(w.meta))
	}
	for k, v := range w.meta {
		if string(got.Meta[k]) != string(v) {
			t.Fatalf("%s is %q, want %q", k, got.Meta[k], v)
		}
	}
	ms, err := got.Storage()
	if err != nil {
		t.Fatal(err)
	}
	hs, _, _ := w.ref.InitialState()
	if hs == nil {
		hs = hard(0, 0, 0)
	}
	ghs, _, _ := ms.InitialState()
	if ghs.GetTerm() != hs.GetTerm() || ghs.GetVote() != hs.GetVote() || ghs.GetCommit() != hs.GetCommit() {
		t.Fatalf("hard state %v, want %v", ghs, hs)
	}
	first, last := w.bounds()
	gfirst, _ := ms.FirstIndex()
	glast, _ := ms.LastIndex()
	if first != gfirst || last != glast {
		t.Fatalf("log %d-%d, want %d-%d", gfirst, glast, first, last)
	}
	if a, b := firstTerm(w.ref), firstTerm(ms); a != b {
		t.Fatalf("term before the log is %d, want %d", b, a)
	}
	if !sameEntries(all(w.ref), all(ms)) {
		t.Fatalf("entries: %v, want %v", all(ms), all(w.ref))
	}
	a, _ := w.ref.Snapshot()
	b, _ := ms.Snapshot()
	if a.GetMetadata().GetIndex() > 0 && !proto.Equal(a, b) {
		t.Fatalf("snapshot %v, want %v", b.GetMetadata(), a.GetMetadata())
	}
}

func firstTerm(ms *raft.MemoryStorage) uint64 {
	first, _ := ms.FirstIndex()
	term, _ := ms.Term(first - 1)
	return term
}

func all(ms *raft.MemoryStorage) []*raftpb.Entry {
	first, _ := ms.FirstIndex()
	last, _ := ms.LastIndex()
	if last < first {
		return nil
	}
	ents, _ := ms.Entries(first, last+1, 1<<40)
	return ents
}

func TestAgainstRaftsOwnStorage(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		w := &world{t: rt, path: filepath.Join(dir, "raft"+string(rune('a'+n%26))+".db"), meta: map[string][]byte{}, ref: raft.NewMemoryStorage()}
		removeAll(t, w.path)
		var err error
		if w.s, err = Open(w.path, Options{}); err != nil {
			rt.Fatal(err)
		}
		defer func() { w.s.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"append": w.append, "vote": w.vote, "compact": w.compact, "receive": w.receive,
			"reset": w.reset, "name": w.name, "reopen": w.reopen, "": w.check,
		})
	})
}

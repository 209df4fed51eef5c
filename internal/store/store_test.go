package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/tasuki-ha/tasuki/api"
)

func entry(term, index uint64, data string) *raftpb.Entry {
	return &raftpb.Entry{Term: new(term), Index: new(index), Data: []byte(data)}
}

func entries(term, from, to uint64) []*raftpb.Entry {
	var out []*raftpb.Entry
	for i := from; i <= to; i++ {
		out = append(out, entry(term, i, fmt.Sprintf("entry %d of term %d", i, term)))
	}
	return out
}

func hard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

func snapshot(term, index uint64, data string, voters ...uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: []byte(data), Metadata: &raftpb.SnapshotMetadata{
		Term: new(term), Index: new(index), ConfState: &raftpb.ConfState{Voters: voters},
	}}
}

func open(t testing.TB, path string, opt Options) *Store {
	t.Helper()
	s, err := Open(path, opt)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func save(t testing.TB, s *Store, b Batch) {
	t.Helper()
	if err := s.Save(b); err != nil {
		t.Fatalf("save: %v", err)
	}
}

func load(t testing.TB, s *Store) Saved {
	t.Helper()
	got, err := s.Load()
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return got
}

func diff(a, b any) string { return cmp.Diff(a, b, protocmp.Transform()) }

// same is diff for loops: fast, and without the details.
func same(a, b Saved) bool {
	return proto.Equal(a.HardState, b.HardState) && proto.Equal(a.Snapshot, b.Snapshot) &&
		sameEntries(a.Entries, b.Entries) && maps.EqualFunc(a.Meta, b.Meta, bytes.Equal)
}

func sameEntries(a, b []*raftpb.Entry) bool {
	return slices.EqualFunc(a, b, func(x, y *raftpb.Entry) bool {
		return x.GetIndex() == y.GetIndex() && x.GetTerm() == y.GetTerm() && x.GetType() == y.GetType() && bytes.Equal(x.GetData(), y.GetData())
	})
}

func TestBlankThenReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	if !s.Created() {
		t.Error("a new file is not said to be created")
	}
	if d := diff(load(t, s), Saved{Entries: []*raftpb.Entry{}, Meta: map[string][]byte{}}); d != "" {
		t.Errorf("blank: %s", d)
	}
	save(t, s, Batch{
		HardState: hard(3, 1, 2), Entries: entries(3, 1, 5),
		Meta: map[string][]byte{"generation": []byte("7"), "boot": []byte("1")},
	})
	save(t, s, Batch{Meta: map[string][]byte{"boot": nil}})
	want := Saved{HardState: hard(3, 1, 2), Entries: entries(3, 1, 5), Meta: map[string][]byte{"generation": []byte("7")}}
	if d := diff(want, load(t, s)); d != "" {
		t.Errorf("before: %s", d)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, Options{})
	if s.Created() {
		t.Error("an old file is said to be created")
	}
	if d := diff(want, load(t, s)); d != "" {
		t.Errorf("after: %s", d)
	}
}

func TestSaves(t *testing.T) {
	start := Batch{HardState: hard(2, 1, 4), Entries: entries(2, 1, 6), Meta: map[string][]byte{"m": []byte("v")}}
	tests := []struct {
		name  string
		batch Batch
		first uint64 // of the entries that remain
		last  uint64
		fails string
	}{
		{"conflicting suffix", Batch{Entries: entries(3, 5, 5)}, 1, 5, ""},
		{"append", Batch{Entries: entries(2, 7, 9)}, 1, 9, ""},
		{"own snapshot keeps the rest", Batch{Snapshot: snapshot(2, 4, "s", 1)}, 5, 6, ""},
		{"received snapshot ahead", Batch{Snapshot: snapshot(5, 40, "s", 1, 2)}, 41, 40, ""},
		{"received snapshot of another history", Batch{Snapshot: snapshot(3, 5, "s", 1, 2)}, 6, 5, ""},
		{"snapshot and what follows", Batch{Snapshot: snapshot(5, 40, "s", 1), Entries: entries(5, 39, 42)}, 41, 42, ""},
		{"reset", Batch{Reset: true}, 1, 0, ""},
		{"reset and start anew", Batch{Reset: true, Snapshot: snapshot(9, 20, "x", 3), HardState: hard(9, 0, 20)}, 21, 20, ""},
		{"gap", Batch{Entries: entries(2, 8, 9)}, 0, 0, "does not follow"},
		{"not consecutive", Batch{Entries: []*raftpb.Entry{entry(2, 7, ""), entry(2, 9, "")}}, 0, 0, "not consecutive"},
		{"commit behind the log", Batch{HardState: hard(2, 1, 7)}, 0, 0, "commit 7"},
		{"cut below commit", Batch{Entries: entries(3, 2, 2)}, 0, 0, "commit 4"},
		{"bad name", Batch{Meta: map[string][]byte{"": {}}}, 0, 0, "no name"},
		{"too much beside", Batch{Meta: map[string][]byte{"x": make([]byte, maxMetaBytes)}}, 0, 0, "more than"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "raft.db")
			s := open(t, path, Options{})
			save(t, s, start)
			before := load(t, s)
			err := s.Save(tc.batch)
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Fatalf("got error %v, want %q", err, tc.fails)
				}
				if d := diff(before, load(t, s)); d != "" {
					t.Errorf("a refused batch changed: %s", d)
				}
				save(t, s, Batch{Entries: entries(2, 7, 7)}) // still usable
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			got := load(t, open(t, path, Options{}))
			if n := uint64(len(got.Entries)); n != tc.last+1-tc.first {
				t.Fatalf("%d entries remain, want %d to %d", n, tc.first, tc.last)
			}
			if len(got.Entries) > 0 && got.Entries[0].GetIndex() != tc.first {
				t.Errorf("first entry is %d, want %d", got.Entries[0].GetIndex(), tc.first)
			}
			if c := got.HardState.GetCommit(); c < got.Snapshot.GetMetadata().GetIndex() || c > tc.last {
				t.Errorf("commit %d is outside of snapshot and log", c)
			}
			if string(got.Meta["m"]) != "v" {
				t.Error("a named value is gone")
			}
			if _, err := got.Storage(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOlderSnapshotIsRefused(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "raft.db"), Options{})
	save(t, s, Batch{Snapshot: snapshot(2, 10, "s", 1)})
	if err := s.Save(Batch{Snapshot: snapshot(2, 9, "s", 1)}); err == nil {
		t.Error("an older snapshot was taken")
	}
	save(t, s, Batch{Snapshot: snapshot(2, 10, "s", 2)}) // going solo: other voters, same index
	if v := load(t, s).Snapshot.GetMetadata().GetConfState().GetVoters(); len(v) != 1 || v[0] != 2 {
		t.Errorf("voters %v", v)
	}
}

// A change of Commit alone costs no write, is seen at once, and is on disk
// after Close.
func TestCommitAloneWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	save(t, s, Batch{HardState: hard(1, 1, 0), Entries: entries(1, 1, 9)})
	before := read(t, path)
	save(t, s, Batch{})
	save(t, s, Batch{HardState: hard(1, 1, 5)})
	if !bytes.Equal(before, read(t, path)) {
		t.Error("the file was written")
	}
	if got := load(t, s).HardState.GetCommit(); got != 5 {
		t.Errorf("commit %d, want 5", got)
	}
	save(t, s, Batch{HardState: hard(2, 1, 5)})
	if bytes.Equal(before, read(t, path)) {
		t.Error("a new term was not written")
	}
	save(t, s, Batch{HardState: hard(2, 1, 8)})
	s.Close()
	if got := load(t, open(t, path, Options{})).HardState; !proto.Equal(got, hard(2, 1, 8)) {
		t.Errorf("after close: %v", got)
	}
}

func TestLoadOwnsNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "raft.db"), Options{})
	save(t, s, Batch{HardState: hard(1, 1, 0), Entries: entries(1, 1, 2), Meta: map[string][]byte{"a": []byte("b")}})
	got := load(t, s)
	got.HardState.Term = new(uint64(99))
	got.Entries[0].Data[0] = 'X'
	got.Meta["a"][0] = 'X'
	if again := load(t, s); again.HardState.GetTerm() != 1 || again.Entries[0].Data[0] == 'X' || again.Meta["a"][0] == 'X' {
		t.Error("what Load returned is shared")
	}
}

func TestSecondDaemonIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := open(t, path, Options{})
	_, err := Open(path, Options{})
	var shown *api.Error
	if !errors.Is(err, ErrLocked) || !errors.As(err, &shown) || shown.Hint == "" {
		t.Errorf("second open: %v", err)
	}
	if _, err := SetAside(path); !errors.Is(err, ErrLocked) {
		t.Errorf("set aside while in use: %v", err)
	}
	s.Close()
	if err := s.Save(Batch{Entries: entries(1, 1, 1)}); err == nil {
		t.Error("a closed store took a batch")
	}
	to, err := SetAside(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(to); err != nil {
		t.Error(err)
	}
	if !open(t, path, Options{}).Created() {
		t.Error("no blank file after setting the old one aside")
	}
}

func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	open(t, path, Options{}).Close()
	s := open(t, path, Options{maxSize: 6 << 20})
	big := strings.Repeat("x", 1<<20)
	var err error
	n := uint64(0)
	for err == nil && n < 20 {
		n++
		err = s.Save(Batch{Entries: []*raftpb.Entry{entry(1, n, big)}})
	}
	if err == nil {
		t.Fatal("the disk never filled up")
	}
	if s.Save(Batch{Entries: entries(1, 1, 1)}) == nil {
		t.Error("the store goes on after a failed write")
	}
	s.Close()
	got := load(t, open(t, path, Options{}))
	if uint64(len(got.Entries)) != n-1 {
		t.Errorf("%d entries, want the %d that were acknowledged", len(got.Entries), n-1)
	}
}

func TestSlowSaveIsTold(t *testing.T) {
	told := make(chan time.Duration, 1)
	release := make(chan struct{})
	s := open(t, filepath.Join(t.TempDir(), "raft.db"), Options{
		SlowAfter: time.Millisecond,
		OnSlow:    func(d time.Duration) { told <- d; close(release) },
	})
	// A second writer holds bbolt's write lock until the alarm has rung, as a
	// stalled disk would.
	tx, err := s.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Save(Batch{Entries: entries(1, 1, 1)}) }()
	select {
	case <-release:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
	if d := <-told; d != time.Millisecond {
		t.Errorf("told %v", d)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func BenchmarkSave(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "raft.db"), Options{})
	i := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		i++
		e := entry(1, i, "two hundred bytes or so of a command that the leader wrote")
		batch := Batch{HardState: hard(1, 1, i-1), Entries: []*raftpb.Entry{e}}
		if i%1000 == 0 {
			batch.Snapshot = snapshot(1, i-500, strings.Repeat("s", 20<<10), 1, 2, 3)
		}
		if err := s.Save(batch); err != nil {
			b.Fatal(err)
		}
	}
}

package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// format is the version of what is in the file. A newer one is refused.
const format = 1

// Bounds of one named value and of all of them: they are written with every
// transaction, so they have to be small.
const (
	maxMetaName  = 128
	maxMetaBytes = 64 << 10
)

var (
	bucketState = []byte("state") // one key: the record
	bucketLog   = []byte("log")   // big-endian index -> sealed entry
	bucketSnap  = []byte("snap")  // one key: the sealed snapshot
	keyRecord   = []byte("record")
	keySnapshot = []byte("snapshot")
)

// Options of Open. The zero value is fine.
type Options struct {
	// SlowAfter is how long a Save may take before OnSlow is told; 0 is never.
	SlowAfter time.Duration
	// OnSlow is called from a goroutine of its own, at most once for each
	// Save, while that Save is still waiting for the disk.
	OnSlow func(SlowAfter time.Duration)

	maxSize int // tests only: a disk that is full at this size
}

// Saved is all that the file holds, ready for raft: Entries begin right after
// the snapshot, and HardState.Commit lies between the snapshot and the last
// entry.
type Saved struct {
	HardState *raftpb.HardState // nil: none was ever saved
	Snapshot  *raftpb.Snapshot  // nil: none
	Entries   []*raftpb.Entry   // consecutive
	Meta      map[string][]byte // never nil
}

// Storage returns a raft.MemoryStorage with the saved state in it.
func (s Saved) Storage() (*raft.MemoryStorage, error) {
	ms := raft.NewMemoryStorage()
	if s.Snapshot != nil {
		if err := ms.ApplySnapshot(s.Snapshot); err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
	}
	if s.HardState != nil {
		if err := ms.SetHardState(s.HardState); err != nil {
			return nil, fmt.Errorf("hard state: %w", err)
		}
	}
	if err := ms.Append(s.Entries); err != nil {
		return nil, fmt.Errorf("entries: %w", err)
	}
	return ms, nil
}

// Batch is what one Save makes durable, in this order: Reset, Snapshot,
// Entries, HardState, Meta.
type Batch struct {
	// Reset drops hard state, snapshot and log; named values stay. It is for
	// a node that throws its state away to rejoin: forgetting a vote is safe
	// only if the cluster that it joins has never counted on it.
	Reset bool
	// Snapshot replaces the saved one; it must not be older. Entries up to
	// its index go. The rest of the log stays if it holds the entry at that
	// index with the same term, else it goes too.
	Snapshot *raftpb.Snapshot
	// Entries are consecutive. What the log holds from the first one's index
	// on is dropped. Those that the snapshot covers are skipped.
	Entries []*raftpb.Entry
	// HardState replaces the saved one. A change of Commit alone is kept in
	// memory until the next write (raft learns it again after a crash).
	HardState *raftpb.HardState
	// Meta sets named values; nil deletes.
	Meta map[string][]byte
}

// record is the only value of bucketState. It says what the rest must look
// like, so that nothing can go missing unnoticed.
type record struct {
	Format    int               `json:"format"`
	First     uint64            `json:"first"` // index of the first entry kept
	Last      uint64            `json:"last"`  // First-1: the log is empty
	HasSnap   bool              `json:"has_snap"`
	SnapIndex uint64            `json:"snap_index"`
	SnapTerm  uint64            `json:"snap_term"`
	Hard      []byte            `json:"hard,omitempty"`
	Meta      map[string][]byte `json:"meta,omitempty"`
}

// Store is the open file. Its methods may be called from any goroutine; Saves
// run one after the other.
type Store struct {
	path    string
	opt     Options
	created bool

	mu      sync.Mutex
	db      *bbolt.DB
	rec     record
	hard    *raftpb.HardState // the newest, also where not written yet
	pending bool              // hard has a Commit that is not written yet
	failed  error             // a write failed: what is on disk is unknown
}

// Open opens or creates the file at path, locks it, and checks all of it. It
// fails with an error that is ErrLocked, ErrCorrupt or ErrNewer where that is
// the reason; such an error also holds an api.Error with a hint.
func Open(path string, opt Options) (*Store, error) {
	s := &Store{path: path, opt: opt}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("create %s: %w", path, err)
		}
		s.created = true
	}
	db, err := openChecked(path, opt.maxSize)
	if err != nil {
		return nil, err
	}
	s.db = db
	saved, err := s.readAll()
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.hard = saved.HardState
	return s, nil
}

// Created says that Open found no file and made a blank one.
func (s *Store) Created() bool { return s.created }

// Path returns where the file is.
func (s *Store) Path() string { return s.path }

// Load returns all that was saved. The caller owns it.
func (s *Store) Load() (Saved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	saved, err := s.readAll()
	if err != nil {
		return Saved{}, err
	}
	if s.hard != nil {
		saved.HardState = proto.CloneOf(s.hard)
	}
	return saved, nil
}

// Save makes the batch durable in one transaction, or changes nothing. After a
// failed write the store is of no more use: every later Save fails too.
func (s *Store) Save(b Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return fmt.Errorf("an earlier write failed: %w", s.failed)
	}
	if raft.IsEmptyHardState(b.HardState) {
		b.HardState = nil
	}
	if b.Snapshot != nil && raft.IsEmptySnap(b.Snapshot) && len(b.Snapshot.GetMetadata().GetConfState().GetVoters()) == 0 {
		b.Snapshot = nil
	}
	if !b.Reset && b.Snapshot == nil && len(b.Entries) == 0 && len(b.Meta) == 0 {
		if b.HardState == nil {
			return nil
		}
		if s.hard != nil && !raft.MustSync(b.HardState, s.hard, 0) {
			return s.keepCommit(b.HardState)
		}
	}
	return s.write(b)
}

// keepCommit takes over a hard state that differs in Commit only.
func (s *Store) keepCommit(hs *raftpb.HardState) error {
	if hs.GetCommit() > s.rec.Last {
		return fmt.Errorf("commit %d lies behind the last entry %d", hs.GetCommit(), s.rec.Last)
	}
	if hs.GetCommit() != s.hard.GetCommit() {
		s.hard = proto.CloneOf(hs)
		s.pending = true
	}
	return nil
}

// write plans the batch against the current record and commits it.
func (s *Store) write(b Batch) error {
	p, err := s.plan(b)
	if err != nil {
		return err
	}
	if s.opt.SlowAfter > 0 && s.opt.OnSlow != nil {
		watch := time.AfterFunc(s.opt.SlowAfter, func() { s.opt.OnSlow(s.opt.SlowAfter) })
		defer watch.Stop()
	}
	if err := s.db.Update(p.apply); err != nil {
		s.failed = err
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	s.rec, s.hard, s.pending = p.rec, p.hard, false
	return nil
}

// Close writes what is pending, and releases the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	var err error
	if s.pending && s.failed == nil {
		err = s.write(Batch{})
	}
	err = errors.Join(err, s.db.Close())
	s.db = nil
	s.failed = errors.New("the store is closed")
	return err
}

// readAll reads and checks everything, and sets s.rec.
func (s *Store) readAll() (Saved, error) {
	if s.db == nil {
		return Saved{}, errors.New("the store is closed")
	}
	out := Saved{Meta: map[string][]byte{}}
	err := s.db.View(func(tx *bbolt.Tx) error {
		rec, err := readRecord(tx)
		if err != nil {
			return err
		}
		s.rec = rec
		for name, v := range rec.Meta {
			out.Meta[name] = bytes.Clone(v)
		}
		if out.HardState, err = hardOf(rec); err != nil {
			return err
		}
		if out.Snapshot, err = readSnapshot(tx, rec); err != nil {
			return err
		}
		out.Entries, err = readEntries(tx, rec)
		return err
	})
	if errors.Is(err, errNewerFormat) {
		return Saved{}, newerError(s.path)
	}
	if err != nil {
		return Saved{}, corruptError(s.path, err)
	}
	return out, nil
}

var errNewerFormat = errors.New("newer format")

func readRecord(tx *bbolt.Tx) (record, error) {
	var rec record
	for _, name := range [][]byte{bucketState, bucketLog, bucketSnap} {
		if tx.Bucket(name) == nil {
			return rec, fmt.Errorf("no bucket %q", name)
		}
	}
	raw, err := unseal(keyRecord, tx.Bucket(bucketState).Get(keyRecord))
	if err != nil {
		return rec, fmt.Errorf("record: %w", err)
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		return rec, fmt.Errorf("record: %w", err)
	}
	if rec.Format > format {
		return rec, errNewerFormat
	}
	if rec.First == 0 || rec.Last+1 < rec.First || rec.First != rec.SnapIndex+1 {
		return rec, fmt.Errorf("record: log %d-%d after snapshot %d", rec.First, rec.Last, rec.SnapIndex)
	}
	return rec, nil
}

func hardOf(rec record) (*raftpb.HardState, error) {
	if rec.Hard == nil {
		return nil, nil
	}
	hs := &raftpb.HardState{}
	if err := proto.Unmarshal(rec.Hard, hs); err != nil {
		return nil, fmt.Errorf("hard state: %w", err)
	}
	return hs, nil
}

func readSnapshot(tx *bbolt.Tx, rec record) (*raftpb.Snapshot, error) {
	v := tx.Bucket(bucketSnap).Get(keySnapshot)
	if !rec.HasSnap {
		if v != nil {
			return nil, errors.New("a snapshot that should not be there")
		}
		return nil, nil
	}
	raw, err := unseal(keySnapshot, v)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	snap := &raftpb.Snapshot{}
	if err := proto.Unmarshal(raw, snap); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if m := snap.GetMetadata(); m.GetIndex() != rec.SnapIndex || m.GetTerm() != rec.SnapTerm {
		return nil, fmt.Errorf("snapshot is at %d.%d, not at %d.%d", m.GetTerm(), m.GetIndex(), rec.SnapTerm, rec.SnapIndex)
	}
	return snap, nil
}

func readEntries(tx *bbolt.Tx, rec record) ([]*raftpb.Entry, error) {
	ents := make([]*raftpb.Entry, 0, min(rec.Last+1-rec.First, 1<<16))
	want := rec.First
	c := tx.Bucket(bucketLog).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if !bytes.Equal(k, indexKey(want)) {
			return nil, fmt.Errorf("entry %d is missing", want)
		}
		e, err := openEntry(k, v)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", want, err)
		}
		ents = append(ents, e)
		want++
	}
	if want != rec.Last+1 {
		return nil, fmt.Errorf("the log ends at %d, not at %d", want-1, rec.Last)
	}
	return ents, nil
}

func openEntry(k, v []byte) (*raftpb.Entry, error) {
	raw, err := unseal(k, v)
	if err != nil {
		return nil, err
	}
	e := &raftpb.Entry{}
	if err := proto.Unmarshal(raw, e); err != nil {
		return nil, err
	}
	return e, nil
}

func indexKey(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }

// SetAside renames a file that cannot be used, so that the next Open makes a
// blank one, and returns its new name. It refuses a file that a daemon holds.
func SetAside(path string) (string, error) {
	f, err := lockFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for i := 1; i < 1000; i++ {
		to := fmt.Sprintf("%s.aside-%d", path, i)
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(path, to); err != nil {
			return "", err
		}
		return to, syncDir(filepath.Dir(path))
	}
	return "", fmt.Errorf("%s: too many files set aside", path)
}

// names returns the keys of m in order.
func names(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }

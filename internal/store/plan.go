package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"

	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// plan is a batch worked out against the current record: what to delete, what
// to put, and the record that results.
type plan struct {
	rec     record
	hard    *raftpb.HardState
	dropAll bool             // all entries go
	dropLow uint64           // entries below this go
	dropHi  uint64           // entries from this on go; 0: none
	oldLast uint64           // last entry before
	oldLow  uint64           // first entry before
	snap    *raftpb.Snapshot // to put, or nil
	noSnap  bool             // delete the snapshot
	puts    []*raftpb.Entry
}

// plan checks the batch without touching the file.
func (s *Store) plan(b Batch) (*plan, error) {
	p := &plan{rec: s.rec, hard: s.hard, oldLow: s.rec.First, oldLast: s.rec.Last}
	p.rec.Meta = maps.Clone(s.rec.Meta)
	if b.Reset {
		p.dropAll, p.noSnap, p.hard = true, true, nil
		p.rec = record{Format: format, First: 1, Meta: p.rec.Meta}
	}
	if b.Snapshot != nil {
		if err := s.planSnapshot(p, b); err != nil {
			return nil, err
		}
	}
	if err := planEntries(p, b.Entries); err != nil {
		return nil, err
	}
	if err := planHard(p, b.HardState); err != nil {
		return nil, err
	}
	return p, planMeta(p, b.Meta)
}

func (s *Store) planSnapshot(p *plan, b Batch) error {
	m := b.Snapshot.GetMetadata()
	if p.rec.HasSnap && m.GetIndex() < p.rec.SnapIndex {
		return fmt.Errorf("snapshot at %d is older than the saved one at %d", m.GetIndex(), p.rec.SnapIndex)
	}
	keep, err := s.holds(p, m.GetIndex(), m.GetTerm())
	if err != nil {
		return err
	}
	p.snap, p.noSnap = b.Snapshot, false
	p.rec.HasSnap, p.rec.SnapIndex, p.rec.SnapTerm = true, m.GetIndex(), m.GetTerm()
	p.rec.First = m.GetIndex() + 1
	if keep {
		p.dropLow = p.rec.First
		return nil
	}
	p.dropAll = true
	p.rec.Last = m.GetIndex()
	return nil
}

// holds says whether the log, as planned so far, goes on from index with term.
func (s *Store) holds(p *plan, index, term uint64) (bool, error) {
	if p.dropAll || index > p.rec.Last {
		return false, nil
	}
	if index == p.rec.SnapIndex {
		return term == p.rec.SnapTerm, nil
	}
	var same bool
	err := s.db.View(func(tx *bbolt.Tx) error {
		k := indexKey(index)
		e, err := openEntry(k, tx.Bucket(bucketLog).Get(k))
		if err != nil {
			return corruptError(s.path, fmt.Errorf("entry %d: %w", index, err))
		}
		same = e.GetTerm() == term
		return nil
	})
	return same, err
}

func planEntries(p *plan, ents []*raftpb.Entry) error {
	for i, e := range ents {
		if want := ents[0].GetIndex() + uint64(i); e.GetIndex() != want {
			return fmt.Errorf("entries are not consecutive: %d where %d should be", e.GetIndex(), want)
		}
	}
	for len(ents) > 0 && ents[0].GetIndex() < p.rec.First {
		ents = ents[1:]
	}
	if len(ents) == 0 {
		return nil
	}
	first := ents[0].GetIndex()
	if first > p.rec.Last+1 {
		return fmt.Errorf("entry %d does not follow the last one, %d", first, p.rec.Last)
	}
	p.puts = ents
	p.rec.Last = first + uint64(len(ents)) - 1
	if !p.dropAll {
		p.dropHi = first
	}
	return nil
}

// planHard sets the hard state. A snapshot covers only what is committed, so
// Commit is lifted to it.
func planHard(p *plan, hs *raftpb.HardState) error {
	if hs != nil {
		p.hard = proto.CloneOf(hs)
	}
	if p.hard == nil {
		p.rec.Hard = nil
		return nil
	}
	if p.hard.GetCommit() > p.rec.Last {
		return fmt.Errorf("commit %d lies behind the last entry %d", p.hard.GetCommit(), p.rec.Last)
	}
	if p.hard.GetCommit() < p.rec.SnapIndex {
		p.hard = proto.CloneOf(p.hard)
		p.hard.Commit = proto.Uint64(p.rec.SnapIndex)
	}
	var err error
	p.rec.Hard, err = proto.Marshal(p.hard)
	return err
}

func planMeta(p *plan, meta map[string][]byte) error {
	if len(meta) > 0 && p.rec.Meta == nil {
		p.rec.Meta = map[string][]byte{}
	}
	for _, name := range names(meta) {
		if name == "" || len(name) > maxMetaName {
			return fmt.Errorf("%q is no name for a value: 1 to %d bytes", name, maxMetaName)
		}
		if meta[name] == nil {
			delete(p.rec.Meta, name)
			continue
		}
		p.rec.Meta[name] = bytes.Clone(meta[name])
	}
	total := 0
	for name, v := range p.rec.Meta {
		total += len(name) + len(v)
	}
	if total > maxMetaBytes {
		return fmt.Errorf("named values have %d bytes, more than %d", total, maxMetaBytes)
	}
	return nil
}

// apply carries the plan out in one transaction.
func (p *plan) apply(tx *bbolt.Tx) error {
	if err := p.dropEntries(tx); err != nil {
		return err
	}
	log, snap, state := tx.Bucket(bucketLog), tx.Bucket(bucketSnap), tx.Bucket(bucketState)
	log.FillPercent = 0.95 // keys only grow
	for _, e := range p.puts {
		raw, err := proto.Marshal(e)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		k := indexKey(e.GetIndex())
		if err := log.Put(k, seal(k, raw)); err != nil {
			return err
		}
	}
	switch {
	case p.snap != nil:
		raw, err := proto.Marshal(p.snap)
		if err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		if err := snap.Put(keySnapshot, seal(keySnapshot, raw)); err != nil {
			return err
		}
	case p.noSnap:
		if err := snap.Delete(keySnapshot); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(p.rec)
	if err != nil {
		return err
	}
	return state.Put(keyRecord, seal(keyRecord, raw))
}

func (p *plan) dropEntries(tx *bbolt.Tx) error {
	if p.dropAll {
		if err := tx.DeleteBucket(bucketLog); err != nil {
			return err
		}
		_, err := tx.CreateBucket(bucketLog)
		return err
	}
	log := tx.Bucket(bucketLog)
	for i := p.oldLow; i < p.dropLow && i <= p.oldLast; i++ {
		if err := log.Delete(indexKey(i)); err != nil {
			return err
		}
	}
	if p.dropHi == 0 {
		return nil
	}
	for i := p.dropHi + uint64(len(p.puts)); i <= p.oldLast; i++ {
		if err := log.Delete(indexKey(i)); err != nil {
			return err
		}
	}
	return nil
}

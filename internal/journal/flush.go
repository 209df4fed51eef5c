package journal

import (
	"errors"
	"os"
)

// Sync writes everything that was appended and waits for the disk. A failed
// write is tried again by the next Sync.
func (j *Journal) Sync() error {
	j.flushing.Lock()
	defer j.flushing.Unlock()
	for {
		c, old := j.take()
		if c.seg == nil {
			return j.reserveAhead()
		}
		if err := j.writeChunk(c); err != nil {
			return err
		}
		j.mu.Lock()
		j.writing = chunk{}
		j.mu.Unlock()
		if err := j.remove(old); err != nil {
			return err
		}
	}
}

// take hands out what is to be written next, and begins a new segment where
// the last one is full; then it also hands out the segments that retention
// drops.
func (j *Journal) take() (c chunk, old []*segment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.dropped > 0 {
		j.opt.Log.Error("events were not kept here, the disk was too slow; they come back from the other nodes", "events", j.dropped)
		j.dropped = 0
	}
	if j.writing.seg != nil {
		return j.writing, nil // the last write failed
	}
	if len(j.buf) == 0 {
		return chunk{}, nil
	}
	s := j.segs[len(j.segs)-1]
	j.writing = chunk{seg: s, at: j.bufAt, data: j.buf}
	j.bufAt += int64(len(j.buf))
	s.size = j.bufAt
	j.buf = nil
	if s.size >= j.segmentBytes() || s.recs >= j.opt.MaxEvents/16 {
		old = j.retain()
		j.segs = append(j.segs, &segment{num: s.num + 1})
		j.bufAt, j.buf = 0, j.x.headerLine()
	}
	return j.writing, old
}

func (j *Journal) segmentBytes() int64 { return min(j.opt.MaxBytes/16, 4<<20) }

// retain drops the oldest segments while there is too much.
func (j *Journal) retain() (old []*segment) {
	var bytes int64
	events := 0
	for _, s := range j.segs {
		bytes, events = bytes+s.size, events+s.recs
	}
	gone := 0
	for len(j.segs) > 1 && (bytes > j.opt.MaxBytes-j.segmentBytes() || events > j.opt.MaxEvents-j.opt.MaxEvents/16) {
		s := j.segs[0]
		bytes, events, gone = bytes-s.size, events-s.recs, gone+s.recs
		old, j.segs = append(old, s), j.segs[1:]
	}
	if gone > 0 {
		j.x.drop(gone)
	}
	return old
}

func (j *Journal) remove(old []*segment) error {
	var err error
	for _, s := range old {
		err = errors.Join(err, os.Remove(segmentPath(j.dir, s.num)), s.file.Close())
	}
	return err
}

// writeChunk writes at fixed places, so that it can be repeated.
func (j *Journal) writeChunk(c chunk) error {
	created := false
	if c.seg.file == nil {
		f, err := os.OpenFile(segmentPath(j.dir, c.seg.num), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		j.mu.Lock()
		c.seg.file, created = f, true
		j.mu.Unlock()
	}
	if _, err := c.seg.file.WriteAt(c.data, c.at); err != nil {
		return err
	}
	if err := c.seg.file.Sync(); err != nil {
		return err
	}
	if !created {
		return nil
	}
	d, err := os.Open(j.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// reserveAhead renews the block of numbers before it is used up.
func (j *Journal) reserveAhead() error {
	j.mu.Lock()
	upTo := j.next + reserveBlock
	due := !j.closed && j.reserved < j.next+reserveBlock/2
	j.mu.Unlock()
	if !due {
		return nil
	}
	if err := writeReserve(j.dir, upTo); err != nil {
		return err
	}
	j.mu.Lock()
	j.reserved = max(j.reserved, upTo)
	j.mu.Unlock()
	return nil
}

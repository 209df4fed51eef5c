package disk

import (
	"io"
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets is the number of buckets of a Histogram.
const Buckets = 32

// Histogram counts operations by how long they took: bucket 0 those of less than
// a microsecond, bucket i those of 2^(i-1) µs to less than 2^i µs, the last one
// all that took longer.
type Histogram [Buckets]uint64

// Quantile returns an upper bound, at most twice too large, of what that part of
// the operations took at most; q is between 0 and 1. It is 0 if there were none.
func (h Histogram) Quantile(q float64) time.Duration {
	var all, seen uint64
	for _, n := range h {
		all += n
	}
	for i, n := range h {
		if seen += n; all > 0 && float64(seen) >= q*float64(all) {
			return time.Microsecond << i
		}
	}
	return 0
}

// Counts is what one kind of operation has done since the beginning.
type Counts struct {
	Count   uint64 // that have ended, failed ones too
	Errors  uint64
	Bytes   uint64 // of the others
	Latency Histogram
}

// Stats is a look at what a device does.
type Stats struct {
	Reads, Writes, Flushes Counts
	Discards, Zeroes       Counts
	Early                  uint64        // flushes that nobody had asked for yet; they are in nothing else here
	UnderWay               int           // operations
	Oldest                 time.Duration // how long the oldest of them has taken; 0 if there is none
}

// Measured is a Disk with counters around it. An operation costs two looks at
// the clock more.
type Measured struct {
	Disk
	began   time.Time // times below are counted from here
	kinds   [opCount]counts
	early   atomic.Uint64
	running atomic.Int64
	next    atomic.Uint32
	slots   [tracked]atomic.Int64 // when each operation under way began, in ns, 0: free
}

// tracked bounds how many operations are looked at for the oldest. If there are
// more, those that find no slot are not, which is well above the threads of an
// engine.
const tracked = 256

type counts struct {
	count, errors, bytes atomic.Uint64
	latency              [Buckets]atomic.Uint64
}

// Measure puts counters around a device.
func Measure(d Disk) *Measured { return &Measured{Disk: d, began: time.Now()} }

// run counts one operation.
func (m *Measured) run(k opKind, n int64, do func() error) error {
	start, slot := m.begin()
	err := do()
	m.end(k, n, start, slot, err)
	return err
}

func (m *Measured) begin() (start time.Duration, slot *atomic.Int64) {
	start = max(1, time.Since(m.began))
	m.running.Add(1)
	return start, m.take(int64(start))
}

func (m *Measured) end(k opKind, n int64, start time.Duration, slot *atomic.Int64, err error) {
	took := time.Since(m.began) - start
	if slot != nil {
		slot.Store(0)
	}
	m.running.Add(-1)
	c := &m.kinds[k]
	c.count.Add(1)
	if err != nil && err != io.EOF {
		c.errors.Add(1)
	} else {
		c.bytes.Add(uint64(n))
	}
	c.latency[min(bits.Len64(uint64(took.Microseconds())), Buckets-1)].Add(1)
}

// Start begins an operation, if the disk can, and counts it.
func (m *Measured) Start(o Start) bool {
	below, ok := m.Disk.(Starter)
	if !ok {
		return false
	}
	start, slot := m.begin()
	done := o.Done
	o.Done = func(err error) {
		m.end(o.kind(), int64(len(o.P)), start, slot, err)
		done(err)
	}
	if below.Start(o) {
		return true
	}
	if slot != nil {
		slot.Store(0)
	}
	m.running.Add(-1)
	return false
}

// take finds a free slot, or none.
func (m *Measured) take(start int64) *atomic.Int64 {
	first := m.next.Add(1)
	for i := range uint32(tracked) {
		if s := &m.slots[(first+i)%tracked]; s.Load() == 0 && s.CompareAndSwap(0, start) {
			return s
		}
	}
	return nil
}

func (m *Measured) ReadAt(p []byte, off int64) (n int, err error) {
	err = m.run(opRead, int64(len(p)), func() error { n, err = m.Disk.ReadAt(p, off); return err })
	return n, err
}

func (m *Measured) WriteAt(p []byte, off int64, durable bool) error {
	return m.run(opWrite, int64(len(p)), func() error { return m.Disk.WriteAt(p, off, durable) })
}

func (m *Measured) Flush() error { return m.run(opFlush, 0, m.Disk.Flush) }

func (m *Measured) Discard(off, n int64) error {
	return m.run(opDiscard, n, func() error { return m.Disk.Discard(off, n) })
}

func (m *Measured) Zero(off, n int64) error {
	return m.run(opZero, n, func() error { return m.Disk.Zero(off, n) })
}

func (m *Measured) FlushExpected() bool {
	below, ok := m.Disk.(Early)
	return ok && below.FlushExpected()
}

func (m *Measured) FlushEarly() {
	if below, ok := m.Disk.(Early); ok {
		m.early.Add(1)
		below.FlushEarly()
	}
}

// Busy says whether an operation is under way.
func (m *Measured) Busy() bool { return m.running.Load() > 0 }

// Stats looks at the counters while operations go on; they need not belong to
// the same moment.
func (m *Measured) Stats() Stats {
	s := Stats{UnderWay: int(m.running.Load()), Early: m.early.Load()}
	for k, to := range map[opKind]*Counts{opRead: &s.Reads, opWrite: &s.Writes, opFlush: &s.Flushes, opDiscard: &s.Discards, opZero: &s.Zeroes} {
		c := &m.kinds[k]
		to.Count, to.Errors, to.Bytes = c.count.Load(), c.errors.Load(), c.bytes.Load()
		for i := range c.latency {
			to.Latency[i] = c.latency[i].Load()
		}
	}
	oldest, now := int64(0), int64(time.Since(m.began))
	for i := range m.slots {
		if at := m.slots[i].Load(); at != 0 && (oldest == 0 || at < oldest) {
			oldest = at
		}
	}
	if oldest != 0 {
		s.Oldest = time.Duration(max(1, now-oldest))
	}
	return s
}

package disk

import (
	"sync"
	"sync/atomic"
)

// Early is a Disk that foresees flushes: who has something else to wait for flushes
// meanwhile, and the flush that is asked for then finds nothing to do.
type Early interface {
	// FlushExpected says that a flush will probably follow what was written last.
	FlushExpected() bool
	// FlushEarly makes durable what has been written. It tells of no error: the next
	// Flush does.
	FlushEarly()
}

// flusher is what a file knows of its flushes.
type flusher struct {
	changes atomic.Int64          // that have ended since it was opened, and 1
	failed  atomic.Pointer[error] // of the first flush that failed

	sync    func(fd int) error // unix.Fdatasync
	turn    sync.Mutex         // one flush at a time: who waits for it may find nothing to do
	durable int64              // how many of the changes a flush has made durable, at least

	seen     sync.Mutex
	habit    habit
	expected atomic.Bool
}

// Flush makes durable what was written. When one has failed nobody knows any
// more what is durable, and the kernel reports it only once, so every later
// Flush and durable write fails too; to open the device anew is to begin anew.
func (f *file) Flush() error {
	if err := f.enter(); err != nil {
		return f.wrap("flush", 0, 0, err)
	}
	defer f.leave()
	f.seen.Lock()
	f.habit.flushed()
	f.expected.Store(false)
	f.seen.Unlock()
	return f.flush()
}

// flush makes durable what has ended by now. If nothing has since an earlier one
// began, that is done: nobody else writes here.
func (f *file) flush() error {
	ended := f.changes.Load()
	f.turn.Lock()
	defer f.turn.Unlock()
	if err := f.lost("flush", 0, 0); err != nil || f.durable >= ended {
		return err
	}
	ended = f.changes.Load() // what ended while it waited is made durable too
	_, err := again(func() (struct{}, error) { return struct{}{}, f.sync(f.fd) })
	if err != nil {
		f.failed.CompareAndSwap(nil, &err)
		return f.wrap("flush", 0, 0, err)
	}
	f.durable = ended
	return nil
}

// lost is the error of an earlier flush.
func (f *file) lost(op string, off, n int64) error {
	if err := f.failed.Load(); err != nil {
		return &Error{Op: op, Path: f.path, Off: off, Len: n, Err: *err, Hint: "an earlier flush failed"}
	}
	return nil
}

// wrote notes that a write has ended, as it should or not.
func (f *file) wrote() {
	f.changes.Add(1)
	f.seen.Lock()
	f.expected.Store(f.habit.wrote())
	f.seen.Unlock()
}

func (f *file) FlushExpected() bool { return f.expected.Load() }

func (f *file) FlushEarly() {
	if f.enter() == nil {
		defer f.leave()
		f.expected.Store(false) // once is enough, until the next write
		_ = f.flush()           // it is told by the next one
	}
}

// habit foresees flushes: a database writes as often between two of them as before,
// and the journal of a file system as often as before the one before.
type habit struct {
	writes int    // since the latest flush
	before [2]int // between the latest three flushes, the older first
	streak int    // how many flushes came when they were expected, without one that did not
}

const sureFrom = 4 // of a streak

// wrote says whether a flush is expected now.
func (h *habit) wrote() bool {
	h.writes++
	return h.streak >= sureFrom && h.writes == h.before[0]
}

func (h *habit) flushed() {
	if h.streak++; h.writes != h.before[0] {
		h.streak = 0
	}
	h.before, h.writes = [2]int{h.before[1], h.writes}, 0
}

package replica

// flushing knows what a flush of the kernel is about, and foresees it. A program that
// has every write flushed waits for two ways to the other copy and its disk; it waits
// for one if the write is made durable at once, and its flush finds nothing to do.
type flushing struct {
	completed uint64 // changes that were completed and may not be durable everywhere
	flushed   uint64 // how many of them a flush has made durable
	since     int    // changes that came since the kernel's latest flush
	habit     int    // how many times in a row a flush came after each change
}

// habitual is when a habit is relied upon.
const habitual = 4

// idle says whether everything that was completed is durable on every copy that
// counts.
func (f *flushing) idle() bool { return f.flushed == f.completed }

// expect takes note of a request in the order of the kernel's, and makes a write
// durable that a flush is expected to follow. alone: nothing else is under way.
func (f *flushing) expect(io *IO, alone bool) {
	switch {
	case io.Op == Flush:
		if f.since == 1 {
			f.habit = min(f.habit+1, habitual)
		}
		f.since = 0
	case io.Op.changes():
		if f.since++; f.since > 1 || !alone {
			f.habit = 0
		}
		io.FUA = io.FUA || f.habit == habitual
	}
}

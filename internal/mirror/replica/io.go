package replica

import "github.com/tasuki-ha/tasuki/internal/mirror/meta"

// Op is what an IO does.
type Op uint8

// The operations. Copy brings a range to the other copy, and Sum compares it
// there. There is no discard: it would leave the two copies with contents that
// nobody promised to be equal, so a discard is a Zero.
const (
	Read Op = iota
	Write
	Flush
	Zero
	Copy
	Sum
)

// String returns its name in lower case.
func (o Op) String() string {
	return [...]string{"read", "write", "flush", "zero", "copy", "sum"}[o]
}

// changes says whether the operation changes what is on the disk.
func (o Op) changes() bool { return o == Write || o == Zero }

// MaxRange bounds the range of one IO, in bytes. Callers split what is longer.
const MaxRange = 16 * meta.ExtentSize

// IO is one request under way. The caller sets the first fields, and makes a new
// one for each request: it may be of use here for longer than until DoComplete.
type IO struct {
	Op  Op
	Off int64 // in bytes, a multiple of the sector
	Len int   // in bytes, at most MaxRange; 0 of a flush
	FUA bool  // a write that is durable on both copies when it completes
	Tag any   // of the caller

	Seq uint64 // its number on the link, when it is sent
	Err uint16 // errno, when it completes; 0 is success

	link    uint64 // the session that it was sent on; 0: not sent
	local   state  // of its part on this copy
	peer    state  // of its part on the other one
	started bool
	done    bool // it was handed to the caller as complete, or is inner
	inner   bool // the core's own: it completes to nobody
	after   func(*IO)
	extents []uint32 // that it holds in the activity log
}

// state is how far a part of an IO is.
type state uint8

const (
	none state = iota // not wanted
	wanted
	ok
	failed
)

func (s state) over() bool { return s != wanted }

// end is the first byte behind the range.
func (io *IO) end() int64 { return io.Off + int64(io.Len) }

// overlaps says whether two IOs touch the same bytes.
func (io *IO) overlaps(o *IO) bool { return io.Off < o.end() && o.Off < io.end() }

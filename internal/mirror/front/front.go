// Package front is the contract between the mirror engine and what gives the
// kernel a block device. A front end turns the kernel's requests into Requests
// for a Device; the engine knows none of them. Adding one is adding a folder.
package front

import (
	"context"
	"errors"
	"syscall"
)

// Op is what a request wants.
type Op uint8

// The operations. Zero makes a range read as zeroes; Discard tells that its
// content does not matter any more, and may leave anything there. A front end
// that cannot tell which of the two is meant asks for Zero.
const (
	Read Op = iota
	Write
	Flush // everything that was completed before is durable when it completes
	Discard
	Zero
)

func (o Op) String() string { return [...]string{"read", "write", "flush", "discard", "zero"}[o] }

// MaxLength bounds one read or write, in bytes; front ends split what is larger.
const MaxLength = 1 << 20

// Request is one request of the kernel. A front end may use it again after Done.
type Request struct {
	Op     Op
	Offset int64 // in bytes, a multiple of the device's sector
	Length int   // in bytes, the same; 0 of a flush. Discard and Zero may be longer than MaxLength
	FUA    bool  // a write that is durable when it completes
	NoHole bool  // of a Zero: the space of the range must stay allocated, or become so
	// Data is Length bytes: of a write what is to be written, of a read where it
	// goes. Its address is a multiple of Alignment. It belongs to the device
	// until Done.
	Data []byte
	// Done is called exactly once, from any goroutine, also before Do returns. It
	// must not block for long. 0 is success; a device that is aborted answers EIO.
	Done func(r *Request, err syscall.Errno)
	// Tag belongs to the front end.
	Tag any
}

// Alignment is what the address of every Data is a multiple of.
const Alignment = 4096

// Device takes requests. Requests that are under way at the same time may
// complete in any order; a front end that wants an order waits.
type Device interface {
	Size() int64     // in bytes; it can grow, see Front.Grown
	SectorSize() int // 512 or 4096
	Do(r *Request)   // from any goroutine; may block for as long as the local disk takes
}

// Front is one attached block device.
type Front interface {
	// Path is the block device, for example /dev/loop3. It is there when Attach has
	// returned. Programs that look at new devices make requests even before.
	Path() string
	// Serve hands requests to the device until Detach, Abort or an error. It
	// returns nil after Detach.
	Serve() error
	// Detach takes the block device away. ErrBusy while it is in use; then nothing
	// has changed.
	Detach(ctx context.Context) error
	// Abort makes every request that waits and every later one fail with EIO at
	// once, also those of which the device has not called Done, so that what is
	// mounted can be unmounted. Detach follows.
	Abort() error
	// Grown tells the kernel the device's new Size.
	Grown() error
}

// ErrBusy: something has the block device open, or a file system of it is
// mounted.
var ErrBusy = errors.New("the block device is in use")

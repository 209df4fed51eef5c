package fuse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
)

const (
	defaultThreads = 16
	defaultDepth   = 32
	maxBackground  = 256 // requests that the kernel hands out at the same time; the loop device has 128
)

// Options of Attach. Name must be set. A process that serves does better with a
// GOMAXPROCS above the number of threads: each is in a system call nearly always.
type Options struct {
	Name    string // of the mirror disk, as losetup shows it
	Threads int    // that take requests, each for as long as Device.Do takes; 0 is 16
	Depth   int    // requests under way at most, each with 516 KiB of memory; 0 is 32
}

// Front is a loop device that is served by this process.
type Front struct {
	dev    front.Device
	holder keep.Holder
	conn   keep.Connection
	fd     int // of conn.Device
	slots  *slots
	served sync.WaitGroup // the threads
	ended  chan struct{}  // closed when all of them have ended
	abort  chan struct{}  // closed by Abort

	mu      sync.Mutex
	gone    bool // the files of conn are closed
	aborted bool
	leaving bool  // Detach is under way, or has succeeded
	why     error // why a thread gave up, or the kernel will not do
}

var _ front.Front = (*Front)(nil)

// ErrUnsupported: the kernel cannot give the connection to another process.
var ErrUnsupported = errors.New("this kernel cannot resend the requests of a FUSE connection, which needs Linux 6.9: use another front end")

// Supported says why this machine cannot have such a front end: nil if it can.
func Supported() error {
	control, err := os.Open("/dev/loop-control")
	if err != nil {
		return fmt.Errorf("loop devices: %w", err)
	}
	_ = control.Close() // nothing was done with it
	h := &keep.Held{}
	defer h.Close()
	conn, err := h.Connect(keep.Spec{Name: "probe", SectorSize: 512})
	if err != nil {
		return err
	}
	defer conn.Close()
	b := make([]byte, 2*pageSize+conn.Transfer) // the kernel gives nothing to less
	n, err := unix.Read(int(conn.Device.Fd()), b)
	if err != nil {
		return fmt.Errorf("read the first request of FUSE: %w", err)
	}
	r, errno := parse(b[:n])
	if errno != 0 || r.op != opInit {
		return fmt.Errorf("the first request of FUSE is %d instead of %d", r.op, opInit)
	}
	return r.suits()
}

// Attach makes a loop device for dev, or takes up the one that h holds, with every
// request that the process before has not answered. One that was aborted is taken
// away first: front.ErrBusy if it is in use. dev takes requests from now on, before
// Serve is called; it must answer a flush, or there will be no loop device.
func Attach(ctx context.Context, dev front.Device, h keep.Holder, o Options) (*Front, error) {
	if o.Threads == 0 {
		o.Threads = defaultThreads
	}
	if o.Depth == 0 {
		o.Depth = defaultDepth
	}
	conn, err := connect(ctx, h, keep.Spec{Name: o.Name, SectorSize: dev.SectorSize()})
	if err != nil {
		return nil, fmt.Errorf("attach a block device for %s: %w", o.Name, err)
	}
	f := &Front{dev: dev, holder: h, conn: conn, fd: int(conn.Device.Fd()), ended: make(chan struct{}), abort: make(chan struct{})}
	if f.slots, err = newSlots(o.Depth, conn.Transfer, f.done, f.close); err != nil {
		conn.Close()
		return nil, err
	}
	if conn.Path != "" {
		if _, err := unix.Write(f.fd, notice(notifyResend)); err != nil {
			f.slots.close()
			return nil, fmt.Errorf("take up %s: have requests sent again: %w", conn.Path, err)
		}
	}
	for range o.Threads {
		f.served.Go(f.thread)
	}
	go func() {
		f.served.Wait()
		f.slots.close()
		close(f.ended)
	}()
	if conn.Path == "" {
		if f.conn.Path, err = h.Bind(); err != nil {
			_ = f.Abort() // ends the threads; the keeper forgets what has no loop device
			return nil, fmt.Errorf("attach a block device for %s: %w", o.Name, cmp.Or(f.reason(), err))
		}
	}
	return f, nil
}

func connect(ctx context.Context, h keep.Holder, s keep.Spec) (keep.Connection, error) {
	conn, err := h.Connect(s)
	if err != nil || conn.Path == "" || !conn.Ended() {
		return conn, err
	}
	conn.Close()
	if err := h.Release(ctx); err != nil {
		return keep.Connection{}, err
	}
	return h.Connect(s)
}

func (f *Front) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	f.conn.Close()
}

// fail notes why the front end does not go on; the first reason counts.
func (f *Front) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why = cmp.Or(f.why, err)
}

func (f *Front) reason() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.why
}

// Path is the loop device.
func (f *Front) Path() string { return f.conn.Path }

// wait waits for the end of the threads, but not after Abort: they may be in a
// device that does not come back.
func (f *Front) wait() {
	select {
	case <-f.ended:
	case <-f.abort:
	}
}

// Serve waits for the end of the connection, which is served since Attach.
func (f *Front) Serve() error {
	f.wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.aborted:
		return fmt.Errorf("%s was aborted", f.conn.Path)
	case f.leaving:
		return nil
	case f.why != nil:
		return f.why
	}
	return fmt.Errorf("the connection of %s was ended from outside", f.conn.Path)
}

// Detach takes the loop device away. It is busy only after a second, because
// programs that look at every new device have it open for a moment.
func (f *Front) Detach(ctx context.Context) error {
	f.leave(true)
	if err := f.holder.Release(ctx); err != nil {
		f.leave(false)
		return fmt.Errorf("detach: %w", err)
	}
	f.wait()
	return nil
}

func (f *Front) leave(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = on
}

// Abort ends the connection: the loop device stays until Detach, and fails.
func (f *Front) Abort() error {
	f.mu.Lock()
	if !f.aborted {
		f.aborted = true
		close(f.abort)
	}
	var err error
	if !f.gone {
		err = keep.Abort(f.conn.ID)
	}
	f.mu.Unlock()
	f.slots.close() // threads that wait for one
	if err != nil {
		return fmt.Errorf("abort %s: %w", f.conn.Path, err)
	}
	return nil
}

// Grown has the kernel ask for the size.
func (f *Front) Grown() error {
	if err := f.holder.Grow(); err != nil {
		return fmt.Errorf("grow the block device to %d bytes: %w", f.dev.Size(), err)
	}
	return nil
}

package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

// Options of Attach and Resume.
type Options struct {
	// Identity is what the kernel knows the device by, for example tasuki:md1. The
	// number of a device can become another one's when this process is not looking, so
	// nothing is done to a device that has not the right identity. It is not empty.
	Identity string
	// Dead is how long requests wait for Resume after the process that served them is
	// gone; then they fail. In whole seconds; 0 is 60.
	Dead time.Duration
	// Requeue is how long after Resume the requests may take to come again that the
	// process before had taken and not answered. The kernel writes a line to its log
	// for every request that takes longer. 0 is 2 s.
	Requeue time.Duration
	// Log takes what is odd and no error.
	Log *slog.Logger
}

const (
	defaultDead    = 60 * time.Second
	defaultRequeue = 2 * time.Second
	// takeOverWithin is how long Resume tries. The kernel notices that a process is gone
	// when the last of its threads has left its system call.
	takeOverWithin = 10 * time.Second
	// again is the time between two tries.
	again = 10 * time.Millisecond
)

// ErrAborted is what Serve returns after Abort.
var ErrAborted = errors.New("the block device was aborted")

// Kernel is a device that the kernel makes a block device of. It implements
// front.Front.
type Kernel struct {
	door  door
	opt   Options
	dev   front.Device
	index int
	ses   *session
	pool  pool
	state atomic.Int32
}

var _ front.Front = (*Kernel)(nil)

// The states of a Kernel.
const (
	attached = iota
	detached
	aborted
)

// A door is where the kernel is, or a test.
type door struct {
	open     func() (*family, error)
	sys, dev string
}

var kernel = door{open, "/sys/block", "/dev"}

// Attach makes a block device of dev. It needs root, and Linux 5.19 or a long-term
// 5.15: since 5.14 a device is known by its identity, and in those Abort and Remove
// need not wait for Dead. Serve must follow: the first program that looks at the
// device waits for it.
//
// There is one connection and no time limit on requests, and both matter. With a
// limit, or with two connections, the kernel cuts a connection off on which a
// request waits too long, and sends the request again on the next one; but a
// mirror may have to hold a write for as long as the cluster needs, and a write
// that is sent twice can undo a later one. Without, a request is sent again only
// when the connection it went out on was replaced, which is when the process that
// had taken it is gone. The kernel looks for such requests as often as the queue's
// io_timeout says, so that is set to Requeue.
func Attach(dev front.Device, opt Options) (*Kernel, error) { return kernel.attach(dev, opt) }

// Resume takes over the block device of that number, see Find, from a process that
// is gone. Requests that it had taken come again, those that waited go on. It fails
// if the device is another one, or the process is still there.
func Resume(index int, dev front.Device, opt Options) (*Kernel, error) {
	return kernel.resume(index, dev, opt)
}

// Remove takes away the block device with that identity that a process left behind,
// for when it must not be resumed: because this copy was not the active one since,
// so that what waits in it belongs to another time. All of that fails, and none of
// it reaches a device. It returns front.ErrBusy like Detach: unmount, and call it
// again. It returns nil if there is no such device.
func Remove(ctx context.Context, identity string) error { return kernel.remove(ctx, identity) }

func (d door) remove(ctx context.Context, identity string) error {
	index, found := d.find(identity)
	if !found {
		return nil
	}
	k := &Kernel{door: d, index: index, opt: Options{Identity: identity}}
	if err := k.Abort(); err != nil {
		return err
	}
	return k.Detach(ctx)
}

// Find returns the number of the block device with that identity, for Resume; false
// if there is none.
func Find(identity string) (index int, found bool) { return kernel.find(identity) }

func (d door) find(identity string) (index int, found bool) {
	all, _ := filepath.Glob(filepath.Join(d.sys, "nbd*")) // the pattern is good
	for _, path := range all {
		index, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(path), "nbd"))
		if err == nil && d.is(index, identity) {
			return index, true
		}
	}
	return 0, false
}

// is says whether a block device has that identity. It has until it is disconnected
// and nobody has it open.
func (d door) is(index int, identity string) bool {
	got, err := os.ReadFile(filepath.Join(d.sys, name(index), "backend"))
	return err == nil && strings.TrimSuffix(string(got), "\n") == identity
}

func (d door) prepare(dev front.Device, opt Options) *Kernel {
	if opt.Dead <= 0 {
		opt.Dead = defaultDead
	}
	if opt.Requeue <= 0 {
		opt.Requeue = defaultRequeue
	}
	return &Kernel{door: d, dev: dev, opt: opt}
}

func (d door) attach(dev front.Device, opt Options) (*Kernel, error) {
	k := d.prepare(dev, opt)
	f, err := d.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.conn.Close() }()
	theirs, err := k.pair()
	if err != nil {
		return nil, err
	}
	k.index, err = f.connect(setting{
		index: -1, size: dev.Size(), dead: k.opt.Dead, socket: theirs, identity: opt.Identity, block: dev.SectorSize(),
	})
	_ = unix.Close(theirs)
	if err != nil {
		k.ses.end(errClosed)
		return nil, fmt.Errorf("attach to the kernel's nbd: %w", err)
	}
	_, err = os.Stat(k.Path())
	if err == nil && !k.ours() {
		err = errors.New("it has no identity: this needs Linux 5.14")
	}
	if err != nil {
		k.ses.end(errClosed)
		_ = f.disconnect(k.index)
		return nil, fmt.Errorf("attach to the kernel's nbd: %s cannot be used: %w", k.Path(), err)
	}
	requeue := filepath.Join(d.sys, name(k.index), "queue", "io_timeout")
	if err := os.WriteFile(requeue, strconv.AppendInt(nil, k.opt.Requeue.Milliseconds(), 10), 0); err != nil {
		opt.Log.Warn("requests wait 30 s when this process is replaced", "device", k.Path(), "error", err)
	}
	return k, nil
}

func (d door) resume(index int, dev front.Device, opt Options) (*Kernel, error) {
	k := d.prepare(dev, opt)
	k.index = index
	for end := time.Now().Add(takeOverWithin); ; time.Sleep(again) {
		theirs, err := k.pair()
		if err != nil {
			return nil, err
		}
		err = k.reconfigure(setting{index: index, size: dev.Size(), dead: k.opt.Dead, socket: theirs})
		_ = unix.Close(theirs)
		if err == nil && !k.dropped() {
			return k, nil
		}
		k.ses.end(errClosed)
		if err != nil {
			return nil, fmt.Errorf("resume %s: the kernel has no such device, or it is another one: attach anew: %w", k.Path(), err)
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("resume %s: another process serves it", k.Path())
		}
	}
}

// pair makes a session of one end of a new connection and returns the other end,
// for the kernel.
func (k *Kernel) pair() (theirs int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("make a connection for the kernel: %w", err)
	}
	for _, fd := range fds {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sending)
	}
	file := os.NewFile(uintptr(fds[0]), "nbd")
	conn, err := net.FileConn(file)
	_ = file.Close()
	if err == nil {
		k.ses, err = newSession(conn.(*net.UnixConn), nil, k.dev, &k.pool)
	}
	if err != nil {
		_ = unix.Close(fds[1])
		return 0, fmt.Errorf("make a connection for the kernel: %w", err)
	}
	return fds[1], nil
}

// dropped says whether the kernel did not keep its end of the connection.
func (k *Kernel) dropped() (yes bool) {
	_ = k.ses.out.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, err := unix.Poll(p, 0)
		yes = err != nil || p[0].Revents&unix.POLLHUP != 0
	})
	return yes
}

// Index is the number of the block device, for Resume.
func (k *Kernel) Index() int { return k.index }

func name(index int) string { return "nbd" + strconv.Itoa(index) }

func (k *Kernel) ours() bool { return k.door.is(k.index, k.opt.Identity) }

// Path is the block device, for example /dev/nbd0.
func (k *Kernel) Path() string { return filepath.Join(k.door.dev, name(k.index)) }

// Serve hands the kernel's requests to the device until Detach (nil), Abort
// (ErrAborted), or until the kernel ends the connection. It is called once.
func (k *Kernel) Serve() error {
	err := k.ses.run()
	switch {
	case errors.Is(err, ErrAborted):
		return ErrAborted
	case k.state.Load() == detached:
		return nil
	}
	return fmt.Errorf("serve %s: %w", k.Path(), err)
}

// Detach takes the block device away, and makes what was written to it durable
// before. It returns front.ErrBusy while a file system of it is mounted or a
// program has claimed it for itself; one that only has it open is not noticed, and
// its requests fail. If ctx ends before the device is idle, nothing has changed.
func (k *Kernel) Detach(ctx context.Context) error {
	if !k.ours() { // it is gone already
		k.end(detached, errClosed)
		return nil
	}
	claimed, err := os.OpenFile(k.Path(), os.O_RDWR|unix.O_EXCL, 0) // of a block device: nobody else may
	switch {
	case errors.Is(err, unix.EBUSY):
		return front.ErrBusy
	case err != nil:
		return fmt.Errorf("detach: %w", err)
	}
	if err := k.flush(ctx, claimed); err != nil {
		return fmt.Errorf("detach %s: %w", k.Path(), err)
	}
	if k.ours() { // still, and for as long as it is open
		err = k.disconnect(detached)
	}
	_ = claimed.Close()
	if err != nil {
		return fmt.Errorf("detach %s: %w", k.Path(), err)
	}
	k.end(detached, errClosed)
	return k.gone(ctx)
}

// flush makes what is in the page cache durable. If it fails, f is closed, at once
// or later.
func (k *Kernel) flush(ctx context.Context, f *os.File) error {
	if k.state.Load() == aborted {
		return nil
	}
	synced := make(chan error, 1)
	go func() { synced <- f.Sync() }()
	select {
	case err := <-synced:
		if err != nil {
			_ = f.Close()
			return fmt.Errorf("what was written to it is not durable: %w", err)
		}
		return nil
	case <-ctx.Done():
		go func() { <-synced; _ = f.Close() }()
		return fmt.Errorf("it is not idle: %w", ctx.Err())
	}
}

// disconnect ends the block device and leaves the state for Serve; the old one
// stays if it fails.
func (k *Kernel) disconnect(state int32) error {
	f, err := k.door.open()
	if err != nil {
		return err
	}
	defer func() { _ = f.conn.Close() }()
	before := k.state.Swap(state)
	if err := f.disconnect(k.index); err != nil {
		k.state.Store(before)
		return err
	}
	return nil
}

// gone waits until the kernel has let go of the device.
func (k *Kernel) gone(ctx context.Context) error {
	for k.ours() {
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return fmt.Errorf("%s is detached, and a program still has it open: %w", k.Path(), ctx.Err())
		}
	}
	return nil
}

// end ends the connection. Serve tells the first reason.
func (k *Kernel) end(state int32, why error) {
	k.state.Store(state)
	if k.ses != nil { // Remove has none
		k.ses.end(why)
	}
}

// Abort makes every request fail. Serve returns ErrAborted.
func (k *Kernel) Abort() error {
	if !k.ours() {
		k.end(aborted, ErrAborted)
		return nil
	}
	k.end(aborted, ErrAborted) // first: the kernel waits for who sends on the connection
	if err := k.disconnect(aborted); err != nil {
		return fmt.Errorf("abort %s: %w", k.Path(), err)
	}
	return nil
}

// Grown tells the kernel the device's size.
func (k *Kernel) Grown() error {
	s := only(k.index)
	s.size = k.dev.Size()
	if err := k.reconfigure(s); err != nil {
		return fmt.Errorf("tell the kernel the new size of %s: %w", k.Path(), err)
	}
	return nil
}

func (k *Kernel) reconfigure(s setting) error {
	f, err := k.door.open()
	if err != nil {
		return err
	}
	defer func() { _ = f.conn.Close() }()
	s.identity = k.opt.Identity
	return f.reconfigure(s)
}

package keep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

// Spec says what to make of a front end that is not kept yet.
type Spec struct {
	Name       string `json:"name"`        // shown by losetup, at most 50 bytes
	SectorSize int    `json:"sector_size"` // 512 or 4096
}

// Connection is what the serving side needs. Its files are the receiver's own.
type Connection struct {
	Device *os.File // /dev/fuse, in blocking mode
	Root   *os.File // of the file system: while it is open, ID is the connection's
	ID     uint32   // for Abort
	Path   string   // of the loop device; empty if Bind has to follow
	// Transfer is how many bytes the kernel was told that one read or write may
	// have. A later version of the program has to bear what an earlier one said.
	Transfer int
}

// Close closes the files.
func (c Connection) Close() {
	for _, f := range []*os.File{c.Device, c.Root} {
		if f != nil {
			_ = f.Close() // nothing is written through it
		}
	}
}

// Holder is what a front end asks of its keeper. One call at a time.
type Holder interface {
	// Connect returns the connection that is kept, or a new one.
	Connect(s Spec) (Connection, error)
	// Bind makes the loop device and returns its path. The connection is served.
	Bind() (string, error)
	// Grow tells the kernel that the file has another size.
	Grow() error
	// Release writes back what the kernel has cached of the loop device, takes it
	// away, and ends the connection. front.ErrBusy if something has it open; then
	// nothing has changed, nor when the context ends before. No error if there is
	// no loop device.
	Release(ctx context.Context) error
}

// Held is the kernel's part of one front end. The zero value holds nothing. Used
// as a Holder in the process that serves, it works as long as that process is
// not killed in the middle of a call.
type Held struct {
	calls sync.Mutex // of Bind, Grow and Release, which wait for the serving side
	mu    sync.Mutex
	spec  Spec
	conn  Connection // ours; Device is nil when nothing is held
	loop  *os.File
}

var _ Holder = (*Held)(nil)

// Connect returns copies of the descriptors that are held, and makes them before
// if there are none.
func (h *Held) Connect(s Spec) (Connection, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn.Device == nil {
		device, root, err := mount(s.Name)
		if err != nil {
			return Connection{}, err
		}
		made := Connection{Device: device, Root: root, Transfer: Transfer}
		if made.ID, err = connectionID(root); err != nil {
			made.Close()
			return Connection{}, err
		}
		h.spec, h.conn = s, made
	}
	if s.SectorSize != h.spec.SectorSize {
		return Connection{}, fmt.Errorf("%s has sectors of %d bytes, now %d are wanted: detach it first", h.conn.Path, h.spec.SectorSize, s.SectorSize)
	}
	c := h.conn
	var err error
	if c.Device, err = duplicate(h.conn.Device); err != nil {
		return Connection{}, err
	}
	if c.Root, err = duplicate(h.conn.Root); err != nil {
		_ = c.Device.Close()
		return Connection{}, err
	}
	return c, nil
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy the descriptor of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// now returns what is held now.
func (h *Held) now() (Connection, *os.File, Spec) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.conn, h.loop, h.spec
}

var errNothing = errors.New("no block device is held")

// Bind makes the loop device.
func (h *Held) Bind() (string, error) {
	h.calls.Lock()
	defer h.calls.Unlock()
	conn, loop, spec := h.now()
	if conn.Device == nil || loop != nil {
		return "", errors.New("bind: there must be a connection, and no loop device yet")
	}
	fd, err := unix.Openat(int(conn.Root.Fd()), File, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open the file of the FUSE file system: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // the loop device has its own reference
	if loop, err = bind(fd, spec.SectorSize, spec.Name); err != nil {
		return "", err
	}
	if err := tune(loop); err != nil {
		_ = loop.Close() // frees it
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn.Device != conn.Device {
		_ = loop.Close()
		return "", errNothing
	}
	h.loop, h.conn.Path = loop, loop.Name()
	return loop.Name(), nil
}

// Grow has the kernel read the size of the file, and gives it to the loop device.
func (h *Held) Grow() error {
	h.calls.Lock()
	defer h.calls.Unlock()
	conn, loop, _ := h.now()
	if loop == nil {
		return errNothing
	}
	// Kernels before 6.16 take the size that they know, so it must be asked for.
	var st unix.Stat_t
	if err := unix.Fstatat(int(conn.Root.Fd()), File, &st, 0); err != nil {
		return fmt.Errorf("read the new size: %w", err)
	}
	if _, err := unix.IoctlRetInt(int(loop.Fd()), unix.LOOP_SET_CAPACITY); err != nil {
		return fmt.Errorf("grow %s: %w", loop.Name(), err)
	}
	return nil
}

const (
	busyFor  = time.Second           // programs that look at every new device hold it for a moment
	busyStep = 20 * time.Millisecond // between two looks
)

// Release is as Holder says.
func (h *Held) Release(ctx context.Context) error {
	h.calls.Lock()
	defer h.calls.Unlock()
	conn, loop, _ := h.now()
	if loop == nil {
		return nil
	}
	for end := time.Now().Add(busyFor); ; {
		// An error here is no reason to keep the device: whoever wrote without
		// syncing was promised nothing, and a device that was aborted must go.
		_ = unix.Fsync(int(loop.Fd()))
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s stays: %w", loop.Name(), err)
		}
		free, err := unbind(loop)
		if err != nil {
			return err
		}
		if free {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: %w", loop.Name(), front.ErrBusy)
		}
		select {
		case <-ctx.Done():
		case <-time.After(busyStep):
		}
	}
	// While our files are open the number is the connection's.
	err := Abort(conn.ID)
	h.drop()
	return err
}

// unbind begins the end of a loop device if we are its only user. The kernel then
// lets nobody else open it; if there is another user it only remembers to free it
// at the last close, which it does anyway.
func unbind(loop *os.File) (bool, error) {
	if _, err := unix.IoctlRetInt(int(loop.Fd()), unix.LOOP_CLR_FD); err != nil && !errors.Is(err, unix.ENXIO) {
		return false, fmt.Errorf("free %s: %w", loop.Name(), err)
	}
	_, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return false, fmt.Errorf("look at %s: %w", loop.Name(), err)
	}
	return err != nil, nil
}

// Close lets everything go. What is mounted gets errors from then on, unless the
// serving side still has the connection.
func (h *Held) Close() { h.drop() }

func (h *Held) drop() {
	h.mu.Lock()
	conn, loop := h.conn, h.loop
	h.conn, h.loop = Connection{}, nil
	h.mu.Unlock()
	if loop != nil {
		_ = loop.Close() // nothing is cached any more, or it is lost on purpose
	}
	conn.Close()
}

// lost is called when the serving side is gone. A connection without a loop
// device is of no use to the next one, and Bind may be waiting in it.
func (h *Held) lost() error {
	conn, loop, _ := h.now()
	if conn.Device == nil || loop != nil {
		return nil
	}
	err := Abort(conn.ID)
	h.calls.Lock() // until Bind has returned
	defer h.calls.Unlock()
	if _, loop, _ := h.now(); loop == nil {
		h.drop()
	}
	return err
}

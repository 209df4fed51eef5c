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

// Ended says that the connection was aborted, or has ended otherwise.
func (c Connection) Ended() bool {
	p := []unix.PollFd{{Fd: int32(c.Device.Fd())}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLERR != 0
}

// Holder is what a front end asks of its keeper. One call at a time.
type Holder interface {
	// Kept is the path of the loop device that is held; empty if there is none.
	Kept() (string, error)
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

// Held is the kernel's part of one front end. The zero value holds nothing.
type Held struct {
	calls sync.Mutex // of Bind, Grow and Release, which wait for the serving side
	mu    sync.Mutex
	spec  Spec
	conn  Connection // ours; Device is nil when nothing is held
	hand  *hand      // has the loop device, if conn has a path
}

var _ Holder = (*Held)(nil)

// Kept is as Holder says.
func (h *Held) Kept() (string, error) {
	conn, _, _ := h.now()
	return conn.Path, nil
}

// Connect returns copies of the descriptors that are held, and makes them before
// if there are none.
func (h *Held) Connect(s Spec) (Connection, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn.Device == nil {
		conn, hand, err := open(s)
		if err != nil {
			return Connection{}, err
		}
		h.spec, h.conn, h.hand = s, conn, hand
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

func open(s Spec) (conn Connection, _ *hand, err error) {
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	conn.Transfer = Transfer
	if conn.Device, conn.Root, err = mount(s.Name); err != nil {
		return conn, nil, err
	}
	if conn.ID, err = connectionID(conn.Root); err != nil {
		return conn, nil, err
	}
	hand, err := newHand(conn.Root)
	return conn, hand, err
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy the descriptor of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// now returns what is held now.
func (h *Held) now() (Connection, *hand, Spec) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.conn, h.hand, h.spec
}

var errNothing = errors.New("no block device is held")

// Bind makes the loop device. The kernel flushes once meanwhile. After an error
// nothing is held.
func (h *Held) Bind() (path string, err error) {
	h.calls.Lock()
	defer h.calls.Unlock()
	conn, hand, spec := h.now()
	if conn.Device == nil || conn.Path != "" {
		return "", errors.New("bind: there must be a connection, and no loop device yet")
	}
	err = hand.run(func() (err error) {
		hand.loop, path, err = bind(hand.root, spec.SectorSize, spec.Name)
		return err
	})
	if err != nil {
		err = errors.Join(err, Abort(conn.ID))
		h.Close()
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hand != hand {
		return "", errNothing // Close was called; the loop device goes with the hand
	}
	h.conn.Path = path
	return path, nil
}

// Grow has the kernel read the size of the file, and gives it to the loop device.
func (h *Held) Grow() error {
	h.calls.Lock()
	defer h.calls.Unlock()
	conn, hand, _ := h.now()
	if conn.Path == "" {
		return errNothing
	}
	return hand.run(func() error {
		// Kernels before 6.16 take the size that they know, so it must be asked for.
		var st unix.Stat_t
		if err := unix.Fstatat(hand.root, File, &st, 0); err != nil {
			return fmt.Errorf("read the new size: %w", err)
		}
		if _, err := unix.IoctlRetInt(hand.loop, unix.LOOP_SET_CAPACITY); err != nil {
			return fmt.Errorf("grow %s: %w", conn.Path, err)
		}
		return nil
	})
}

const (
	busyFor  = time.Second           // programs that look at every new device hold it for a moment
	busyStep = 20 * time.Millisecond // between two looks
)

// Release is as Holder says.
func (h *Held) Release(ctx context.Context) error {
	h.calls.Lock()
	defer h.calls.Unlock()
	conn, hand, _ := h.now()
	if conn.Path == "" {
		return nil
	}
	for end := time.Now().Add(busyFor); ; {
		free := false
		err := hand.run(func() (err error) {
			// An error here is no reason to keep the device: whoever wrote without
			// syncing was promised nothing, and a device that was aborted must go.
			_ = unix.Fsync(hand.loop)
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("%s stays: %w", conn.Path, err)
			}
			free, err = unbind(hand.loop)
			return err
		})
		if err != nil {
			return err
		}
		if free {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: %w", conn.Path, front.ErrBusy)
		}
		select {
		case <-ctx.Done():
		case <-time.After(busyStep):
		}
	}
	// While our files are open the number is the connection's.
	err := Abort(conn.ID)
	h.Close()
	<-hand.ended
	return err
}

// Close lets everything go. What is mounted gets errors from then on, unless the
// serving side still has the connection.
func (h *Held) Close() {
	h.mu.Lock()
	conn, hand := h.conn, h.hand
	h.conn, h.hand = Connection{}, nil
	h.mu.Unlock()
	conn.Close()
	if hand != nil {
		hand.stop()
	}
}

// lost is called when the serving side is gone. A connection without a loop
// device is of no use to the next one, and Bind may be waiting in it.
func (h *Held) lost() error {
	conn, _, _ := h.now()
	if conn.Device == nil || conn.Path != "" {
		return nil
	}
	err := Abort(conn.ID)
	h.calls.Lock() // until Bind has returned
	defer h.calls.Unlock()
	if conn, _, _ := h.now(); conn.Path == "" {
		h.Close()
	}
	return err
}

package keep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

// ask is what the serving process sends: one packet of JSON.
type ask struct {
	Serial uint64        `json:"serial"`
	Do     string        `json:"do"` // kept, connect, bind, grow, release
	Spec   Spec          `json:"spec,omitzero"`
	Limit  time.Duration `json:"limit,omitempty"` // of release; 0 is none
}

// answer is what the keeper sends back, of connect with two descriptors.
type answer struct {
	Serial   uint64 `json:"serial"`
	ID       uint32 `json:"id,omitempty"`
	Path     string `json:"path,omitempty"`
	Transfer int    `json:"transfer,omitempty"`
	Error    string `json:"error,omitempty"`
	Busy     bool   `json:"busy,omitempty"` // the error is front.ErrBusy
}

const (
	packetBytes = 4096
	filesMax    = 2
	callLimit   = 30 * time.Second // of a call without a context
)

// pair makes the two ends of a channel between a keeper and its process.
func pair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a channel to the keeper: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "keeper")
	if ours, err = connOf(os.NewFile(uintptr(fds[0]), "kept")); err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// connOf takes the file over.
func connOf(f *os.File) (*net.UnixConn, error) {
	defer func() { _ = f.Close() }() // FileConn made a copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open the channel to the keeper: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("the channel to the keeper is no unix socket")
	}
	return u, nil
}

// send writes one packet.
func send(c *net.UnixConn, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, rights, nil)
	return err
}

// receive reads one packet. The files are the caller's.
func receive(c *net.UnixConn, v any) ([]*os.File, error) {
	b, rights := make([]byte, packetBytes), make([]byte, unix.CmsgSpace(4*filesMax))
	n, nr, flags, _, err := c.ReadMsgUnix(b, rights)
	if err != nil {
		return nil, err
	}
	files, err := filesOf(rights[:nr])
	switch {
	case err != nil:
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("a packet is too long")
	default:
		err = json.Unmarshal(b[:n], v)
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

func filesOf(rights []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials, which nobody asked for
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "kept descriptor"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// gone are the errors of a channel whose other end has closed it, or has died.
var gone = []error{io.EOF, net.ErrClosed, unix.ECONNRESET, unix.EPIPE}

// serve answers one process until it is gone.
func (h *Held) serve(ctx context.Context, c *net.UnixConn) error {
	for {
		var q ask
		files, err := receive(c, &q)
		closeAll(files)
		if slices.ContainsFunc(gone, func(g error) bool { return errors.Is(err, g) }) {
			return nil
		}
		if err != nil {
			return err
		}
		a, files := h.answer(ctx, q)
		err = send(c, a, files...)
		closeAll(files)
		if err != nil {
			return err
		}
	}
}

func (h *Held) answer(ctx context.Context, q ask) (a answer, files []*os.File) {
	var err error
	switch q.Do {
	case "kept":
		a.Path, err = h.Kept()
	case "connect":
		var conn Connection
		if conn, err = h.Connect(q.Spec); err == nil {
			a.ID, a.Path, a.Transfer, files = conn.ID, conn.Path, conn.Transfer, []*os.File{conn.Device, conn.Root}
		}
	case "bind":
		a.Path, err = h.Bind()
	case "grow":
		err = h.Grow()
	case "release":
		if q.Limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, q.Limit)
			defer cancel()
		}
		conn, _, _ := h.now()
		a.Path, err = conn.Path, h.Release(ctx)
	default:
		err = fmt.Errorf("the keeper does not know %q: it is of another version", q.Do)
	}
	a.Serial = q.Serial
	if err != nil {
		a.Error, a.Busy = err.Error(), errors.Is(err, front.ErrBusy)
	}
	return a, files
}

// Client is the keeper as its process sees it.
type Client struct {
	mu     sync.Mutex
	conn   *net.UnixConn
	serial uint64
}

var _ Holder = (*Client)(nil)

// variable names the descriptor of the channel in the environment of a process
// that is kept.
const variable = "TASUKI_KEEPER"

// Dial returns the keeper that started this process. It can be called once.
func Dial() (*Client, error) {
	fd, err := strconv.Atoi(os.Getenv(variable))
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("no keeper: %s is %q; this process is started by one", variable, os.Getenv(variable))
	}
	if err := os.Unsetenv(variable); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	conn, err := connOf(os.NewFile(uintptr(fd), "keeper"))
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn}, nil
}

// Close ends the channel.
func (c *Client) Close() error { return c.conn.Close() }

// Kept asks the keeper what it holds.
func (c *Client) Kept() (string, error) {
	a, _, err := c.call(ask{Do: "kept"})
	return a.Path, err
}

// Connect asks the keeper for the connection.
func (c *Client) Connect(s Spec) (Connection, error) {
	a, files, err := c.call(ask{Do: "connect", Spec: s})
	if err != nil {
		return Connection{}, err
	}
	if len(files) != filesMax {
		closeAll(files)
		return Connection{}, fmt.Errorf("the keeper sent %d descriptors instead of %d", len(files), filesMax)
	}
	return Connection{Device: files[0], Root: files[1], ID: a.ID, Path: a.Path, Transfer: a.Transfer}, nil
}

// Bind asks the keeper for a loop device.
func (c *Client) Bind() (string, error) {
	a, _, err := c.call(ask{Do: "bind"})
	return a.Path, err
}

// Grow asks the keeper to tell the kernel the new size.
func (c *Client) Grow() error {
	_, _, err := c.call(ask{Do: "grow"})
	return err
}

// Release asks the keeper to take the loop device away.
func (c *Client) Release(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := ask{Do: "release"}
	if end, ok := ctx.Deadline(); ok {
		q.Limit = max(time.Until(end), 1)
	}
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.conn.SetReadDeadline(time.Now().Add(grace)) // it fails only if the channel is closed
		close(over)
	})
	defer func() {
		if !stop() {
			<-over
		}
	}()
	_, _, err := c.exchange(q)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ctx.Err()
	}
	return err
}

// grace is how much later than its context a caller gives up, so that the
// keeper's word about a call that ends just then is heard.
const grace = 200 * time.Millisecond

// call is an exchange that must be answered within callLimit.
func (c *Client) call(q ask) (answer, []*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.conn.SetReadDeadline(time.Now().Add(callLimit)); err != nil {
		return answer{}, nil, err
	}
	return c.exchange(q)
}

// exchange sends one question and waits for its answer. Answers that came too late
// for their callers are thrown away. mu is held.
func (c *Client) exchange(q ask) (a answer, files []*os.File, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("ask the keeper to %s: %w", q.Do, err)
		}
	}()
	c.serial++
	q.Serial = c.serial
	if err := send(c.conn, q); err != nil {
		return answer{}, nil, err
	}
	for a.Serial != q.Serial {
		closeAll(files)
		a = answer{}
		if files, err = receive(c.conn, &a); err != nil {
			return answer{}, nil, err
		}
	}
	return a, files, a.err()
}

func (a answer) err() error {
	switch {
	case a.Busy:
		return fmt.Errorf("%s: %w", a.Path, front.ErrBusy)
	case a.Error != "":
		return errors.New(a.Error)
	}
	return nil
}

package keep

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// hand is the thread that does what the serving side has to answer. It has its own
// table of descriptors, with the loop device but without the connection.
//
// If keeper and serving process are killed at the same time, a thread that waits
// for an answer cannot end, and keeps its table. Were the connection in it, the
// kernel would wait for ever for somebody to serve it. So all the other threads
// end, the connection with them, the kernel fails the call, and the hand can end.
type hand struct {
	root int // of the file system, as in the table of the other threads
	loop int // -1 if there is none; touched by the thread only

	do    chan func()
	stop  func()
	ended chan struct{}
}

// newHand starts the thread. root stays the caller's.
func newHand(root *os.File) (*hand, error) {
	// The runtime's own descriptors must be there before the table is copied.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, _ = r.Close(), w.Close() // nothing was written
	stop := make(chan struct{})
	h := &hand{root: int(root.Fd()), loop: -1, do: make(chan func()), stop: sync.OnceFunc(func() { close(stop) }), ended: make(chan struct{})}
	ready := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: nobody else can use this thread
		defer close(h.ended)
		err := h.unshare()
		ready <- err
		for err == nil {
			select {
			case f := <-h.do:
				f()
			case <-stop:
				h.close()
				return
			}
		}
	}()
	return h, <-ready
}

// unshare gives the thread its own table, and closes everything in it but the
// root, the standard streams and what the runtime of Go uses from any thread.
func (h *hand) unshare() error {
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return fmt.Errorf("get a table of descriptors: %w", err)
	}
	const table = "/proc/thread-self/fd"
	list, err := os.ReadDir(table)
	if err != nil {
		return fmt.Errorf("look at the table of descriptors: %w", err)
	}
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 || fd == h.root {
			continue
		}
		if to, err := os.Readlink(filepath.Join(table, e.Name())); err == nil && !strings.HasPrefix(to, "anon_inode:") {
			_ = unix.Close(fd) // only this thread's
		}
	}
	return nil
}

// close lets go what matters; the rest ends with the thread.
func (h *hand) close() {
	if h.loop >= 0 {
		_ = unix.Close(h.loop) // what was cached is written back by now, or lost on purpose
	}
	_ = unix.Close(h.root)
}

// run does f on the thread. f must not leave an os.File open: the runtime might
// close its number on another thread.
func (h *hand) run(f func() error) error {
	result := make(chan error, 1)
	select {
	case h.do <- func() { result <- f() }:
		return <-result
	case <-h.ended:
		return errNothing
	}
}

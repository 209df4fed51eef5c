package watchdog

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// helper is the loop of the helper process. It is one thread that waits in
// poll(2), so that feeds that have arrived are always seen before a deadline
// that has passed, also when the helper itself was starved or stopped.
//
// It counts on a clock that stands still while the machine is suspended: a
// guest that was paused gets its whole timeout again.
type helper struct {
	clock func() time.Duration
	poll  func(fds []unix.PollFd, timeout time.Duration) (ready int, err error) // timeout < 0: for ever
	reset func(why string) error                                                // returns only if it failed
	trust func(fd int) error                                                    // nil if the other end may command

	retire   func() // lets nobody connect any more
	listener int    // takes daemons that come later; -1: none
	owner    int    // the connection that feeds; -1: none
	greeting []byte

	mark   func(near bool) // says, without waiting, that a reset is near, or is not after all
	marked bool

	armed    bool
	timeout  time.Duration // of the last feed
	deadline time.Duration
}

// markLead is how long before a reset it is noted on disk that it is near.
const markLead = 50 * time.Millisecond

// resetRetry is how long to wait before a reset that failed is tried again.
const resetRetry = time.Second

// run returns when it was disarmed, or when the daemon went away before it
// armed; then nothing is left to guard.
func (h *helper) run() (disarmed bool, err error) {
	h.answer(h.greeting)
	for h.armed || h.owner >= 0 {
		left := time.Duration(-1)
		if h.armed {
			left = h.note(max(h.deadline-h.clock(), 0))
		}
		fds := [2]unix.PollFd{{Fd: int32(h.owner), Events: unix.POLLIN}, {Fd: int32(h.listener), Events: unix.POLLIN}}
		ready, err := h.poll(fds[:], left)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return false, fmt.Errorf("wait for the daemon: %w", err)
		}
		if ready > 0 && fds[0].Revents != 0 && h.take() {
			return true, nil
		}
		if ready > 0 && fds[1].Revents != 0 {
			h.accept()
		}
		if h.armed && h.clock() >= h.deadline {
			h.bite()
		}
	}
	return false, nil
}

// note keeps the mark in step with the time that is left until the reset. It
// returns how long to wait at most.
func (h *helper) note(left time.Duration) time.Duration {
	near := left <= markLead
	if near != h.marked {
		h.marked = near
		h.mark(near)
	}
	if near {
		return left
	}
	return left - markLead
}

func (h *helper) bite() {
	who := "the daemon is connected but sends none"
	if h.owner < 0 {
		who = "the daemon is gone"
	}
	if err := h.reset(fmt.Sprintf("no feed for %v: %s", h.timeout, who)); err != nil {
		h.deadline = h.clock() + resetRetry
	}
}

// take reads one frame of the owner. It says whether that was the last one.
func (h *helper) take() (disarmed bool) {
	var buf [frameSize + 1]byte
	n, err := unix.Read(h.owner, buf[:])
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		return false
	}
	if err != nil || n == 0 {
		h.drop()
		return false
	}
	op, timeout, ok := decode(buf[:n])
	switch {
	case !ok:
		return false // what cannot be read feeds nothing and disarms nothing
	case op == opDisarm:
		h.retire() // first, so that a daemon that starts now finds no helper
		h.answer([]byte{ansDisarmed})
		h.drop()
		return true
	}
	h.armed, h.timeout = true, timeout
	h.deadline = h.clock() + timeout
	h.answer([]byte{ansFed})
	return false
}

// accept lets a new daemon take over. The old connection, if any, is closed:
// only one feeds.
func (h *helper) accept() {
	fd, _, err := unix.Accept4(h.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return
	}
	if h.trust(fd) != nil {
		unix.Close(fd)
		return
	}
	h.drop()
	h.owner = fd
	h.answer(h.greeting)
}

func (h *helper) drop() {
	if h.owner >= 0 {
		unix.Close(h.owner)
		h.owner = -1
	}
}

// answer never waits: a daemon that does not read its answers gets none.
func (h *helper) answer(b []byte) {
	if h.owner >= 0 {
		_, _ = unix.SendmsgN(h.owner, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
}

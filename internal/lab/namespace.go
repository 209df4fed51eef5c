package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is the network of a machine as of one boot: functions of this
// process can run in it. It is open until Close, or the lab's.
type Namespace struct{ file *os.File }

// Namespace opens the network of a machine that runs.
func (l *Lab) Namespace(ctx context.Context, name string) (*Namespace, error) {
	m, err := l.Machine(ctx, name)
	if err != nil {
		return nil, err
	}
	if m.State == Off {
		return nil, refuse("tasuki lab boot "+name, "%s is off: %s", name, m.Why)
	}
	f, err := os.Open(m.NetNS)
	if err != nil {
		return nil, err
	}
	n := &Namespace{f}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spaces = append(l.spaces, n)
	return n, nil
}

// Do runs f on a thread of its own in the machine's network. Sockets that f
// opens stay there; goroutines that it starts do not run there.
func (n *Namespace) Do(f func() error) error {
	runtime.LockOSThread()
	home, err := currentNet()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the machine's network: %w", err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
		runtime.UnlockOSThread()
	} // else the thread ends with its goroutine and harms nobody
	return err
}

// DialContext dials a literal address from the machine.
func (n *Namespace) DialContext(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Close closes the door.
func (n *Namespace) Close() { n.close() }

func (n *Namespace) close() { n.file.Close() }

// Do runs f in the network of a machine, as it runs now.
func (l *Lab) Do(ctx context.Context, name string, f func() error) error {
	n, err := l.Namespace(ctx, name)
	if err != nil {
		return err
	}
	defer l.forget(n)
	return n.Do(f)
}

// DialContext returns a dialer of literal addresses from a machine, as it runs
// at each call; for http.Transport and the like.
func (l *Lab) DialContext(name string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		n, err := l.Namespace(ctx, name)
		if err != nil {
			return nil, err
		}
		defer l.forget(n)
		return n.DialContext(ctx, network, address)
	}
}

func (l *Lab) forget(n *Namespace) {
	n.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, o := range l.spaces {
		if o == n {
			l.spaces = append(l.spaces[:i], l.spaces[i+1:]...)
			return
		}
	}
}

package watchdog

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketName is where in Opener.Run a helper waits for a daemon that comes back.
const socketName = "keepalive.sock"

// answerWithin is how long the helper may take to answer; it is a matter of
// milliseconds unless the machine is overloaded.
const answerWithin = 5 * time.Second

// unanswered is how many feeds may be without an answer before the helper
// counts as stuck.
const unanswered = 8

var errHelperEnded = errors.New("keepalive: the helper ended")

// keepalive is the daemon's end of method keepalive.
type keepalive struct {
	o       Opener
	timeout time.Duration
	link    *helperLink // nil while not armed
}

// helperLink is one connection to a helper.
type helperLink struct {
	conn    *net.UnixConn
	answers chan []byte   // from the helper, ansFed excepted; closed when the connection ends
	waiting atomic.Int64  // feeds without an answer
	fed     chan struct{} // has an element after the first ansFed
}

func newKeepalive(o Opener, timeout time.Duration) (Dog, error) {
	path := filepath.Join(o.Run, socketName)
	if o.Run == "" || len(path) > 107 { // sizeof(sun_path) - 1
		return nil, refuse("choose a shorter directory", "keepalive: %q cannot be the name of a socket", path)
	}
	if err := mayReset(o.OnlyInNamespace); err != nil {
		return nil, refuse("run the daemon as root, or use method softdog or none", "keepalive: %v", err)
	}
	return &keepalive{o: o, timeout: timeout}, nil
}

func (k *keepalive) Timeout() time.Duration { return k.timeout }

// Arm takes over a helper that a former daemon left, or starts one.
func (k *keepalive) Arm() error {
	if k.link != nil {
		if err := k.Feed(k.timeout); err == nil {
			return nil
		}
		k.let()
	}
	link, err := k.connect()
	if err != nil {
		return err
	}
	k.link = link
	if err := k.Feed(k.timeout); err != nil {
		k.let()
		return err
	}
	select {
	case <-link.fed:
		return nil
	case <-time.After(answerWithin):
		k.let()
		return errors.New("keepalive: the helper did not arm in time")
	}
}

func (k *keepalive) connect() (*helperLink, error) {
	link, answer, err := greeted(k.o.dial())
	if errors.Is(err, errHelperEnded) { // it was about to end when we came
		link, err = nil, nil
	}
	if link == nil && err == nil {
		link, answer, err = greeted(k.o.spawn())
	}
	if err != nil {
		return nil, err
	}
	switch {
	case answer[0] == ansRefused:
		link.conn.Close()
		return nil, refuse("run the daemon as root, or use method softdog or none", "keepalive: %s", answer[1:])
	case answer[0] != ansReady:
		link.conn.Close()
		return nil, fmt.Errorf("keepalive: the helper answered %q", answer)
	case len(answer) > 1:
		k.o.Log.Warn("the keepalive helper did not get all that it asked for", "missing", string(answer[1:]))
	}
	return link, nil
}

// greeted waits for the greeting of a helper. It passes on an error, and that
// there is no helper.
func greeted(link *helperLink, err error) (*helperLink, []byte, error) {
	if err != nil || link == nil {
		return nil, nil, err
	}
	answer, err := link.answer()
	if err != nil {
		link.conn.Close()
		return nil, nil, err
	}
	return link, answer, nil
}

// Feed also finds out that the helper died or is stuck.
func (k *keepalive) Feed(within time.Duration) error {
	if k.link == nil {
		return errors.New("keepalive: not armed")
	}
	if k.link.waiting.Add(1) > unanswered {
		return errors.New("keepalive: the helper does not answer")
	}
	if err := k.link.send(opFeed, max(min(within, k.timeout), time.Millisecond)); err != nil {
		return fmt.Errorf("keepalive: the helper is gone: %w", err)
	}
	return nil
}

// Disarm returns when the helper has confirmed, and no helper is left.
func (k *keepalive) Disarm() error {
	if k.link == nil {
		return nil
	}
	defer k.let()
	return k.link.disarm()
}

// Close leaves an armed helper counting.
func (k *keepalive) Close() error {
	k.let()
	return nil
}

func (k *keepalive) let() {
	if k.link != nil {
		k.link.conn.Close()
		k.link = nil
	}
}

// DisarmLeftover disarms the helper of a former daemon, if there is one. The
// daemon calls it at its start when the file has no monitor that will take the
// helper over; otherwise the node would be reset.
func (o Opener) DisarmLeftover() error {
	link, _, err := greeted(o.dial())
	if errors.Is(err, errHelperEnded) {
		return nil
	}
	if err != nil || link == nil {
		return err
	}
	defer link.conn.Close()
	return link.disarm()
}

// dial connects to a helper that is there already; nil if there is none.
func (o Opener) dial() (*helperLink, error) {
	path := filepath.Join(o.Run, socketName)
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: path})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("keepalive: connect to the helper: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		if ctl := raw.Control(func(fd uintptr) { err = trusted(int(fd)) }); err == nil {
			err = ctl
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("keepalive: %s: %w", path, err)
	}
	return newLink(conn), nil
}

// spawn starts a helper: this program again, in a session of its own, so that
// it lives on when the daemon dies.
func (o Opener) spawn() (*helperLink, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keepalive: make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "helper"), os.NewFile(uintptr(pair[1]), "daemon")
	defer ours.Close()
	defer theirs.Close()
	args := []string{"tasuki", HelperCommand, "--socket", filepath.Join(o.Run, socketName)}
	if o.Mark != "" {
		_ = os.Remove(o.Mark) // of a helper that was disarmed just then
		args = append(args, "--mark", o.Mark)
	}
	if o.OnlyInNamespace {
		args = append(args, "--only-in-namespace")
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: args, Dir: "/", Env: []string{"GOMAXPROCS=2"},
		ExtraFiles: []*os.File{theirs}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("keepalive: start the helper: %w", err)
	}
	go func() { _ = cmd.Wait() }() // its end shows on the connection; this only reaps it
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("keepalive: use the socket pair: %w", err)
	}
	return newLink(conn.(*net.UnixConn)), nil
}

func newLink(conn *net.UnixConn) *helperLink {
	l := &helperLink{conn: conn, answers: make(chan []byte, 4), fed: make(chan struct{}, 1)}
	go l.read()
	return l
}

// read ends when the connection does.
func (l *helperLink) read() {
	defer close(l.answers)
	buf := make([]byte, maxAnswer)
	for {
		n, err := l.conn.Read(buf)
		if err != nil || n == 0 {
			return
		}
		if buf[0] == ansFed {
			l.waiting.Add(-1)
			select {
			case l.fed <- struct{}{}:
			default:
			}
			continue
		}
		select {
		case l.answers <- append([]byte(nil), buf[:n]...):
		default: // nobody asked for so many
		}
	}
}

// answer waits for what the helper says.
func (l *helperLink) answer() ([]byte, error) {
	select {
	case a, ok := <-l.answers:
		if !ok {
			return nil, errHelperEnded
		}
		return a, nil
	case <-time.After(answerWithin):
		return nil, errors.New("keepalive: the helper does not answer")
	}
}

func (l *helperLink) disarm() error {
	if err := l.send(opDisarm, 0); err != nil {
		return fmt.Errorf("keepalive: the helper is gone: %w", err)
	}
	a, err := l.answer()
	if err != nil {
		return fmt.Errorf("disarm: %w", err)
	}
	if a[0] != ansDisarmed {
		return fmt.Errorf("keepalive: the helper answered %q instead of disarming", a)
	}
	return nil
}

func (l *helperLink) send(op byte, timeout time.Duration) error {
	f := encode(op, timeout)
	if err := l.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return err
	}
	_, err := l.conn.Write(f[:])
	return err
}

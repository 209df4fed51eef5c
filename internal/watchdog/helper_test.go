package watchdog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const ms = time.Millisecond

var errEnd = errors.New("the story is told")

// story runs a helper against a clock that jumps from one happening to the next.
type story struct {
	t        *testing.T
	h        *helper
	now      time.Duration
	next     []happening
	daemon   int // the daemon's end of the first connection
	socket   string
	resets   []time.Duration
	why      string
	resetErr error // what a reset comes to; nil ends the story
	retired  bool
	marks    []time.Duration // when a reset was said to be near, and, negative, not to be
}

type happening struct {
	at time.Duration
	do func()
}

func newStory(t *testing.T) *story {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &story{t: t, daemon: pair[0], socket: filepath.Join(t.TempDir(), "s")}
	listener, err := listen(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	s.h = &helper{
		clock: func() time.Duration { return s.now }, poll: s.poll, trust: trusted, listener: listener, owner: pair[1], greeting: []byte{ansReady},
		reset: func(why string) error { s.resets, s.why = append(s.resets, s.now), why; return s.resetErr },
		mark: func(near bool) {
			if at := s.now; near {
				s.marks = append(s.marks, at)
			} else {
				s.marks = append(s.marks, -at)
			}
		},
		retire: func() { s.retired = true },
	}
	t.Cleanup(func() {
		unix.Close(listener)
		unix.Close(s.daemon)
		s.h.drop()
	})
	return s
}

// poll looks at the real descriptors; where nothing has arrived, time jumps.
func (s *story) poll(fds []unix.PollFd, timeout time.Duration) (int, error) {
	for {
		if len(s.resets) > 0 && s.resetErr == nil {
			return 0, errEnd
		}
		if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
			return n, err
		}
		if len(s.next) > 0 && (timeout < 0 || s.next[0].at <= s.now+timeout) {
			if timeout >= 0 {
				timeout -= max(s.next[0].at-s.now, 0)
			}
			s.now = max(s.now, s.next[0].at)
			do := s.next[0].do
			s.next = s.next[1:]
			do()
			continue
		}
		if timeout < 0 {
			return 0, errEnd
		}
		s.now += timeout
		return 0, nil
	}
}

func (s *story) at(t time.Duration, do func()) { s.next = append(s.next, happening{t, do}) }

func (s *story) send(fd int, b []byte) {
	if _, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		s.t.Errorf("send at %v: %v", s.now, err)
	}
}

func (s *story) feed(fd int, timeout time.Duration) func() {
	return func() { f := encode(opFeed, timeout); s.send(fd, f[:]) }
}

func (s *story) disarm() { f := encode(opDisarm, 0); s.send(s.daemon, f[:]) }

func (s *story) connect() int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: s.socket})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// answers reads what the helper has sent so far, the first byte of each.
func answers(fd int) string {
	var out []byte
	buf := make([]byte, maxAnswer)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			return string(out)
		}
		out = append(out, buf[0])
	}
}

// resetAt fails unless the node was reset exactly then, and the reason has that
// in it. 0 is never.
func (s *story) resetAt(want time.Duration, why string) {
	s.t.Helper()
	_, err := s.h.run()
	if want == 0 {
		if len(s.resets) > 0 {
			s.t.Fatalf("reset at %v: %s", s.resets, s.why)
		}
		return
	}
	if !errors.Is(err, errEnd) || len(s.resets) == 0 || s.resets[0] != want || !strings.Contains(s.why, why) {
		s.t.Fatalf("reset at %v (%s), want %v (%s); %v", s.resets, s.why, want, why, err)
	}
}

func TestNothingHappensBeforeTheFirstFeed(t *testing.T) {
	s := newStory(t)
	s.at(time.Hour, func() { unix.Shutdown(s.daemon, unix.SHUT_RDWR) })
	s.resetAt(0, "")
	if s.now != time.Hour {
		t.Errorf("ended at %v, want when the daemon went away", s.now)
	}
}

func TestSilenceResets(t *testing.T) {
	s := newStory(t)
	s.at(0, s.feed(s.daemon, 500*ms))
	s.at(400*ms, s.feed(s.daemon, 500*ms))
	s.resetAt(900*ms, "connected but sends none")
	if got := answers(s.daemon); got != "RAA" {
		t.Errorf("answers %q", got)
	}
}

func TestDeathOfTheDaemonCountsAsSilence(t *testing.T) {
	s := newStory(t)
	s.at(0, s.feed(s.daemon, 500*ms))
	s.at(100*ms, func() { unix.Shutdown(s.daemon, unix.SHUT_RDWR) })
	s.resetAt(500*ms, "the daemon is gone")
}

func TestDisarm(t *testing.T) {
	s := newStory(t)
	s.at(0, s.feed(s.daemon, 500*ms))
	s.at(400*ms, s.disarm)
	disarmed, err := s.h.run()
	if err != nil || !disarmed || !s.retired || len(s.resets) > 0 || answers(s.daemon) != "RAD" {
		t.Errorf("disarmed=%v err=%v retired=%v resets=%v", disarmed, err, s.retired, s.resets)
	}
}

func TestNewDaemonTakesOver(t *testing.T) {
	s := newStory(t)
	var second int
	s.at(0, s.feed(s.daemon, 500*ms))
	s.at(100*ms, func() { unix.Shutdown(s.daemon, unix.SHUT_RDWR) })
	s.at(300*ms, func() { second = s.connect() })
	s.at(400*ms, func() { s.feed(second, 2*time.Second)() })
	s.resetAt(2400*ms, "connected but sends none")
	if got := answers(second); got != "RA" {
		t.Errorf("answers %q", got)
	}
}

func TestConnectingAloneFeedsNothing(t *testing.T) {
	s := newStory(t)
	s.at(0, s.feed(s.daemon, 500*ms))
	s.at(400*ms, func() { s.connect() })
	s.resetAt(500*ms, "connected but sends none")
}

func TestOnlyTheLatestDaemonFeeds(t *testing.T) {
	s := newStory(t)
	var second int
	s.at(0, s.feed(s.daemon, 500*ms))
	s.at(100*ms, func() { second = s.connect() })
	s.at(200*ms, func() { s.feed(second, 500*ms)() })
	s.at(300*ms, func() {
		f := encode(opFeed, time.Hour)
		if _, err := unix.SendmsgN(s.daemon, f[:], nil, nil, unix.MSG_NOSIGNAL); !errors.Is(err, unix.EPIPE) {
			t.Errorf("the first daemon still feeds: %v", err)
		}
	})
	s.resetAt(700*ms, "")
}

func TestStrangersAreTurnedAway(t *testing.T) {
	s := newStory(t)
	s.h.trust = func(int) error { return errors.New("user 1000 is at the other end, not root") }
	var stranger int
	s.at(0, s.feed(s.daemon, 500*ms))
	s.at(100*ms, func() {
		stranger = s.connect()
		f := encode(opDisarm, 0)
		s.send(stranger, f[:])
	})
	s.at(400*ms, s.feed(s.daemon, 500*ms))
	s.resetAt(900*ms, "")
	if got := answers(stranger); got != "" {
		t.Errorf("a stranger was answered %q", got)
	}
}

func TestGarbageNeitherFeedsNorDisarms(t *testing.T) {
	s := newStory(t)
	s.at(0, s.feed(s.daemon, 500*ms))
	disarm, short := encode(opDisarm, time.Second), encode(opFeed, 0)
	for i, b := range [][]byte{{'V'}, {'F'}, disarm[:], short[:], append(disarm[:], 0), make([]byte, 300), {'V', 1, 0, 0, 0, 0, 0, 0}} {
		s.at(time.Duration(i+1)*10*ms, func() { s.send(s.daemon, b) })
	}
	s.resetAt(500*ms, "")
	if got := answers(s.daemon); got != "RA" {
		t.Errorf("answers %q", got)
	}
}

func TestStarvedHelperSeesTheFeedsThatWait(t *testing.T) {
	s := newStory(t)
	s.at(0, s.feed(s.daemon, 500*ms))
	s.at(100*ms, func() { // the helper stands still for an hour; a feed arrives in it
		s.now += time.Hour
		s.feed(s.daemon, 500*ms)()
	})
	s.resetAt(time.Hour+600*ms, "")
}

func TestResetThatFailsIsTriedAgain(t *testing.T) {
	s := newStory(t)
	s.resetErr = unix.EPERM
	s.at(0, s.feed(s.daemon, 500*ms))
	s.at(1700*ms, s.disarm)
	if disarmed, err := s.h.run(); err != nil || !disarmed {
		t.Fatal(disarmed, err)
	}
	if len(s.resets) != 2 || s.resets[0] != 500*ms || s.resets[1] != 1500*ms {
		t.Errorf("resets at %v", s.resets)
	}
}

func TestBrokenPollEndsTheHelper(t *testing.T) {
	s := newStory(t)
	calls := 0
	s.h.poll = func([]unix.PollFd, time.Duration) (int, error) {
		if calls++; calls == 1 {
			return 0, unix.EINTR
		}
		return 0, unix.ENOMEM
	}
	if _, err := s.h.run(); !errors.Is(err, unix.ENOMEM) || calls != 2 {
		t.Error(err, calls)
	}
}

func FuzzDecode(f *testing.F) {
	feed, disarm := encode(opFeed, time.Second), encode(opDisarm, 0)
	f.Add(feed[:])
	f.Add(disarm[:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		op, timeout, ok := decode(b)
		if !ok {
			return
		}
		if again := encode(op, timeout); string(again[:]) != string(b) {
			t.Errorf("%x was read as %c %v", b, op, timeout)
		}
		if op == opFeed && (timeout < shortest || timeout > longest) {
			t.Errorf("a timeout of %v", timeout)
		}
	})
}

func TestAResetIsNotedBeforeItComes(t *testing.T) {
	s := newStory(t)
	s.at(0, s.feed(s.daemon, 300*ms))
	s.at(270*ms, s.feed(s.daemon, 300*ms))
	s.resetAt(570*ms, "sends none")
	if want := []time.Duration{250 * ms, -270 * ms, 520 * ms}; !slices.Equal(s.marks, want) {
		t.Errorf("marks at %v, not %v", s.marks, want)
	}
}

func TestMarker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mark")
	mark := marker(path)
	for _, near := range []bool{true, false, true} {
		mark(near)
		deadline := time.Now().Add(10 * time.Second)
		for {
			data, err := os.ReadFile(path)
			if near && err == nil && string(data) == "0\n" || !near && errors.Is(err, os.ErrNotExist) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("near %v: %q, %v", near, data, err)
			}
			<-time.After(ms)
		}
	}
	marker("")(true) // nowhere
}

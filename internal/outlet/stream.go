package outlet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/config"
)

const (
	// ackedEvery is how often it is looked whether the receiver's machine has
	// acknowledged what was sent.
	ackedEvery = 2 * time.Millisecond
	// unacked bounds the frames that nobody has acknowledged yet.
	unacked = 32
	// A stream tells how much the other machine took, but not how much of that was
	// read. What was acknowledged within unsure before a connection broke is sent
	// again, at most kept of it.
	unsure = time.Minute
	kept   = 64
)

// stream sends events over one connection, TCP or TLS. It is sure of one when the
// machine of the receiver has acknowledged it. A machine may take 40 ms for that,
// so not each is waited for.
type stream struct {
	c        config.SyslogOutlet
	facility uint8

	conn *connection // nil: not open
	// What was sent, the oldest first: what was acknowledged, then what was not.
	acked []sent
	open  [][]byte
}

// sent is a frame and when it was acknowledged.
type sent struct {
	frame []byte
	at    time.Time
}

// connection is one that is watched: a receiver that goes is noticed before the
// next event.
type connection struct {
	net.Conn
	tcp  *net.TCPConn
	gone chan struct{} // closed when the receiver has ended the connection
	at   time.Time     // when that was; to be read when gone is closed
}

// deliver implements sink.
func (s *stream) deliver(ctx context.Context, d *Delivery) error {
	msg, err := syslogMessage(d, s.facility)
	if err != nil {
		return err
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	f := frame(msg)
	if err := s.conn.write(ctx, f); err != nil {
		s.drop()
		return fmt.Errorf("write to syslog: %w", err)
	}
	if s.open = append(s.open, f); len(s.open) < unacked {
		return nil
	}
	if err := s.settle(ctx); err != nil {
		s.open = s.open[:len(s.open)-1] // whoever asked for it asks again
		return err
	}
	return nil
}

// settle implements sink.
func (s *stream) settle(ctx context.Context) error {
	if len(s.open) == 0 {
		return nil
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.conn.acknowledged(ctx); err != nil {
		s.drop()
		return fmt.Errorf("write to syslog: %w", err)
	}
	now := time.Now()
	for _, f := range s.open {
		s.acked = append(s.acked, sent{f, now})
	}
	s.acked, s.open = s.acked[max(0, len(s.acked)-kept):], nil
	return nil
}

// connect opens a connection if there is none, and sends what may be lost with the
// one before.
func (s *stream) connect(ctx context.Context) error {
	if s.conn != nil && s.conn.isGone() {
		s.drop()
	}
	if s.conn != nil {
		return nil
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", s.c.Address)
	if err != nil {
		return fmt.Errorf("reach syslog: %w", err)
	}
	tcp, is := c.(*net.TCPConn)
	if !is {
		return errors.Join(errors.New("reach syslog: the connection is not TCP"), c.Close())
	}
	if s.c.Network == "tls" {
		if c, err = s.secure(ctx, c); err != nil {
			_ = tcp.Close()
			return fmt.Errorf("reach syslog: %w", err)
		}
	}
	s.conn = &connection{Conn: c, tcp: tcp, gone: make(chan struct{})}
	go s.conn.watch()
	var again []byte
	for _, f := range s.acked {
		again = append(again, f.frame...)
	}
	again = append(again, bytes.Join(s.open, nil)...)
	if err := s.conn.write(ctx, again); err != nil {
		s.drop()
		return fmt.Errorf("send again what syslog may have lost: %w", err)
	}
	return nil
}

func (s *stream) secure(ctx context.Context, c net.Conn) (net.Conn, error) {
	conf, err := trusting(s.c.CA)
	if err != nil {
		return nil, err
	}
	if conf.ServerName, _, err = net.SplitHostPort(s.c.Address); err != nil {
		return nil, err
	}
	t := tls.Client(c, conf)
	return t, t.HandshakeContext(ctx)
}

// drop ends the connection and keeps what may be lost with it.
func (s *stream) drop() {
	at := time.Now()
	if s.conn.isGone() {
		at = s.conn.at
	}
	s.close()
	s.acked = slices.DeleteFunc(s.acked, func(f sent) bool { return at.Sub(f.at) > unsure })
}

// close implements sink.
func (s *stream) close() {
	if s.conn != nil {
		_ = s.conn.tcp.Close()
		<-s.conn.gone
		s.conn = nil
	}
}

// watch notices the end of the connection. A syslog daemon says nothing, so what
// it says is of no interest.
func (c *connection) watch() {
	defer close(c.gone)
	buf := make([]byte, 512)
	for {
		if _, err := c.Read(buf); err != nil {
			c.at = time.Now()
			return
		}
	}
}

func (c *connection) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// write writes all of b, or fails when ctx ends.
func (c *connection) write(ctx context.Context, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := c.Write(b)
	return err
}

// acknowledged waits until nothing that was written is on its way any more.
func (c *connection) acknowledged(ctx context.Context) error {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return err
	}
	tick := time.NewTicker(ackedEvery)
	defer tick.Stop()
	for {
		if c.isGone() {
			return errors.New("the receiver has ended the connection")
		}
		left, err := unsent(raw)
		if err != nil {
			return err
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the machine of the receiver does not acknowledge: %w", ctx.Err())
		case <-c.gone:
		case <-tick.C:
		}
	}
}

// unsent returns how many bytes the other machine has not acknowledged.
func unsent(raw syscall.RawConn) (left int, err error) {
	if failed := raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); failed != nil {
		return 0, failed
	}
	return left, err
}

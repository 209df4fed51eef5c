package outlet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/config"
)

// ackedEvery is how often it is looked whether the receiver's machine has
// acknowledged what was sent.
const ackedEvery = 2 * time.Millisecond

// stream sends events over one connection, TCP or TLS. An event counts as
// delivered when the machine of the receiver has acknowledged it.
type stream struct {
	c        config.SyslogOutlet
	facility uint8

	conn   *connection // nil: not open
	recent []sent      // what was acknowledged on the latest connection, the oldest first
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

	mu sync.Mutex
	at time.Time // when that was
}

// deliver implements sink.
func (s *stream) deliver(ctx context.Context, d *Delivery) error {
	msg, err := syslogMessage(d, s.facility)
	if err != nil {
		return err
	}
	if s.conn != nil && s.conn.isGone() {
		s.drop()
	}
	if s.conn == nil {
		if err := s.connect(ctx); err != nil {
			return fmt.Errorf("reach syslog: %w", err)
		}
	}
	if err := s.send(ctx, frame(msg)); err != nil {
		s.drop()
		return fmt.Errorf("write to syslog: %w", err)
	}
	return nil
}

// connect opens a connection and sends what may be lost with the one before.
func (s *stream) connect(ctx context.Context) error {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", s.c.Address)
	if err != nil {
		return err
	}
	tcp, is := c.(*net.TCPConn)
	if !is {
		return errors.Join(errors.New("the connection is not TCP"), c.Close())
	}
	if s.c.Network == "tls" {
		if c, err = s.secure(ctx, c); err != nil {
			return errors.Join(err, tcp.Close())
		}
	}
	s.conn = &connection{Conn: c, tcp: tcp, gone: make(chan struct{})}
	go s.conn.watch()
	again := s.recent
	s.recent = nil
	for i, f := range again {
		if err := s.send(ctx, f.frame); err != nil {
			s.drop()
			s.recent = slices.Concat(s.recent, again[i:])
			return fmt.Errorf("send again what may be lost: %w", err)
		}
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

// watch notices the end of the connection. A syslog daemon says nothing, so what
// it says is of no interest.
func (c *connection) watch() {
	defer close(c.gone)
	buf := make([]byte, 512)
	for {
		if _, err := c.Read(buf); err != nil {
			c.mu.Lock()
			c.at = time.Now()
			c.mu.Unlock()
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

// send writes a frame and waits until the other machine has it.
func (s *stream) send(ctx context.Context, f []byte) error {
	if until, limited := ctx.Deadline(); limited {
		if err := s.conn.SetWriteDeadline(until); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.tcp.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := s.conn.Write(f); err != nil {
		return err
	}
	if err := s.conn.acked(ctx); err != nil {
		return err
	}
	s.recent = append(s.recent, sent{f, time.Now()})
	s.recent = s.recent[max(0, len(s.recent)-keep):]
	return nil
}

// acked waits until nothing that was written is on its way any more.
func (c *connection) acked(ctx context.Context) error {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return err
	}
	tick := time.NewTicker(ackedEvery)
	defer tick.Stop()
	for {
		var left int
		var failed error
		if err := raw.Control(func(fd uintptr) { left, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
		if c.isGone() {
			return errors.New("the receiver has ended the connection")
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

// drop ends the connection and keeps what may be lost with it.
func (s *stream) drop() {
	at := time.Now()
	if s.conn.isGone() {
		s.conn.mu.Lock()
		at = s.conn.at
		s.conn.mu.Unlock()
	}
	s.close()
	s.recent = slices.DeleteFunc(s.recent, func(f sent) bool { return at.Sub(f.at) > unsure })
}

// close implements sink.
func (s *stream) close() {
	if s.conn != nil {
		_ = s.conn.tcp.Close()
		<-s.conn.gone
		s.conn = nil
	}
}

package request

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

// path keeps one connection to one address of one node.
type path struct {
	key       pathKey
	o         *Options
	stop      context.CancelFunc
	log       *slog.Logger
	transport *http.Transport
	broken    error // why it can never be up; nil: it can
	kick      chan struct{}

	mu      sync.Mutex
	conn    *http.ClientConn // nil: down
	since   time.Time
	rtt     time.Duration
	why     error
	begun   int           // attempts to connect
	ended   int           // of them
	changed chan struct{} // closed and replaced at every change
}

// transport is the settings of one path's connections. It pools nothing.
func transport(conf *tls.Config, pingEvery time.Duration, o *Options) *http.Transport {
	t := &http.Transport{
		DialContext:            o.DialContext,
		TLSClientConfig:        conf,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
		Protocols:              new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  pingEvery,
			PingTimeout:      o.PingTimeout,
			WriteByteTimeout: o.PingTimeout,
		},
	}
	t.Protocols.SetHTTP2(true)
	return t
}

// firstBackoff is the pause after the first attempt to connect that failed.
const firstBackoff = 100 * time.Millisecond

// distrustBackoff is the pause after the other end showed the wrong key, or
// refused ours: that does not mend itself in seconds.
const distrustBackoff = 15 * time.Second

// run connects, again and again, until ctx ends.
func (p *path) run(ctx context.Context) {
	defer p.lost(errors.New("closed"))
	if p.broken != nil {
		p.lost(p.broken)
		<-ctx.Done()
		return
	}
	backoff := firstBackoff
	for ctx.Err() == nil {
		conn, rtt, err := p.dial(ctx)
		if ctx.Err() != nil {
			if conn != nil {
				conn.Close()
			}
			return
		}
		p.dialed(conn, rtt, err)
		if err == nil {
			backoff = firstBackoff
			p.log.Info("address of a linked node is up", "rtt", rtt)
			p.watch(ctx, conn)
			continue
		}
		pause := backoff
		if distrusted(err) {
			pause = max(pause, distrustBackoff)
		}
		backoff = min(2*backoff, p.o.MaxBackoff)
		p.pause(ctx, pause)
	}
}

// pause waits about d, less if somebody wants the connection now.
func (p *path) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d*3/4 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-p.kick:
	}
}

// watch returns when the connection has ended, and sees to it that it has.
func (p *path) watch(ctx context.Context, conn *http.ClientConn) {
	ended := make(chan struct{})
	var once sync.Once
	conn.SetStateHook(func(c *http.ClientConn) {
		if c.Err() != nil {
			once.Do(func() { close(ended) })
		}
	})
	if conn.Err() != nil {
		once.Do(func() { close(ended) })
	}
	for up := true; up; {
		select {
		case <-ctx.Done():
			up = false
		case <-ended:
			up = false
		case <-p.kick:
			// A Send could not use it: it is about to end, or has more requests
			// under way than the other end takes.
			up = conn.Available() > 0 || conn.InFlight() > 0
		}
	}
	p.lost(errors.New("the connection was lost"))
	p.log.Info("address of a linked node is down")
	conn.Close()
}

// dial connects and proves the connection: the other end judges our certificate
// only after the handshake is over for us.
func (p *path) dial(ctx context.Context) (*http.ClientConn, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.DialTimeout)
	defer cancel()
	p.mu.Lock()
	p.begun++
	p.mu.Unlock()
	conn, err := p.transport.NewClientConn(ctx, "https", p.key.address.String())
	if err != nil {
		return nil, 0, err
	}
	begun := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.key.address.String()+PathPing, nil)
	if err != nil {
		conn.Close()
		return nil, 0, err
	}
	resp, err := conn.RoundTrip(req)
	if err != nil {
		conn.Close()
		return nil, 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		conn.Close()
		return nil, 0, err
	}
	return conn, time.Since(begun), nil
}

// dialed notes how an attempt to connect ended.
func (p *path) dialed(conn *http.ClientConn, rtt time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = p.begun
	p.set(conn, rtt, err)
}

func (p *path) lost(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(nil, 0, why)
}

// set is called with mu held.
func (p *path) set(conn *http.ClientConn, rtt time.Duration, why error) {
	if p.since.IsZero() || (p.conn == nil) != (conn == nil) {
		p.since = time.Now()
	}
	p.conn, p.rtt, p.why = conn, rtt, why
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *path) status() PathStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := PathStatus{Address: p.key.address, Up: p.conn != nil, Since: p.since, RTT: p.rtt}
	if p.why != nil {
		st.Why = p.why.Error()
	}
	return st
}

func (p *path) up() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn != nil
}

// get returns the connection, if it is another one than not. If there is none,
// the end of an attempt to connect that begins now is waited for, Patience at
// the most.
func (p *path) get(ctx context.Context, not *http.ClientConn) (*http.ClientConn, error) {
	if p.broken != nil {
		return nil, p.broken
	}
	ctx, cancel := context.WithTimeout(ctx, p.o.Patience)
	defer cancel()
	for first := -1; ; {
		p.mu.Lock()
		conn, why, begun, ended, changed := p.conn, p.why, p.begun, p.ended, p.changed
		p.mu.Unlock()
		if conn != nil && conn != not && conn.Err() == nil {
			return conn, nil
		}
		switch {
		case first < 0:
			first = begun
			p.wake()
		case conn == nil && ended > first:
			return nil, why
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if why == nil {
				why = errors.New("no connection yet")
			}
			return nil, why
		}
	}
}

// wake ends a pause between two attempts to connect.
func (p *path) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// distrusted says whether one end refused the other's key.
func distrusted(err error) bool {
	if errors.Is(err, identity.ErrNotTrusted) {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" // an alert of the other end's TLS
}

// pathError is what a failed attempt comes to for people. sent says that the
// request was on its way.
func (p *path) pathError(err error, sent bool) *api.Error {
	who := fmt.Sprintf("%s of %s at %s", p.key.node, p.key.link, p.key.address)
	if p.broken != nil {
		return refuse("bad-link", "link the cluster again", "%s cannot be asked: %v", who, err)
	}
	if distrusted(err) {
		return refuse("not-trusted", fmt.Sprintf("link the clusters again: one of them has another key than when %s was linked", p.key.link),
			"%s and this node do not trust each other: %v", who, err)
	}
	if sent {
		return refuse("no-answer", mayAct, "%s did not answer: %v", who, err)
	}
	return refuse("unreachable", fmt.Sprintf("is the node up, and tcp port %d open from here?", p.key.address.Port()),
		"%s cannot be reached: %v", who, err)
}

package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Defaults of a Prober.
const (
	Every   = 5 * time.Millisecond   // between two requests
	Timeout = 250 * time.Millisecond // of one request, from the dial to the end of the body
)

// Bounds of a Prober.
const (
	maxSamples = 1 << 18 // 20 minutes at 5 ms
	maxBody    = 4096
)

// Sample is one request.
type Sample struct {
	Sent time.Time // before the connection was opened
	Done time.Time // when the answer was complete, or failed
	Node string    // who answered: the first word of the body; "" if nobody did
	Why  string    // why it failed
}

// OK says whether it was answered.
func (s Sample) OK() bool { return s.Node != "" }

// Prober is an HTTP client that asks one URL at a fixed rate, each request on a
// new connection and not waiting for those before it.
type Prober struct {
	URL     string
	Dial    func(ctx context.Context, network, address string) (net.Conn, error) // from where
	Every   time.Duration                                                        // 0: the default
	Timeout time.Duration                                                        // 0: the default

	mu      sync.Mutex
	samples []Sample
	late    int // ticks that came while too many requests were under way
	heard   chan struct{}
}

// Run asks until ctx ends, then waits for the requests under way.
func (p *Prober) Run(ctx context.Context) error {
	every, timeout := orDefault(p.Every, Every), orDefault(p.Timeout, Timeout)
	target, err := url.Parse(p.URL)
	if err != nil || target.Scheme != "http" || target.Host == "" {
		return fmt.Errorf("the client needs an address like http://10.2.102.50/, not %q", p.URL)
	}
	slots := make(chan struct{}, 2*int(timeout/every)+8)
	tick := time.NewTicker(every)
	defer tick.Stop()
	var under sync.WaitGroup
	defer under.Wait()
	for {
		select {
		case slots <- struct{}{}:
			under.Go(func() {
				p.keep(p.ask(ctx, target, timeout))
				<-slots
			})
		default:
			p.mu.Lock()
			p.late++
			p.mu.Unlock()
		}
		if p.full() {
			return fmt.Errorf("the client has asked %d times, which is all that it can remember", maxSamples)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func orDefault(v, d time.Duration) time.Duration {
	if v <= 0 {
		return d
	}
	return v
}

// ask makes one request. One that is under way when ctx ends is finished: its
// time limit is short. It does without http.Client, whose pool may give a
// request the connection that was dialed for another.
func (p *Prober) ask(ctx context.Context, target *url.URL, timeout time.Duration) (s Sample) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	s.Sent = time.Now()
	var err error
	if s.Node, err = p.exchange(ctx, target); err != nil {
		s.Node, s.Why = "", why(err)
	}
	s.Done = time.Now()
	return s
}

func (p *Prober) exchange(ctx context.Context, target *url.URL) (node string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return "", err
	}
	r.Close = true
	address := target.Host
	if target.Port() == "" {
		address = net.JoinHostPort(target.Hostname(), "80")
	}
	conn, err := p.Dial(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if err := r.Write(conn); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return "", err
	}
	words := strings.Fields(string(body))
	switch {
	case resp.StatusCode != http.StatusOK:
		return "", errors.New(resp.Status)
	case len(words) == 0:
		return "", errors.New("an empty answer")
	}
	return words[0], nil
}

// why says in few words why a request failed.
func why(err error) string {
	var op *net.OpError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

func (p *Prober) keep(s Sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.samples) < maxSamples {
		p.samples = append(p.samples, s)
	}
	if p.heard != nil {
		close(p.heard)
		p.heard = nil
	}
}

func (p *Prober) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.samples) >= maxSamples
}

// Samples returns all finished requests, in the order in which they were sent.
func (p *Prober) Samples() []Sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := slices.Clone(p.samples)
	slices.SortStableFunc(out, func(a, b Sample) int { return a.Sent.Compare(b.Sent) })
	return out
}

// Late returns how many requests were not sent because too many were under way:
// if it is not 0, the machine was too slow to measure.
func (p *Prober) Late() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.late
}

// Await returns when n requests in a row, sent after the call, were answered by
// one node, which it names.
func (p *Prober) Await(ctx context.Context, n int) (node string, err error) {
	since := time.Now()
	for {
		p.mu.Lock()
		node, ok := steady(p.samples, since, n)
		if p.heard == nil {
			p.heard = make(chan struct{})
		}
		heard := p.heard
		p.mu.Unlock()
		if ok {
			return node, nil
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return "", fmt.Errorf("the client gets no steady answer from %s: %w", p.URL, ctx.Err())
		}
	}
}

// steady says whether the last n samples, as they came in, were sent after
// since and answered by one node.
func steady(samples []Sample, since time.Time, n int) (string, bool) {
	if n < 1 || len(samples) < n {
		return "", false
	}
	last := samples[len(samples)-n:]
	for _, s := range last {
		if !s.Sent.After(since) || !s.OK() || s.Node != last[0].Node {
			return "", false
		}
	}
	return last[0].Node, true
}

package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// maxLine bounds a line, in bytes.
const maxLine = 64 << 10

// Error is what the process answered.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string { return e.Text }

// CodeOf returns the code of an error of Client.Do, or "".
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Client is the daemon's end. Create it with Dial.
type Client struct {
	conn net.Conn
	take func(Message)

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan Message
	broken  error
	done    chan struct{}
}

// Dial connects to the process whose socket that is. take gets every message that
// answers nothing, in order, from one goroutine; it must not wait for a Do.
func Dial(ctx context.Context, socket string, take func(Message)) (*Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("reach the process of a mirror disk: %w", err)
	}
	c := &Client{conn: conn, take: take, waiting: map[uint64]chan Message{}, done: make(chan struct{})}
	go c.read()
	return c, nil
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection. The process goes on.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) read() {
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var m Message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			break
		}
		if m.ID == 0 {
			c.take(m)
			continue
		}
		c.mu.Lock()
		ch := c.waiting[m.ID]
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		if ch != nil {
			ch <- m
		}
	}
	_ = c.conn.Close()
	c.mu.Lock()
	c.broken = errors.New("the process of the mirror disk has ended, or does not speak to us any more")
	c.mu.Unlock()
	close(c.done)
}

// Do sends a request and waits for its answer; an *Error is what the process
// said. When ctx ends first the request may still be carried out.
func (c *Client) Do(ctx context.Context, r Request) (Message, error) {
	ch := make(chan Message, 1)
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return Message{}, c.broken
	}
	c.next++
	r.ID = c.next
	c.waiting[r.ID] = ch
	data, err := json.Marshal(r)
	if err == nil {
		_, err = c.conn.Write(append(data, '\n'))
	}
	c.mu.Unlock()
	if err != nil {
		return Message{}, fmt.Errorf("ask the process of a mirror disk: %w", err)
	}
	select {
	case m := <-ch:
		if m.Error != "" {
			return m, &Error{Code: m.Code, Text: m.Error}
		}
		return m, nil
	case <-c.done:
		return Message{}, c.broken
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, r.ID)
		c.mu.Unlock()
		return Message{}, ctx.Err()
	}
}

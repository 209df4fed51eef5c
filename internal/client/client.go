// Package client calls the API of httpapi, over the local socket or TLS.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Client calls one daemon.
type Client struct {
	http *http.Client
	base string
	name string // for errors

	patience time.Duration
}

// patience is how long a call may take where its context has no deadline, beside
// what it is asked to wait for; and how long a stream may be silent, which shows
// that it lives every 10 s.
const patience = time.Minute

// Unix returns a client of the daemon behind the local socket.
func Unix(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}, base: "http://tasuki", name: path, patience: patience}
}

// TLS returns a client of the daemon at HOST:PORT.
func TLS(address string, c *tls.Config) *Client {
	return &Client{http: &http.Client{Transport: &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}}, base: "https://" + address, name: address,
		patience: patience}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 20

// Do calls one operation. in and out may be nil. The error is an *api.Error if
// the daemon, or the way to it, refused.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	return c.do(ctx, 0, method, path, in, out)
}

// do is Do for an operation that waits for so long by itself.
func (c *Client) do(ctx context.Context, wait time.Duration, method, path string, in, out any) error {
	if _, bounded := ctx.Deadline(); !bounded {
		within, cancel := context.WithTimeout(ctx, wait+c.patience)
		defer cancel()
		ctx = within
	}
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("write a request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	resp, err := c.call(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.unreachable(err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.name, err)
	}
	return nil
}

func (c *Client) call(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readProblem(resp)
}

func readProblem(resp *http.Response) error {
	var p struct{ Code, Detail, Hint string }
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if json.Unmarshal(data, &p) != nil || p.Code == "" {
		p.Code, p.Detail = "internal", fmt.Sprintf("the daemon answered %s", resp.Status)
	}
	return &api.Error{Code: p.Code, Message: p.Detail, Hint: p.Hint}
}

// CodeUnreachable is the code of the error when no daemon answers.
const CodeUnreachable = "unreachable"

func (c *Client) unreachable(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &api.Error{Code: "timed-out", Message: fmt.Sprintf("the daemon at %s did not answer in time", c.name), Hint: "tasuki status"}
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("call the daemon at %s: %w", c.name, context.Canceled)
	}
	var u *url.Error // names the method and an address that nobody typed
	if errors.As(err, &u) {
		err = u.Err
	}
	return &api.Error{Code: CodeUnreachable, Message: fmt.Sprintf("no daemon answers at %s: %v", c.name, err),
		Hint: "is it running? systemctl status tasuki; it must be called as root"}
}

// Status returns the cluster as the daemon sees it.
func (c *Client) Status(ctx context.Context) (s api.Status, err error) {
	return s, c.Do(ctx, "GET", "/v1/status", nil, &s)
}

// Events returns what the log holds.
func (c *Client) Events(ctx context.Context, f api.EventFilter) (out []api.Event, err error) {
	q := url.Values{}
	set := func(k, v string) {
		if v != "" {
			q.Set(k, v)
		}
	}
	set("after", string(f.After))
	set("node", string(f.Node))
	set("group", string(f.Group))
	if !f.Since.IsZero() {
		q.Set("since", f.Since.Format(time.RFC3339Nano))
	}
	if f.Newest {
		q.Set("newest", "true")
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return out, c.Do(ctx, "GET", "/v1/events?"+q.Encode(), nil, &out)
}

// Follow calls f for every new event until ctx ends, which is no error, or the
// daemon does. begun,
// if not nil, is called once when nothing that follows can be missed.
func (c *Client) Follow(ctx context.Context, begun func(), f func(api.Event)) error {
	heard, silent := context.WithCancelCause(ctx)
	defer silent(nil)
	timer := time.AfterFunc(c.patience, func() { silent(context.DeadlineExceeded) })
	defer timer.Stop()
	resp, err := c.call(heard, "GET", "/v1/follow", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	timer.Stop() // what the caller does takes the time that it takes
	if begun != nil {
		begun()
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 64<<10), 4<<20)
	next := func() bool {
		timer.Reset(c.patience)
		defer timer.Stop()
		return lines.Scan()
	}
	for next() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var e api.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			if !next() {
				break // the connection ended within a line
			}
			return fmt.Errorf("read an event: %w", err)
		}
		f(e)
	}
	return c.ended(ctx, heard, lines.Err())
}

// ended is why a stream has ended: nil if the caller wanted that, else that nothing
// was heard for too long, or what was read last.
func (c *Client) ended(ctx, heard context.Context, read error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case heard.Err() != nil:
		return c.unreachable(context.Cause(heard))
	}
	return c.unreachable(errors.Join(io.ErrUnexpectedEOF, read))
}

// Explain returns the events from the first cause to the last effect.
func (c *Client) Explain(ctx context.Context, id cluster.EventID) (out []api.Event, err error) {
	return out, c.Do(ctx, "GET", "/v1/explain?id="+url.QueryEscape(string(id)), nil, &out)
}

// Group asks for something to be done with a group.
func (c *Client) Group(ctx context.Context, g cluster.GroupName, verb string, op api.GroupOp) (out api.Begun, err error) {
	return out, c.Do(ctx, "POST", "/v1/groups/"+url.PathEscape(string(g))+"/"+verb, op, &out)
}

// Plan waits for a plan's end, at most so long.
func (c *Client) Plan(ctx context.Context, id string, wait time.Duration) (out api.PlanResult, err error) {
	return out, c.do(ctx, wait, "GET", "/v1/plans/"+url.PathEscape(id)+"?wait="+wait.String(), nil, &out)
}

// Monitor suspends, resumes or rehearses a monitor.
func (c *Client) Monitor(ctx context.Context, m cluster.MonitorName, verb string, op api.MonitorOp) (out api.Begun, err error) {
	return out, c.Do(ctx, "POST", "/v1/monitors/"+url.PathEscape(string(m))+"/"+verb, op, &out)
}

// Mirror does something with a mirror disk.
func (c *Client) Mirror(ctx context.Context, r cluster.ResourceName, verb string, op api.MirrorOp) (out api.Begun, err error) {
	wait := time.Duration(0)
	if verb == "keep" || verb == "resolve" && !op.NoSnapshot {
		wait = api.MirrorKeepLimit
	}
	return out, c.do(ctx, wait, "POST", "/v1/mirrors/"+url.PathEscape(string(r))+"/"+verb, op, &out)
}

// Node lets a node leave or return, or start alone.
func (c *Client) Node(ctx context.Context, n cluster.NodeName, verb string, op api.NodeOp) (out api.Begun, err error) {
	return out, c.Do(ctx, "POST", "/v1/nodes/"+url.PathEscape(string(n))+"/"+verb, op, &out)
}

// Fence has a node forced off and waits until that is confirmed, at most so long.
func (c *Client) Fence(ctx context.Context, n cluster.NodeName, op api.NodeOp, wait time.Duration) (out api.Begun, err error) {
	return out, c.do(ctx, wait, "POST", "/v1/nodes/"+url.PathEscape(string(n))+"/fence", op, &out)
}

// Maintenance begins or ends the maintenance of a node, a group or the cluster.
func (c *Client) Maintenance(ctx context.Context, verb string, op api.MaintenanceOp) (out api.Begun, err error) {
	return out, c.Do(ctx, "POST", "/v1/maintenance/"+verb, op, &out)
}

// CheckFences tries the fence devices of a node, or of all others; it waits as
// long as that takes, at most so long.
func (c *Client) CheckFences(ctx context.Context, n cluster.NodeName, wait time.Duration) (out []api.NodeFence, err error) {
	return out, c.do(ctx, wait, "POST", "/v1/fences/check", api.FenceCheck{Node: n}, &out)
}

// Log writes a line of the operator's log.
func (c *Client) Log(ctx context.Context, l api.LogLine) (out api.Logged, err error) {
	return out, c.Do(ctx, "POST", "/v1/log", l, &out)
}

// Config returns the cluster file; version 0 is the one in force.
func (c *Client) Config(ctx context.Context, version uint64) (out api.ConfigText, err error) {
	return out, c.Do(ctx, "GET", "/v1/config?version="+strconv.FormatUint(version, 10), nil, &out)
}

// History returns the versions of the cluster file that are kept.
func (c *Client) History(ctx context.Context) (out []api.ConfigVersion, err error) {
	return out, c.Do(ctx, "GET", "/v1/config/history", nil, &out)
}

// PlanConfig says what a change of the cluster file would do.
func (c *Client) PlanConfig(ctx context.Context, ch api.ConfigChange) (out api.ConfigPlan, err error) {
	return out, c.Do(ctx, "POST", "/v1/config/plan", ch, &out)
}

// ApplyConfig puts a cluster file in force.
func (c *Client) ApplyConfig(ctx context.Context, ch api.ConfigChange) (out api.Begun, err error) {
	return out, c.Do(ctx, "POST", "/v1/config/apply", ch, &out)
}

// NewToken makes a one-time token.
func (c *Client) NewToken(ctx context.Context, r api.TokenRequest) (out api.TokenText, err error) {
	return out, c.Do(ctx, "POST", "/v1/tokens", r, &out)
}

// AddLink redeems a token of another cluster.
func (c *Client) AddLink(ctx context.Context, r api.LinkToken) (out api.Begun, err error) {
	return out, c.Do(ctx, "POST", "/v1/links", r, &out)
}

// RemoveLink ends a link.
func (c *Client) RemoveLink(ctx context.Context, name cluster.LinkName) error {
	return c.Do(ctx, "DELETE", "/v1/links/"+url.PathEscape(string(name)), nil, nil)
}

// Guests returns the guests of this host with their power.
func (c *Client) Guests(ctx context.Context) (out []api.Guest, err error) {
	return out, c.Do(ctx, "GET", "/v1/guests", nil, &out)
}

// Guest powers a guest off or on, or looks at it.
func (c *Client) Guest(ctx context.Context, g cluster.GuestName, a cluster.PowerAction, op api.GuestOp) (out api.Guest, err error) {
	return out, c.Do(ctx, "POST", "/v1/guests/"+url.PathEscape(string(g))+"/"+string(a), op, &out)
}

// Send asks other clusters.
func (c *Client) Send(ctx context.Context, r api.SendRequest) (out []api.HostAnswer, err error) {
	return out, c.do(ctx, r.Wait, "POST", "/v1/send", r, &out)
}

package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/api"
)

// quiet is how long a stream of the status may say nothing: it is pushed every
// 5 s though nothing has changed.
const quiet = 15 * time.Second

// Stream calls status with the cluster as the daemon sees it, at first and after
// every change, and event with every new event, until ctx ends, which is no
// error, or the daemon does.
func (c *Client) Stream(ctx context.Context, status func(api.Status), event func(api.Event)) error {
	heard, silent := context.WithCancelCause(ctx)
	defer silent(nil)
	timer := time.AfterFunc(quiet, func() { silent(context.DeadlineExceeded) })
	defer timer.Stop()
	resp, err := c.call(heard, "GET", "/v1/stream", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 64<<10), maxAnswer)
	kind := ""
	for lines.Scan() {
		timer.Reset(quiet)
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(": "))
		switch string(name) {
		case "event":
			kind = string(value)
		case "data":
			if err := pushed(kind, value, status, event); err != nil {
				return err
			}
		}
	}
	return c.ended(ctx, heard, lines.Err())
}

// pushed hands on one message of the stream; kinds that are not known are of a
// newer version.
func pushed(kind string, data []byte, status func(api.Status), event func(api.Event)) error {
	switch kind {
	case "status":
		var s api.Status
		if err := json.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("read the status: %w", err)
		}
		status(s)
	case "event":
		var e api.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		event(e)
	}
	return nil
}

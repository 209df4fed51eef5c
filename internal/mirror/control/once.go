package control

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Once runs a command of tasuki that does one thing and prints what came of it as
// JSON, which goes to answer. When ctx ends the process is killed, and Once returns
// when it is gone. An error of the command is what it said last.
func Once(ctx context.Context, c *exec.Cmd, answer any) error {
	var out, words bytes.Buffer
	c.Stdout, c.Stderr = &out, &words
	if err := c.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.Path, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Process.Kill() })
	defer stop()
	switch err := c.Wait(); {
	case ctx.Err() != nil:
		return fmt.Errorf("it was not done in time: %w", ctx.Err())
	case err != nil:
		_, said, found := strings.Cut(words.String(), "error: ")
		if !found {
			said = ""
		}
		return errors.New(cmp.Or(strings.TrimSpace(said), err.Error()))
	}
	if err := json.Unmarshal(out.Bytes(), answer); err != nil {
		return fmt.Errorf("read what came of it: %w", err)
	}
	return nil
}

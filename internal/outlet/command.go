package outlet

import (
	"context"
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/script"
)

// exitRefused is the exit code with which a program refuses an event for good:
// EX_DATAERR of sysexits.h.
const exitRefused = 65

// command runs a program for each event.
type command struct {
	sure
	argv []string
}

// deliver implements sink.
func (c *command) deliver(ctx context.Context, d *Delivery) error {
	if err := script.Check(c.argv[0]); err != nil {
		return err
	}
	data, err := d.json()
	if err != nil {
		return err
	}
	r, err := script.Run(ctx, script.Spec{
		Path: c.argv[0], Args: c.argv[1:], Input: append(data, '\n'),
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
	})
	if err == nil {
		err = r.Err()
	}
	if err == nil {
		return nil
	}
	if last := r.LastLine(); last != "" {
		err = fmt.Errorf("%w: %.300s", err, last)
	}
	if r.ExitCode == exitRefused {
		err = fmt.Errorf("%w: %w", errRefused, err)
	}
	return fmt.Errorf("%s: %w", c.argv[0], err)
}

// close implements sink.
func (*command) close() {}

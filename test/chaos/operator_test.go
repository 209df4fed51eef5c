package chaos_test

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// operator lets somebody give commands while things fail. A command may be
// refused or fail; what counts is that there is one owner, and that the group
// runs once it was told to.
func (c *chaos) operator(f *fault, name string) {
	switch f.kind {
	case "move":
		f.what = "an operator on " + name + " moves the group"
		f.begin = c.command(name, "tasuki", "group", "move", c.Group)
	case "stop and start":
		f.what = "an operator on " + name + " stops the group"
		f.begin = func(ctx context.Context) error {
			c.stopped.Store(true)
			return c.command(name, "tasuki", "group", "stop", c.Group)(ctx)
		}
		f.end = func(ctx context.Context) error { return c.startAgain(ctx) }
	case "apply":
		f.what = "an operator on " + name + " applies another cluster file"
		f.begin = func(ctx context.Context) error { return c.apply(ctx, name, 0) }
	}
}

// apply changes a comment in the cluster file, and adds so many lines.
func (c *chaos) apply(ctx context.Context, name string, more int) error {
	const file = "/root/other.yaml"
	text := strings.Replace(string(c.file()), "    nodes:", fmt.Sprintf("    comment: of %s\n    nodes:", time.Now().Format("15.04.05.000")), 1)
	text += strings.Repeat("# "+time.Now().Format(time.RFC3339Nano)+"\n", more)
	if err := c.Lab.WriteFile(ctx, name, file, 0o644, []byte(text)); err != nil {
		return err
	}
	return c.command(name, "tasuki", "config", "apply", "--yes", file)(ctx)
}

// commandWithin is when a command that does not end is given up.
const commandWithin = 20 * time.Second

// command runs a command, whose failure is a line of the timeline.
func (c *chaos) command(name string, argv ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, commandWithin)
		defer cancel()
		out, err := c.Do(ctx, name, argv...)
		if err != nil {
			c.seen.say("  %v", err)
			return nil
		}
		c.seen.say("  %s: %s", strings.Join(argv, " "), strings.TrimSpace(out))
		return nil
	}
}

// startAgain starts the group if an operator has stopped it, and says whether
// that was done: a command that was given to a node that is off or cannot decide
// is given to the next one.
func (c *chaos) startAgain(ctx context.Context) (err error) {
	if !c.stopped.Load() {
		return nil
	}
	for _, m := range c.members {
		if c.Active(ctx, m) == "" {
			_, err = c.Do(ctx, m, "tasuki", "group", "start", c.Group)
		}
		if err == nil && c.Active(ctx, m) != "" {
			c.stopped.Store(false)
			return nil
		}
	}
	return fmt.Errorf("the group cannot be started: %w", err)
}

package look

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/tasuki-ha/tasuki/api"
)

// Command is the hidden command, below tasuki mirror, that looks and prints an
// api.MirrorFiles as JSON.
const Command = "look"

// walkLimit is how long a look takes: what has not been met by then is left out.
const walkLimit = 8 * time.Second

// Limit is how long a process that looks needs, unless it hangs in the kernel.
const Limit = walkLimit + 2*time.Second

// Args are the arguments of tasuki that have it look at a directory, or at the device
// or file at path, for what has changed after since, which counts in whole seconds;
// zero: for everything.
func Args(path string, since time.Time) []string {
	seconds := int64(0)
	if !since.IsZero() {
		seconds = since.Unix()
	}
	return []string{"mirror", Command, path, strconv.FormatInt(seconds, 10)}
}

// Main is what tasuki does with the arguments that follow Command.
func Main(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("a path and a time are wanted")
	}
	var since time.Time
	if seconds, err := strconv.ParseInt(args[1], 10, 64); err != nil {
		return err
	} else if seconds != 0 {
		since = time.Unix(seconds, 0)
	}
	st, err := os.Stat(args[0])
	if err != nil {
		return err
	}
	at := Device
	if st.IsDir() {
		at = Tree
	}
	ctx, cancel := context.WithTimeout(ctx, walkLimit)
	defer cancel()
	f, err := at(ctx, args[0], since, api.MostMirrorFiles)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(f)
}

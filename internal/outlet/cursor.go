package outlet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

const cursorSuffix = ".json"

// maxHoles bounds the spans of a cursor that may still be filled; each crash of
// the node makes one.
const maxHoles = 32

// cursor is how far an outlet is.
type cursor struct {
	Passed uint64 `json:"passed"` // the own event with the highest number that was delivered or left out
	Number uint64 `json:"number"` // how many were delivered
	Missed uint64 `json:"missed"` // how many could not be
	Told   uint64 `json:"told"`   // of those, how many the receiver knows of
	Latest string `json:"latest"` // the latest one that was delivered
	// Holes are numbers below Passed that the journal did not hold then. A crash
	// leaves them; if another node has the events, they come back.
	Holes journal.Spans `json:"holes,omitempty"`
}

// pass notes that an event is done with.
func (c *cursor) pass(seq uint64) {
	if seq <= c.Passed {
		c.Holes = c.Holes.Minus(journal.Spans{{From: seq, To: seq}})
		return
	}
	if seq > c.Passed+1 {
		c.Holes = append(c.Holes, journal.Span{From: c.Passed + 1, To: seq - 1})
		c.Holes = c.Holes[max(0, len(c.Holes)-maxHoles):]
	}
	c.Passed = seq
}

// skip notes that the journal has dropped events up to floor, and returns how many
// of them may have been for this outlet.
func (c *cursor) skip(floor uint64) uint64 {
	if floor > 0 {
		c.Holes = c.Holes.Minus(journal.Spans{{From: 1, To: floor}})
	}
	if floor <= c.Passed {
		return 0
	}
	n := floor - c.Passed
	c.Passed = floor
	c.Missed += n
	return n
}

// delivered notes that an event was taken.
func (c *cursor) delivered(e *api.Event) {
	c.Number++
	c.Told, c.Latest = c.Missed, string(e.ID)
}

func cursorFile(dir, outlet string) string { return filepath.Join(dir, outlet+cursorSuffix) }

// readCursor returns fs.ErrNotExist of an outlet that is new.
func readCursor(dir, outlet string) (c cursor, err error) {
	path := cursorFile(dir, outlet)
	data, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return cursor{}, fmt.Errorf("read %s: %w", path, err)
	}
	return c, nil
}

// write makes the cursor durable.
func (c *cursor) write(dir, outlet string) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write the cursor of outlet %s: %w", outlet, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write the cursor of outlet %s: %w", outlet, err)
	}
	if err := renameio.WriteFile(cursorFile(dir, outlet), data, 0o600); err != nil {
		return fmt.Errorf("write the cursor of outlet %s: %w", outlet, err)
	}
	return nil
}

// isNew says whether an error of readCursor means that the outlet is new.
func isNew(err error) bool { return errors.Is(err, fs.ErrNotExist) }

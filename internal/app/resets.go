package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Files in the state directory, which outlive a reset.
const (
	fileMark   = "self-reset"  // of the watchdog: it was about to reset the node
	fileResets = "self-resets" // how often in a row that came true
)

// resetsApart is how long a watchdog must have had nothing to do until its next
// reset is no longer in a row with the one before.
const resetsApart = time.Hour

// resets is what is kept of a node's resets by its own watchdog.
type resets struct {
	Boot  string `json:"boot"`  // counted for
	InRow int    `json:"inRow"` // how many before it
}

// countResets returns how many times in a row the node's own watchdog has reset
// it before this boot. A boot counts once, however many daemons it sees.
func countResets(dir, boot string) (int, error) {
	path, mark := filepath.Join(dir, fileResets), filepath.Join(dir, fileMark)
	var r resets
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		if json.Unmarshal(data, &r) != nil {
			r = resets{} // cut off by a crash: the count begins anew
		}
	case !errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("read how often this node has reset itself: %w", err)
	}
	if r.Boot == boot {
		return r.InRow, nil
	}
	marked, err := os.ReadFile(mark)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("read whether this node has reset itself: %w", err)
	}
	next := resets{Boot: boot}
	if err == nil {
		stood, _ := strconv.Atoi(strings.TrimSpace(string(marked))) // cut off: it was there for a short time
		if next.InRow = r.InRow + 1; time.Duration(stood)*time.Second >= resetsApart {
			next.InRow = 1
		}
	}
	if data, err = json.Marshal(next); err == nil {
		err = renameio.WriteFile(path, data, 0o600)
	}
	if err != nil {
		return 0, fmt.Errorf("keep how often this node has reset itself: %w", err)
	}
	if err := os.Remove(mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("forget a reset that is counted: %w", err)
	}
	return next.InRow, nil
}

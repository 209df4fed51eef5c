package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/renameio/v2"
)

// Own numbers are reserved in blocks: the file "next" holds a number that no
// event has reached yet, and is durable before any event uses one below it.
// After a crash numbering goes on from there; after a clean stop it holds the
// very next number.
const reserveBlock = 1024

func reservePath(dir string) string { return filepath.Join(dir, "next") }

// readReserve returns the number to go on with, 1 for a blank directory. A
// damaged file counts as missing; the numbers in the segments bound the rest.
func readReserve(dir string) (next uint64, damaged bool, err error) {
	raw, err := os.ReadFile(reservePath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return 1, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	body, err := openLine(bytes.TrimSuffix(raw, []byte("\n")))
	if err != nil {
		return 1, true, nil
	}
	next, err = strconv.ParseUint(body, 10, 63)
	if err != nil || next == 0 {
		return 1, true, nil
	}
	return next, false, nil
}

func writeReserve(dir string, next uint64) error {
	line := sealLine(nil, func(b []byte) []byte { return strconv.AppendUint(b, next, 10) })
	if err := renameio.WriteFile(reservePath(dir), line, 0o600); err != nil {
		return fmt.Errorf("reserve numbers of events: %w", err)
	}
	return nil
}

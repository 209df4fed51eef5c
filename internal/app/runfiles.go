package app

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Files in the run directory, which a boot of the machine empties: what is in
// them tells a daemon what an earlier one of the same boot knew.
const (
	fileBoot  = "boot"
	fileLease = "lease"
)

func newID() (string, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// bootID returns what names this boot of the machine. It is our own, not the
// kernel's: nodes of a lab share one kernel.
func bootID(run string) (string, error) {
	path := filepath.Join(run, fileBoot)
	data, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(data))) > 0 {
		return strings.TrimSpace(string(data)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the id of this boot: %w", err)
	}
	id, err := newID()
	if err != nil {
		return "", err
	}
	if err := renameio.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("store the id of this boot: %w", err)
	}
	return id, nil
}

// leaseStep is how much longer the lease must be to be written again: a daemon
// that starts anew may find it so much too short.
const leaseStep = 150 * time.Millisecond

// leaseFile keeps until when this node may run groups. It is written in place
// with every heartbeat, in memory only.
type leaseFile struct {
	f    *os.File
	last cluster.Instant
}

func openLease(run string) (*leaseFile, cluster.Instant, error) {
	path := filepath.Join(run, fileLease)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open the lease of this boot: %w", err)
	}
	var buf [20]byte
	n, _ := f.ReadAt(buf[:], 0)
	v, err := strconv.ParseInt(strings.TrimSpace(string(buf[:n])), 10, 64)
	if err != nil {
		v = 0 // empty: no daemon held one
	}
	return &leaseFile{f: f}, cluster.Instant(v), nil
}

func (l *leaseFile) write(until cluster.Instant) {
	if until.Sub(l.last) < leaseStep && until >= l.last {
		return
	}
	l.last = until
	_, _ = l.f.WriteAt(fmt.Appendf(nil, "%-20d", int64(until)), 0) // without it a restart only pauses its groups
}

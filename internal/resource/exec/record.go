package exec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/script"
)

// States of a record.
const (
	stateStarting = "starting" // the start script was begun and has not succeeded
	stateActive   = "active"
)

// record is what is known about one resource that was started since the boot.
type record struct {
	Group   cluster.GroupName `json:"group"`
	Epoch   cluster.Epoch     `json:"epoch"`
	State   string            `json:"state"`
	Boot    string            `json:"boot"`
	Process *script.Identity  `json:"process,omitempty"` // mode async, active
	Mark    string            `json:"mark,omitempty"`    // script.MarkName of all that was started for it
	Cgroups []string          `json:"cgroups,omitempty"` // of its start script and of stop scripts that failed
}

func (r *record) family() script.Family { return script.Family{Mark: r.Mark, Cgroups: r.Cgroups} }

// inCgroup notes one more control group; "" is none. Those that are gone, and
// the oldest of too many, are forgotten.
func (r *record) inCgroup(dir string) {
	const most = 16
	if dir == "" || slices.Contains(r.Cgroups, dir) {
		return
	}
	r.Cgroups = slices.DeleteFunc(append(r.Cgroups, dir), func(dir string) bool {
		_, err := os.Stat(dir)
		return errors.Is(err, fs.ErrNotExist)
	})
	if n := len(r.Cgroups); n > most {
		r.Cgroups = append(r.Cgroups[:1], r.Cgroups[n-most+1:]...) // the first is the start script's
	}
}

func (d *Driver) recordPath(name cluster.ResourceName) string {
	return filepath.Join(d.dirs.Run, "exec", string(name)+".json")
}

// load returns the record, or nil if the resource was not started in this boot.
func (d *Driver) load(name cluster.ResourceName) (*record, error) {
	b, err := os.ReadFile(d.recordPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of %s: %w", name, err)
	}
	var rec record
	if err := json.Unmarshal(b, &rec); err != nil {
		// Cut short by a crash of the machine: whether it is active is not known.
		d.log.Warn("the state of a resource cannot be read", "file", d.recordPath(name), "err", err)
		return &record{State: stateStarting, Boot: script.BootID()}, nil
	}
	if rec.Boot != script.BootID() {
		return nil, nil
	}
	return &rec, nil
}

// save replaces the record at once. It need not survive a crash of the machine,
// so nothing waits for the disk.
func (d *Driver) save(name cluster.ResourceName, rec *record) error {
	path := d.recordPath(name)
	b, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("write the state of %s: %w", name, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the state of %s: %w", name, err)
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write the state of %s: %w", name, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write the state of %s: %w", name, err)
	}
	return nil
}

func (d *Driver) forget(name cluster.ResourceName) error {
	if err := os.Remove(d.recordPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the state of %s: %w", name, err)
	}
	return nil
}

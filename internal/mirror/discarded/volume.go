package discarded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Runner runs a program of the system, found by its name, and returns its output.
type Runner func(ctx context.Context, name string, args ...string) (string, error)

// program runs one of the programs of LVM.
func program(ctx context.Context, name string, args ...string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		c := exec.CommandContext(ctx, path, args...)
		c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
		out, err := c.Output()
		if e, is := errors.AsType[*exec.ExitError](err); is {
			err = fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(e.Stderr)))
		}
		return string(out), err
	}
	return "", fmt.Errorf("%s is not installed here: %w", name, os.ErrNotExist)
}

// snapshot makes one of a data device that is a logical volume: with room for all of
// it, so that it does not run full, whatever is written to the mirror disk later.
func (s *saver) snapshot(ctx context.Context, r *Record) (func(*os.File) error, error) {
	out, err := s.Run(ctx, "lvs", "--noheadings", "--separator", "/", "--options", "vg_name,lv_name", s.Data)
	if err != nil {
		return nil, errors.ErrUnsupported // LVM is not there, or it is none of its volumes
	}
	group, volume, ok := strings.Cut(strings.TrimSpace(out), "/")
	if !ok || strings.ContainsAny(volume, "/\n") {
		return nil, errors.ErrUnsupported
	}
	name := volume + "." + prefix + s.id
	if _, err := s.Run(ctx, "lvcreate", "--snapshot", "--extents", "100%ORIGIN", "--permission", "r", "--name", name, group+"/"+volume); err != nil {
		return nil, errors.Join(errors.ErrUnsupported, err) // most likely the group has not the room
	}
	r.Kind, r.Target = Snapshot, group+"/"+name
	return nil, nil
}

// removeTarget removes the clone or snapshot of a record. One whose name is not of
// that record is not touched.
func removeTarget(ctx context.Context, run Runner, id string, r *Record) error {
	if r.Target == "" {
		return nil
	}
	if !strings.HasSuffix(r.Target, "."+prefix+id) {
		return fmt.Errorf("%s is not what was made with %s: remove it by hand if nobody needs it", r.Target, id)
	}
	if r.Kind == Snapshot {
		_, err := run(ctx, "lvremove", "--yes", r.Target)
		return err
	}
	if err := os.Remove(r.Target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

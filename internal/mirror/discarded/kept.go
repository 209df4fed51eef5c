package discarded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/bitmap"
)

// Command is the hidden command, below tasuki mirror, that keeps the copy of the
// mirror disk of a directory below that for running state in another directory, and
// prints a Saved as JSON.
const Command = "save"

// Saved is what was kept, for the daemon.
type Saved struct {
	ID   string `json:"id"`
	What string `json:"what"` // Kept.What
}

// Kept is a copy that is kept.
type Kept struct {
	ID     string // the time when it was made, 20060102T150405Z
	Record        //
	Path   string // of the record
	Wrong  error  // why the record cannot be read; then nothing of it is known
}

// Exact says whether all of the copy is kept, and not only what had changed on it.
func (k *Kept) Exact() bool { return k.Kind != Blocks || k.Whole }

// What says in a few words what is kept.
func (k *Kept) What() string {
	switch {
	case k.Kind == Clone:
		return "a clone of it, " + k.Target
	case k.Kind == Snapshot:
		return "a snapshot of it, " + k.Target
	case k.Whole:
		return "all of it"
	}
	return fmt.Sprintf("%d blocks of %d KiB that had changed on it", k.Count, k.block()>>10)
}

// Used is how much room it takes now, in bytes; of a snapshot 0, which LVM knows.
func (k *Kept) Used() int64 {
	var st unix.Stat_t
	path := k.Path
	if k.Kind == Clone {
		path = k.Target
	}
	if k.Kind == Snapshot || unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// Dir is where the records of a mirror disk are, below the directory for state.
func Dir(state, resource string) string { return filepath.Join(state, "mirror", resource) }

// List returns what is kept in a directory, the oldest first.
func List(dir string) (out []Kept, err error) {
	files, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	for _, path := range files {
		if strings.HasSuffix(path, partial) {
			continue
		}
		k := Kept{ID: strings.TrimPrefix(filepath.Base(path), prefix), Path: path}
		k.Record, k.Wrong = read(path)
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Kept) int { return cmp.Compare(a.ID, b.ID) })
	return out, err
}

func read(path string) (Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return Record{}, err
	}
	defer f.Close()
	b := make([]byte, recordSize)
	if n, err := io.ReadFull(f, b); err != nil {
		b = b[:n]
	}
	return Decode(b)
}

// Find returns what is kept with that ID: os.ErrNotExist if nothing is.
func Find(dir, id string) (Kept, error) {
	all, err := List(dir)
	if err != nil {
		return Kept{}, err
	}
	i := slices.IndexFunc(all, func(k Kept) bool { return k.ID == id })
	if i < 0 {
		return Kept{}, fmt.Errorf("nothing is kept in %s with the name %q: %w", dir, id, os.ErrNotExist)
	}
	return all[i], nil
}

// Delete removes what is kept. A record that cannot be read is removed too, but not
// the clone or snapshot that it may speak of.
func (k *Kept) Delete(ctx context.Context, run Runner) error {
	if run == nil {
		run = program
	}
	if k.Wrong == nil {
		if err := removeTarget(ctx, run, k.ID, &k.Record); err != nil {
			return fmt.Errorf("remove what is kept of a discarded copy: %w", err)
		}
	}
	if err := os.Remove(k.Path); err != nil {
		return fmt.Errorf("remove what is kept of a discarded copy: %w", err)
	}
	return nil
}

// Export writes an image of the copy to a file that must not exist. Where not all of
// the copy was kept, the image is what is on the data device now, with the blocks
// that had changed on the copy put over it.
func (k *Kept) Export(ctx context.Context, to string) (err error) {
	if k.Wrong != nil {
		return fmt.Errorf("export a discarded copy: %w", k.Wrong)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("export a discarded copy: %w", err)
	}
	err = out.Truncate(k.Super.Size)
	if err == nil {
		err = k.export(ctx, out)
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("export a discarded copy to %s: %w", to, err), os.Remove(to))
	}
	return nil
}

func (k *Kept) export(ctx context.Context, out *os.File) error {
	all := bitmap.New(k.blocks())
	all.Set(0, all.Len())
	from, base := k.Source, int64(0)
	switch {
	case k.Kind == Clone:
		from = k.Target
	case k.Kind == Snapshot:
		from = filepath.Join("/dev", k.Target)
	case k.Whole:
		from, base = k.Path, k.dataAt()
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := copyRuns(ctx, out, 0, in, base, all, &k.Record); err != nil || k.Exact() {
		return err
	}
	return k.overlay(ctx, out)
}

// overlay puts the kept blocks over what is there. Those that are zero are holes in
// the record, and have to be written here.
func (k *Kept) overlay(ctx context.Context, out *os.File) error {
	f, err := os.Open(k.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	m := make([]byte, (k.blocks()+7)/8)
	if _, err := f.ReadAt(m, recordSize); err != nil {
		return err
	}
	if xxhash.Sum64(m) != k.mapSum {
		return fmt.Errorf("%w: the map of %s has a wrong checksum", ErrDamaged, k.Path)
	}
	kept := bitmap.New(k.blocks())
	kept.OrBytes(0, m)
	for start, end := kept.NextRun(0, kept.Len()); start >= 0; start, end = kept.NextRun(end, kept.Len()) {
		from, to := start*k.block(), min(end*k.block(), k.Super.Size)
		if err := unix.Fallocate(int(out.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from); err != nil {
			return fmt.Errorf("make a hole: %w", err)
		}
	}
	return copyRuns(ctx, out, 0, f, k.dataAt(), kept, &k.Record)
}

package discarded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/bitmap"
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

// WholeAtMost bounds what is copied as a whole, in bytes: somebody waits for it. Of
// what is larger only the blocks are kept that had changed.
const WholeAtMost = 32 << 30

// Options of Save.
type Options struct {
	Dir   string         // of the records of one mirror disk; it is made
	Super meta.Super     // of the copy
	Marks *bitmap.Bitmap // what may have changed on it alone
	Data  string         // its data device, a block device or a file
	Now   time.Time
	Run   Runner // nil: programs are run
}

// ErrNoRoom: there is not room enough to keep anything.
var ErrNoRoom = errors.New("there is not room enough")

// Save keeps the copy and returns what it made. Nothing may be writing to the data
// device, and one Save at a time is for a Dir. What a Save that was killed left is
// removed by the next.
func Save(ctx context.Context, o Options) (Kept, error) {
	r := Record{Made: o.Now, Super: o.Super, Source: o.Data}
	s := saver{Options: o, id: o.Now.UTC().Format("20060102T150405Z")}
	if s.Run == nil {
		s.Run = program
	}
	path := filepath.Join(o.Dir, prefix+s.id)
	if err := s.prepare(path); err != nil {
		return Kept{}, fmt.Errorf("keep what is on %s: %w", o.Data, err)
	}
	for _, way := range []func(context.Context, *Record) (func(*os.File) error, error){s.clone, s.snapshot, s.blocks} {
		fill, err := way(ctx, &r)
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err == nil {
			err = s.record(path, &r, fill)
		}
		if err != nil {
			return Kept{}, errors.Join(fmt.Errorf("keep what is on %s: %w", o.Data, err), removeTarget(ctx, s.Run, s.id, &r))
		}
		return Kept{ID: s.id, Record: r, Path: path}, nil
	}
	return Kept{}, fmt.Errorf("keep what is on %s: %w", o.Data, errors.ErrUnsupported)
}

// saver is one Save.
type saver struct {
	Options
	id string
}

const (
	prefix  = "discarded-"
	partial = ".part" // behind the name of a record that is being written
)

func (s *saver) prepare(path string) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(s.Dir, prefix+"*"+partial))
	for _, l := range left {
		err = errors.Join(err, os.Remove(l))
	}
	if _, there := os.Lstat(path); there == nil {
		err = errors.Join(err, fmt.Errorf("%s: %w: try again in a second", path, os.ErrExist))
	}
	return err
}

// record writes the record, and by fill what follows in its file: whole, or not at
// all.
func (s *saver) record(path string, r *Record, fill func(*os.File) error) (err error) {
	f, err := os.OpenFile(path+partial, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close() // closed already, or not needed any more
		if err != nil {
			_ = os.Remove(path + partial)
		}
	}()
	if fill != nil {
		err = fill(f)
	}
	if err == nil {
		err = r.Check()
	}
	if err == nil {
		_, err = f.WriteAt(r.Encode(), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(path+partial, path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(s.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// clone shares the blocks of a data device that is a file, where its file system can,
// and has room for both files once nothing is shared any more: else the mirror disk
// itself might lack it.
func (s *saver) clone(_ context.Context, r *Record) (func(*os.File) error, error) {
	var st unix.Stat_t
	if err := unix.Stat(s.Data, &st); err != nil {
		return nil, err
	}
	free, err := room(filepath.Dir(s.Data))
	if st.Mode&unix.S_IFMT != unix.S_IFREG || err != nil || free < st.Blocks*512 {
		return nil, errors.ErrUnsupported
	}
	from, err := os.Open(s.Data)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	target := s.Data + "." + prefix + s.id
	to, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, errors.ErrUnsupported
	}
	err = unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return nil, errors.Join(errors.ErrUnsupported, os.Remove(target))
	}
	r.Kind, r.Target = Clone, target
	return nil, nil
}

// blocks copies what is not zero: all of it, if that is not too much, else what had
// changed. At most half of the free room is taken.
func (s *saver) blocks(ctx context.Context, r *Record) (func(*os.File) error, error) {
	free, err := room(s.Dir)
	if err != nil {
		return nil, err
	}
	whole, changed := s.used(), s.Marks.Count()*r.block()
	r.Kind = Blocks
	switch {
	case whole <= WholeAtMost && whole <= free/2:
		r.Whole = true
	case changed == 0:
		return nil, fmt.Errorf("%w: it is not known what of it has changed, and all of it may be %d bytes, while %d are free at %s", ErrNoRoom, whole, free, s.Dir)
	case changed > free/2:
		return nil, fmt.Errorf("%w: what has changed on it may be %d bytes, and %d are free at %s, of which half may be taken", ErrNoRoom, changed, free, s.Dir)
	default:
		r.Count = s.Marks.Count()
	}
	return func(f *os.File) error { return s.fill(ctx, f, r) }, nil
}

// used is how many bytes of the data device may be in use.
func (s *saver) used() int64 {
	var st unix.Stat_t
	if unix.Stat(s.Data, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return min(st.Blocks*512, s.Super.Size)
	}
	return s.Super.Size
}

// room is how many bytes are free on the file system of a directory.
func room(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("see how much room there is at %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func (s *saver) fill(ctx context.Context, f *os.File, r *Record) error {
	from, err := os.Open(s.Data)
	if err != nil {
		return err
	}
	defer from.Close()
	kept := bitmap.New(r.blocks())
	if r.Whole {
		kept.Set(0, kept.Len())
	} else {
		kept = s.Marks
		m := kept.Bytes(0, kept.Len())
		r.mapSum = xxhash.Sum64(m)
		if _, err := f.WriteAt(m, recordSize); err != nil {
			return err
		}
	}
	if err := f.Truncate(r.dataAt() + r.Super.Size); err != nil {
		return err
	}
	return copyRuns(ctx, f, r.dataAt(), from, 0, kept, r)
}

// chunk is how many bytes are copied at a time.
const chunk = 1 << 20

// copyRuns copies the blocks of a map; what is zero is not written. The device begins
// at the bases in both files.
func copyRuns(ctx context.Context, to *os.File, toBase int64, from io.ReaderAt, fromBase int64, kept *bitmap.Bitmap, r *Record) error {
	p := make([]byte, max(chunk, r.block()))
	per := int64(len(p)) / r.block()
	for start, end := kept.NextRun(0, per); start >= 0; start, end = kept.NextRun(end, per) {
		if err := ctx.Err(); err != nil {
			return err
		}
		off := start * r.block()
		n := min(end*r.block(), r.Super.Size) - off
		if _, err := io.ReadFull(io.NewSectionReader(from, fromBase+off, n), p[:n]); err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", n, off, err)
		}
		if err := writeSparse(to, p[:n], toBase+off); err != nil {
			return err
		}
	}
	return nil
}

// page is the least hole that is left.
const page = 4096

// writeSparse writes what is not zero.
func writeSparse(f *os.File, p []byte, off int64) error {
	for at := 0; at < len(p); {
		end := at
		for end < len(p) && !zero(p[end:min(end+page, len(p))]) {
			end = min(end+page, len(p))
		}
		if end == at {
			at += page
			continue
		}
		if _, err := f.WriteAt(p[at:end], off+int64(at)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

func zero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

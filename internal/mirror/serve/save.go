package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/discarded"
	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

// readOnly is a disk that a serving process has for itself, as another one may see
// it. It can do nothing but read.
type readOnly struct {
	disk.Disk
	f *os.File
}

func (r readOnly) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(p, off) }

// save keeps the copy of a mirror disk in a directory, before it is discarded, and
// prints what it made. The process that serves it does not write meanwhile.
func save(ctx context.Context, dir, to string, out io.Writer) error {
	spec, err := control.ReadSpec(dir)
	if err != nil {
		return err
	}
	f, err := os.Open(spec.Meta)
	if err != nil {
		return fmt.Errorf("meta device: %w", err)
	}
	defer f.Close()
	m := metaDevice{d: readOnly{f: f}, path: spec.Meta}
	l, err := m.load()
	switch {
	case err != nil:
		return err
	case l.blank:
		return errors.New("this copy was never made: there is nothing on it")
	case l.super.Inconsistent:
		return errors.New("this copy was being copied to, and does not hold together")
	}
	block := int64(1) << l.super.BlockShift
	for _, e := range l.log { // what was being written when it ended
		from, to := int64(e)*meta.ExtentSize, min(int64(e+1)*meta.ExtentSize, l.super.Size)
		if from < to {
			l.marks.Set(from/block, (to+block-1)/block)
		}
	}
	kept, err := discarded.Save(ctx, discarded.Options{Dir: to, Super: l.super, Marks: l.marks, Data: spec.Data, Now: time.Now().Truncate(time.Second)})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(discarded.Saved{ID: kept.ID, What: kept.What()})
}

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
	"github.com/tasuki-ha/tasuki/internal/mirror/serve"
)

// Front is `tasuki lab front DISK`: it gives a disk another name, by way of the
// front end of mirror disks and with no second copy, and tells that name to out.
// So tests and measurements see the front end alone, in a process that is otherwise
// as that of a mirror disk. It serves until ctx ends; then the device must not be in
// use.
func Front(ctx context.Context, path string, out io.Writer) error {
	serve.Prepare(slog.New(slog.DiscardHandler))
	d, err := disk.Open(path, disk.Options{})
	if err != nil {
		return err
	}
	defer d.Close()
	size, err := d.Size()
	if err != nil {
		return err
	}
	var held keep.Held
	defer held.Close()
	f, err := fuse.Attach(ctx, &local{d, size}, &held, fuse.Options{Name: path})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, f.Path())
	detached := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		err := f.Detach(context.WithoutCancel(ctx))
		if err != nil {
			err = errors.Join(err, f.Abort())
		}
		detached <- err
	})
	err = f.Serve()
	if stop() {
		return err // nobody asked for the end
	}
	return <-detached
}

// local is a front.Device on one disk.
type local struct {
	disk disk.Disk
	size int64
}

func (l *local) Size() int64     { return l.size }
func (l *local) SectorSize() int { return l.disk.SectorSize() }

func (l *local) Do(r *front.Request) {
	var err error
	switch r.Op {
	case front.Read:
		_, err = l.disk.ReadAt(r.Data, r.Offset)
	case front.Write:
		err = l.disk.WriteAt(r.Data, r.Offset, r.FUA)
	case front.Flush:
		err = l.disk.Flush()
	case front.Discard:
		err = l.disk.Discard(r.Offset, int64(r.Length))
	case front.Zero:
		err = l.disk.Zero(r.Offset, int64(r.Length))
	}
	r.Done(r, disk.Errno(err))
}

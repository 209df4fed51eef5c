// Package look finds out which files of a copy have changed since a moment. It
// reads a file system that is mounted already, or the one on a data device, which
// it mounts for itself: nothing is ever written to the device, not even the journal
// of the file system is replayed, and nobody else sees the mount.
//
// A file system that is damaged may keep the kernel busy for long, so a process of
// its own should do it: what is mounted is gone when that ends, however it does.
package look

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
)

// Tree looks at the files below a directory, on that file system only, that have
// changed after since, and names the newest, at most most. What cannot be read is
// left out; so is, when ctx ends, what has not been met by then. Text says so.
func Tree(ctx context.Context, root string, since time.Time, most int) (api.MirrorFiles, error) {
	w := walk{since: since, most: most}
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return api.MirrorFiles{}, fmt.Errorf("look at %s: %w", root, err)
	}
	w.device = st.Dev
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			w.unread++
			return nil
		case path == root:
			return nil
		}
		return w.meet(root, path, e)
	})
	if err != nil && !errors.Is(err, ctx.Err()) {
		return api.MirrorFiles{}, fmt.Errorf("look at %s: %w", root, err)
	}
	return w.found(err != nil), nil
}

// walk is one walk through a tree.
type walk struct {
	since  time.Time
	most   int
	device uint64
	newest newest
	met    int // files and directories
	fits   int // of them, that have changed
	unread int
}

// meet takes a file or a directory into account.
func (w *walk) meet(root, path string, e fs.DirEntry) error {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		w.unread++
		return nil
	}
	switch {
	case st.Dev == w.device:
	case e.IsDir():
		return fs.SkipDir // something else is mounted there
	default:
		return nil
	}
	w.met++
	at := time.Unix(st.Mtim.Unix())
	if !at.After(w.since) {
		return nil
	}
	w.fits++
	if len(w.newest) == w.most && !at.After(w.newest[0].Time) {
		return nil
	}
	name, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	if e.IsDir() {
		name += "/"
	}
	heap.Push(&w.newest, api.MirrorFile{Path: Printable(name), Time: at, Size: st.Size})
	if len(w.newest) > w.most {
		heap.Pop(&w.newest)
	}
	return nil
}

func (w *walk) found(cut bool) api.MirrorFiles {
	slices.SortStableFunc(w.newest, func(a, b api.MirrorFile) int { return b.Time.Compare(a.Time) })
	f := api.MirrorFiles{Since: w.since, Files: append([]api.MirrorFile{}, w.newest...), More: w.fits - len(w.newest)}
	switch {
	case cut:
		f.Text = fmt.Sprintf("there was time to look at %d files and directories only", w.met)
	case w.unread > 0:
		f.Text = fmt.Sprintf("%d files and directories could not be read", w.unread)
	}
	return f
}

// newest is a heap with the oldest of the files first.
type newest []api.MirrorFile

func (n newest) Len() int           { return len(n) }
func (n newest) Less(i, k int) bool { return n[i].Time.Before(n[k].Time) }
func (n newest) Swap(i, k int)      { n[i], n[k] = n[k], n[i] }
func (n *newest) Push(x any)        { *n = append(*n, x.(api.MirrorFile)) }
func (n *newest) Pop() any {
	last := (*n)[len(*n)-1]
	*n = (*n)[:len(*n)-1]
	return last
}

// Printable returns a name as it is, or quoted if some of it cannot be printed or
// would look like a quoted one: nobody's terminal is to be told anything by a name.
func Printable(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

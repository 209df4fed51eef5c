package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/mirror/discarded"
)

// keptCopy is a discarded copy in JSON.
type keptCopy struct {
	Mirror     string    `json:"mirror"`
	ID         string    `json:"id"`
	Made       time.Time `json:"made,omitzero"`
	What       string    `json:"what,omitempty"`
	Exact      bool      `json:"exact"` // all of the copy is kept
	Generation string    `json:"generation,omitempty"`
	Size       int64     `json:"size,omitempty"` // of the mirror disk, bytes
	Used       int64     `json:"used"`           // bytes on this node
	Path       string    `json:"path"`
	Wrong      string    `json:"wrong,omitempty"` // why the record cannot be read
}

// discarded are the commands for what was kept of copies that were given up. They work
// on files of this machine, in which no daemon has a part: one is not even needed.
func (p *program) discarded() *cobra.Command {
	c := &cobra.Command{Use: "discarded", Short: "Look at copies that were given up, and get something back", Args: cobra.ArbitraryArgs, RunE: noVerb,
		Long: `Before tasuki mirror resolve gives up what is on a copy, it is kept on the node of that
copy: as a clone of the data device's file where its file system can do that (xfs,
btrfs), as a snapshot where it is a logical volume, else in a file below
/var/lib/tasuki/mirror: the whole copy if that is not too large, or only what had
changed on it. It stays until it is deleted. These commands are for that node.`,
		Example: "  tasuki mirror discarded list\n  tasuki mirror discarded export md 20260102T100000Z /tmp/md.img\n  mount -o loop,ro,noload /tmp/md.img /mnt"}
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "list [MIRROR]", Short: "Show what is kept on this node", Args: args(0, 1, "at most one mirror disk"),
		Long: "Show what is kept on this node of copies that were given up.", Example: "  tasuki mirror discarded list md",
		RunE: func(_ *cobra.Command, a []string) error { return p.listDiscarded(append(a, "*")[0]) }}),
		&cobra.Command{Use: "export MIRROR ID FILE", Short: "Write an image of a copy that was given up", Args: args(3, 3, "a mirror disk, what list calls the copy, and a file that does not exist yet"),
			Long: `Write an image of a copy that was given up to a file, to be mounted or looked into.
Where only what had changed on the copy was kept, the image is what is on the data
device now, with those blocks put over it: what was changed on both sides since may
not fit together, so check the image before it is mounted (e2fsck -f, xfs_repair).`,
			Example: "  tasuki mirror discarded export md 20260102T100000Z /tmp/md.img",
			RunE: func(cmd *cobra.Command, a []string) error {
				k, err := p.findDiscarded(a[0], a[1])
				if err != nil {
					return err
				}
				if err := k.Export(cmd.Context(), a[2]); err != nil {
					return err
				}
				if !k.Exact() {
					fmt.Fprintf(p.err, "only what had changed was kept: the rest of %s is what is on %s now\n", a[2], k.Source)
				}
				fmt.Fprintf(p.out, "%s has the copy of %s as it was at %s\n", a[2], a[0], moment(k.Made))
				return nil
			}},
		&cobra.Command{Use: "delete MIRROR ID", Short: "Delete what is kept of a copy", Args: args(2, 2, "a mirror disk, and what list calls the copy"),
			Long: "Delete what is kept of a copy that was given up. It cannot be had back.", Example: "  tasuki mirror discarded delete md 20260102T100000Z",
			RunE: func(cmd *cobra.Command, a []string) error {
				k, err := p.findDiscarded(a[0], a[1])
				if err == nil {
					err = k.Delete(cmd.Context(), nil)
				}
				return err
			}})
	return c
}

// listDiscarded shows what is kept of the mirror disks that a pattern names.
func (p *program) listDiscarded(pattern string) error {
	dirs, err := filepath.Glob(discarded.Dir(p.dirs.State, pattern))
	if err != nil {
		return usageError{err}
	}
	list := []keptCopy{}
	for _, dir := range dirs {
		all, err := discarded.List(dir)
		if err != nil {
			return err
		}
		for _, k := range all {
			c := keptCopy{Mirror: filepath.Base(dir), ID: k.ID, Used: k.Used(), Path: k.Path}
			if k.Wrong != nil {
				c.Wrong = k.Wrong.Error()
			} else {
				c.Made, c.What, c.Exact, c.Generation, c.Size = k.Made, k.What(), k.Exact(), k.Super.Current.String(), k.Super.Size
			}
			list = append(list, c)
		}
	}
	if p.asJSON {
		return p.json(list)
	}
	for _, c := range list {
		if c.Wrong != "" {
			fmt.Fprintf(p.out, "  %-16s %s  %s  %s\n", c.Mirror, c.ID, c.Path, p.paint(false, c.Wrong))
			continue
		}
		fmt.Fprintf(p.out, "  %-16s %s  %s of %s: %s\n", c.Mirror, c.ID, size(c.Used), size(c.Size), c.What)
	}
	if len(list) == 0 {
		fmt.Fprintln(p.out, "nothing is kept on this node")
	}
	return nil
}

func (p *program) findDiscarded(mirror, id string) (discarded.Kept, error) {
	k, err := discarded.Find(discarded.Dir(p.dirs.State, filepath.Base(mirror)), id)
	if errors.Is(err, os.ErrNotExist) {
		return k, &api.Error{Code: "no-such-copy", Message: fmt.Sprintf("of mirror disk %s nothing is kept here as %q", mirror, id), Hint: "tasuki mirror discarded list, on the node of the copy"}
	}
	return k, err
}

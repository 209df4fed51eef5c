package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func mirrorNames(s *api.Status) (out []string) {
	for _, m := range s.Mirrors {
		out = append(out, string(m.Name))
	}
	return out
}

// mirrorVerb is one command with the options that it has.
type mirrorVerb struct {
	verbOf
	node     string // the flag that names a copy, and what it is
	nodeIs   string
	thorough string // the flag of a thorough one, and what it is
	thoroIs  string
	reason   bool
	confirm  bool // writes may be lost: the name of the cluster must be typed
	keeps    bool // what is lost is kept before
}

var mirrorVerbs = []mirrorVerb{
	{verbOf: verbOf{"break", "Copy nothing until the mirror is resumed", `Break the mirror: nothing is copied to the other node any more, not even by itself
after a loss, until it is resumed. The active copy goes on; the other one counts as
out of date from then on and cannot take over.`, `  tasuki mirror break md --reason "the interconnect is replaced"`}, reason: true},
	{verbOf: verbOf{"resume", "Copy by itself again", `End tasuki mirror break: the other copy is brought up to date.`, "  tasuki mirror resume md"}},
	{verbOf: verbOf{"copy", "Bring the other copy up to date now", `Copy what differs from the active copy to the other one, or everything. Without
this it happens by itself as soon as both see each other.`, "  tasuki mirror copy md\n  tasuki mirror copy md --full"},
		thorough: "full", thoroIs: "copy everything, also what is known to be the same"},
	{verbOf: verbOf{"verify", "Compare both copies while they are in use", `Compare the checksums of both copies, while the active one is in use. What differs
is told in the log; with --repair it is copied from the active copy.`, "  tasuki mirror verify md\n  tasuki mirror verify md --repair"},
		thorough: "repair", thoroIs: "copy what differs from the active copy"},
	{verbOf: verbOf{"grow", "Take data devices that have grown into use", `After the data device has been enlarged on both nodes, have the mirror disk use all of
it, while it is in use. What is new is copied. Then grow the file system on it, on the
active node: resize2fs /dev/tasuki/md, or xfs_growfs and the mount point.`, "  tasuki mirror grow md"}},
	{verbOf: verbOf{"invalidate", "Declare a copy out of date although it looks complete", `Declare that a copy is not complete although it looks so, for example because its
disk was restored from an image. It cannot take over until everything that differs
has been copied; tasuki mirror copy --full copies everything.`, `  tasuki mirror invalidate md --node CLP-2 --reason "its disk was restored"`},
		node: "node", nodeIs: "whose copy (default: that on this node)", reason: true},
	{verbOf: verbOf{"force", "Make a copy the latest one although it may be out of date", `Make the copy on a node count as complete, although it may be out of date: for when
the node with the complete copy does not come back. Writes that only the other copy
has are lost as soon as this one is used. The group must be offline. So the name of
the cluster must be typed, and the reason stays in sight until it is acknowledged.`,
		`  tasuki mirror force md --node CLP-2 --cluster-name VMcluster --reason "CLP-1 burned out"`},
		node: "node", nodeIs: "whose copy (default: that on this node)", reason: true, confirm: true},
	{verbOf: verbOf{"acknowledge", "Take note that a copy was forced", `Take the note out of tasuki status that a copy was forced. It changes nothing else.`, "  tasuki mirror acknowledge md"}},
	{verbOf: verbOf{"resolve", "Decide a split brain: whose writes are given up", `After a split brain, both copies have writes that the other does not have. Nothing is
copied until somebody decides whose are given up. They are overwritten by what the
other copy has, so look at both first: without --discard both are shown beside each
other, with the files that have changed on each. What is given up is kept before, if
there is room for it, until it is deleted: see tasuki mirror discarded. The name of
the cluster must be typed.`,
		`  tasuki mirror resolve md --discard CLP-2 --cluster-name VMcluster --reason "CLP-2 had no clients"`},
		node: "discard", nodeIs: "whose writes are given up", reason: true, confirm: true, keeps: true},
}

func (p *program) mirror() *cobra.Command {
	c := &cobra.Command{Use: "mirror", Short: "Look at mirror disks, copy, break and repair them",
		Long: `A mirror disk is a block device of which two nodes keep a copy each. Only a node whose
copy is complete can become active: that is agreed on by the cluster, and no failover
and no move goes to another one.

  GREEN   in sync
  YELLOW  being copied to
  RED     out of date, written apart from the other one (split brain), or its disk
          has failed
  GRAY    unknown: its node is silent`,
		Example: "  tasuki mirror status\n  tasuki mirror copy md"}
	for _, v := range mirrorVerbs {
		c.AddCommand(p.changeMirror(v))
	}
	c.AddCommand(p.discarded())
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "status [MIRROR]", Short: "Show mirror disks and both copies of each",
		Long: "Show mirror disks with both copies: whether each is complete, how far a copy is and\nhow long it will take, and what an operator decided.", Example: "  tasuki mirror status\n  tasuki mirror status md --json",
		Args: args(0, 1, "at most one mirror disk"), ValidArgsFunction: p.completeFirst(mirrorNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			s, err := p.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			list := s.Mirrors
			if len(a) > 0 {
				list = slices.DeleteFunc(slices.Clone(list), func(m api.Mirror) bool { return string(m.Name) != a[0] })
				if len(list) == 0 {
					return noSuchMirror(a[0], &s)
				}
			}
			if p.asJSON {
				return p.json(list)
			}
			for _, m := range list {
				p.printMirror(&m, nameColumn(&s))
			}
			return nil
		}}))
	return c
}

func noSuchMirror(name string, s *api.Status) error {
	hint := "the cluster file has no mirror disk"
	if len(s.Mirrors) > 0 {
		hint = "the mirror disks are: " + strings.Join(mirrorNames(s), ", ")
	}
	return &api.Error{Code: "no-such-mirror", Message: fmt.Sprintf("there is no mirror disk %q", name), Hint: hint}
}

func (p *program) changeMirror(v mirrorVerb) *cobra.Command {
	var op api.MirrorOp
	c := &cobra.Command{Use: v.verb + " MIRROR", Short: v.short, Long: v.long, Example: v.example, Args: args(1, 1, "a mirror disk"), ValidArgsFunction: p.completeFirst(mirrorNames),
		RunE: func(cmd *cobra.Command, a []string) error {
			switch {
			case v.node == "discard" && op.Node == "":
				return p.histories(cmd.Context(), a[0])
			case v.confirm && op.Reason == "":
				return usageError{fmt.Errorf("say why, for the log and for the others who see it: --reason TEXT")}
			}
			op.Cause = cause()
			b, err := p.client().Mirror(cmd.Context(), cluster.ResourceName(a[0]), v.verb, op)
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(b)
			}
			fmt.Fprintln(p.out, b.Text)
			return nil
		}}
	if v.node != "" {
		c.Flags().StringVar((*string)(&op.Node), v.node, "", v.nodeIs)
		_ = c.RegisterFlagCompletionFunc(v.node, p.complete(nodeNames))
	}
	if v.thorough != "" {
		c.Flags().BoolVar(&op.Thorough, v.thorough, false, v.thoroIs)
	}
	if v.reason {
		c.Flags().StringVar(&op.Reason, "reason", "", "why, in a few words")
	}
	if v.keeps {
		c.Flags().BoolVar(&op.NoSnapshot, "no-snapshot", false, "do not keep what is given up")
	}
	if v.confirm {
		c.Flags().StringVar(&op.Confirm, "cluster-name", "", "the name of the cluster, to confirm that writes may be lost")
	}
	return p.jsonFlag(c)
}

// histories shows both copies beside each other, and which files have changed on
// each, for whoever has to decide whose writes are given up.
func (p *program) histories(ctx context.Context, name string) error {
	s, err := p.client().Status(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Mirrors, func(m api.Mirror) bool { return string(m.Name) == name })
	if i < 0 {
		return noSuchMirror(name, &s)
	}
	m := &s.Mirrors[i]
	t := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	for _, line := range []struct {
		what string
		of   func(c *api.MirrorCopy) string
	}{
		{"", func(c *api.MirrorCopy) string { return string(c.Node) }},
		{"is", func(c *api.MirrorCopy) string { return copyInWords(m, c) }},
		{"generation", func(c *api.MirrorCopy) string { return c.Generation }},
		{"went on alone", func(c *api.MirrorCopy) string { return moment(c.Began) }},
		{"last wrote", func(c *api.MirrorCopy) string { return moment(c.Written) }},
		{"has changed since", func(c *api.MirrorCopy) string { return size(c.Dirty) }},
	} {
		fmt.Fprint(t, "  ", line.what)
		for k := range m.Copies {
			fmt.Fprint(t, "\t", line.of(&m.Copies[k]))
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for k := range m.Copies {
		p.printFiles(&m.Copies[k], p.filesOf(ctx, m, &m.Copies[k]))
	}
	fmt.Fprintln(p.out)
	return usageError{fmt.Errorf("say whose writes are given up: --discard NODE")}
}

// filesOf has a node look which files of its copy have changed. Why it cannot is in
// the text.
func (p *program) filesOf(ctx context.Context, m *api.Mirror, c *api.MirrorCopy) api.MirrorFiles {
	b, err := p.client().Mirror(ctx, m.Name, "look", api.MirrorOp{Node: c.Node})
	switch {
	case err != nil:
		return api.MirrorFiles{Node: c.Node, Text: err.Error()}
	case b.Files == nil:
		return api.MirrorFiles{Node: c.Node, Text: "its daemon says nothing about them"}
	}
	return *b.Files
}

func (p *program) printFiles(c *api.MirrorCopy, f api.MirrorFiles) {
	switch {
	case len(f.Files) > 0:
		fmt.Fprintf(p.out, "\n  what has changed in the files on %s since %s:\n", c.Node, moment(f.Since))
	case f.Text == "":
		f.Text = "nothing has changed since " + moment(f.Since)
		fallthrough
	default:
		fmt.Fprintf(p.out, "\n  the files on %s: %s\n", c.Node, f.Text)
		return
	}
	for _, x := range f.Files {
		fmt.Fprintf(p.out, "    %s %9s  %s\n", moment(x.Time), size(x.Size), x.Path)
	}
	if f.More > 0 {
		fmt.Fprintf(p.out, "    and %d more\n", f.More)
	}
	if f.Text != "" {
		fmt.Fprintf(p.out, "    (%s)\n", f.Text)
	}
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "not known"
	}
	return t.Local().Format("2006/01/02 15:04:05")
}

// printMirror prints a mirror disk, a line for each copy, and what an operator
// decided with the command that ends it.
func (p *program) printMirror(m *api.Mirror, w int) {
	at := ""
	if m.Mount != "" {
		at = " at " + m.Mount
	}
	fmt.Fprintf(p.out, "  %-*s %s%s, of group %s", w, m.Name, m.Mode, at, m.Group)
	if len(m.InSync) == 0 {
		fmt.Fprintf(p.out, "  %s", p.paint(false, "never constructed"))
	}
	fmt.Fprintln(p.out)
	for _, c := range m.Copies {
		fmt.Fprintf(p.out, "    %-*s %s %s", w-2, c.Node, p.paint(c.State == api.MirrorInSync, fmt.Sprintf("%-6s", c.Color())), copyInWords(m, &c))
		if c.Text != "" {
			fmt.Fprintf(p.out, "  (%s)", c.Text)
		}
		fmt.Fprintln(p.out)
	}
	for _, c := range m.Copies {
		switch {
		case c.State == api.MirrorFailed && c.Role == api.MirrorStandby:
			fmt.Fprintf(p.out, "    when the disk on %s is sound again, or another one: tasuki mirror copy %s\n", c.Node, m.Name)
		case c.DiskError && c.Role == api.MirrorStandby:
			fmt.Fprintf(p.out, "    the disk on %s had an error; when it is sound again: tasuki mirror copy %s\n", c.Node, m.Name)
		case c.DiskError && len(m.InSync) == len(m.Copies):
			fmt.Fprintf(p.out, "    the disk on %s had an error; that all of it can be read is shown by tasuki mirror verify %s\n", c.Node, m.Name)
		}
	}
	when := moment
	if f := m.Forced; f != nil {
		fmt.Fprintf(p.out, "    %s on %s since %s (%s: %s): take note of it with tasuki mirror acknowledge %s\n", p.paint(false, "forced"), f.Node, when(f.Since), f.Author, f.Why, m.Name)
	}
	if b := m.Paused; b != nil {
		fmt.Fprintf(p.out, "    %s since %s (%s: %s): nothing is copied before tasuki mirror resume %s\n", p.paint(false, "broken"), when(b.Since), b.Author, b.Why, m.Name)
	}
	if m.Victim != "" {
		fmt.Fprintf(p.out, "    what only the copy on %s holds is given up: it is overwritten when it is copied to\n", m.Victim)
	}
	if slices.ContainsFunc(m.Copies, func(c api.MirrorCopy) bool { return c.State == api.MirrorSplit }) && m.Victim == "" {
		fmt.Fprintf(p.out, "    nothing is copied before it is decided whose writes are given up: tasuki mirror resolve %s --discard NODE\n", m.Name)
	}
}

// copyInWords says how a copy is, without its color.
func copyInWords(m *api.Mirror, c *api.MirrorCopy) string {
	var out []string
	switch c.State {
	case api.MirrorInSync:
		out = append(out, "in sync")
	case api.MirrorCopying:
		text := fmt.Sprintf("being copied, %.0f %%", c.Percent)
		if c.Percent > 0 && c.Percent < 10 {
			text = fmt.Sprintf("being copied, %.1f %%", c.Percent)
		}
		if c.Rate > 0 {
			text += fmt.Sprintf(", %s/s", size(c.Rate))
		}
		if c.ETA > 0 {
			text += fmt.Sprintf(", %s left", cluster.Span(c.ETA.Round(time.Second)))
		}
		out = append(out, text)
	case api.MirrorOutdated:
		text := "out of date"
		if !m.Since.IsZero() {
			text += " since " + m.Since.Local().Format("2006/01/02 15:04:05")
		}
		out = append(out, text)
	case api.MirrorSplit:
		out = append(out, "split brain")
	case api.MirrorFailed:
		out = append(out, "its disk has failed")
	default:
		out = append(out, "unknown")
	}
	if c.Dirty > 0 && c.State != api.MirrorCopying {
		out = append(out, size(c.Dirty)+" differ")
	}
	if c.Role == api.MirrorActive {
		out = append(out, "active")
		if !c.Connected {
			out = append(out, "without the other one")
		}
	}
	return strings.Join(out, ", ")
}

// size shows a number of bytes.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return strings.Replace(fmt.Sprintf("%.1f %s", v, units[i]), ".0 ", " ", 1)
}

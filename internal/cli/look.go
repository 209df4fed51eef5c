package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/journal"
	"github.com/tasuki-ha/tasuki/internal/lease"
)

// since reads a time, or how long ago.
func since(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006/01/02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usageError{fmt.Errorf("%q is no time: write 10m, 2026-01-31, or 2026-01-31T12:00:00Z", s)}
}

func (p *program) event() *cobra.Command {
	var follow bool
	var n int
	var from, node, group string
	c := p.jsonFlag(&cobra.Command{Use: "event", Short: "Show the operator's log of the cluster",
		Long: `Show the operator's log: every decision and every step of all nodes, the oldest
first. Each node holds the log of the whole cluster.`,
		Example: `  tasuki event -n 20
  tasuki event -f
  tasuki event --since 10m --group failover
  tasuki event --since 2026-01-31 --json`, Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := since(from)
			if err != nil {
				return err
			}
			if n < 0 {
				return usageError{fmt.Errorf("%d is no number of lines", n)}
			}
			show := func(e api.Event) {
				if node != "" && string(e.Node) != node || group != "" && e.Fields["group"] != group {
					return
				}
				if p.asJSON {
					_ = json.NewEncoder(p.out).Encode(e)
					return
				}
				fmt.Fprintln(p.out, journal.Line(e, time.Local))
			}
			if from != "" && !cmd.Flags().Changed("lines") {
				n = 0
			}
			f := api.EventFilter{Since: t, Node: cluster.NodeName(node), Group: cluster.GroupName(group), Newest: n > 0, Limit: n}
			if !follow {
				return p.pages(cmd.Context(), f, show)
			}
			return p.pagesAndNew(cmd.Context(), f, show)
		}})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new lines as they come")
	c.Flags().IntVarP(&n, "lines", "n", 50, "how many of the newest lines; 0 is all that are kept, as with --since")
	c.Flags().StringVar(&from, "since", "", "from that time on, or from so long ago")
	c.Flags().StringVar(&node, "node", "", "only what that node wrote")
	c.Flags().StringVar(&group, "group", "", "only what is about that group")
	_ = c.RegisterFlagCompletionFunc("node", p.complete(nodeNames))
	_ = c.RegisterFlagCompletionFunc("group", p.complete(groupNames))
	return c
}

// eventPage is how many events one call gives at most.
const eventPage = 10_000

// pages shows the events of the log that the filter names; without a limit all
// of them.
func (p *program) pages(ctx context.Context, f api.EventFilter, show func(api.Event)) error {
	if f.Limit > eventPage {
		return p.newest(ctx, f, show)
	}
	all := f.Limit == 0
	if all {
		f.Limit = eventPage
	}
	for {
		events, err := p.client().Events(ctx, f)
		if err != nil {
			return err
		}
		for _, e := range events {
			show(e)
		}
		if !all || len(events) < eventPage {
			return nil
		}
		f.After = events[len(events)-1].ID
	}
}

// newest shows more of the newest events than one call gives: it reads all and
// keeps the last.
func (p *program) newest(ctx context.Context, f api.EventFilter, show func(api.Event)) error {
	n := f.Limit
	f.Limit, f.Newest = 0, false
	var kept []api.Event // at most twice as many as wanted
	err := p.pages(ctx, f, func(e api.Event) {
		if kept = append(kept, e); len(kept) == 2*n {
			kept = append(kept[:0], kept[n:]...)
		}
	})
	if err != nil {
		return err
	}
	for _, e := range kept[max(0, len(kept)-n):] {
		show(e)
	}
	return nil
}

// pagesAndNew goes on with new events. It listens before it reads what there
// is, so that none is missed in between, and shows none twice.
func (p *program) pagesAndNew(ctx context.Context, f api.EventFilter, show func(api.Event)) error {
	shown := map[cluster.EventID]bool{}
	var failed error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := p.client().Follow(ctx, func() {
		failed = p.pages(ctx, f, func(e api.Event) { shown[e.ID] = true; show(e) })
		if failed != nil {
			cancel()
		}
	}, func(e api.Event) {
		if !shown[e.ID] {
			show(e)
		}
	})
	return cmp.Or(failed, err)
}

func (p *program) explain() *cobra.Command {
	return p.jsonFlag(&cobra.Command{Use: "explain [ID]", Short: "Tell a story from its first cause to its last effect", Args: args(0, 1, "at most one event"),
		Long: "Tell the story that an event belongs to, from the first cause to the last effect,\nwith times since the beginning and the reason for each decision. Without an event:\nthe latest story in which something was done.", Example: "  tasuki explain\n  tasuki explain CLP-1/42",
		RunE: func(cmd *cobra.Command, a []string) error {
			id := cluster.EventID(strings.Join(a, ""))
			chain, err := p.client().Explain(cmd.Context(), id)
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(chain)
			}
			p.story(chain)
			return nil
		}})
}

// story prints a chain; what an event led to stands further right.
func (p *program) story(chain []api.Event) {
	if len(chain) == 0 {
		return
	}
	depth := map[cluster.EventID]int{}
	begin := chain[0].Time
	fmt.Fprintf(p.out, "%s\n", begin.Local().Format("2006/01/02 15:04:05.000"))
	last := map[string]bool{}
	for _, e := range chain {
		d, known := depth[e.Cause]
		if known {
			d++
		}
		depth[e.ID] = d
		fmt.Fprintf(p.out, "%8.3f s  %-10s %-6s %s%s\n", e.Time.Sub(begin).Seconds(), e.Node, e.Module, strings.Repeat("  ", min(d, 6)), e.Text)
		if why := e.Fields["why"]; why != "" && !last[why] && !strings.Contains(e.Text, why) {
			last[why] = true
			fmt.Fprintf(p.out, "%30s%swhy: %s\n", "", strings.Repeat("  ", min(d, 6)), why)
		}
	}
	fmt.Fprintf(p.out, "%d lines, %.3f s\n", len(chain), chain[len(chain)-1].Time.Sub(begin).Seconds())
}

func (p *program) config() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Check, compare and apply the cluster file",
		Long: `The cluster file is replicated: a change is in force on all nodes or on none, and
the versions before it are kept. What a running group was started with cannot
change under it.`,
		Example: `  tasuki config new --cluster web --node alpha=10.0.0.1 --node beta=10.0.0.2 --ping 10.0.0.254
  tasuki config check vmcluster.yaml
  tasuki config diff vmcluster.yaml
  tasuki config apply vmcluster.yaml
  tasuki config history
  tasuki config rollback 3`}
	c.AddCommand(p.configNew(), p.configCheck(), p.configShow(), p.configHistory(), p.configDiff(), p.configApply(), p.configRollback(),
		&cobra.Command{Use: "schema", Short: "Print the JSON schema of the cluster file, for editors",
			Long: "Print the JSON schema of the cluster file: editors that know YAML complete and check\nwith it. No daemon is needed.", Example: "  tasuki config schema > tasuki.schema.json", Args: args(0, 0, "no arguments"),
			RunE: func(*cobra.Command, []string) error { _, err := p.out.Write(config.Schema()); return err }})
	return c
}

// count names a number of things.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// clusterFile reads a cluster file and shows every problem of it at its place.
func (p *program) clusterFile(path string) (*config.File, string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, "", &api.Error{Code: "config-unreadable", Message: err.Error(), Hint: "name the cluster file; tasuki config show prints the one in force"}
	}
	f, errs := config.Parse(path, text)
	for _, e := range errs {
		fmt.Fprintln(p.err, e)
	}
	if len(errs) > 0 {
		return nil, "", &api.Error{Code: "config-invalid", Message: fmt.Sprintf("%s in %s", count(len(errs), "problem"), path), Hint: "docs/cluster-file.md lists every key"}
	}
	return f, string(text), nil
}

func (p *program) configCheck() *cobra.Command {
	return &cobra.Command{Use: "check FILE", Short: "Check a cluster file; no daemon is needed",
		Long: `Check a cluster file and show all that is wrong with it at once, as
file:line:column. Warnings are allowed but risky. What the timing of the file comes
to is computed: when a node that loses contact is harmless, when another takes over
at the latest, and what a watchdog adds.`,
		Example: "  tasuki config check vmcluster.yaml", Args: args(1, 1, "a file"),
		RunE: func(_ *cobra.Command, a []string) error {
			f, _, err := p.clusterFile(a[0])
			if err != nil {
				return err
			}
			for _, w := range f.Warnings() {
				fmt.Fprintf(p.out, "warning: %s\n", w)
			}
			fmt.Fprintf(p.out, "%s is valid: cluster %s, %s, %s, %s\n", a[0], f.Cluster,
				count(len(f.Nodes), "node"), count(len(f.Groups), "group"), count(len(f.Monitors), "monitor"))
			for _, s := range lease.Worst(f).Sentences() {
				fmt.Fprintln(p.out, s)
			}
			return nil
		}}
}

func (p *program) configShow() *cobra.Command {
	var version uint64
	c := &cobra.Command{Use: "show", Short: "Print the cluster file in force",
		Long: "Print the cluster file in force, or an older version, as it was written.", Example: "  tasuki config show\n  tasuki config show --version 3", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := p.client().Config(cmd.Context(), version)
			if err == nil {
				fmt.Fprint(p.out, t.Text)
			}
			return err
		}}
	c.Flags().Uint64Var(&version, "version", 0, "an older version instead")
	return c
}

func (p *program) configHistory() *cobra.Command {
	return p.jsonFlag(&cobra.Command{Use: "history", Short: "Show the versions of the cluster file that are kept",
		Long: "Show the versions of the cluster file that are kept, the oldest first: when, by whom,\nand the note.", Example: "  tasuki config history", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			vs, err := p.client().History(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(vs)
			}
			for _, v := range vs {
				fmt.Fprintf(p.out, "%4d  %s  %s  %s\n", v.Version, v.Time.Local().Format("2006/01/02 15:04:05"), v.Author, v.Note)
			}
			return nil
		}})
}

// showPlan prints what a change would do and returns why it is refused, if it
// is.
func (p *program) showPlan(cmd *cobra.Command, text string) (api.ConfigPlan, error) {
	plan, err := p.client().PlanConfig(cmd.Context(), api.ConfigChange{Text: text})
	if err != nil {
		return plan, err
	}
	if len(plan.Changes) == 0 {
		fmt.Fprintln(p.out, "nothing changes")
	}
	for _, c := range plan.Changes {
		fmt.Fprintln(p.out, c)
	}
	for _, w := range plan.Warnings {
		fmt.Fprintf(p.out, "warning: %s\n", w)
	}
	if plan.Refused != nil {
		return plan, plan.Refused
	}
	return plan, nil
}

func (p *program) configDiff() *cobra.Command {
	return &cobra.Command{Use: "diff FILE", Short: "Show what a cluster file would change, and what that would do", Args: args(1, 1, "a file"),
		Long: "Compare a cluster file with the one in force and show what each change disturbs.\nIt fails if the file could not be applied now. Nothing is changed.", Example: "  tasuki config diff vmcluster.yaml",
		RunE: func(cmd *cobra.Command, a []string) error {
			_, text, err := p.clusterFile(a[0])
			if err != nil {
				return err
			}
			_, err = p.showPlan(cmd, text)
			return err
		}}
}

func (p *program) configApply() *cobra.Command {
	var yes bool
	var note string
	c := &cobra.Command{Use: "apply FILE", Short: "Put a cluster file in force on all nodes, or on none", Args: args(1, 1, "a file"),
		Long: `Show what a cluster file changes, ask, and put it in force on all nodes or on none.
Without a terminal to ask at it is refused unless --yes is given. A file that was
changed by someone else meanwhile is refused too.`,
		Example: `  tasuki config apply vmcluster.yaml
  tasuki config apply vmcluster.yaml --yes --note "second network"`,
		RunE: func(cmd *cobra.Command, a []string) error {
			_, text, err := p.clusterFile(a[0])
			if err != nil {
				return err
			}
			if note == "" {
				note = filepath.Base(a[0])
			}
			return p.apply(cmd, text, note, yes)
		}}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().StringVar(&note, "note", "", "kept in the history")
	return c
}

func (p *program) apply(cmd *cobra.Command, text, note string, yes bool) error {
	plan, err := p.showPlan(cmd, text)
	if err != nil || len(plan.Changes) == 0 {
		return err
	}
	if !yes {
		if err := p.confirm(cmd.Context()); err != nil {
			return err
		}
	}
	b, err := p.client().ApplyConfig(cmd.Context(), api.ConfigChange{Text: text, Base: plan.Base, Note: note})
	if err == nil {
		fmt.Fprintln(p.out, b.Text)
	}
	return err
}

// confirm asks whoever sits at the terminal; without a terminal nobody does.
func (p *program) confirm(ctx context.Context) error {
	if !isTerminal(p.in) {
		return &api.Error{Code: "not-confirmed", Message: "nothing was applied: there is no terminal to ask at", Hint: "if that is what you want: --yes"}
	}
	fmt.Fprint(p.out, "apply? [y/N] ")
	answer := make(chan string, 1)
	go func() { // ends with the program: a terminal cannot be read for a time only
		line, _ := bufio.NewReader(p.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	said := ""
	select {
	case said = <-answer:
	case <-ctx.Done():
		fmt.Fprintln(p.out)
	}
	if said != "y" && said != "yes" {
		return &api.Error{Code: "not-confirmed", Message: "nothing was applied", Hint: "answer y, or use --yes"}
	}
	return nil
}

func (p *program) configRollback() *cobra.Command {
	var yes bool
	c := &cobra.Command{Use: "rollback VERSION", Short: "Put an older version of the cluster file in force again", Args: args(1, 1, "a version; see tasuki config history"),
		Long: "Put an older version of the cluster file in force again, as a new version. It shows\nwhat that changes and asks, as tasuki config apply does.", Example: "  tasuki config rollback 3",
		RunE: func(cmd *cobra.Command, a []string) error {
			var version uint64
			if _, err := fmt.Sscan(a[0], &version); err != nil || version == 0 {
				return usageError{fmt.Errorf("%q is no version", a[0])}
			}
			t, err := p.client().Config(cmd.Context(), version)
			if err != nil {
				return err
			}
			return p.apply(cmd, t.Text, fmt.Sprintf("back to version %d", version), yes)
		}}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

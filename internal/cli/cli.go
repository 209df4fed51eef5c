// Package cli is the command line: text for people, JSON for scripts. Each
// command is one call of the API; none has a private door.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/client"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/paths"
)

// Hooks are what the command line cannot do by the API.
type Hooks struct {
	Version string
	Daemon  func(ctx context.Context, d paths.Dirs) error
	Init    func(d paths.Dirs, file string, node cluster.NodeName) (*config.File, error)
	Join    func(ctx context.Context, d paths.Dirs, token string, node cluster.NodeName) (*config.File, error)
	// Witness serves all clusters that this machine is the witness of.
	Witness     func(ctx context.Context, d paths.Dirs) error
	JoinWitness func(ctx context.Context, d paths.Dirs, token string, node cluster.NodeName) (*config.File, error)
	LinkNames   func(dir string, remove bool) ([]string, error)
	Lab         []*cobra.Command
}

// program is one run of the command line.
type program struct {
	hooks    Hooks
	dirs     paths.Dirs
	in       io.Reader
	out, err io.Writer
	socket   string
	asJSON   bool
	color    bool // out is not the terminal itself, but what is written there comes to one
}

// Main runs one command line and returns its exit code.
func Main(ctx context.Context, args []string, in io.Reader, out, errw io.Writer, h Hooks) int {
	p := &program{hooks: h, dirs: paths.At(os.Getenv("TASUKI_ROOT")), in: in, out: out, err: errw}
	root := p.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	return p.code(root.ExecuteContextC(ctx))
}

const about = `Tasuki keeps a service running when a process, a NIC, a guest or a machine
fails. One daemon runs on every node; these commands talk to the local one, and
every node answers for the whole cluster.`

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use: "tasuki", Short: "Keep services running when a process, a NIC, a guest or a machine fails", Version: p.hooks.Version,
		Long: about + "\n\n" + exitText,
		Example: `  tasuki status
  tasuki group move failover
  tasuki explain`,
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, a []string) error {
			if len(a) == 0 {
				return cmd.Help()
			}
			return noVerb(cmd, a)
		},
	}
	root.SetVersionTemplate("tasuki {{.Version}}\n")
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	// The default in the texts is the same wherever they are made.
	root.PersistentFlags().StringVar(&p.socket, "socket", paths.At("").Socket(), "the door of the local daemon; TASUKI_SOCKET sets it too")
	p.socket = cmp.Or(os.Getenv("TASUKI_SOCKET"), p.dirs.Socket())
	root.AddCommand(p.status(), p.group(), p.node(), p.maintenance(), p.monitor(), p.mirror(), p.fence(), p.guest(), p.request(), p.event(), p.explain(), p.simulate(), p.drill(), p.config(),
		p.init(), p.join(), p.user(), p.token(), p.api(), p.link(), p.log(), p.linkNames(), p.daemon(), p.witness(), p.man(), p.errand(), p.drafting())
	root.AddCommand(p.hooks.Lab...)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.Run, c.RunE = nil, help
		}
		if c.HasSubCommands() && !c.Runnable() {
			c.Args, c.RunE = cobra.ArbitraryArgs, noVerb
		}
	}
	return root
}

// help shows the help of the command that is named.
func help(cmd *cobra.Command, a []string) error {
	c, rest, err := cmd.Root().Find(a)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return noVerb(c, rest)
	}
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	return c.Help()
}

func (p *program) client() *client.Client { return client.Unix(p.socket) }

// args checks the number of arguments and names what is missing.
func args(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if len(a) < least || len(a) > most {
			verb := "needs"
			if most == 0 {
				verb = "takes"
			}
			return usageError{fmt.Errorf("%s %s %s", cmd.CommandPath(), verb, what)}
		}
		return nil
	}
}

func (p *program) json(v any) error {
	enc := json.NewEncoder(p.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (p *program) jsonFlag(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&p.asJSON, "json", false, "print JSON")
	return c
}

func (p *program) daemon() *cobra.Command {
	return &cobra.Command{Use: "daemon", Short: "Run the daemon of this node in the foreground", Args: args(0, 0, "no arguments"),
		Long: "Run the daemon of this node in the foreground, until SIGTERM: then its groups\nmove away first. Normally systemd starts it.", Example: "  systemctl start tasuki\n  tasuki daemon",
		RunE: func(cmd *cobra.Command, _ []string) error { return p.hooks.Daemon(cmd.Context(), p.dirs) }}
}

func (p *program) log() *cobra.Command {
	var level string
	c := &cobra.Command{Use: "log TEXT", Short: "Write a line of the operator's log",
		Long: `Write a line of the operator's log, for scripts. A script that Tasuki runs finds
the event that led to it in TASUKI_CAUSE, and the line names it as its cause.`,
		Example: `  tasuki log -l warn "backup is late"`, Args: args(1, 1, "one text"),
		RunE: func(cmd *cobra.Command, a []string) error {
			_, err := p.client().Log(cmd.Context(), api.LogLine{Text: a[0], Level: cluster.Level(level), Cause: cause()})
			return err
		}}
	c.Flags().StringVarP(&level, "level", "l", string(cluster.LevelInfo), "info, warn or error")
	_ = c.RegisterFlagCompletionFunc("level", cobra.FixedCompletions([]string{"info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (p *program) linkNames() *cobra.Command {
	var remove bool
	c := &cobra.Command{Use: "link-names DIR...", Short: "Install clptrnreq, clpgrp, clpstat and the like in directories", Args: args(1, 16, "one to 16 directories"),
		Long: `Install clptrnreq, clprexec, clplogcmd, clpgrp, clpstat, clpmdstat and clpmdctrl in
directories, as links to this program, so that scripts find them where they expect
them. Something else of such a name is left alone and ends the command.`,
		Example: "  tasuki link-names /usr/sbin /opt/nec/clusterpro/bin",
		RunE: func(_ *cobra.Command, a []string) error {
			for _, dir := range a {
				paths, err := p.hooks.LinkNames(dir, remove)
				for _, path := range paths {
					fmt.Fprintln(p.out, path)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}}
	c.Flags().BoolVar(&remove, "remove", false, "remove them instead")
	return c
}

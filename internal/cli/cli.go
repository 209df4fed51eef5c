// Package cli is the command line: text for people, JSON for scripts. Each
// command is one call of the API; none has a private door.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/client"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/paths"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1 // failed, or refused
	ExitUsage       = 2
	ExitUnreachable = 3 // no daemon answers
	ExitTimedOut    = 4
)

const exitText = `Every command ends with one of these codes:

  0  done
  1  it failed, or was refused; the reason and a hint are on standard error
  2  the command line cannot be understood
  3  no daemon answers
  4  it was not done in time; it may still be under way`

// Hooks are what the command line cannot do by the API.
type Hooks struct {
	Version   string
	Daemon    func(ctx context.Context, d paths.Dirs) error
	Init      func(d paths.Dirs, file string, node cluster.NodeName) (*config.File, error)
	Join      func(ctx context.Context, d paths.Dirs, token string, node cluster.NodeName) (*config.File, error)
	LinkNames func(dir string, remove bool) ([]string, error)
	Lab       []*cobra.Command
}

// program is one run of the command line.
type program struct {
	hooks    Hooks
	dirs     paths.Dirs
	in       io.Reader
	out, err io.Writer
	socket   string
	asJSON   bool
}

// usageError is a command line that cannot be understood.
type usageError struct{ error }

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

// code prints what went wrong with a command and returns the exit code for it.
func (p *program) code(cmd *cobra.Command, err error) int {
	var exit interface{ ExitCode() int }
	var use usageError
	var e *api.Error
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &exit):
		return exit.ExitCode()
	case errors.As(err, &e):
		fmt.Fprintf(p.err, "error: %s\n", e.Message)
		if e.Hint != "" {
			fmt.Fprintf(p.err, "hint: %s\n", e.Hint)
		}
		switch e.Code {
		case "usage":
			return ExitUsage
		case client.CodeUnreachable:
			return ExitUnreachable
		case "timed-out":
			return ExitTimedOut
		}
		return ExitFailed
	case errors.As(err, &use), strings.HasPrefix(err.Error(), "unknown command"):
		hint := "usage: " + cmd.UseLine()
		if cmd.HasSubCommands() {
			hint = cmd.CommandPath() + " --help shows the commands"
		}
		fmt.Fprintf(p.err, "error: %v\nhint: %s\n", err, hint)
		return ExitUsage
	}
	fmt.Fprintf(p.err, "error: %v\n", err)
	return ExitFailed
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use: "tasuki", Short: "Keep services running when a process, a NIC, a guest or a machine fails", Version: p.hooks.Version,
		Long: `Tasuki keeps a service running when a process, a NIC, a guest or a machine
fails. One daemon runs on every node; these commands talk to the local one, and
every node answers for the whole cluster.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetVersionTemplate("tasuki {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVar(&p.socket, "socket", p.dirs.Socket(), "the door of the local daemon; TASUKI_SOCKET sets it too")
	if socket := os.Getenv("TASUKI_SOCKET"); socket != "" {
		p.socket = socket
	}
	root.AddCommand(p.status(), p.group(), p.node(), p.monitor(), p.request(), p.event(), p.explain(), p.config(),
		p.init(), p.join(), p.token(), p.link(), p.log(), p.linkNames(), p.daemon(), p.man())
	root.AddCommand(p.hooks.Lab...)
	root.AddCommand(&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitText})
	for _, c := range root.Commands() {
		if c.HasSubCommands() && !c.Runnable() {
			c.Args, c.RunE = cobra.ArbitraryArgs, noVerb
		}
	}
	return root
}

// noVerb is what a command of commands does by itself.
func noVerb(cmd *cobra.Command, a []string) error {
	if len(a) > 0 {
		return usageError{fmt.Errorf("%s has no command %q", cmd.CommandPath(), a[0])}
	}
	return usageError{fmt.Errorf("%s needs a command", cmd.CommandPath())}
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
		Long: "Run the daemon of this node in the foreground, until SIGTERM: then its groups\nmove away first. Normally systemd starts it.",
		RunE: func(cmd *cobra.Command, _ []string) error { return p.hooks.Daemon(cmd.Context(), p.dirs) }}
}

// thisNode returns the name that was given, or that of this machine.
func thisNode(name string) (cluster.NodeName, error) {
	if name != "" {
		return cluster.NodeName(name), nil
	}
	h, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find the name of this machine: %w", err)
	}
	return cluster.NodeName(h), nil
}

func (p *program) init() *cobra.Command {
	var node string
	c := &cobra.Command{Use: "init FILE", Short: "Make a new cluster; this machine is its first node", Args: args(1, 1, "the cluster file"),
		Long: "Make a new cluster from a cluster file: its certificate authority, this node's\ncertificate, and the replicated state. The other nodes join with tokens.",
		RunE: func(_ *cobra.Command, a []string) error {
			n, err := thisNode(node)
			if err != nil {
				return err
			}
			f, err := p.hooks.Init(p.dirs, a[0], n)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.out, "cluster %s is made; %s is its first node\n", f.Cluster, n)
			for _, w := range f.Warnings() {
				fmt.Fprintf(p.out, "warning: %s\n", w)
			}
			fmt.Fprintln(p.out, "next: systemctl enable --now tasuki")
			for _, other := range f.Nodes {
				if other.Name != n {
					fmt.Fprintf(p.out, "next: tasuki token join --node %s\n", other.Name)
				}
			}
			return nil
		}}
	c.Flags().StringVar(&node, "node", "", "which node of the file this machine is (default: its host name)")
	return c
}

func (p *program) join() *cobra.Command {
	var node string
	c := &cobra.Command{Use: "join TOKEN", Short: "Make this machine a node of a cluster",
		Long: `Make this machine a node: it gets its certificate, and the cluster's state when
its daemon starts. The token names the nodes to ask and how to know them.`, Args: args(1, 1, "a token; tasuki token join makes one"),
		RunE: func(cmd *cobra.Command, a []string) error {
			n, err := thisNode(node)
			if err != nil {
				return err
			}
			f, err := p.hooks.Join(cmd.Context(), p.dirs, a[0], n)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.out, "%s is a node of cluster %s\nnext: systemctl enable --now tasuki\n", n, f.Cluster)
			return nil
		}}
	c.Flags().StringVar(&node, "node", "", "which node of the cluster this machine is (default: its host name)")
	return c
}

func (p *program) token() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Make one-time tokens",
		Long: `A token lets one machine join as one node, once, for a limited time. Hand it over
as you would a password.`}
	var node string
	var ttl time.Duration
	join := &cobra.Command{Use: "join --node NAME", Short: "Make a token with which a machine joins as that node", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if node == "" {
				return usageError{errors.New("which node is it for? --node NAME")}
			}
			t, err := p.client().NewToken(cmd.Context(), api.TokenRequest{Purpose: "join", Subject: node, TTL: ttl})
			if err != nil {
				return err
			}
			fmt.Fprintln(p.out, t.Token)
			return nil
		}}
	join.Flags().StringVar(&node, "node", "", "the node that it is for")
	join.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is valid")
	c.AddCommand(join)
	return c
}

func (p *program) link() *cobra.Command {
	c := &cobra.Command{Use: "link", Short: "Let clusters ask each other",
		Long: `A link lets another cluster ask this one for named things: it is known by its key,
and what is not named is refused. Each side keeps the other's certificate
authority and the addresses of all its nodes.`,
		Example: `  tasuki link invite bay7-esx --verbs GRP_FAILOVER,EXEC_SCRIPT --groups failover
  tasuki link add TOKEN        # on the cluster that will ask
  tasuki link remove bay7-esx`}
	var verbs, groups, scripts []string
	var ttl time.Duration
	invite := &cobra.Command{Use: "invite CLUSTER", Short: "Make a token with which that cluster may ask this one", Args: args(1, 1, "the name of the cluster that may ask"),
		RunE: func(cmd *cobra.Command, a []string) error {
			r := api.TokenRequest{Purpose: "link", Subject: a[0], Scripts: scripts, TTL: ttl}
			for _, v := range verbs {
				r.Verbs = append(r.Verbs, cluster.Verb(v))
			}
			for _, g := range groups {
				r.Groups = append(r.Groups, cluster.GroupName(g))
			}
			t, err := p.client().NewToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			fmt.Fprintln(p.out, t.Token)
			return nil
		}}
	invite.Flags().StringSliceVar(&verbs, "verbs", []string{string(cluster.VerbGroupFailover)}, "what it may ask for")
	invite.Flags().StringSliceVar(&groups, "groups", nil, "for which groups (default: all)")
	invite.Flags().StringSliceVar(&scripts, "scripts", nil, "which scripts of the request directory (default: all)")
	invite.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long the token is valid")
	add := &cobra.Command{Use: "add TOKEN", Short: "Redeem such a token: this cluster may then ask", Args: args(1, 1, "a token; tasuki link invite makes one"),
		RunE: func(cmd *cobra.Command, a []string) error {
			b, err := p.client().AddLink(cmd.Context(), api.LinkToken{Token: a[0]})
			if err == nil {
				fmt.Fprintln(p.out, b.Text)
			}
			return err
		}}
	remove := &cobra.Command{Use: "remove CLUSTER", Short: "End a link", Args: args(1, 1, "the name of the other cluster"),
		RunE: func(cmd *cobra.Command, a []string) error {
			return p.client().RemoveLink(cmd.Context(), cluster.LinkName(a[0]))
		}}
	list := &cobra.Command{Use: "list", Short: "Show the links", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.client().Status(cmd.Context())
			if err == nil {
				p.printLinks(&s)
			}
			return err
		}}
	c.AddCommand(invite, add, list, remove)
	return c
}

func (p *program) log() *cobra.Command {
	var level string
	c := &cobra.Command{Use: "log TEXT", Short: "Write a line of the operator's log",
		Long: `Write a line of the operator's log, for scripts. A script that Tasuki runs finds
the event that led to it in TASUKI_CAUSE, and the line names it as its cause.`,
		Example: `  tasuki log -l warn "backup is late"`, Args: args(1, 1, "one text"),
		RunE: func(cmd *cobra.Command, a []string) error {
			_, err := p.client().Log(cmd.Context(), api.LogLine{Text: a[0], Level: cluster.Level(level), Cause: cluster.EventID(os.Getenv("TASUKI_CAUSE"))})
			return err
		}}
	c.Flags().StringVarP(&level, "level", "l", string(cluster.LevelInfo), "info, warn or error")
	return c
}

func (p *program) linkNames() *cobra.Command {
	var remove bool
	c := &cobra.Command{Use: "link-names DIR...", Short: "Install clptrnreq, clprexec, clplogcmd, clpgrp and clpstat in directories", Args: args(1, 16, "at least one directory"),
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

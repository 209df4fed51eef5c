// Package labcli is the command `tasuki lab`.
package labcli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/lab"
)

// Exit is a command that ran in a machine and ended with a code other than 0,
// which is to be this program's code too. It has no message.
type Exit struct{ Code int }

func (e *Exit) Error() string { return fmt.Sprintf("the command ended with code %d", e.Code) }

// ExitCode returns the code.
func (e *Exit) ExitCode() int { return e.Code }

// commands is what all subcommands share.
type commands struct{ name string }

// Command returns `tasuki lab` with its subcommands. The hidden ones are
// handled before any flag is read, by lab.Hidden.
func Command() *cobra.Command {
	c := &commands{}
	top := &cobra.Command{
		Use:   "lab",
		Short: "Run a whole installation on this machine, in namespaces",
		Long: `A lab is hosts, guests, switches and a client on this machine, each machine
with its own network, processes, file system and daemon. Cables can be pulled,
networks cut, machines killed, paused and booted. Nothing of it is left after
"tasuki lab down".`,
		Example: `  tasuki lab up
  tasuki lab pull bay7-esx vmnic1
  tasuki lab exec CLP-1 -- ip address
  tasuki lab down`,
		SilenceUsage: true, SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Sprintf("lab does not know %q", args[0]), "see tasuki lab --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	top.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		hint := "see tasuki lab " + cmd.Name() + " --help"
		if cmd.Name() == "exec" {
			hint = "put -- before the command: tasuki lab exec MACHINE -- COMMAND"
		}
		return usage(err.Error(), hint)
	})
	top.PersistentFlags().StringVar(&c.name, "name", "", "the lab; default: the one that is up")
	top.AddCommand(demoCommand(), c.up(), c.down(), c.status(), c.exec(), c.service(), c.cut(), c.heal(),
		c.machine("kill", "Take the power from a machine; the guests of a host go with it", (*lab.Lab).Kill),
		c.machine("boot", "Start a machine that is off", (*lab.Lab).Boot),
		c.machine("pause", "Stop every process of a machine where it is", (*lab.Lab).Pause),
		c.machine("resume", "Let a paused machine go on", (*lab.Lab).Resume),
		c.nic("pull", "Pull the cable of a NIC: it loses its carrier", (*lab.Lab).Pull),
		c.nic("plug", "Plug the cable of a NIC in again", (*lab.Lab).Plug))
	return top
}

func (c *commands) up() *cobra.Command {
	return &cobra.Command{
		Use:   "up [LAYOUT]",
		Short: "Start a lab and wait until it is up",
		Long: "LAYOUT is a file (./my.yaml) or one that comes with tasuki: " + strings.Join(lab.ShippedNames(), ", ") +
			". The default is reference.",
		Args:      atMost(1, "tasuki lab up [LAYOUT] [--name NAME]"),
		ValidArgs: lab.ShippedNames(),
		RunE: func(cmd *cobra.Command, args []string) error {
			begun := time.Now()
			layout, err := lab.Load(strings.Join(args, ""))
			if err != nil {
				return err
			}
			l, err := lab.Start(cmd.Context(), lab.Options{Layout: layout, Name: c.name})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "lab %s is up: %d machines in %d ms\n", l.Name(), len(layout.All()), time.Since(begun).Milliseconds())
			return nil
		},
	}
}

func (c *commands) down() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove a lab, in whatever state it is",
		Args:  atMost(0, "tasuki lab down [--name NAME | --all]"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				return lab.DownAll(cmd.Context())
			}
			names := lab.Names()
			if c.name == "" && len(names) > 1 {
				return &api.Error{
					Code: "which-lab", Message: "there is more than one lab: " + strings.Join(names, ", "),
					Hint: "name one with --name, or take --all",
				}
			}
			if c.name == "" && len(names) == 0 {
				return &api.Error{Code: "no-lab", Message: "no lab is up", Hint: "start one with tasuki lab up"}
			}
			return lab.Down(cmd.Context(), cmp.Or(c.name, strings.Join(names, "")))
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove every lab")
	return cmd
}

func (c *commands) machine(verb, short string, do operation) *cobra.Command {
	return &cobra.Command{
		Use: verb + " MACHINE", Short: short,
		Args:              exactly(1, "tasuki lab "+verb+" MACHINE"),
		ValidArgsFunction: c.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(cmd.Context(), c.name)
			if err != nil {
				return err
			}
			return do(l, cmd.Context(), args[0])
		},
	}
}

func (c *commands) nic(verb, short string, do nicOperation) *cobra.Command {
	return &cobra.Command{
		Use: verb + " MACHINE NIC", Short: short,
		Args:              exactly(2, "tasuki lab "+verb+" MACHINE NIC"),
		ValidArgsFunction: c.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(cmd.Context(), c.name)
			if err != nil {
				return err
			}
			return do(l, cmd.Context(), args[0], args[1])
		},
	}
}

func (c *commands) cut() *cobra.Command {
	var network string
	var oneWay bool
	cmd := &cobra.Command{
		Use:   "cut A B",
		Short: "Lose everything that two machines send each other",
		Args:  exactly(2, "tasuki lab cut A B [--network CIDR] [--one-way]"), ValidArgsFunction: c.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			var options []lab.CutOption
			if network != "" {
				p, err := netip.ParsePrefix(network)
				if err != nil {
					return &api.Error{Code: "bad-network", Message: fmt.Sprintf("%q is no network", network), Hint: "for example --network 10.2.102.0/24"}
				}
				options = append(options, lab.On(p.Masked()))
			}
			if oneWay {
				options = append(options, lab.OneWay())
			}
			l, err := lab.Open(cmd.Context(), c.name)
			if err != nil {
				return err
			}
			return l.Cut(cmd.Context(), args[0], args[1], options...)
		},
	}
	cmd.Flags().StringVar(&network, "network", "", "only on this network")
	cmd.Flags().BoolVar(&oneWay, "one-way", false, "only what A sends to B")
	return cmd
}

func (c *commands) heal() *cobra.Command {
	return &cobra.Command{
		Use:   "heal [A B]",
		Short: "End the cuts between two machines, or all cuts",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return usage("heal takes two machines, or none", "tasuki lab heal [A B]")
			}
			return nil
		},
		ValidArgsFunction: c.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(cmd.Context(), c.name)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return l.HealAll(cmd.Context())
			}
			return l.Heal(cmd.Context(), args[0], args[1])
		},
	}
}

func (c *commands) service() *cobra.Command {
	return &cobra.Command{
		Use:   "service MACHINE start|stop|restart|status",
		Short: "Start or stop the daemon of a machine",
		Args:  exactly(2, "tasuki lab service MACHINE start|stop|restart|status"), ValidArgsFunction: c.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(cmd.Context(), c.name)
			if err != nil {
				return err
			}
			st, err := l.Service(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), st.Why)
			return nil
		},
	}
}

func (c *commands) exec() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "exec MACHINE -- COMMAND [ARGUMENT...]",
		Short: "Run a command in a machine; its exit code is this command's",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage("exec needs a machine and a command", "tasuki lab exec MACHINE -- COMMAND")
			}
			return nil
		},
		ValidArgsFunction: c.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(cmd.Context(), c.name)
			if err != nil {
				return err
			}
			return run(cmd, l, timeout, lab.Cmd{Machine: args[0], Argv: args[1:], Stdin: cmd.InOrStdin(), Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr()})
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "kill the command after this time; exit code 124")
	return cmd
}

// run runs the command with the caller's input and output and hands on the
// caller's signals.
func run(cmd *cobra.Command, l *lab.Lab, timeout time.Duration, c lab.Cmd) error {
	var cannot *lab.ExitError
	p, err := l.Run(cmd.Context(), c)
	if errors.As(err, &cannot) {
		fmt.Fprintln(cmd.ErrOrStderr(), "error: "+cannot.Message)
		return &Exit{cannot.Code}
	}
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	var late <-chan time.Time
	if timeout > 0 {
		late = time.After(timeout)
	}
	type end struct {
		code int
		err  error
	}
	ended, killed := make(chan end, 1), false
	go func() {
		code, err := p.Wait()
		ended <- end{code, err}
	}()
	for {
		select {
		case s := <-signals:
			if n, ok := s.(syscall.Signal); ok {
				p.Signal(n)
			}
		case <-late:
			killed = true
			p.Kill()
		case e := <-ended:
			switch {
			case killed:
				return &Exit{124}
			case e.err != nil:
				return e.err
			case e.code != 0:
				return &Exit{e.code}
			}
			return nil
		}
	}
}

func (c *commands) status() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the machines, cables and cuts of a lab",
		Args:  atMost(0, "tasuki lab status [--json]"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Open(cmd.Context(), c.name)
			if err != nil {
				return err
			}
			st, err := l.Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), st)
			}
			return show(cmd.Context(), cmd.OutOrStdout(), l, st)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// complete completes names of machines, then of NICs.
func (c *commands) complete(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	l, err := lab.Open(cmd.Context(), c.name)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	st, err := l.Status(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, m := range st.Machines {
		if len(args) == 0 || cmd.Name() == "cut" || cmd.Name() == "heal" {
			out = append(out, m.Name)
		}
		if len(args) == 1 && args[0] == m.Name && (cmd.Name() == "pull" || cmd.Name() == "plug") {
			for _, n := range m.NICs {
				out = append(out, n.Name)
			}
		}
	}
	if cmd.Name() == "service" && len(args) == 1 {
		out = []string{"start", "stop", "restart", "status"}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func usage(message, form string) error {
	return &api.Error{Code: "usage", Message: message, Hint: form}
}

func exactly(n int, form string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(fmt.Sprintf("lab %s takes %d arguments, not %d", cmd.Name(), n, len(args)), form)
		}
		return nil
	}
}

func atMost(n int, form string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usage(fmt.Sprintf("lab %s takes at most %d arguments, not %d", cmd.Name(), n, len(args)), form)
		}
		return nil
	}
}

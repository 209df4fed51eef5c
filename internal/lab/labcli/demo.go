package labcli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/lab"
	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// demoOptions is what `tasuki lab demo` was asked for.
type demoOptions struct {
	keep, json bool
	runs       int
	nic, start string
}

func demoCommand() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use: "demo", Short: "Run the reference scenario: pull a cable, watch the group move",
		Long: `Run the reference scenario in a lab: two hosts with a guest each, a cluster of
the guests, an agent on the host under the group. The cable of a NIC of that host is
pulled; its agent asks the guests' cluster, which moves the group. A client asks
the service all the time. The table shows each line of the log of 2010 beside
ours, and where the client's outage went.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			say := func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), "...", text) }
			return playDemo(cmd.Context(), o, cmd.OutOrStdout(), say)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.keep, "keep", false, "leave the lab running, and say how to look inside")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.IntVar(&o.runs, "runs", 1, "how often; the cable is plugged in and the group moved back in between")
	f.StringVar(&o.nic, "nic", "vmnic1", "the NIC of the host whose cable is pulled")
	f.StringVar(&o.start, "start", "CLP-1", "where the group is when the cable is pulled; the host is the one under it")
	return c
}

func playDemo(ctx context.Context, o demoOptions, out io.Writer, say func(string)) (err error) {
	layout, err := lab.Shipped("reference")
	if err != nil {
		return err
	}
	say("start a lab: 2 hosts, 2 guests, 1 client")
	l, err := lab.Start(ctx, lab.Options{Layout: layout, Attached: !o.keep})
	if err != nil {
		return err
	}
	defer l.Close()
	if !o.keep {
		defer func() {
			if down := l.Down(context.WithoutCancel(ctx)); err == nil {
				err = down
			}
		}()
	}
	s := demo.Reference(l, o.start)
	if err := s.Build(ctx, say); err != nil {
		return err
	}
	var reports []*demo.Report
	for i := range max(o.runs, 1) {
		if i > 0 {
			if err := s.Reset(ctx, o.nic); err != nil {
				return err
			}
		}
		say(fmt.Sprintf("pull the cable of %s (run %d of %d)", o.nic, i+1, max(o.runs, 1)))
		r, err := s.Play(ctx, demo.Run{NIC: o.nic, Start: o.start})
		if err != nil {
			return err
		}
		reports = append(reports, r)
	}
	sum, err := demo.Summarize(reports)
	if err != nil {
		return err
	}
	if o.json {
		return errors.Join(writeJSON(out, sum), lost(sum))
	}
	if err := sum.Write(out); err != nil {
		return err
	}
	if sum.Runs > 1 {
		fmt.Fprintf(out, "\n%d runs: median outage %.0f ms, own part %.0f ms\n", sum.Runs, sum.MedianOutage, sum.MedianOwnMS)
	}
	if o.keep {
		fmt.Fprintf(out, "\nThe lab %q goes on. Look inside:\n", l.Name())
		for _, line := range []string{"status", "exec CLP-2 -- tasuki status", "exec CLP-2 -- tasuki explain", "exec " + s.Host + " -- tasuki event", "plug " + s.Host + " " + o.nic, "exec CLP-2 -- tasuki group move failover", "down"} {
			fmt.Fprintf(out, "  bin/tasuki lab %s\n", line)
		}
	}
	return lost(sum)
}

// lost is the error that a write that was acknowledged is not there any more.
func lost(sum *demo.Summary) error {
	if sum.Writes == nil || sum.Writes.Lost == 0 {
		return nil
	}
	return &api.Error{
		Code: "writes-lost", Message: fmt.Sprintf("%d of %d acknowledged writes are lost", sum.Writes.Lost, sum.Writes.Acknowledged),
		Hint: "run it with --keep, and read /data/journal of both guests",
	}
}

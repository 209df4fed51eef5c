package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func (p *program) guest() *cobra.Command {
	c := &cobra.Command{Use: "guest", Short: "See and switch the power of the guests of this host",
		Long: `On a host under guests: the guests of its cluster file, and whether they have
power. Their own cluster can ask for the same through a link that allows it; see
tasuki link invite. A guest is off only if that is proven; what is not known is
shown as an error.`,
		Example: `  tasuki guest list
  tasuki guest off CLP-1`}
	c.AddCommand(p.jsonFlag(&cobra.Command{Use: "list", Short: "Show the guests and their power",
		Long: "Show the guests of the cluster file, who has their power switch, and whether they\nhave power now.", Example: "  tasuki guest list", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := p.client().Guests(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(list)
			}
			if len(list) == 0 {
				fmt.Fprintln(p.out, "the cluster file has no guests")
			}
			w := 16
			for _, g := range list {
				w = max(w, len(g.Name))
			}
			for _, g := range list {
				p.printGuest(g, w)
			}
			return nil
		}}))
	for _, v := range []struct {
		verbOf
		action cluster.PowerAction
	}{
		{verbOf{"status", "Show whether a guest has power", "Ask who has the guest's power switch whether the guest has power now. A guest that\nis paused has. What cannot be told is an error, and the exit code is 1.", "  tasuki guest status CLP-1"}, cluster.PowerStatus},
		{verbOf{"off", "Take the power from a guest", "Take the power from a guest, without letting it stop anything, and wait until that\nis confirmed.", "  tasuki guest off CLP-1"}, cluster.PowerOff},
		{verbOf{"on", "Give power to a guest", "Start a guest that is off, and wait until that is confirmed. A guest that is known\nby its QMP socket only cannot be started in this way.", "  tasuki guest on CLP-1"}, cluster.PowerOn},
	} {
		c.AddCommand(&cobra.Command{Use: v.verb + " NAME", Short: v.short, Long: v.long, Example: v.example, Args: args(1, 1, "a guest; tasuki guest list shows them"),
			ValidArgsFunction: p.completeGuests,
			RunE: func(cmd *cobra.Command, a []string) error {
				g, err := p.client().Guest(cmd.Context(), cluster.GuestName(a[0]), v.action, api.GuestOp{Cause: cause()})
				if err == nil {
					fmt.Fprintf(p.out, "guest %s is %s\n", g.Name, g.Power)
				}
				return err
			}})
	}
	return c
}

func (p *program) printGuest(g api.Guest, w int) {
	if g.Error != nil {
		fmt.Fprintf(p.out, "  %-*s %s  %s: %s\n", w, g.Name, p.paint(false, "unknown"), g.By, g.Error.Message)
		return
	}
	fmt.Fprintf(p.out, "  %-*s %s  %s\n", w, g.Name, p.paint(g.Power == cluster.On, fmt.Sprintf("%-7s", g.Power)), g.By)
}

// completeGuests returns the names of the guests; it gives up soon.
func (p *program) completeGuests(cmd *cobra.Command, a []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	if len(a) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := completing(cmd.Context())
	defer cancel()
	list, _ := p.client().Guests(ctx)
	for _, g := range list {
		out = append(out, string(g.Name))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

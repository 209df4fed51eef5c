package labcli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab"
)

type (
	operation    = func(*lab.Lab, context.Context, string) error
	nicOperation = func(*lab.Lab, context.Context, string, string) error
)

// daemonWithin bounds how long status waits for one machine's init.
const daemonWithin = 500 * time.Millisecond

// show writes the lab for people: one line per NIC, guests below their host,
// what is not normal in capitals.
func show(ctx context.Context, w io.Writer, l *lab.Lab, st *lab.Status) error {
	fmt.Fprintf(w, "lab %s (layout %s), up for %s\n\n", st.Name, st.Layout, time.Since(st.Since).Round(time.Second))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MACHINE\tSTATE\tDAEMON\tNIC\tCABLE\tTO\tADDRESS")
	for _, m := range ordered(st.Machines) {
		name, state, daemon := m.Name, string(m.State), daemonOf(ctx, l, m)
		if m.Host != "" {
			name = "  " + name
		}
		if m.State != lab.Up {
			state = strings.ToUpper(state) + " (" + m.Why + ")"
		}
		for _, n := range m.NICs {
			cable := "in"
			if !n.Plugged {
				cable = "PULLED"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, state, daemon, n.Name, cable, n.To, strings.Join(n.Addresses, " "))
			name, state, daemon = "", "", ""
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(st.Cuts) > 0 {
		fmt.Fprintln(w)
	}
	for _, c := range st.Cuts {
		arrow, where := "<-/->", "on every network"
		if c.OneWay {
			arrow = "-/->"
		}
		if c.Network.IsValid() {
			where = "on " + c.Network.String()
		}
		fmt.Fprintf(w, "CUT %s %s %s %s\n", c.A, arrow, c.B, where)
	}
	return nil
}

// ordered puts guests behind their host.
func ordered(list []lab.MachineInfo) []lab.MachineInfo {
	var out []lab.MachineInfo
	for _, m := range list {
		if m.Host != "" {
			continue
		}
		out = append(out, m)
		for _, g := range list {
			if g.Host == m.Name {
				out = append(out, g)
			}
		}
	}
	return out
}

func daemonOf(ctx context.Context, l *lab.Lab, m lab.MachineInfo) string {
	if m.State != lab.Up {
		return "-"
	}
	ctx, cancel := context.WithTimeout(ctx, daemonWithin)
	defer cancel()
	s, err := l.Service(ctx, m.Name, "status")
	switch {
	case err != nil:
		return "NO ANSWER"
	case s.Running:
		return "running"
	case s.Crashes > 0:
		return "CRASHED"
	}
	return "off"
}

package cli

import (
	"fmt"
	"strings"

	"github.com/tasuki-ha/tasuki/api"
)

// printOutlets shows the outlets of the node that answers: those that do not
// deliver, all of them if verbose.
func (p *program) printOutlets(s *api.Status, w int, all bool) {
	title := false
	for _, o := range s.Outlets {
		if o.Works && o.Missed == 0 && !all {
			continue
		}
		if !title {
			fmt.Fprintf(p.out, "\noutlets of %s\n", s.Node)
			title = true
		}
		state := "works"
		if !o.Works {
			state = "fails"
		}
		fmt.Fprintf(p.out, "  %-*s  %s  %s, %d events delivered, %d wait", w, o.Name, p.paint(o.Works, state), strings.TrimSpace(o.Kind+" "+o.To), o.Delivered, o.Waiting)
		if o.Missed > 0 {
			fmt.Fprintf(p.out, ", %d could not be delivered", o.Missed)
		}
		if o.Why != "" {
			fmt.Fprintf(p.out, "; since %s: %s", moment(o.Since), o.Why)
		}
		fmt.Fprintln(p.out)
	}
}

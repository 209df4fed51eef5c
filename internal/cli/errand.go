package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/internal/host/priority"
	"github.com/tasuki-ha/tasuki/internal/whatif"
)

// mostMemory is what the answer to a question may take, in bytes: several times what
// it takes of the largest cluster.
const mostMemory = 1 << 30

// errand answers a question that a daemon was asked, in a process of its own: what
// the daemon knows comes on standard input, the answer goes to standard output.
// Nothing on the machine is to wait for it, and the daemon does not believe in it.
func (p *program) errand() *cobra.Command {
	return &cobra.Command{Use: "foresee", Hidden: true, Short: "Answer a question that a daemon hands on", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := priority.Yield(mostMemory); err != nil {
				return err
			}
			var e whatif.Errand
			if err := json.NewDecoder(p.in).Decode(&e); err != nil {
				return fmt.Errorf("read the question: %w", err)
			}
			a := asking{move: e.Asked.Move, fail: e.Asked.Fail, pull: e.Asked.Pull, suppose: e.Asked.Suppose}
			for _, n := range e.Asked.Kill {
				a.kill = append(a.kill, string(n))
			}
			for _, n := range e.Asked.Leave {
				a.leave = append(a.leave, string(n))
			}
			var out whatif.Outcome
			r, err := a.ask(e.Snapshot, e.Log, e.Asked.Apply)
			if err != nil {
				out.Error = explained(cmd, err)
				if out.Error.Code == "usage" {
					out.Error.Code, out.Error.Hint = "bad-request", "tasuki simulate --help tells what can be asked"
				}
			} else {
				out.Simulation = &r
			}
			return json.NewEncoder(p.out).Encode(out)
		}}
}

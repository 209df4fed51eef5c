package guest

import (
	"context"
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab/machine"
)

// labPower switches the guests of a host in a lab, through the lab's
// supervisor.
type labPower struct{ socket string }

// Off kills the machine.
func (p labPower) Off(ctx context.Context, name string) error {
	_, err := p.ask(ctx, name, cluster.PowerOff)
	return err
}

// On boots the machine.
func (p labPower) On(ctx context.Context, name string) error {
	_, err := p.ask(ctx, name, cluster.PowerOn)
	return err
}

// Status asks the supervisor.
func (p labPower) Status(ctx context.Context, name string) (bool, error) {
	return p.ask(ctx, name, cluster.PowerStatus)
}

func (p labPower) ask(ctx context.Context, name string, a cluster.PowerAction) (bool, error) {
	got, err := machine.AskPower(ctx, p.socket, machine.PowerAsk{Machine: name, Action: a})
	if err != nil {
		return false, fmt.Errorf("ask the lab: %w", err)
	}
	switch got {
	case cluster.On:
		return true, nil
	case cluster.Off:
		return false, nil
	}
	return false, fmt.Errorf("the lab says %q", got)
}

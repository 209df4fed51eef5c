package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// PowerSocket is where a host finds the power switches of its guests, as one
// that is no lab finds libvirt. The supervisor of the lab listens there.
const PowerSocket = "/run/tasuki-lab-power.sock"

// PowerAsk asks for one thing; the connection ends with the answer.
type PowerAsk struct {
	Machine string              `json:"machine"`
	Action  cluster.PowerAction `json:"action"`
}

// PowerAnswer is what was found after the action.
type PowerAnswer struct {
	Power cluster.Power `json:"power,omitempty"`
	Error *api.Error    `json:"error,omitempty"`
}

// AskPower asks for one thing and returns the power that the machine then has.
func AskPower(ctx context.Context, socket string, q PowerAsk) (cluster.Power, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return "", err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(c).Encode(q); err != nil {
		return "", err
	}
	var a PowerAnswer
	if err := json.NewDecoder(c).Decode(&a); err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	if a.Error != nil {
		return "", a.Error
	}
	return a.Power, nil
}

// power shows the switches to a host that has guests.
func power(c Config) error {
	if c.Power == "" {
		return nil
	}
	to := filepath.Join(c.Root, PowerSocket)
	if err := os.WriteFile(to, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount(c.Power, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show the power switches: %w", err)
	}
	return nil
}

package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/host"
)

// reserve is how much longer than its drill may take a device stays down at most.
const reserve = time.Minute

// doPull has a process of its own take the device down, which brings it up again
// when it is told to, when this program has died, or when its time is over: who
// sits at the other end of the network that is pulled must not lose the machine.
func (d *drilling) doPull(ctx context.Context, device string) error {
	argv := []string{"drill", "hold-down", device, "--at-most", (d.hold + d.timeout + reserve).String()}
	for _, g := range d.file.Groups {
		for _, r := range g.Resources {
			if r.FloatingIP != nil {
				argv = append(argv, "--except", r.FloatingIP.Address.String())
			}
		}
	}
	c := exec.Command("/proc/self/exe", argv...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.Stderr = d.p.err
	in, err := c.StdinPipe()
	if err != nil {
		return fmt.Errorf("start what holds %s down: %w", device, err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start what holds %s down: %w", device, err)
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("start what holds %s down: %w", device, err)
	}
	said := bufio.NewReader(out)
	if line, _ := said.ReadString('\n'); line != "down\n" {
		_ = in.Close()
		return fmt.Errorf("%s could not be taken down: %w", device, c.Wait())
	}
	d.began = time.Now()
	d.did("took %s down", device)
	held := time.After(d.hold)
	d.await(ctx, d.hold+d.foreseenIn()+awaitsMore) // by what is left of its networks a node may see nothing of it
	select {
	case <-held:
	case <-ctx.Done():
	}
	d.until = time.Now()
	_ = in.Close()
	if err := c.Wait(); err != nil {
		return fmt.Errorf("%s may still be down (ip link set %s up): %w", device, device, err)
	}
	d.did("brought %s up again", device)
	d.returned(ctx)
	return nil
}

// awaitsMore is how much longer than what was foreseen a device stays down where
// it is not seen to have come.
const awaitsMore = 15 * time.Second

// foreseenIn is how long all takes that was foreseen.
func (d *drilling) foreseenIn() time.Duration {
	if n := len(d.will.Steps); n > 0 {
		return d.will.Steps[n-1].After
	}
	return 0
}

// returned waits until every node that was up is up again.
func (d *drilling) returned(ctx context.Context) {
	for end := time.Now().Add(d.timeout); ; {
		s, err := d.p.client().Status(ctx)
		back := err == nil
		for i := range d.before.Nodes {
			back = back && i < len(s.Nodes) && (d.before.Nodes[i].State != cluster.NodeUp || s.Nodes[i].State == cluster.NodeUp)
		}
		if back || !pause(ctx, end) {
			return
		}
	}
}

// holdDown is the process that doPull starts.
func (p *program) holdDown() *cobra.Command {
	var atMost time.Duration
	var except []string
	c := &cobra.Command{Use: "hold-down DEVICE", Hidden: true, Short: "Take a device down until standard input ends", Args: args(1, 1, "a device"),
		Long:    "Take a device down until standard input ends, then bring it up as it was. A drill\nstarts it.",
		Example: "  tasuki drill hold-down eth1 --at-most 10s",
		RunE: func(_ *cobra.Command, a []string) error {
			signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE) // it ends by itself
			network, err := host.NewLinux()
			if err != nil {
				return err
			}
			defer network.Close()
			var floating []netip.Addr
			for _, text := range except {
				if addr, err := netip.ParseAddr(text); err == nil {
					floating = append(floating, addr)
				}
			}
			back, err := network.Pull(a[0], floating)
			if err != nil {
				return &api.Error{Code: "not-pulled", Message: err.Error(), Hint: "ip link show " + a[0]}
			}
			fmt.Fprintln(p.out, "down")
			told := make(chan struct{})
			go func() { _, _ = io.Copy(io.Discard, p.in); close(told) }()
			select {
			case <-told:
			case <-time.After(atMost):
			}
			return back()
		}}
	c.Flags().DurationVar(&atMost, "at-most", 10*time.Second, "bring it up after that, whatever happens")
	c.Flags().StringArrayVar(&except, "except", nil, "an address that is not put back")
	return c
}

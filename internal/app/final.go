package app

import (
	"context"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/script"
)

// systemdWithin is how long an orderly shutdown may take before the kernel is
// asked directly.
const systemdWithin = 30 * time.Second

// takeFinal carries out a final action that ends this node's part. It returns
// only where the daemon itself is to end.
func takeFinal(ctx context.Context, a cluster.FinalAction, log *slog.Logger) {
	log.Error("final action", "action", a)
	unix.Sync()
	switch a {
	case cluster.ActionShutdown:
		orderly(ctx, "poweroff", log)
		reset(unix.LINUX_REBOOT_CMD_POWER_OFF, log)
	case cluster.ActionReboot:
		orderly(ctx, "reboot", log)
		reset(unix.LINUX_REBOOT_CMD_RESTART, log)
	case cluster.ActionPanic:
		// In a namespace of its own, as in a lab, sysrq is out of reach: the
		// write fails and the reset below ends just that namespace.
		if firstNamespace() {
			if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
				log.Error("sysrq", "error", err)
			}
		}
		reset(unix.LINUX_REBOOT_CMD_RESTART, log)
	case cluster.ActionWatchdogReset:
		reset(unix.LINUX_REBOOT_CMD_RESTART, log)
	}
}

// orderly asks systemd, where it runs, and waits for it to end us.
func orderly(ctx context.Context, verb string, log *slog.Logger) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return
	}
	r, err := script.Run(ctx, script.Spec{Path: "/usr/bin/systemctl", Args: []string{verb}, Timeout: 5 * time.Second, Env: []string{"PATH=/usr/bin:/bin"}})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		log.Error("systemd refused", "verb", verb, "error", err)
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(systemdWithin):
	}
}

func reset(cmd int, log *slog.Logger) {
	if err := unix.Reboot(cmd); err != nil {
		log.Error("the kernel refused", "error", err)
	}
}

// firstNamespace says whether this process is in the machine's own PID
// namespace: its number is known by PROC_PID_INIT_INO of the kernel.
func firstNamespace() bool {
	link, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && link == "pid:[4026531836]"
}

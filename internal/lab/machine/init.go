package machine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Init is pid 1 of a machine. It returns only if the machine cannot start or
// go on, and the machine ends with it.
func Init(ctx context.Context) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("this is the first process of a lab's machine, and only tasuki lab up starts it")
	}
	// Delivered and dropped: a machine ends by reboot(2), or when it is killed.
	dropped := make(chan os.Signal, 1)
	signal.Notify(dropped, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE)
	ready := os.NewFile(FDReady, "ready")
	err := boot(ctx, ready)
	fmt.Fprint(ready, err)
	ready.Close()
	return err
}

// boot starts the machine and serves it. It closes ready when all is up.
func boot(ctx context.Context, ready *os.File) error {
	for fd := FDConfig; fd <= FDControl; fd++ {
		unix.CloseOnExec(fd)
	}
	c, err := readConfig()
	if err != nil {
		return err
	}
	if err := build(c); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := os.Setenv("PATH", searchPath); err != nil {
		return err
	}
	listener, err := listenControl()
	if err != nil {
		return err
	}
	kids := newChildren()
	go kids.run(ctx)
	daemon := newService(c.Service, c.Identity, kids)
	go daemon.run(ctx)
	ready.Close()
	return (&control{children: kids, service: daemon, slots: make(chan struct{}, maxCallers)}).run(ctx, listener)
}

func readConfig() (c Config, err error) {
	f := os.NewFile(FDConfig, "config")
	defer f.Close()
	data, err := io.ReadAll(f)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return c, fmt.Errorf("read the machine's configuration: %w", err)
	}
	return c, nil
}

func listenControl() (*net.UnixListener, error) {
	f := os.NewFile(FDControl, "control")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over the control socket: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("the control socket is a %T", l)
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

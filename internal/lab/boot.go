package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/lab/machine"
)

// Time limits of one machine.
const (
	bootWithin  = 20 * time.Second
	endWithin   = 10 * time.Second
	rebootAfter = 100 * time.Millisecond // off to on; bounds a machine that reboots for ever
)

func switchDevice(i int) string { return fmt.Sprintf("switch%d", i) }

// port is the other end of a NIC's cable: in the supervisor's namespace for a
// physical switch, in the host's for a vswitch.
func (s *supervisor) port(m *unit, nic int) (*place, string, string) {
	n := m.spec.NICs[nic]
	if h := s.host(m); h != nil {
		return h.net, fmt.Sprintf("vport%d.%d", m.index, nic), n.VSwitch
	}
	for i, sw := range s.plan.Layout.Switches {
		if sw.Name == n.Switch {
			return s.home, fmt.Sprintf("port%d.%d", m.index, nic), switchDevice(i)
		}
	}
	return s.home, "", "" // the layout is checked: this does not happen
}

// boot starts a machine that is off. The caller holds s.mu, or runs in up.
func (s *supervisor) boot(m *unit) error {
	if h := s.host(m); h != nil && h.state == Off {
		return refuse("tasuki lab boot "+h.spec.Name, "%s cannot boot: its host %s is off", m.spec.Name, h.spec.Name)
	}
	err := s.wire(m)
	if err == nil {
		err = s.attach(m)
	}
	if err == nil {
		err = s.start(m)
	}
	if err == nil {
		err = s.filter(m)
	}
	if err != nil {
		err = fmt.Errorf("boot %s: %w", m.spec.Name, err)
		return errors.Join(err, s.end(m, Off, err.Error()))
	}
	m.state, m.why, m.since, m.follows = Up, "booted", time.Now(), false
	m.boots++
	return nil
}

// wire makes the machine's network: the NICs, for a host the vswitches.
func (s *supervisor) wire(m *unit) error {
	ns, err := s.thread.newNet()
	if err != nil {
		return err
	}
	if m.net, err = openPlace(ns); err != nil {
		ns.Close()
		return err
	}
	m.filtered = false
	if err := m.net.up("lo"); err != nil {
		return err
	}
	for i, n := range m.spec.NICs {
		where, port, bridge := s.port(m, i)
		if err := where.cable(port, bridge, m.net, n.Name, macOf(m.index, i, false), !m.pulled[n.Name]); err != nil {
			return err
		}
		carrier := n.Name
		if m.kind == KindHost {
			carrier = n.VSwitch
			if err := m.net.bridge(n.VSwitch, "vswitch on "+n.Name, macOf(m.index, i, true)); err != nil {
				return err
			}
			if err := m.net.joinBridge(n.Name, n.VSwitch); err != nil {
				return err
			}
		}
		if err := m.net.up(n.Name); err != nil {
			return err
		}
		if err := m.net.address(carrier, s.plan.Layout, m.spec, n); err != nil {
			return err
		}
	}
	return nil
}

// start starts pid 1 and waits until it serves.
func (s *supervisor) start(m *unit) error {
	config, err := s.config(m)
	if err != nil {
		return err
	}
	os.Remove(s.dir.control(m.spec.Name))
	if m.control, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: s.dir.control(m.spec.Name), Net: "unixpacket"}); err != nil {
		return err
	}
	control, err := m.control.File()
	if err != nil {
		return err
	}
	defer control.Close()
	configR, configW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer configR.Close()
	defer configW.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer readyR.Close()
	cmd, err := s.spawn(m, []*os.File{configR, readyW, control})
	readyW.Close()
	if err != nil {
		return fmt.Errorf("start init: %w", err)
	}
	m.pid, m.ended = cmd.Process.Pid, make(chan struct{})
	m.mounts, err = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", m.pid))
	go s.watch(m, cmd, m.ended)
	if err != nil {
		return fmt.Errorf("hold the machine's mounts: %w", err)
	}
	configR.Close()
	configW.SetWriteDeadline(time.Now().Add(bootWithin))
	if _, err := configW.Write(config); err != nil {
		return fmt.Errorf("hand over the configuration: %w", err)
	}
	configW.Close()
	readyR.SetReadDeadline(time.Now().Add(bootWithin))
	text, err := io.ReadAll(io.LimitReader(readyR, 4096))
	if err == nil && len(text) > 0 {
		err = errors.New(string(text))
	}
	return err
}

// spawn starts init in new namespaces within the machine's network.
func (s *supervisor) spawn(m *unit, files []*os.File) (*exec.Cmd, error) {
	log, err := os.OpenFile(s.dir.log(m.spec.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(s.dir.program(), "lab", "machine-init", m.spec.Name)
	cmd.Env = []string{marker + string(s.dir)}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: syscall.SIGKILL,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
	}
	if g := s.group.child(m.spec.Name); g != "" {
		f, err := os.Open(string(g))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(f.Fd())
	}
	return cmd, s.thread.within(m.net.ns, cmd.Start)
}

func (s *supervisor) config(m *unit) ([]byte, error) {
	disk := filepath.Join(s.dir.disks(), m.spec.Name)
	root := filepath.Join(disk, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	c := machine.Config{
		Name: m.spec.Name, Hosts: s.hosts(), Root: root, Disk: disk,
		Program: s.dir.program(), Service: s.plan.Service, Identity: "identity",
	}
	if s.plan.StateSize > 0 {
		c.State = s.dir.state(m.spec.Name)
	}
	if len(s.guests(m)) > 0 {
		c.Power = s.dir.power(m.spec.Name)
	}
	for _, b := range m.blocks {
		c.Disks = append(c.Disks, machine.Disk{Name: b.spec.Name, Number: b.number})
	}
	if m.spec.Witness {
		c.Service, c.Identity = []string{s.plan.Service[0], "witness", "run"}, "witness"
	}
	return json.Marshal(c)
}

// hosts is /etc/hosts of every machine.
func (s *supervisor) hosts() string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, m := range s.all {
		for _, n := range m.spec.NICs {
			for _, a := range n.Addresses {
				fmt.Fprintf(&b, "%s %s\n", a, m.spec.Name)
			}
		}
	}
	return b.String()
}

// watch waits for the end of a machine and does what the end says: reboot(2)
// ends pid 1 by SIGHUP for a restart, by SIGINT for power off.
func (s *supervisor) watch(m *unit, cmd *exec.Cmd, ended chan struct{}) {
	cmd.Wait()
	close(ended)
	ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.ended != ended || s.life.Err() != nil || m.state == Off {
		return // somebody ended it, and knows
	}
	why, again := "its first process ended: "+cmd.ProcessState.String(), false
	switch {
	case ws.Signaled() && ws.Signal() == syscall.SIGHUP:
		why, again = "rebooted", true
	case ws.Signaled() && ws.Signal() == syscall.SIGINT:
		why = "powered off"
	}
	s.log.Info("machine ended", "machine", m.spec.Name, "why", why)
	if err := s.endWithGuests(m, why); err != nil {
		s.log.Error("clean up", "machine", m.spec.Name, "error", err)
	}
	if again {
		m.follows = true
		time.AfterFunc(rebootAfter, func() { s.reboot(m) })
	}
}

// reboot boots a machine that rebooted itself, unless somebody did meanwhile.
func (s *supervisor) reboot(m *unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.state != Off || !m.follows || s.life.Err() != nil {
		return
	}
	if h := s.host(m); h != nil && h.state == Off {
		return // it comes back with its host
	}
	if err := s.bootWithGuests(m); err != nil {
		s.log.Error("reboot", "machine", m.spec.Name, "error", err)
	}
}

func (s *supervisor) bootWithGuests(m *unit) error {
	if err := s.boot(m); err != nil {
		return err
	}
	var errs []error
	for _, g := range s.guests(m) {
		if g.follows {
			errs = append(errs, s.boot(g))
		}
	}
	return errors.Join(errs...)
}

// endWithGuests takes the power from a machine; the guests of a host go first.
func (s *supervisor) endWithGuests(m *unit, why string) error {
	var errs []error
	for _, g := range s.guests(m) {
		if g.state != Off {
			errs = append(errs, s.end(g, Off, "host "+m.spec.Name+" is off"))
			g.follows = true
		}
	}
	return errors.Join(append(errs, s.end(m, Off, why))...)
}

// end kills a machine, if it lives, and removes what belonged to this boot.
func (s *supervisor) end(m *unit, state State, why string) error {
	paused := m.state == Paused
	m.state, m.why, m.since = state, why, time.Now()
	var errs []error
	if m.pid != 0 {
		unix.Kill(m.pid, unix.SIGKILL)
		if err := s.gone(m); err != nil {
			return err
		}
		m.pid = 0
	}
	if paused {
		errs = append(errs, s.thaw(m))
	}
	errs = append(errs, s.detach(m))
	if m.control != nil {
		m.control.Close()
		m.control = nil
	}
	for i := range m.spec.NICs {
		if where, port, _ := s.port(m, i); where != nil && m.net != nil {
			errs = append(errs, where.unplug(port))
		}
	}
	if m.net != nil {
		m.net.close()
		m.net = nil
	}
	return errors.Join(errs...)
}

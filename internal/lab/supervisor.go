package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
)

// Descriptors that Start hands to the supervisor.
const (
	fdLock  = 3 // the flock on the lab's directory
	fdReady = 4 // a pipe for one answer, see verdict
	fdLife  = 5 // a pipe; its end is the end of the lab. Not there: down ends it
)

// Plan is what Start writes for the supervisor into the lab's directory.
type Plan struct {
	Layout    *Layout  `json:"layout"`
	Service   []string `json:"service"`
	StateSize int64    `json:"state_size,omitempty"`
	Attached  bool     `json:"attached"`
}

// supervisor owns a running lab. Its process is alone in a mount and a network
// namespace.
type supervisor struct {
	dir     dir
	plan    Plan
	group   cgroup
	log     *slog.Logger
	thread  *thread
	home    *place // its own network namespace, with the physical switches
	started time.Time
	stop    context.CancelFunc
	life    context.Context

	mu   sync.Mutex // held for a whole operation
	all  []*unit    // in the order of Layout.All
	cuts []Cut
}

// unit is one machine as the supervisor sees it.
type unit struct {
	index    int
	spec     Machine
	kind     Kind
	state    State
	why      string
	since    time.Time
	boots    int
	follows  bool // a guest that ran when its host went away, and comes back with it
	filtered bool
	pulled   map[string]bool // NICs
	net      *place
	pid      int
	ended    chan struct{} // closed when pid 1 has been waited for
	control  *net.UnixListener
	blocks   []*block // of spec.Disks, while it is on
	mounts   *os.File // its mount namespace, which lasts until this is closed
}

// State of a machine.
type State string

// The states of a machine.
const (
	Up     State = "up"
	Paused State = "paused"
	Off    State = "off"
)

// verdict is the supervisor's answer to Start.
type verdict struct {
	Error *api.Error `json:"error,omitempty"`
}

// Supervise runs a lab until ctx ends or it is asked to go down. Start calls
// it in a process of its own; where is the lab's directory.
func Supervise(ctx context.Context, where string) error {
	unix.CloseOnExec(fdLock)
	unix.CloseOnExec(fdReady)
	ready := os.NewFile(fdReady, "ready")
	s, err := newSupervisor(ctx, dir(where))
	if err == nil {
		defer s.stop()
		err = s.up()
	}
	if err != nil {
		json.NewEncoder(ready).Encode(verdict{asError(err)})
		if s != nil {
			s.down()
		}
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.dir.socket(), Net: "unix"})
	if err != nil {
		json.NewEncoder(ready).Encode(verdict{asError(err)})
		s.down()
		return err
	}
	json.NewEncoder(ready).Encode(verdict{})
	ready.Close()
	s.serve(listener)
	return s.down()
}

func newSupervisor(ctx context.Context, d dir) (*supervisor, error) {
	s := &supervisor{
		dir: d, group: labCgroup(string(d)), started: time.Now(),
		log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	data, err := os.ReadFile(d.plan())
	if err == nil {
		err = json.Unmarshal(data, &s.plan)
	}
	if err != nil {
		return nil, fmt.Errorf("read the lab's plan: %w", err)
	}
	s.life, s.stop = context.WithCancel(ctx)
	if s.plan.Attached {
		unix.CloseOnExec(fdLife)
		life := os.NewFile(fdLife, "life")
		go func() {
			life.Read(make([]byte, 1))
			s.stop()
		}()
	}
	for i, m := range s.plan.Layout.All() {
		_, kind, _ := s.plan.Layout.Find(m.Name)
		s.all = append(s.all, &unit{
			index: i, spec: m, kind: kind, state: Off, why: "not booted yet",
			since: s.started, pulled: map[string]bool{},
		})
	}
	return s, nil
}

// up makes the switches and boots everything: guests when their host runs.
func (s *supervisor) up() error {
	if err := s.prepare(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, guests := range []bool{false, true} {
		var g errgroup.Group
		for _, m := range s.all {
			if (m.kind == KindGuest) == guests {
				g.Go(func() error { return s.boot(m) })
			}
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes what all machines share.
func (s *supervisor) prepare() (err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("detach from the mounts outside: %w", err)
	}
	if err := s.disks(); err != nil {
		return err
	}
	if s.thread, err = newThread(); err != nil {
		return err
	}
	ns, err := currentNet()
	if err != nil {
		return err
	}
	if s.home, err = openPlace(ns); err != nil {
		return err
	}
	// Nobody listens on a physical switch, so it needs no addresses.
	os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	quietNet()
	for i, sw := range s.plan.Layout.Switches {
		if err := s.home.bridge(switchDevice(i), "switch "+sw.Name, nil); err != nil {
			return err
		}
	}
	return s.switches()
}

// disks makes sure that overlays can keep their files in the lab's directory;
// if not (it is on an overlay itself), a tmpfs of the supervisor holds them,
// so they still survive a reboot of a machine.
func (s *supervisor) disks() error {
	base := s.dir.disks()
	lower, upper, work, probe := filepath.Join(base, "l"), filepath.Join(base, "u"), filepath.Join(base, "w"), filepath.Join(base, "p")
	for _, d := range []string{lower, upper, work, probe} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	err := unix.Mount("overlay", probe, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work))
	if err == nil {
		err = unix.Unmount(probe, 0)
	} else {
		s.log.Info("the lab's directory cannot hold overlays; files of machines are in memory", "error", err)
		err = unix.Mount("tmpfs", base, "tmpfs", 0, "mode=700")
	}
	if err != nil {
		return fmt.Errorf("prepare the machines' disks: %w", err)
	}
	for _, d := range []string{lower, upper, work, probe} {
		os.RemoveAll(d)
	}
	return s.stateDisks()
}

// stateDisks makes the small disks that the plan may give each machine. They
// are the supervisor's, so they last as long as the lab.
func (s *supervisor) stateDisks() error {
	if s.plan.StateSize == 0 {
		return nil
	}
	for _, m := range s.all {
		d := s.dir.state(m.spec.Name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", d, "tmpfs", 0, fmt.Sprintf("mode=755,size=%d", s.plan.StateSize)); err != nil {
			return fmt.Errorf("make the state disk of %s: %w", m.spec.Name, err)
		}
	}
	return nil
}

// down ends every machine and removes the switches. What it leaves (the
// directory, the cgroup) the caller of Down removes, or Supervise if it is
// attached and nobody will call.
func (s *supervisor) down() error {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.all {
		if m.pid != 0 {
			unix.Kill(m.pid, unix.SIGKILL)
		}
	}
	var errs []error
	for _, m := range s.all {
		errs = append(errs, s.end(m, Off, "the lab goes down"))
	}
	if s.plan.Attached {
		errs = append(errs, s.vanish())
	}
	return errors.Join(errs...)
}

// vanish removes the directory and the cgroup, which the supervisor leaves for
// the topmost one.
func (s *supervisor) vanish() error {
	if s.group != "" {
		if err := os.WriteFile(filepath.Join(cgroupRoot(), "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
		s.group.remove()
	}
	return removeLab(s.dir)
}

// find returns a machine by name.
func (s *supervisor) find(name string) (*unit, error) {
	i := slices.IndexFunc(s.all, func(m *unit) bool { return m.spec.Name == name })
	if i < 0 {
		var names []string
		for _, m := range s.all {
			names = append(names, m.spec.Name)
		}
		return nil, &api.Error{
			Code: "no-machine", Message: fmt.Sprintf("lab %s has no machine %q", s.dir.name(), name),
			Hint: "it has " + strings.Join(names, ", "),
		}
	}
	return s.all[i], nil
}

// host returns the host of a guest, or nil.
func (s *supervisor) host(m *unit) *unit {
	for _, h := range s.all {
		if m.kind == KindGuest && h.spec.Name == m.spec.Host {
			return h
		}
	}
	return nil
}

// guests returns the guests of a host.
func (s *supervisor) guests(h *unit) []*unit {
	var out []*unit
	for _, m := range s.all {
		if s.host(m) == h && h != nil {
			out = append(out, m)
		}
	}
	return out
}

// asError makes an error one for people.
func asError(err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	hint := ""
	switch {
	case errors.Is(err, unix.EPERM):
		hint = "a lab needs root with all capabilities, not only those of a container"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV):
		hint = "the kernel lacks something: a lab needs veth, bridge, overlay and nftables"
	}
	return &api.Error{Code: "lab", Message: err.Error(), Hint: hint}
}

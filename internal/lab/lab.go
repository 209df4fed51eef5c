package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
)

// Options say what lab to start.
type Options struct {
	Layout  *Layout  // default: the reference layout
	Name    string   // default: the layout's name
	Binary  string   // the tasuki of the machines, which also runs the lab; default: this program
	Service []string // the daemon of a machine with an identity; default: /usr/sbin/tasuki daemon
	// StateSize gives each machine a disk of its own for /var/lib/tasuki, of so
	// many bytes of memory, which lasts over boots and can be filled; 0: no more
	// than a directory.
	StateSize int64
	// Attached labs end with the process that started them, however it ends.
	// Others stay until somebody takes them down.
	Attached bool
}

// Lab is a running lab. Its methods can be called from any goroutine, and of a
// lab that was not attached also from any process.
type Lab struct {
	dir  dir
	life *os.File // attached: the supervisor ends when this is closed
	proc *exec.Cmd
	done chan struct{}

	mu     sync.Mutex
	spaces []*Namespace
}

// upWithin bounds the start of a lab.
const upWithin = time.Minute

// Start starts a lab and returns when every machine is up. What is left of a
// dead lab of that name is removed first; a living one is an error.
func Start(ctx context.Context, o Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, &api.Error{Code: "not-root", Message: "a lab needs root", Hint: "run the same command with sudo"}
	}
	if o.Layout == nil {
		l, err := Load("")
		if err != nil {
			return nil, err
		}
		o.Layout = l
	}
	d, err := dirOf(cmp.Or(o.Name, o.Layout.Name))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, upWithin)
	defer cancel()
	lock, err := d.holdNew(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	l := &Lab{dir: d, done: make(chan struct{})}
	if err := l.start(ctx, o, lock); err != nil {
		l.Close()
		clean := context.WithoutCancel(ctx)
		killMarked(d)
		return nil, errors.Join(err, clear(clean, d))
	}
	return l, nil
}

// holdNew takes the directory for a new lab. A supervisor that was killed may
// need a moment to be gone.
func (d dir) holdNew(ctx context.Context) (*os.File, error) {
	lock, err := d.hold()
	if !errors.Is(err, errHeld) {
		return lock, err
	}
	soon, cancel := context.WithTimeout(ctx, hearsWithin)
	defer cancel()
	message := "lab %s is up already"
	if _, err = d.ask(soon, ask{Op: "status"}); err != nil {
		if lock, err = d.waitHold(soon, func() {}); err == nil {
			return lock, nil
		}
		message = "lab %s is on its way up or down, or stuck"
	}
	return nil, &api.Error{
		Code: "lab-up", Message: fmt.Sprintf(message, d.name()),
		Hint: fmt.Sprintf("tasuki lab down --name %s, or take another name with --name", d.name()),
	}
}

func (l *Lab) start(ctx context.Context, o Options, lock *os.File) error {
	if err := l.prepare(ctx, o, lock); err != nil {
		return err
	}
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer readyR.Close()
	if err := l.spawn(o, []*os.File{lock, readyW}); err != nil {
		readyW.Close()
		return fmt.Errorf("start the supervisor: %w", err)
	}
	readyW.Close()
	stop := context.AfterFunc(ctx, func() { readyR.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var v verdict
	if err := json.NewDecoder(readyR).Decode(&v); err != nil {
		log, _ := os.ReadFile(l.dir.log("_supervisor"))
		return fmt.Errorf("the supervisor ended without an answer: %w: %s", cmp.Or(ctx.Err(), err), strings.TrimSpace(string(log)))
	}
	if v.Error != nil {
		return v.Error
	}
	return nil
}

// prepare removes what a dead lab left, and lays out the new one.
func (l *Lab) prepare(ctx context.Context, o Options, lock *os.File) error {
	if err := emptyLab(ctx, l.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(l.dir.disks(), 0o700); err != nil {
		return err
	}
	plan := Plan{Layout: o.Layout, Service: o.Service, StateSize: o.StateSize, Attached: o.Attached}
	if len(plan.Service) == 0 {
		plan.Service = []string{"/usr/sbin/tasuki", "daemon"}
	}
	data, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.dir.plan(), data, 0o600); err != nil {
		return err
	}
	return install(cmp.Or(o.Binary, "/proc/self/exe"), l.dir.program())
}

// emptyLab removes everything of a dead lab but its lock.
func emptyLab(ctx context.Context, d dir) error {
	killMarked(d)
	if err := endProcesses(ctx, d); err != nil {
		return err
	}
	for _, m := range slices.Backward(mountsBelow(string(d))) {
		unix.Unmount(m, unix.MNT_DETACH)
	}
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		if path := string(d) + "/" + e.Name(); path != d.lock() {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// install copies the program: a lab keeps its version while a new one is built.
func install(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return &api.Error{Code: "no-binary", Message: "cannot read the program of the machines: " + err.Error()}
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// spawn starts the supervisor in its own session, mount and network namespace.
func (l *Lab) spawn(o Options, files []*os.File) error {
	log, err := os.OpenFile(l.dir.log("_supervisor"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if o.Attached {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		l.life = w
		files = append(files, r)
	}
	cmd := exec.Command(l.dir.program(), "lab", "supervisor", string(l.dir))
	cmd.Env = []string{marker + string(l.dir), "PATH=" + os.Getenv("PATH"), "TASUKI_LAB_DIR=" + os.Getenv("TASUKI_LAB_DIR")}
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = "/", log, log, files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	if g := labCgroup(string(l.dir)).child("_supervisor"); g != "" {
		f, err := os.Open(string(g))
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(f.Fd())
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		cmd.Wait()
		close(l.done)
	}()
	l.proc = cmd
	return nil
}

// Open returns the running lab of that name. With name "" there must be exactly
// one.
func Open(ctx context.Context, name string) (*Lab, error) {
	if name == "" {
		names := Names()
		switch len(names) {
		case 0:
			return nil, &api.Error{Code: "no-lab", Message: "no lab is up", Hint: "start one with tasuki lab up"}
		case 1:
			name = names[0]
		default:
			return nil, &api.Error{
				Code: "which-lab", Message: "there is more than one lab: " + strings.Join(names, ", "),
				Hint: "name one with --name",
			}
		}
	}
	d, err := dirOf(name)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(string(d)); err != nil {
		return nil, noLab(name)
	}
	l := &Lab{dir: d}
	if _, err := l.Status(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// ask sends one operation to the supervisor.
func (d dir) ask(ctx context.Context, q ask) (*Status, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", d.socket())
	if err != nil {
		return nil, &api.Error{
			Code: "lab-dead", Message: fmt.Sprintf("lab %s does not answer: %v", d.name(), err),
			Hint: fmt.Sprintf("it died or is half-way up; tasuki lab down --name %s removes what is left", d.name()),
		}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var a answer
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return nil, fmt.Errorf("lab %s does not answer: %w", d.name(), cmp.Or(ctx.Err(), err))
	}
	if a.Error != nil {
		return nil, a.Error
	}
	return a.Status, nil
}

func (l *Lab) ask(ctx context.Context, q ask) error {
	_, err := l.dir.ask(ctx, q)
	return err
}

// Name returns the lab's name.
func (l *Lab) Name() string { return l.dir.name() }

// Status returns the state of the lab.
func (l *Lab) Status(ctx context.Context) (*Status, error) {
	return l.dir.ask(ctx, ask{Op: "status"})
}

// Machine returns the state of one machine.
func (l *Lab) Machine(ctx context.Context, name string) (MachineInfo, error) {
	st, err := l.Status(ctx)
	if err != nil {
		return MachineInfo{}, err
	}
	var names []string
	for _, m := range st.Machines {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return MachineInfo{}, &api.Error{
		Code: "no-machine", Message: fmt.Sprintf("lab %s has no machine %q", st.Name, name),
		Hint: "it has " + strings.Join(names, ", "),
	}
}

// Pull takes the cable out of a NIC: it loses its carrier.
func (l *Lab) Pull(ctx context.Context, machine, nic string) error {
	return l.ask(ctx, ask{Op: "pull", Machine: machine, NIC: nic})
}

// Plug puts the cable back.
func (l *Lab) Plug(ctx context.Context, machine, nic string) error {
	return l.ask(ctx, ask{Op: "plug", Machine: machine, NIC: nic})
}

// CutOption narrows a Cut.
type CutOption func(*Cut)

// On cuts one network only.
func On(network netip.Prefix) CutOption { return func(c *Cut) { c.Network = network } }

// OneWay loses only what the first machine sends to the second.
func OneWay() CutOption { return func(c *Cut) { c.OneWay = true } }

// Cut makes two machines lose all frames from each other. It lasts over boots.
func (l *Lab) Cut(ctx context.Context, a, b string, options ...CutOption) error {
	c := Cut{A: a, B: b}
	for _, o := range options {
		o(&c)
	}
	return l.ask(ctx, ask{Op: "cut", Cut: &c})
}

// Heal ends all cuts between two machines.
func (l *Lab) Heal(ctx context.Context, a, b string) error {
	return l.ask(ctx, ask{Op: "heal", Cut: &Cut{A: a, B: b}})
}

// HealAll ends all cuts.
func (l *Lab) HealAll(ctx context.Context) error {
	return l.ask(ctx, ask{Op: "heal", Cut: &Cut{}})
}

// Kill takes the power from a machine, and from its guests if it is a host. Its
// disks keep what was written to them; a file system of them that is mounted is
// cut off, not unmounted.
func (l *Lab) Kill(ctx context.Context, machine string) error {
	return l.ask(ctx, ask{Op: "kill", Machine: machine})
}

// Boot starts a machine that is off, and returns when it is up. The guests that
// ran when a host went off come back with it.
func (l *Lab) Boot(ctx context.Context, machine string) error {
	return l.ask(ctx, ask{Op: "boot", Machine: machine})
}

// Pause stops every process of a machine where it is, and the machine answers
// nothing, as a virtual machine that its host has stopped.
func (l *Lab) Pause(ctx context.Context, machine string) error {
	return l.ask(ctx, ask{Op: "pause", Machine: machine})
}

// Resume lets a paused machine go on.
func (l *Lab) Resume(ctx context.Context, machine string) error {
	return l.ask(ctx, ask{Op: "resume", Machine: machine})
}

// Down takes the lab down and removes everything of it.
func (l *Lab) Down(ctx context.Context) error {
	l.Close()
	err := Down(ctx, l.dir.name())
	var e *api.Error
	if errors.As(err, &e) && e.Code == "no-lab" && l.life != nil {
		return nil // attached: it was gone at once
	}
	return err
}

// Close lets go of the lab: one that is attached ends.
func (l *Lab) Close() {
	l.mu.Lock()
	for _, n := range l.spaces {
		n.close()
	}
	l.spaces = nil
	l.mu.Unlock()
	if l.life != nil {
		l.life.Close()
	}
	if l.life != nil && l.proc != nil {
		<-l.done
	}
}

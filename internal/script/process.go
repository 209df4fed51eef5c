package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that runs, or ran.
type Process struct {
	group  group
	proc   *os.Process // nil if adopted
	began  time.Time
	out    *output // nil if adopted
	stdout *output // where standard output goes: out, or one of its own
	grace  time.Duration
	log    Log

	done   chan struct{}
	result Result // set before done is closed
}

// Identity names a running process beyond the life of this one, so that it can
// be adopted.
type Identity struct {
	PID    int    `json:"pid"`
	Start  uint64 `json:"start"` // field 22 of /proc/PID/stat: ticks after boot
	Boot   string `json:"boot"`
	Cgroup string `json:"cgroup,omitempty"`
}

// lookEvery is how often a group that is being ended is looked at.
const lookEvery = 5 * time.Millisecond

// ErrNotRunning: the process of an identity has ended.
var ErrNotRunning = errors.New("the process does not run any more")

// PID is the process id, which is also that of its session and group.
func (p *Process) PID() int { return p.group.pid }

// Done is closed when the program has ended. Others that it started may live on.
func (p *Process) Done() <-chan struct{} { return p.done }

// Result is how the program ended; before Done it says that this is not known.
func (p *Process) Result() Result {
	select {
	case <-p.done:
		return p.result
	default:
		return Result{ExitCode: -1, Took: time.Since(p.began)}
	}
}

// Identity returns what Adopt needs. ErrNotRunning if it has ended already.
func (p *Process) Identity() (Identity, error) {
	start, err := startTime(p.group.pid)
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: p.group.pid, Start: start, Boot: BootID(), Cgroup: p.group.cgroup}, nil
}

// Stop ends the program and everything that it started: SIGTERM, after the grace
// SIGKILL; the latter early enough to be over when ctx ends. Stopping what has
// ended ends what it left behind. ErrStillRuns if the kernel holds something.
func (p *Process) Stop(ctx context.Context) error {
	grace := p.grace
	if at, ok := ctx.Deadline(); ok {
		left := time.Until(at)
		grace = max(0, min(grace, left-min(left/4, killLimit)))
	}
	if err := p.end(grace, ctx.Done()); err != nil {
		return fmt.Errorf("process %d: %w", p.group.pid, err)
	}
	return nil
}

// wait ends with the program.
func (p *Process) wait() {
	if p.log.Path != "" {
		go p.trim()
	}
	state, err := p.proc.Wait()
	r := Result{ExitCode: -1, Took: time.Since(p.began), Cgroup: p.group.cgroup}
	if err == nil {
		r.ExitCode = state.ExitCode()
		if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			r.Signal = ws.Signal()
		}
	}
	r.Tail, r.Stdout = p.finish()
	r.LogError = p.out.err
	if err := p.log.Trim(); err != nil && r.LogError == nil {
		r.LogError = err
	}
	p.result = r
	dropCgroup(p.group.cgroup)
	close(p.done)
}

// finish follows the end of the program.
func (p *Process) finish() (tail, stdout []byte) {
	tail = p.out.finish()
	if p.stdout != p.out {
		stdout = p.stdout.finish()
	}
	return tail, stdout
}

// end ends the group: SIGTERM, and SIGKILL after grace or when hurry is closed.
func (p *Process) end(grace time.Duration, hurry <-chan struct{}) error {
	var seen members
	p.group.signal(&seen, unix.SIGTERM)
	if p.over(&seen, grace, hurry, func() {}) {
		return nil
	}
	kill := func() { p.group.kill(&seen) }
	kill()
	if p.over(&seen, killLimit, nil, kill) {
		return nil
	}
	return ErrStillRuns
}

// over waits until nothing of the group lives, up to limit; it calls again at
// each look.
func (p *Process) over(seen *members, limit time.Duration, hurry <-chan struct{}, again func()) bool {
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for done := p.done; ; {
		if p.ended() && p.group.empty(seen) {
			dropCgroup(p.group.cgroup)
			return true
		}
		select {
		case <-done:
			done = nil
		case <-tick.C:
			again()
		case <-hurry:
			return false
		case <-end.C:
			return p.ended() && p.group.empty(seen)
		}
	}
}

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Adopt takes over a process that an earlier life of this program started. How
// it ends will not be known. ErrNotRunning if it has ended; the Process is then
// there all the same, to stop what it left behind.
func Adopt(id Identity, l Log) (*Process, error) {
	p := &Process{
		group: group{pid: id.PID, cgroup: id.Cgroup}, began: time.Now(), grace: DefaultGrace,
		log: l, done: make(chan struct{}), result: Result{ExitCode: -1},
	}
	if id.Boot != BootID() {
		p.group = group{} // nothing outlives a boot
		close(p.done)
		return p, ErrNotRunning
	}
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	start, gone := startTime(id.PID)
	if gone != nil || start != id.Start {
		if err == nil {
			_ = unix.Close(fd)
		}
		if gone == nil {
			p.group.pid = 0 // the number is another's now
		}
		close(p.done)
		return p, ErrNotRunning
	}
	if err != nil {
		fd = -1 // a kernel before 5.3: look now and then
	}
	go p.watch(id, fd)
	return p, nil
}

// watch ends with the adopted process.
func (p *Process) watch(id Identity, fd int) {
	defer close(p.done)
	if p.log.Path != "" {
		go p.trim()
	}
	if fd >= 0 {
		f := os.NewFile(uintptr(fd), "pidfd")
		defer func() { _ = f.Close() }()
		if c, err := f.SyscallConn(); err == nil && c.Read(exited) == nil {
			return
		}
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if start, err := startTime(id.PID); err != nil || start != id.Start {
			return
		}
	}
}

// exited says whether the process of a pidfd has ended.
func exited(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0 && err == nil
}

// trim trims the log now and then until the end.
func (p *Process) trim() {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-tick.C:
			_ = p.log.Trim() // reported at the end
		}
	}
}

// BootID names this boot of the machine; "" if the kernel does not tell.
var BootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

// startTime is when the process started. ErrNotRunning if it ended, also if it
// was not waited for yet.
func startTime(pid int) (uint64, error) {
	s, ok := readStat(pid)
	if !ok || s.dead() {
		return 0, fmt.Errorf("%w: %d", ErrNotRunning, pid)
	}
	return s.start, nil
}

// resetOOM undoes for the program what protects this one from the kernel's
// memory killer.
func resetOOM(pid int) {
	if protected() {
		_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("0"), 0) // it may have ended
	}
}

func protected() bool {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	return err == nil && strings.HasPrefix(string(b), "-")
}

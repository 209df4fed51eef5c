// Package priority lets the daemon have its turn on a machine that is
// overloaded or short of memory: real-time scheduling of its threads, its memory
// locked, and the kernel's memory killer told to look elsewhere. What the
// daemon starts gets none of it.
package priority

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// level is the lowest real-time priority: above every ordinary program, below
// what an administrator made real-time on purpose.
const level = 1

// Scheduling policies and flags of sched(7).
const (
	policyOther = 0
	policyRR    = 2
	resetOnFork = 1
)

// niceness is for where real-time scheduling cannot be had, and for a thread that
// has none for a moment.
const niceness = -20

// slack is how late the kernel may end the wait of an ordinary program, so that it
// wakes for several at once (prctl(2), PR_SET_TIMERSLACK): its default.
const slack = 50 * time.Microsecond

// lowest is the niceness of what nobody waits for.
const lowest = 19

// Got is what Raise came to.
type Got struct {
	Have    []string // what could be had
	Missing []string // what could not, each with the reason
}

// String is one line of the log.
func (g Got) String() string {
	s := "has " + strings.Join(g.Have, ", ")
	if len(g.Have) == 0 {
		s = "has no precedence over other programs"
	}
	if len(g.Missing) > 0 {
		s += "; has not: " + strings.Join(g.Missing, "; ")
	}
	return s
}

func (g *Got) note(what string, err error) bool {
	if err != nil {
		g.Missing = append(g.Missing, fmt.Sprintf("%s (%v)", what, err))
		return false
	}
	g.Have = append(g.Have, what)
	return true
}

// Raise raises this process: all threads that it has, and with them all that
// they will make. It never fails; what could not be had is in the answer.
func Raise() Got {
	var g Got
	rr := &unix.SchedAttr{Policy: policyRR, Priority: level}
	if !g.note("real-time priority "+strconv.Itoa(level), everyThread(scheduled(rr))) {
		g.note("nice "+strconv.Itoa(niceness), everyThread(scheduled(&unix.SchedAttr{Policy: policyOther, Nice: niceness})))
	}
	g.note("memory locked", unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT))
	g.note("exempt from the memory killer", os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0))
	return g
}

func scheduled(attr *unix.SchedAttr) func(tid int) error {
	return func(tid int) error { return unix.SchedSetAttr(tid, attr, 0) }
}

// everyThread sets something for all threads. One that is made meanwhile has it
// from its maker, or shows in the next look.
func everyThread(set func(tid int) error) error {
	const looks = 3
	for range looks {
		threads, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			return err
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(filepath.Base(t))
			if err != nil {
				return err
			}
			if err := set(tid); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Ordinary runs f, which starts a process, so that the process has the
// scheduling of every other program. f must start it on the calling goroutine,
// as os.StartProcess does.
func Ordinary(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil || before.Flags&resetOnFork != 0 || before.Policy == policyOther && before.Nice >= 0 {
		return f()
	}
	// A thread that is real-time has no slack, and on newer kernels (seen on 6.18) what it
	// starts has none either, for ever: every short wait of an application would be a
	// wake-up of its own.
	during := unix.SchedAttr{Policy: policyOther, Nice: niceness, Flags: before.Flags | resetOnFork}
	err = unix.SchedSetAttr(0, &during, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0)
	}
	if err != nil {
		err = fmt.Errorf("start a program with ordinary priority: %w", err)
	} else {
		err = f()
	}
	return errors.Join(err, unix.SchedSetAttr(0, before, 0))
}

// Patient lets the waits of this process end late by up to that long, those of all
// threads that it has and will make. A real-time process cannot be.
func Patient(by time.Duration) error {
	err := everyThread(func(tid int) error {
		return os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid), strconv.AppendInt(nil, int64(by), 10), 0)
	})
	if err != nil {
		return fmt.Errorf("let the kernel wake this process late: %w", err)
	}
	return nil
}

// Yield makes this process one that nothing else on the machine waits for: it has a
// processor where nobody else wants it, at most that much memory, and is the first
// that the kernel's memory killer ends.
func Yield(memory uint64) error {
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: memory, Max: memory}); err != nil {
		return fmt.Errorf("bound the memory: %w", err)
	}
	if err := everyThread(scheduled(&unix.SchedAttr{Policy: policyOther, Nice: lowest})); err != nil {
		return fmt.Errorf("lower the priority: %w", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return fmt.Errorf("offer this process to the memory killer: %w", err)
	}
	return nil
}

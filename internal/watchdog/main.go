package watchdog

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// HelperCommand is the hidden subcommand that runs HelperMain.
const HelperCommand = "keepalive-helper"

// inherited is the descriptor of the connection to the daemon that started the
// helper: the first of exec.Cmd.ExtraFiles.
const inherited = 3

// HelperMain is the helper process of method keepalive: it resets the node when
// the daemon, once it has begun, stops feeding. args are those after the name of
// the subcommand. It returns the exit status.
func HelperMain(args []string) int {
	set := flag.NewFlagSet(HelperCommand, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	socket := set.String("socket", "", "where later daemons connect")
	mark := set.String("mark", "", "the file that says that this helper was about to reset the node")
	namespaced := set.Bool("only-in-namespace", false, "refuse to work in the first PID namespace")
	if err := set.Parse(args); err != nil || *socket == "" || set.NArg() > 0 {
		return 2
	}
	// A terminal that hangs up, or a service manager that ends what is left of
	// a dead daemon, must not end its guard.
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2)
	runtime.LockOSThread()
	h := &helper{clock: monotonic, poll: poll, reset: resetNode, trust: trusted, mark: marker(*mark), owner: inherited, listener: -1}
	if err := mayReset(*namespaced); err != nil {
		h.answer(append([]byte{ansRefused}, err.Error()...))
		return 1
	}
	listener, err := listen(*socket)
	if err != nil {
		h.answer(append([]byte{ansRefused}, err.Error()...))
		return 1
	}
	h.listener = listener
	h.retire = func() {
		unix.Close(listener)
		_ = os.Remove(*socket)
	}
	h.greeting = append([]byte{ansReady}, harden()...)
	disarmed, err := h.run()
	if !disarmed {
		h.retire()
	}
	if err != nil {
		return 1
	}
	return 0
}

// mayReset says whether this process can reset the node, and is meant to.
func mayReset(onlyInNamespace bool) error {
	if onlyInNamespace && firstNamespace() {
		return errors.New("this is the machine's first PID namespace, where only a real reset is possible")
	}
	// Without its magic numbers reboot(2) does nothing; the kernel still checks
	// the capability first, and the code that will be needed is in memory.
	if _, _, errno := unix.Syscall(unix.SYS_REBOOT, 0, 0, 0); errno != unix.EINVAL {
		return fmt.Errorf("this process may not reset the node: %w (it needs CAP_SYS_BOOT)", errno)
	}
	return nil
}

// firstNamespace says whether this is the first PID namespace, whose inode
// number is fixed (PROC_PID_INIT_INO of include/linux/proc_ns.h). In doubt it is.
func firstNamespace() bool {
	link, err := os.Readlink("/proc/self/ns/pid")
	return err != nil || link == "pid:[4026531836]"
}

// resetNode resets at once, without sync. In a PID namespace the kernel ends
// that namespace instead (reboot(2)). It returns only if it failed.
func resetNode(why string) error {
	if fd, err := unix.Open("/dev/kmsg", unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
		_, _ = unix.Write(fd, []byte("<2>tasuki: keepalive: "+why+": resetting the node\n"))
		unix.Close(fd)
	}
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// harden makes the helper run when the machine is short of memory and CPU. It
// returns what it could not get, in words.
func harden() string {
	_ = os.WriteFile("/proc/self/comm", []byte("tasuki-watchdog"), 0) // what ps shows; else "exe"
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(16 << 20) // what the collector then keeps to
	var missing []string
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		missing = append(missing, fmt.Sprintf("the kernel may end it when memory is short (%v)", unwrap(err)))
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		missing = append(missing, fmt.Sprintf("its memory is not locked (%v)", err))
	}
	if err := realTime(); err != nil {
		missing = append(missing, fmt.Sprintf("it has no real-time priority (%v)", unwrap(err)))
	}
	return strings.Join(missing, "; ")
}

// realTime puts every thread under SCHED_RR; later threads inherit it.
func realTime() error {
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 50}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil { // the thread of the loop
		return err
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetAttr(id, attr, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

func unwrap(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// listen takes the place of a socket that a dead helper left. Only root of this
// machine can connect: the file is 0600, and see trusted.
func listen(path string) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make the socket %s: %w", path, err)
	}
	_ = os.Remove(path)
	old := unix.Umask(0o177)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	unix.Umask(old)
	if err == nil {
		err = unix.Listen(fd, 4)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make the socket %s: %w", path, err)
	}
	return fd, nil
}

// trusted says whether the other end of a connection is root, or ourselves.
func trusted(fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("ask who is at the other end: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d is at the other end, not root", cred.Uid)
	}
	return nil
}

func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("no monotonic clock: " + err.Error()) // impossible by clock_gettime(2)
	}
	return time.Duration(ts.Nano())
}

func poll(fds []unix.PollFd, timeout time.Duration) (int, error) {
	ms := -1
	if timeout >= 0 {
		ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	return unix.Poll(fds, ms)
}

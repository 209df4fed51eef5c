package watchdog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/config"
)

// The tests below start this test program again in other roles: as the helper,
// as the first process of a PID namespace of its own ("node"), and as a daemon
// in it. Only there a helper is ever armed: every opener here has
// OnlyInNamespace, and a node checks that it is in a namespace of its own.
const (
	roleEnv = "WATCHDOG_TEST_ROLE"
	runEnv  = "WATCHDOG_TEST_RUN"
	homeEnv = "WATCHDOG_TEST_HOME" // the namespace of the test itself
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == HelperCommand {
		os.Exit(HelperMain(os.Args[2:]))
	}
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role); err != nil {
			fmt.Println("role", role+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func namespace() string {
	link, _ := os.Readlink("/proc/self/ns/pid")
	return link
}

// play acts in a namespace of its own, or not at all.
func play(role string) error {
	if home := os.Getenv(homeEnv); home == "" || namespace() == home || namespace() == "" || firstNamespace() {
		return errors.New("this is no namespace of its own")
	}
	if os.Getpid() == 1 {
		if err := ownProc(); err != nil {
			return err
		}
	}
	switch role {
	case "daemon-that-stalls":
		return withDog(300*ms, func(d Dog) error {
			for range 3 {
				if err := d.Feed(time.Minute); err != nil {
					return err
				}
			}
			return forever()
		})
	case "daemon-that-dies":
		return withDog(300*ms, func(Dog) error { return unix.Kill(os.Getpid(), unix.SIGKILL) })
	case "daemon-that-stays":
		return withDog(time.Minute, func(Dog) error { return unix.Kill(os.Getpid(), unix.SIGKILL) })
	case "node-stall":
		return errors.Join(start("daemon-that-stalls", false), forever())
	case "node-death":
		return errors.Join(start("daemon-that-dies", true), forever())
	case "node-takeover":
		return takeover()
	case "node-disarm":
		return disarmAndLook()
	case "node-lost-helper":
		return loseHelper()
	case "node-leftover":
		if err := start("daemon-that-stays", true); err != nil {
			return err
		}
		if err := opener().DisarmLeftover(); err != nil {
			return err
		}
		return nobodyThere()
	}
	return errors.New("no such role")
}

// ownProc mounts the /proc of this PID namespace, seen in this mount namespace
// only.
func ownProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("proc", "/proc", "proc", 0, "")
}

func opener() Opener {
	return Opener{Run: os.Getenv(runEnv), OnlyInNamespace: true, Log: slog.New(slog.NewTextHandler(os.Stdout, nil))}
}

func withDog(timeout time.Duration, do func(Dog) error) error {
	dog, err := opener().Open(config.MethodKeepalive, "", timeout)
	if err != nil {
		return err
	}
	if err := dog.Arm(); err != nil {
		return err
	}
	return do(dog)
}

func forever() error {
	signal.Ignore(unix.SIGTERM)
	<-time.After(30 * time.Second)
	return errors.New("the node was not reset")
}

// start runs a daemon, and waits for its end if it is to die.
func start(role string, dies bool) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if !dies {
		return cmd.Start()
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == unix.SIGKILL {
		return nil
	}
	return fmt.Errorf("%s did not die as it should: %v", role, err)
}

// takeover: the first daemon dies armed, the second one goes on with the same
// helper, outlives the first one's timeout and disarms.
func takeover() error {
	if err := start("daemon-that-stays", true); err != nil {
		return err
	}
	helper, err := helperPID()
	if err != nil {
		return err
	}
	if session, err := unix.Getsid(helper); err != nil || session != helper {
		return fmt.Errorf("the helper is in session %d: %v", session, err)
	}
	if err := unix.Kill(helper, unix.SIGTERM); err != nil { // as a service manager would
		return err
	}
	return withDog(time.Minute, func(d Dog) error {
		if now, err := helperPID(); err != nil || now != helper {
			return fmt.Errorf("helper %d became %d: %v", helper, now, err)
		}
		if err := errors.Join(d.Feed(time.Minute), d.Disarm()); err != nil {
			return err
		}
		return nobodyThere()
	})
}

func disarmAndLook() error {
	return withDog(time.Minute, func(d Dog) error {
		info, err := os.Stat(filepath.Join(os.Getenv(runEnv), socketName))
		if err != nil || info.Mode().Perm() != 0o600 {
			return fmt.Errorf("the socket is %v: %v", info, err)
		}
		if err := d.Disarm(); err != nil {
			return err
		}
		return nobodyThere()
	})
}

// loseHelper: the helper is killed; the daemon notices and arms another one.
func loseHelper() error {
	return withDog(time.Minute, func(d Dog) error {
		helper, err := helperPID()
		if err != nil {
			return err
		}
		if err := unix.Kill(helper, unix.SIGKILL); err != nil {
			return err
		}
		for deadline := time.Now().Add(5 * time.Second); d.Feed(time.Minute) == nil; {
			if time.Now().After(deadline) {
				return errors.New("the daemon did not notice that its helper is gone")
			}
		}
		if err := d.Arm(); err != nil {
			return fmt.Errorf("arm again: %w", err)
		}
		if now, err := helperPID(); err != nil || now == helper {
			return fmt.Errorf("helper %d after %d: %v", now, helper, err)
		}
		return d.Disarm()
	})
}

func nobodyThere() error {
	if link, err := opener().dial(); err != nil || link != nil {
		return fmt.Errorf("a helper is still there: %v", err)
	}
	return nil
}

// helperPID finds the helper in this namespace, whose /proc is mounted.
func helperPID() (int, error) {
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range found {
		if line, _ := os.ReadFile(file); bytes.HasPrefix(line, []byte("tasuki\x00"+HelperCommand)) {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, errors.New("no helper runs")
}

// node runs a role as the first process of a new PID namespace and returns how
// it ended.
func node(t *testing.T, role string) (syscall.WaitStatus, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: PID namespaces")
		}
		t.Skip("needs root: PID namespaces")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role, runEnv+"="+t.TempDir(), homeEnv+"="+namespace())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.Sys().(syscall.WaitStatus), out.String()
}

// wasReset fails unless the namespace ended as reboot(2) says: its first
// process is killed, and its parent sees SIGHUP for a restart.
func wasReset(t *testing.T, role string) {
	t.Helper()
	status, out := node(t, role)
	if !status.Signaled() || status.Signal() != unix.SIGHUP {
		t.Errorf("the node ended with %v (exit %d, signal %v), not by a reset\n%s", status, status.ExitStatus(), status.Signal(), out)
	}
}

func wentWell(t *testing.T, role string) {
	t.Helper()
	if status, out := node(t, role); !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("the node ended with exit %d, signal %v\n%s", status.ExitStatus(), status.Signal(), out)
	}
}

func TestStalledDaemonResetsItsNode(t *testing.T) { t.Parallel(); wasReset(t, "node-stall") }
func TestDeadDaemonResetsItsNode(t *testing.T)    { t.Parallel(); wasReset(t, "node-death") }
func TestNextDaemonTakesTheHelperOver(t *testing.T) {
	t.Parallel()
	wentWell(t, "node-takeover")
}
func TestDisarmLeavesNothing(t *testing.T)     { t.Parallel(); wentWell(t, "node-disarm") }
func TestLostHelperIsReplaced(t *testing.T)    { t.Parallel(); wentWell(t, "node-lost-helper") }
func TestLeftoverOfAFormerDaemon(t *testing.T) { t.Parallel(); wentWell(t, "node-leftover") }
func TestNoHelperInTheFirstNamespace(t *testing.T) {
	if !firstNamespace() {
		t.Skip("this is not the first PID namespace")
	}
	_, err := Opener{Run: t.TempDir(), OnlyInNamespace: true}.Open(config.MethodKeepalive, "", time.Minute)
	if err == nil || !strings.Contains(err.Error(), "first PID namespace") {
		t.Error(err)
	}
}

func TestHelperRefusesStrangeArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"--socket"}, {"--socket", "x", "more"}, {"--bite"}} {
		if got := HelperMain(args); got != 2 {
			t.Errorf("%q: exit status %d", args, got)
		}
	}
}

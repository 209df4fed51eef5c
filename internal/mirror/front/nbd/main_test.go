package nbd

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
)

var vm = flag.String("vm", "", "boot a guest with the kernel whose package is unpacked in this folder, and run the tests there that need its nbd")

var (
	guestTests = flag.String("in", "^TestKernel", "which tests are run in the guest")
	guestBench = flag.String("bench-in", "^$", "which benchmarks are")
	drbd       = flag.String("drbd", "", "the folder in which DRBD's programs are unpacked, for those that need them")
)

// TestMain is four programs: the tests, what a guest runs as its first process, a
// server for a test to kill, and one that dirties memory.
func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case os.Getpid() == 1:
		guest(m)
	case os.Getenv(serveEnv) != "":
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case os.Getenv(dirtyEnv) != "":
		if err := dirtier(os.Getenv(dirtyEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(m.Run())
	}
}

// The environment of a server: the file with its bytes, and whether it resumes.
const (
	serveEnv  = "TASUKI_TEST_NBD_FILE"
	resumeEnv = "TASUKI_TEST_NBD_RESUME"
)

const servedSize = 64 * mib

// serve attaches or resumes a device, writes its number to standard output, and
// serves it until the end.
func serve() error {
	dev, err := fronttest.Map(os.Getenv(serveEnv), servedSize, 512)
	if err != nil {
		return err
	}
	// Whenever the process is killed it has taken something that it has not done.
	dev.Delay = func(fronttest.Seen) time.Duration { return 20 * time.Millisecond }
	opt := options(os.Stderr)
	take := Attach
	if os.Getenv(resumeEnv) != "" {
		take = func(dev front.Device, opt Options) (*Kernel, error) {
			index, _ := Find(opt.Identity)
			return Resume(index, dev, opt)
		}
	}
	k, err := take(dev, opt)
	if err != nil {
		return err
	}
	fmt.Println(k.Index())
	return k.Serve()
}

// guest makes a guest of what the kernel has given to its first process, runs the
// tests, says how they ended, and switches the guest off.
func guest(m *testing.M) {
	for _, fs := range []string{"proc", "sysfs", "devtmpfs", "tmpfs"} {
		at := map[string]string{"proc": "/proc", "sysfs": "/sys", "devtmpfs": "/dev", "tmpfs": "/tmp"}[fs]
		if err := unix.Mount(fs, at, fs, 0, ""); err != nil {
			fmt.Println("guest:", at, err)
		}
	}
	patience = 2 * time.Minute
	_ = os.Setenv("CI", "guest") // nothing that is missing here is an excuse
	_ = os.Setenv("PATH", "/usr/sbin:/sbin")
	if err := errors.Join(loadModules(), loopback()); err != nil {
		fmt.Println("guest:", err)
	}
	fmt.Println(guestEnd, m.Run())
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// guestEnd begins the last line of a guest.
const guestEnd = "guest: the tests ended with"

func loadModules() error {
	list, err := os.ReadDir("/modules") // named in the order in which they need each other
	if err != nil {
		return err
	}
	for _, e := range list {
		f, err := os.Open("/modules/" + e.Name())
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("load %s: %w", e.Name(), err)
		}
	}
	return nil
}

// loopback brings up what two copies in one guest speak over.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err == nil {
		lo.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
	}
	return err
}

// options are those of every test.
func options(log io.Writer) Options {
	return Options{Identity: "tasuki:md1", Dead: 90 * time.Second, Requeue: time.Second, Log: slog.New(slog.NewTextHandler(log, nil))}
}

package watchdog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// fakeDevice keeps to the rules of the kernel's watchdogs: it counts from Open
// on, and Close stops it only after the magic character.
type fakeDevice struct {
	counting, magic bool
	seconds, feeds  int
	least           int // the shortest timeout it can do
	err             error
}

func (d *fakeDevice) SetTimeout(s int) (int, error) {
	d.seconds = max(s, d.least)
	return d.seconds, d.err
}
func (d *fakeDevice) Keepalive() error { d.feeds++; return d.err }
func (d *fakeDevice) Stop() error      { d.magic = true; return nil }
func (d *fakeDevice) Close() error     { d.counting = d.counting && !d.magic; d.magic = false; return nil }

// machine is a fake root directory and its one device.
type machine struct {
	t      *testing.T
	dev    fakeDevice
	opened string
	openAs error
	loaded string
	onLoad func() error
	opener Opener
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t}
	m.opener = Opener{
		root: t.TempDir(),
		open: func(path string) (device, error) {
			m.opened = path
			m.dev.counting = m.openAs == nil
			return &m.dev, m.openAs
		},
		load: func(module string) error {
			m.loaded = module
			return m.onLoad()
		},
	}
	return m
}

func (m *machine) file(path, text string) {
	m.t.Helper()
	path = filepath.Join(m.opener.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) device(node, identity, nowayout string) {
	m.file("/dev/"+node, "")
	m.file("/sys/class/watchdog/"+node+"/identity", identity+"\n")
	m.file("/sys/class/watchdog/"+node+"/nowayout", nowayout+"\n")
}

func (m *machine) module(file string) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		m.t.Fatal(err)
	}
	m.file("/lib/modules/"+unix.ByteSliceToString(u.Release[:])+"/modules.dep", "kernel/fs/ext4.ko: kernel/lib/crc16.ko\n"+file+":\n")
}

// refused fails unless the error is a refusal with that message and a hint.
func refused(t *testing.T, err error, message string) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Message != message || e.Hint == "" || e.Code != refusalCode {
		t.Errorf("%#v, want %q with a hint", err, message)
	}
}

func TestRefusals(t *testing.T) {
	tests := map[string]struct {
		method, device string
		timeout        time.Duration
		prepare        func(m *machine)
		want           string
	}{
		"no softdog": {"softdog", "", time.Minute, func(*machine) {},
			"softdog: /dev/watchdog does not exist and the kernel has no softdog module"},
		"no ipmi": {"ipmi", "", time.Minute, func(m *machine) { m.file("/dev/watchdog", ""); m.device("watchdog0", "iTCO_wdt", "0") },
			`ipmi: /dev/watchdog is "iTCO_wdt" and the kernel has no ipmi_watchdog module`},
		"no device": {"watchdog", "", time.Minute, func(*machine) {},
			"watchdog: /dev/watchdog does not exist"},
		"module that does not load": {"softdog", "", time.Minute, func(m *machine) {
			m.module("kernel/drivers/watchdog/softdog.ko.xz")
			m.onLoad = func() error { return errors.New("key was rejected by service") }
		}, "softdog: the module softdog cannot be loaded: key was rejected by service"},
		"module that makes nothing": {"softdog", "", time.Minute, func(m *machine) {
			m.module("kernel/drivers/watchdog/softdog.ko")
			m.onLoad = func() error { return nil }
		}, "softdog: the module softdog is loaded but made no watchdog device"},
		"other identity": {"softdog", "/dev/watchdog1", time.Minute, func(m *machine) { m.device("watchdog1", "iTCO_wdt", "0") },
			`softdog: /dev/watchdog1 is "iTCO_wdt", not "Software Watchdog"`},
		"nowayout": {"watchdog", "/dev/watchdog1", time.Minute, func(m *machine) { m.device("watchdog1", "iTCO_wdt", "1") },
			"watchdog: /dev/watchdog1 cannot be disarmed once it is armed (nowayout)"},
		"soft_noboot": {"softdog", "", time.Minute, func(m *machine) {
			m.device("watchdog0", "Software Watchdog", "0")
			m.file("/sys/module/softdog/parameters/soft_noboot", "1\n")
		}, "softdog: the module was loaded with soft_noboot=1 and would not reset the node"},
		"not below /dev": {"watchdog", "/etc/passwd", time.Minute, func(*machine) {}, "watchdog: /etc/passwd is not a watchdog device"},
		"too short":      {"watchdog", "", 999 * time.Millisecond, func(*machine) {}, "watchdog: the device counts in whole seconds and cannot keep 999ms"},
		"too long":       {"watchdog", "", 25 * time.Hour, func(*machine) {}, "watchdog: a timeout of 25h0m0s is longer than 24h0m0s"},
		"unknown method": {"sysrq", "", time.Minute, func(*machine) {}, `"sysrq" is not a method of a watchdog`},
		"keepalive too short": {"keepalive", "", time.Millisecond, func(*machine) {},
			"keepalive: a timeout of 1ms is shorter than 100ms"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			tt.prepare(m)
			_, err := m.opener.Open(tt.method, tt.device, tt.timeout)
			refused(t, err, tt.want)
			if m.opened != "" {
				t.Error("a device was opened, and so armed, before it was known to be right")
			}
		})
	}
}

func TestDeviceLife(t *testing.T) {
	m := newMachine(t)
	m.device("watchdog0", "iTCO_wdt", "0")
	m.device("watchdog1", "Software Watchdog", "0")
	dog, err := m.opener.Open(config.MethodSoftdog, "", 4500*ms)
	if err != nil {
		t.Fatal(err)
	}
	if dog.Feed(time.Minute) == nil {
		t.Error("a dog that is not armed was fed")
	}
	if err := errors.Join(dog.Arm(), dog.Feed(time.Minute), dog.Arm()); err != nil {
		t.Fatal(err)
	}
	if m.opened != filepath.Join(m.opener.root, "/dev/watchdog1") || m.dev.seconds != 4 || dog.Timeout() != 4*time.Second || m.dev.feeds != 3 || !m.dev.counting {
		t.Errorf("opened %s, %+v, timeout %v", m.opened, m.dev, dog.Timeout())
	}
	if err := errors.Join(dog.Disarm(), dog.Disarm()); err != nil || m.dev.counting {
		t.Errorf("%v %+v", err, m.dev)
	}
	if err := errors.Join(dog.Arm(), dog.Close(), dog.Close()); err != nil || !m.dev.counting {
		t.Errorf("an armed dog was let go and stopped counting: %v %+v", err, m.dev)
	}
}

func TestModuleIsLoaded(t *testing.T) {
	m := newMachine(t)
	m.module("kernel/drivers/watchdog/softdog.ko.zst")
	m.onLoad = func() error { m.device("watchdog0", "Software Watchdog", "0"); return nil }
	dog, err := m.opener.Open(config.MethodSoftdog, "", time.Minute)
	if err != nil || m.loaded != "softdog" {
		t.Fatal(err, m.loaded)
	}
	if err := dog.Arm(); err != nil {
		t.Error(err)
	}
}

func TestArmFails(t *testing.T) {
	tests := map[string]struct {
		prepare func(m *machine)
		want    string
	}{
		"busy":           {func(m *machine) { m.openAs = &fs.PathError{Err: unix.EBUSY} }, "another program uses"},
		"not root":       {func(m *machine) { m.openAs = &fs.PathError{Err: unix.EACCES} }, "permission denied"},
		"gone":           {func(m *machine) { m.openAs = &fs.PathError{Err: unix.ENODEV} }, "no such device"},
		"coarse device":  {func(m *machine) { m.dev.least = 10 }, "cannot count less than 10 s"},
		"no set timeout": {func(m *machine) { m.dev.err = unix.EOPNOTSUPP }, "operation not supported"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.device("watchdog0", "iTCO_wdt", "0")
			m.file("/dev/watchdog", "")
			tt.prepare(m)
			dog, err := m.opener.Open(config.MethodWatchdog, "", 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if err := dog.Arm(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q in it", err, tt.want)
			}
			if m.dev.counting {
				t.Error("the device was left counting")
			}
		})
	}
}

func TestNone(t *testing.T) {
	dog, err := Opener{}.Open(config.MethodNone, "", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dog.Arm(), dog.Feed(time.Minute), dog.Disarm(), dog.Close()); err != nil || dog.Timeout() != time.Minute {
		t.Error(err)
	}
}

package watchdog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/config"
)

// device is an open watchdog device of the kernel; it counts from the moment it
// is opened (Documentation/watchdog/watchdog-api.rst).
type device interface {
	SetTimeout(seconds int) (actual int, err error)
	Keepalive() error
	Stop() error // writes the magic character: Close then stops the countdown
	Close() error
}

// kind is what a method needs of the kernel.
type kind struct {
	identity string // of the device, as its driver names it
	module   string
}

var kinds = map[string]kind{
	config.MethodSoftdog: {identity: "Software Watchdog", module: "softdog"},
	config.MethodIPMI:    {identity: "IPMI", module: "ipmi_watchdog"},
}

const (
	defaultDevice = "/dev/watchdog"
	modprobeLimit = 10 * time.Second
)

// hardware is a dog of the kernel.
type hardware struct {
	method  string
	path    string
	seconds int
	open    func(path string) (device, error)
	dev     device // nil while not armed
}

// openDevice checks that the device is there and of the right kind. It does not
// open it, because that would arm it.
func (o Opener) openDevice(method, path string, timeout time.Duration) (Dog, error) {
	if timeout < shortestDevice {
		return nil, refuse("choose a longer timeout, or method keepalive", "%s: the device counts in whole seconds and cannot keep %v", method, timeout)
	}
	if o.open == nil {
		o.open = openKernel
	}
	if o.load == nil {
		o.load = modprobe
	}
	node, err := o.find(method, path)
	if err != nil {
		return nil, err
	}
	if o.attribute(node, "nowayout") == "1" {
		return nil, refuse("load its driver with nowayout=0, or use method keepalive",
			"%s: /dev/%s cannot be disarmed once it is armed (nowayout)", method, node)
	}
	return &hardware{method: method, path: filepath.Join(o.root, "/dev", node), seconds: int(timeout / time.Second), open: o.open}, nil
}

// find returns the name of the device below /dev.
func (o Opener) find(method, path string) (node string, err error) {
	k, special := kinds[method]
	if !special || path != "" {
		return o.named(method, path, k)
	}
	if node := o.withIdentity(k.identity); node != "" {
		return node, o.softdogWorks(method)
	}
	if !o.hasModule(k.module) {
		return "", refuse("use method keepalive", "%s: %s and the kernel has no %s module", method, o.devices(), k.module)
	}
	if err := o.load(k.module); err != nil {
		return "", refuse("use method keepalive", "%s: the module %s cannot be loaded: %v", method, k.module, err)
	}
	if node := o.withIdentity(k.identity); node != "" {
		return node, o.softdogWorks(method)
	}
	return "", refuse("use method keepalive", "%s: the module %s is loaded but made no watchdog device", method, k.module)
}

// named checks a device that the file names.
func (o Opener) named(method, path string, k kind) (node string, err error) {
	if path == "" {
		path = defaultDevice
	}
	if filepath.Dir(path) != "/dev" {
		return "", refuse("give a path such as /dev/watchdog0", "%s: %s is not a watchdog device", method, path)
	}
	node = filepath.Base(path)
	if _, err := os.Stat(filepath.Join(o.root, path)); err != nil {
		return "", refuse("load the driver of the watchdog, or use method softdog or keepalive", "%s: %s does not exist", method, path)
	}
	if is := o.attribute(node, "identity"); k.identity != "" && is != k.identity {
		return "", refuse("use method watchdog for it, or leave the device out", "%s: %s is %q, not %q", method, path, is, k.identity)
	}
	return node, o.softdogWorks(method)
}

// softdogWorks refuses a softdog that was told to do nothing.
func (o Opener) softdogWorks(method string) error {
	if method != config.MethodSoftdog {
		return nil
	}
	if o.read("/sys/module/softdog/parameters/soft_noboot") == "1" {
		return refuse("load the module without soft_noboot", "softdog: the module was loaded with soft_noboot=1 and would not reset the node")
	}
	return nil
}

// devices says which devices there are.
func (o Opener) devices() string {
	if _, err := os.Stat(filepath.Join(o.root, defaultDevice)); err != nil {
		return defaultDevice + " does not exist"
	}
	return fmt.Sprintf("%s is %q", defaultDevice, o.attribute("watchdog", "identity"))
}

// withIdentity returns the first device of that identity, or "".
func (o Opener) withIdentity(identity string) string {
	found, _ := filepath.Glob(filepath.Join(o.root, "/sys/class/watchdog/watchdog*"))
	for _, dir := range found {
		if o.attribute(filepath.Base(dir), "identity") == identity {
			return filepath.Base(dir)
		}
	}
	return ""
}

// attribute reads an attribute of /sys/class/watchdog. /dev/watchdog is the old
// name of the first device.
func (o Opener) attribute(node, name string) string {
	if node == "watchdog" {
		node = "watchdog0"
	}
	return o.read(filepath.Join("/sys/class/watchdog", node, name))
}

func (o Opener) read(path string) string {
	b, err := os.ReadFile(filepath.Join(o.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// hasModule says whether the running kernel has the module on disk.
func (o Opener) hasModule(name string) bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	f, err := os.Open(filepath.Join(o.root, "/lib/modules", unix.ByteSliceToString(u.Release[:]), "modules.dep"))
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		file, _, _ := strings.Cut(lines.Text(), ":")
		base, _, isModule := strings.Cut(filepath.Base(file), ".ko")
		if isModule && strings.ReplaceAll(base, "-", "_") == name {
			return true
		}
	}
	return false
}

func modprobe(module string) error {
	var out bytes.Buffer
	cmd := exec.Command("/sbin/modprobe", module)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	limit := time.AfterFunc(modprobeLimit, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

func (h *hardware) Timeout() time.Duration { return time.Duration(h.seconds) * time.Second }

// Arm opens the device. If the device cannot count to what was asked for, it is
// disarmed again.
func (h *hardware) Arm() error {
	if h.dev != nil {
		return h.Feed(h.Timeout())
	}
	dev, err := h.open(h.path)
	switch {
	case errors.Is(err, unix.EBUSY):
		return refuse("end what uses it (wdctl and fuser show it), or use method keepalive", "%s: another program uses %s", h.method, h.path)
	case errors.Is(err, fs.ErrPermission):
		return refuse("run the daemon as root", "%s: %s must not be opened: permission denied", h.method, h.path)
	case err != nil:
		return fmt.Errorf("%s: open %s: %w", h.method, h.path, err)
	}
	h.dev = dev
	actual, err := dev.SetTimeout(h.seconds)
	if err == nil && actual > h.seconds {
		err = refuse(fmt.Sprintf("choose a timeout of at least %d s", actual), "%s: %s cannot count less than %d s", h.method, h.path, actual)
	}
	if err == nil {
		h.seconds = actual
		err = dev.Keepalive()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: set up %s: %w", h.method, h.path, err), h.Disarm())
	}
	return nil
}

func (h *hardware) Feed(time.Duration) error {
	if h.dev == nil {
		return fmt.Errorf("%s: not armed", h.method)
	}
	if err := h.dev.Keepalive(); err != nil {
		return fmt.Errorf("%s: feed %s: %w", h.method, h.path, err)
	}
	return nil
}

func (h *hardware) Disarm() error {
	if h.dev == nil {
		return nil
	}
	err := errors.Join(h.dev.Stop(), h.dev.Close())
	h.dev = nil
	if err != nil {
		return fmt.Errorf("%s: disarm %s: %w", h.method, h.path, err)
	}
	return nil
}

// Close without Disarm leaves out the magic character, so that the kernel goes
// on counting.
func (h *hardware) Close() error {
	if h.dev == nil {
		return nil
	}
	err := h.dev.Close()
	h.dev = nil
	return err
}

// kernelDevice is a device by its ioctls.
type kernelDevice struct{ *os.File }

func openKernel(path string) (device, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return kernelDevice{f}, nil
}

func (d kernelDevice) SetTimeout(seconds int) (actual int, err error) {
	if err := unix.IoctlSetPointerInt(int(d.Fd()), unix.WDIOC_SETTIMEOUT, seconds); err != nil {
		return 0, fmt.Errorf("set the timeout: %w", err)
	}
	actual, err = unix.IoctlGetInt(int(d.Fd()), unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return 0, fmt.Errorf("read the timeout: %w", err)
	}
	return actual, nil
}

func (d kernelDevice) Keepalive() error { return unix.IoctlWatchdogKeepalive(int(d.Fd())) }

func (d kernelDevice) Stop() error {
	_, err := d.Write([]byte{opDisarm})
	return err
}

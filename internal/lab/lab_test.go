package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
)

// The test program is the machines' tasuki too.
func TestMain(m *testing.M) {
	if was, err := Hidden(context.Background(), os.Args[1:]); was {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if len(os.Args) > 2 && os.Args[1] == "act" {
		if err := act(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// act is what the test program does inside machines.
func act(args []string) error {
	switch args[0] {
	case "reboot":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case "poweroff":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case "daemon": // its pid is the answer to everybody
		l, err := net.Listen("tcp", ":7000")
		if err != nil {
			return err
		}
		fmt.Println("daemon listens")
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			fmt.Fprint(c, os.Getpid())
			c.Close()
		}
	case "hold": // the FUSE connection of another process, while waiting for what it serves
		server, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return hold(server, args[2])
	case "up": // start a lab and stay, for somebody to kill
		l, err := Start(context.Background(), Options{Name: args[1], Attached: args[2] == "attached"})
		if err != nil {
			return err
		}
		fmt.Println("up", l.Name())
		select {}
	}
	return fmt.Errorf("unknown act %q", args[0])
}

// hold takes a copy of a /dev/fuse of a process, stops that, and reads what it
// serves.
func hold(server int, device string) error {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/fd/*", server)) // its threads may have different ones
	if err != nil {
		return err
	}
	for _, fd := range fds {
		var thread, n int
		if _, err := fmt.Sscanf(fd, fmt.Sprintf("/proc/%d/task/%%d/fd/%%d", server), &thread, &n); err != nil {
			return err
		}
		if to, err := os.Readlink(fd); err != nil || to != "/dev/fuse" {
			continue
		}
		pidfd, err := unix.PidfdOpen(thread, unix.PIDFD_THREAD)
		if err != nil {
			return err
		}
		if _, err := unix.PidfdGetfd(pidfd, n, 0); err != nil {
			return err
		}
		if err := unix.Kill(server, unix.SIGSTOP); err != nil {
			return err
		}
		for processState(server) != 'T' {
		}
		d, err := unix.Open(device, unix.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			return err
		}
		fmt.Println("reads")
		_, err = unix.Pread(d, disk.Aligned(disk.Alignment), 1<<20)
		return err
	}
	return fmt.Errorf("process %d serves nothing: %v", server, fds)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root: CI must run the lab tests as root")
	}
	t.Skip("needs root: namespaces")
}

// needProgram is for what tools/packages installs.
func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("needs %s: CI must install it, see make test", name)
	}
	t.Skipf("needs %s, see make test", name)
}

// nameOf returns a lab name of this test and process.
func nameOf(t *testing.T) string {
	n := strings.NewReplacer("/", "-", "_", "-", "#", "-").Replace(strings.TrimPrefix(t.Name(), "Test"))
	return fmt.Sprintf("t%d-%.20s", os.Getpid(), n)
}

func start(t *testing.T, layout string) *Lab {
	t.Helper()
	needRoot(t)
	lay, err := Load(layout)
	must(t, err)
	return startLayout(t, lay)
}

func startLayout(t *testing.T, lay *Layout) *Lab {
	t.Helper()
	needRoot(t)
	begun := time.Now()
	l, err := Start(t.Context(), Options{Layout: lay, Name: nameOf(t), Attached: true, Service: []string{"/usr/sbin/tasuki", "act", "daemon"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%s is up in %v", lay.Name, time.Since(begun).Round(time.Millisecond))
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until polls for something that becomes true soon.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if poll(ctx, func() (bool, error) { return f(), nil }) != nil {
		t.Fatal("never: " + what)
	}
}

// listen serves TCP from a machine, out of this process.
func listen(t *testing.T, l *Lab, machine, address string) {
	t.Helper()
	must(t, l.Do(t.Context(), machine, func() error {
		s, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { s.Close() })
		go func() {
			for {
				c, err := s.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		return nil
	}))
}

// reaches says whether a machine can connect.
func reaches(t *testing.T, l *Lab, from, address string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c, err := l.DialContext(from)(ctx, "tcp", address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// carrier reads LOWER_UP of an interface, inside the machine.
func carrier(t *testing.T, l *Lab, machine, nic string) (up bool) {
	t.Helper()
	must(t, l.Do(t.Context(), machine, func() error {
		link, err := netlink.LinkByName(nic)
		if err == nil {
			up = link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
		}
		return err
	}))
	return up
}

func TestCableOfAHost(t *testing.T) {
	l := start(t, "reference")
	ctx := t.Context()
	listen(t, l, "CLP-1", ":80")
	listen(t, l, "bay7-esx", ":81")
	for from, to := range map[string]string{"client": "10.2.102.51:80", "CLP-2": "192.168.10.1:80", "bay7-esx": "10.2.102.51:80", "bay8-esx": "192.168.10.101:81"} {
		if !reaches(t, l, from, to) {
			t.Errorf("%s does not reach %s", from, to)
		}
	}
	told := watchCarrier(t, l, "bay7-esx", "vmnic1")
	must(t, l.Pull(ctx, "bay7-esx", "vmnic1"))
	select {
	case <-told:
	case <-time.After(5 * time.Second):
		t.Error("the host's kernel does not tell that vmnic1 lost its carrier")
	}
	if carrier(t, l, "bay7-esx", "vmnic1") {
		t.Error("vmnic1 has a carrier without a cable")
	}
	if !carrier(t, l, "CLP-1", "eth0") || !carrier(t, l, "bay7-esx", "vswitch1") || !carrier(t, l, "bay7-esx", "vmnic0") {
		t.Error("the guest, or its vswitch, sees the fault")
	}
	if reaches(t, l, "client", "10.2.102.51:80") || reaches(t, l, "CLP-2", "10.2.102.51:80") || reaches(t, l, "client", "10.2.102.17:81") {
		t.Error("reached without a cable")
	}
	if !reaches(t, l, "bay7-esx", "10.2.102.51:80") || !reaches(t, l, "CLP-2", "192.168.10.1:80") {
		t.Error("the vswitch, or the other cable, is dead too")
	}
	if l.Pull(ctx, "bay7-esx", "vmnic1") == nil || l.Pull(ctx, "bay7-esx", "eth0") == nil || l.Pull(ctx, "bay9", "eth0") == nil {
		t.Error("nonsense is accepted")
	}
	must(t, l.Plug(ctx, "bay7-esx", "vmnic1"))
	until(t, "vmnic1 has a carrier again", func() bool { return carrier(t, l, "bay7-esx", "vmnic1") })
	until(t, "the client reaches CLP-1 again", func() bool { return reaches(t, l, "client", "10.2.102.51:80") })
}

// watchCarrier is closed when the machine's kernel says that nic lost its
// carrier.
func watchCarrier(t *testing.T, l *Lab, machine, nic string) <-chan struct{} {
	told, done := make(chan struct{}), make(chan struct{})
	updates := make(chan netlink.LinkUpdate, 64)
	must(t, l.Do(t.Context(), machine, func() error { return netlink.LinkSubscribe(updates, done) }))
	t.Cleanup(func() { close(done) })
	go func() {
		for u := range updates {
			if u.Attrs().Name == nic && u.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 {
				close(told)
				return
			}
		}
	}()
	return told
}

func TestCableOfAGuest(t *testing.T) {
	l := start(t, "reference")
	listen(t, l, "CLP-1", ":80")
	must(t, l.Pull(t.Context(), "CLP-1", "eth0"))
	if carrier(t, l, "CLP-1", "eth0") || !carrier(t, l, "CLP-1", "eth1") || !carrier(t, l, "bay7-esx", "vmnic1") {
		t.Error("not exactly eth0 of CLP-1 lost its carrier")
	}
	if reaches(t, l, "client", "10.2.102.51:80") {
		t.Error("reached without a cable")
	}
	must(t, l.Kill(t.Context(), "CLP-1"))
	must(t, l.Boot(t.Context(), "CLP-1"))
	if carrier(t, l, "CLP-1", "eth0") {
		t.Error("a boot plugged the cable in")
	}
	must(t, l.Plug(t.Context(), "CLP-1", "eth0"))
	until(t, "eth0 has a carrier again", func() bool { return carrier(t, l, "CLP-1", "eth0") })
}

func TestCuts(t *testing.T) {
	l := start(t, "other")
	ctx := t.Context()
	listen(t, l, "shop-b", ":80")
	four, six, bone := "172.30.7.22:80", "[fd5a:7::22]:80", "100.64.9.22:80"
	all := func(want bool, addresses ...string) {
		t.Helper()
		for _, a := range addresses {
			if reaches(t, l, "shop-a", a) != want {
				t.Errorf("shop-a reaches %s: %v", a, !want)
			}
		}
	}
	all(true, four, six, bone)
	must(t, l.Cut(ctx, "shop-a", "shop-b", On(netip.MustParsePrefix("172.30.7.0/25"))))
	all(false, four, six)
	all(true, bone)
	must(t, l.Cut(ctx, "shop-a", "shop-b"))
	all(false, bone)
	must(t, l.Kill(ctx, "shop-a"))
	must(t, l.Boot(ctx, "shop-a"))
	all(false, four, six, bone)
	if !reaches(t, l, "desk", four) {
		t.Error("the client is cut too")
	}
	must(t, l.Heal(ctx, "shop-b", "shop-a"))
	// A neighbor that did not answer is asked again after a second.
	for _, a := range []string{four, six, bone} {
		until(t, "shop-a reaches "+a+" again", func() bool { return reaches(t, l, "shop-a", a) })
	}
	must(t, l.Cut(ctx, "oslo", "shop-b"))
	if reaches(t, l, "oslo", four) {
		t.Error("a host cannot be cut")
	}
	all(true, four)
	must(t, l.HealAll(ctx))
	until(t, "the host reaches shop-b again", func() bool { return reaches(t, l, "oslo", four) })
	for _, err := range []error{
		l.Heal(ctx, "oslo", "bergen"), l.Cut(ctx, "oslo", "oslo"), l.Cut(ctx, "oslo", "x"),
		l.Cut(ctx, "desk", "oslo", On(netip.MustParsePrefix("100.64.9.0/26"))),
	} {
		if err == nil {
			t.Error("nonsense is accepted")
		}
	}
}

func TestCutOneWay(t *testing.T) {
	l := start(t, "three")
	sockets := map[string]*net.UDPConn{}
	for _, m := range []string{"n1", "n2"} {
		must(t, l.Do(t.Context(), m, func() (err error) {
			sockets[m], err = net.ListenUDP("udp4", &net.UDPAddr{Port: 5000})
			return err
		}))
		defer sockets[m].Close()
	}
	arrives := func(from, to, address string) bool {
		sockets[from].WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(address))
		sockets[to].SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := sockets[to].Read(make([]byte, 8))
		return err == nil
	}
	if !arrives("n1", "n2", "10.10.1.2:5000") || !arrives("n2", "n1", "10.10.1.1:5000") {
		t.Fatal("nothing arrives at all")
	}
	must(t, l.Cut(t.Context(), "n1", "n2", OneWay()))
	if arrives("n1", "n2", "10.10.1.2:5000") {
		t.Error("n1 is heard")
	}
	if !arrives("n2", "n1", "10.10.1.1:5000") {
		t.Error("n2 is not heard")
	}
}

// answer asks the test's daemon on a machine for its process id.
func answerOf(t *testing.T, l *Lab, from, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c, err := l.DialContext(from)(ctx, "tcp", address)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	b := make([]byte, 16)
	n, _ := c.Read(b)
	return string(b[:n])
}

func TestKillAndBootAHost(t *testing.T) {
	l := start(t, "reference")
	ctx := t.Context()
	must(t, l.WriteFile(ctx, "CLP-1", "/etc/tasuki/identity", 0o600, []byte("me")))
	must(t, l.WriteFile(ctx, "CLP-1", "/run/note", 0o600, []byte("me")))
	if _, err := l.Service(ctx, "CLP-1", "start"); err != nil {
		t.Fatal(err)
	}
	until(t, "the daemon answers", func() bool { return answerOf(t, l, "client", "10.2.102.51:7000") != "" })
	guest, _ := l.Machine(ctx, "CLP-1")
	must(t, l.Kill(ctx, "bay7-esx"))
	if err := syscall.Kill(guest.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Error("the guest outlives its host")
	}
	for _, m := range []string{"bay7-esx", "CLP-1"} {
		if i, _ := l.Machine(ctx, m); i.State != Off || i.PID != 0 {
			t.Errorf("%+v", i)
		}
	}
	if _, err := l.Exec(ctx, "CLP-1", "true"); err == nil || !strings.Contains(err.Error(), "host bay7-esx is off") {
		t.Error(err)
	}
	if l.Boot(ctx, "CLP-1") == nil || l.Kill(ctx, "CLP-1") == nil || l.Boot(ctx, "CLP-2") == nil {
		t.Error("nonsense is accepted")
	}
	must(t, l.Boot(ctx, "bay7-esx"))
	until(t, "the daemon answers again", func() bool { return answerOf(t, l, "client", "10.2.102.51:7000") != "" })
	r, err := l.Exec(ctx, "CLP-1", "cat", "/etc/tasuki/identity", "/run/note")
	if err != nil || r.Stdout != "me" || r.Code == 0 {
		t.Errorf("disks must survive a boot, /run must not: %+v %v", r, err)
	}
	if i, _ := l.Machine(ctx, "CLP-1"); i.Boots != 2 || i.State != Up {
		t.Errorf("%+v", i)
	}
	if b, err := os.ReadFile(guest.Logs + "/tasuki/daemon.log"); err != nil || strings.Count(string(b), "daemon listens") != 2 {
		t.Errorf("%q %v", b, err)
	}
}

func TestRebootFromInside(t *testing.T) {
	l := start(t, "reference")
	ctx := t.Context()
	boots := func(m string) (int, State) {
		i, err := l.Machine(ctx, m)
		must(t, err)
		return i.Boots, i.State
	}
	l.Exec(ctx, "CLP-1", "tasuki", "act", "reboot")
	until(t, "CLP-1 boots again", func() bool { n, s := boots("CLP-1"); return n == 2 && s == Up })
	l.Exec(ctx, "bay8-esx", "tasuki", "act", "reboot")
	until(t, "the host boots again, and its guest", func() bool { n, s := boots("CLP-2"); return n == 2 && s == Up })
	l.Exec(ctx, "CLP-1", "tasuki", "act", "poweroff")
	until(t, "CLP-1 is off", func() bool { _, s := boots("CLP-1"); return s == Off })
	if i, _ := l.Machine(ctx, "CLP-1"); i.Why != "powered off" {
		t.Errorf("%+v", i)
	}
	must(t, l.Boot(ctx, "CLP-1"))
	i, err := l.Machine(ctx, "CLP-1")
	must(t, err)
	must(t, syscall.Kill(i.PID, syscall.SIGKILL))
	until(t, "the supervisor sees that CLP-1 died", func() bool { _, s := boots("CLP-1"); return s == Off })
	listen(t, l, "CLP-2", ":80")
	if !reaches(t, l, "client", "10.2.102.52:80") {
		t.Error("another machine was hit")
	}
}

func TestPause(t *testing.T) {
	l := start(t, "single")
	ctx := t.Context()
	must(t, l.WriteFile(ctx, "n1", "/etc/tasuki/identity", 0o600, nil))
	if _, err := l.Service(ctx, "n1", "start"); err != nil {
		t.Fatal(err)
	}
	until(t, "the daemon answers", func() bool { return answerOf(t, l, "client", "10.30.1.1:7000") != "" })
	check := func() {
		t.Helper()
		if got := answerOf(t, l, "client", "10.30.1.1:7000"); got != "" {
			t.Errorf("a paused machine answers %q", got)
		}
	}
	must(t, l.Pause(ctx, "n1"))
	check()
	if _, err := l.Exec(ctx, "n1", "true"); err == nil {
		t.Error("a paused machine runs commands")
	}
	must(t, l.Resume(ctx, "n1"))
	until(t, "the daemon answers again", func() bool { return answerOf(t, l, "client", "10.30.1.1:7000") != "" })

	i, err := l.Machine(ctx, "n1")
	must(t, err)
	without := &supervisor{} // as where there is no cgroup
	must(t, without.freeze(ctx, &unit{pid: i.PID}, true))
	check()
	must(t, without.freeze(ctx, &unit{pid: i.PID}, false))
	until(t, "the daemon answers again", func() bool { return answerOf(t, l, "client", "10.30.1.1:7000") != "" })

	must(t, l.Pause(ctx, "n1"))
	must(t, l.Kill(ctx, "n1"))
	must(t, l.Boot(ctx, "n1"))
	until(t, "the daemon answers after a boot", func() bool { return answerOf(t, l, "client", "10.30.1.1:7000") != "" })
}

func TestServiceOfAMachine(t *testing.T) {
	l := start(t, "single")
	ctx := t.Context()
	if _, err := l.Service(ctx, "n1", "start"); err == nil || !strings.Contains(err.Error(), "identity") {
		t.Errorf("started without an identity: %v", err)
	}
	must(t, l.WriteFile(ctx, "n1", "/etc/tasuki/identity", 0o600, nil))
	st, err := l.Service(ctx, "n1", "start")
	must(t, err)
	if !st.Running || st.PID == 0 {
		t.Fatalf("%+v", st)
	}
	if r, err := l.Exec(ctx, "n1", "kill", "-9", fmt.Sprint(st.PID)); err != nil || r.Code != 0 {
		t.Fatal(r, err)
	}
	until(t, "it is restarted after a crash", func() bool {
		again, err := l.Service(ctx, "n1", "status")
		return err == nil && again.Running && again.PID != st.PID && again.Crashes == 1
	})
	st, err = l.Service(ctx, "n1", "stop")
	if err != nil || st.Running || st.Why != "stopped on request" {
		t.Errorf("%+v %v", st, err)
	}
	if _, err := l.Service(ctx, "n1", "dance"); err == nil {
		t.Error("nonsense is accepted")
	}
}

package lab

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// thread is one thread of the kernel that lives as long as the process. The
// machines' init processes are its children, so they get their death signal
// when the process ends and not when the Go runtime retires a thread.
type thread struct{ work chan func() }

// dropped is what no machine can do, since no namespace would contain it.
var dropped = []uintptr{unix.CAP_SYS_TIME, unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO}

// newThread starts the thread; children of it lack the dropped capabilities.
func newThread() (*thread, error) {
	t := &thread{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range t.work {
			f()
		}
	}()
	return t, t.do(func() error {
		for _, c := range dropped {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				return fmt.Errorf("drop a capability of the machines: %w", err)
			}
		}
		return nil
	})
}

// do runs f on the thread.
func (t *thread) do(f func() error) error {
	err := make(chan error)
	t.work <- func() { err <- f() }
	return <-err
}

// within runs f on the thread, in a network namespace.
func (t *thread) within(ns *os.File, f func() error) error {
	return t.do(func() error {
		home, err := currentNet()
		if err != nil {
			return err
		}
		defer home.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			panic("lab: a thread is lost in a network namespace: " + back.Error())
		}
		return err
	})
}

// newNet makes a network namespace that lives as long as the file is open or a
// process is in it.
func (t *thread) newNet() (ns *os.File, err error) {
	err = t.do(func() error {
		home, err := currentNet()
		if err != nil {
			return err
		}
		defer home.Close()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if ns, err = currentNet(); err == nil {
			quietNet()
		}
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			panic("lab: a thread is lost in a network namespace: " + back.Error())
		}
		return err
	})
	return ns, err
}

func currentNet() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// quietNet sets what a new network namespace may have inherited from the real
// machine, for the namespace of the calling thread. A kernel without one of
// these has nothing to switch off.
func quietNet() {
	for _, s := range []struct{ key, value string }{
		{"ipv4/ip_forward", "0"},
		{"ipv6/conf/all/forwarding", "0"},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		{"ipv4/conf/all/arp_ignore", "0"},
		{"ipv4/conf/default/arp_ignore", "0"},
		{"ipv6/conf/all/disable_ipv6", "0"},
		{"ipv6/conf/default/disable_ipv6", "0"},
		{"ipv4/ping_group_range", "0 2147483647"},
		{"bridge/bridge-nf-call-iptables", "0"},
		{"bridge/bridge-nf-call-ip6tables", "0"},
		{"bridge/bridge-nf-call-arptables", "0"},
	} {
		os.WriteFile("/proc/sys/net/"+s.key, []byte(s.value), 0)
	}
}
